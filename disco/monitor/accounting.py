"""What is counted: events of each vCPU, machine pages by node and owner, and time inside and outside.

The counters are the engine's, by its names; the tables are views of the engine's memory. Nothing here
is kept in step with anything: each figure is read where it is true, when it is asked for.

NumPy is imported by whoever looks at a table: a run that only counts does without its 12 MiB.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from disco import _engine
from disco._engine import Engine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class PageState(IntEnum):
    """Values of `state` in the pmap.

    The rows outside of the VM's RAM and of its devices are never used and read as absent.
    """

    ABSENT = 0
    PRIVATE = 2
    SHARED = 3
    DEVICE = 4


class Owner(IntEnum):
    """Values of `owner` in the memmap.

    A page of nobody is free, or lies in the hole behind a node whose memory is no power of two.
    """

    NOBODY = 0
    GUEST = 1
    MONITOR = 2
    CACHE = 3


@dataclass(frozen=True)
class Usage:
    """What a VM has used.

    Attributes:
        vcpus: counters of each vCPU, by name.
        pages_by_node: machine pages in the VM's pmap, by node.
        monitor_pages_by_node: machine pages that Disco needs for this VM's tables, by node.
    """

    vcpus: tuple[Mapping[str, int], ...]
    pages_by_node: tuple[int, ...]
    monitor_pages_by_node: tuple[int, ...]

    @property
    def counters(self) -> dict[str, int]:
        """Sums over the vCPUs."""
        total: Counter[str] = Counter()
        for counters in self.vcpus:
            total.update(counters)
        return dict(total)

    @property
    def pages(self) -> int:
        """Machine pages."""
        return sum(self.pages_by_node)


def pmap_rows(table: memoryview) -> NDArray[np.void]:
    """A pmap, a row a physical page. The engine's memory, not a copy."""
    return _rows(table, _engine.pmap_dtype)


def backmap_rows(table: memoryview | bytes) -> NDArray[np.void]:
    """The backmaps of a VM's pages. The engine's memory, not a copy."""
    return _rows(table, _engine.backmap_dtype)


def memmap_rows(table: memoryview) -> NDArray[np.void]:
    """The memmap, a row a machine page. The engine's memory, not a copy."""
    return _rows(table, _engine.memmap_dtype)


def _rows(table: memoryview | bytes, description: Any) -> NDArray[np.void]:
    import numpy as np

    dtype: np.dtype[np.void] = np.dtype(description)
    return np.frombuffer(table, dtype=dtype)


def usage_of(engine: Engine, vm: int, *, vcpus: int) -> Usage:
    """What a living VM has used so far."""
    return Usage(
        vcpus=tuple(engine.counters(vm, vcpu) for vcpu in range(vcpus)),
        pages_by_node=tuple(engine.pages_by_node(vm)),
        monitor_pages_by_node=tuple(engine.table_pages_by_node(vm)),
    )


def pages_by_owner(engine: Engine, nodes: int) -> dict[str, tuple[int, ...]]:
    """Machine pages of the whole machine: "free", "guest", "monitor" and "cache", each by node."""
    owned = {
        owner.name.lower(): tuple(engine.owned_pages_by_node(owner))
        for owner in (Owner.GUEST, Owner.MONITOR, Owner.CACHE)
    }
    return {"free": tuple(engine.free_pages(node) for node in range(nodes)), **owned}


def host_peak_bytes() -> int:
    """The most host memory that this process has had at a time.

    Not from getrusage(2): there a process starts with the peak of the one that it was forked from.
    Source: proc_pid_status(5).
    """
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


class Pace:
    """How far simulated time is ahead of the wall clock. Time that was lost is not made up for."""

    def __init__(self) -> None:
        self._offset: float | None = None

    def ahead_seconds(self, simulated: float) -> float:
        """Seconds to wait, 0 or more; asked again and again with the simulated time in seconds."""
        offset = simulated - time.monotonic()
        if self._offset is None or offset < self._offset:
            self._offset = offset
        return offset - self._offset


@dataclass
class Clock:
    """Host time, and how much of it the engine took. The rest is Python's.

    Attributes:
        wall_seconds: spent in `Monitor.run`.
        engine_seconds: of these, inside the engine's run loop.
    """

    wall_seconds: float = 0.0
    engine_seconds: float = 0.0

    @property
    def python_share(self) -> float:
        """Share of wall time spent in Python, 0 to 1."""
        if not self.wall_seconds:
            return 0.0
        return 1 - self.engine_seconds / self.wall_seconds
