"""Sessions with disks: reads that the disk cache serves, and a root that boots to its login.

The reads are direct ones, past the page cache of the guest's kernel, of an image that was read once before:
each is served by mapping pages. What they cost is the host's processor time, with the guest's own
instructions in it. QEMU takes no part.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from statistics import median

from bench.debian import Debian
from bench.figures import Figures, Goal
from bench.programs import FOLDER, LIBRARIES, compile_on_host, output_of
from bench.session import DISCO, END, PREFIX, START, Boot, Row, Session
from disco import images
from disco.errors import ImageError
from disco.guests import initramfs

_MIB = 1 << 20
_IMAGE_MIB = 64
#: As other benchmarks of disks have it, and no more than virtio-blk takes.
_IN_FLIGHT = 32
_LARGE, _RANDOM, _LOGIN = "disk-large", "disk-random", "login"
_ROOT = "debian"
_LOGIN_MEMORY_MIB = 256
#: By row: what, unit, and the least that is good of it, a second of the host's processor time.
_RATES = {
    _LARGE: ("direct reads of 1 MiB from the disk cache", "MB/s", 500.0),
    _RANDOM: (f"random reads of 4 KiB, {_IN_FLIGHT} at a time", "/s", 20_000.0),
}
_LOGIN_SECONDS_MAX = 30.0


def names() -> tuple[str, ...]:
    """The names of all rows."""
    return (*_RATES, _LOGIN)


def sessions(
    debian: Debian, *, is_quick: bool, wanted: Container[str], say: Callable[[str], None]
) -> list[Session]:
    """The reads, and the boot of a root if there is one.

    Raises:
        BenchError: the program that reads cannot be compiled.
        ImageError: packages cannot be had.
    """
    made: list[Session] = []
    if _LARGE in wanted or _RANDOM in wanted:
        session = _reads(debian, is_quick=is_quick)
        made.append(session.with_rows(tuple(row for row in session.rows if row.name in wanted)))
    if _LOGIN in wanted:
        made += _login(say)
    return made


def goals(measured: Sequence[Figures]) -> list[Goal]:
    """What is read in a second of the host's processor time, and how long a boot takes."""
    found: list[Goal] = []
    for one in measured:
        if one.row.name in _RATES:
            what, unit, least = _RATES[one.row.name]
            rate = one.row.amount / median(one.cpu_seconds[DISCO])
            what = f"{what}, a second of CPU time"
            found.append(Goal(what=what, value=rate, limit=least, unit=unit, is_minimum=True))
        elif one.row.name == _LOGIN:
            seconds = median(one.seconds[DISCO])
            what = f"boot of the root '{_ROOT}' to its login"
            found.append(Goal(what=what, value=seconds, limit=_LOGIN_SECONDS_MAX, unit="s"))
    return found


def _reads(debian: Debian, *, is_quick: bool) -> Session:
    image = debian.folder / "disk.img"
    image.write_bytes(random.Random(_IMAGE_MIB).randbytes(_IMAGE_MIB * _MIB))
    # Words of the program: bytes of a block, how many at a time (0: one by one, in order), how many blocks.
    large = f"{_MIB} 0 {_IMAGE_MIB * (4 if is_quick else 40)}"
    small = f"4096 {_IN_FLIGHT} {50_000 if is_quick else 200_000}"
    reader = compile_on_host(FOLDER / "reads.c", debian.folder / "reads")

    def row(name: str, title: str, words: str, amount: float) -> Row:
        told = output_of([str(reader), str(image), *words.split()])
        return Row(
            name=name,
            group="disks",
            title=title,
            begin=f"{PREFIX}begin {name}",
            end=f"{PREFIX}end {name}",
            checks=(f"{PREFIX}result {name} {told}",),
            speedup_min=None,
            amount=amount,
        )

    def work(name: str, words: str) -> str:
        return (
            f"echo '{PREFIX}begin {name}'\nsum=$(/bench/reads /dev/vda {words})\n"
            f"echo '{PREFIX}end {name}'\necho \"{PREFIX}result {name} $sum\"\n"
        )

    script = (
        f"export PATH=/usr/bin:/bin\n/bench/reads /dev/vda {_MIB} 0 {_IMAGE_MIB}\n"
        f"{work(_LARGE, large)}{work(_RANDOM, small)}reboot -f\n"
    )
    program = initramfs.program(debian.programs.for_guests(["reads"])["reads"])
    boots = debian.boots("disks", script=script, packages=LIBRARIES, files={"bench/reads": program})
    blocks, reads = int(large.split()[-1]), int(small.split()[-1])
    return Session(
        name="disks",
        rows=(
            row(_LARGE, f"{blocks} MiB in reads of 1 MiB", large, blocks * _MIB / 1e6),
            row(_RANDOM, f"{reads:,} random reads of 4 KiB", small, reads),
        ),
        boots={DISCO: replace(boots[DISCO], disk=image)},
    )


def _login(say: Callable[[str], None]) -> list[Session]:
    try:
        image = images.load(_ROOT)
    except ImageError as error:
        say(f"row {_LOGIN} is left out: {error}")
        return []
    assert image.disk is not None, "a root is on a disk"
    row = Row(
        name=_LOGIN,
        group="boot",
        title=f"root '{_ROOT}', to its login",
        begin=START,
        end=END,
        speedup_min=None,
    )
    boot = Boot(
        kernel=image.kernel,
        initrd=image.initrd,
        append=image.command_line,
        disk=image.disk,
        ready=image.ready,
    )
    return [Session(name=_LOGIN, rows=(row,), boots={DISCO: boot}, memory_mib=_LOGIN_MEMORY_MIB)]
