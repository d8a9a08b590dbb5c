"""The command line of the benchmark.

Sides take turns within a run, and the one that begins changes from run to run, so that a slow spell of
the host meets both. A session that fails is reported and the others go on; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from bench import debian, figures, kernels, qemu, sides, table
from bench.figures import Figures, Goal
from bench.session import DISCO, QEMU, BenchError, Run, Session, check
from disco import _engine
from disco.errors import ImageError
from disco.guests import images
from disco.guests.cache import Cache

RECORD = Path(__file__).absolute().parent.parent / "build" / "bench.json"
RUNS = 3
#: How much more `--full` does: about the amounts that take QEMU ten seconds a row.
FULL_SCALE = 16


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line.

    Attributes:
        rows: names of the rows to measure.
        runs: of each session on each side.
        scale: multiplies the amount of work.
        record: where the figures go.
    """

    rows: tuple[str, ...]
    runs: int
    scale: int
    record: Path


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
    console = Console(stderr=True)
    if _engine.build_profile != "release":
        console.print(f"the engine is a {_engine.build_profile} build: its speed means little")
    with tempfile.TemporaryDirectory(prefix="disco-bench-") as folder:
        results = Results()
        sessions = list(_sessions(Path(folder), options, results, console))
        try:
            for index in range(options.runs):
                _run_all(sessions, index, options, results, console)
        except KeyboardInterrupt:
            results.failures.append("interrupted; the figures are of what had ended by then")
    measured, goals = conclude(sessions, results)
    Console().print(table.tables(measured, goals))
    for failure in results.failures:
        console.print(failure, style="red", markup=False)
    _write(options, measured, goals, results)
    console.print(f"written: {options.record}")
    return 1 if results.failures else 0


def parse(arguments: Sequence[str] | None) -> Options:
    """Options from words; ends the program with a message if they are wrong."""
    names = (*kernels.names(), *debian.names())
    parser = argparse.ArgumentParser(
        prog="bench/run.py",
        description="How fast guests run under Disco, beside QEMU on the same work.",
        epilog=f"Rows: {', '.join(names)}.",
    )
    parser.add_argument("--rows", metavar="NAME,...", help="measure only these")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--quick", action="store_true", help="one run of each")
    amount.add_argument("--runs", type=int, default=RUNS, help="runs of each (default %(default)s)")
    parser.add_argument(
        "--full", action="store_true", help=f"{FULL_SCALE} times the work in each row but boots"
    )
    parser.add_argument(
        "--record", type=Path, default=RECORD, help="where figures go (default %(default)s)"
    )
    given = parser.parse_args(arguments)
    rows = tuple(given.rows.split(",")) if given.rows else names
    unknown = [row for row in rows if row not in names]
    if unknown:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(names)}")
    if given.runs < 1:
        parser.error(f"{given.runs} runs asked; 1 or more are possible")
    return Options(
        rows=rows,
        runs=1 if given.quick else given.runs,
        scale=FULL_SCALE if given.full else 1,
        record=given.record,
    )


def conclude(sessions: Sequence[Session], results: Results) -> tuple[list[Figures], list[Goal]]:
    """Figures and goals from all runs; adds to the failures what does not go together."""
    measured: list[Figures] = []
    goals: list[Goal] = []
    for session in sessions:
        runs = results.runs.get(session.name, {})
        for row in session.rows if runs else ():
            try:
                measured.append(figures.figures(row, runs))
            except BenchError as error:
                results.failures.append(str(error))
                continue
            goals += figures.row_goals(measured[-1])
        if runs.get(DISCO) and session.boots[DISCO].initrd is not None:
            goals += figures.session_goals(session, runs[DISCO])
    return measured, goals


def _sessions(
    folder: Path, options: Options, results: Results, console: Console
) -> Iterator[Session]:
    """The sessions that have wanted rows, with what they boot made ready."""
    has_qemu = qemu.is_there()
    if not has_qemu:
        console.print(f"{qemu.HOW_TO_GET_IT}; without it Disco runs alone")
    yield from kernels.sessions(folder, scale=options.scale, wanted=options.rows)
    if not set(options.rows) & set(debian.names()):
        return
    try:
        image = images.build("default", progress=console.print)
    except ImageError as error:
        results.failures.append(f"rows with Debian are left out: {error}")
        return
    malta_kernel = None
    try:
        if has_qemu:
            malta_kernel = qemu.kernel(image, cache=Cache.of_user(), progress=console.print)
    except ImageError as error:
        results.failures.append(f"QEMU boots no Debian: {error}")
    made = debian.sessions(folder, image, malta_kernel, scale=options.scale, wanted=options.rows)
    yield from (session for session in made if session.rows)


def _run_all(
    sessions: Sequence[Session], index: int, options: Options, results: Results, console: Console
) -> None:
    for session in sessions:
        chosen = [side for side in (DISCO, QEMU) if side in session.boots]
        if not qemu.is_there():
            chosen.remove(QEMU)
        for side in chosen if index % 2 == 0 else reversed(chosen):
            what = f"run {index + 1} of {options.runs}: {session.name} on {side}"
            with _watched(console, what) as status:
                _run(session, side, status, results)


def _run(session: Session, side: str, status: Status, results: Results) -> None:
    title = status.status

    def watch(line: str) -> None:
        status.update(f"{title}  [dim]{line[:60].replace('[', chr(92) + '[')}[/]")

    try:
        run = sides.run(session, side, watch)
        for row in session.rows:
            check(run, row, guests=session.guests)
    except BenchError as error:
        results.failures.append(str(error))
    else:
        results.add(session, run)


@contextmanager
def _watched(console: Console, what: str) -> Iterator[Status]:
    """A status line on a terminal, a plain line elsewhere."""
    if not console.is_terminal:
        console.print(what)
    with console.status(what) as status:
        yield status


def _write(
    options: Options, measured: Sequence[Figures], goals: Sequence[Goal], results: Results
) -> None:
    whole = {
        "engine": {"version": _engine.__version__, "build_profile": _engine.build_profile},
        "host": {"machine": platform.machine(), "cpus": os.cpu_count()},
        "qemu": _qemu_version(),
        "runs": options.runs,
        "scale": options.scale,
        **figures.record(measured, goals),
        "failures": results.failures,
    }
    options.record.parent.mkdir(parents=True, exist_ok=True)
    options.record.write_text(json.dumps(whole, indent=2) + "\n")


def _qemu_version() -> str | None:
    if not qemu.is_there():
        return None
    told: Any = subprocess.run(
        [qemu.PROGRAM, "--version"], capture_output=True, text=True, check=True
    ).stdout
    return str(told).splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
