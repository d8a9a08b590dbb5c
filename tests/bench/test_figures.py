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
    Session,
    check,
    instructions_of,
    seconds_of,
)

ROW = Row(
    name="sort",
    title="sort",
    begin="bench: begin sort",
    end="bench: end sort",
    checks=("bench: result sort 42",),
    ratio_max=8.0,
    rate_min=50.0,
)
WHOLE = Row(name="whole", title="whole", begin=START, end=END)


def mark(text: str, seconds: float, *, guest: int = 0, instructions: int | None = None) -> Mark:
    counters = {} if instructions is None else {"instructions": instructions}
    return Mark(guest=guest, text=text, seconds=seconds, cpu_seconds=seconds / 2, counters=counters)


def run(side: str, *marks: Mark, **facts: float) -> Run:
    return Run(side=side, marks=marks, facts=facts)


def sort(side: str, seconds: float, instructions: int | None = None) -> Run:
    before = None if instructions is None else 7
    after = None if instructions is None else 7 + instructions
    return run(
        side,
        mark("bench: begin sort", 1.0, instructions=before),
        mark("bench: end sort", 1.0 + seconds, instructions=after),
        mark("bench: result sort 42", 2.0 + seconds),
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
    assert instructions_of(both, ROW) == 300


def test_the_whole_session_counts_from_no_instructions() -> None:
    whole = run(DISCO, mark(START, 0.0), mark(END, 3.0, instructions=99))
    assert seconds_of(whole, WHOLE) == 3.0
    assert instructions_of(whole, WHOLE) == 99


def test_nobody_counts_the_instructions_of_qemu() -> None:
    assert instructions_of(sort(QEMU, 1.0), ROW) is None


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


def test_a_ratio_is_of_medians() -> None:
    runs = {
        DISCO: [sort(DISCO, 100.0, 500), sort(DISCO, 4.0, 500), sort(DISCO, 2.0, 500)],
        QEMU: [sort(QEMU, 1.0), sort(QEMU, 2.0), sort(QEMU, 9.0)],
    }
    measured = figures.figures(ROW, runs)
    assert measured.ratio == 2.0
    assert measured.cpu_ratio == 2.0
    assert measured.rate == 125.0


def test_disco_alone_has_no_ratio_and_no_goal_of_it() -> None:
    measured = figures.figures(ROW, {DISCO: [sort(DISCO, 10.0, 400)]})
    assert measured.ratio is None
    assert [(goal.unit, goal.is_met) for goal in figures.row_goals(measured)] == [("", False)]


def test_runs_that_execute_different_instructions_are_an_error() -> None:
    with pytest.raises(BenchError, match="differ from run to run: 400, 401"):
        figures.figures(ROW, {DISCO: [sort(DISCO, 1.0, 400), sort(DISCO, 1.0, 401)]})


@pytest.mark.parametrize(
    ("share", "peak_mib", "met"),
    [
        (0.10, 40 + 64 + 16, [True, True]),  # both limits are still good
        (0.11, 40 + 64 + 16 + 1, [False, False]),
    ],
)
def test_four_guests_have_room_for_four(share: float, peak_mib: int, met: list[bool]) -> None:
    session = Session(name="four", rows=(WHOLE,), boots={}, guests=4)
    facts = {"python_share": share, "peak_bytes": peak_mib << 20, "guest_bytes": 40 << 20}
    goals = figures.session_goals(session, [run(DISCO, **facts)])
    assert [goal.is_met for goal in goals] == met


def test_the_record_has_every_run_of_both_sides() -> None:
    runs = {DISCO: [sort(DISCO, 4.0, 500)] * 2, QEMU: [sort(QEMU, 2.0)] * 2}
    (row,) = figures.record([figures.figures(ROW, runs)], [])["rows"]
    assert row["seconds"] == {DISCO: [4.0, 4.0], QEMU: [2.0, 2.0]}
    assert (row["name"], row["ratio"], row["instructions"]) == ("sort", 2.0, 500)
    assert row["mips"] == pytest.approx(125 / 1e6)
