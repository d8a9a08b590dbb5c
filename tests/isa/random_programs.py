"""Random MIPS64 programs from the product's own instruction table.

A program is a list of units: an instruction with whatever makes its operands defined (a load and
the computation of its address, a branch and its delay slot). Units are the only targets of
branches, and all branches go forward, so every program ends.

Where the manual says UNPREDICTABLE two correct processors may differ. General registers therefore
come in two banks: `WORDS` always hold sign-extended 32-bit values and are the only sources of the
instructions that need them, `DOUBLES` hold anything. k0 is the base of the scratch memory, k1 is
for addresses and control words.

Source of the restrictions: MIPS64 Architecture For Programmers volume II, "Restrictions" of each
instruction.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

from two_machines import Kind

from disco import _engine

WORDS = tuple(range(1, 13))
DOUBLES = (*range(13, 26), 28, 29, 30, 31)
K0, K1 = 26, 27
#: Holds 1.5 where a NaN has to be kept away.
CONSTANT_FPR = 30

#: Bytes to either side of k0 that loads and stores may touch.
SCRATCH_REACH_BYTES = 0x8000
PAGE_BYTES = 4096


def operations(names: str) -> frozenset[str]:
    """The names in a text with blanks between."""
    return frozenset(names.split())


#: Instructions whose sources must be sign-extended words, else the result is UNPREDICTABLE.
NEED_WORDS = operations(
    "Srl Rotr Sra Srlv Rotrv Srav Addu Subu Addiu Add Sub Addi Mult Multu Div Divu"
    " Madd Maddu Msub Msubu Mul Clz Clo Seb Seh Wsbh Ext Ins Lwl Lwr"
)
#: Instructions whose result is a sign-extended word whatever the sources are.
GIVE_WORDS = operations(
    "Sll Sllv Slt Sltu Slti Sltiu Lui Lb Lbu Lh Lhu Lw Ll Mfc1 Mfhc1 Cfc1 Dclz Dclo"
)
#: Instructions whose result is a sign-extended word if the sources are.
KEEP_WORDS = operations("And Or Xor Nor Andi Ori Xori Movz Movn Movf Movt")
OVERFLOWING = operations("Add Sub Addi Dadd Dsub Daddi")
TRAPS = operations("Tge Tgeu Tlt Tltu Teq Tne Tgei Tgeiu Tlti Tltiu Teqi Tnei")
TRAPPING = OVERFLOWING | TRAPS | {"Syscall", "Break", "Reserved", "Cop2"}
#: Words that no MIPS64 processor of Release 2 decodes: holes of SPECIAL, REGIMM, COP1 and COP1X.
RESERVED_WORDS = (0x0000_0028, 0x0000_0039, 0x0405_0000, 0x4640_0000, 0x4C00_0002)
#: Instructions whose result goes to HI and LO, to a floating-point register or nowhere.
WRITE_ELSEWHERE = operations(
    "Mult Multu Div Divu Dmult Dmultu Ddiv Ddivu Madd Maddu Msub Msubu Mthi Mtlo"
    " Mtc1 Mthc1 Dmtc1 MovzS MovzD MovnS MovnD Pref Prefx"
)
#: Bit fields must not end before they begin (INS) or beyond the register (EXT).
INSERTS = frozenset({"Ins", "Dinsu", "Dins"})
EXTRACTS = frozenset({"Ext", "Dextm", "Dextu"})
#: The manual wants rd in rt, too.
REPEAT_TARGET = operations("Clz Clo Dclz Dclo")
#: Instructions that read or write a doubleword of the floating-point registers.
DOUBLE_TRANSFERS = operations(
    "Ldc1 Sdc1 Ldxc1 Sdxc1 Luxc1 Suxc1 Dmfc1 Dmtc1 Mfhc1 Mthc1 CvtDS CvtDW CvtDL"
)
#: The condition codes, flags and rounding mode of FCSR; neither FS, Cause nor Enables.
FCSR_HARMLESS = 0xFE80_007F
#: Without Enables.U: with it a tiny result traps even if it is exact (IEEE 754-1985), and Unicorn does
#: not know that. FS is left out everywhere: Unicorn raises neither Underflow nor Inexact for what it flushes.
FCSR_ENABLES_AND_CAUSE = 0x0003_FE80
#: FCCR, FEXR, FENR and FCSR, each with the bits of it that are harmless. FIR says what options there
#: are, and of registers that do not exist the manual says nothing.
CONTROL_REGISTERS = {25: 0xFF, 26: 0x7C, 28: 0x3, 31: FCSR_HARMLESS}


@dataclass(frozen=True)
class Row:
    """A row of the table with its pattern taken apart."""

    op: str
    value: int
    #: Bits that the manual wants zero and processors ignore.
    ignored: int
    #: Shift and width in bits of each field, by its letter.
    fields: dict[str, tuple[int, int]]
    flags: frozenset[str]
    operands: str

    @classmethod
    def of(cls, row: _engine.InstructionRow) -> Row:
        pattern = row.pattern.replace(" ", "")
        fields = {
            letter: (31 - pattern.rindex(letter), pattern.count(letter))
            for letter in sorted(set(pattern) - set("01-"))
        }
        value = int("".join("1" if bit == "1" else "0" for bit in pattern), 2)
        ignored = int("".join("1" if bit == "-" else "0" for bit in pattern), 2)
        return cls(row.op, value, ignored, fields, frozenset(row.flags), row.operands)

    @property
    def access_bytes(self) -> int:
        """Size of the access in bytes; 0 for what is no load or store."""
        return next((n for n in (1, 2, 4, 8) if f"SIZE{n}" in self.flags), 0)

    def encode(self, **values: int) -> int:
        """The word with these field values; a field that is not named is 0."""
        word = self.value
        for letter, value in values.items():
            shift, width = self.fields[letter]
            word |= (value & ((1 << width) - 1)) << shift
        return word


@cache
def rows() -> dict[str, Row]:
    """The rows that an operation of their own belongs to, by its name."""
    decoded = (Row.of(row) for row in _engine.instruction_rows())
    return {row.op: row for row in reversed(list(decoded))}


@dataclass
class Unit:
    """Words that are executed from the first on."""

    words: list[int]
    #: Units ahead that the branch in it goes to (1: the next one); None without a branch.
    ahead: int | None = None
    #: Index of the branch in `words`.
    branch: int = 0
    #: Index of the LUI and ORI that load the target's address, for jumps to a register.
    address: int | None = None
    #: Enters the target behind its first word if that is a branch: in its delay slot.
    into_slot: bool = False


@dataclass
class Program:
    """A program's words and where its units begin."""

    words: list[int]
    starts: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Stream:
    """What programs of one kind are made of."""

    name: str
    #: Operations, and how often one is chosen against the others.
    weights: dict[str, int]
    kind: Kind = field(default_factory=Kind)
    #: Exceptions may happen (outside of delay slots).
    traps: bool = False
    length: int = 120


class Generator:
    """Makes the program of a stream and a seed."""

    def __init__(self, stream: Stream, seed: int) -> None:
        self.stream = stream
        self.random = random.Random(f"{stream.name} {seed}")
        self.table = rows()
        ops = list(stream.weights)
        self.ops = ops
        self.cumulative = list(itertools.accumulate(stream.weights[op] for op in ops))
        simple = [op for op in ops if self.is_simple(self.table[op])]
        self.simple = simple or ["Nop"]

    def program(self, base: int) -> Program:
        """A program that is entered at virtual address `base` and left behind its last word."""
        units: list[Unit] = []
        count = 0
        while count < self.stream.length:
            unit = self.unit(self.table[self.choose()])
            units.append(unit)
            count += len(unit.words)
        # A branch may go to the end at most.
        units.append(Unit([0, 0]))
        return link(units, base)

    def choose(self) -> str:
        return self.random.choices(self.ops, cum_weights=self.cumulative)[0]

    def unit(self, row: Row) -> Unit:
        if "BRANCH" in row.flags:
            return self.branch(row)
        if row.op in {"Ll", "Lld"}:
            return self.linked_pair(row)
        if row.access_bytes:
            return self.memory(row)
        special: dict[str, Callable[[Row], Unit]] = {
            "Ctc1": self.control_write,
            "CvtSD": self.narrowing,
            "Synci": lambda row: Unit([row.encode(s=K0)]),
            "Reserved": self.reserved,
        }
        return special.get(row.op, lambda row: Unit([self.plain(row)]))(row)

    # -- registers ------------------------------------------------------------------------------

    def word(self) -> int:
        """A register that holds a sign-extended word."""
        return self.random.choice((0, *WORDS))

    def any(self) -> int:
        return self.random.choice((0, *WORDS, *DOUBLES))

    def double(self) -> int:
        """A register that may hold anything; 0 swallows it."""
        return self.random.choice((0, *DOUBLES))

    def fpr(self, op: str) -> int:
        """A floating-point register; with FR = 0 a double must have an even number."""
        is_double = op in DOUBLE_TRANSFERS or op.endswith(("D", "L"))
        if not self.stream.kind.has_32_doubles and is_double:
            return self.random.randrange(0, CONSTANT_FPR, 2)
        return self.random.randrange(CONSTANT_FPR)

    # -- one instruction ------------------------------------------------------------------------

    def is_simple(self, row: Row) -> bool:
        """Whether it is one word, raises nothing and can stand in a delay slot."""
        never = row.flags & {"BRANCH", "LOAD", "STORE", "ENDS", "CP0"}
        if self.stream.kind.is_user_32:
            never |= row.flags & {"BITS64"}
        if self.stream.traps:
            never |= row.flags & {"CP1"}
        return not never and row.op not in TRAPPING | {"Ctc1", "CvtSD"}

    def plain(self, row: Row) -> int:
        values = {letter: self.field_value(row, letter) for letter in row.fields}
        self.choose_registers(row, values)
        if row.op in INSERTS and values["a"] > values["d"]:
            values["a"], values["d"] = values["d"], values["a"]
        if row.op in EXTRACTS:
            values["d"] = self.random.randint(0, 31 - values["a"])
        if row.op in REPEAT_TARGET:
            values["t"] = values["d"]
        word = row.encode(**values)
        if self.random.random() < 0.05:
            word |= self.random.getrandbits(32) & row.ignored
        return word

    def field_value(self, row: Row, letter: str) -> int:
        if row.op == "Cfc1" and letter == "S":
            return self.random.choice(list(CONTROL_REGISTERS))
        if letter in "RTSD":
            return self.fpr(row.op)
        if letter == "i":
            return self.random.choice((0, 1, 0x7FFF, 0x8000, 0xFFFF, self.random.getrandbits(16)))
        return self.random.getrandbits(row.fields[letter][1])

    def choose_registers(self, row: Row, values: dict[str, int]) -> None:
        """Registers of the right banks. The target is rd, or rt where there is no rd."""
        names = row.operands.replace("[", "").replace("]", "").split(", ")
        registers = [name for name in names if name in {"rs", "rt", "rd"}]
        letters = [name[1] for name in registers]
        targets = {letters[0]} if letters and self.writes_first(row) else set()
        needs_words = row.op in NEED_WORDS or (row.op in KEEP_WORDS and self.random.random() < 0.5)
        gives_word = needs_words or row.op in GIVE_WORDS
        for letter in letters:
            if letter in targets:
                is_source = row.op in INSERTS | {"Dinsm"}
                if row.op in NEED_WORDS and is_source:
                    values[letter] = self.word()
                elif gives_word:
                    values[letter] = self.any()
                else:
                    values[letter] = self.double()
            else:
                values[letter] = self.word() if needs_words else self.any()

    def writes_first(self, row: Row) -> bool:
        """Whether the first operand of the assembler is the target, as it is unless there is none."""
        no_target = row.flags & {"STORE", "BRANCH"} or row.op in TRAPPING - OVERFLOWING
        to_elsewhere = {"Mult", "Multu", "Div", "Divu", "Dmult", "Dmultu", "Ddiv", "Ddivu", "Madd"}
        to_elsewhere |= {
            "Maddu",
            "Msub",
            "Msubu",
            "Mthi",
            "Mtlo",
            "Mtc1",
            "Mthc1",
            "Dmtc1",
            "Prefx",
        }
        to_elsewhere |= {"Pref", "MovzS", "MovzD", "MovnS", "MovnD"}
        return not no_target and row.op not in to_elsewhere

    # -- memory ---------------------------------------------------------------------------------

    def offset(self, row: Row) -> int:
        """Bytes from k0, often around the edge of a page, aligned as the instruction wants."""
        reach = SCRATCH_REACH_BYTES - 32
        offset = self.random.randint(-reach, reach)
        if self.random.random() < 0.3:
            offset = offset // PAGE_BYTES * PAGE_BYTES + self.random.randint(-16, 15)
        offset = max(-reach, min(reach, offset))
        is_free = "UNALIGNED" in row.flags or (self.stream.traps and self.random.random() < 0.2)
        return offset if is_free else offset & -row.access_bytes

    def data_register(self, row: Row) -> dict[str, int]:
        """The register that is loaded or stored, as a field."""
        if "CP1" in row.flags:
            letter = next(letter for letter in "TSD" if letter in row.fields)
            return {letter: self.fpr(row.op)}
        if "STORE" in row.flags:
            return {"t": self.any()}
        if row.op in NEED_WORDS:
            return {"t": self.word()}
        return {"t": self.any() if row.op in GIVE_WORDS else self.double()}

    def memory(self, row: Row) -> Unit:
        offset = self.offset(row)
        if "i" not in row.fields:
            return self.indexed(row, offset)
        if self.random.random() < 0.6:
            # Unicorn forgets to cut a base to a word if nothing is added to it.
            offset = offset or (row.access_bytes if self.stream.kind.is_user_32 else 0)
            return Unit([row.encode(s=K0, i=offset, **self.data_register(row))])
        return self.through_register(row, offset)

    def through_register(self, row: Row, offset: int) -> Unit:
        """Part of the offset is in the base register."""
        first = max(-0x8000, min(0x7FFF, offset + self.random.randint(-0x4000, 0x4000)))
        base = self.random.choice(DOUBLES)
        access = row.encode(s=base, i=offset - first, **self.data_register(row))
        return Unit([self.add(base, K0, first), access])

    def add(self, target: int, source: int, value: int) -> int:
        """ADDIU where DADDIU is reserved: the sum, a word, may lie beyond the user segment."""
        op = "Addiu" if self.stream.kind.is_user_32 else "Daddiu"
        return self.table[op].encode(s=source, t=target, i=value)

    def indexed(self, row: Row, offset: int) -> Unit:
        base, index = self.random.sample(DOUBLES, 2)
        first = self.random.randint(-0x1000, 0x1000)
        data = self.data_register(row)
        first = max(-0x8000, min(0x7FFF, offset - first))
        words = [self.add(base, K0, first), self.add(index, 0, offset - first)]
        return Unit([*words, row.encode(s=base, t=index, **data)])

    def linked_pair(self, row: Row) -> Unit:
        """LL, perhaps something between, and SC, mostly to the same address."""
        store = self.table["Sc" if row.op == "Ll" else "Scd"]
        offset = self.offset(row)
        other = offset if self.random.random() < 0.8 else self.offset(row)
        words = [row.encode(s=K0, i=offset, **self.data_register(row))]
        if self.random.random() < 0.5:
            words.append(self.plain(self.table[self.random.choice(self.simple)]))
        return Unit([*words, store.encode(s=K0, t=self.double(), i=other)])

    # -- instructions that need a hand ----------------------------------------------------------

    def load_k1(self, value: int) -> list[int]:
        """LUI and ORI; `value` is 32 bits and arrives sign-extended."""
        lui, ori = self.table["Lui"], self.table["Ori"]
        return [lui.encode(t=K1, i=value >> 16), ori.encode(s=K1, t=K1, i=value)]

    def control_write(self, row: Row) -> Unit:
        register = self.random.choice(list(CONTROL_REGISTERS))
        value = self.random.getrandbits(32) & CONTROL_REGISTERS[register]
        if self.stream.traps and register == 31:
            value |= self.random.getrandbits(32) & FCSR_ENABLES_AND_CAUSE
        return Unit([*self.load_k1(value), row.encode(t=K1, S=register)])

    def narrowing(self, row: Row) -> Unit:
        """CVT.S.D of a number: a NaN is replaced by a constant first."""
        source = self.fpr(row.op)
        unordered = self.table["CCondD"].encode(c=7, T=source, S=source, o=1)
        replace = self.table["MovtD"].encode(c=7, S=CONSTANT_FPR, D=source)
        return Unit([unordered, replace, row.encode(S=source, D=self.fpr(row.op))])

    def reserved(self, _row: Row) -> Unit:
        return Unit([self.random.choice(RESERVED_WORDS)])

    # -- branches -------------------------------------------------------------------------------

    def branch(self, row: Row) -> Unit:
        slot = self.slot()
        ahead = self.random.choice((1, 1, 2, 3, self.random.randint(1, 12)))
        into_slot = self.random.random() < 0.1
        if row.op.startswith("J") and "j" not in row.fields:
            return self.register_jump(row, slot, ahead)
        values = {letter: self.any() for letter in "st" if letter in row.fields}
        if "t" in values and self.random.random() < 0.3:
            values["t"] = values["s"]
        if row.op.endswith(("al", "all")) and values.get("s") == 31:
            values["s"] = 0
        if "c" in row.fields:
            values["c"] = self.random.getrandbits(3)
        return Unit([row.encode(**values), slot], ahead, into_slot=into_slot)

    def register_jump(self, row: Row, slot: int, ahead: int) -> Unit:
        """LUI and ORI of the target's address, JR or JALR, and the slot."""
        register = self.random.choice(WORDS)
        link = {"d": self.random.choice(DOUBLES)} if "d" in row.fields else {}
        lui, ori = self.table["Lui"], self.table["Ori"]
        words = [lui.encode(t=register), ori.encode(s=register, t=register)]
        return Unit([*words, row.encode(s=register, **link), slot], ahead, branch=2, address=0)

    def slot(self) -> int:
        """An instruction for a delay slot."""
        # No exceptions in delay slots: the upper half of what user mode reaches from k0 is not mapped.
        if self.random.random() < 0.2 and not self.stream.kind.is_user_32:
            row = self.table[
                self.random.choice(("Lw", "Ld", "Lbu", "Sd", "Sb", "Sw", "Lwl", "Sdr"))
            ]
            offset = self.random.randint(-0x7FF0, 0x7FF0) & -8
            return row.encode(s=K0, i=offset, **self.data_register(row))
        return self.plain(self.table[self.random.choice(self.simple)])


def link(units: Sequence[Unit], base: int) -> Program:
    """Lays the units out from `base` and gives the branches their targets."""
    sizes = [len(unit.words) for unit in units]
    starts = [0, *itertools.accumulate(sizes)][:-1]
    words = [word for unit in units for word in unit.words]
    for number, unit in enumerate(units):
        if unit.ahead is None:
            continue
        goal = min(number + unit.ahead, len(units) - 1)
        target = starts[goal]
        if unit.into_slot and units[goal].ahead is not None and len(units[goal].words) == 2:
            target += 1
        patch(words, starts[number], unit, base, target)
    return Program(words, starts)


def patch(words: list[int], start: int, unit: Unit, base: int, target: int) -> None:
    """Writes the target, an index of `words`, into the branch of the unit at `start`."""
    address = base + 4 * target
    branch = start + unit.branch
    if unit.address is not None:
        words[start + unit.address] |= address >> 16 & 0xFFFF
        words[start + unit.address + 1] |= address & 0xFFFF
    elif words[branch] >> 26 in {2, 3}:
        words[branch] |= address >> 2 & 0x03FF_FFFF
    else:
        words[branch] |= (target - branch - 1) & 0xFFFF
