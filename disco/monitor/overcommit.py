"""VMs with more memory together than the machine has: who gives some back, and what happens when nobody can.

A VM of such a machine has a balloon (`disco/devices/virtio/balloon.py`). Memory that its kernel has no use
for comes back by free-page reporting, without anybody asking. What the kernel keeps, its page cache for the
most part, comes back when the policy asks for a larger balloon.

Free machine pages have three marks:

    3 eighths  above it, balloons may shrink again
    2 eighths  below it, the policy makes balloons grow; growing takes its time, and some memory at first
    a 64th     below it, page faults of VMs have to wait: the rest is for their devices, which cannot, and
               half of it for VMs that have been asked to give more than they have

A VM that has to wait tries again every 10 ms of simulated time. It is stopped with `MemoryExhausted` when
it has waited too long, or when no other VM has anything to give; the others go on.

A policy is a guest in this house: if it raises, or its answer is none, that is said once, `IdleFirst` takes
over until its next turn, and the machine goes on.

Source: Waldspurger, Memory Resource Management in VMware ESX Server (OSDI'02), for the idea that idle
memory weighs more than shares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from disco._engine import Engine
from disco.errors import ConfigError, MemoryExhausted
from disco.guests.platform import PAGE_SIZE
from disco.hardware.machine import Machine
from disco.monitor.placement import Fault

if TYPE_CHECKING:
    from disco.monitor.vm import VirtualMachine

#: How long a VM waits for a page, and how often it tries, in simulated seconds.
PATIENCE_SECONDS = 10.0
RETRY_SECONDS = 0.01


@dataclass(frozen=True)
class Tenant:
    """A VM with a balloon that its kernel serves. All sizes are in pages of 4 KiB.

    Attributes:
        vm: its name.
        memory: as it was asked for.
        resident: that have a machine page.
        balloon: that are in its balloon.
        idle: resident ones that its kernel could do without, as it says: free ones, and cached ones that it
            can read again.
    """

    vm: str
    memory: int
    resident: int
    balloon: int
    idle: int


@dataclass(frozen=True)
class Demand:
    """Machine memory at one moment, in pages of 4 KiB.

    Attributes:
        free: that nobody has.
        low, high: below `low` balloons have to grow; above `high` they may shrink.
        waiting: names of VMs that wait for a page.
        tenants: who can be asked, in the order of creation.
    """

    free: int
    low: int
    high: int
    waiting: tuple[str, ...]
    tenants: tuple[Tenant, ...]


class OvercommitPolicy(Protocol):
    """Says how large balloons should be. Same demands, same answers.

    Attributes:
        interval_seconds: simulated time between two answers, above 0.
    """

    interval_seconds: float

    def balloons(self, demand: Demand) -> Mapping[str, int]:
        """Pages in the balloon of each VM by name; a VM that is not named keeps what it has."""


class IdleFirst:
    """Who has idle memory gives it up, each in proportion to what it has of it; nobody gives up what it uses.

    A kernel puts into its balloon first what is free, and that has no machine page as a rule, since it has been
    reported. So a balloon is to be larger than that by what it is to give.

    When there is memory again, balloons shrink in proportion to what is in them.
    """

    def __init__(
        self,
        *,
        shares: Mapping[str, float] | None = None,
        interval_seconds: float = 0.1,
        step_mib: int = 32,
        spare_mib: int = 8,
    ) -> None:
        """`shares` weigh VMs against each other: with twice the shares, half as much of the idle memory counts.

        Args:
            shares: by name; 1 if not named.
            step_mib: that all balloons together change by in an interval, at most.
            spare_mib: idle memory that every VM keeps.

        Raises:
            ConfigError: a number is not above 0.
        """
        shares = dict(shares or {})
        numbers = {"interval_seconds": interval_seconds, "step_mib": step_mib, **shares}
        for name, number in numbers.items():
            if not 0 < number < float("inf"):
                raise ConfigError(f"overcommit: {name} {number!r} asked; above 0 is possible")
        if spare_mib < 0:
            raise ConfigError(f"overcommit: spare_mib {spare_mib} asked; 0 or more are possible")
        self.interval_seconds = interval_seconds
        self._shares = shares
        self._step = (step_mib << 20) // PAGE_SIZE
        self._spare = (spare_mib << 20) // PAGE_SIZE

    def balloons(self, demand: Demand) -> Mapping[str, int]:
        if demand.free < demand.low:
            return self._grow(demand.tenants, min(demand.low - demand.free, self._step))
        if demand.free > demand.high:
            return self._shrink(demand.tenants, min(demand.free - demand.high, self._step))
        return {}

    def _grow(self, tenants: Sequence[Tenant], pages: int) -> dict[str, int]:
        spare = {one.vm: max(0, one.idle - self._spare) for one in tenants}
        weights = {vm: pages / self._shares.get(vm, 1) for vm, pages in spare.items()}
        whole = sum(weights.values())
        if not whole:
            return {}
        given = {vm: min(int(pages * weights[vm] / whole), spare[vm]) for vm in spare}
        return {
            one.vm: one.memory - one.resident + given[one.vm] for one in tenants if given[one.vm]
        }

    def _shrink(self, tenants: Sequence[Tenant], pages: int) -> dict[str, int]:
        whole = sum(one.balloon for one in tenants)
        kept = max(0, whole - pages) / max(whole, 1)
        return {one.vm: int(one.balloon * kept) for one in tenants if one.balloon}


class Overcommit:
    """Asks the policy, tells the balloons, and lets VMs wait."""

    def __init__(
        self,
        engine: Engine,
        machine: Machine,
        policy: OvercommitPolicy,
        warn: Callable[[str], None],
        reclaim: Callable[[int], bool],
    ) -> None:
        """`reclaim` frees pages of a node that nobody needs; False: there are none.

        Raises:
            ConfigError: the policy has an interval that cannot be.
        """
        pages = machine.memory_bytes // PAGE_SIZE
        self._engine = engine
        self._machine = machine
        self._policy = policy
        self._default = IdleFirst()
        self._warn = warn
        self._reclaim = reclaim
        self._has_warned = False
        self._high, self._low, self._floor = 3 * pages // 8, pages // 4, pages // 64
        self._interval_cycles = _interval(policy, machine)
        self._next = self._interval_cycles
        #: Since when which VMs wait, by their numbers.
        self._waiting: dict[int, int] = {}

    def tick(self, vms: Sequence[VirtualMachine]) -> list[tuple[VirtualMachine, int | None]]:
        """What has to be done now: VMs with the pages that their balloons should have, None if they are
        only to be asked how they are. Between two turns of the policy there is nothing."""
        if self._engine.now < self._next:
            return []
        self._next = (self._engine.now // self._interval_cycles + 1) * self._interval_cycles
        able = [vm for vm in vms if vm.board.balloon is not None and vm.board.balloon.has_driver]
        wanted = self._ask(self._demand(vms, able))
        return [(vm, wanted.get(vm.name)) for vm in able]

    def has_room(self, vm: VirtualMachine) -> bool:
        """Whether a page fault of the VM can be answered, once what nobody needs has been freed."""
        balloon = vm.board.balloon
        is_giving = balloon is not None and balloon.actual_pages < balloon.target_pages
        while self._free() <= (self._floor // 2 if is_giving else self._floor):
            if not any(self._reclaim(node) for node in range(self._machine.nodes)):
                return False
        return True

    def postpone(self, vm: VirtualMachine, fault: Fault, others: Sequence[VirtualMachine]) -> None:
        """Lets a vCPU wait for a page.

        Raises:
            MemoryExhausted: it has waited too long, or there is nobody to wait for.
        """
        now = self._engine.now
        since = self._waiting.setdefault(vm.number, now)
        waited = (now - since) / self._machine.clock_hz
        mib = self._machine.memory_bytes >> 20
        if not any(other is not vm and _can_give(other) for other in others):
            raise MemoryExhausted(
                f"physical page {fault.ppn:#x}: a machine page asked; all {mib} MiB of the machine are"
                " in use, and no other VM can give some back"
            )
        if waited >= PATIENCE_SECONDS:
            raise MemoryExhausted(
                f"physical page {fault.ppn:#x}: a machine page asked; all {mib} MiB of the machine are"
                f" in use, and other VMs have given none back for {waited:.0f} s"
            )
        self._engine.postpone_fault(fault.vm, fault.vcpu, now + self._machine.cycles(RETRY_SECONDS))

    def served(self, vm: int) -> None:
        """The VM has got a page, or has gone."""
        self._waiting.pop(vm, None)

    def _free(self) -> int:
        return sum(self._engine.free_pages(node) for node in range(self._machine.nodes))

    def _demand(self, vms: Sequence[VirtualMachine], able: Sequence[VirtualMachine]) -> Demand:
        return Demand(
            free=self._free(),
            low=self._low,
            high=self._high,
            waiting=tuple(vm.name for vm in vms if vm.number in self._waiting),
            tenants=tuple(self._tenant(vm) for vm in able),
        )

    def _tenant(self, vm: VirtualMachine) -> Tenant:
        balloon = vm.board.balloon
        assert balloon is not None, "a tenant has a balloon"
        memory = vm.config.platform.memory_bytes // PAGE_SIZE
        resident = sum(self._engine.pages_by_node(vm.number))
        said = balloon.statistics
        idle = said.get("available_bytes", said.get("free_bytes", 0)) // PAGE_SIZE
        return Tenant(
            vm=vm.name,
            memory=memory,
            resident=resident,
            balloon=min(balloon.actual_pages, memory),
            # What is free but has no machine page gives nothing.
            idle=max(0, min(idle, memory) - max(0, memory - balloon.actual_pages - resident)),
        )

    def _ask(self, demand: Demand) -> Mapping[str, int]:
        memory = {one.vm: one.memory for one in demand.tenants}
        try:
            wanted = dict(self._policy.balloons(demand))
            problem = _problem(wanted, memory)
        except Exception as error:  # noqa: BLE001  a policy is the user's code: it can raise anything
            problem = f"raised {type(error).__name__}: {error}"
        if not problem:
            return wanted
        if not self._has_warned:
            self._has_warned = True
            self._warn(
                f"overcommit policy {type(self._policy).__name__} {problem};"
                " IdleFirst takes over until its next turn"
            )
        return self._default.balloons(demand)


def _can_give(vm: VirtualMachine) -> bool:
    return vm.is_running and vm.board.balloon is not None and vm.board.balloon.has_driver


def _problem(wanted: Mapping[str, int], memory: Mapping[str, int]) -> str:
    """What is wrong with a policy's answer; empty: nothing."""
    for vm, pages in wanted.items():
        if vm not in memory:
            return f"named a VM {vm!r} that has no balloon"
        if not isinstance(pages, int) or not 0 <= pages <= memory[vm]:
            return f"wants {pages!r} pages of VM '{vm}'; 0 to {memory[vm]} are possible"
    return ""


def _interval(policy: OvercommitPolicy, machine: Machine) -> int:
    """Cycles between two turns of the policy."""
    seconds = getattr(policy, "interval_seconds", None)
    if not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise ConfigError(
            f"overcommit policy {type(policy).__name__}: interval_seconds {seconds!r} asked;"
            " a number above 0 is possible"
        )
    return max(1, machine.cycles(seconds))
