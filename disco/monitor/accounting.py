"""What is counted: events of each vCPU, machine pages by node and owner, and time inside and outside.

The counters are the engine's, by its names; the tables are views of the engine's memory. Nothing here
is kept in step with anything: each figure is read where it is true, when it is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from disco import _engine
from disco._engine import Engine


def _dtype(description: Any) -> np.dtype[np.void]:
    dtype: np.dtype[np.void] = np.dtype(description)
    return dtype


PMAP_DTYPE = _dtype(_engine.pmap_dtype)
BACKMAP_DTYPE = _dtype(_engine.backmap_dtype)
MEMMAP_DTYPE = _dtype(_engine.memmap_dtype)


#: Rows of a table that are looked at together.
PIECE_ROWS = 1 << 16


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


def pmap_of(engine: Engine, vm: int) -> NDArray[np.void]:
    """The pmap of a VM, a row a physical page. The engine's memory, not a copy."""
    return np.frombuffer(engine.pmap(vm), dtype=PMAP_DTYPE)


def backmaps_of(engine: Engine, vm: int) -> NDArray[np.void]:
    """The backmaps of a VM's pages. The engine's memory, not a copy."""
    return np.frombuffer(engine.backmaps(vm), dtype=BACKMAP_DTYPE)


def memmap_of(engine: Engine) -> NDArray[np.void]:
    """The memmap, a row a machine page. The engine's memory, not a copy."""
    return np.frombuffer(engine.memmap(), dtype=MEMMAP_DTYPE)


def has_page(pmap: NDArray[np.void]) -> NDArray[np.bool_]:
    """Which rows of a pmap have a machine page."""
    state = pmap["state"]
    present: NDArray[np.bool_] = (state == PageState.PRIVATE) | (state == PageState.SHARED)
    return present


def present_pages(pmap: NDArray[np.void]) -> Iterator[int]:
    """The physical pages that have a machine page, in order. Rows may change meanwhile."""
    for first, rows in _pieces(pmap):
        yield from (first + np.flatnonzero(has_page(rows))).tolist()


def node_of(memmap: NDArray[np.void], pages: Any, nodes: int) -> Any:
    """The node of a machine page, or of each: the high bits of its number."""
    return pages // (len(memmap) // nodes)


def usage_of(engine: Engine, vm: int, *, vcpus: int, nodes: int) -> Usage:
    """What a living VM has used so far."""
    memmap = memmap_of(engine)

    def is_served(rows: NDArray[np.void]) -> Any:
        return (rows["owner"] == Owner.MONITOR) & (rows["users"] == 1) & (rows["vm"] == vm)

    own = (rows["mpn"][has_page(rows)] for _, rows in _pieces(pmap_of(engine, vm)))
    return Usage(
        vcpus=tuple(engine.counters(vm, vcpu) for vcpu in range(vcpus)),
        pages_by_node=_by_node(memmap, own, nodes),
        monitor_pages_by_node=_by_node(memmap, _pages(memmap, is_served), nodes),
    )


def pages_by_owner(engine: Engine, nodes: int) -> dict[str, tuple[int, ...]]:
    """Machine pages of the whole machine: "free", "guest" and "monitor", each by node."""
    memmap = memmap_of(engine)
    owned = {
        owner.name.lower(): _by_node(memmap, _pages(memmap, partial(_is_owned, owner)), nodes)
        for owner in (Owner.GUEST, Owner.MONITOR)
    }
    return {"free": tuple(engine.free_pages(node) for node in range(nodes)), **owned}


def _is_owned(owner: Owner, rows: NDArray[np.void]) -> Any:
    return rows["owner"] == owner


def _pieces(table: NDArray[np.void]) -> Iterator[tuple[int, NDArray[np.void]]]:
    """A table by pieces, with the number of the first row: what is made of all rows would be large."""
    for first in range(0, len(table), PIECE_ROWS):
        yield first, table[first : first + PIECE_ROWS]


def _pages(
    memmap: NDArray[np.void], chosen: Callable[[NDArray[np.void]], Any]
) -> Iterator[NDArray[Any]]:
    """The machine pages whose rows are chosen, by pieces."""
    return (first + np.flatnonzero(chosen(rows)) for first, rows in _pieces(memmap))


def _by_node(
    memmap: NDArray[np.void], pages: Iterable[NDArray[Any]], nodes: int
) -> tuple[int, ...]:
    count = np.zeros(nodes, dtype=np.int64)
    for some in pages:
        count += np.bincount(node_of(memmap, some, nodes), minlength=nodes)
    return tuple(count.tolist())


def host_peak_bytes() -> int:
    """The most host memory that this process has had at a time.

    Not from getrusage(2): there a process starts with the peak of the one that it was forked from.
    Source: proc_pid_status(5).
    """
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


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
