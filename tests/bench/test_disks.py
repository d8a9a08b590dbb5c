"""Goals of disks are amounts a second of processor time; a root that is not built is left out with words."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import disks
from bench.figures import Figures
from bench.session import DISCO, END, START, Row
from disco.errors import ImageError


def measured(name: str, *, amount: float = 0, cpu_seconds=(), seconds=()) -> Figures:
    row = Row(name=name, group="disks", title=name, begin=START, end=END, amount=amount)
    return Figures(row=row, seconds={DISCO: seconds}, cpu_seconds={DISCO: cpu_seconds}, counters={})


def test_rates_are_of_the_median_cpu_second_and_a_boot_of_wall_seconds() -> None:
    goals = disks.goals(
        [
            measured("disk-large", amount=2000, cpu_seconds=(1, 5, 4)),
            measured("disk-random", amount=90_000, cpu_seconds=(4.5,)),
            measured("login", seconds=(29, 31, 90)),
            measured("gzip", amount=7, cpu_seconds=(1,)),
        ]
    )
    assert [(goal.value, goal.is_met) for goal in goals] == [
        (500, True),
        (20_000, True),
        (31, False),
    ]


def test_a_root_that_is_not_built_is_left_out_and_said(monkeypatch) -> None:
    def absent(name: str) -> None:
        raise ImageError(f"image {name}: not built")

    monkeypatch.setattr(disks.images, "load", absent)
    said: list[str] = []
    assert disks.sessions(None, is_quick=True, wanted=["login"], say=said.append) == []  # type: ignore[arg-type]
    assert said == ["row login is left out: image debian: not built"]


@pytest.mark.parametrize("words", ["4096 8 300", "4096 0 9", "8192 3 7"])
def test_the_reader_adds_up_the_first_words_of_what_it_reads(tmp_path: Path, words: str) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"".join(number.to_bytes(8, "little") + bytes(4088) for number in range(64)))
    reader = disks.compile_on_host(disks.FOLDER / "reads.c", tmp_path / "reads")
    block_bytes, in_flight, count = map(int, words.split())
    told = int(disks.output_of([str(reader), str(image), *words.split()]), 16)
    blocks, state, expected = 64 * 4096 // block_bytes, 88172645463325252, 0
    for number in range(count):
        if in_flight:
            state ^= state << 13 & 2**64 - 1
            state ^= state >> 7
            state ^= state << 17 & 2**64 - 1
            number = state
        expected += number % blocks * (block_bytes // 4096)
    assert told == expected
