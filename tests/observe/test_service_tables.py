"""The table of services: rows of both sides, and parts that add up."""

from __future__ import annotations

import pytest
from rich.console import Console

from disco.monitor.services import ServiceCost, services_of
from disco.observe.services import as_data, compare, tables

CAUSES = (
    "tlb_miss",
    "kernel_tlb_miss",
    "tlb_write",
    "privileged",
    "forward",
    "page_fault",
    "shootdown",
    "interrupt",
    "device",
    "switch",
    "content",
)


def cost(
    service: str, number: int | None = None, *, count: int = 1, cycles: int = 100, **spent: int
) -> ServiceCost:
    return ServiceCost(
        service=service,
        number=number,
        count=count,
        switched=1,
        interrupted=0,
        cycles=cycles,
        median_cycles=cycles // max(count, 1),
        instructions=cycles - sum(spent.values()),
        monitor_cycles={cause: spent.get(cause, 0) for cause in CAUSES},
    )


def text(*sides: list[ServiceCost]) -> str:
    console = Console(width=80, record=True)
    console.print(tables(compare(*sides), title="Services"))
    return console.export_text()


def test_the_parts_of_a_service_add_up_to_its_slowdown():
    disco = cost("system call", 5000, count=2, cycles=500, tlb_write=50, forward=70, device=30)
    bare = cost("system call", 5000, count=4, cycles=400)
    (row,) = compare([disco], [bare])
    parts = row.parts()
    assert parts is not None
    assert row.slowdown == 2.5 == pytest.approx(sum(parts.values()))
    assert parts["guest"] == pytest.approx(350 / 2 / 100)
    assert parts["TLB writes"] == pytest.approx(50 / 2 / 100)
    assert parts["other"] == pytest.approx(30 / 2 / 100)


def test_without_a_bare_side_the_parts_are_shares():
    (row,) = compare([cost("tlb refill", cycles=200, privileged=150)], [])
    parts = row.parts()
    assert parts is not None
    assert row.slowdown is None
    assert (sum(parts.values()), parts["privil."]) == (1, 0.75)


def test_faults_come_first_and_then_the_dearest_calls():
    disco = [cost("system call", 5001, cycles=5), cost("system call", 5000, cycles=9)]
    bare = [cost("tlb refill"), cost("system call", 5057, cycles=7)]
    assert [row.some.name for row in compare(disco, bare)] == [
        "tlb refill",
        "read",
        "execve",
        "write",
    ]


def test_calls_of_one_name_and_two_tables_are_two_rows():
    rows = compare([cost("system call", 5000), cost("system call", 4003)], [])
    assert [row.some.name for row in rows] == ["read", "read"]


@pytest.mark.parametrize("has_bare", [False, True])
@pytest.mark.parametrize("has_disco", [False, True])
def test_the_tables_fit_into_80_columns_with_one_side_or_two(has_disco, has_bare):
    side = [
        cost("demand-zero fault", count=123_456, cycles=12_345_678_901),
        cost("system call", 5205, count=0),
        *(cost("system call", 5000 + number, cycles=1_000_000 - number) for number in range(30)),
    ]
    shown = text(side if has_disco else [], side if has_bare else [])
    assert ("demand-zero fault" in shown) == (has_disco or has_bare)
    assert ("slow-" in shown) == (has_disco and has_bare)
    assert "exit_group" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 80
    if has_disco or has_bare:
        assert "100,001" in shown and "more services" in shown


def test_data_has_every_figure_of_both_sides():
    (row,) = as_data(compare([cost("page fault", cycles=300, forward=30)], [cost("page fault")]))
    assert (row["name"], row["slowdown"]) == ("page fault", 3.0)
    assert row["disco"]["monitor_cycles"]["forward"] == 30
    assert row["bare"]["mean_cycles"] == row["bare"]["median_cycles"] == 100


def test_a_service_that_never_ended_has_no_mean():
    nothing = cost("interrupt", count=0, cycles=0)
    assert (nothing.mean_cycles, nothing.mean_instructions) == (0.0, 0.0)
    (row,) = compare([nothing], [nothing])
    assert row.slowdown is None and row.parts() is None


def test_the_engines_rows_become_costs():
    fields = ("count", "switched", "interrupted", "cycles", "median_cycles", "instructions")
    row = {
        "service": "system call",
        "number": 5002,
        "monitor": {"cycles_monitor_forward": 7},
        **dict.fromkeys(fields, 1),
    }
    (made,) = services_of([row])
    assert (made.name, made.is_call, made.monitor_cycles) == ("open", True, {"forward": 7})
