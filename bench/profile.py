"""Where the host's time goes in a row: samples of Linux's perf between the row's marks, by part of Disco.

Samples say where time is spent, not why; the counters of the same row say how often what happened. Both
clocks are the host's monotonic one, so the marks tell which samples are the row's.

Source: perf-record(1), perf-script(1).
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.session import BenchError, Row, Run, interval_of

PROGRAM = "perf"
#: What to tell somebody who has no perf.
HOW_TO_GET_IT = f"{PROGRAM} is not on this machine: apt-get install linux-perf"
#: Samples a second: no multiple of what guests do regularly.
_FREQUENCY = 997

#: Parts by what the name of a function, or of its file in brackets, has; the first that fits.
PARTS = (
    ("translated code", re.compile(r"disco-code")),
    (
        "entering it",
        re.compile(r"Accelerator>::(?:run|entry_points)|translate::.*::enter::(?!emit_)"),
    ),
    ("translating", re.compile(r"translate::|dynasm")),
    (
        "interpreter",
        re.compile(r"cpu::interpreter|cpu::code|mips::decode|cpu::integer|mips::fpu|cpu::float"),
    ),
    (
        "TLB, addresses",
        re.compile(
            r"machine::tlb|cpu::data|cpu::translation|find_code|Cpu>?::(?:forget|look|remember)|segments"
        ),
    ),
    ("monitor", re.compile(r"resident::|cpu::system|cp0")),
    ("engine, other", re.compile(r"_engine")),
    ("Python", re.compile(r"python|site-packages|numpy")),
    ("C library", re.compile(r"libc\.so")),
    ("host kernel", re.compile(r"kernel\.kallsyms")),
)
OTHER = "other"
_SAMPLE = re.compile(r"\s*(?P<seconds>\d+\.\d+):\s+[0-9a-f]+\s+(?P<name>.*)")


@dataclass(frozen=True)
class Sampler:
    """Samples a process and its children into a file."""

    path: Path

    def command(self, words: list[str]) -> list[str]:
        """The command that runs `words` and samples them.

        Raises:
            BenchError: there is no perf.
        """
        if shutil.which(PROGRAM) is None:
            raise BenchError(HOW_TO_GET_IT)
        options = ["-q", "-F", str(_FREQUENCY), "-k", "CLOCK_MONOTONIC", "-o", str(self.path)]
        return [PROGRAM, "record", *options, "--", *words]

    def shares(self, run: Run, row: Row) -> dict[str, float]:
        """Percent of the row's samples by part.

        Raises:
            BenchError: perf cannot read them, or has none of the row.
        """
        begin, end = interval_of(run, row)
        words = [PROGRAM, "script", "-i", str(self.path), "-F", "time,ip,sym,dso"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{PROGRAM}: {done.stderr.strip()}")
        return shares(name for time, name in samples(done.stdout) if begin <= time <= end)


def samples(text: str) -> Iterator[tuple[float, str]]:
    """Time and place of each sample that perf shows."""
    for line in text.splitlines():
        if match := _SAMPLE.fullmatch(line):
            yield float(match["seconds"]), match["name"]


def shares(names: Iterable[str]) -> dict[str, float]:
    """Percent by part, of functions that were met.

    Raises:
        BenchError: there are none.
    """
    counts = Counter(part_of(name) for name in names)
    if not counts:
        raise BenchError(f"{PROGRAM}: no sample of the row")
    return {part: 100 * count / counts.total() for part, count in counts.items()}


def part_of(name: str) -> str:
    """The part that a function with the file in brackets behind it belongs to."""
    return next((part for part, pattern in PARTS if pattern.search(name)), OTHER)
