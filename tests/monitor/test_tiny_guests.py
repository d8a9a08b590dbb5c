"""Guests of a few instructions on the real machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_guests import (
    EXECUTE_A_DEVICE,
    JUMP_TO_NOWHERE,
    KEEP_SECRETS,
    LATE_OK,
    LOOP_WITH_INTERRUPTS_OFF,
    PRINT_OK,
    READ_BEYOND_MEMORY,
    RESET,
    SECRET,
    TOUCH_ALL_MEMORY,
    WAIT_FOR_EVER,
    guest,
    spy,
)

from disco import (
    ConfigError,
    GuestStopped,
    Machine,
    MemoryExhausted,
    Monitor,
    Outcome,
    RoundRobin,
    Status,
    VirtualMachine,
)
from disco.guests.platform import PAGE_SIZE
from disco.hardware.machine import DEFAULT_ENGINE


def booted(
    monitor: Monitor, folder: Path, name: str, source: str, **options: object
) -> VirtualMachine:
    kernel = guest(folder, name, source)
    vm = monitor.create_vm(name, kernel=kernel, **{"memory_mib": 4, **options})  # type: ignore[arg-type]
    vm.boot()
    return vm


@pytest.fixture
def monitor() -> Monitor:
    return Monitor(Machine(nodes=2, cpus=2, memory_mib_per_node=8))


def test_a_guest_prints_and_powers_off_with_a_status(monitor, tmp_path):
    vm = booted(monitor, tmp_path, "vm", PRINT_OK)
    assert monitor.run(seconds=1) is Outcome.ENDED
    assert (vm.status, vm.console.text, vm.exit_status) == (Status.HALTED, "ok", 0)


def test_kernels_of_both_widths_run_side_by_side_on_the_vcpus_they_ask_for(tmp_path):
    with Monitor(Machine(nodes=2, cpus=4, memory_mib_per_node=16)) as monitor:
        for bits, vcpus in ((64, 1), (32, 2)):
            kernel = guest(tmp_path, f"k{bits}", PRINT_OK, bits=bits)
            monitor.create_vm(f"vm{bits}", kernel=kernel, memory_mib=4, vcpus=vcpus).boot()
        assert monitor.run(seconds=1) is Outcome.ENDED
        wide, narrow = monitor.vms
        assert (wide.kernel_bits, wide.cpus) == (64, (0,))
        assert (narrow.kernel_bits, narrow.cpus) == (32, (1, 2))
        assert (wide.console.text, narrow.console.text) == ("ok", "ok")
        assert wide.registers()["pc"] == narrow.registers()["pc"]  # sign-extended, either way


def test_waiting_with_all_interrupts_off_is_an_orderly_power_off(monitor, tmp_path):
    vm = booted(monitor, tmp_path, "vm", WAIT_FOR_EVER)
    assert monitor.run(seconds=1) is Outcome.ENDED
    assert (vm.status, vm.exit_status, vm.error) == (Status.HALTED, 0, None)


def test_a_reset_ends_the_vm_or_boots_it_again(monitor, tmp_path):
    once = booted(monitor, tmp_path, "once", RESET)
    again = booted(monitor, tmp_path, "again", RESET, restart_on_reset=True)
    assert monitor.run(seconds=0.05) is Outcome.SIMULATED_TIME
    assert (once.status, again.status) == (Status.RESET, Status.RUNNING)


@pytest.mark.parametrize(
    "source",
    [JUMP_TO_NOWHERE, READ_BEYOND_MEMORY, EXECUTE_A_DEVICE],
    ids=["jumps to nowhere", "reads beyond its memory", "executes a device"],
)
def test_a_guest_that_does_the_impossible_ends_alone(monitor, tmp_path, source):
    bad = booted(monitor, tmp_path, "bad", source)
    good = booted(monitor, tmp_path, "good", LATE_OK)
    assert monitor.run(seconds=2) is Outcome.ENDED
    assert bad.status is Status.STOPPED
    assert isinstance(bad.error, GuestStopped)
    assert bad.error.vm == "bad"
    assert (good.status, good.console.text) == (Status.HALTED, "ok")


def test_a_guest_that_loops_with_interrupts_off_leaves_the_others_their_time(tmp_path):
    monitor = Monitor(Machine(nodes=1, cpus=1, memory_mib_per_node=16))
    hog = booted(monitor, tmp_path, "hog", LOOP_WITH_INTERRUPTS_OFF)
    good = booted(monitor, tmp_path, "good", LATE_OK)
    assert monitor.run(seconds=0.5) is Outcome.SIMULATED_TIME
    assert hog.is_running
    assert (good.status, good.console.text) == (Status.HALTED, "ok")


def test_no_guest_reads_anothers_page_through_any_physical_address(monitor, tmp_path):
    keeper = booted(monitor, tmp_path, "keeper", KEEP_SECRETS)
    monitor.run(until=lambda: keeper.has_printed("s"))
    page_count = len(monitor.memmap)
    pages = keeper.pmap["mpn"][0x200:0x300]
    assert 0 < pages.min() <= pages.max() < page_count
    thief = booted(monitor, tmp_path, "thief", spy(page_count))
    monitor.run(until=lambda: not thief.is_running, seconds=5)
    assert (thief.status, thief.console.text) == (Status.HALTED, "")


def test_the_spy_finds_a_secret_of_its_own_in_both_ways(monitor, tmp_path):
    """Else the test before this one could not fail."""
    vm = monitor.create_vm("vm", kernel=guest(tmp_path, "spy", spy(0x400)), memory_mib=4)
    vm.boot()
    vm.board.memory.write(0x30_0000, SECRET.to_bytes(8, "little"))
    monitor.run(seconds=1)
    assert (vm.status, vm.console.text) == (Status.HALTED, "!!")


def test_an_overcommitted_machine_stops_the_vm_that_finds_no_page(tmp_path):
    monitor = Monitor(Machine(nodes=2, cpus=2, memory_mib_per_node=8), overcommit=True)
    greedy = booted(monitor, tmp_path, "greedy", TOUCH_ALL_MEMORY, memory_mib=32)
    good = booted(monitor, tmp_path, "good", LATE_OK)
    assert monitor.run(seconds=2) is Outcome.ENDED
    assert greedy.status is Status.STOPPED
    assert isinstance(greedy.error, MemoryExhausted)
    assert (good.status, good.console.text) == (Status.HALTED, "ok")


def test_all_of_a_vms_memory_can_be_used(tmp_path):
    monitor = Monitor(Machine(nodes=4, cpus=1, memory_mib_per_node=16), placement=RoundRobin())
    vm = booted(monitor, tmp_path, "vm", TOUCH_ALL_MEMORY, memory_mib=32)
    monitor.run(seconds=2)
    assert vm.console.text == "ok"
    assert vm.usage.pages == (32 << 20) // PAGE_SIZE
    assert max(vm.usage.pages_by_node) - min(vm.usage.pages_by_node) <= 1


def test_pmap_and_memmap_tell_the_same_story(monitor, tmp_path):
    vms = [booted(monitor, tmp_path, name, LATE_OK) for name in ("one", "two")]
    monitor.run(seconds=0.001)
    memmap = monitor.memmap
    for vm in vms:
        present = np.flatnonzero(vm.pmap["state"] == 2)
        machine_pages = vm.pmap["mpn"][present]
        assert len(set(machine_pages)) == len(present) > 0
        assert (memmap["vm"][machine_pages] == vm.number).all()
        assert (memmap["ppn"][machine_pages] == present).all()
        assert (memmap["users"][machine_pages] == 1).all()
        assert monitor.users(int(machine_pages[0])) == [(vm.number, int(present[0]))]


def test_backmaps_say_where_a_page_is_mapped(monitor, tmp_path):
    vm = booted(monitor, tmp_path, "vm", LATE_OK)
    monitor.run(seconds=0.001)
    code = vm.registers()["pc"] >> 12 << 12
    rows = vm.backmaps[vm.backmaps["count"] > 0]
    assert (vm.pmap["state"][rows["ppn"]] == 2).all()
    addresses = {int(row["ppn"]): row["backmaps"][: row["count"]].tolist() for row in rows}
    assert code | 1 << 8 in addresses[(code & 0x1FFF_FFFF) >> 12], "a kernel address is global"
    monitor.run(seconds=1)
    assert vm.has_ended
    assert len(vm.backmaps) == 0


def test_an_ended_vm_returns_every_page(monitor, tmp_path):
    before = monitor.pages_by_owner()
    booted(monitor, tmp_path, "vm", PRINT_OK)
    monitor.run(seconds=1)
    assert monitor.pages_by_owner() == before


def test_the_same_run_has_the_same_digest_whatever_limits_cut_it(tmp_path):
    def run(*cuts: float) -> str:
        monitor = Monitor(Machine(nodes=2, cpus=2, memory_mib_per_node=8))
        for name in ("one", "two", "three"):
            booted(monitor, tmp_path, name, LATE_OK)
        for seconds in cuts:
            monitor.run(seconds=seconds)
        monitor.run(seconds=1)
        return monitor.digest()

    assert run() == run(0.001) == run(0.0005, 0.0015)


def test_all_parts_of_a_cpus_time_are_its_clock(monitor, tmp_path):
    booted(monitor, tmp_path, "vm", LATE_OK)
    monitor.run(seconds=1)
    for cpu in (0, 1):
        counters = monitor.cpu_counters(cpu)
        parts = [counters[f"cycles_{part}"] for part in ("user", "kernel", "monitor", "idle")]
        assert sum(parts) == counters["now"]
        assert sum(parts[:3]) == 0 if cpu else min(parts[1:3]) > 0


def test_the_counters_of_a_cpu_that_is_not_there_are_refused(monitor):
    with pytest.raises(ConfigError, match="CPU 2 asked; 0 to 1 are possible"):
        monitor.cpu_counters(2)


def test_a_miss_is_followed_through_its_steps(monitor, tmp_path):
    vm = booted(monitor, tmp_path, "vm", TOUCH_ALL_MEMORY)
    miss = monitor.follow(vm, "page fault")
    assert miss is not None
    kinds = [step["kind"] for step in miss.steps]
    assert kinds[0] == "miss"
    assert {"kernel segment", "pmap", "page fault", "insert"} <= set(kinds)


def test_following_a_vm_that_ends_first_gives_nothing(monitor, tmp_path):
    vm = booted(monitor, tmp_path, "vm", PRINT_OK)
    assert monitor.follow(vm, "forwarded") is None


@pytest.mark.parametrize("engine", ["interpreter", "translator"])
def test_only_a_translator_spends_time_on_translating(engine, tmp_path):
    # With a second host thread, the guest might end before that has begun to translate.
    machine = Machine(nodes=1, cpus=1, memory_mib_per_node=8, engine=engine, host_threads=1)
    with Monitor(machine) as monitor:
        booted(monitor, tmp_path, "vm", LATE_OK)
        monitor.run(seconds=1)
        # On hosts without a translator, nothing is translated.
        assert (monitor.translation_seconds > 0) == (engine == "translator" == DEFAULT_ENGINE)
