"""Samples become shares of the parts that they were taken in."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import profile, table
from bench.session import DISCO, BenchError, Mark, Row, Run, interval_of

SHOWN = """\
 10.000001:      7fdc81b5b103 <resident::trap::Monitored as machine::TrapHandler>::take (/x/_engine.so)
 10.500000:      7fdbf86bab75 [unknown] (/memfd:disco-code (deleted))
 11.250000:      7fdc8217150e __memset_avx2_unaligned_erms (/usr/lib/libc.so.6)
not a sample
"""


def test_time_and_place_of_each_sample_are_read() -> None:
    found = list(profile.samples(SHOWN))
    assert [time for time, _ in found] == [10.000001, 10.5, 11.25]
    assert "disco-code" in found[1][1]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("[unknown] (/memfd:disco-code (deleted))", "translated code"),
        (
            "machine::cpu::interpreter::<impl machine::cpu::Cpu>::run_page (_engine.so)",
            "interpreter",
        ),
        # The same trait has a function that makes code and one that enters it.
        (
            "<translate::translator::Translator as machine::Accelerator>::translate (e)",
            "translating",
        ),
        ("<translate::translator::Translator as machine::Accelerator>::run (e)", "entering it"),
        # Of what is between them, some is called by translated code and some makes it.
        ("translate::x86_64::enter::privileged_helper (e)", "entering it"),
        ("translate::x86_64::enter::emit_go_on (e)", "translating"),
        ("machine::cpu::data::<impl machine::cpu::Cpu>::translate (e)", "TLB, addresses"),
        ("resident::l2tlb::L2Tlb::lookup (_engine.abi3.so)", "monitor"),
        ("alloc::raw_vec::grow (/home/python/disco/_engine.abi3.so)", "engine, other"),
        ("_PyEval_EvalFrameDefault (/usr/lib/libpython3.11.so.1.0)", "Python"),
        ("clear_page_erms ([kernel.kallsyms])", "host kernel"),
        ("something (/usr/lib/libelse.so)", "other"),
    ],
)
def test_a_function_belongs_to_a_part(name: str, part: str) -> None:
    assert profile.part_of(name) == part


def test_shares_are_percent_of_what_was_met() -> None:
    found = profile.shares(["a (disco-code)", "b (disco-code)", "c (libc.so.6)", "d (x)"])
    assert found == {"translated code": 50.0, "C library": 25.0, "other": 25.0}
    shown = table.profile({"sort": found}).splitlines()
    assert shown[0] == "| % of host time | translated code | C library | other |"
    assert shown[2] == "| sort | 50 | 25 | 25 |"


def test_a_row_without_a_sample_is_an_error() -> None:
    with pytest.raises(BenchError, match="no sample"):
        profile.shares([])


def test_the_interval_of_a_row_is_on_the_clock_of_the_samples() -> None:
    marks = [
        Mark(guest=0, text=text, seconds=seconds, cpu_seconds=0.0, counters={})
        for text, seconds in (("bench: begin sort", 1.0), ("bench: end sort", 3.5))
    ]
    run = Run(side=DISCO, marks=tuple(marks), facts={}, start=100.0)
    row = Row(name="sort", group="g", title="", begin="bench: begin sort", end="bench: end sort")
    assert interval_of(run, row) == (101.0, 103.5)


def test_without_perf_it_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(BenchError, match="apt-get install linux-perf"):
        profile.Sampler(tmp_path / "samples").command(["true"])
