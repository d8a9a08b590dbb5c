"""What Disco decides, shown with guests that act out a list of actions (see `fake_engine`)."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_engine
import pytest
import tiny_kernel

from disco import (
    ConfigError,
    FirstTouch,
    Fixed,
    GuestStopped,
    ImageError,
    Machine,
    MemoryExhausted,
    Monitor,
    Outcome,
    RoundRobin,
    Status,
    VirtualMachine,
)
from disco.guests.platform import PAGE_SIZE, RESET_BASE, RESET_VALUE, UART_BASE, VIRTIO_BASE
from disco.monitor import monitor as monitor_module
from disco.storage.choice import DiskChoice, Mode

THR = UART_BASE
POWER_OFF = RESET_BASE + 4
#: First page that the kernel's loader has not touched.
UNTOUCHED = 0x200

Script = list[tuple[Any, ...]]
Make = Callable[..., Monitor]


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "Engine",
        "PageFault",
        "DeviceAccess",
        "PostedWrites",
        "VcpuStopped",
        "Followed",
    ):
        monkeypatch.setattr(monitor_module, name, getattr(fake_engine, name))
    fake_engine.scripts.clear()


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return tiny_kernel.write(tmp_path)


@pytest.fixture
def machine() -> Machine:
    return Machine(nodes=4, cpus=4, memory_mib_per_node=4)


def booted(
    monitor: Monitor, kernel: Path, script: Script, name: str = "vm", **options: Any
) -> VirtualMachine:
    fake_engine.scripts[len(monitor.vms)] = script
    vm = monitor.create_vm(name, kernel=kernel, **{"memory_mib": 3, **options})
    vm.boot()
    return vm


def prints(text: str) -> Script:
    return [("store", THR, 1, byte) for byte in text.encode()]


def pages(*ppns: int) -> Script:
    return [("touch", ppn) for ppn in ppns]


# -- pages ------------------------------------------------------------------------------------


def test_a_page_is_placed_on_the_node_that_touches_it_first(machine, kernel):
    monitor = Monitor(machine)
    vms = [booted(monitor, kernel, pages(UNTOUCHED), f"vm{index}") for index in range(4)]
    assert monitor.run() is Outcome.ENDED
    for node, vm in enumerate(vms):
        assert [bool(count) for count in vm.usage.pages_by_node] == [n == node for n in range(4)]


def test_round_robin_uses_the_nodes_in_turn(machine, kernel):
    monitor = Monitor(machine, placement=RoundRobin())
    vm = booted(monitor, kernel, pages(*range(UNTOUCHED, UNTOUCHED + 40)))
    monitor.run()
    counts = vm.usage.pages_by_node
    assert sum(counts) > 40
    assert max(counts) - min(counts) <= 1


def test_a_full_node_is_followed_by_the_nearest_with_room(machine, kernel):
    monitor = Monitor(machine, placement=Fixed(1), overcommit=True)
    node_pages = machine.memory_bytes_per_node // PAGE_SIZE
    script = pages(*range(UNTOUCHED, UNTOUCHED + 2 * node_pages))
    vm = booted(monitor, kernel, script, memory_mib=12)
    monitor.run()
    assert vm.status is Status.HALTED
    assert vm.usage.pages_by_node[1] == node_pages
    assert vm.usage.pages_by_node[0] == node_pages  # of 0 and 2, equally near, the lower
    assert vm.usage.pages_by_node[3] == 0


def test_a_full_machine_stops_the_vm_that_asks_and_the_others_go_on(machine, kernel):
    monitor = Monitor(machine, overcommit=True)
    greedy = booted(monitor, kernel, pages(*range(UNTOUCHED, 0x1400)), "greedy", memory_mib=32)
    later = [("work", 1)] * 6000 + pages(UNTOUCHED) + prints("done")
    modest = booted(monitor, kernel, later, "modest")
    monitor.run()
    assert greedy.status is Status.STOPPED
    assert isinstance(greedy.error, MemoryExhausted)
    assert "greedy" in str(greedy.error)
    assert modest.status is Status.HALTED
    assert modest.console.text == "done"


@pytest.mark.parametrize("answer", [-1, 4, 99])
def test_a_policy_that_names_no_node_is_replaced_and_that_is_said_once(machine, kernel, answer):
    class Odd:
        def choose(self, fault, memory):
            return answer

    said: list[str] = []
    monitor = Monitor(machine, placement=Odd(), warn=said.append)
    vm = booted(monitor, kernel, pages(UNTOUCHED, UNTOUCHED + 1))
    monitor.run()
    assert vm.status is Status.HALTED
    assert len(said) == 1
    assert f"chose node {answer}" in said[0]


def test_a_policy_that_raises_is_replaced_and_that_is_said_once(machine, kernel):
    class Broken:
        def choose(self, fault, memory):
            return {}["node"]

    said: list[str] = []
    monitor = Monitor(machine, placement=Broken(), warn=said.append)
    vm = booted(monitor, kernel, pages(UNTOUCHED))
    monitor.run()
    assert vm.status is Status.HALTED
    assert said == [
        "placement policy Broken raised KeyError: 'node'; such pages go to the node of the fault"
    ]


@pytest.mark.parametrize(
    ("policy", "expected"), [(FirstTouch(), (0, 0)), (Fixed(2), (0, 2)), (RoundRobin(), None)]
)
def test_a_policy_with_one_answer_gives_it_in_advance(machine, kernel, policy, expected):
    monitor = Monitor(machine, placement=policy)
    booted(monitor, kernel, pages(UNTOUCHED))
    monitor.run()
    said = {(vm, cpu_node, node) for vm, cpu_node, node, _ in monitor._engine.set_aside}
    assert said == ({(0, *expected)} if expected else set())


def test_a_page_on_another_node_than_the_one_that_is_full_is_no_answer_in_advance(machine, kernel):
    monitor = Monitor(machine, placement=Fixed(1), overcommit=True)
    node_pages = machine.memory_bytes_per_node // PAGE_SIZE
    script = pages(*range(UNTOUCHED, UNTOUCHED + 2 * node_pages))
    booted(monitor, kernel, script, memory_mib=12)
    monitor.run()
    assert {node for _, _, node, _ in monitor._engine.set_aside} == {1}


def test_a_policy_that_raises_in_advance_is_asked_each_time(machine, kernel):
    class Broken(FirstTouch):
        def always(self, vm, node):
            raise LookupError("node")

    said: list[str] = []
    monitor = Monitor(machine, placement=Broken(), warn=said.append)
    vm = booted(monitor, kernel, pages(UNTOUCHED, UNTOUCHED + 1))
    monitor.run()
    assert vm.status is Status.HALTED
    assert monitor._engine.set_aside == []
    assert len(said) == 1
    assert "placement policy Broken raised LookupError: node" in said[0]


def test_an_ended_vm_returns_every_page(machine, kernel):
    monitor = Monitor(machine)
    booted(monitor, kernel, pages(UNTOUCHED))
    monitor.run()
    assert sum(monitor.pages_by_owner()["guest"]) == 0


def test_the_pmap_of_a_living_vm_is_the_engines_memory(machine, kernel):
    monitor = Monitor(machine)
    vm = booted(monitor, kernel, [])
    row = vm.pmap[UNTOUCHED : UNTOUCHED + 1]
    assert row["state"] == fake_engine.ABSENT
    monitor._engine.place_page(vm.number, UNTOUCHED, 0)
    assert row["state"] == fake_engine.PRIVATE


# -- creation ---------------------------------------------------------------------------------


def test_more_memory_than_the_machine_has_is_refused_with_the_numbers(machine, kernel):
    monitor = Monitor(machine)
    monitor.create_vm("first", kernel=kernel, memory_mib=10)
    with pytest.raises(ConfigError, match=r"'second': 7 MiB asked, 6 MiB possible.* 16 MiB"):
        monitor.create_vm("second", kernel=kernel, memory_mib=7)
    assert [vm.name for vm in monitor.vms] == ["first"]
    monitor.create_vm("second", kernel=kernel, memory_mib=6)


def test_an_ended_vm_makes_room_for_another(machine, kernel):
    monitor = Monitor(machine)
    booted(monitor, kernel, [], "first", memory_mib=16)
    monitor.run()
    monitor.create_vm("second", kernel=kernel, memory_mib=16)


def test_two_vms_of_one_name_are_refused(machine, kernel):
    monitor = Monitor(machine)
    monitor.create_vm("twin", kernel=kernel, memory_mib=3)
    with pytest.raises(ConfigError, match="'twin'"):
        monitor.create_vm("twin", kernel=kernel, memory_mib=3)


def test_nothing_to_boot_is_refused(machine):
    with pytest.raises(ConfigError, match="nothing to boot"):
        Monitor(machine).create_vm("bare")


def test_a_command_without_an_image_is_refused(machine, kernel):
    with pytest.raises(ConfigError, match="only an image's /init"):
        Monitor(machine).create_vm("vm", kernel=kernel, command=["true"])


def test_a_vm_boots_once(machine, kernel):
    monitor = Monitor(machine)
    vm = booted(monitor, kernel, [])
    with pytest.raises(ConfigError, match="it is running"):
        vm.boot()


def test_a_disk_is_given_back_when_its_vm_cannot_be_made(machine, kernel, tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(512))
    written = DiskChoice(disk, Mode.PERSISTENT)
    monitor = Monitor(machine)
    with pytest.raises(ConfigError):
        monitor.create_vm("big", kernel=kernel, memory_mib=17, disks=[written])
    vm = booted(monitor, kernel, [], disks=[written])
    with pytest.raises(ImageError, match="in use"):
        monitor.create_vm("other", kernel=kernel, memory_mib=3, disks=[written])
    monitor.run()
    assert vm.status is Status.HALTED
    monitor.create_vm("another", kernel=kernel, memory_mib=3, disks=[written])


# -- devices ----------------------------------------------------------------------------------


def test_what_a_guest_prints_is_on_its_own_console(machine, kernel):
    monitor = Monitor(machine)
    vms = [booted(monitor, kernel, prints(name), name) for name in ("web", "db")]
    monitor.run()
    assert [vm.console.text for vm in vms] == ["web", "db"]


def test_an_unused_part_of_a_window_stops_only_the_vm_that_touches_it(machine, kernel):
    monitor = Monitor(machine)
    lost = booted(monitor, kernel, [("load", UART_BASE + 0x800, 4)], "lost")
    fine = booted(monitor, kernel, [("work", 1)] * 5 + prints("ok"), "fine")
    monitor.run()
    assert isinstance(lost.error, GuestStopped)
    assert "uart" in lost.error.cause
    assert (fine.status, fine.console.text) == (Status.HALTED, "ok")


def test_a_register_written_against_its_specification_stops_the_vm(machine, kernel, tmp_path):
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(512))
    monitor = Monitor(machine)
    vm = booted(monitor, kernel, [("store", VIRTIO_BASE + 0x30, 2, 1)], disks=[disk])
    monitor.run()
    assert isinstance(vm.error, GuestStopped)
    assert "virtio-blk 0" in vm.error.cause


def test_typed_text_raises_the_console_line_and_is_read(machine, kernel):
    monitor = Monitor(machine)
    enable_receive = ("store", UART_BASE + 4, 4, 1)
    vm = booted(monitor, kernel, [enable_receive, ("load", UART_BASE, 4)])
    vm.type("x")
    guest = monitor._engine.vms[vm.number]
    monitor.run()
    assert guest.loads == [ord("x")]
    assert guest.lines == {4: False}  # raised, and lowered by the read


# -- ends -------------------------------------------------------------------------------------


def test_halting_is_an_orderly_power_off(machine, kernel):
    monitor = Monitor(machine)
    vm = booted(monitor, kernel, [("halt",)])
    monitor.run()
    assert (vm.status, vm.error, vm.exit_status) == (Status.HALTED, None, 0)


def test_the_power_off_register_hands_over_an_exit_status(machine, kernel):
    monitor = Monitor(machine)
    vm = booted(monitor, kernel, [("store", POWER_OFF, 4, 7 << 8 | 5)])
    monitor.run()
    assert (vm.status, vm.exit_status) == (Status.HALTED, 7)


def test_a_reset_ends_the_vm(machine, kernel):
    monitor = Monitor(machine)
    vm = booted(monitor, kernel, [("store", RESET_BASE, 4, RESET_VALUE)])
    monitor.run()
    assert (vm.status, vm.exit_status) == (Status.RESET, None)


def test_a_reset_boots_again_where_that_was_asked(machine, kernel):
    monitor = Monitor(machine)
    reset = ("store", RESET_BASE, 4, RESET_VALUE)
    first, second = pages(UNTOUCHED) + prints("a"), pages(UNTOUCHED + 1) + prints("b")
    vm = booted(monitor, kernel, [*first, reset, *second], restart_on_reset=True)
    monitor.run()
    assert (vm.status, vm.console.text) == (Status.HALTED, "ab")
    present = vm.pmap["state"] == fake_engine.PRIVATE
    assert (present[UNTOUCHED], present[UNTOUCHED + 1]) == (False, True)


@pytest.mark.parametrize("cause", ["no handler", "bad access", "unsupported"])
def test_a_vcpu_that_cannot_go_on_stops_its_vm_with_a_report(machine, kernel, cause):
    monitor = Monitor(machine)
    vm = booted(monitor, kernel, [("die", cause)], "bad")
    other = booted(monitor, kernel, prints("ok"), "good")
    monitor.run()
    assert vm.status is Status.STOPPED
    assert isinstance(vm.error, GuestStopped)
    assert (vm.error.vm, vm.error.vcpu) == ("bad", 0)
    assert cause in vm.error.cause
    assert other.console.text == "ok"


def test_closing_ends_every_vm_and_keeps_what_it_printed(machine, kernel):
    with Monitor(machine) as monitor:
        vm = booted(monitor, kernel, [*prints("x"), *[("work", 1)] * 10**4])
        monitor.run(seconds=0.02)
    assert (vm.status, vm.console.text) == (Status.CLOSED, "x")
    assert vm.usage.counters["instructions"] > 0


# -- running ----------------------------------------------------------------------------------


def test_a_limit_of_simulated_time_is_kept_to_the_round(machine, kernel):
    monitor = Monitor(machine)
    booted(monitor, kernel, [("work", 1)] * 10**6)
    assert monitor.run(seconds=0.0123) is Outcome.SIMULATED_TIME
    end = machine.cycles(0.0123)
    assert end <= monitor.now < end + machine.quantum_cycles


def test_a_limit_of_wall_time_ends_a_guest_that_loops_for_ever(machine, kernel):
    monitor = Monitor(machine)
    booted(monitor, kernel, [("work", 1)] * 10**6)
    assert monitor.run(wall_seconds=0.05) is Outcome.WALL_TIME


def test_ctrl_c_leaves_a_monitor_that_goes_on(machine, kernel):
    monitor = Monitor(machine)
    vm = booted(monitor, kernel, [("work", 1)] * 500 + prints("end"))
    asked = 0

    def interrupt() -> bool:
        nonlocal asked
        asked += 1
        if asked == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return False

    with pytest.raises(KeyboardInterrupt):
        monitor.run(until=interrupt)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert monitor.run() is Outcome.ENDED
    assert vm.console.text == "end"


def test_the_same_seed_has_the_same_digest_and_another_output_another(machine, kernel):
    def digest(text: str) -> str:
        fake_engine.scripts.clear()
        monitor = Monitor(machine)
        booted(monitor, kernel, [*pages(UNTOUCHED), *prints(text)])
        monitor.run()
        return monitor.digest()

    assert digest("a") == digest("a")
    assert digest("a") != digest("b")
