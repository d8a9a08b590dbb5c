"""Whole boots of Debian through the command line."""

from __future__ import annotations

import hashlib
import json
import platform
import random
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("debian")]


def test_a_command_in_debian_ends_the_run_with_its_status(disco):
    done = disco("run", "--", "sh", "-c", "uname -m; exit 3")
    assert done.returncode == 3
    assert "vm1 | mips64" in done.stdout.splitlines()


def test_two_vcpus_come_up_in_debian(disco):
    done = disco("run", "--vcpus", "2", "--", "nproc")
    assert done.returncode == 0, done.stderr
    assert "vm1 | 2" in done.stdout.splitlines()


@pytest.mark.parametrize("scheduler", ["time-sharing", "gang"])
def test_vms_with_more_vcpus_than_there_are_cpus_work_on_all_of_them(disco, scheduler):
    script = "nproc; for i in 1 2; do md5sum < /bin/busybox & done; wait"
    words = ("run", "a=default,vcpus=2", "b=default,vcpus=2", "--cpus", "2", "--json")
    done = disco(*words, "--scheduler", scheduler, "--", "sh", "-c", script)
    for vm in json.loads(done.stdout)["vms"]:
        assert vm["exit_status"] == 0
        _, _, output = vm["console"].partition("userland reached")
        shown = output.split()
        assert shown[0] == "2"
        assert shown[1] == shown[3]
        assert all(vcpu["cycles"]["user"] > 1_000_000 for vcpu in vm["vcpus"])
        assert all(vcpu["cycles"]["waiting"] > 1_000_000 for vcpu in vm["vcpus"])


def test_a_vm_of_twice_the_weight_boots_in_less_time_than_its_neighbour(disco):
    words = (
        "run",
        "heavy=default",
        "light=default",
        "--cpus",
        "1",
        "--weights",
        "heavy=2",
        "--json",
    )
    result = json.loads(disco(*words, "--", "md5sum", "/bin/busybox").stdout)
    heavy, light = (vm["cycles"]["waiting"] for vm in result["vms"])
    # Alone it takes T: the heavy one ends after 1.5 T, the light one after 2 T.
    assert 1.8 < light / heavy < 2.2


def test_a_32_bit_kernel_runs_beside_a_64_bit_one(disco):
    """In one run: each its own kernel and userland, one of them on two vCPUs, which both work."""
    script = """
        uname -m; nproc; head -c 5 /bin/busybox | tail -c 1 | od -An -tu1
        for i in 1 2; do md5sum < /bin/busybox & done; wait"""
    words = ("run", "wide=default", "old=debian-mipsel,vcpus=2", "--json")
    done = disco(*words, "--", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    # Of an ELF file, the fifth byte is its class.
    expected = [("wide", 64, "mips64", "1", "2"), ("old", 32, "mips", "2", "1")]
    for vm, (name, bits, *shown) in zip(result["vms"], expected, strict=True):
        assert (vm["name"], vm["kernel_bits"]) == (name, bits)
        _, _, output = vm["console"].partition("userland reached")
        assert output.split()[:3] == shown
    users = [cpu["cycles"]["user"] for cpu in result["cpus"]]
    assert all(cycles > 1_000_000 for cycles in users[:3])


def test_a_32_bit_kernel_uses_memory_that_it_cannot_map_at_once(disco):
    """RAM behind the first 256 MiB is high memory, which the kernel maps when it wants a page of it."""
    high = "awk '/HighFree/ { print $2 }' /proc/meminfo"
    script = (
        f"before=$({high}); yes disco | head -c 12000000 > /tmp/big; md5sum < /tmp/big;"
        f" echo $(((before - $({high})) * 1024 > 11000000))"
    )
    done = disco("run", "debian-mipsel", "--memory", "768", "--", "sh", "-c", script)
    shown = done.stdout.splitlines()
    content = b"disco\n" * 2_000_000
    assert f"vm1 | {hashlib.md5(content).hexdigest()}  -" in shown
    assert "vm1 | 1" in shown


def test_one_seed_has_one_digest_with_any_number_of_host_threads(disco):
    words = ("run", "default", "debian-mipsel,vcpus=2", "--seed", "11", "--json")
    command = ("--", "sh", "-c", "md5sum /init; date")
    first, second = (
        json.loads(disco(*words, "--host-threads", threads, *command).stdout) for threads in "12"
    )
    assert first["digest"] == second["digest"]
    assert [vm["exit_status"] for vm in first["vms"]] == [0, 0]
    assert all(vm["tlb"]["forwarded"] > 100 for vm in first["vms"])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the translator makes x86-64 code")
def test_interpreter_and_translator_are_the_same_machine(disco):
    """To the last counter: a digest is over all of them, and over every console byte."""
    script = "sort /etc/passwd /init | md5sum; gzip < /bin/busybox | md5sum; awk 'BEGIN{print 1/3}'"
    words = ("run", "default", "debian-mipsel", "--json")
    first, second = (
        json.loads(disco(*words, "--engine", engine, "--", "sh", "-c", script).stdout)
        for engine in ("interpreter", "translator")
    )
    assert [vm["exit_status"] for vm in first["vms"]] == [0, 0]
    assert first["digest"] == second["digest"]


def test_the_demo_boots_four_vms_whose_results_are_the_hosts(disco):
    done = disco("demo")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("all 14 results are the host's") == 4
    for word in ("web", "db", "mail", "make", "node 3", "Three things to try next"):
        assert word in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["kernel", "64-bit", "64-bit", "32-bit", "32-bit"] in rows
    assert ["vCPUs", "1", "2", "1", "2"] in rows


def test_a_kernel_that_panics_ends_its_vm_with_125(disco, debian, tmp_path):
    """No root: the kernel panics and, by panic=-1, asks for a restart."""
    done = disco(
        "run", "--kernel", str(debian.kernel), "--append", "console=ttyS0 panic=-1 nokaslr"
    )
    assert done.returncode == 125
    assert "Kernel panic" in done.stdout
    assert "asked for a restart" in done.stderr


@pytest.mark.parametrize("image", ["debian-busybox", "debian-mipsel"])
def test_a_disk_is_read_and_written_by_the_guest(disco, tmp_path, image):
    disk = tmp_path / "disk.img"
    disk.write_bytes(b"from the host".ljust(4096, b"\0"))
    script = (
        "head -c 13 /dev/vda; echo; echo -n from the guest | dd of=/dev/vda bs=512 seek=1 conv=sync"
    )
    done = disco("run", image, "--disk", f"{disk}:persistent", "--", "sh", "-c", script)
    assert done.returncode == 0, done.stdout
    assert "vm1 | from the host" in done.stdout.splitlines()
    assert disk.read_bytes()[512:526] == b"from the guest"
    assert disk.stat().st_size == 4096


def test_a_shell_reads_its_script_from_standard_input_and_ends_the_run_with_its_status(disco):
    done = disco("run", typed="echo $((6 * 7)) is it\nexit 3\n", timeout=120)
    assert done.returncode == 3
    assert "42 is it" in done.stdout


def test_a_forwarded_miss_is_told_from_the_address_to_the_machine_page(disco):
    # With this seed the first forwarded miss is a refill, and no store to a clean page.
    done = disco("follow", "--seed", "3", "--json")
    story = json.loads(done.stdout)
    kinds = [step["kind"] for step in story["steps"]]
    assert kinds[:4] == ["miss", "l2tlb", "virtual tlb", "forward"]
    assert kinds.index("tlb write") < len(kinds) - 1 - kinds[::-1].index("insert")
    assert "pmap" in kinds
    assert any(step.get("text", "").startswith("tlbwr") for step in story["steps"])
    assert story["cycles"] == sum(step["cycles"] for step in story["steps"]) > 100
    # A step is noted when its cost has been charged; the ERET at the end takes a cycle of its own after that.
    first, last = story["steps"][0], story["steps"][-1]
    by_the_clock = last["cycle"] + 1 - (first["cycle"] - first["cycles"])
    assert story["cycles"] == by_the_clock


@pytest.mark.parametrize("kind", ["l2tlb", "kernel", "page-fault"])
def test_each_kind_of_miss_can_be_followed(disco, kind):
    """Before userland: a kernel that boots has them all."""
    done = disco("follow", "--kind", kind, "--after", "3")
    assert done.returncode == 0
    assert "hardware TLB" in done.stdout


@pytest.mark.parametrize("seed", range(2))
def test_ctrl_c_during_a_boot_ends_with_130(seed):
    child = subprocess.Popen(
        # Not `sleep`: time that every VM sleeps through costs none.
        [
            sys.executable,
            "-m",
            "disco.cli",
            "run",
            "--vms",
            "2",
            "--",
            "sh",
            "-c",
            "while :; do :; done",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(1 + 10 * random.Random(seed).random())
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "interrupted after" in errors
