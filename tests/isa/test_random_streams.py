"""Random instruction streams agree with an independent emulator, instruction for instruction.

Millions of instructions a run (`DISCO_FUZZ_SECONDS=600` for more). Each program is named by a stream
and a seed; `DISCO_FUZZ_SEED=stream:seed` runs just that one. A difference is narrowed down to the
first instruction whose effect differs.

What is not compared, each with its reason, is in `EXCLUDED` and in the rules of `random_programs`.
"""

from __future__ import annotations

import itertools
import os
import random
import struct
import time
from dataclasses import replace
from functools import cache

import pytest

pytest.importorskip("unicorn", reason="the independent emulator of these tests")

import operand_values
from random_programs import (
    GIVE_WORDS,
    KEEP_WORDS,
    NEED_WORDS,
    TRAPPING,
    TRAPS,
    WRITE_ELSEWHERE,
    Generator,
    Program,
    Row,
    Stream,
    rows,
)
from two_machines import (
    FCSR,
    FPRS,
    HI,
    LO,
    STATES_MAX,
    Bare,
    Job,
    Kind,
    Oracle,
    Result,
    body_base,
)

from disco import _engine

#: Seconds of comparisons by default, over all streams.
SECONDS = float(os.environ.get("DISCO_FUZZ_SECONDS", "40"))
#: A stream on its own makes this many instructions in any case.
INSTRUCTIONS_MIN = 600_000
TRAPPING_INSTRUCTIONS_MIN = 60_000
STATES = {False: STATES_MAX, True: 4}

_CONFIGURATION = "depends on the configuration: caches, TLB size, counters, optional registers"
_STATE = "changes CP0 or the TLB; the tests of engine/machine have models of these"

#: Operations that no stream contains.
EXCLUDED = {
    "Rdhwr": _CONFIGURATION,
    "Mfc0": _CONFIGURATION,
    "Dmfc0": _CONFIGURATION,
    "Cache": "Unicorn models no caches; Index Store Tag would write registers that we do not have",
    "Mtc0": _STATE,
    "Dmtc0": _STATE,
    "Di": _STATE,
    "Ei": _STATE,
    "Tlbr": _STATE,
    "Tlbwi": "executed by the set-up of both machines, whose result the mapped accesses check",
    "Tlbwr": "Random is a different sequence in every implementation",
    "Tlbp": _STATE,
    "Tlbinv": "not in Unicorn's Release 2 processor",
    "Tlbinvf": "not in Unicorn's Release 2 processor",
    "Eret": "Unicorn does not enter exception handlers",
    "Deret": "EJTAG is absent here and present there",
    "Sdbbp": "EJTAG is absent here and present there",
    "Wait": "ends every program; what may wake the CPU differs",
    "Cop2": "Reserved Instruction in Unicorn, which decodes it before it looks at Status.CU2",
    "Rdpgpr": "reserved where there are no shadow registers in Unicorn, a move here as the manual says",
    "Wrpgpr": "reserved where there are no shadow registers in Unicorn, a move here as the manual says",
}


def choose(**weights: int) -> dict[str, int]:
    """Operations by kind, each kind with the weight of each of its operations."""
    chosen: dict[str, int] = {}
    for row in rows().values():
        weight = weights.get(kind(row), 0)
        if weight and row.op not in EXCLUDED:
            chosen[row.op] = weight
    return chosen


def kind(row: Row) -> str:
    """integer, float, move (between the two), memory, float_memory, branch, float_branch or trap."""
    is_float = "CP1" in row.flags
    if row.op in TRAPPING:
        return "trap"
    if "BRANCH" in row.flags:
        return "float_branch" if is_float else "branch"
    if row.access_bytes or row.op == "Synci":
        return "float_memory" if is_float else "memory"
    return "float" if is_float else "integer"


#: SC and SCD follow the LL and LLD that they belong to.
STORE_CONDITIONALS = {"Sc", "Scd"}


def without(weights: dict[str, int], ops: set[str]) -> dict[str, int]:
    return {op: weight for op, weight in weights.items() if op not in ops}


def is_long(op: str) -> bool:
    """Whether the format L occurs."""
    return op.startswith(("CvtL", "RoundL", "TruncL", "CeilL", "FloorL")) or op in {
        "CvtSL",
        "CvtDL",
    }


FLOAT = choose(float=4, float_memory=5, integer=1)
#: With FR = 0 these are UNPREDICTABLE in Release 2; Unicorn says Reserved Instruction.
ONLY_32_DOUBLES = {op for op in rows() if is_long(op)} | {"Luxc1", "Suxc1"}

STREAMS = {
    stream.name: stream
    for stream in (
        Stream("integer", choose(integer=1)),
        Stream("memory", without(choose(integer=1, memory=4, float_memory=3), STORE_CONDITIONALS)),
        Stream(
            "branches",
            without(
                choose(integer=2, memory=1, branch=6, float=1, float_branch=6), STORE_CONDITIONALS
            ),
            length=300,
        ),
        Stream("float", FLOAT, length=80),
        Stream(
            "float_pairs",
            without(FLOAT, ONLY_32_DOUBLES),
            kind=Kind(has_32_doubles=False),
            length=80,
        ),
        Stream(
            "traps",
            without(
                choose(integer=1, memory=2, float=1, float_memory=1, trap=3),
                STORE_CONDITIONALS | {"Ll", "Lld"},
            ),
            traps=True,
        ),
        # Where 64-bit operations are reserved and addresses are words.
        Stream(
            "user_32",
            without(
                choose(
                    integer=2, memory=4, float=1, float_memory=3, branch=2, float_branch=2, trap=1
                ),
                STORE_CONDITIONALS | {"Ll", "Lld"},
            ),
            kind=Kind(is_user_32=True),
            traps=True,
        ),
    )
}


@cache
def machines(kind: Kind) -> tuple[Bare, Oracle]:
    return Bare(kind), Oracle(kind)


def program_of(stream: Stream, seed: int) -> Program:
    return Generator(stream, seed).program(body_base(stream.kind))


def job_of(stream: Stream, seed: int, words: list[int]) -> Job:
    source = random.Random(f"values {stream.name} {seed}")
    scratch = operand_values.scratch(source)
    states = [operand_values.state(source, stream.kind) for _ in range(STATES[stream.traps])]
    return Job(struct.pack(f"<{len(words)}I", *words), states, scratch, stream.kind)


def run_both(job: Job, oracle: Oracle) -> tuple[Result, Result]:
    bare, _ = machines(job.kind)
    ours = bare.run(job)
    return ours, oracle.run(job, [pc for pc, _ in ours.exceptions])


def compare(stream: Stream, seed: int) -> None:
    """Runs one program on both machines.

    Raises:
        AssertionError: they differ; the text names the first instruction that does.
    """
    program = program_of(stream, seed)
    job = job_of(stream, seed, program.words)
    ours, theirs = run_both(job, machines(stream.kind)[1])
    if ours != theirs:
        pytest.fail(explain(stream, seed, program, job), pytrace=False)


def explain(stream: Stream, seed: int, program: Program, job: Job) -> str:
    """The first unit of the program after which the machines differ when nothing follows it."""
    starts = [*program.starts, len(program.words)]
    for start, end in itertools.pairwise(starts):
        words = program.words[:end] + idle(len(program.words) - end)
        cut = replace(job, body=struct.pack(f"<{len(words)}I", *words))
        # A fresh one: after an exception that it should not have raised Unicorn is in disorder.
        ours, theirs = run_both(cut, Oracle(stream.kind))
        if ours != theirs:
            base = body_base(stream.kind)
            code = [
                _engine.disassemble(words[at], base + 4 * at) + f"  ({words[at]:08x})"
                for at in range(start, end)
            ]
            differences = describe(cut, ours, theirs)
            return "\n".join(
                [
                    f"{stream.name}, seed {seed}, at {base + 4 * start:#x}",
                    *code,
                    *differences,
                    replay(stream, seed),
                ]
            )
    return f"{stream.name}, seed {seed}: differs, but not when cut short\n{replay(stream, seed)}"


def idle(count: int) -> list[int]:
    """Words that do nothing: branches to the next instruction. Unicorn crashes on some hundred NOPs."""
    branch_behind_slot = 0x1000_0001
    return [branch_behind_slot, 0] * (count // 2) + [0] * (count % 2)


def replay(stream: Stream, seed: int) -> str:
    return f"again: DISCO_FUZZ_SEED={stream.name}:{seed} python -m pytest {__file__} -k seed"


#: Name and offset in a state of every register.
REGISTERS = [
    *((f"${number}", 8 * number) for number in range(32)),
    *((f"$f{number}", FPRS + 8 * number) for number in range(32)),
    *(("hi", HI), ("lo", LO), ("fcsr", FCSR)),
]


def describe(job: Job, ours: Result, theirs: Result) -> list[str]:
    """What differs: the registers of the first state that does, memory, exceptions."""
    lines = []
    states = enumerate(zip(job.states, ours.after, theirs.after, strict=True))
    different = [(number, data) for number, data in states if data[1] != data[2]]
    for number, data in different[:1]:
        lines.append(f"  state {number}: before, ours, theirs")
        lines += [describe_register(name, offset, data) for name, offset in REGISTERS]
    scratch = enumerate(zip(ours.scratch, theirs.scratch, strict=True))
    bytes_different = [(at, *pair) for at, pair in scratch if pair[0] != pair[1]]
    for at, mine, other in bytes_different[:16]:
        lines.append(f"  scratch memory at {at:#x}: ours {mine:02x}, theirs {other:02x}")
    exceptions = itertools.zip_longest(ours.exceptions, theirs.exceptions)
    exceptions_different = [pair for pair in exceptions if pair[0] != pair[1]]
    for mine, other in exceptions_different[:3]:
        lines.append(f"  exception (EPC, ExcCode): ours {mine}, theirs {other}")
    return lines


def describe_register(name: str, offset: int, data: tuple[bytes, bytes, bytes]) -> str:
    before, ours, theirs = (int.from_bytes(state[offset : offset + 8], "little") for state in data)
    mark = "" if ours == theirs else "  <--"
    return f"  {name:5} {before:016x} {ours:016x} {theirs:016x}{mark}"


@pytest.mark.parametrize("name", STREAMS)
def test_a_random_stream_agrees_with_the_emulator(name: str) -> None:
    stream = STREAMS[name]
    bare, _ = machines(stream.kind)
    first, end = bare.instructions, time.monotonic() + SECONDS / len(STREAMS)
    wanted = TRAPPING_INSTRUCTIONS_MIN if stream.traps else INSTRUCTIONS_MIN
    seed = 0
    while time.monotonic() < end or bare.instructions - first < wanted:
        compare(stream, seed)
        seed += 1
    print(f"{name}: {bare.instructions - first} instructions, {seed} programs")


@pytest.mark.skipif("DISCO_FUZZ_SEED" not in os.environ, reason="no seed is asked for")
def test_the_seed_that_was_asked_for() -> None:
    name, _, seed = os.environ["DISCO_FUZZ_SEED"].partition(":")
    compare(STREAMS[name], int(seed))


def test_every_operation_is_in_a_stream_or_excluded_with_a_reason() -> None:
    streamed = {op for stream in STREAMS.values() for op in stream.weights} | STORE_CONDITIONALS
    assert set(rows()) - streamed == set(EXCLUDED)


def test_the_instructions_that_need_care_are_in_the_table() -> None:
    by_family = {row.op for row in _engine.instruction_rows() if row.family == "Trap"}
    assert by_family == TRAPS | {"Syscall", "Break"}
    assert rows().keys() >= TRAPPING | NEED_WORDS | GIVE_WORDS | KEEP_WORDS | WRITE_ELSEWHERE
