"""The memory of VMs as tables for people: by use as in the paper's Figure 6, and who shares with whom."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table

from disco.monitor.footprint import USES, Footprint

_NAMES = {
    "kernel_text": "kernel text",
    "buffer_cache": "buffer cache",
    "anonymous": "anonymous",
    "monitor": "Disco",
}
#: More VMs than this are not shown in pairs.
_PAIRS_MAX = 12


def tables(footprint: Footprint) -> RenderableType:
    """All of it."""
    return Group(*_tables(footprint))


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}" if size else "-"


def _tables(footprint: Footprint) -> Iterator[RenderableType]:
    names = list(footprint.vms)
    by_use = Table()
    by_use.add_column("")
    for heading in (*map(_NAMES.__getitem__, USES), "all", "shared", "merged", "its part"):
        by_use.add_column(heading, justify="right")
    for name in names:
        parts = [footprint.vms[name][use] for use in USES]
        sums = (
            sum(part.virtual_bytes for part in parts),
            sum(part.shared_bytes for part in parts),
            sum(part.merged_bytes for part in parts),
            sum(part.machine_bytes for part in parts),
        )
        by_use.add_row(name, *map(_mib, (*(part.virtual_bytes for part in parts), *sums)))
    by_use.add_section()
    for label, sizes in (
        ("virtual", footprint.virtual_by_use),
        ("machine", footprint.machine_bytes),
    ):
        by_use.add_row(label, *(_mib(sizes[use]) for use in USES), _mib(sum(sizes.values())))
    yield "Memory by use, in MiB"
    yield by_use
    yield (
        f"machine / virtual: {footprint.ratio:.2f}; in the disk cache and mapped by no VM:"
        f" {_mib(footprint.unused_cache_bytes)} MiB"
    )
    if 1 < len(names) <= _PAIRS_MAX and footprint.common_bytes:
        yield "\nMachine memory in common, in MiB"
        yield _pairs(footprint, names)


def _pairs(footprint: Footprint, names: list[str]) -> Table:
    table = Table()
    table.add_column("")
    for name in names[1:]:
        table.add_column(name, justify="right")
    for index, one in enumerate(names[:-1]):
        sizes = (footprint.common_bytes.get((one, other), 0) for other in names[index + 1 :])
        table.add_row(one, *[""] * index, *map(_mib, sizes))
    return table
