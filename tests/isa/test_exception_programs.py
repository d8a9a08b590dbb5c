"""Exceptions end to end: small kernels with real handlers on the bare CPU.

Expected values are from MIPS64 Architecture For Programmers volume III, "Exceptions". What each
exception writes in CP0 from every state is checked against a model by the tests of engine/machine;
here whole programs must come to their result.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import pytest

from disco._engine import BareCpu, assemble

KSEG0 = 0xFFFF_FFFF_8000_0000
MAIN, USER, DATA, TABLE = 0x10_0000, 0x18_0000, 0x30_0000, 0x80_0000
MEMORY_BYTES = 0x100_0000
REFILL, XTLB_REFILL, GENERAL, INTERRUPT = 0x000, 0x080, 0x180, 0x200
VECTORS = (REFILL, XTLB_REFILL, GENERAL, INTERRUPT)

COUNT, COMPARE, STATUS, CAUSE, EPC = (9, 0), (11, 0), (12, 0), (13, 0), (14, 0)
CONTEXT, BAD_VADDR, ENTRY_HI, XCONTEXT = (4, 0), (8, 0), (10, 0), (20, 0)

IE, EXL, USER_MODE, UX, KX = 1, 2, 1 << 4, 1 << 5, 1 << 7
IM2, IM7, TS, CU1, FR = 1 << 10, 1 << 15, 1 << 21, 1 << 29, 1 << 26
BD, IV = 1 << 31, 1 << 23

#: ExcCode by the manual's name.
MOD, TLBL, TLBS, ADEL, ADES = 1, 2, 3, 4, 5
SYS, BP, RI, CPU, OV, TR = 8, 9, 10, 11, 12, 13
FPE, TLBRI, TLBXI, MCHECK = 15, 19, 20, 24


class Kernel:
    """A bare CPU with handlers; a vector without one says where it is in k0 and stops."""

    def __init__(self, handlers: dict[int, str] | None = None, *, status: int = KX) -> None:
        self.cpu = BareCpu(memory_bytes=MEMORY_BYTES)
        for vector in VECTORS:
            self.write(vector, (handlers or {}).get(vector, f"li k0, {vector + 1}\nwait"))
        self.cpu.write_cp0(*STATUS, status)

    def write(self, address: int, text: str) -> None:
        self.cpu.write_memory(address, assemble(text, KSEG0 + address))

    def run(self, text: str, *, cycles_max: int = 1_000_000) -> None:
        """Runs the kernel's program to the first WAIT."""
        self.write(MAIN, text)
        self.cpu.pc = KSEG0 + MAIN
        stop = self.cpu.run(self.cpu.now + cycles_max)
        assert stop == "wait", f"stopped with {stop!r} at {self.cpu.pc:#x}"

    def cp0(self, register: tuple[int, int]) -> int:
        return self.cpu.read_cp0(*register)

    @property
    def exc_code(self) -> int:
        return self.cp0(CAUSE) >> 2 & 31

    @property
    def vector(self) -> int:
        """The vector that stopped."""
        return self.cpu.gpr[26] - 1

    def doubles(self, address: int, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}Q", self.cpu.read_memory(address, 8 * count))


def map_pair(*, index: int, vaddr: int, even: int, odd: int) -> str:
    """Code that writes a TLB entry for two pages of 4 KiB."""
    return f"""
        mtc0 zero, c0_pagemask
        li t8, {index}
        mtc0 t8, c0_index
        li t8, {vaddr}
        dmtc0 t8, c0_entryhi
        dli t8, {even}
        dmtc0 t8, c0_entrylo0
        dli t8, {odd}
        dmtc0 t8, c0_entrylo1
        tlbwi
    """


def entry_lo(address: int, *, dirty: bool = True, valid: bool = True, more: int = 0) -> int:
    """An EntryLo of a cached global page."""
    return address >> 12 << 6 | 3 << 3 | dirty << 2 | valid << 1 | 1 | more


# -- one exception: where it leads and what it says -----------------------------------------------


@dataclass(frozen=True)
class Case:
    """A program whose instruction after the line `-->` (or the branch before it) raises."""

    name: str
    text: str
    vector: int
    code: int
    bad_vaddr: int | None = None
    status: int = KX
    in_slot: bool = False


SMALL = 0x1000_0000  # in xuseg and useg
ODD = SMALL + 4096
FAR = 0x40_0000_0000  # beyond useg
CLEAN = map_pair(
    index=3, vaddr=SMALL, even=entry_lo(DATA, dirty=False), odd=entry_lo(0, valid=False)
)
GUARDED = "li t8, 0xe8000000\nmtc0 t8, c0_pagegrain" + map_pair(
    index=3, vaddr=SMALL, even=entry_lo(DATA, more=1 << 63), odd=entry_lo(MAIN, more=1 << 62)
)

CASES = [
    Case(
        "a refill without 64-bit addresses",
        f"li t0, {SMALL}\n-->\nlw t1, 8(t0)",
        REFILL,
        TLBL,
        SMALL + 8,
    ),
    Case("a store's refill", f"li t0, {SMALL}\n-->\nsd t1, 8(t0)", REFILL, TLBS, SMALL + 8),
    Case(
        "a refill with 64-bit addresses",
        f"dli t0, {FAR}\n-->\nlw t1, 0(t0)",
        XTLB_REFILL,
        TLBL,
        FAR,
        KX | UX,
    ),
    Case(
        "a refill in xkseg",
        f"dli t0, {3 << 62}\n-->\nlb t1, 1(t0)",
        XTLB_REFILL,
        TLBL,
        (3 << 62) + 1,
    ),
    Case("a refill of a fetch", f"li t0, {SMALL}\njr t0\nnop", REFILL, TLBL, SMALL),
    Case(
        "a refill inside a handler",
        f"li t0, {SMALL}\n-->\nlw t1, 0(t0)",
        GENERAL,
        TLBL,
        SMALL,
        KX | EXL,
    ),
    Case("an invalid page", f"{CLEAN}li t0, {ODD}\n-->\nlw t1, 4(t0)", GENERAL, TLBL, ODD + 4),
    Case(
        "a store to an invalid page",
        f"{CLEAN}li t0, {ODD}\n-->\nsw t1, 0(t0)",
        GENERAL,
        TLBS,
        ODD,
    ),
    Case(
        "a store to a clean page",
        f"{CLEAN}li t0, {SMALL}\n-->\nsb t1, 3(t0)",
        GENERAL,
        MOD,
        SMALL + 3,
    ),
    Case(
        "a load of a page without read",
        f"{GUARDED}li t0, {SMALL}\n-->\nld t1, 0(t0)",
        GENERAL,
        TLBRI,
        SMALL,
    ),
    Case(
        "a fetch of a page without execute",
        f"{GUARDED}li t0, {ODD}\njr t0\nnop",
        GENERAL,
        TLBXI,
        ODD,
    ),
    Case(
        "a second entry for an address",
        CLEAN + map_pair(index=4, vaddr=SMALL, even=1, odd=1).replace("tlbwi", "-->\ntlbwi"),
        GENERAL,
        MCHECK,
    ),
    Case(
        "a misaligned load",
        "lui t0, 0x8030\n-->\nlh t1, 1(t0)",
        GENERAL,
        ADEL,
        KSEG0 + 0x30_0001,
    ),
    Case(
        "a misaligned store",
        "lui t0, 0x8030\n-->\nsd t1, 4(t0)",
        GENERAL,
        ADES,
        KSEG0 + 0x30_0004,
    ),
    Case(
        "a misaligned load linked",
        "lui t0, 0x8030\n-->\nlld t1, 4(t0)",
        GENERAL,
        ADEL,
        KSEG0 + 0x30_0004,
    ),
    Case(
        "a hole between the segments",
        f"dli t0, {1 << 40}\n-->\nlb t1, 0(t0)",
        GENERAL,
        ADEL,
        1 << 40,
        KX | UX,
    ),
    Case(
        "a 64-bit address that is not enabled",
        f"dli t0, {FAR}\n-->\nlb t1, 0(t0)",
        GENERAL,
        ADEL,
        FAR,
    ),
    Case(
        "a misaligned target",
        "lui t0, 0x8010\nori t0, t0, 2\njr t0\nnop",
        GENERAL,
        ADEL,
        KSEG0 + 0x10_0002,
    ),
    Case(
        "an overflow in a delay slot",
        "lui t0, 0x7fff\n-->\nbeq zero, zero, out\nadd t0, t0, t0\nout: nop",
        GENERAL,
        OV,
        in_slot=True,
    ),
    Case(
        "a refill in the slot of a likely branch",
        f"li t0, {SMALL}\n-->\nbeql zero, zero, out\nlw t1, 0(t0)\nout: nop",
        REFILL,
        TLBL,
        SMALL,
        in_slot=True,
    ),
    Case(
        "a system call in the slot of a call",
        "-->\nbal out\nsyscall\nout: nop",
        GENERAL,
        SYS,
        in_slot=True,
    ),
    Case("a breakpoint", "nop\n-->\nbreak", GENERAL, BP),
    Case("a trap", "nop\n-->\nteq zero, zero", GENERAL, TR),
    Case("a reserved instruction", "nop\n-->\n.word 0x28", GENERAL, RI),
    Case("the FPU when it is off", "nop\n-->\nadd.d $f0, $f0, $f0", GENERAL, CPU),
    Case(
        "an enabled invalid operation",
        "li t0, 0x800\nctc1 t0, $31\ndmtc1 zero, $f0\n-->\ndiv.d $f0, $f0, $f0",
        GENERAL,
        FPE,
        status=KX | CU1 | FR,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_exception_leads_to_its_vector_and_says_what_happened(case: Case) -> None:
    kernel = Kernel(status=case.status)
    kernel.run(case.text.replace("-->", "") + "\nwait")
    assert (kernel.vector, kernel.exc_code) == (case.vector, case.code)
    assert bool(kernel.cp0(CAUSE) & BD) == case.in_slot
    assert kernel.cp0(STATUS) & EXL
    assert bool(kernel.cp0(STATUS) & TS) == (case.code == MCHECK)
    if case.code == CPU:
        assert kernel.cp0(CAUSE) >> 28 & 3 == 1
    if case.bad_vaddr is not None:
        assert kernel.cp0(BAD_VADDR) == case.bad_vaddr
    if case.status & EXL:
        return
    before, mark, _ = case.text.partition("-->")
    expected = KSEG0 + MAIN + len(assemble(before, KSEG0 + MAIN)) if mark else case.bad_vaddr
    assert kernel.cp0(EPC) == expected
    if case.code in {TLBL, TLBS, MOD, TLBRI, TLBXI} and case.bad_vaddr is not None:
        vaddr = case.bad_vaddr
        assert kernel.cp0(ENTRY_HI) == vaddr & (3 << 62 | 0xFF_FFFF_E000)
        assert kernel.cp0(CONTEXT) & 0x7F_FFFF == vaddr >> 13 << 4 & 0x7F_FFF0
        assert (
            kernel.cp0(XCONTEXT) & 0x1_FFFF_FFFF
            == vaddr >> 62 << 31 | vaddr >> 13 << 4 & 0x7FFF_FFF0
        )


# -- a page table -----------------------------------------------------------------------------------

#: Looks the pair up in a table at PTEBase, as kernels do, and counts in s8.
REFILL_HANDLER = """
    dmfc0 k1, {context}
    ld k0, 0(k1)
    ld k1, 8(k1)
    dmtc0 k0, c0_entrylo0
    dmtc0 k1, c0_entrylo1
    ehb
    tlbwr
    addiu s8, s8, 1
    eret
"""
PAGES = 300

#: Writes its number to each page, twice around; then adds the numbers up in s0.
TOUCH = f"""
    li s2, 2
again:
    move t0, zero
    li t1, {PAGES}
next:
    sd t0, 0x7f8(t2)
    addiu t0, t0, 1
    daddiu t2, t2, 0x800
    daddiu t2, t2, 0x800
    bne t0, t1, next
    nop
    addiu s2, s2, -1
    bne s2, zero, again
    move t2, t3
    move s0, zero
sum:
    ld a5, 0x7f8(t2)
    daddu s0, s0, a5
    addiu t0, t0, -1
    daddiu t2, t2, 0x800
    bne t0, zero, sum
    daddiu t2, t2, 0x800
    wait
"""


@pytest.mark.parametrize(
    ("vector", "context", "pte_base", "vaddr"),
    [
        (REFILL, "c0_context", KSEG0 + TABLE, 0),
        # PTEBase starts at bit 33, so the table has no address of its own: the first page's is in it.
        (XTLB_REFILL, "c0_xcontext", 0x9800_0000_0000_0000, TABLE >> 4 << 13),
    ],
)
def test_a_page_table_larger_than_the_tlb_is_walked(
    vector: int, context: str, pte_base: int, vaddr: int
) -> None:
    handler = REFILL_HANDLER.format(context=context)
    kernel = Kernel({vector: handler}, status=KX | (UX if vector == XTLB_REFILL else 0))
    # Pages in reverse order. None is global.
    frames = [MEMORY_BYTES - 4096 * (page + 1) for page in range(PAGES)]
    table = struct.pack(f"<{PAGES}Q", *(entry_lo(frame) & ~1 for frame in frames))
    kernel.cpu.write_memory(TABLE, table)
    start = f"dli t0, {pte_base}\ndmtc0 t0, {context}\ndli t2, {vaddr}\nmove t3, t2\n"
    kernel.run(start + TOUCH)
    assert kernel.cpu.gpr[16] == sum(range(PAGES))
    assert PAGES // 2 <= kernel.cpu.gpr[30] <= 3 * PAGES
    assert [kernel.doubles(frame + 0x7F8, 1)[0] for frame in frames] == list(range(PAGES))


def test_a_kernel_marks_pages_valid_and_dirty_when_they_are_used() -> None:
    """The general handler sets the bit that is missing: V (code 2 or 3), D (code 1)."""
    handler = """
        mfc0 k0, c0_cause
        andi k0, k0, 0x7c
        addiu k0, k0, -4
        bne k0, zero, set
        li k1, 2
        li k1, 4
set:
        tlbp
        tlbr
        dmfc0 k0, c0_entrylo0
        or k0, k0, k1
        dmtc0 k0, c0_entrylo0
        ehb
        tlbwi
        addiu s8, s8, 1
        eret
    """
    kernel = Kernel({GENERAL: handler})
    entry = entry_lo(DATA, dirty=False, valid=False)
    kernel.run(
        map_pair(index=5, vaddr=SMALL, even=entry, odd=entry)
        + f"li t0, {SMALL}\nli t1, 77\nld t2, 0(t0)\nsd t1, 0(t0)\nld t3, 0(t0)\nsd t3, 8(t0)\nwait"
    )
    assert kernel.doubles(DATA, 2) == (77, 77)
    assert kernel.cpu.gpr[30] == 2, "one exception for V, one for D"


# -- handlers that go on --------------------------------------------------------------------------


def test_an_fpu_is_switched_on_at_its_first_use() -> None:
    handler = f"""
        mfc0 k0, c0_status
        lui k1, {(CU1 | FR) >> 16:#x}
        or k0, k0, k1
        mtc0 k0, c0_status
        addiu s8, s8, 1
        ehb
        eret
    """
    kernel = Kernel({GENERAL: handler})
    kernel.run(
        """
        li t0, 3
        dmtc1 t0, $f1
        cvt.d.l $f1, $f1
        mul.d $f1, $f1, $f1
        trunc.l.d $f2, $f1
        dmfc1 s0, $f2
        wait
        """
    )
    assert (kernel.cpu.gpr[16], kernel.cpu.gpr[30]) == (9, 1)


def test_a_user_program_calls_the_kernel_and_cannot_do_its_work() -> None:
    """System calls add to s0; anything else that a user may not do is skipped and noted in s1."""
    handler = """
        dmfc0 k0, c0_epc
        daddiu k0, k0, 4
        dmtc0 k0, c0_epc
        mfc0 k1, c0_cause
        andi k1, k1, 0x7c
        addiu k0, k1, -32
        bne k0, zero, other
        srl k1, k1, 2
        beq a0, zero, stop
        addu s0, s0, a0
        eret
other:  sll s1, s1, 8
        or s1, s1, k1
        eret
stop:   wait
    """
    kernel = Kernel({GENERAL: handler})
    kernel.write(
        USER,
        """
        li a0, 5
        syscall
        mfc0 t0, c0_status
        li t1, -4096
        lw t0, 0(t1)
        li a0, 7
        syscall
        move a0, zero
        syscall
        """,
    )
    status = KX | USER_MODE | EXL
    kernel.run(
        map_pair(index=0, vaddr=0x40_0000, even=entry_lo(USER), odd=1)
        + f"li t0, {status}\nmtc0 t0, c0_status\nli t0, 0x400000\ndmtc0 t0, c0_epc\nehb\neret"
    )
    assert kernel.cpu.gpr[16] == 12
    assert kernel.cpu.gpr[17] == CPU << 8 | ADEL


# -- interrupts -------------------------------------------------------------------------------------

#: Branches of every kind, taken and not, with slots that work, multiplications, memory, LL and SC.
WORK = f"""
    li s1, 6
    lui s2, {(KSEG0 + DATA) >> 16 & 0xFFFF:#x}
loop:
    daddu s0, s0, s1
    mult s0, s1
    beql s1, zero, skipped
    addiu s0, s0, 1000
    andi t0, s1, 1
    bnel t0, zero, skipped
    daddiu s0, s0, 3
    sd s0, 8(s2)
skipped:
    mflo t1
    lwl t2, 11(s2)
    lwr t2, 8(s2)
    addu s0, s0, t2
    xor s0, s0, t1
retry:
    ll t3, 0(s2)
    addiu t3, t3, 1
    sc t3, 0(s2)
    beq t3, zero, retry
    nop
    bal routine
    sll a5, s1, 2
    addiu s1, s1, -1
    bne s1, zero, loop
    dsll s0, s0, 1
    b done
    daddiu s0, s0, 7
routine:
    jr ra
    daddu s0, s0, a5
done:
    lw s3, 0(s2)
"""
#: Delay slots in it, which are no boundaries.
WORK_SLOTS = 7
#: The handler of the timer puts the next one far off; the flow of the program must not notice it.
TIMER_HANDLER = """
    li k0, 0x7fffffff
    mtc0 k0, c0_compare
    addiu s8, s8, 1
    ehb
    eret
"""


def work(mask: int) -> str:
    """`WORK` with these interrupts allowed, then WAIT with none."""
    start = f"li t0, {KX | mask | IE}\nmtc0 t0, c0_status\nehb\n"
    return f"{start}{WORK}li t0, {KX}\nmtc0 t0, c0_status\nehb\nwait\n"


def work_with_timer(compare: int) -> Kernel:
    kernel = Kernel({INTERRUPT: TIMER_HANDLER})
    kernel.cpu.write_cp0(*CAUSE, IV)
    kernel.cpu.write_cp0(*COUNT, 0)
    kernel.cpu.write_cp0(*COMPARE, compare)
    kernel.run(work(IM7))
    return kernel


def work_result(kernel: Kernel) -> list[int]:
    """What the program computed: every register but those of the handler."""
    registers = [value for number, value in enumerate(kernel.cpu.gpr) if number not in {26, 27, 30}]
    return [*registers, kernel.cpu.hi, kernel.cpu.lo, *kernel.doubles(DATA, 2)]


def test_a_timer_interrupt_at_every_boundary_changes_nothing_else() -> None:
    undisturbed = work_with_timer(0x7FFF_FFFF)
    assert undisturbed.cpu.gpr[30] == 0
    counts = undisturbed.cp0(COUNT)
    expected = work_result(undisturbed)
    epcs = set()
    interrupted = 0
    for compare in range(1, counts + 20):
        kernel = work_with_timer(compare)
        assert work_result(kernel) == expected, f"Compare = {compare}"
        if kernel.cpu.gpr[30]:
            interrupted += 1
            epcs.add(kernel.cp0(EPC))
            assert not kernel.cp0(CAUSE) & BD, (
                "an interrupt is taken before a branch or after its slot"
            )
    assert interrupted >= counts // 2
    assert len(epcs) > 20


#: Masks the line for good.
LINE_HANDLER = f"""
    mfc0 k0, c0_status
    xori k0, k0, {IM2:#x}
    mtc0 k0, c0_status
    addiu s8, s8, 1
    ehb
    eret
"""


def work_with_line(cycle: int) -> Kernel:
    kernel = Kernel({INTERRUPT: LINE_HANDLER})
    kernel.cpu.write_cp0(*CAUSE, IV)
    kernel.write(MAIN, work(IM2))
    kernel.cpu.pc = KSEG0 + MAIN
    if kernel.cpu.run(cycle) == "until":
        kernel.cpu.set_lines(1 << 2)
        assert kernel.cpu.run(cycle + 10_000) == "wait"
    return kernel


def test_an_interrupt_line_at_every_cycle_changes_nothing_else() -> None:
    """As with the timer, which ticks only every other cycle."""
    undisturbed = work_with_line(1_000_000)
    assert undisturbed.cpu.gpr[30] == 0
    expected = work_result(undisturbed)
    epcs = set()
    for cycle in range(1, undisturbed.cpu.now):
        kernel = work_with_line(cycle)
        assert work_result(kernel) == expected, f"line at cycle {cycle}"
        if kernel.cpu.gpr[30]:
            assert not kernel.cp0(CAUSE) & BD, (
                "an interrupt is taken before a branch or after its slot"
            )
            epcs.add(kernel.cp0(EPC))
    instructions = len(assemble(WORK, KSEG0 + MAIN)) // 4
    assert len(epcs) >= instructions - WORK_SLOTS, "each instruction but the slots was a boundary"
