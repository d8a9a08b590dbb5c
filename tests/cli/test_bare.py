"""`disco bare`: the same kernel with and without Disco."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_guests

from disco import ConfigError, Machine, Status
from disco.monitor.bare import BareMachine

Disco = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.slow
@pytest.mark.parametrize("image", ["debian-busybox", "debian-mipsel"])
def test_the_same_work_costs_more_cycles_under_disco_and_prints_the_same(
    disco: Disco, image: str
) -> None:
    script = "sha256sum /bin/busybox; exit 3"
    run = disco("bare", image, "--compare", "--json", "--", "sh", "-c", script)
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


@pytest.mark.slow
def test_eight_cpus_come_up_and_both_engines_have_the_same_digest(disco: Disco) -> None:
    digests = set()
    for engine in ("interpreter", "translator"):
        run = disco("bare", "--cpus", "8", "--engine", engine, "--json", "--", "nproc")
        assert run.returncode == 0, run.stderr
        side = json.loads(run.stdout)["bare"]
        assert "8" in side["console"].splitlines()
        assert len(side["cpus"]) == 8
        assert all(cpu["cycles_idle"] > 0 < cpu["instructions"] for cpu in side["cpus"])
        digests.add(side["digest"])
    assert len(digests) == 1


@pytest.mark.slow
def test_several_cpus_are_compared_with_as_many_vcpus(disco: Disco) -> None:
    run = disco("bare", "--compare", "--cpus", "2", "--json", "--", "nproc")
    both = json.loads(run.stdout)
    assert run.returncode == both["disco"]["exit_status"] == 0, run.stderr
    assert all("2" in both[side]["console"].splitlines() for side in ("bare", "disco"))
    assert 1.0 < both["ratio"]["cycles"] < 1.5


@pytest.mark.parametrize("engine", ["interpreter", "translator"])
def test_a_bare_machine_prints_and_powers_off_with_a_status(tmp_path: Path, engine: str) -> None:
    kernel = tiny_guests.guest(tmp_path, "ok", tiny_guests.LATE_OK)
    machine = BareMachine(Machine(nodes=1, cpus=1, engine=engine), kernel=kernel)
    assert machine.run(seconds=1) is Status.HALTED
    assert (machine.console.text, machine.exit_status) == ("ok", 0)
    (counters,) = machine.cpus
    parts = (counters[f"cycles_{part}"] for part in ("user", "kernel", "idle"))
    assert sum(parts) == machine.now
    assert counters["instructions"] == machine.counters["instructions"] > 800_000


def test_the_digest_of_a_bare_machine_is_that_of_the_run(tmp_path: Path) -> None:
    def digest(source: str, engine: str, cpus: int) -> str:
        kernel = tiny_guests.guest(tmp_path, "guest", source)
        machine = BareMachine(Machine(nodes=1, cpus=cpus, engine=engine), kernel=kernel)
        machine.run(seconds=1)
        return machine.digest()

    ok = {digest(tiny_guests.LATE_OK, engine, 2) for engine in ("interpreter", "translator")}
    assert len(ok) == 1
    assert ok != {digest(tiny_guests.PRINT_OK, "interpreter", 2)}


def test_bare_without_a_command_says_how(disco: Disco) -> None:
    run = disco("bare")
    assert run.returncode == 2
    assert "no command asked" in run.stderr


def test_a_bare_machine_with_more_memory_than_its_map_has_room_for_is_refused() -> None:
    with pytest.raises(ConfigError, match="512 MiB asked; 1 to 256 are possible"):
        BareMachine(memory_mib=512)


@pytest.mark.parametrize(
    ("cpus", "possible"), [("17", "1 to 16"), ("0", "1 to 128"), ("129", "1 to 128")]
)
def test_cpus_that_no_bare_machine_has_are_refused(disco: Disco, cpus: str, possible: str) -> None:
    run = disco("bare", "--cpus", cpus, "--", "true")
    assert run.returncode == 2
    assert f"{cpus} CPUs asked" in run.stderr
    assert possible in run.stderr


def test_an_engine_that_is_not_there_is_refused(disco: Disco) -> None:
    run = disco("bare", "--engine", "qemu", "--", "true")
    assert run.returncode == 2
    assert "engine 'qemu' asked" in run.stderr
