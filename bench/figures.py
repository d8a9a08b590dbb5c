"""Figures from runs: medians, ratios, goals, and the record that programs read.

All figures come from runs of one session on one machine; nothing is compared with stored seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import geometric_mean, median
from typing import Any

from bench.session import (
    DISCO,
    NETWORK,
    QEMU,
    BenchError,
    Row,
    Run,
    counters_of,
    cpu_seconds_of,
    same_of,
    seconds_of,
)

MEAN_MIN = 3.0
PYTHON_SHARE_MAX = 0.10
TRANSLATION_SHARE_MAX = 0.15
#: What Disco's process may hold besides the pages that guests have touched.
ROOM_BYTES = 64 << 20
ROOM_BYTES_PER_GUEST = 4 << 20
#: Limits of what Disco is compared with itself in: rows (over, under) and the largest ratio of their seconds.
COMPARISONS = (
    ("8 vCPUs, over 1", "eight-vcpus", "one-vcpu", 1.6),
    ("four VMs on two host threads, over one", "four-two-threads", "four-one-thread", 0.6),
)
#: How much longer than one of few a VM may take where there are many, to be called linear.
LINEAR_MAX = 1.25


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One row, measured.

    Attributes:
        seconds, cpu_seconds: by side, one value a run.
        counters: of the guests under Disco, by name; empty if it did not run.
    """

    row: Row
    seconds: Mapping[str, Sequence[float]]
    cpu_seconds: Mapping[str, Sequence[float]]
    counters: Mapping[str, int]

    @property
    def speedup(self) -> float | None:
        """QEMU's median seconds over Disco's."""
        return _ratio(self.seconds)

    @property
    def cpu_speedup(self) -> float | None:
        """The same of the host's processor time."""
        return _ratio(self.cpu_seconds)

    @property
    def instructions(self) -> int | None:
        """Guest instructions under Disco."""
        return self.counters.get("instructions")

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
        is_minimum: whether `limit` is the least that is good, not the most.
    """

    what: str
    value: float
    limit: float
    unit: str
    is_minimum: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it holds."""
        return self.value >= self.limit if self.is_minimum else self.value <= self.limit


def figures(row: Row, runs: Mapping[str, Sequence[Run]]) -> Figures:
    """A row from all runs of its session, by side.

    Raises:
        BenchError: Disco's guest did not do the same in each run, or not the same as QEMU's.
    """
    counts = [counters_of(run, row) for run in runs.get(DISCO, ())]
    for name in counts[0] if counts else ():
        found = {count[name] for count in counts}
        if len(found) > 1:
            shown = ", ".join(map(str, sorted(found)))
            raise BenchError(f"{row.name}: {name} differ from run to run: {shown}")
    results = {same_of(run, row) for of_side in runs.values() for run in of_side}
    if len(results) > 1:
        raise BenchError(f"{row.name}: results differ: {', '.join(map(str, results))}")
    return Figures(
        row=row,
        seconds={side: [seconds_of(run, row) for run in of_side] for side, of_side in runs.items()},
        cpu_seconds={
            side: [cpu_seconds_of(run, row) for run in of_side] for side, of_side in runs.items()
        },
        counters=counts[0] if counts else {},
    )


def speedup_goals(measured: Sequence[Figures]) -> list[Goal]:
    """The goals of the rows beside QEMU and of their mean, as far as they were measured."""
    beside = [(one, one.speedup) for one in measured]
    goals = [
        Goal(
            what=f"{one.row.name}: times as fast as QEMU",
            value=speedup,
            limit=one.row.speedup_min,
            unit="x",
            is_minimum=True,
        )
        for one, speedup in beside
        if speedup is not None and one.row.speedup_min is not None
    ]
    mean = [speedup for one, speedup in beside if speedup is not None and one.row.is_in_mean]
    if mean:
        what = f"geometric mean of {len(mean)} rows: times as fast as QEMU"
        goals.append(
            Goal(what=what, value=geometric_mean(mean), limit=MEAN_MIN, unit="x", is_minimum=True)
        )
    return goals


def own_goals(measured: Sequence[Figures]) -> list[Goal]:
    """The goals that compare Disco with itself, as far as they were measured."""
    seconds = {
        one.row.name: median(one.seconds[DISCO]) for one in measured if one.seconds.get(DISCO)
    }
    goals = [
        Goal(what=f"{what}: seconds", value=seconds[over] / seconds[under], limit=limit, unit="x")
        for what, over, under, limit in COMPARISONS
        if over in seconds and under in seconds
    ]
    points = scaling(measured)
    few, many = points[len(points) // 2 :][:1], points[-1:]
    if len(points) > 2:
        (few_count, few_seconds), (many_count, many_seconds) = few[0], many[0]
        goals.append(
            Goal(
                what=f"{many_count} VMs: seconds a VM, over those with {few_count}",
                value=many_seconds / many_count / (few_seconds / few_count),
                limit=LINEAR_MAX,
                unit="x",
            )
        )
    return goals


def scaling(measured: Sequence[Figures]) -> list[tuple[int, float]]:
    """Number of VMs and median seconds, of the rows that say how wall time grows."""
    return sorted(
        (int(one.row.name.removeprefix("vms-")), median(one.seconds[DISCO]))
        for one in measured
        if one.row.group == "scaling" and one.seconds.get(DISCO)
    )


def disco_goals(runs: Mapping[str, Sequence[Run]], guests: Mapping[str, int]) -> list[Goal]:
    """Shares of time, and memory, of Disco's runs of sessions that boot Debian.

    Args:
        runs: of Disco, by session.
        guests: how many there are at once, by session.
    """
    if not runs:
        return []
    goals = []
    # Frames between VMs are Python's to carry, and in that session there is nothing else.
    shares = {
        name: median(run.facts["python_share"] for run in of)
        for name, of in runs.items()
        if name != NETWORK
    }
    if shares:
        worst = max(shares, key=lambda name: shares[name])
        what = f"Python's share of time, the largest but for the network's: {worst}"
        goals.append(_percent(what, shares[worst], PYTHON_SHARE_MAX))
    if "boot" in runs:
        share = median(run.facts["translation_share"] for run in runs["boot"])
        goals.append(_percent("translator's share of a boot", share, TRANSLATION_SHARE_MAX))
    room = {
        name: max(run.facts["peak_bytes"] - run.facts["guest_bytes"] for run in of)
        / (ROOM_BYTES + guests[name] * ROOM_BYTES_PER_GUEST)
        for name, of in runs.items()
    }
    worst = max(room, key=lambda name: room[name])
    limit = (ROOM_BYTES + guests[worst] * ROOM_BYTES_PER_GUEST) / 2**20
    what = f"host memory besides guests' pages, the most: {worst}"
    goals.append(Goal(what=what, value=room[worst] * limit, limit=limit, unit="MiB"))
    return goals


def record(measured: Sequence[Figures], goals: Sequence[Goal]) -> dict[str, Any]:
    """The rows and goals as JSON has them."""
    return {
        "rows": [_row_record(one) for one in measured],
        "goals": [
            {"what": one.what, "value": one.value, "limit": one.limit, "unit": one.unit}
            | {"kind": "least" if one.is_minimum else "most", "met": one.is_met}
            for one in goals
        ],
        "scaling": scaling(measured),
    }


def _row_record(one: Figures) -> dict[str, Any]:
    return {
        "name": one.row.name,
        "group": one.row.group,
        "title": one.row.title,
        "seconds": {side: list(values) for side, values in one.seconds.items()},
        "cpu_seconds": {side: list(values) for side, values in one.cpu_seconds.items()},
        "ratio": one.speedup,
        "cpu_ratio": one.cpu_speedup,
        "instructions": one.instructions,
        "mips": None if one.rate is None else one.rate / 1e6,
        "counters": dict(one.counters),
    }


def _ratio(values: Mapping[str, Sequence[float]]) -> float | None:
    ours, theirs = values.get(DISCO), values.get(QEMU)
    if not ours or not theirs or not median(ours):
        return None
    return median(theirs) / median(ours)


def _percent(what: str, share: float, limit: float) -> Goal:
    return Goal(what=what, value=100 * share, limit=100 * limit, unit="%")
