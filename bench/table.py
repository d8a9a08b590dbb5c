"""The figures as tables for people: on a terminal, and in Markdown for documents.

Both show the record (see figures.py), so that an old record can be shown again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from bench import plot
from bench.profile import OTHER, PARTS
from bench.session import DISCO, QEMU

_HEADS = (
    "class",
    "row",
    "Disco s",
    "QEMU s",
    "times as fast",
    "of CPU time",
    "guest M instr",
    "guest MIPS",
)
#: What of the counters is shown, as events in a thousand guest instructions: head and names.
_COUNTERS = (
    ("traps", ("traps",)),
    ("TLB refill", ("traps_tlb_refill",)),
    ("other TLB", ("traps_tlb_invalid", "traps_tlb_modified", "traps_tlb_inhibit")),
    ("privileged", ("traps_privileged",)),
    ("system call", ("traps_syscall",)),
    ("virtual TLB hit", ("tlb_virtual_hits",)),
    ("L2TLB hit", ("tlb_l2tlb_hits",)),
    ("kernel segment", ("tlb_kernel_segment",)),
    ("forwarded", ("tlb_forwarded", "tlb_forwarded_invalid", "tlb_forwarded_modified")),
    ("page fault", ("page_faults_absent", "page_faults_protected")),
)
#: Host time, as if all of it went to instructions, and as if all of it went to traps.
_HOST_HEADS = ("% user", "CPU ns an instruction", "CPU ns a trap")
_USER, _ALL = "cycles_user", ("cycles_user", "cycles_kernel")


def tables(record: Mapping[str, Any]) -> Group:
    """The rows, and whether the goals are met."""
    parts: list[RenderableType] = [_rows(record["rows"])]
    if record["scaling"]:
        parts += ["", plot.text(record["scaling"])]
    if record["goals"]:
        parts += ["", _goals(record["goals"])]
    return Group(*parts)


def markdown(record: Mapping[str, Any]) -> str:
    """Rows, goals and counters as Markdown tables."""
    rows, host = record["rows"], record["host"]
    text = (
        f"One session on {record['date']}, a host with {host['cpus']} CPUs ({host['model']})"
        f" and a load of {host['load']:.1f} before it,"
        f" {record['qemu'] or 'without QEMU'}; medians of {record['runs']} runs in the"
        f" {record['form']} form.\n\n"
    )
    text += _markdown(_HEADS, map(_cells, rows), text_columns=2)
    if record["goals"]:
        goals = (_goal_cells(goal) for goal in record["goals"])
        text += "\n" + _markdown(("goal", "measured", "wanted", ""), goals, text_columns=1)
    counted = [row for row in rows if row["counters"]]
    heads = ("in 1000 instructions", *(head for head, _ in _COUNTERS), *_HOST_HEADS)
    return text + "\n" + _markdown(heads, map(_counter_cells, counted), text_columns=1)


def profile(shares: Mapping[str, Mapping[str, float]]) -> str:
    """Percent of the host's time by row and part as a Markdown table; parts that nobody met are left out."""
    parts = [*(part for part, _ in PARTS), OTHER]
    met = [part for part in parts if any(part in of_row for of_row in shares.values())]
    rows = ([name, *(f"{of.get(part, 0.0):.0f}" for part in met)] for name, of in shares.items())
    return _markdown(("% of host time", *met), rows, text_columns=1)


def _rows(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(
        title="Disco beside QEMU",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="Medians. Above 1, Disco is faster.",
        caption_justify="left",
    )
    for head in _HEADS[:2]:
        table.add_column(head)
    for head in _HEADS[2:]:
        table.add_column(head.replace(" ", "\n", 1), justify="right", no_wrap=True)
    for row in rows:
        cells = _cells(row)
        if row["ratio"] is not None:
            cells[4] = f"[{'green' if row['ratio'] >= 1 else 'red'}]{cells[4]}[/]"
        table.add_row(*cells)
    return table


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [
        row["group"],
        row["title"],
        _seconds(row, DISCO),
        _seconds(row, QEMU),
        _shown(row["ratio"], "{:.2f}"),
        _shown(row["cpu_ratio"], "{:.2f}"),
        _shown(row["instructions"], "{:,.0f}", 1e6),
        _shown(row["mips"], "{:,.0f}"),
    ]


def _goals(goals: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="Goals", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("goal")
    for head in ("measured", "wanted"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("")
    for goal in goals:
        *cells, verdict = _goal_cells(goal)
        table.add_row(*cells, f"[{'green' if goal['met'] else 'red'}]{verdict}[/]")
    return table


def _goal_cells(goal: Mapping[str, Any]) -> list[str]:
    unit = goal["unit"]
    digits = 2 if unit == "x" else 1
    return [
        goal["what"],
        f"{goal['value']:,.{digits}f} {unit}",
        f"at {goal['kind']} {goal['limit']:,g} {unit}",
        "met" if goal["met"] else "missed",
    ]


def _counter_cells(row: Mapping[str, Any]) -> list[str]:
    counters = row["counters"]
    instructions = counters["instructions"]
    per_thousand = [
        1000 * sum(counters.get(name, 0) for name in names) / instructions for _, names in _COUNTERS
    ]
    seconds = median(row["cpu_seconds"][DISCO])
    cycles = sum(counters.get(name, 0) for name in _ALL)
    user = 100 * counters.get(_USER, 0) / cycles if cycles else 0.0
    return [
        row["name"],
        *(f"{value:.3g}" if value else "0" for value in per_thousand),
        f"{user:.0f}",
        f"{1e9 * seconds / instructions:.2f}",
        f"{1e9 * seconds / counters['traps']:,.0f}" if counters.get("traps") else "",
    ]


def _seconds(row: Mapping[str, Any], side: str) -> str:
    values = row["seconds"].get(side)
    return f"{median(values):.2f}" if values else ""


def _shown(value: float | None, form: str, unit: float = 1) -> str:
    return "" if value is None else form.format(value / unit)


def _markdown(heads: Sequence[str], rows: Iterator[Sequence[str]], *, text_columns: int) -> str:
    rule = ["---"] * text_columns + ["---:"] * (len(heads) - text_columns)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (heads, rule, *rows))
