"""The command line as users and their scripts meet it, with guests of a few instructions."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_guests
import tiny_kernel


@pytest.fixture
def kernel(tmp_path: Path) -> str:
    return str(tiny_guests.guest(tmp_path, "ok", tiny_guests.PRINT_OK))


@pytest.fixture
def loop(tmp_path: Path) -> str:
    return str(tiny_guests.guest(tmp_path, "loop", tiny_guests.LOOP_WITH_INTERRUPTS_OFF))


def small(kernel: str, *words: str) -> tuple[str, ...]:
    return ("run", "--kernel", kernel, "--memory", "4", "--nodes", "2", *words)


# -- what a run says --------------------------------------------------------------------------


def test_consoles_are_prefixed_by_the_names_of_their_vms(disco, kernel):
    done = disco(*small(kernel, "--vms", "2"))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == ["vm1 | ok", "vm2 | ok"]


def test_json_is_one_object_and_nothing_else_on_standard_output(disco, kernel):
    done = disco(*small(kernel, "--vms", "2", "--json"))
    result = json.loads(done.stdout)
    assert done.returncode == 0
    assert len(result["digest"]) == 64
    assert [vm["name"] for vm in result["vms"]] == ["vm1", "vm2"]
    for vm in result["vms"]:
        assert (vm["status"], vm["exit_status"], vm["console"]) == ("halted", 0, "ok")
        assert (vm["kernel_bits"], len(vm["vcpus"])) == (64, 1)
        assert vm["instructions"] > 0
        kinds = ("l2tlb_hits", "virtual_hits", "kernel_segment", "forwarded")
        assert 0 < sum(vm["tlb"][kind] for kind in kinds) <= vm["traps"]["tlb_refill"]
        assert vm["memory"]["virtual_bytes"] == sum(vm["memory"]["bytes_by_node"])
    footprint = result["memory"]["footprint"]
    assert list(footprint["vms"]) == ["vm1", "vm2"]
    assert footprint["ratio"] <= 1
    assert 0 < result["memory"]["virtual_bytes"] <= result["memory"]["machine_bytes"]
    assert result["time"]["cycles"] >= 0  # of the round in which the last VM ended, the beginning
    assert result["time"]["wall_seconds"] > 0
    assert 0 <= result["time"]["python_share"] <= 1
    assert result["time"]["translation_seconds"] >= 0


def test_equal_pages_are_looked_for_if_asked(disco, tmp_path):
    source = tiny_guests.WAIT_A_WHILE + tiny_guests.PRINT_OK
    kernel = str(tiny_guests.guest(tmp_path, "wait", source))
    words = small(kernel, "--vms", "2", "--json")
    alone, shared, fewer = (
        json.loads(disco(*words, *more).stdout)
        for more in ((), ("--share-content",), ("--content-pages", "1"))
    )
    assert set(alone["content_sharing"].values()) == {0}
    assert shared["content_sharing"]["scanned"] > fewer["content_sharing"]["scanned"] > 0
    assert shared["vms"][0]["monitor_cycles"]["content"] > 0
    assert alone["digest"] != shared["digest"]
    assert disco(*words, "--content-pages", "0").returncode == 2


def test_the_parts_of_simulated_time_add_up(disco, kernel):
    result = json.loads(disco(*small(kernel, "--vms", "3", "--json")).stdout)
    names = ("user", "kernel", "monitor", "idle")
    clocks = [sum(cpu["cycles"][name] for name in names) for cpu in result["cpus"]]
    assert len(clocks) == 2 and min(clocks) >= result["time"]["cycles"]
    for part in (*result["cpus"], *result["vms"]):
        assert set(part["cycles"]) >= set(names)
        assert sum(part["monitor_cycles"].values()) == part["cycles"]["monitor"] > 0
    for name in ("user", "kernel", "monitor"):
        on_cpus, by_vms = (
            sum(part["cycles"][name] for part in result[parts]) for parts in ("cpus", "vms")
        )
        assert on_cpus == by_vms


def test_the_same_run_has_the_same_digest(disco, kernel):
    runs = [json.loads(disco(*small(kernel, "--vms", "3", "--json")).stdout) for _ in range(2)]
    assert runs[0]["digest"] == runs[1]["digest"]
    assert runs[0]["vms"] == runs[1]["vms"]


@pytest.mark.parametrize(
    ("words", "cpus"),
    [
        ((), 2),  # one a node
        (("--vms", "3"), 2),  # VMs take turns
        (("--vcpus", "2"), 2),
        (("--vcpus", "2", "--vms", "3"), 6),
        (("--vcpus", "16", "--vms", "9", "--node-memory", "99"), 128),  # of 144 wanted
        (("--vcpus", "2", "--cpus", "3"), 3),
    ],
)
def test_each_vcpu_of_several_gets_a_cpu_by_default(disco, kernel, words, cpus):
    assert json.loads(disco(*small(kernel, *words, "--json")).stdout)["machine"]["cpus"] == cpus


def test_the_report_names_every_vm_and_node(disco, kernel):
    text = disco(*small(kernel, "--vms", "2", "--report")).stdout
    for word in ("vm1", "vm2", "all", "node 0", "node 1", "TLB misses", "kernel segment", "digest"):
        assert word in text


def test_the_report_says_what_each_cpu_did_with_its_time(disco, kernel):
    text = disco(*small(kernel, "--cpus", "2", "--report")).stdout
    rows = [line.split() for line in text.splitlines() if line.startswith("CPU ")]
    assert [row[:4] for row in rows] == [["CPU", f"{cpu},", "node", f"{cpu}"] for cpu in range(2)]
    for row in rows:
        assert abs(sum(float(cell.rstrip("%")) for cell in row[4:]) - 100) < 0.3
    assert rows[1][4:] == ["0.0%", "0.0%", "0.0%", "100.0%"]


# -- how it ends ------------------------------------------------------------------------------


def test_the_exit_status_is_the_guests(disco, tmp_path):
    seven = tiny_guests.guest(tmp_path, "seven", "        li a0, 7\n        b off\n        nop\n")
    assert disco(*small(str(seven))).returncode == 7


@pytest.mark.parametrize("limit", ["--timeout", "--wall-timeout"])
def test_a_time_limit_ends_the_run_with_124(disco, loop, limit):
    done = disco(*small(loop, limit, "0.2"))
    assert done.returncode == 124
    assert "time is over" in done.stderr


def test_a_vm_that_cannot_go_on_is_reported_with_125(disco, tmp_path):
    bad = tiny_guests.guest(tmp_path, "bad", tiny_guests.JUMP_TO_NOWHERE)
    done = disco(*small(str(bad)))
    assert done.returncode == 125
    assert "VM 'vm1' stopped: no handler" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reset_without_restart_is_reported_with_125(disco, tmp_path):
    done = disco(*small(str(tiny_guests.guest(tmp_path, "reset", tiny_guests.RESET))))
    assert done.returncode == 125
    assert "asked for a restart" in done.stderr


def test_exhausted_memory_stops_a_vm_of_an_overcommitted_machine(disco, tmp_path):
    greedy = str(tiny_guests.guest(tmp_path, "greedy", tiny_guests.TOUCH_ALL_MEMORY))
    words = ("run", "--kernel", greedy, "--memory", "32", "--node-memory", "8", "--nodes", "1")
    done = disco(*words, "--overcommit")
    assert done.returncode == 125
    assert "VM 'vm1'" in done.stderr
    assert "a machine page asked" in done.stderr


# -- what cannot be ---------------------------------------------------------------------------


def _big_endian(bits: int) -> bytes:
    image = bytearray(tiny_kernel.elf(bits=bits))
    image[5] = 2
    return bytes(image)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"", "0 bytes long"),
        (b"#!/bin/sh\necho no kernel", "an ELF file"),
        (tiny_kernel.elf()[:100], "truncated"),
        (_big_endian(64), "64-bit, but not little-endian"),
        (_big_endian(32), "32-bit, but not little-endian"),
        (tiny_kernel.elf(size=64 << 20), "RAM of a VM with 4 MiB"),
    ],
)
def test_a_kernel_that_cannot_boot_is_refused_in_one_line(disco, tmp_path, image, said):
    path = tmp_path / "kernel"
    path.write_bytes(image)
    done = disco(*small(str(path)))
    _is_refused(done, said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--memory", "0"), "VM memory"),
        (("--nodes", "0"), "0 nodes asked"),
        (("--cpus", "-1"), "-1 CPUs asked"),
        (("--cpus", "0"), "0 CPUs asked"),
        (("--cpus", "129"), "1 to 128 are possible"),
        (("--vcpus", "0"), "Debian's kernel takes 1 to 16"),
        (("--vcpus", "17"), "Debian's kernel takes 1 to 16"),
        (
            ("--vcpus", "4", "--cpus", "2", "--scheduler", "gang"),
            "a gang of 4 vCPUs asked; up to 2",
        ),
        (("--scheduler", "lottery"), "'lottery' asked; time-sharing, gang, pinned are possible"),
        (("--weights", "vm2=1"), "'vm2=1' asked; VM=NUMBER of vm1 is possible"),
        (("--weights", "vm1"), "'vm1' asked; VM=NUMBER of vm1 is possible"),
        (("--weights", "vm1=heavy"), "'vm1=heavy' asked; whole numbers are possible"),
        (("--weights", "vm1=0"), "weight of VM 'vm1': 0 asked; whole numbers from 1 to 10000"),
        (("--pin", "vm1=4"), "CPU 4 for VM 'vm1' asked; 0 to 1 are possible"),
        (("--pin", "vm1="), "'vm1=' asked; whole numbers are possible"),
        (("--pin", "vm1=0", "--scheduler", "gang"), "only the scheduler 'pinned' pins"),
        (("--time-slice", "0"), "0.0 ms asked; more than 0"),
        (("--time-slice", "nan"), "nan ms asked; more than 0"),
        (("--host-threads", "0"), "0 host threads asked"),
        (("--seed", "-1"), "-1 seed asked"),
        (("--node-memory", "1"), "4 MiB asked"),
        (("--attach", "--vms", "2"), "--attach"),
        (("--initrd", "/nowhere/initrd"), "cannot be read"),
        (("--disk", "/nowhere/disk.img"), "cannot be"),
        (("--append", "x" * 5000), "command line"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(disco, kernel, words, said):
    _is_refused(disco(*small(kernel, *words)), said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("windows",), "image 'windows': unknown; known are debian-busybox"),
        (("web=default", "web=debian-mipsel"), "VM 'web': asked twice"),
        (
            ("=default",),
            "VM '=default': [NAME=]IMAGE[,vcpus=N][,memory=MIB][,root=DISK] is possible",
        ),
        (("two words=default",), "a name is letters, digits and hyphens"),
        (("web=",), "VM 'web=': [NAME=]IMAGE"),
        (("default,cpus=2",), "'cpus=2' asked; vcpus=N, memory=MIB and root=DISK are possible"),
        (("default,vcpus=two",), "'vcpus=two' asked"),
        (("default,vcpus=",), "'vcpus=' asked"),
    ],
)
def test_a_vm_that_cannot_be_is_refused_in_one_line(disco, words, said):
    _is_refused(disco("run", *words, "--", "true"), said)


def test_an_image_beside_a_kernel_is_refused(disco, kernel):
    _is_refused(disco(*small(kernel, "debian-mipsel")), "debian-mipsel asked, too")


def test_a_missing_kernel_is_refused(disco):
    _is_refused(disco(*small("/nowhere/kernel")), "cannot be read")


def test_a_command_for_a_kernel_of_the_users_own_is_refused(disco, kernel):
    _is_refused(disco(*small(kernel, "--", "true")), "only an image's /init")


@pytest.mark.parametrize(("size", "said"), [(0, "empty"), (513, "512")])
def test_a_disk_of_an_odd_size_is_refused(disco, kernel, tmp_path, size, said):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(size))
    _is_refused(disco(*small(kernel, "--disk", str(disk))), said)


@pytest.mark.parametrize(
    ("mode", "is_possible"),
    [("", True), (":cow", True), (":ro", True), (":shared", True), (":persistent", False)],
)
def test_two_vms_may_have_one_image_unless_they_would_write_it(
    disco, kernel, tmp_path, mode, is_possible
):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(512))
    done = disco(*small(kernel, "--vms", "2", "--disk", f"{disk}{mode}"))
    if is_possible:
        assert done.returncode == 0, done.stderr
    else:
        _is_refused(done, "in use")


def test_a_limit_of_what_is_kept_in_memory_is_for_disks_that_keep_something(disco, kernel):
    for words in ("x:ro,limit=5", "x:cow,limit=some", "x:persistent,size=5"):
        _is_refused(disco(*small(kernel, "--disk", words)), "limit=MIB is possible with cow")


def test_an_initrd_that_does_not_fit_is_refused_with_what_would_do(disco, kernel, tmp_path):
    initrd = tmp_path / "initrd"
    initrd.write_bytes(bytes(5 << 20))
    _is_refused(disco(*small(kernel, "--initrd", str(initrd))), "would do")


def test_a_kind_of_miss_that_is_unknown_is_refused(disco):
    _is_refused(disco("follow", "--kind", "near"), "page-fault are possible")


def _is_refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("disco: ")
    assert said in done.stderr
    assert done.stdout == ""


# -- Ctrl-C -----------------------------------------------------------------------------------


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for child in started:
        child.kill()
        child.wait()


@pytest.mark.parametrize("seed", range(4))
def test_ctrl_c_at_any_time_ends_with_130_and_leaves_nothing_behind(loop, tmp_path, children, seed):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    before = set(tmp_path.iterdir())
    program = "from disco.cli import main; print('up', flush=True); main()"
    child = subprocess.Popen(
        [sys.executable, "-c", program, *small(loop, "--disk", str(disk), "--json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    children.append(child)
    assert child.stdout is not None and child.stdout.readline() == "up\n"
    time.sleep(2 * random.Random(seed).random())
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=20)
    assert child.returncode == 130, errors
    assert "Traceback" not in errors
    assert set(tmp_path.iterdir()) == before
    if output:
        assert json.loads(output)["vms"][0]["status"] in ("closed", "created")


def test_ctrl_c_while_an_image_is_made_ends_with_130_and_leaves_nothing_behind(tmp_path, children):
    programs, cache = tmp_path / "programs", tmp_path / "cache"
    programs.mkdir()
    started = tmp_path / "started"
    for name in ("apt-config", "apt-get", "apt-cache"):
        (programs / name).write_text(f"#!/bin/sh\n: > {started}\nexec sleep 60\n")
        (programs / name).chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    child = subprocess.Popen(
        [sys.executable, "-m", "disco.cli", "run", "--", "true"],
        env={**os.environ, "PATH": path, "XDG_CACHE_HOME": str(cache)},
        stderr=subprocess.PIPE,
        text=True,
    )
    children.append(child)
    while not started.exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130, errors
    assert "Traceback" not in errors
    assert not list(cache.rglob("*initrd*"))


# -- help -------------------------------------------------------------------------------------


def test_help_needs_less_than_a_fifth_of_a_second_of_the_processor(disco):
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert disco("--help", env={**os.environ, "TERM": "dumb"}).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(5)) < 0.2


@pytest.mark.parametrize("command", ["run", "demo", "follow", "image", "version"])
def test_help_of_a_command_teaches_its_options(disco, command):
    done = disco(command, "--help")
    assert done.returncode == 0
    assert "Usage: " in done.stdout


def test_version_says_how_the_engine_was_built(disco):
    assert "engine" in disco("version").stdout
