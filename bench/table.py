"""The figures as tables for people."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from rich import box
from rich.console import Group
from rich.table import Table

from bench.figures import Figures, Goal
from bench.session import DISCO, QEMU

_HEADS = ("guest\nM instr", "guest\nMIPS", "Disco\ns", "QEMU\ns", "\nratio", "of CPU\ntime")


def tables(measured: Sequence[Figures], goals: Sequence[Goal]) -> Group:
    """The rows, and whether the goals are met."""
    return Group(_rows(measured), "", _goals(goals)) if goals else Group(_rows(measured))


def _rows(measured: Sequence[Figures]) -> Table:
    table = Table(
        title="Disco beside QEMU",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="Medians. Ratios are Disco over QEMU: below 1, Disco is faster.",
        caption_justify="left",
    )
    table.add_column("\nrow", no_wrap=True)
    for head in _HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    for one in measured:
        table.add_row(
            one.row.title,
            "" if one.instructions is None else f"{one.instructions / 1e6:,.1f}",
            "" if one.rate is None else f"{one.rate / 1e6:,.0f}",
            _seconds(one, DISCO),
            _seconds(one, QEMU),
            _ratio(one.ratio),
            _ratio(one.cpu_ratio),
        )
    return table


def _goals(goals: Sequence[Goal]) -> Table:
    table = Table(title="Goals", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("goal", no_wrap=True)
    for head in ("measured", "limit"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    for one in goals:
        table.add_row(
            one.what,
            f"{one.value:,.1f} {one.unit}",
            f"{one.limit:,.0f} {one.unit}",
            "[green]met[/]" if one.is_met else "[red]missed[/]",
        )
    return table


def _seconds(one: Figures, side: str) -> str:
    values = one.seconds.get(side)
    return f"{median(values):.2f}" if values else ""


def _ratio(value: float | None) -> str:
    if value is None:
        return ""
    colour = "green" if value <= 1 else "yellow" if value <= 8 else "red"
    return f"[{colour}]{value:.2f}[/]"
