"""Who gives memory back on an overcommitted machine, and what becomes of who has to wait for it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_guests import LATE_OK, guest, touch

from disco import ConfigError, Machine, MemoryExhausted, Monitor, Outcome, Status
from disco.devices.virtio.balloon import VirtioBalloon
from disco.guests.images import Image
from disco.guests.platform import PAGE_SIZE
from disco.monitor.overcommit import Demand, IdleFirst, Overcommit, Tenant

MIB = (1 << 20) // PAGE_SIZE


def tenant(vm: str, *, idle: int, balloon: int = 0, resident: int = 60) -> Tenant:
    """Of 128 MiB; sizes in MiB."""
    return Tenant(vm, 128 * MIB, resident * MIB, balloon * MIB, idle * MIB)


def demand(free: int, *tenants: Tenant) -> Demand:
    return Demand(free * MIB, low=64 * MIB, high=96 * MIB, waiting=(), tenants=tenants)


# -- the policy that comes with it ------------------------------------------------------------


@pytest.mark.parametrize(
    ("shares", "given"),
    [
        ({}, {"busy": 0, "one": 10, "two": 20}),
        ({"two": 2}, {"busy": 0, "one": 15, "two": 15}),
        ({"two": 10**9}, {"busy": 0, "one": 20, "two": 0}),  # no more than it can spare
    ],
)
def test_idle_memory_is_given_up_in_proportion_and_memory_in_use_is_not(shares, given):
    policy = IdleFirst(shares=shares, step_mib=30)
    tenants = [tenant("busy", idle=8), tenant("one", idle=28), tenant("two", idle=48)]
    wanted = policy.balloons(demand(0, *tenants))
    # What has no machine page goes into the balloon first: 128 - 60.
    found = {one.vm: wanted.get(one.vm, 68 * MIB) - 68 * MIB for one in tenants}
    assert {vm: round(pages / MIB) for vm, pages in found.items()} == given


def test_no_more_is_asked_than_is_short_and_than_a_step():
    idle = tenant("idle", idle=60)
    assert IdleFirst(step_mib=100).balloons(demand(61, idle)) == {"idle": (68 + 3) * MIB}
    assert IdleFirst(step_mib=2).balloons(demand(61, idle)) == {"idle": (68 + 2) * MIB}


def test_balloons_shrink_when_there_is_plenty_and_stay_when_there_is_enough():
    one, two = tenant("one", idle=0, balloon=30), tenant("two", idle=0, balloon=10)
    policy = IdleFirst(step_mib=20)
    assert policy.balloons(demand(90, one, two)) == {}
    assert policy.balloons(demand(200, one, two)) == {"one": 15 * MIB, "two": 5 * MIB}
    assert IdleFirst(step_mib=80).balloons(demand(200, one, two)) == {"one": 0, "two": 0}


def test_nobody_is_asked_when_nobody_has_anything():
    assert IdleFirst().balloons(demand(0, tenant("busy", idle=0))) == {}
    assert IdleFirst().balloons(demand(0)) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval_seconds": 0},
        {"step_mib": -1},
        {"spare_mib": -1},
        {"shares": {"a": 0}},
        {"interval_seconds": float("nan")},
    ],
)
def test_a_number_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match="asked"):
        IdleFirst(**wrong)


# -- policies of users ------------------------------------------------------------------------


class Frozen:
    """An engine of which only the memory is looked at: the machine is nearly full."""

    now = 10**9

    def free_pages(self, node: int) -> int:
        return 10

    def pages_by_node(self, vm: int) -> list[int]:
        return [60 * MIB]


def overcommit(policy: Any, said: list[str]) -> Overcommit:
    machine = Machine(nodes=1, cpus=1, memory_mib_per_node=256)
    return Overcommit(Frozen(), machine, policy, warn=said.append, reclaim=lambda _node: False)


def idle_vm() -> Any:
    balloon = VirtioBalloon()
    balloon.statistics = {"available_bytes": 100 << 20}
    platform = SimpleNamespace(memory_bytes=128 << 20)
    return SimpleNamespace(
        name="idle",
        number=0,
        is_running=True,
        board=SimpleNamespace(balloon=balloon),
        config=SimpleNamespace(platform=platform),
    )


class Answer:
    interval_seconds = 0.1

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def balloons(self, demand: Demand) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"idle": -1}, "wants -1 pages of VM 'idle'; 0 to 32768 are possible"),
        ({"idle": 10**9}, "wants 1000000000 pages"),
        ({"idle": 1.5}, "wants 1.5 pages"),
        ({"other": 1}, "named a VM 'other' that has no balloon"),
        (7, "raised TypeError"),
        (None, "raised TypeError"),
    ],
)
def test_a_policy_without_a_proper_answer_is_replaced_and_that_is_said_once(answer, problem):
    said: list[str] = []
    asked = overcommit(Answer(answer), said)
    for _ in range(2):
        asked._next = 0
        ((vm, pages),) = asked.tick([idle_vm()])
        assert vm.name == "idle"
        assert pages == overcommit(IdleFirst(), []).tick([idle_vm()])[0][1]
        assert pages
    assert len(said) == 1
    assert problem in said[0]


def test_an_answer_is_carried_out_and_who_is_not_named_stays_as_it_is():
    said: list[str] = []
    assert overcommit(Answer({"idle": 7}), said).tick([idle_vm()])[0][1] == 7
    assert overcommit(Answer({}), said).tick([idle_vm()])[0][1] is None
    assert said == []


def test_the_policy_has_its_turn_at_its_interval_only():
    asked = overcommit(Answer({}), [])
    assert asked.tick([idle_vm()])
    assert not asked.tick([idle_vm()])


@pytest.mark.parametrize("seconds", [0, -1, "1", None, float("inf")])
def test_an_interval_that_cannot_be_is_refused(seconds):
    policy = Answer({})
    policy.interval_seconds = seconds
    with pytest.raises(ConfigError, match="interval_seconds"):
        Monitor(Machine(nodes=1, cpus=1, memory_mib_per_node=8), overcommit=policy)


# -- waiting, with real guests ----------------------------------------------------------------


def _holder_and_greedy(tmp_path: Path, *, serves: bool) -> tuple[Monitor, Any, Any]:
    """A VM that has 13 of 16 MiB until it ends, and one that wants 12 at once."""
    monitor = Monitor(Machine(nodes=1, cpus=2, memory_mib_per_node=16), overcommit=True)
    holder = monitor.create_vm("holder", kernel=guest(tmp_path, "late", LATE_OK), memory_mib=20)
    holder.boot()
    holder.board.memory.write(4 << 20, bytes(13 << 20))
    if serves:
        holder.board.balloon.statistics = {"available_bytes": 0}
    kernel = guest(tmp_path, "greedy", touch([(0, 12 << 20)]))
    greedy = monitor.create_vm("greedy", kernel=kernel, memory_mib=12)
    greedy.boot()
    return monitor, holder, greedy


def test_a_vm_that_finds_no_page_waits_until_another_has_given_some_back(tmp_path):
    monitor, holder, greedy = _holder_and_greedy(tmp_path, serves=True)
    assert monitor.run(until=lambda: not holder.is_running) is Outcome.UNTIL
    assert greedy.is_running
    assert greedy.console.text == ""
    assert monitor.run(seconds=5) is Outcome.ENDED
    assert (greedy.status, greedy.console.text) == (Status.HALTED, "ok")


def test_a_vm_is_stopped_at_once_when_no_other_can_give_anything(tmp_path):
    monitor, holder, greedy = _holder_and_greedy(tmp_path, serves=False)
    assert monitor.run(seconds=5) is Outcome.ENDED
    assert isinstance(greedy.error, MemoryExhausted)
    assert "no other VM can give some back" in str(greedy.error)
    assert holder.console.text == "ok"


def test_a_vm_that_has_waited_too_long_is_stopped_and_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr("disco.monitor.overcommit.PATIENCE_SECONDS", 0.001)
    monkeypatch.setattr("disco.monitor.overcommit.RETRY_SECONDS", 0.0005)
    monitor, holder, greedy = _holder_and_greedy(tmp_path, serves=True)
    assert monitor.run(seconds=5) is Outcome.ENDED
    assert isinstance(greedy.error, MemoryExhausted)
    assert "have given none back" in str(greedy.error)
    assert holder.console.text == "ok"


# -- Debian -----------------------------------------------------------------------------------

READ = "cat /dev/vda > /dev/null; echo read; sleep 25"
USE = """
sleep 14
mkdir /t
mount -t tmpfs -o size=90m none /t
head -c 50m /dev/zero > /t/file && echo filled
rm /t/file
sleep 5
"""


@pytest.mark.slow
def test_idle_memory_moves_between_debians_and_any_number_of_host_threads_tells_the_same(
    debian: Image, tmp_path: Path
) -> None:
    """One has 64 MiB in its page cache, of which it gives up so much that the other can have 50."""
    disk = tmp_path / "disk"
    disk.write_bytes(b"".join(bytes([1 + page % 255]) * PAGE_SIZE for page in range(64 * MIB)))
    digests = {_move(debian, disk, host_threads) for host_threads in (1, 2, 4)}
    assert len(digests) == 1


def _move(debian: Image, disk: Path, host_threads: int) -> str:
    machine = Machine(nodes=1, cpus=2, memory_mib_per_node=144, host_threads=host_threads)
    with Monitor(machine, overcommit=True, disk_cache_mib=0) as monitor:
        reader = monitor.create_vm("reader", image=debian, command=READ, disks=[disk])
        user = monitor.create_vm("user", image=debian, command=USE)
        reader.boot()
        user.boot()
        monitor.run(seconds=120)
        for vm, said in ((reader, "read"), (user, "filled")):
            assert (vm.exit_status, vm.error) == (0, None), vm.console.text[-2000:]
            assert vm.has_printed(said)
        assert reader.board.balloon.counters.returned > 20 * MIB
        return monitor.digest()
