"""Who has the CPUs: shares, policies, and what becomes of a policy that is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
from tiny_guests import LATE_OK, LOOP_WITH_INTERRUPTS_OFF, PRINT_OK, guest

from disco import (
    ConfigError,
    Gang,
    Load,
    Machine,
    Monitor,
    Outcome,
    Pinned,
    Pool,
    SchedulingPolicy,
    TimeSharing,
    VirtualMachine,
)
from disco.observe.report import report


def machine(cpus: int, *, vms: int = 8, nodes: int = 2, **options: Any) -> Machine:
    return Machine(nodes=nodes, cpus=cpus, memory_mib_per_node=8 * vms // nodes + 8, **options)


def booted(monitor: Monitor, folder: Path, source: str, count: int) -> list[VirtualMachine]:
    kernel = guest(folder, "guest", source)
    vms = []
    for _ in range(count):
        vm = monitor.create_vm(f"vm{len(monitor.vms)}", kernel=kernel, memory_mib=4)
        vm.boot()
        vms.append(vm)
    return vms


def used(vm: VirtualMachine) -> int:
    counters = vm.usage.counters
    return sum(counters[f"cycles_{mode}"] for mode in ("user", "kernel", "monitor"))


# -- shares -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpus", "weights"),
    [
        (1, [1, 1]),
        (2, [1, 1, 1]),  # nobody can stay where it is
        (2, [1, 1, 1, 1]),
        (4, [1] * 5),
        (1, [2, 1]),
        (1, [5, 2, 1]),
        (2, [3, 2, 2, 1]),
        (2, [2, 1, 1, 3, 1, 1]),
        (3, [10, 1, 1]),  # one vCPU cannot use more than a CPU: the others have one each
    ],
)
def test_shares_of_a_second_are_within_2_percent_of_the_weights(tmp_path, cpus, weights):
    policy = TimeSharing(weights={f"vm{index}": weight for index, weight in enumerate(weights)})
    monitor = Monitor(machine(cpus, vms=len(weights)), scheduler=policy)
    vms = booted(monitor, tmp_path, LOOP_WITH_INTERRUPTS_OFF, len(weights))
    monitor.run(seconds=1)
    if len(weights) > cpus:
        due = [cpus * monitor.now * weight / sum(weights) for weight in weights]
    else:
        due = [monitor.now] * len(weights)
    for vm, share in zip(vms, due, strict=True):
        assert abs(used(vm) - share) / share < 0.02, (vm.name, used(vm) / share)


def test_64_busy_vms_on_8_cpus_have_equal_shares_and_wait_the_rest_of_the_time(tmp_path):
    monitor = Monitor(machine(8, vms=64))
    vms = booted(monitor, tmp_path, LOOP_WITH_INTERRUPTS_OFF, 64)
    monitor.run(seconds=1)
    for vm in vms:
        assert abs(used(vm) * 8 / monitor.now - 1) < 0.02
        waited = vm.usage.counters["cycles_waiting"]
        assert abs(used(vm) + waited - monitor.now) < 2_000  # work beyond the end of a round


def test_64_vms_on_8_cpus_run_to_the_end(tmp_path):
    monitor = Monitor(machine(8, vms=64))
    vms = booted(monitor, tmp_path, LATE_OK, 64)
    assert monitor.run(seconds=2) is Outcome.ENDED
    assert [vm.console.text for vm in vms] == ["ok"] * 64


def test_the_largest_machine_is_used_by_all(tmp_path):
    monitor = Monitor(machine(128, vms=140, nodes=64))
    vms = booted(monitor, tmp_path, LATE_OK, 132)
    assert monitor.run(seconds=2) is Outcome.ENDED
    assert {vm.console.text for vm in vms} == {"ok"}
    assert all(monitor.cpu_counters(cpu)["cycles_kernel"] > 300_000 for cpu in range(128))


# -- policies ---------------------------------------------------------------------------------


def test_pinned_vcpus_stay_where_they_are_told_and_others_where_there_is_room(tmp_path):
    monitor = Monitor(machine(4), scheduler=Pinned({"vm0": 3, "vm1": [3, 1]}))
    vms = booted(monitor, tmp_path, LOOP_WITH_INTERRUPTS_OFF, 5)
    monitor.run(seconds=0.05)
    assert [vm.cpus for vm in vms] == [(3,), (3,), (0,), (1,), (2,)]
    assert [vm.usage.counters["vcpu_moves"] for vm in vms] == [0] * 5
    assert [vm.usage.counters["cycles_waiting"] > 0 for vm in vms] == [True, True] + [False] * 3


def test_pinned_vcpus_stay_when_others_go(tmp_path):
    monitor = Monitor(machine(2), scheduler=Pinned())
    (short,) = booted(monitor, tmp_path, PRINT_OK, 1)
    stays = booted(monitor, tmp_path, LOOP_WITH_INTERRUPTS_OFF, 2)
    monitor.run(seconds=0.05)
    assert short.has_ended
    assert [vm.cpus for vm in stays] == [(1,), (0,)]
    assert [vm.usage.counters["vcpu_moves"] for vm in stays] == [0, 0]


def test_time_sharing_uses_a_cpu_that_others_have_left(tmp_path):
    monitor = Monitor(machine(2))
    booted(monitor, tmp_path, PRINT_OK, 1)
    stays = booted(monitor, tmp_path, LOOP_WITH_INTERRUPTS_OFF, 2)
    monitor.run(seconds=0.2)
    assert sorted(vm.cpus for vm in stays) == [(0,), (1,)]
    assert all(used(vm) > 0.95 * monitor.now for vm in stays)


def test_the_time_slice_is_the_policys(tmp_path):
    def turns(time_slice_ms: float) -> int:
        monitor = Monitor(machine(1), scheduler=TimeSharing(time_slice_ms=time_slice_ms))
        vms = booted(monitor, tmp_path, LOOP_WITH_INTERRUPTS_OFF, 2)
        monitor.run(seconds=0.2)
        return sum(vm.usage.counters["vcpu_switches"] for vm in vms)

    # The first two turns can be one vCPU's: what each has used until then depends on what starting costs.
    assert [turns(ms) for ms in (1, 2, 10)] == pytest.approx([200, 100, 20], abs=1)


@pytest.mark.parametrize("make", [TimeSharing, Gang, Pinned])
def test_a_policy_has_one_digest_with_any_number_of_host_threads(tmp_path, make):
    def digest(host_threads: int) -> str:
        monitor = Monitor(machine(3, host_threads=host_threads), scheduler=make(weights={"vm1": 3}))
        booted(monitor, tmp_path, LATE_OK, 7)
        assert monitor.run(seconds=2) is Outcome.ENDED
        return monitor.digest()

    assert digest(1) == digest(2) == digest(4)


def test_a_policy_is_asked_when_vms_come_and_go_and_at_no_other_time(tmp_path):
    class Counting(TimeSharing):
        plans = 0

        def plan(self, load: Load) -> Iterable[Pool]:
            self.plans += 1
            return super().plan(load)

    policy = Counting()
    monitor = Monitor(machine(2), scheduler=policy)
    booted(monitor, tmp_path, LOOP_WITH_INTERRUPTS_OFF, 3)
    booted(monitor, tmp_path, PRINT_OK, 1)
    monitor.run(seconds=0.1)
    assert sum(vm.usage.counters["vcpu_switches"] for vm in monitor.vms) > 40
    assert policy.plans == 4 + 1


class Rotation:
    """Two pools whose VMs change places every hundredth of a second."""

    interval_seconds = 0.01

    def __init__(self) -> None:
        self.loads: list[Load] = []

    def plan(self, load: Load) -> Iterable[Pool]:
        self.loads.append(load)
        turn = len(self.loads)
        half = load.machine.cpus // 2
        for place in range(2):
            yield Pool(
                cpus=load.cpus[half * place : half * (place + 1)],
                vcpus=[
                    vcpu for number, vcpu in enumerate(load.vcpus) if (number + turn) % 2 == place
                ],
            )


def test_a_policy_with_an_interval_is_asked_again_and_told_what_was_used(tmp_path):
    policy = Rotation()
    monitor = Monitor(machine(2), scheduler=policy)
    vms = booted(monitor, tmp_path, LOOP_WITH_INTERRUPTS_OFF, 3)
    monitor.run(seconds=0.1)
    assert len(policy.loads) == len(vms) + 10
    last = policy.loads[-1]
    assert [vcpu.vm for vcpu in last.vcpus] == ["vm0", "vm1", "vm2"]
    assert all(vcpu.cycles_used > 0 for vcpu in last.vcpus)
    assert all(vcpu.cpu in (0, 1) for vcpu in last.vcpus)
    assert sum(vcpu.cycles_waiting for vcpu in last.vcpus) > monitor.now / 2
    assert all(vm.usage.counters["vcpu_moves"] >= 9 for vm in vms)


def test_the_same_run_has_the_same_digest_whatever_limits_cut_it(tmp_path):
    def run(*cuts: float) -> str:
        monitor = Monitor(machine(2), scheduler=Rotation())
        booted(monitor, tmp_path, LATE_OK, 5)
        for seconds in cuts:
            monitor.run(seconds=seconds)
        monitor.run(seconds=2)
        return monitor.digest()

    assert run() == run(0.001, 0.0123) == run(0.0995, 0.0005)


def test_the_report_says_where_the_time_of_each_vcpu_and_cpu_went(tmp_path):
    monitor = Monitor(machine(1))
    booted(monitor, tmp_path, LOOP_WITH_INTERRUPTS_OFF, 2)
    monitor.run(seconds=0.1)
    result = report(monitor)
    for vm in result["vms"]:
        (vcpu,) = vm["vcpus"]
        assert vcpu["cpu"] == 0
        assert {"user", "kernel", "monitor", "idle", "waiting"} <= set(vcpu["cycles"])
        assert vcpu["scheduling"]["switches"] in (24, 25)
    (cpu,) = result["cpus"]
    assert sum(cpu["cycles"][mode] for mode in ("user", "kernel", "monitor", "idle")) >= monitor.now


# -- what cannot be ---------------------------------------------------------------------------


def whole(load: Load, **changes: Any) -> Pool:
    return Pool(**{"cpus": load.cpus, "vcpus": load.vcpus, **changes})


def fails_midway(load: Load) -> Iterable[Pool]:
    yield whole(load)
    raise OSError("the oracle is out")


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (lambda load: 1 // 0, "ZeroDivisionError"),
        (fails_midway, "the oracle is out"),
        (lambda load: None, "'NoneType' object is not iterable"),
        (lambda load: [None], "'NoneType' object has no attribute"),
        (lambda load: [], "vCPU 0 is in no pool"),
        (lambda load: [whole(load, vcpus=load.vcpus[1:])], "vCPU 0 is in no pool"),
        (lambda load: [whole(load, vcpus=load.vcpus * 2)], "vCPU 0 asked twice"),
        (lambda load: [whole(load), whole(load, vcpus=())], "CPU 0 asked twice"),
        (lambda load: repeat(whole(load)), "CPU 0 asked twice"),
        (lambda load: [whole(load, cpus=[7])], "CPU 7 asked; possible are 0 to 1"),
        (lambda load: [whole(load, cpus=[-1])], "OverflowError"),
        (lambda load: [whole(load, cpus=[])], "a pool without a CPU"),
        (lambda load: [whole(load, vcpus=["vm0"])], "'str' object has no attribute 'vm'"),
        (lambda load: [whole(load, weights={"vm0": 0})], "weight 0 asked; possible are 1 to 10000"),
        (lambda load: [whole(load, weights={"vm0": 0.5})], "TypeError"),
        (lambda load: [whole(load, time_slice_ms=0)], "a time slice of 0 rounds"),
        (lambda load: [whole(load, time_slice_ms=float("nan"))], "ValueError"),
    ],
)
def test_time_sharing_takes_over_from_a_broken_policy_and_that_is_said_once(tmp_path, plan, said):
    class Broken:
        interval_seconds = 0.01

        def plan(self, load: Load) -> Iterable[Pool]:
            return plan(load)  # type: ignore[no-any-return]

    warnings: list[str] = []
    monitor = Monitor(machine(2), scheduler=Broken(), warn=warnings.append)
    vms = booted(monitor, tmp_path, LATE_OK, 3)
    assert monitor.run(seconds=2) is Outcome.ENDED
    assert [vm.console.text for vm in vms] == ["ok"] * 3
    (warning,) = warnings
    assert "scheduling policy Broken" in warning
    assert said in warning
    assert "time sharing takes over" in warning


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TimeSharing(weights={"vm0": 0}), "weight of VM 'vm0': 0 asked"),
        (lambda: TimeSharing(weights={"vm0": 10_001}), "from 1 to 10000 are possible"),
        (lambda: Gang(time_slice_ms=0), "0 ms asked; more than 0"),
        (lambda: Pinned(time_slice_ms=float("inf")), "inf ms asked"),
        (lambda: Pinned({"vm0": []}), "no CPU for VM 'vm0'"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(make: Callable[[], SchedulingPolicy], said):
    with pytest.raises(ConfigError, match=said):
        make()


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), "often"])
def test_an_interval_that_cannot_be_is_refused(interval):
    policy = Rotation()
    policy.interval_seconds = interval
    with pytest.raises(ConfigError, match="a number above 0, or None, is possible"):
        Monitor(machine(1), scheduler=policy)


@pytest.mark.parametrize(
    ("policy", "vcpus", "said"),
    [
        (Gang(), 3, "a gang of 3 vCPUs asked; up to 2, as many as the machine has CPUs"),
        (Pinned({"vm1": 2}), 1, "CPU 2 for VM 'vm1' asked; 0 to 1 are possible"),
        (Pinned({"vm1": -1}), 1, "CPU -1 for VM 'vm1' asked"),
        (TimeSharing(), 17, "17 asked; Debian's kernel takes 1 to 16"),
    ],
)
def test_a_vm_that_a_policy_cannot_have_is_refused_and_changes_nothing(
    tmp_path, policy, vcpus, said
):
    monitor = Monitor(machine(2), scheduler=policy)
    before = monitor.pages_by_owner()
    kernel = guest(tmp_path, "guest", PRINT_OK)
    with pytest.raises(ConfigError, match=said):
        monitor.create_vm("vm1", kernel=kernel, memory_mib=4, vcpus=vcpus)
    assert monitor.pages_by_owner() == before
    assert monitor.vms == []
