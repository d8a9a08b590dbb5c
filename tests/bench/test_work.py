"""The work of the userland: what the host says a guest has to print, by a second way to the same answer."""

from __future__ import annotations

import hashlib
import math
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from bench import circuit, codegen, programs, work
from bench.programs import Programs

SIZES = (True, False)


@pytest.fixture
def host(tmp_path: Path) -> Programs:
    """Programs for the host; there is no guest."""
    return Programs(userland=None, image=None, folder=tmp_path)  # type: ignore[arg-type]


def test_both_forms_have_the_same_rows() -> None:
    quick, full = ([one.name for one in work.works(is_quick=size)] for size in SIZES)
    assert quick == full
    assert len(set(full)) == len(full)


def test_the_circuit_is_what_a_simulator_makes_of_it(tmp_path: Path) -> None:
    if not shutil.which("iverilog"):
        pytest.skip("iverilog is not on this machine")
    source, target = programs.FOLDER / "circuit.v", tmp_path / "circuit"
    subprocess.run(["iverilog", "-DCYCLES=50", "-o", target, source], check=True)
    assert programs.output_of(["vvp", str(target)]) == circuit.result(50)


def test_generated_c_says_the_same_with_and_without_optimisation(tmp_path: Path) -> None:
    source = tmp_path / "unit.c"
    source.write_text(codegen.source(12))
    said = {
        programs.output_of([str(programs.compile_on_host(source, tmp_path / flag, [flag]))])
        for flag in ("-O0", "-O1", "-O3")
    }
    assert len(said) == 1
    assert codegen.source(12) == source.read_text()


def test_answers_are_those_of_sqlites_own_shell() -> None:
    if not shutil.which("sqlite3"):
        pytest.skip("sqlite3 is not on this machine")
    script = (programs.FOLDER / "rows.sql").read_text().replace("ROWS", "500")
    shell = programs.output_of(["sqlite3", ":memory:"], given=script)
    assert work._answers(script).decode() == shell + "\n"


def test_the_hash_the_sort_and_the_bytecode_are_right(host: Programs) -> None:
    hashed, sorted_sum, register = host.on_host("integer", 1, 1000, 500).split("-")
    assert hashlib.sha256(bytes(1 << 20)).hexdigest().startswith(hashed)
    state, words, total = 88172645463325252, [], 0
    for _ in range(1000):
        state ^= state << 13 & (1 << 64) - 1
        state ^= state >> 7
        state ^= state << 17 & (1 << 64) - 1
        words.append(state)
    for word in sorted(words):
        total = (total * 31 + word) % (1 << 64)
    assert (int(sorted_sum, 16), int(register, 16)) == (total, bytecode(500))


def bytecode(turns: int) -> int:
    """The program of integer.c, written as Python instead of interpreted."""
    mask = (1 << 32) - 1
    memory = [0] * 256
    r0, r1, r3 = 1, 0, 0
    for _ in range(turns):
        r0 = r0 + r1 + 7 & mask
        r0 ^= r0 >> 5
        r3 = memory[r0 & 255] + r0 + 1 & mask
        memory[r0 & 255] = r3
        if r3 & 255 >= 90:
            r1 ^= r3 + 3 & mask
    return r0


def test_the_planets_keep_their_energy(host: Programs) -> None:
    before, after = (
        struct.unpack(">d", bytes.fromhex(bits))[0]
        for bits in host.on_host("nbody", 20_000).split("-")
    )
    assert before < 0  # they do not fly apart
    assert before != after
    assert math.isclose(before, after, rel_tol=1e-4)


@pytest.mark.parametrize("mib", [1, 8, 16])
def test_the_guest_makes_the_text_that_the_host_has(mib: int, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(work._text())
    script = work._text_of(mib).replace("/bench/text", str(tmp_path / "text"))
    subprocess.run(["sh", "-c", script.replace("> text", "> made")], cwd=tmp_path, check=True)
    assert (tmp_path / "made").read_bytes() == work._text_bytes(mib)


def test_what_the_host_cannot_tell_has_to_be_the_same_on_both_sides(host: Programs) -> None:
    told = work.Work(name="w", group="g", title="", run="", verify="", result=lambda _: "42")
    row = told.row(host)
    assert (row.checks, row.same) == (("bench: result w 42",), None)
    untold = work.Work(name="w", group="g", title="", run="", verify="", result=lambda _: None)
    row = untold.row(host)
    assert (row.checks, row.same) == ((), "bench: result w")


def test_a_program_that_cannot_be_compiled_is_an_error_with_the_compilers_words(
    tmp_path: Path,
) -> None:
    source = tmp_path / "odd.c"
    source.write_text("int main(void) { return nonsense; }\n")
    with pytest.raises(programs.BenchError, match="nonsense"):
        programs.compile_on_host(source, tmp_path / "odd")
