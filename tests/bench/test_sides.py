"""A side is processes that print: their lines are timed, their end is waited for, errors are told."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import pytest

from bench import sides
from bench.session import END, PREFIX, QEMU, START, BenchError, Boot, Row, Session, seconds_of

ROW = Row(name="a", group="g", title="a", begin=f"{PREFIX}begin a", end=f"{PREFIX}end a")


def session(guests: int = 1) -> Session:
    return Session(name="s", rows=(ROW,), boots={QEMU: Boot(kernel=None)}, guests=guests)  # type: ignore[arg-type]


Printing = Callable[..., None]


@pytest.fixture
def printing(monkeypatch: pytest.MonkeyPatch) -> Printing:
    """Makes QEMU a Python script."""

    def set_script(script: str, guests: int = 1) -> None:
        def commands(_session: Session, _boot: Boot, _wire: sides.Wire) -> list[Sequence[str]]:
            return [[sys.executable, "-c", script]] * guests

        monkeypatch.setitem(sides._COMMANDS, QEMU, commands)

    return set_script


def test_marks_are_timed_when_they_come(printing: Printing) -> None:
    printing(
        "import time; print('noise', flush=True); print('bench: begin a', flush=True);"
        "time.sleep(0.2); print('bench: end a 5', flush=True)"
    )
    seen: list[str] = []
    run = sides.run(session(), QEMU, seen.append)
    assert [mark.text for mark in run.marks] == [START, "bench: begin a", "bench: end a 5", END]
    assert 0.1 <= seconds_of(run, ROW) < 20
    assert seen == ["noise", "bench: begin a", "bench: end a 5"]


def test_every_process_is_a_guest(printing: Printing) -> None:
    printing("print('bench: begin a'); print('bench: end a')", guests=3)
    run = sides.run(session(guests=3), QEMU, lambda line: None)
    assert sorted(mark.guest for mark in run.marks if mark.text == ROW.end) == [0, 1, 2]


def test_processor_time_is_that_of_the_work(printing: Printing) -> None:
    printing(
        "import time; print('bench: begin a', flush=True)\n"
        "while time.process_time() < 0.3: pass\n"
        "print('bench: end a', flush=True)"
    )
    run = sides.run(session(), QEMU, lambda line: None)
    assert 0.2 <= run.marks[-1].cpu_seconds < 5


def test_an_error_comes_with_the_last_lines(printing: Printing) -> None:
    printing("import sys; print('no such board'); sys.exit(3)")
    with pytest.raises(BenchError, match=r"s on qemu: ended with status 3\n +no such board"):
        sides.run(session(), QEMU, lambda line: None)


def test_a_guest_that_never_ends_is_ended(
    printing: Printing, monkeypatch: pytest.MonkeyPatch
) -> None:
    printing("import time; print('waiting', flush=True); time.sleep(60)")
    monkeypatch.setattr(sides, "SECONDS_MAX", 0.5)
    with pytest.raises(BenchError, match=r"no end after 0 s\n +waiting"):
        sides.run(session(), QEMU, lambda line: None)
