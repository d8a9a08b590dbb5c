"""What is measured.

A *session* is one start of a guest, or of several at once, until all have ended. Guests print marks:
lines such as "bench: begin sort". A *row* is the time between two marks of a session; the begin and
the end of the session count as marks too. So one boot can serve many rows, and each side is a
process that prints lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from disco.guests.command import USERLAND_REACHED

#: Marks that no guest prints.
START = "start"
END = "end"
#: First line of the userland's /init, on both sides.
USERLAND = USERLAND_REACHED.decode()
#: What all other marks begin with.
PREFIX = "bench: "

#: The session of VMs that talk to each other.
NETWORK = "network"
DISCO = "disco"
QEMU = "qemu"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        name: for the command line and the record.
        group: class of work.
        title: for people.
        begin, end: marks, without what follows them on their line.
        checks: marks that the guest has to print, whole: the results of the work, worked out by the host.
        same: begin of a mark that has to be the same on both sides and in each run; None: there is none.
        speedup_min: goal: at least this many times as fast as QEMU; None: QEMU does not do this.
        is_in_mean: whether it counts in the geometric mean.
        amount: of what a goal counts by the second; 0: none does.
    """

    name: str
    group: str
    title: str
    begin: str
    end: str
    checks: tuple[str, ...] = ()
    same: str | None = None
    speedup_min: float | None = 1.0
    is_in_mean: bool = False
    amount: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What a side boots.

    Attributes:
        kernel: ELF file.
        initrd: initramfs, or None.
        append: kernel command line.
        disk: image that every guest reads, and writes copy-on-write; None: there is no disk.
        ready: what a guest's console shows at the end of the session; empty: guests end by themselves.
    """

    kernel: Path
    initrd: Path | None = None
    append: str = ""
    disk: Path | None = None
    ready: str = ""


@dataclass(frozen=True, kw_only=True)
class Session:
    """One start of `guests` equal guests at once.

    Attributes:
        name: for messages.
        rows: what is taken from it.
        boots: what each side boots, by side; a side that is missing cannot run it.
        console: which of the board's serial lines QEMU is to listen to.
        guests: how many at once.
        has_network: whether the guests, two of them, reach each other.
        vcpus: of each guest.
        memory_mib: of each guest.
        cpus: of the machine under Disco; None: one for each vCPU.
        host_threads: that Disco may use; None: one for each of the host's cores.
    """

    name: str
    rows: tuple[Row, ...]
    boots: Mapping[str, Boot]
    console: int = 0
    guests: int = 1
    has_network: bool = False
    vcpus: int = 1
    memory_mib: int = 128
    cpus: int | None = None
    host_threads: int | None = None

    def with_rows(self, rows: tuple[Row, ...]) -> Session:
        """The same session, of which only these rows are taken."""
        return replace(self, rows=rows)


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A line that counts.

    Attributes:
        guest: index of the guest that printed it.
        text: the line.
        seconds: since the session's start.
        cpu_seconds: host processor time that the side's processes had used by then.
        counters: Disco's counters of the guest at that time; empty for QEMU.
    """

    guest: int
    text: str
    seconds: float
    cpu_seconds: float
    counters: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A session that one side has run to its end.

    Attributes:
        side: who ran it.
        marks: in the order of their arrival, START and END of the whole session included.
        start: of the session on the host's monotonic clock, in seconds.
        facts: what only Disco tells: `python_share` of wall time, 0 to 1; `translation_share` of it,
            that of all host threads added up; `guest_bytes` touched;
            `peak_bytes`, the largest resident memory of its process.
    """

    side: str
    marks: tuple[Mark, ...]
    facts: Mapping[str, float]
    start: float = 0.0


class BenchError(Exception):
    """A session did not come to its end, or a guest's result is not the host's."""


def seconds_of(run: Run, row: Row) -> float:
    """From the first guest's begin to the last guest's end."""
    begins, ends = _marks(run, row.begin), _marks(run, row.end)
    return max(mark.seconds for mark in ends) - min(mark.seconds for mark in begins)


def interval_of(run: Run, row: Row) -> tuple[float, float]:
    """The same two moments on the host's monotonic clock, in seconds."""
    begins, ends = _marks(run, row.begin), _marks(run, row.end)
    begin, end = min(mark.seconds for mark in begins), max(mark.seconds for mark in ends)
    return run.start + begin, run.start + end


def cpu_seconds_of(run: Run, row: Row) -> float:
    """Host processor time of the side's processes between the same two marks."""
    begins, ends = _marks(run, row.begin), _marks(run, row.end)
    return max(mark.cpu_seconds for mark in ends) - min(mark.cpu_seconds for mark in begins)


def counters_of(run: Run, row: Row) -> Mapping[str, int]:
    """What was counted between the marks, all guests together; empty where nobody counts."""
    begins, ends = _marks(run, row.begin), _marks(run, row.end)
    names = [name for name in ends[0].counters if all(name in mark.counters for mark in ends)]
    return {
        name: sum(mark.counters[name] for mark in ends)
        - sum(mark.counters.get(name, 0) for mark in begins)
        for name in names
    }


def same_of(run: Run, row: Row) -> str | None:
    """The mark that has to be the same on both sides, if the row has one.

    Raises:
        BenchError: no guest has printed it.
    """
    return None if row.same is None else _marks(run, row.same)[0].text


def check(run: Run, row: Row, *, guests: int) -> None:
    """Makes sure that every guest has printed the row's results.

    Raises:
        BenchError: one has not.
    """
    shown = [mark.text for mark in run.marks]
    for wanted in row.checks:
        if shown.count(wanted) != guests:
            begin = " ".join(wanted.split()[:3])
            found = [text for text in shown if text.startswith(begin)] or ["nothing"]
            raise BenchError(f"{row.name} on {run.side}: '{wanted}' expected; {found[0]} came")


def _marks(run: Run, text: str) -> list[Mark]:
    """Marks that say `text`, perhaps with a result behind it."""
    found = [mark for mark in run.marks if mark.text == text or mark.text.startswith(text + " ")]
    if not found:
        raise BenchError(f"{run.side}: no guest has printed '{text}'")
    return found
