"""`disco console`: a terminal on a VM that another process runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

Run = subprocess.Popen[str]


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sockets of this test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "disco"


@pytest.fixture
def waiting(runtime: Path, debian: object) -> Iterator[Run]:
    """A run whose command waits for a line on the console."""
    script = "echo rea''dy; read -r line; echo got $line; [ $line = right ]"
    words = [sys.executable, "-m", "disco.cli", "run", "web=default", "--", "sh", "-c", script]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("web | ready"):
                break
        yield process
        process.kill()


def test_without_a_running_vm_there_is_nothing_to_attach_to(disco, runtime: Path) -> None:
    assert disco("console").stderr == "disco: no VM is running\n"
    done = disco("console", "web")
    assert done.returncode == 2
    assert done.stderr == "disco: VM 'web': not running; possible: none\n"


@pytest.mark.slow
def test_what_is_typed_on_the_console_of_another_process_reaches_the_vm(
    disco, waiting: Run, runtime: Path
) -> None:
    pid = waiting.pid
    assert disco("console").stdout == f"web  (process {pid})\n"
    done = disco("console", f"{pid}/web", typed="right\n", timeout=60)
    assert done.returncode == 0
    assert "got right" in done.stdout
    assert "web has ended" in done.stderr
    assert waiting.wait(timeout=60) == 0
    assert disco("console").stderr == "disco: no VM is running\n"


@pytest.mark.slow
def test_a_vm_goes_on_when_its_console_is_left(disco, waiting: Run, runtime: Path) -> None:
    done = disco("console", "web", typed="\x1d", timeout=60)
    assert "left the console; web goes on" in done.stderr
    assert waiting.poll() is None
    waiting.kill()
    waiting.wait()
    deadline = time.monotonic() + 10
    while disco("console").stderr != "disco: no VM is running\n":
        assert time.monotonic() < deadline
