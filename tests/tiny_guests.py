"""Guests of a few instructions: what each does is in its text.

A guest starts in KSEG0 with a0 to a3 as UHI says; s0 is made to point to the UART in KSEG1, s1 to
the power registers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import tiny_kernel

from disco._engine import assemble

PROLOGUE = """
        lui   s0, 0xbf00
        lui   s1, 0xbf00
        ori   s1, s1, 0x1000
"""

#: Behind each guest: prints the byte in a0 and returns; powers off with the status in a0.
EPILOGUE = """
print:  jr    ra
        sb    a0, 0(s0)
off:    sll   a0, a0, 8
        ori   a0, a0, 5
        sw    a0, 4(s1)
hang:   b     hang
        nop
"""

PRINT_OK = """
        li    a0, 'o'
        bal   print
        nop
        li    a0, 'k'
        bal   print
        nop
        move  a0, zero
        b     off
        nop
"""

#: Works for a while, so that it ends later than a neighbour that fails at once.
LATE_OK = (
    """
        li    t0, 400000
wait:   bnez  t0, wait
        addiu t0, t0, -1
"""
    + PRINT_OK
)

LOOP_WITH_INTERRUPTS_OFF = """
        di
loop:   b     loop
        nop
"""

#: No RAM and no device is there, and neither is anything at the exception vector of a CPU after reset.
JUMP_TO_NOWHERE = """
        lui   t0, 0xb800
        jr    t0
        nop
"""

ENABLE_64_BIT_ADDRESSES = """
        mfc0  t0, c0_status
        ori   t0, t0, 0x80
        mtc0  t0, c0_status
        ehb
"""

READ_BEYOND_MEMORY = (
    ENABLE_64_BIT_ADDRESSES
    + """
        dli   t0, 0x9000000400000000
        ld    t1, 0(t0)
"""
)

EXECUTE_A_DEVICE = """
        jr    s0
        nop
"""


def touch(ranges: Iterable[tuple[int, int]]) -> str:
    """Writes to each page of these ranges of physical memory: first byte, bytes."""
    loops = (
        f"""
        dli   t0, {0x9800_0000_0000_0000 + base:#x}
        dli   t1, {0x9800_0000_0000_0000 + base + size:#x}
touch{number}: sd t0, 8(t0)
        daddiu t0, t0, 0x1000
        bne   t0, t1, touch{number}
        nop
"""
        for number, (base, size) in enumerate(ranges)
    )
    return ENABLE_64_BIT_ADDRESSES + "".join(loops) + PRINT_OK


TOUCH_ALL_MEMORY = touch([(0, 32 << 20)])

#: At the start of each page that the guest `KEEP_SECRETS` writes.
SECRET = 0x5EC2_E75E_C2E7_5EC2

#: Writes the secret to each page of its second MiB, and stays.
KEEP_SECRETS = (
    ENABLE_64_BIT_ADDRESSES
    + f"""
        dli   t0, 0x9800000000200000
        dli   t1, 0x9800000000300000
        dli   t2, {SECRET:#x}
write:  sd    t2, 0(t0)
        daddiu t0, t0, 0x1000
        bne   t0, t1, write
        nop
        li    a0, 's'
        bal   print
        nop
stay:   b     stay
        nop
"""
)


def spy(page_count: int) -> str:
    """Looks for the secret at the start of each physical page below `page_count`.

    Each page is read in two ways: through XKPHYS, and through a TLB entry of the guest's own making.
    Prints "!" for each secret found, and powers off with status 0. An exception skips the load.
    """
    return f"""
        mtc0  zero, c0_wired
        la    t0, skip
        lui   t1, 0x8000
        addiu t2, zero, 5
copy:   lw    t3, 0(t0)
        sw    t3, 0x180(t1)
        sw    t3, 0x080(t1)
        addiu t0, t0, 4
        addiu t1, t1, 4
        addiu t2, t2, -1
        bnez  t2, copy
        nop
        li    t0, 0x80
        mtc0  t0, c0_status
        ehb
        dli   s2, 0x9800000000000000
        dli   s3, {page_count << 12:#x}
        daddu s3, s3, s2
        dli   s4, {SECRET:#x}
        li    s5, 0
look:   li    t0, 0
        ld    t0, 0(s2)
        bne   t0, s4, by_tlb
        nop
        bal   found
        nop
by_tlb: li    t0, 0x40000000
        dmtc0 t0, c0_entryhi
        ori   t1, s5, 0x1f
        dmtc0 t1, c0_entrylo0
        dmtc0 t1, c0_entrylo1
        mtc0  zero, c0_pagemask
        mtc0  zero, c0_index
        ehb
        tlbwi
        ehb
        li    t2, 0
        ld    t2, 0(t0)
        bne   t2, s4, next
        nop
        bal   found
        nop
next:   daddiu s5, s5, 0x40
        daddiu s2, s2, 0x1000
        bne   s2, s3, look
        nop
        move  a0, zero
        b     off
        nop
found:  li    a0, '!'
        sb    a0, 0(s0)
        jr    ra
        nop
skip:   dmfc0 k0, c0_epc
        daddiu k0, k0, 4
        dmtc0 k0, c0_epc
        ehb
        eret
"""


WAIT_FOR_EVER = """
        mtc0  zero, c0_compare
        mfc0  t0, c0_status
        li    t1, 0xff01
        nor   t1, t1, zero
        and   t0, t0, t1
        mtc0  t0, c0_status
        ehb
        wait
"""

#: Until the timer is due: 40 ms.
WAIT_A_WHILE = """
        mfc0  t0, c0_count
        li    t1, 4000000
        addu  t0, t0, t1
        mtc0  t0, c0_compare
        mfc0  t0, c0_status
        li    t1, 0x8001
        or    t0, t0, t1
        xori  t0, t0, 1
        mtc0  t0, c0_status
        ehb
        wait
"""

RESET = """
        li    t0, 0x42
        sw    t0, 0(s1)
"""


def guest(folder: Path, name: str, source: str, *, bits: int = 64) -> Path:
    """The guest as a kernel file."""
    path = folder / f"{name}.elf"
    path.write_bytes(
        tiny_kernel.elf(assemble(PROLOGUE + source + EPILOGUE, tiny_kernel.BASE), bits=bits)
    )
    return path
