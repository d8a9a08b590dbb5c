"""Rows are times between marks, figures are medians of them, goals compare figures with limits."""

from __future__ import annotations

import pytest

from bench import figures
from bench.session import (
    DISCO,
    END,
    QEMU,
    START,
    BenchError,
    Mark,
    Row,
    Run,
    check,
    counters_of,
    seconds_of,
)

ROW = Row(
    name="sort",
    group="integer",
    title="sort",
    begin="bench: begin sort",
    end="bench: end sort",
    checks=("bench: result sort 42",),
    same="bench: same sort",
    speedup_min=2.0,
    is_in_mean=True,
)
WHOLE = Row(name="whole", group="boot", title="whole", begin=START, end=END)


def mark(text: str, seconds: float, *, guest: int = 0, instructions: int | None = None) -> Mark:
    counters = {} if instructions is None else {"instructions": instructions}
    return Mark(guest=guest, text=text, seconds=seconds, cpu_seconds=seconds / 2, counters=counters)


def run(side: str, *marks: Mark, **facts: float) -> Run:
    return Run(side=side, marks=marks, facts=facts)


def sort(side: str, seconds: float, instructions: int | None = None, same: str = "") -> Run:
    before = None if instructions is None else 7
    after = None if instructions is None else 7 + instructions
    return run(
        side,
        mark("bench: begin sort", 1.0, instructions=before),
        mark("bench: end sort", 1.0 + seconds, instructions=after),
        mark("bench: result sort 42", 2.0 + seconds),
        mark(f"bench: same sort {same}", 2.0 + seconds),
    )


def test_a_row_of_several_guests_lasts_from_the_first_begin_to_the_last_end() -> None:
    both = run(
        DISCO,
        mark(ROW.begin, 2.0, guest=1, instructions=10),
        mark(ROW.begin, 1.0, guest=0, instructions=20),
        mark(ROW.end, 5.0, guest=0, instructions=120),
        mark(ROW.end, 4.0, guest=1, instructions=210),
    )
    assert seconds_of(both, ROW) == 4.0
    assert counters_of(both, ROW) == {"instructions": 300}


def test_the_whole_session_counts_from_no_instructions() -> None:
    whole = run(DISCO, mark(START, 0.0), mark(END, 3.0, instructions=99))
    assert seconds_of(whole, WHOLE) == 3.0
    assert counters_of(whole, WHOLE) == {"instructions": 99}


def test_nobody_counts_what_happens_in_qemu() -> None:
    assert counters_of(sort(QEMU, 1.0), ROW) == {}


def test_a_mark_may_have_a_result_behind_it_but_not_a_longer_name() -> None:
    odd = run(
        DISCO,
        mark("bench: begin sort", 1.0),
        mark("bench: end sorting", 2.0),
        mark("bench: end sort 00ff", 3.0),
    )
    assert seconds_of(odd, ROW) == 2.0


def test_a_mark_that_never_came_is_named() -> None:
    with pytest.raises(BenchError, match="no guest has printed 'bench: end sort'"):
        seconds_of(run(DISCO, mark(ROW.begin, 1.0)), ROW)


@pytest.mark.parametrize(
    ("texts", "guests", "message"),
    [
        (["bench: result sort 42"], 2, "expected; bench: result sort 42 came"),  # of one guest only
        (["bench: result sort 43"], 1, "'bench: result sort 42' expected; bench: result sort 43"),
        ([], 1, "nothing came"),
    ],
)
def test_a_result_that_is_not_the_hosts_is_an_error(
    texts: list[str], guests: int, message: str
) -> None:
    with pytest.raises(BenchError, match=message):
        check(run(DISCO, *(mark(text, 1.0) for text in texts)), ROW, guests=guests)


def test_a_result_of_every_guest_passes() -> None:
    check(sort(DISCO, 1.0), ROW, guests=1)


def test_a_speedup_is_a_ratio_of_medians() -> None:
    runs = {
        DISCO: [sort(DISCO, 100.0, 500), sort(DISCO, 4.0, 500), sort(DISCO, 2.0, 500)],
        QEMU: [sort(QEMU, 1.0), sort(QEMU, 20.0), sort(QEMU, 9.0)],
    }
    measured = figures.figures(ROW, runs)
    assert measured.speedup == 2.25
    assert measured.cpu_speedup == 2.25
    assert measured.rate == 125.0


def test_disco_alone_has_no_speedup_and_no_goal_of_it() -> None:
    measured = figures.figures(ROW, {DISCO: [sort(DISCO, 10.0, 400)]})
    assert measured.speedup is None
    assert figures.speedup_goals([measured]) == []


@pytest.mark.parametrize(
    ("seconds", "met"), [(2.0, [True, False]), (1.0, [True, True]), (4.0, [False] * 2)]
)
def test_the_goal_of_a_row_is_its_own_and_that_of_the_mean_is_three(
    seconds: float, met: list[bool]
) -> None:
    measured = figures.figures(ROW, {DISCO: [sort(DISCO, seconds, 400)], QEMU: [sort(QEMU, 4.0)]})
    assert [goal.is_met for goal in figures.speedup_goals([measured])] == met


def of_disco(name: str, seconds: float, *, group: str = "boot") -> figures.Figures:
    row = Row(name=name, group=group, title="", begin=START, end=END)
    return figures.Figures(row=row, seconds={DISCO: [seconds]}, cpu_seconds={}, counters={})


@pytest.mark.parametrize(("one", "two", "met"), [(10.0, 6.0, True), (10.0, 6.1, False)])
def test_two_host_threads_take_at_most_six_tenths_of_one(one: float, two: float, met: bool) -> None:
    measured = [of_disco("four-one-thread", one), of_disco("four-two-threads", two)]
    assert [goal.is_met for goal in figures.own_goals(measured)] == [met]


@pytest.mark.parametrize(("last", "met"), [(80.0, True), (101.0, False)])
def test_wall_time_is_linear_if_a_vm_of_many_takes_what_one_of_few_takes(
    last: float, met: bool
) -> None:
    points = ((1, 1.0), (2, 1.2), (4, 5.0), (8, 10.0), (64, last))
    measured = [of_disco(f"vms-{n}", seconds, group="scaling") for n, seconds in points]
    assert figures.scaling(measured) == list(points)
    assert [goal.is_met for goal in figures.own_goals(measured)] == [met]


def test_runs_that_execute_different_instructions_are_an_error() -> None:
    with pytest.raises(BenchError, match="instructions differ from run to run: 400, 401"):
        figures.figures(ROW, {DISCO: [sort(DISCO, 1.0, 400), sort(DISCO, 1.0, 401)]})


def test_sides_that_come_to_different_ends_are_an_error() -> None:
    runs = {DISCO: [sort(DISCO, 1.0, 4, same="a")], QEMU: [sort(QEMU, 1.0, same="b")]}
    with pytest.raises(BenchError, match="sort: results differ"):
        figures.figures(ROW, runs)


@pytest.mark.parametrize(
    ("share", "peak_mib", "met"),
    [
        (0.10, 40 + 64 + 16, [True, True]),  # both limits are still good
        (0.11, 40 + 64 + 16 + 1, [False, False]),
    ],
)
def test_four_guests_have_room_for_four(share: float, peak_mib: int, met: list[bool]) -> None:
    facts = {"python_share": share, "peak_bytes": peak_mib << 20, "guest_bytes": 40 << 20}
    goals = figures.disco_goals({"four": [run(DISCO, **facts)]}, {"four": 4})
    assert [goal.is_met for goal in goals] == met


def test_goals_of_all_sessions_are_told_of_the_worst() -> None:
    def one(share: float, peak_mib: int) -> Run:
        facts = {"python_share": share, "translation_share": 0.2, "guest_bytes": 0}
        return run(DISCO, **facts, peak_bytes=peak_mib << 20)

    runs = {"boot": [one(0.01, 69)], "other": [one(0.02, 30)], "network": [one(0.2, 30)]}
    python, translator, memory = figures.disco_goals(runs, dict.fromkeys(runs, 1))
    assert ("other" in python.what, python.value, python.is_met) == (True, 2.0, True)
    assert (translator.value, translator.is_met) == (20.0, False)
    assert ("boot" in memory.what, memory.value, memory.limit) == (True, 69.0, 68.0)


def test_the_record_has_every_run_of_both_sides() -> None:
    runs = {DISCO: [sort(DISCO, 4.0, 500)] * 2, QEMU: [sort(QEMU, 2.0)] * 2}
    (row,) = figures.record([figures.figures(ROW, runs)], [])["rows"]
    assert row["seconds"] == {DISCO: [4.0, 4.0], QEMU: [2.0, 2.0]}
    assert (row["name"], row["ratio"], row["instructions"]) == ("sort", 0.5, 500)
    assert row["mips"] == pytest.approx(125 / 1e6)
