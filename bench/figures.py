"""Figures from runs: medians, ratios, goals, and the record that programs read.

All figures come from runs of one session on one machine; nothing is compared with stored seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.session import (
    DISCO,
    QEMU,
    BenchError,
    Row,
    Run,
    Session,
    cpu_seconds_of,
    instructions_of,
    seconds_of,
)

PYTHON_SHARE_MAX = 0.10
#: What Disco's process may hold besides the pages that guests have touched.
ROOM_BYTES = 64 << 20
ROOM_BYTES_PER_GUEST = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One row, measured.

    Attributes:
        seconds, cpu_seconds: by side, one value a run.
        instructions: of the guest under Disco; None if it did not run.
    """

    row: Row
    seconds: Mapping[str, Sequence[float]]
    cpu_seconds: Mapping[str, Sequence[float]]
    instructions: int | None

    @property
    def ratio(self) -> float | None:
        """Disco's median seconds over QEMU's."""
        return _ratio(self.seconds)

    @property
    def cpu_ratio(self) -> float | None:
        """The same of the host's processor time."""
        return _ratio(self.cpu_seconds)

    @property
    def rate(self) -> float | None:
        """Guest instructions a second under Disco."""
        if self.instructions is None or not self.seconds.get(DISCO):
            return None
        return self.instructions / median(self.seconds[DISCO])


@dataclass(frozen=True, kw_only=True)
class Goal:
    """Something that should hold, with what was measured.

    Attributes:
        what: in words.
        value, limit: in `unit`.
        is_met: whether it holds.
    """

    what: str
    value: float
    limit: float
    unit: str
    is_met: bool


def figures(row: Row, runs: Mapping[str, Sequence[Run]]) -> Figures:
    """A row from all runs of its session, by side.

    Raises:
        BenchError: Disco's guest did not execute the same instructions in each run.
    """
    counts = {instructions_of(run, row) for run in runs.get(DISCO, ())}
    if len(counts) > 1:
        shown = ", ".join(str(count) for count in sorted(filter(None, counts)))
        raise BenchError(f"{row.name}: guest instructions differ from run to run: {shown}")
    return Figures(
        row=row,
        seconds={side: [seconds_of(run, row) for run in of_side] for side, of_side in runs.items()},
        cpu_seconds={
            side: [cpu_seconds_of(run, row) for run in of_side] for side, of_side in runs.items()
        },
        instructions=counts.pop() if counts else None,
    )


def row_goals(measured: Figures) -> list[Goal]:
    """The goals of a row, as far as it was measured."""
    row, goals = measured.row, []
    if row.ratio_max is not None and measured.ratio is not None:
        goals.append(_at_most(f"{row.title}, over QEMU", measured.ratio, row.ratio_max, "x"))
    if row.rate_min is not None and measured.rate is not None:
        rate = measured.rate / 1e6
        goals.append(
            Goal(
                what=f"{row.title}: MIPS, at least",
                value=rate,
                limit=row.rate_min / 1e6,
                unit="",
                is_met=measured.rate >= row.rate_min,
            )
        )
    return goals


def session_goals(session: Session, runs: Sequence[Run]) -> list[Goal]:
    """Python's share and memory of Disco's runs of a session that boots Debian."""
    name = f"{session.name}: "
    share = 100 * median(run.facts["python_share"] for run in runs)
    room = ROOM_BYTES + session.guests * ROOM_BYTES_PER_GUEST
    peak = max(run.facts["peak_bytes"] for run in runs)
    limit = max(run.facts["guest_bytes"] for run in runs) + room
    return [
        _at_most(f"{name}Python's share of time", share, 100 * PYTHON_SHARE_MAX, "%"),
        _at_most(f"{name}peak memory", peak / 2**20, limit / 2**20, "MiB"),
    ]


def record(measured: Sequence[Figures], goals: Sequence[Goal]) -> dict[str, Any]:
    """The rows and goals as JSON has them."""
    return {
        "rows": [_row_record(one) for one in measured],
        "goals": [
            {"what": one.what, "value": one.value, "limit": one.limit, "unit": one.unit}
            | {"met": one.is_met}
            for one in goals
        ],
    }


def _row_record(one: Figures) -> dict[str, Any]:
    return {
        "name": one.row.name,
        "title": one.row.title,
        "seconds": {side: list(values) for side, values in one.seconds.items()},
        "cpu_seconds": {side: list(values) for side, values in one.cpu_seconds.items()},
        "ratio": one.ratio,
        "cpu_ratio": one.cpu_ratio,
        "instructions": one.instructions,
        "mips": None if one.rate is None else one.rate / 1e6,
    }


def _ratio(values: Mapping[str, Sequence[float]]) -> float | None:
    ours, theirs = values.get(DISCO), values.get(QEMU)
    if not ours or not theirs or not median(theirs):
        return None
    return median(ours) / median(theirs)


def _at_most(what: str, value: float, limit: float, unit: str) -> Goal:
    return Goal(what=what, value=value, limit=limit, unit=unit, is_met=value <= limit)
