"""The table of services: what each costs on the bare machine and under Disco, and where Disco's part goes.

It is the paper's table 2, for the kernel that the guest runs. Two tables:

    costs   calls, instructions, mean and median cycles of a call on both sides, and the slowdown
    parts   the mean cycles under Disco over those on the bare machine, taken apart: the guest's own
            instructions, and Disco's work by cause. The parts of a row add up to its slowdown.

Without a bare side the parts are shares of the time under Disco.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from disco.monitor.services import ServiceCost

#: Columns of the parts: title and the causes in it.
_PARTS = (
    ("TLB writes", ("tlb_write",)),
    ("privil.", ("privileged",)),
    ("forward", ("forward",)),
    ("page faults", ("page_fault",)),
    ("kernel TLB", ("kernel_tlb_miss",)),
    ("other", ("tlb_miss", "shootdown", "interrupt", "device", "switch", "content")),
)
#: System calls that the tables show; `--json` has all.
_CALLS_SHOWN = 16


@dataclass(frozen=True)
class Compared:
    """A service on both sides; None where it did not occur."""

    disco: ServiceCost | None
    bare: ServiceCost | None

    @property
    def some(self) -> ServiceCost:
        """The side that there is; Disco's if there are both."""
        found = self.disco or self.bare
        assert found is not None, "a row has a side"
        return found

    @property
    def slowdown(self) -> float | None:
        """Mean cycles under Disco over those on the bare machine."""
        if self.disco is None or self.bare is None or not (self.disco.count and self.bare.count):
            return None
        return self.disco.mean_cycles / self.bare.mean_cycles

    def parts(self) -> dict[str, float] | None:
        """The guest's and Disco's parts of the slowdown; of 1 without a bare side. They add up."""
        if self.disco is None or not self.disco.cycles:
            return None
        ratio = self.slowdown
        if ratio is None:
            ratio = 1.0
        parts = {
            title: sum(self.disco.monitor_cycles[cause] for cause in causes)
            for title, causes in _PARTS
        }
        guest = self.disco.cycles - sum(parts.values())
        return {
            title: cycles / self.disco.cycles * ratio
            for title, cycles in {"guest": guest, **parts}.items()
        }


def compare(disco: Sequence[ServiceCost], bare: Sequence[ServiceCost]) -> list[Compared]:
    """A row a service that either side has; faults first, then the dearest system calls in all."""
    sides = [{(cost.service, cost.number): cost for cost in side} for side in (disco, bare)]
    rows = [Compared(sides[0].get(key), sides[1].get(key)) for key in sides[0] | sides[1]]
    return sorted(rows, key=_order)


def _order(row: Compared) -> tuple[bool, int, str]:
    cost = row.some
    return (cost.is_call, -cost.cycles if cost.is_call else 0, cost.name)


def as_data(rows: Sequence[Compared]) -> list[dict[str, Any]]:
    """What `--json` has."""
    return [
        {
            "name": row.some.name,
            "disco": row.disco.as_data() if row.disco else None,
            "bare": row.bare.as_data() if row.bare else None,
            "slowdown": row.slowdown,
            "parts": row.parts(),
        }
        for row in rows
    ]


def tables(rows: Sequence[Compared], *, title: str) -> RenderableType:
    """The rows as tables."""
    shown = list(_shown(rows))
    has_bare = any(row.bare for row in rows)
    has_disco = any(row.disco for row in rows)
    parts: list[RenderableType] = ["", _costs(shown, title, has_bare=has_bare, has_disco=has_disco)]
    if has_disco:
        parts += ["", _parts(shown, has_bare=has_bare)]
    parts.append(Text(_footnote(rows, len(shown)), style="dim"))
    return Group(*parts)


def _shown(rows: Sequence[Compared]) -> Iterator[Compared]:
    calls = 0
    for row in rows:
        calls += row.some.is_call
        if row.some.count and calls <= _CALLS_SHOWN:
            yield row


def _footnote(rows: Sequence[Compared], shown: int) -> str:
    switched = sum(side.switched for row in rows for side in (row.disco, row.bare) if side)
    more = f"\n{len(rows) - shown} more services: --json." if len(rows) > shown else ""
    return f"{switched:,} calls in which the kernel switched to another thread are left out.{more}"


def _table(title: str, headers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    for header in headers:
        table.add_column(header, justify="right")
    return table


def _costs(rows: Sequence[Compared], title: str, *, has_bare: bool, has_disco: bool) -> Table:
    sides = [name for name, there in (("bare", has_bare), ("Disco", has_disco)) if there]
    headers = [f"calls\n{side}" for side in sides]
    headers += ["instr.\na call"]
    headers += [f"{kind}\n{side}" for side in sides for kind in ("mean", "median")]
    headers += ["slow-\ndown"] if len(sides) == 2 else []
    table = _table(title, headers)
    for row in rows:
        costs = [cost for cost, there in ((row.bare, has_bare), (row.disco, has_disco)) if there]
        cells = [f"{cost.count:,}" if cost else "-" for cost in costs]
        cells.append(f"{row.some.mean_instructions:,.0f}")
        for cost in costs:
            there = cost is not None and cost.count
            cells.append(f"{cost.mean_cycles:,.0f}" if cost and there else "-")
            cells.append(f"{cost.median_cycles:,}" if cost and there else "-")
        if len(sides) == 2:
            cells.append(_ratio(row.slowdown))
        table.add_row(row.some.name, *cells)
    return table


def _parts(rows: Sequence[Compared], *, has_bare: bool) -> Table:
    whole = "the cycles on the bare machine" if has_bare else "the cycles under Disco"
    headers = ["guest", *(title.replace(" ", "\n") for title, _ in _PARTS)]
    table = _table(f"Parts, over {whole}", ["all", *headers])
    for row in rows:
        parts: Mapping[str, float] | None = row.parts()
        if parts is None or (has_bare and row.slowdown is None):
            continue
        table.add_row(row.some.name, _ratio(sum(parts.values())), *map(_ratio, parts.values()))
    return table


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
