"""One program on two machines: the product's bare CPU and Unicorn, an independent emulator.

Both start from the same memory and run the same bytes. The program itself loads every register from
memory and stores it back, once for each of many states, so only memory must be compared and a run of
thousands of instructions costs two calls. Physical memory, identical in both:

    0x0000_0180  exception handler (bare CPU; see `Bare`)   0x0020_0000  states before, 1 KiB each
    0x0010_0000  program                                    0x0024_0000  states after
    0x0018_0000  what sets the machines up                  0x0028_0000  scratch memory, 64 KiB
    0x002c_0000  `CONTROL`: where the next states are       0x0030_0000  log of exceptions

The scratch memory is also mapped at `MAPPED`, its pages in another order, so that an access across
the edge of a page goes to two frames.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import unicorn
from unicorn import mips_const

from disco._engine import BareCpu, assemble

KSEG0 = 0xFFFF_FFFF_8000_0000
PROGRAM, SETUP, CONTROL, LOG = 0x10_0000, 0x18_0000, 0x2C_0000, 0x30_0000
BEFORE, AFTER, STATE_BYTES = 0x20_0000, 0x24_0000, 1024
SCRATCH, SCRATCH_BYTES = 0x28_0000, 0x1_0000
MAPPED = 0x1000_0000
MEMORY_BYTES = 0x40_0000
STATES_MAX = (AFTER - BEFORE) // STATE_BYTES
#: Value of k0 while a program runs: the middle of the scratch memory, by its two names.
BASES = (KSEG0 + SCRATCH + SCRATCH_BYTES // 2, MAPPED + SCRATCH_BYTES // 2)

#: Offsets in a state, in bytes.
FPRS, HI, LO, FCSR = 256, 512, 520, 528
GPRS = [n for n in range(1, 32) if n not in (26, 27)]

CU1_KX_UX, FR = 0x2000_00A0, 0x0400_0000


def setup_text(*, has_32_doubles: bool) -> str:
    """Status, and TLB entries that map the scratch memory at `MAPPED`, pages interleaved."""
    status = CU1_KX_UX | (FR if has_32_doubles else 0)
    frames = [SCRATCH // 4096 + n * 5 % 16 for n in range(16)]
    lines = [f"li t0, {status:#x}", "mtc0 t0, c0_status", "ehb", "mtc0 zero, c0_pagemask"]
    for index in range(8):
        even, odd = (frames[2 * index + half] << 6 | 0x1F for half in (0, 1))
        lines += [f"li t0, {index}", "mtc0 t0, c0_index"]
        lines += [f"li t0, {MAPPED + index * 8192:#x}", "dmtc0 t0, c0_entryhi"]
        lines += [f"li t0, {even:#x}", "dmtc0 t0, c0_entrylo0", f"li t0, {odd:#x}"]
        lines += ["dmtc0 t0, c0_entrylo1", "ehb", "tlbwi"]
    return "\n".join([*lines, "ehb", "wait"])


def prologue_text(fprs: list[int]) -> str:
    """Loads every register from the next state."""
    lines = ["lui k0, 0x802c", "ld k0, 0(k0)"]
    lines += [f"ld k1, {HI}(k0)", "mthi k1", f"ld k1, {LO}(k0)", "mtlo k1"]
    lines += [f"ld k1, {FCSR}(k0)", "ctc1 k1, $31"]
    lines += [f"ldc1 $f{n}, {FPRS + 8 * n}(k0)" for n in fprs]
    lines += [f"ld ${n}, {8 * n}(k0)" for n in GPRS]
    return "\n".join([*lines, "ld k0, 208(k0)"])


def epilogue_text(fprs: list[int]) -> str:
    """Stores every register, and goes on to the next state or to the end."""
    lines = ["lui k1, 0x802c", "ld k1, 8(k1)"]
    lines += [f"sd ${n}, {8 * n}(k1)" for n in GPRS]
    lines += [f"sdc1 $f{n}, {FPRS + 8 * n}(k1)" for n in fprs]
    lines += ["mfhi t0", f"sd t0, {HI}(k1)", "mflo t0", f"sd t0, {LO}(k1)"]
    lines += ["cfc1 t0, $31", f"sd t0, {FCSR}(k1)"]
    lines += ["lui t0, 0x802c", f"daddiu k1, k1, {STATE_BYTES}", "sd k1, 8(t0)"]
    lines += ["ld t1, 0(t0)", f"daddiu t1, t1, {STATE_BYTES}", "sd t1, 0(t0)"]
    lines += ["ld t2, 24(t0)", "beq t1, t2, end", "nop", f"j {KSEG0 + PROGRAM:#x}", "nop"]
    return "\n".join([*lines, "end: wait", "nop"])


#: Stores EPC and Cause in the log and returns behind the instruction.
HANDLER = """
    dmtc0 k0, $31,2
    dmtc0 k1, $31,3
    lui k1, 0x802c
    ld k0, 16(k1)
    dmfc0 k1, c0_epc
    sd k1, 0(k0)
    daddiu k1, k1, 4
    dmtc0 k1, c0_epc
    mfc0 k1, c0_cause
    sd k1, 8(k0)
    daddiu k0, k0, 16
    lui k1, 0x802c
    sd k0, 16(k1)
    dmfc0 k1, $31,3
    dmfc0 k0, $31,2
    eret
"""
HANDLER_INSTRUCTIONS = len(assemble(HANDLER, 0)) // 4


@dataclass(frozen=True)
class Job:
    """A program's body, the states to run it from and the scratch memory to start with."""

    body: bytes
    states: list[bytes]
    scratch: bytes
    has_32_doubles: bool

    @property
    def fprs(self) -> list[int]:
        return list(range(32) if self.has_32_doubles else range(0, 32, 2))

    def program(self) -> bytes:
        prologue = assemble(prologue_text(self.fprs), KSEG0 + PROGRAM)
        start = KSEG0 + PROGRAM + len(prologue) + len(self.body)
        return prologue + self.body + assemble(epilogue_text(self.fprs), start)

    def memory(self) -> list[tuple[int, bytes]]:
        """What both machines start with: (physical address, bytes)."""
        end = KSEG0 + BEFORE + STATE_BYTES * len(self.states)
        control = struct.pack("<4Q", KSEG0 + BEFORE, KSEG0 + AFTER, KSEG0 + LOG, end)
        after = bytes(STATE_BYTES * len(self.states))
        return [
            (PROGRAM, self.program()),
            (CONTROL, control),
            (BEFORE, b"".join(self.states)),
            (AFTER, after),
            (SCRATCH, self.scratch),
        ]


def body_base(*, has_32_doubles: bool) -> int:
    """Virtual address of a program's body."""
    fprs = list(range(32) if has_32_doubles else range(0, 32, 2))
    return KSEG0 + PROGRAM + len(assemble(prologue_text(fprs), 0))


@dataclass(frozen=True)
class Result:
    """What a machine made of a job."""

    after: list[bytes]
    scratch: bytes
    #: (restart address, ExcCode) of each exception.
    exceptions: list[tuple[int, int]]


class Bare:
    """The product's bare CPU. Exceptions go to `HANDLER`."""

    def __init__(self, *, has_32_doubles: bool) -> None:
        self.cpu = BareCpu(memory_bytes=MEMORY_BYTES)
        #: Instructions of programs so far, without those of the handler.
        self.instructions = 0
        self.cpu.write_memory(0x180, assemble(HANDLER, KSEG0 + 0x180))
        text = setup_text(has_32_doubles=has_32_doubles)
        self.cpu.write_memory(SETUP, assemble(text, KSEG0 + SETUP))
        self.start(SETUP)

    def start(self, address: int) -> None:
        """Runs from a physical address to the next WAIT."""
        self.cpu.pc = KSEG0 + address
        stop = self.cpu.run(self.cpu.now + 50_000_000)
        assert stop == "wait", f"the program stopped with {stop!r} at {self.cpu.pc:#x}"

    def run(self, job: Job) -> Result:
        for address, data in job.memory():
            self.cpu.write_memory(address, data)
        before = self.cpu.instructions
        self.start(PROGRAM)
        exceptions = self.exceptions()
        executed = self.cpu.instructions - before
        self.instructions += executed - HANDLER_INSTRUCTIONS * len(exceptions)
        after = self.cpu.read_memory(AFTER, STATE_BYTES * len(job.states))
        scratch = self.cpu.read_memory(SCRATCH, SCRATCH_BYTES)
        return Result(split(after), scratch, exceptions)

    def exceptions(self) -> list[tuple[int, int]]:
        (end,) = struct.unpack("<Q", self.cpu.read_memory(CONTROL + 16, 8))
        log = self.cpu.read_memory(LOG, end - KSEG0 - LOG)
        return [(epc, cause >> 2 & 31) for epc, cause in struct.iter_unpack("<QQ", log)]


#: ExcCode of QEMU's numbers for exceptions, which Unicorn reports.
EXC_CODE = {12: 4, 13: 5, 17: 8, 18: 9, 19: 11, 20: 10, 21: 12, 22: 13, 23: 15}


class Oracle:
    """Unicorn as a MIPS64 Release 2 processor.

    It stops at an exception and has then lost the program counter, so the restart addresses come from
    the other machine; that one raised where the other did not still shows, in everything after.
    """

    def __init__(self, *, has_32_doubles: bool) -> None:
        mode = unicorn.UC_MODE_MIPS64 | unicorn.UC_MODE_LITTLE_ENDIAN
        self.uc = unicorn.Uc(unicorn.UC_ARCH_MIPS, mode)
        self.uc.ctl_set_cpu_model(mips_const.UC_CPU_MIPS64_MIPS64R2_GENERIC)
        self.uc.mem_map(0, MEMORY_BYTES)
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self.note_exception)
        self.raised: int | None = None
        setup = assemble(setup_text(has_32_doubles=has_32_doubles), KSEG0 + SETUP)
        self.uc.mem_write(SETUP, setup)
        self.start(SETUP, SETUP + len(setup) - 4, [])

    def note_exception(self, uc: unicorn.Uc, number: int, _data: object) -> None:
        self.raised = number
        uc.emu_stop()

    def start(self, address: int, end: int, restarts: list[int]) -> list[tuple[int, int]]:
        """Runs from one physical address to another; after exceptions goes on at `restarts`."""
        exceptions: list[tuple[int, int]] = []
        pc = KSEG0 + address
        while self.go(pc, KSEG0 + end):
            assert self.raised is not None
            code = EXC_CODE.get(self.raised, -self.raised)
            if len(exceptions) == len(restarts):
                return [*exceptions, (0, code)]
            exceptions.append((restarts[len(exceptions)], code))
            pc = exceptions[-1][0] + 4
        return exceptions

    def go(self, pc: int, end: int) -> bool:
        """Runs to `end`; true when an exception came first."""
        self.raised = None
        try:
            self.uc.emu_start(pc, end)
        except unicorn.UcError:
            # Its own error for an unaligned access, after the hook has seen the exception.
            if self.raised is None:
                raise
        return self.raised is not None

    def run(self, job: Job, restarts: list[int]) -> Result:
        memory = job.memory()
        for address, data in memory:
            self.uc.mem_write(address, data)
        self.uc.ctl_flush_tb()
        end = PROGRAM + len(memory[0][1]) - 8
        exceptions = self.start(PROGRAM, end, restarts)
        after = bytes(self.uc.mem_read(AFTER, STATE_BYTES * len(job.states)))
        scratch = bytes(self.uc.mem_read(SCRATCH, SCRATCH_BYTES))
        return Result(split(after), scratch, exceptions)


def split(states: bytes) -> list[bytes]:
    return [states[at : at + STATE_BYTES] for at in range(0, len(states), STATE_BYTES)]
