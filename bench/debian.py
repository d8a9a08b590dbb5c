"""Sessions of Debian: boots of its kernel, and work in its userland.

Both sides run the same initramfs: the image's, and over it a script that does the work between two
marks. Both restart at the end, which ends the guest. Data are made in the guest before the mark;
results are printed behind it and compared with the host's.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench import elf
from bench.kernels import CYCLE, chase, source_of
from bench.session import DISCO, END, QEMU, START, USERLAND, Boot, Row, Session
from disco._engine import assemble
from disco.guests import command, initramfs
from disco.guests.images import Image

MEMORY_MIB = 128
#: How often QEMU's time a boot may take.
_BOOT_RATIO_MAX = 8.0
_FOUR = 4
#: Where static programs are linked to.
_PROGRAM_BASE = 0x1_2000_0000
#: What ends a guest on both boards.
_LEAVE = "reboot -f\n"


@dataclass(frozen=True, kw_only=True)
class Work:
    """Something that the userland does.

    Attributes:
        name, title: of the row.
        prepare: shell commands before the clock runs.
        run: shell commands that are measured.
        verify: a shell command that prints the result.
        result: what it has to print, worked out by the host.
        files: programs and data, by path without a leading slash.
    """

    name: str
    title: str
    run: str
    verify: str
    result: str
    prepare: str = ":"
    files: Mapping[str, initramfs.Node] = field(default_factory=dict)

    @property
    def script(self) -> str:
        """The whole of it, with marks."""
        return (
            f"{self.prepare}\n"
            f"echo 'bench: begin {self.name}'\n{self.run}\necho 'bench: end {self.name}'\n"
            f'echo "bench: result {self.name} $({self.verify})"\ncd /tmp && rm -f -- *\n'
        )

    @property
    def row(self) -> Row:
        """Its line in the table."""
        return Row(
            name=self.name,
            title=self.title,
            begin=f"bench: begin {self.name}",
            end=f"bench: end {self.name}",
            checks=(f"bench: result {self.name} {self.result}",),
        )


def works(*, scale: int) -> Iterator[Work]:
    """All work, by the classes of the table; `scale` multiplies the amounts."""
    size_mib = 4 * scale
    yield Work(
        name="sha256",
        title=f"integer: sha256, {size_mib} MiB",
        run=f"head -c {size_mib << 20} /dev/zero | sha256sum > sum",
        verify="cut -c 1-64 sum",
        result=hashlib.sha256(bytes(size_mib << 20)).hexdigest(),
    )
    count = 20_000 * scale
    yield Work(
        name="sort",
        title=f"integer: sort, {count:,} numbers",
        prepare=f"awk 'BEGIN {{ x = 1; for (i = 0; i < {count}; i++) {{ x = x * 16807 % 2147483647;"
        " print x } }' > numbers",
        run="sort -n numbers > sorted",
        verify="sha256sum < sorted | cut -c 1-64",
        result=_sha256_of_lines(sorted(_minimal_standard(count))),
    )
    steps = 250_000 * scale
    yield Work(
        name="walk",
        title=f"memory: {steps:,} random steps",
        run="/bench/walk; echo $? > byte",
        verify="cat byte",
        result=str((chase(steps) >> 6) % 256),
        files={"bench/walk": initramfs.program(_program("walk", steps=steps))},
    )
    trips = 1_900 * scale
    yield Work(
        name="switches",
        title=f"switches: {trips:,} round trips",
        run="/bench/pingpong; echo $? > byte",
        verify="cat byte",
        result=str(trips % 256),
        files={"bench/pingpong": initramfs.program(_program("pingpong", steps=trips))},
    )
    count = 50 * scale
    yield Work(
        name="processes",
        title=f"processes: {count:,} of them",
        run=f"i=0; while [ $i -lt {count} ]; do /bin/busybox true && i=$((i + 1)); done",
        verify="echo $i",
        result=str(count),
    )
    count = 100_000 * scale
    yield Work(
        name="awk",
        title=f"interpreter: awk, {count:,} turns",
        run=f"awk 'BEGIN {{ for (i = 0; i < {count}; i++) s = (s * 3 + i) % 65521; print s }}' > sum",
        verify="cat sum",
        result=str(_awk(count)),
    )
    lines = _sha256_of_lines(range(1, count + 1))
    yield Work(
        name="gzip",
        title=f"compressors: gzip, {_size_mb(count)} MB",
        prepare=f"seq {count} > lines",
        run="gzip -c lines > lines.gz",
        verify="gunzip -c lines.gz | sha256sum | cut -c 1-64",
        result=lines,
    )
    yield Work(
        name="unxz",
        title=f"compressors: unxz, {_size_mb(count)} MB",
        run="unxz -c /bench/lines.xz > lines",
        verify="sha256sum < lines | cut -c 1-64",
        result=lines,
        files={"bench/lines.xz": initramfs.file(lzma.compress(_lines(range(1, count + 1))))},
    )


def names() -> tuple[str, ...]:
    """The names of all rows."""
    boots = (row.name for row in (*_ONE_BOOT, *_FOUR_BOOTS))
    return (*boots, *(work.name for work in works(scale=1)))


def sessions(
    folder: Path,
    image: Image,
    malta_kernel: Path | None,
    *,
    scale: int,
    wanted: Container[str],
) -> Iterator[Session]:
    """Boot of one VM, boot of four at once, and one boot for all work.

    Args:
        folder: where initramfs files are written.
        image: what Disco boots.
        malta_kernel: what QEMU boots; None: it does not take part.
        scale: of the work.
        wanted: names of rows; the others' work is not done.
    """
    boot = _boots(folder / "boot.cpio", image, malta_kernel, script=_LEAVE)
    yield Session(
        name="boot",
        rows=_wanted(_ONE_BOOT, wanted),
        boots=boot,
        memory_mib=MEMORY_MIB,
    )
    yield Session(
        name="four boots",
        rows=_wanted(_FOUR_BOOTS, wanted),
        boots=boot,
        guests=_FOUR,
        memory_mib=MEMORY_MIB,
    )
    chosen = tuple(work for work in works(scale=scale) if work.name in wanted)
    script = "cd /tmp\n" + "".join(work.script for work in chosen) + _LEAVE
    files = {path: node for work in chosen for path, node in work.files.items()}
    yield Session(
        name="userland",
        rows=tuple(work.row for work in chosen),
        boots=_boots(folder / "userland.cpio", image, malta_kernel, script=script, files=files),
        memory_mib=MEMORY_MIB,
    )


def _boot_row(name: str, title: str, *, end: str) -> Row:
    return Row(name=name, title=title, begin=START, end=end, ratio_max=_BOOT_RATIO_MAX)


_ONE_BOOT = (
    _boot_row("boot", "boot: first line of init", end=USERLAND),
    _boot_row("boot-off", "boot: and off again", end=END),
)
_FOUR_BOOTS = (
    _boot_row("four-boot", "four boots: all in init", end=USERLAND),
    _boot_row("four-off", "four boots: all off again", end=END),
)


def _wanted(rows: tuple[Row, ...], wanted: Container[str]) -> tuple[Row, ...]:
    return tuple(row for row in rows if row.name in wanted)


def _boots(
    path: Path,
    image: Image,
    malta_kernel: Path | None,
    *,
    script: str,
    files: Mapping[str, initramfs.Node] | None = None,
) -> dict[str, Boot]:
    tree = {**command.tree(script), **(files or {})}
    path.write_bytes(initramfs.append(image.initrd.read_bytes(), tree))
    kernels = {DISCO: image.kernel, QEMU: malta_kernel}
    return {
        side: Boot(kernel=kernel, initrd=path, append=image.command_line)
        for side, kernel in kernels.items()
        if kernel is not None
    }


def _program(name: str, *, steps: int) -> bytes:
    """One of guests/*.S that is a program for Linux."""
    entry = _PROGRAM_BASE + elf.CODE_OFFSET
    code = assemble(source_of(f"{name}.S", {"STEPS": steps, **CYCLE}), entry)
    return elf.executable(code, base=_PROGRAM_BASE, entry=entry)


def _awk(count: int) -> int:
    """What the program of the row `awk` prints."""
    total = 0
    for i in range(count):
        total = (total * 3 + i) % 65521
    return total


def _minimal_standard(count: int) -> Iterator[int]:
    """The generator of Park and Miller from 1, exact in the doubles of awk."""
    state = 1
    for _ in range(count):
        state = state * 16807 % 2147483647
        yield state


def _lines(numbers: Iterator[int] | range | list[int]) -> bytes:
    return b"".join(b"%d\n" % number for number in numbers)


def _sha256_of_lines(numbers: Iterator[int] | range | list[int]) -> str:
    return hashlib.sha256(_lines(numbers)).hexdigest()


def _size_mb(count: int) -> str:
    """How large the lines from 1 to `count` are together."""
    return f"{len(_lines(range(1, count + 1))) / 1e6:.1f}"
