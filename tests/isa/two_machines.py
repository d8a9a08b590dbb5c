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

A program runs in kernel mode with 64-bit addresses, or (`Kind.is_user_32`) in user mode as a 32-bit
program under a 32-bit kernel: Status.KX, UX and PX are clear. Its body is then executed at `USER_TEXT`,
where the program is mapped, too; the scratch memory is mapped up to the end of the user segment; and
a system call behind the body leads back to kernel mode.
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
USER_TEXT, USER_TEXT_BYTES = 0x40_0000, 0x8000
USER_MAPPED = 0x8000_0000 - SCRATCH_BYTES

#: Offsets in a state, in bytes.
FPRS, HI, LO, FCSR = 256, 512, 520, 528
GPRS = [n for n in range(1, 32) if n not in (26, 27)]

CU1, KX_UX, FR = 0x2000_0000, 0xA0, 0x0400_0000
USER_MODE, EXL = 0x10, 0x2


@dataclass(frozen=True)
class Kind:
    """What Status says while a program runs."""

    has_32_doubles: bool = True
    is_user_32: bool = False

    @property
    def status(self) -> int:
        """Status with which a program is started; in EXL, that is before it enters user mode."""
        mode = USER_MODE | EXL if self.is_user_32 else KX_UX
        return CU1 | mode | (FR if self.has_32_doubles else 0)

    @property
    def fprs(self) -> list[int]:
        return list(range(32) if self.has_32_doubles else range(0, 32, 2))

    @property
    def bases(self) -> tuple[int, ...]:
        """Values of k0 while a program runs, from which it reaches 32 KiB to either side.

        In user mode a quarter of that is beyond the user segment; the upper half of an address does
        not count, and a kernel's address is an error.
        """
        middle = SCRATCH_BYTES // 2
        kernel = KSEG0 + SCRATCH + middle
        if self.is_user_32:
            base = USER_MAPPED + SCRATCH_BYTES * 3 // 4
            return (base, base, base | 0x5 << 32, kernel)
        return (kernel, MAPPED + middle)


def setup_text(kind: Kind) -> str:
    """Status, and TLB entries that map the scratch memory, pages interleaved, and the program."""
    frames = [SCRATCH // 4096 + n * 5 % 16 for n in range(16)]
    pages = [(USER_MAPPED if kind.is_user_32 else MAPPED, frames)]
    if kind.is_user_32:
        program = PROGRAM // 4096
        pages.append((USER_TEXT, [*range(program, program + USER_TEXT_BYTES // 4096)]))
    lines = [f"li t0, {CU1 | KX_UX:#x}", "mtc0 t0, c0_status", "ehb", "mtc0 zero, c0_pagemask"]
    index = 0
    for base, mapped in pages:
        for at in range(0, len(mapped), 2):
            even, odd = (mapped[at + half] << 6 | 0x1F for half in (0, 1))
            lines += [f"li t0, {index}", "mtc0 t0, c0_index"]
            lines += [f"li t0, {base + at * 4096:#x}", "dmtc0 t0, c0_entryhi"]
            lines += [f"li t0, {even:#x}", "dmtc0 t0, c0_entrylo0", f"li t0, {odd:#x}"]
            lines += ["dmtc0 t0, c0_entrylo1", "ehb", "tlbwi"]
            index += 1
    status = [f"li t0, {kind.status:#x}", "mtc0 t0, c0_status", "ehb"]
    return "\n".join([*lines, *status, "ehb", "wait"])


def prologue(kind: Kind) -> bytes:
    """Loads every register from the next state, and enters user mode if the program is for it."""
    lines = ["lui k0, 0x802c", "ld k0, 0(k0)"]
    lines += [f"ld k1, {HI}(k0)", "mthi k1", f"ld k1, {LO}(k0)", "mtlo k1"]
    lines += [f"ld k1, {FCSR}(k0)", "ctc1 k1, $31"]
    lines += [f"ldc1 $f{n}, {FPRS + 8 * n}(k0)" for n in kind.fprs]
    lines += [f"ld ${n}, {8 * n}(k0)" for n in GPRS]
    lines += ["ld k0, 208(k0)"]
    if not kind.is_user_32:
        return assemble("\n".join(lines), KSEG0 + PROGRAM)
    enter = ["lui k1, 0x40", "ori k1, k1, BODY", "dmtc0 k1, c0_epc", "ehb", "eret"]
    text = "\n".join([*lines, *enter])
    size = len(assemble(text.replace("BODY", "0"), KSEG0 + PROGRAM))
    return assemble(text.replace("BODY", str(size)), KSEG0 + PROGRAM)


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


#: Stores EPC and Cause in the log and returns behind the instruction; goes on at the epilogue if it was
#: the system call at the end of a program of user mode.
HANDLER = """
    dmtc0 k0, $31,2
    dmtc0 k1, $31,3
    lui k1, 0x802c
    ld k0, 16(k1)
    dmfc0 k1, c0_epc
    sd k1, 0(k0)
    mfc0 k1, c0_cause
    sd k1, 8(k0)
    daddiu k0, k0, 16
    lui k1, 0x802c
    sd k0, 16(k1)
    ld k0, 32(k1)
    dmfc0 k1, c0_epc
    bne k0, k1, return
    daddiu k1, k1, 4
    lui k1, 0x802c
    ld k1, 40(k1)
    jr k1
    nop
return:
    dmtc0 k1, c0_epc
    dmfc0 k1, $31,3
    dmfc0 k0, $31,2
    eret
"""
#: Of a return to the program.
HANDLER_INSTRUCTIONS = len(assemble(HANDLER, 0)) // 4 - 4

SYSCALL = 0x0000_000C


@dataclass(frozen=True)
class Job:
    """A program's body, the states to run it from and the scratch memory to start with."""

    body: bytes
    states: list[bytes]
    scratch: bytes
    kind: Kind

    @property
    def end(self) -> int:
        """Physical address behind the body."""
        return PROGRAM + len(prologue(self.kind)) + len(self.body)

    @property
    def last_call(self) -> int:
        """Address of the system call that ends the body in user mode; 0 in kernel mode."""
        return self.end - PROGRAM + USER_TEXT if self.kind.is_user_32 else 0

    @property
    def epilogue(self) -> int:
        """Physical address of the epilogue."""
        return self.end + (4 if self.kind.is_user_32 else 0)

    def program(self) -> bytes:
        call = struct.pack("<I", SYSCALL) if self.kind.is_user_32 else b""
        epilogue = assemble(epilogue_text(self.kind.fprs), KSEG0 + self.epilogue)
        return prologue(self.kind) + self.body + call + epilogue

    def memory(self) -> list[tuple[int, bytes]]:
        """What both machines start with: (physical address, bytes)."""
        end = KSEG0 + BEFORE + STATE_BYTES * len(self.states)
        places = (KSEG0 + BEFORE, KSEG0 + AFTER, KSEG0 + LOG, end)
        control = struct.pack("<6Q", *places, self.last_call, KSEG0 + self.epilogue)
        after = bytes(STATE_BYTES * len(self.states))
        return [
            (PROGRAM, self.program()),
            (CONTROL, control),
            (BEFORE, b"".join(self.states)),
            (AFTER, after),
            (SCRATCH, self.scratch),
        ]


def body_base(kind: Kind) -> int:
    """Virtual address of a program's body."""
    return (USER_TEXT if kind.is_user_32 else KSEG0 + PROGRAM) + len(prologue(kind))


@dataclass(frozen=True)
class Result:
    """What a machine made of a job."""

    after: list[bytes]
    scratch: bytes
    #: (restart address, ExcCode) of each exception.
    exceptions: list[tuple[int, int]]


class Bare:
    """The product's bare CPU. Exceptions go to `HANDLER`."""

    def __init__(self, kind: Kind) -> None:
        self.cpu = BareCpu(memory_bytes=MEMORY_BYTES)
        #: Instructions of programs so far, without those of the handler.
        self.instructions = 0
        self.cpu.write_memory(0x180, assemble(HANDLER, KSEG0 + 0x180))
        self.cpu.write_memory(SETUP, assemble(setup_text(kind), KSEG0 + SETUP))
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

    It stops at an exception, still in the mode of the program, and has then lost the program counter, so the
    restart addresses come from
    the other machine; that one raised where the other did not still shows, in everything after.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        mode = unicorn.UC_MODE_MIPS64 | unicorn.UC_MODE_LITTLE_ENDIAN
        self.uc = unicorn.Uc(unicorn.UC_ARCH_MIPS, mode)
        self.uc.ctl_set_cpu_model(mips_const.UC_CPU_MIPS64_MIPS64R2_GENERIC)
        self.uc.mem_map(0, MEMORY_BYTES)
        self.uc.hook_add(unicorn.UC_HOOK_INTR, self.note_exception)
        self.raised: int | None = None
        setup = assemble(setup_text(kind), KSEG0 + SETUP)
        self.uc.mem_write(SETUP, setup)
        self.start(SETUP, SETUP + len(setup) - 4, [], None)

    def note_exception(self, uc: unicorn.Uc, number: int, _data: object) -> None:
        self.raised = number
        uc.emu_stop()

    def start(
        self, address: int, end: int, restarts: list[int], job: Job | None
    ) -> list[tuple[int, int]]:
        """Runs from one physical address to another; after exceptions goes on behind `restarts`."""
        exceptions: list[tuple[int, int]] = []
        pc = KSEG0 + address
        while self.go(pc, KSEG0 + end):
            assert self.raised is not None
            code = EXC_CODE.get(self.raised, -self.raised)
            if len(exceptions) == len(restarts):
                return [*exceptions, (0, code)]
            exceptions.append((restarts[len(exceptions)], code))
            pc = exceptions[-1][0] + 4
            if job is not None and exceptions[-1][0] == job.last_call:
                self.uc.reg_write(mips_const.UC_MIPS_REG_CP0_STATUS, self.kind.status)
                pc = KSEG0 + job.epilogue
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
        exceptions = self.start(PROGRAM, end, restarts, job)
        after = bytes(self.uc.mem_read(AFTER, STATE_BYTES * len(job.states)))
        scratch = bytes(self.uc.mem_read(SCRATCH, SCRATCH_BYTES))
        return Result(split(after), scratch, exceptions)


def split(states: bytes) -> list[bytes]:
    return [states[at : at + STATE_BYTES] for at in range(0, len(states), STATE_BYTES)]
