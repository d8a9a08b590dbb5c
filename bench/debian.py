"""Sessions of Debian: boots of its kernel, and work in its userland.

Both sides run the same initramfs: the image's, over it the unpacked packages that the work needs, and over
those a script that does the work between two marks. Both restart at the end, which ends the guest. Data
are made before the mark; results are printed behind it and compared with what the host gets by the same
program, or by another way to the same answer.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.programs import Programs
from bench.session import DISCO, END, QEMU, START, USERLAND, Boot, Row, Session
from bench.work import Work, works
from disco.guests import command, initramfs
from disco.guests.images import Image

MEMORY_MIB = 1024
#: Of each guest where there are several at once.
_SMALL_MEMORY_MIB = 128
_FOUR = 4
_SMP_VCPUS = 8
_SCALING_CPUS = 8
#: How many VMs share the CPUs of the machine, one after the other.
SCALING = (1, 2, 4, 8, 16, 32, 64)
_QUICK_SCALING_MAX = 16
#: What ends a guest on both boards.
_LEAVE = "reboot -f\n"


@dataclass(frozen=True)
class Debian:
    """What is booted.

    Attributes:
        image: what Disco boots.
        malta_kernel: what QEMU boots; None: it does not take part.
        programs: our programs of C.
        folder: where initramfs files are written.
    """

    image: Image
    malta_kernel: Path | None
    programs: Programs
    folder: Path

    def boots(
        self,
        name: str,
        *,
        script: str = _LEAVE,
        packages: Sequence[str] = (),
        files: initramfs.Tree | None = None,
    ) -> dict[str, Boot]:
        """What each side boots to run a script over these packages and files."""
        path = self.folder / f"{name}.cpio"
        tree = {**command.tree(script), **(files or {})}
        path.write_bytes(self.programs.userland.over(self.image, packages, tree))
        kernels = {DISCO: self.image.kernel, QEMU: self.malta_kernel}
        return {
            side: Boot(kernel=kernel, initrd=path, append=self.image.command_line)
            for side, kernel in kernels.items()
            if kernel is not None
        }


def names() -> tuple[str, ...]:
    """The names of all rows."""
    boots = (row.name for rows in _BOOT_ROWS.values() for row in rows)
    return (*boots, *(work.name for work in works(is_quick=False)), *map(_scaling_name, SCALING))


def default_names(*, is_quick: bool) -> tuple[str, ...]:
    """The names of the rows that are measured unless somebody chooses."""
    left_out = {
        _scaling_name(count) for count in SCALING if is_quick and count > _QUICK_SCALING_MAX
    }
    return tuple(name for name in names() if name not in left_out)


def sessions(debian: Debian, *, is_quick: bool, wanted: Container[str]) -> list[Session]:
    """A boot, one boot for all work that shares packages, and boots of several VMs and many.

    Args:
        debian: what to boot.
        is_quick: whether to do less work.
        wanted: names of rows; the others' work is not done.

    Raises:
        BenchError: a program cannot be compiled, or the host cannot do the work.
        ImageError: packages cannot be had.
    """
    chosen = [work for work in works(is_quick=is_quick) if work.name in wanted]
    groups = dict.fromkeys(work.session for work in chosen)
    boot, *crowds = _boot_sessions(debian)
    made = [
        boot,
        *(_work_session(debian, one, [w for w in chosen if w.session == one]) for one in groups),
        *crowds,
        *_scaling_sessions(debian),
    ]
    kept = ((session, _wanted(session.rows, wanted)) for session in made)
    return [session.with_rows(rows) for session, rows in kept if rows]


def _wanted(rows: Sequence[Row], wanted: Container[str]) -> tuple[Row, ...]:
    return tuple(row for row in rows if row.name in wanted)


def _work_session(debian: Debian, name: str, chosen: Sequence[Work]) -> Session:
    compiled = debian.programs.for_guests([name for work in chosen for name in work.programs])
    files = {f"bench/{name}": initramfs.program(content) for name, content in compiled.items()}
    for work in chosen:
        files |= work.files()
    return Session(
        name=name,
        rows=tuple(work.row(debian.programs) for work in chosen),
        boots=debian.boots(
            name,
            script="export PATH=/usr/bin:/bin\ncd /tmp\n"
            + "".join(work.script for work in chosen)
            + _LEAVE,
            packages=[name for work in chosen for name in work.packages],
            files=files,
        ),
        memory_mib=MEMORY_MIB,
    )


def _boot_row(
    name: str, title: str, *, end: str, speedup_min: float | None = 1.0, is_in_mean: bool = False
) -> Row:
    return Row(
        name=name,
        group="boot",
        title=title,
        begin=START,
        end=end,
        speedup_min=speedup_min,
        is_in_mean=is_in_mean,
    )


#: By session.
_BOOT_ROWS: Mapping[str, tuple[Row, ...]] = {
    "boot": (
        _boot_row("boot", "one VM, in init", end=USERLAND, is_in_mean=True),
        _boot_row("boot-off", "one VM, off again", end=END),
    ),
    "four boots": (
        _boot_row("four-boot", "four VMs, in init", end=USERLAND),
        _boot_row("four-off", "four VMs, off again", end=END),
    ),
    "four boots, one thread": (
        _boot_row("four-one-thread", "four VMs, one host thread", end=END, speedup_min=None),
    ),
    "four boots, two threads": (
        _boot_row("four-two-threads", "four VMs, two host threads", end=END, speedup_min=None),
    ),
    "boot, 1 vCPU": (_boot_row("one-vcpu", "1 vCPU, off again", end=END, speedup_min=None),),
    "boot, 8 vCPUs": (
        _boot_row(
            "eight-vcpus",
            f"{_SMP_VCPUS} vCPUs, off again",
            end=END,
            speedup_min=None,
        ),
    ),
}


def _boot_sessions(debian: Debian) -> list[Session]:
    both = debian.boots("boot")
    alone = {DISCO: both[DISCO]}
    rows = _BOOT_ROWS
    small = _SMALL_MEMORY_MIB

    def four(name: str, host_threads: int | None = None) -> Session:
        return Session(
            name=name,
            rows=rows[name],
            boots=both if host_threads is None else alone,
            guests=_FOUR,
            memory_mib=small,
            host_threads=host_threads,
        )

    def smp(name: str, vcpus: int) -> Session:
        return Session(name=name, rows=rows[name], boots=alone, vcpus=vcpus, memory_mib=small)

    return [
        Session(name="boot", rows=rows["boot"], boots=both, memory_mib=MEMORY_MIB),
        four("four boots"),
        four("four boots, one thread", 1),
        four("four boots, two threads", 2),
        smp("boot, 1 vCPU", 1),
        smp("boot, 8 vCPUs", _SMP_VCPUS),
    ]


def _scaling_sessions(debian: Debian) -> list[Session]:
    alone = {DISCO: debian.boots("boot")[DISCO]}
    return [
        Session(
            name=f"{count} VMs",
            rows=(_scaling_row(count),),
            boots=alone,
            guests=count,
            memory_mib=_SMALL_MEMORY_MIB,
            cpus=_SCALING_CPUS,
        )
        for count in SCALING
    ]


def _scaling_row(count: int) -> Row:
    return Row(
        name=_scaling_name(count),
        group="scaling",
        title=f"{count} VMs on {_SCALING_CPUS} CPUs, off again",
        begin=START,
        end=END,
        speedup_min=None,
    )


def _scaling_name(count: int) -> str:
    return f"vms-{count}"
