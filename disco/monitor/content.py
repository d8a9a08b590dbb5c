"""Sharing by content: which pages of which VMs are looked at when, to find those that are equal.

The engine looks, compares and merges (`engine/resident/src/monitor/content.rs`); a page takes part when
two looks in turn have found the same in it. A look costs its VM the time that hashing takes. So the policy
that comes with Disco looks at VMs when they have nothing to do, and a little when they have.

A policy is a guest in this house: if it raises, or its answer is none, that is said once, `InIdleTime` takes
over until its next turn, and the machine goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from disco._engine import Engine
from disco.errors import ConfigError
from disco.guests.platform import PAGE_SIZE
from disco.hardware.machine import Machine

if TYPE_CHECKING:
    from disco.monitor.vm import VirtualMachine


@dataclass(frozen=True)
class Lookout:
    """A VM whose pages can be looked at.

    Attributes:
        vm: its name.
        memory: its pages, as it was asked for.
        idle: the part of the time since the last turn in which its vCPUs waited, 0 to 1.
    """

    vm: str
    memory: int
    idle: float


class ContentPolicy(Protocol):
    """Says how many pages are looked at. Same VMs, same answers.

    Attributes:
        interval_seconds: simulated time between two answers, above 0.
    """

    interval_seconds: float

    def pages(self, vms: Sequence[Lookout]) -> Mapping[str, int]:
        """Pages of each VM by name, from where the last look ended; of a VM that is not named, none."""


class InIdleTime:
    """Looks at `pages` of a VM that waits, at fewer the more it works, and at `pages_busy` of one that works.

    It does not look before a VM has waited for the first time: till then it boots, and what it has will
    change. And a look takes time, of which one VM pays more than another, while VMs that boot
    alike undisturbed have equal pages to the last one.

    Attributes:
        interval_seconds: as of every policy.
    """

    def __init__(
        self, *, pages: int = 256, pages_busy: int = 16, interval_seconds: float = 0.02
    ) -> None:
        """All numbers are of an interval.

        Raises:
            ConfigError: there are no such numbers of pages.
        """
        for name, number in (("pages", pages), ("pages_busy", pages_busy)):
            if number < 0:
                raise ConfigError(f"content sharing: {name} {number} asked; 0 or more are possible")
        self.interval_seconds = interval_seconds
        self._pages = pages
        self._pages_busy = min(pages_busy, pages)
        self._have_waited: set[str] = set()

    def pages(self, vms: Sequence[Lookout]) -> Mapping[str, int]:
        self._have_waited.update(one.vm for one in vms if one.idle)
        return {
            one.vm: max(self._pages_busy, int(self._pages * one.idle))
            for one in vms
            if one.vm in self._have_waited
        }


class ContentSharing:
    """Asks the policy, and has the engine look."""

    def __init__(
        self,
        engine: Engine,
        machine: Machine,
        policy: ContentPolicy,
        warn: Callable[[str], None],
    ) -> None:
        """Raises:
        ConfigError: the policy has an interval that cannot be.
        """
        self._engine = engine
        self._policy = policy
        self._default = InIdleTime()
        self._warn = warn
        self._has_warned = False
        self._interval_cycles = _interval(policy, machine)
        self._last = 0
        #: Cycles in which the vCPUs of a VM had waited at the last turn, by its number.
        self._idle: dict[int, int] = {}

    def tick(self, vms: Sequence[VirtualMachine]) -> None:
        """Looks at pages of running VMs, if it is the policy's turn."""
        now = self._engine.now
        if now // self._interval_cycles == self._last // self._interval_cycles:
            return
        running = [vm for vm in vms if vm.is_running]
        wanted = self._ask([self._lookout(vm, now - self._last) for vm in running])
        self._last = now
        for vm in running:
            pages = wanted.get(vm.name, 0)
            if pages:
                self._engine.share_content(vm.number, pages)

    def forget(self, vm: int) -> None:
        """The VM has gone."""
        self._idle.pop(vm, None)

    def _lookout(self, vm: VirtualMachine, cycles: int) -> Lookout:
        vcpus = vm.config.platform.vcpu_count
        counted = (self._engine.counters(vm.number, vcpu) for vcpu in range(vcpus))
        idle = sum(counters["cycles_idle"] for counters in counted)
        waited = idle - self._idle.get(vm.number, 0)
        self._idle[vm.number] = idle
        return Lookout(
            vm=vm.name,
            memory=vm.config.platform.memory_bytes // PAGE_SIZE,
            idle=min(1.0, max(0.0, waited / (cycles * vcpus))),
        )

    def _ask(self, vms: Sequence[Lookout]) -> Mapping[str, int]:
        names = {one.vm for one in vms}
        try:
            wanted = dict(self._policy.pages(vms))
            problem = _problem(wanted, names)
        except Exception as error:  # noqa: BLE001  a policy is the user's code: it can raise anything
            problem = f"raised {type(error).__name__}: {error}"
        if not problem:
            return wanted
        if not self._has_warned:
            self._has_warned = True
            self._warn(
                f"content policy {type(self._policy).__name__} {problem};"
                " InIdleTime takes over until its next turn"
            )
        return self._default.pages(vms)


#: Nobody has so many.
_PAGES_MAX = 1 << 32


def _problem(wanted: Mapping[str, int], names: set[str]) -> str:
    """What is wrong with a policy's answer; empty: nothing."""
    for vm, pages in wanted.items():
        if vm not in names:
            return f"named a VM {vm!r} that does not run"
        if not isinstance(pages, int) or not 0 <= pages < _PAGES_MAX:
            return f"wants to look at {pages!r} pages of VM '{vm}'; 0 or more are possible"
    return ""


def _interval(policy: ContentPolicy, machine: Machine) -> int:
    """Cycles between two turns of the policy."""
    seconds = getattr(policy, "interval_seconds", None)
    if not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise ConfigError(
            f"content policy {type(policy).__name__}: interval_seconds {seconds!r} asked;"
            " a number above 0 is possible"
        )
    return max(1, machine.cycles(seconds))
