"""`disco bare`: the same kernel with and without Disco."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from disco.errors import ConfigError
from disco.monitor.bare import BareMachine

Disco = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.slow
def test_the_same_work_costs_more_cycles_under_disco_and_prints_the_same(disco: Disco) -> None:
    run = disco("bare", "--compare", "--json", "--", "sh", "-c", "sha256sum /bin/busybox; exit 3")
    assert run.returncode == 3, run.stderr
    both = json.loads(run.stdout)
    bare, vm = both["bare"], both["disco"]
    assert bare["exit_status"] == vm["exit_status"] == 3

    def hashes(side: dict[str, str]) -> list[str]:
        return [line for line in side["console"].splitlines() if line.endswith("/bin/busybox")]

    assert hashes(bare) == hashes(vm) and len(hashes(bare)) == 1
    assert 1.0 < both["ratio"]["cycles"] < 1.5
    assert bare["counters"]["cycles_user"] > 0
    assert "cycles_monitor" not in bare["counters"]


def test_bare_without_a_command_says_how(disco: Disco) -> None:
    run = disco("bare")
    assert run.returncode == 2
    assert "no command asked" in run.stderr


def test_a_bare_machine_with_more_memory_than_its_map_has_room_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="512 MiB asked; 1 to 256 are possible"):
        BareMachine(memory_mib=512)
