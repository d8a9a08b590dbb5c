"""The command line of the benchmark.

Sides take turns within a run, and the one that begins changes from run to run, so that a slow spell of
the host meets both. A session that fails is reported and the others go on; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from bench import debian, disks, figures, kernels, network, plot, profile, qemu, sides, table
from bench.figures import Figures, Goal
from bench.programs import Programs
from bench.session import DISCO, QEMU, BenchError, Run, Session, check
from bench.userland import Userland
from disco import _engine
from disco.errors import ImageError
from disco.guests import images
from disco.guests.cache import Cache

RECORD = Path(__file__).absolute().parent.parent / "build" / "bench.json"
#: Beside the record.
DRAWING = "bench-scaling.svg"
#: In a document: what is between them follows from the record.
_MARKS = ("<!-- bench/run.py --document: begin -->", "<!-- bench/run.py --document: end -->")
RUNS = 3
#: Columns of the tables where there is no terminal to tell.
_WIDTH = 100


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line.

    Attributes:
        rows: names of the rows to measure.
        runs: of each session on each side.
        is_quick: whether to do less work in each row.
        only_disco: whether to leave QEMU out.
        record: where the figures go.
        profile: whether to show where the host's time goes in each row, and record nothing.
        markdown: whether to show the figures of the record as Markdown, and measure nothing.
        document: Markdown file to put them into instead.
    """

    rows: tuple[str, ...]
    runs: int
    is_quick: bool
    only_disco: bool
    record: Path
    profile: bool
    markdown: bool
    document: Path | None

    @property
    def has_qemu(self) -> bool:
        """Whether QEMU takes part."""
        return not (self.only_disco or self.profile) and qemu.is_there()


@dataclass
class Results:
    """What has been measured so far: runs by session and side, and what went wrong."""

    runs: dict[str, dict[str, list[Run]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, session: Session, run: Run) -> None:
        """Takes a run."""
        self.runs.setdefault(session.name, {}).setdefault(run.side, []).append(run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures; the exit status."""
    options = parse(arguments)
    if options.profile:
        return _profile(options)
    if options.markdown or options.document is not None:
        text = table.markdown(json.loads(options.record.read_text()))
        if options.document is None:
            sys.stdout.write(text)
        else:
            options.document.write_text(_with_tables(options.document.read_text(), text))
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the guests
    load = os.getloadavg()[0]
    console = Console(stderr=True)
    if _engine.build_profile != "release":
        console.print(f"the engine is a {_engine.build_profile} build: its speed means little")
    with tempfile.TemporaryDirectory(prefix="disco-bench-") as folder:
        results = Results()
        sessions: list[Session] = []
        try:
            sessions += _sessions(Path(folder), options, results, console)
            for index in range(options.runs):
                _run_all(sessions, index, options, results, console)
        except KeyboardInterrupt:
            results.failures.append("interrupted; the figures are of what had ended by then")
    whole = _record(options, load, *conclude(sessions, results), results)
    shown = Console()
    shown.print(table.tables(whole), width=None if shown.is_terminal else _WIDTH)
    for failure in results.failures:
        console.print(failure, style="red", markup=False)
    options.record.parent.mkdir(parents=True, exist_ok=True)
    options.record.write_text(json.dumps(whole, indent=2) + "\n")
    console.print(f"written: {options.record}")
    if whole["scaling"]:
        drawing = options.record.with_name(DRAWING)
        drawing.write_text(plot.svg(whole["scaling"]))
        console.print(f"written: {drawing}")
    return 1 if results.failures else 0


def parse(arguments: Sequence[str] | None) -> Options:
    """Options from words; ends the program with a message if they are wrong."""
    names = (*kernels.names(), *debian.names(), *disks.names(), *network.names())
    parser = argparse.ArgumentParser(
        prog="bench/run.py",
        description="How fast guests run under Disco, beside QEMU on the same work.",
        epilog=f"Rows: {', '.join(names)}.",
    )
    parser.add_argument("rows", metavar="ROW", nargs="*", help="measure only these")
    parser.add_argument("--quick", action="store_true", help="less work in each row")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of each (default %(default)s)")
    parser.add_argument("--only-disco", action="store_true", help="leave QEMU out")
    parser.add_argument(
        "--record", type=Path, default=RECORD, help="where figures go (default %(default)s)"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="sample Disco alone with perf; show where the host's time goes, and record nothing",
    )
    parser.add_argument(
        "--markdown", action="store_true", help="measure nothing; show the record as Markdown"
    )
    parser.add_argument(
        "--document", metavar="FILE", type=Path, help="the same, put into a Markdown file"
    )
    given = parser.parse_args(arguments)
    default = (
        *kernels.names(),
        *debian.default_names(is_quick=given.quick),
        *disks.names(),
        *network.names(),
    )
    unknown = [row for row in given.rows if row not in names]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(names)}")
    if given.runs < 1:
        parser.error(f"{given.runs} runs asked; 1 or more are possible")
    if (given.markdown or given.document) and not given.record.exists():
        parser.error(f"no record {given.record}; a run without this option makes one")
    if given.document and any(mark not in given.document.read_text() for mark in _MARKS):
        parser.error(f"{given.document}: needs the lines {' and '.join(_MARKS)}")
    return Options(
        rows=tuple(given.rows) or default,
        runs=given.runs,
        is_quick=given.quick,
        only_disco=given.only_disco,
        record=given.record,
        profile=given.profile,
        markdown=given.markdown,
        document=given.document,
    )


def _profile(options: Options) -> int:
    """Samples one run of each session; the exit status."""
    console = Console(stderr=True)
    results = Results()
    with tempfile.TemporaryDirectory(prefix="disco-bench-") as folder:
        sampler = profile.Sampler(Path(folder) / "samples")
        shares: dict[str, dict[str, float]] = {}
        try:
            for session in _sessions(Path(folder), options, results, console):
                with _watched(console, f"{session.name} on disco") as status:
                    run = sides.run(session, DISCO, _watch(status), sampler.command)
                shares |= {row.name: sampler.shares(run, row) for row in session.rows}
        except (BenchError, KeyboardInterrupt) as error:
            results.failures.append(str(error) or "interrupted")
    sys.stdout.write(table.profile(shares))
    for failure in results.failures:
        console.print(failure, style="red", markup=False)
    return 1 if results.failures else 0


def _with_tables(document: str, tables: str) -> str:
    """The document with these tables between its marks."""
    before, begin, rest = document.partition(_MARKS[0])
    _, end, after = rest.partition(_MARKS[1])
    return f"{before}{begin}\n{tables}{end}{after}"


def conclude(sessions: Sequence[Session], results: Results) -> tuple[list[Figures], list[Goal]]:
    """Figures and goals from all runs; adds to the failures what does not go together."""
    measured: list[Figures] = []
    for session in sessions:
        runs = results.runs.get(session.name, {})
        for row in session.rows if runs else ():
            try:
                measured.append(figures.figures(row, runs))
            except BenchError as error:
                results.failures.append(str(error))
    of_debian = [
        one
        for one in sessions
        if one.boots[DISCO].initrd is not None and one.boots[DISCO].disk is None
    ]
    of_disco = {one.name: results.runs.get(one.name, {}).get(DISCO, []) for one in of_debian}
    return measured, [
        *figures.speedup_goals(measured),
        *figures.own_goals(measured),
        *disks.goals(measured),
        *figures.disco_goals(
            {name: runs for name, runs in of_disco.items() if runs},
            {one.name: one.guests for one in of_debian},
        ),
    ]


def _sessions(
    folder: Path, options: Options, results: Results, console: Console
) -> Iterator[Session]:
    """The sessions that have wanted rows, with what they boot made ready."""
    if not (options.only_disco or options.profile or qemu.is_there()):
        console.print(f"{qemu.HOW_TO_GET_IT}; without it Disco runs alone")
    yield from kernels.sessions(folder, is_quick=options.is_quick, wanted=options.rows)
    if not set(options.rows) & {*debian.names(), *disks.names(), *network.names()}:
        return
    try:
        image = images.build("default", progress=console.print)
        userland = Userland(Cache.of_user(), console.print)
        system = debian.Debian(
            image=image,
            malta_kernel=_malta_kernel(image, options, results, console),
            programs=Programs(userland, image, folder),
            folder=folder,
        )
        console.print("working out the results on the host")
        yield from debian.sessions(system, is_quick=options.is_quick, wanted=options.rows)
        yield from disks.sessions(
            system, is_quick=options.is_quick, wanted=options.rows, say=console.print
        )
        yield from network.sessions(system, is_quick=options.is_quick, wanted=options.rows)
    except (ImageError, BenchError) as error:
        results.failures.append(f"rows with Debian are left out: {error}")


def _malta_kernel(
    image: images.Image, options: Options, results: Results, console: Console
) -> Path | None:
    try:
        if options.has_qemu:
            return qemu.kernel(image, cache=Cache.of_user(), progress=console.print)
    except ImageError as error:
        results.failures.append(f"QEMU boots no Debian: {error}")
    return None


def _run_all(
    sessions: Sequence[Session], index: int, options: Options, results: Results, console: Console
) -> None:
    for session in sessions:
        chosen = [side for side in (DISCO, QEMU) if side in session.boots]
        if not options.has_qemu and QEMU in chosen:
            chosen.remove(QEMU)
        for side in chosen if index % 2 == 0 else reversed(chosen):
            what = f"run {index + 1} of {options.runs}: {session.name} on {side}"
            with _watched(console, what) as status:
                _run(session, side, status, results)


def _run(session: Session, side: str, status: Status, results: Results) -> None:
    try:
        run = sides.run(session, side, _watch(status))
        for row in session.rows:
            check(run, row, guests=session.guests)
    except BenchError as error:
        results.failures.append(str(error))
    else:
        results.add(session, run)


def _watch(status: Status) -> sides.Watch:
    """Shows each line behind what the status line says now."""
    title = status.status

    def watch(line: str) -> None:
        status.update(f"{title}  [dim]{line[:60].replace('[', chr(92) + '[')}[/]")

    return watch


@contextmanager
def _watched(console: Console, what: str) -> Iterator[Status]:
    """A status line on a terminal, a plain line elsewhere."""
    if not console.is_terminal:
        console.print(what)
    with console.status(what) as status:
        yield status


def _record(
    options: Options,
    load: float,
    measured: Sequence[Figures],
    goals: Sequence[Goal],
    results: Results,
) -> dict[str, Any]:
    return {
        "engine": {"version": _engine.__version__, "build_profile": _engine.build_profile},
        "host": {"machine": platform.machine(), "cpus": os.cpu_count(), "model": _cpu_model()}
        | {"load": load},
        "date": datetime.now(UTC).date().isoformat(),
        "qemu": _qemu_version() if options.has_qemu else None,
        "runs": options.runs,
        "form": "quick" if options.is_quick else "full",
        **figures.record(measured, goals),
        "failures": results.failures,
    }


def _cpu_model() -> str:
    """What the host's kernel calls its CPUs. Source: proc_cpuinfo(5)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "unknown")


def _qemu_version() -> str:
    told: Any = subprocess.run(
        [qemu.PROGRAM, "--version"], capture_output=True, text=True, check=True
    ).stdout
    return str(told).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
