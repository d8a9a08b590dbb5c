"""The command line of the benchmark: what it takes, what it refuses, and what it says without QEMU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import command, qemu
from bench.session import DISCO, Boot, Run, Session


def test_without_words_all_rows_are_measured_three_times() -> None:
    options = command.parse([])
    assert options.runs == 3
    assert {"loop", "float", "chase", "syscall", "boot", "four-boot", "sort"} <= set(options.rows)


def test_quick_is_one_run() -> None:
    assert command.parse(["--quick", "--rows", "boot,loop"]).runs == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rows", "loop,lop"], "no row lop; there are loop, float"),
        (["--runs", "0"], "0 runs asked; 1 or more are possible"),
        (["--quick", "--runs", "2"], "not allowed with"),
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
    status = command.main(["--quick", "--rows", "loop", "--record", str(record)])
    assert (status, ran) == (1, [DISCO])
    assert "apt-get install qemu-system-mips" in capsys.readouterr().err
    written = json.loads(record.read_text())
    assert written["qemu"] is None
    assert written["failures"] == ["nothing runs here"]
