"""The work that Debian's userland does, by the classes of the table.

Each is a shell script in three parts: what is made before the clock runs, what is measured, and what
tells the result. `full` amounts take QEMU about ten to forty seconds on a small machine, `quick` ones a
few; the sizes are chosen so that the ratio is the same.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

from bench import circuit, codegen
from bench.kernels import CYCLE, chase
from bench.programs import (
    COMPILER,
    FOLDER,
    LIBRARIES,
    Programs,
    assembled,
    compile_on_host,
    output_of,
)
from bench.session import PREFIX, Row
from disco.guests import initramfs

try:
    import sqlite3
except ImportError:  # this Python was built without it
    sqlite3 = None  # type: ignore[assignment]

#: Where our files are in the guest.
_HERE = "/bench"
_TEXT_SIZE = 8 << 20
_VOCABULARY = 4096
_LETTERS = b"eeeettaaooiinnsshhrrdlucmfwypvbgk"
_KEY = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef"
_IV = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
_CIPHER = f"enc -aes-256-cbc -K {_KEY} -iv {_IV}"

#: The result of some work, by another way than the guest's: None where the host cannot tell.
Result = Callable[[Programs], str | None]


@dataclass(frozen=True, kw_only=True)
class Work:
    """Something that the userland does.

    Attributes:
        name, group, title: of the row.
        session: work of one name shares a boot.
        prepare: shell commands before the clock runs.
        run: shell commands that are measured.
        verify: a shell command that prints the result.
        result: what it has to print.
        same: a shell command whose output has to be the same on both sides.
        files: makes data, by path without a leading slash.
        programs: of programs/*.c.
        packages: of Debian.
        speedup_min: goal, over QEMU.
        is_in_mean: whether the goal of the geometric mean is about it.
    """

    name: str
    group: str
    title: str
    run: str
    verify: str
    result: Result
    session: str = "userland"
    prepare: str = ":"
    same: str | None = None
    files: Callable[[], Mapping[str, initramfs.Node]] = dict
    programs: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    speedup_min: float = 1.0
    is_in_mean: bool = True

    @property
    def script(self) -> str:
        """The whole of it, with marks."""
        told = f'echo "{PREFIX}result {self.name} $({self.verify})"\n'
        if self.same is not None:
            told += f'echo "{self._same_mark} $({self.same})"\n'
        return (
            f"{self.prepare}\n"
            f"echo '{PREFIX}begin {self.name}'\n{self.run}\necho '{PREFIX}end {self.name}'\n"
            f"{told}cd /tmp && rm -rf -- *\n"
        )

    def row(self, programs: Programs) -> Row:
        """Its line in the table; works out the result.

        Raises:
            BenchError: the host cannot do what it should.
        """
        told = f"{PREFIX}result {self.name}"
        result = self.result(programs)
        # What the host cannot tell has at least to be the same on both sides.
        same = self._same_mark if self.same is not None else None if result is not None else told
        return Row(
            name=self.name,
            group=self.group,
            title=self.title,
            begin=f"{PREFIX}begin {self.name}",
            end=f"{PREFIX}end {self.name}",
            checks=() if result is None else (f"{told} {result}",),
            same=same,
            speedup_min=self.speedup_min,
            is_in_mean=self.is_in_mean,
        )

    @property
    def _same_mark(self) -> str:
        return f"{PREFIX}same {self.name}"


def works(*, is_quick: bool) -> list[Work]:
    """All work, in full or quick amounts."""

    def amount(full: int, quick: int) -> int:
        return quick if is_quick else full

    return [
        _integer(amount(256, 32), amount(2_000_000, 250_000), amount(30_000_000, 4_000_000)),
        _floating_point(amount(5_000_000, 500_000)),
        _memory(amount(10_000_000, 2_000_000)),
        _memory_huge(amount(10_000_000, 2_000_000)),
        _switches(amount(200_000, 20_000)),
        _processes(amount(500, 100)),
        _gzip(amount(32, 4)),
        _xz(amount(8, 1)),
        _interpreter(30_000, amount(100_000, 20_000)),
        _database(amount(60_000, 10_000)),
        _crypto(amount(8, 1), amount(20, 4)),
        _simulation(amount(1_000, 200)),
        _compiler(amount(18, 3)),
    ]


def _integer(mib: int, words: int, turns: int) -> Work:
    return Work(
        name="integer",
        group="integer",
        title=f"sha256 of {mib} MiB, sort, bytecode",
        run=f"{_HERE}/integer {mib} {words} {turns} > result",
        verify="cat result",
        result=lambda programs: programs.on_host("integer", mib, words, turns),
        programs=("integer",),
        packages=LIBRARIES,
    )


def _floating_point(steps: int) -> Work:
    return Work(
        name="floating-point",
        group="floating point",
        title=f"n-body, {steps:,} steps",
        run=f"{_HERE}/nbody {steps} > result",
        verify="cat result",
        result=lambda programs: programs.on_host("nbody", steps),
        programs=("nbody",),
        packages=LIBRARIES,
        speedup_min=4.0,
    )


#: The guest's kernel may take pages of that size for a program's memory, or not: `madvise`'s arguments.
_HUGE_PAGES, _NO_HUGE_PAGES = 14, 15


def _memory(steps: int) -> Work:
    return _walk("memory", steps, "64 MiB", _NO_HUGE_PAGES)


def _memory_huge(steps: int) -> Work:
    work = _walk("memory-huge", steps, "64 MiB in huge pages", _HUGE_PAGES)
    return replace(work, speedup_min=1.0, is_in_mean=False)


def _walk(name: str, steps: int, where: str, advice: int) -> Work:
    program = f"walk-{name}"
    symbols = {"STEPS": steps, "ADVICE": advice, **CYCLE}
    return Work(
        name=name,
        group="TLB and memory",
        title=f"{steps:,} steps through {where}",
        run=f"{_HERE}/{program}; echo $? > byte",
        verify="cat byte",
        result=lambda _: str((chase(steps) >> 6) % 256),
        files=lambda: {f"bench/{program}": initramfs.program(assembled("walk", symbols))},
        speedup_min=4.0,
    )


def _switches(trips: int) -> Work:
    return Work(
        name="switches",
        group="switches",
        title=f"pipe ping-pong, {trips:,} round trips",
        run=f"{_HERE}/pingpong; echo $? > byte",
        verify="cat byte",
        result=lambda _: str(trips % 256),
        files=lambda: {
            "bench/pingpong": initramfs.program(assembled("pingpong", {"STEPS": trips}))
        },
        speedup_min=4.0,
    )


def _processes(count: int) -> Work:
    return Work(
        name="processes",
        group="processes",
        title=f"fork and exec, {count}",
        run=f"i=0; while [ $i -lt {count} ]; do /bin/busybox true && i=$((i + 1)); done",
        verify="echo $i",
        result=lambda _: str(count),
    )


def _gzip(mib: int) -> Work:
    return Work(
        name="gzip",
        group="compressors",
        title=f"gzip, {mib} MiB",
        prepare=_text_of(mib),
        run="/bin/gzip -nc text > packed",
        verify="/bin/gzip -dc packed | sha256sum | cut -c 1-64",
        same="sha256sum < packed | cut -c 1-64",
        result=lambda _: _sha256(_text_bytes(mib)),
        files=_text_file,
        packages=("gzip",),
    )


def _xz(mib: int) -> Work:
    return Work(
        name="xz",
        group="compressors",
        title=f"xz -1, {mib} MiB",
        prepare=_text_of(mib),
        run="/usr/bin/xz -1 -c text > packed",
        verify="/usr/bin/xz -dc packed | sha256sum | cut -c 1-64",
        same="sha256sum < packed | cut -c 1-64",
        result=lambda _: _sha256(_text_bytes(mib)),
        files=_text_file,
        packages=("xz-utils",),
    )


def _interpreter(accounts: int, turns: int) -> Work:
    path = "bench/ledger.py"
    words = f"{accounts} {turns}"
    source = FOLDER / "ledger.py"
    return Work(
        name="interpreter",
        group="interpreter",
        title=f"python3, {accounts:,} objects, {turns:,} turns",
        run=f"python3.11 /{path} {words} > result",
        verify="cat result",
        result=lambda _: output_of([sys.executable, str(source), *words.split()]),
        files=lambda: {path: initramfs.file(source.read_bytes())},
        packages=("python3.11-minimal",),
        speedup_min=4.0,
    )


def _database(rows: int) -> Work:
    path = "bench/rows.sql"
    script = (FOLDER / "rows.sql").read_text().replace("ROWS", str(rows))
    return Work(
        name="database",
        group="database",
        title=f"sqlite3, {rows:,} rows",
        run=f"sqlite3 :memory: < /{path} > result",
        verify="sha256sum < result | cut -c 1-64",
        result=lambda _: None if sqlite3 is None else _sha256(_answers(script)),
        files=lambda: {path: initramfs.file(script.encode())},
        packages=("sqlite3",),
    )


def _crypto(mib: int, starts: int) -> Work:
    def on_host(_: Programs) -> str | None:
        if shutil.which("openssl") is None:
            return None
        with tempfile.NamedTemporaryFile() as file:
            file.write(_text_bytes(mib))
            file.flush()
            text = output_of(["sh", "-c", f"openssl {_CIPHER} -in {file.name} | sha256sum"])
            return text[:64]

    return Work(
        name="crypto",
        group="crypto",
        title=f"AES-256 of {mib} MiB, {starts} start-ups",
        prepare=_text_of(mib),
        run=f"openssl {_CIPHER} -in text > cipher\n"
        f"for i in $(seq {starts}); do openssl list -cipher-algorithms > list; done",
        verify="sha256sum < cipher | cut -c 1-64",
        result=on_host,
        files=_text_file,
        packages=("openssl",),
    )


def _simulation(cycles: int) -> Work:
    path = "bench/circuit.v"
    return Work(
        name="simulation",
        group="simulation",
        title=f"iverilog and vvp, {cycles:,} cycles",
        run=f"iverilog -DCYCLES={cycles} -o circuit /{path} && vvp circuit > result",
        verify="cat result",
        result=lambda _: circuit.result(cycles),
        files=lambda: {path: initramfs.file((FOLDER / "circuit.v").read_bytes())},
        packages=("iverilog",),
    )


def _compiler(functions: int) -> Work:
    path = "bench/unit.c"
    text = codegen.source(functions)

    def on_host(programs: Programs) -> str:
        source = programs.folder / "unit.c"
        source.write_text(text)
        return output_of([str(compile_on_host(source, programs.folder / "unit", ["-O1"]))])

    return Work(
        name="compiler",
        group="compiler",
        title=f"gcc -O1 of {text.count(chr(10)):,} lines of C",
        session="compiler",
        run=f"gcc -O1 -c -o unit.o /{path}",
        verify="gcc -o unit unit.o && ./unit",
        same="sha256sum < unit.o | cut -c 1-64",
        result=on_host,
        files=lambda: {path: initramfs.file(text.encode())},
        packages=COMPILER,
        speedup_min=4.0,
    )


def _answers(script: str) -> bytes:
    """What the shell of SQLite prints for a script: rows with bars between their values."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    lines = []
    for statement in _statements(script):
        rows = connection.execute(statement).fetchall()
        lines += ["|".join(str(value) for value in row) + "\n" for row in rows]
    connection.close()
    return "".join(lines).encode()


def _statements(script: str) -> list[str]:
    found, text = [], ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            found.append(text)
            text = ""
    return found


def _text_of(mib: int) -> str:
    """Shell commands that make so much text: the file, repeated or cut."""
    size = mib << 20
    if size <= _TEXT_SIZE:
        return f"head -c {size} {_HERE}/text > text"
    return f"cat {' '.join([f'{_HERE}/text'] * (size // _TEXT_SIZE))} > text"


def _text_bytes(mib: int) -> bytes:
    size = mib << 20
    return (_text() * -(-size // _TEXT_SIZE))[:size]


def _text_file() -> Mapping[str, initramfs.Node]:
    return {"bench/text": initramfs.file(_text())}


@cache
def _text() -> bytes:
    """8 MiB of made-up words, common ones more often; it packs about as well as prose."""
    letters = hashlib.shake_256(b"vocabulary").digest(_VOCABULARY * 10)
    words = [_word(letters[i : i + 10]) for i in range(0, len(letters), 10)]
    # The square of an even draw makes word 0 the most common one.
    table = [words[draw * draw * _VOCABULARY >> 32] for draw in range(1 << 16)]
    draws = hashlib.shake_256(b"text").digest(_TEXT_SIZE // 2)
    numbers = struct.unpack(f"<{len(draws) // 2}H", draws)
    return b"".join(table[number] for number in numbers)[:_TEXT_SIZE]


def _word(entropy: bytes) -> bytes:
    """A word of two to nine letters and what follows it."""
    letters = bytes(_LETTERS[byte % len(_LETTERS)] for byte in entropy[2 : 4 + entropy[0] % 8])
    return letters + (b".\n" if entropy[1] < 20 else b" ")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
