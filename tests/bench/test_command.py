"""The command line of the benchmark: what it takes, what it refuses, and what it says without QEMU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench import command, qemu
from bench.session import DISCO, Boot, Run, Session


def test_without_words_all_rows_are_measured_three_times() -> None:
    options = command.parse([])
    assert options.runs == 3
    wanted = {"loop", "boot", "four-off", "compiler", "interpreter", "eight-vcpus", "vms-64"}
    assert wanted <= set(options.rows)
    assert not options.is_quick


def test_the_quick_form_leaves_out_the_largest_crowds_unless_they_are_asked_for() -> None:
    rows = command.parse(["--quick"]).rows
    assert "vms-16" in rows
    assert "vms-64" not in rows
    assert command.parse(["--quick", "vms-64", "boot"]).rows == ("vms-64", "boot")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loop", "lop"], "no row lop; there are loop, float"),
        (["--runs", "0"], "0 runs asked; 1 or more are possible"),
        (["--markdown", "--record", "/nowhere/b.json"], "no record /nowhere/b.json"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.parse(words)
    assert message in capsys.readouterr().err


def test_without_qemu_disco_runs_alone_and_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def fake_run(session: Session, side: str, watch: object) -> Run:
        ran.append(side)
        raise command.BenchError("nothing runs here")

    session = Session(
        name="s", rows=(), boots={DISCO: Boot(kernel=tmp_path), "qemu": Boot(kernel=tmp_path)}
    )
    monkeypatch.setattr(qemu.shutil, "which", lambda program: None)
    monkeypatch.setattr(command.kernels, "sessions", lambda *_, **__: iter([session]))
    monkeypatch.setattr(command.sides, "run", fake_run)
    record = tmp_path / "new" / "bench.json"
    status = command.main(["--runs", "1", "loop", "--record", str(record)])
    assert (status, ran) == (1, [DISCO])
    assert "apt-get install qemu-system-mips" in capsys.readouterr().err
    written = json.loads(record.read_text())
    assert written["qemu"] is None
    assert written["failures"] == ["nothing runs here"]


RECORD = {
    "host": {"cpus": 2, "model": "Model T", "load": 0.25},
    "date": "1997-10-05",
    "qemu": None,
    "runs": 3,
    "form": "quick",
    "rows": [
        {
            "name": "sort",
            "group": "integer",
            "title": "sort of words",
            "seconds": {"disco": [2.0], "qemu": [4.0]},
            "ratio": 2.0,
            "cpu_ratio": 2.5,
            "cpu_seconds": {"disco": [1.5], "qemu": [4.0]},
            "instructions": 500_000_000,
            "mips": 250.0,
            "counters": {"instructions": 500_000_000, "traps": 1_000_000},
        }
    ],
    "goals": [
        {"what": "fast", "value": 2.0, "limit": 4.0, "unit": "x", "kind": "least", "met": False}
    ],
}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(RECORD))
    return path


def test_a_record_is_shown_again_as_markdown(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--markdown", "--record", str(record)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("One session on 1997-10-05, a host with 2 CPUs (Model T) and a load")
    assert "of 0.2 before it, without QEMU; medians of 3 runs in the quick form." in shown[0]
    assert "| integer | sort of words | 2.00 | 4.00 | 2.00 | 2.50 | 500 | 250 |" in shown
    assert "| fast | 2.00 x | at least 4 x | missed |" in shown
    assert any(line.startswith("| sort | 2 | 0 |") for line in shown)
    assert any(line.endswith("| 3.00 | 1,500 |") for line in shown)  # ns an instruction, a trap


def test_a_document_has_the_tables_between_its_marks_and_nothing_else_changes(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = tmp_path / "page.md"
    words = ["--document", str(document), "--record", str(record)]
    begin, end = command._MARKS
    document.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    for _ in range(2):  # twice is the same as once
        assert command.main(words) == 0
        text = document.read_text()
        assert text.startswith(f"before\n{begin}\nOne session on")
        assert text.endswith(f"|\n{end}\nafter\n")
        assert "old" not in text
    document.write_text("no marks\n")
    with pytest.raises(SystemExit):
        command.main(words)
    assert "needs the lines" in capsys.readouterr().err


@pytest.mark.slow
def test_work_of_debians_programs_gives_what_the_host_gets(tmp_path: Path) -> None:
    record = tmp_path / "bench.json"
    words = ["--only-disco", "--quick", "--runs", "1", "--record", str(record)]
    assert command.main([*words, "gzip", "database"]) == 0
    rows = json.loads(record.read_text())["rows"]
    assert [row["name"] for row in rows] == ["gzip", "database"]
    assert all(row["instructions"] > 100_000_000 for row in rows)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_the_benchmark_leaves_nothing_behind(number: int, tmp_path: Path) -> None:
    words = [sys.executable, "bench/run.py", "--only-disco", "loop"]
    record, temporary = tmp_path / "bench.json", tmp_path / "tmp"
    temporary.mkdir()
    process = subprocess.Popen(
        [*words, "--record", str(record)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    assert "run 1 of 3: loop on disco" in process.stderr.readline()
    os.kill(process.pid, number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "interrupted; the figures are of what had ended by then" in told
    assert json.loads(record.read_text())["rows"] == []
    assert list(temporary.iterdir()) == []
    with pytest.raises(ProcessLookupError):  # nobody of its session is left
        os.killpg(process.pid, 0)
