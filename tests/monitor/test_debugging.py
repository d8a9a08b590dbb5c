"""Breakpoints and single steps, whatever executes the guest."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_kernel
from tiny_guests import LATE_OK, PRINT_OK, PROLOGUE, guest

from disco import ConfigError, Machine, Monitor, Outcome, Status
from disco._engine import assemble
from disco.hardware.machine import DEFAULT_ENGINE
from disco.monitor.vm import VirtualMachine

#: Counts down from 3; the branch has a slot.
COUNT = f"""
        li    t0, 3
again:  addiu t0, t0, -1
        bnez  t0, again
        addiu t1, t1, 5
{PRINT_OK}"""

ENGINES = sorted({"interpreter", DEFAULT_ENGINE})


def _address(source: str, before: str) -> int:
    """Where the text behind `before` is."""
    head = source[: source.index(before)]
    return tiny_kernel.BASE + len(assemble(PROLOGUE + head, tiny_kernel.BASE))


def _boot(monitor: Monitor, folder: Path, source: str, name: str = "vm") -> VirtualMachine:
    vm = monitor.create_vm(name, kernel=guest(folder, name, source), memory_mib=4)
    vm.boot()
    return vm


@pytest.fixture(params=ENGINES)
def monitor(request) -> Monitor:
    return Monitor(Machine(nodes=2, cpus=2, memory_mib_per_node=8, engine=request.param))


def test_a_vcpu_pauses_before_each_instruction_with_a_breakpoint_and_goes_on(monitor, tmp_path):
    vm = _boot(monitor, tmp_path, COUNT)
    again = _address(COUNT, "again:")
    vm.set_breakpoints(again)
    seen = []
    while monitor.run(seconds=1) is Outcome.PAUSED:
        assert (vm.paused.pc, vm.paused.cause, vm.paused.vcpu) == (again, "breakpoint", 0)
        seen.append((vm.registers()["r12"], vm.registers()["r13"]))
    assert seen == [(3, 0), (2, 5), (1, 10)]
    assert (vm.paused, vm.status, vm.console.text) == (None, Status.HALTED, "ok")


def test_steps_are_instructions_and_a_branch_takes_its_slot_along(monitor, tmp_path):
    vm = _boot(monitor, tmp_path, COUNT)
    start = vm.registers()["pc"]
    vm.set_breakpoints(_address(COUNT, "again:"))
    assert monitor.run(seconds=1) is Outcome.PAUSED
    vm.set_breakpoints()
    again, executed = vm.paused.pc, vm.usage.counters["instructions"]
    assert executed == (again - start) // 4
    places = [(monitor.step(vm).pc - again, vm.usage.counters["instructions"]) for _ in range(3)]
    assert places == [(4, executed + 1), (0, executed + 3), (4, executed + 4)]
    assert monitor.step(vm, 3).pc == again + 4
    assert monitor.step(vm, 1 << 40) is None
    assert vm.console.text == "ok"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_in_which_somebody_looks_has_the_digest_of_one_in_which_nobody_does(tmp_path, engine):
    digests = []
    for is_debugged in (False, True):
        with Monitor(Machine(nodes=2, cpus=2, memory_mib_per_node=8, engine=engine)) as monitor:
            vm, _ = (_boot(monitor, tmp_path, LATE_OK, name) for name in ("vm", "other"))
            pauses = 0
            if is_debugged:
                vm.set_breakpoints(_address(LATE_OK, "wait:"))
                while pauses < 4:
                    pauses += monitor.run() is Outcome.PAUSED
                pauses += monitor.step(vm, 7) is not None
                vm.set_breakpoints()
            assert monitor.run() is Outcome.ENDED
            assert pauses == (5 if is_debugged else 0)
            digests.append(monitor.digest())
    assert digests[0] == digests[1]


def test_a_loop_that_is_hot_pauses_too_and_a_neighbour_goes_on(monitor, tmp_path):
    vm, other = (_boot(monitor, tmp_path, LATE_OK, name) for name in ("vm", "other"))
    assert monitor.run(seconds=0.001) is Outcome.SIMULATED_TIME
    wait = _address(LATE_OK, "wait:")
    vm.set_breakpoints(wait)
    left = []
    for _ in range(2):
        assert monitor.run(seconds=1) is Outcome.PAUSED
        left.append(vm.registers()["r12"])
    assert 0 < left[1] == left[0] - 1 < 400_000
    vm.set_breakpoints()
    assert monitor.run(seconds=1) is Outcome.ENDED
    assert (vm.console.text, other.console.text, other.paused) == ("ok", "ok", None)


@pytest.mark.parametrize("address", [2, -4, 1 << 64])
def test_what_is_no_address_of_an_instruction_has_no_breakpoint(monitor, tmp_path, address):
    vm = _boot(monitor, tmp_path, PRINT_OK)
    with pytest.raises(ConfigError, match="multiples of 4"):
        vm.set_breakpoints(address)
    assert monitor.run(seconds=1) is Outcome.ENDED


@pytest.mark.parametrize(("count", "vcpu"), [(0, 0), (1, 1), (1, -1)])
def test_what_cannot_be_stepped_is_refused(monitor, tmp_path, count, vcpu):
    vm = _boot(monitor, tmp_path, PRINT_OK)
    with pytest.raises(ConfigError, match="steps of vCPU"):
        monitor.step(vm, count, vcpu=vcpu)
    monitor.run(seconds=1)
    assert monitor.step(vm) is None


@pytest.mark.slow
def test_debians_kernel_pauses_where_a_system_call_begins(debian):
    with Monitor(Machine(nodes=1, cpus=1)) as monitor:
        command = "grep ' T sys_newuname$' /proc/kallsyms; cat /proc/uptime; uname -m"
        vm = monitor.create_vm("vm", image=debian, memory_mib=96, command=command)
        vm.boot()
        assert monitor.run(until=lambda: vm.has_printed(" T sys_newuname\r\n")) is Outcome.UNTIL
        (line,) = [line for line in vm.console.text.splitlines() if "T sys_newuname" in line]
        address = int(line.split()[0], 16)
        vm.set_breakpoints(address)
        assert monitor.run() is Outcome.PAUSED
        assert (vm.paused.pc, vm.registers()["pc"], len(vm.read(address, 64))) == (
            address,
            address,
            64,
        )
        executed = vm.usage.counters["instructions"]
        assert monitor.step(vm).cause == "step"  # perhaps in an interrupt that has become due
        assert vm.usage.counters["instructions"] == executed + 1
        vm.set_breakpoints()
        assert monitor.run() is Outcome.ENDED
    assert vm.exit_status == 0
    assert "mips64" in vm.console.text
