"""Sharing by content: who is looked at when, and that guests notice nothing but the time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tiny_guests

from disco import ConfigError, InIdleTime, Machine, Monitor
from disco.monitor.content import ContentSharing, Lookout

PAGE = 4096
DATA_AT = 2 << 20


# -- the policy that comes with it ------------------------------------------------------------


def test_who_waits_is_looked_at_most_and_who_works_a_little():
    vms = [Lookout(name, 1000, idle) for name, idle in (("idle", 1), ("half", 0.5), ("busy", 0))]
    assert InIdleTime(pages=100, pages_busy=10).pages(vms) == {"idle": 100, "half": 50}
    policy = InIdleTime(pages=4, pages_busy=10)
    assert policy.pages(vms) == {"idle": 4, "half": 4}, "one has not waited yet"
    worked = [Lookout(one.vm, 1000, 0) for one in vms]
    assert policy.pages(worked) == {"idle": 4, "half": 4}


@pytest.mark.parametrize("wrong", [{"pages": -1}, {"pages_busy": -1}])
def test_a_number_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match="asked; 0 or more"):
        InIdleTime(**wrong)


# -- policies of users ------------------------------------------------------------------------


class Answer:
    interval_seconds = 0.02

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[Any] = []

    def pages(self, vms: Any) -> Any:
        self.asked.append(vms)
        return self.answer


class Clock:
    """An engine that only looks: half of the time VMs wait."""

    def __init__(self) -> None:
        self.now = 0
        self.looked: list[tuple[int, int]] = []

    def counters(self, vm: int, vcpu: int) -> dict[str, int]:
        return {"cycles_idle": self.now // 2}

    def share_content(self, vm: int, count: int) -> None:
        self.looked.append((vm, count))


def sharing(policy: Any, said: list[str]) -> tuple[Clock, ContentSharing]:
    clock = Clock()
    return clock, ContentSharing(clock, Machine(nodes=1, cpus=1), policy, warn=said.append)


def vm(name: str, number: int, *, is_running: bool = True) -> Any:
    platform = SimpleNamespace(memory_bytes=128 << 20, vcpu_count=2)
    config = SimpleNamespace(platform=platform)
    return SimpleNamespace(name=name, number=number, is_running=is_running, config=config)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ({"one": -1}, "wants to look at -1 pages of VM 'one'; 0 or more are possible"),
        ({"one": 1 << 40}, "pages of VM 'one'"),
        ({"one": 1.5}, "wants to look at 1.5 pages"),
        ({"other": 1}, "named a VM 'other' that does not run"),
        (7, "raised TypeError"),
        (None, "raised TypeError"),
    ],
)
def test_a_policy_without_a_proper_answer_is_replaced_and_that_is_said_once(answer, problem):
    said: list[str] = []
    clock, content = sharing(Answer(answer), said)
    for _ in range(2):
        clock.now += 10_000_000
        content.tick([vm("one", 3)])
    assert clock.looked == [(3, 128)] * 2, "half of 256, as it waits half of the time"
    assert len(said) == 1
    assert problem in said[0]


def test_the_policy_has_its_turn_at_its_interval_only_and_hears_of_running_vms():
    policy = Answer({"one": 7, "two": 0})
    clock, content = sharing(policy, [])
    vms = [vm("one", 0), vm("two", 1), vm("off", 2, is_running=False)]
    for now in (1, 3_999_999, 4_000_001, 7_000_000, 8_000_000):
        clock.now = now
        content.tick(vms)
    assert clock.looked == [(0, 7)] * 2
    assert policy.asked[0] == [Lookout(name, 32768, pytest.approx(0.5)) for name in ("one", "two")]


@pytest.mark.parametrize("seconds", [0, -1, "1", None, float("inf")])
def test_an_interval_that_cannot_be_is_refused(seconds):
    policy = Answer({})
    policy.interval_seconds = seconds
    with pytest.raises(ConfigError, match="interval_seconds"):
        Monitor(Machine(nodes=1, cpus=1, memory_mib_per_node=8), content_sharing=policy)


# -- with real guests -------------------------------------------------------------------------


#: Long enough for four turns of the policy.
WAIT = """
        dli   t0, 8000000
wait:   bnez  t0, wait
        addiu t0, t0, -1
"""


class Eager:
    """Looks at everything, of VMs that have never waited too."""

    interval_seconds = 0.01

    def pages(self, vms):
        return {one.vm: 4096 for one in vms}


EAGER = Eager()


def _run(tmp_path, *, sharing: Any, **machine: Any) -> Monitor:
    """Three VMs with 64 pages alike, of which the third writes to each in the end."""
    made = Machine(nodes=2, cpus=3, memory_mib_per_node=16, **machine)
    monitor = Monitor(made, content_sharing=sharing)
    late = tiny_guests.guest(tmp_path, "late", WAIT + tiny_guests.PRINT_OK)
    writes = WAIT + tiny_guests.touch([(DATA_AT, 64 * PAGE)])
    writer = tiny_guests.guest(tmp_path, "writer", writes)
    for name, kernel in (("web", late), ("db", late), ("mail", writer)):
        made_vm = monitor.create_vm(name, kernel=kernel, memory_mib=4)
        made_vm.boot()
        made_vm.board.memory.write(DATA_AT, bytes(range(256)) * 16 * 64)
    monitor.run()
    return monitor


def test_equal_pages_of_vms_become_one_and_the_footprint_says_so(tmp_path):
    monitor = _run(tmp_path, sharing=EAGER)
    assert [one.exit_status for one in monitor.vms] == [0, 0, 0]
    counts = monitor.content_counts
    assert counts["merged"] >= 3 * 64 - 1, "pages of one VM that are equal are one, too"
    assert counts["broken"] >= 64, "the third has written"
    assert monitor.fullest is not None
    part = monitor.fullest.vms["web"]["anonymous"]
    assert part.virtual_bytes >= part.shared_bytes == part.merged_bytes >= 64 * PAGE
    assert monitor.fullest.common_bytes[("web", "db")] >= PAGE


def test_the_run_is_the_same_on_any_number_of_host_threads_and_with_either_engine(tmp_path):
    hosts = [{"host_threads": 1}, {"host_threads": 2}, {"host_threads": 4}]
    hosts += [{"host_threads": 1, "engine": "interpreter"}]
    runs = [_run(tmp_path, sharing=EAGER, **host) for host in hosts]
    digests = {run.digest() for run in runs}
    counts = [run.content_counts for run in runs]
    assert len(digests) == 1
    assert all(one == counts[0] for one in counts)
    assert counts[0]["broken"] > 0


def test_nobody_looks_unless_asked(tmp_path):
    monitor = _run(tmp_path, sharing=False)
    assert set(monitor.content_counts.values()) == {0}
    assert all(one.usage.counters["cycles_monitor_content"] == 0 for one in monitor.vms)
