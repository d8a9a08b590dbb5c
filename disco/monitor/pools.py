"""Carries the plans of the scheduling policy to the engine.

A policy is a guest in this house: if it raises, or its plan cannot be, that is said once, `TimeSharing`
takes over until its next plan, and the machine goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from disco._engine import Engine
from disco.errors import ConfigError
from disco.hardware.machine import Machine
from disco.monitor.scheduling import Load, Pool, SchedulingPolicy, TimeSharing, Vcpu

#: Rounds whose multiples are the times at which Python looks up: a fraction of a second of host time.
SLICE_ROUNDS = 20


@dataclass(frozen=True)
class _Vm:
    name: str
    number: int
    vcpus: int
    is_new: bool


class Pools:
    """The living VMs, and how the policy divides the machine among them."""

    def __init__(
        self,
        engine: Engine,
        machine: Machine,
        policy: SchedulingPolicy,
        warn: Callable[[str], None],
    ) -> None:
        """Raises `ConfigError` if the policy has an interval that cannot be."""
        self._engine = engine
        self._machine = machine
        self._policy = policy
        self._default = TimeSharing()
        self._warn = warn
        self._has_warned = False
        self._vms: list[_Vm] = []
        self._interval_cycles = _interval(policy, machine)
        self._next = self._interval_cycles

    def add(self, name: str, number: int, vcpus: int) -> None:
        """Plans with one VM more.

        Raises:
            ConfigError: the policy refuses it. It is to be taken away from the engine, and nothing else.
        """
        before = self._vms
        self._vms = [*before, _Vm(name, number, vcpus, is_new=True)]
        try:
            self._plan(may_refuse=True)
        except ConfigError:
            self._vms = before
            raise
        self._vms[-1] = _Vm(name, number, vcpus, is_new=False)

    def remove(self, number: int) -> None:
        """Plans without a VM that the engine has forgotten."""
        self._vms = [vm for vm in self._vms if vm.number != number]
        if self._vms:
            self._plan()

    def tick(self) -> None:
        """Plans anew if the policy wants that, and it is time."""
        if self._interval_cycles and self._engine.now >= self._next:
            self._next = (self._engine.now // self._interval_cycles + 1) * self._interval_cycles
            if self._vms:
                self._plan()

    def _plan(self, *, may_refuse: bool = False) -> None:
        load = self._load()
        try:
            self._engine.set_pools(self._rows(self._policy.plan(load)))
            return
        except ConfigError as error:
            if may_refuse:
                raise
            problem = str(error)
        except Exception as error:  # noqa: BLE001  a policy is the user's code: it can raise anything
            problem = f"{type(error).__name__}: {error}"
        if not self._has_warned:
            self._has_warned = True
            self._warn(
                f"scheduling policy {type(self._policy).__name__}: {problem};"
                " time sharing takes over until its next plan"
            )
        self._engine.set_pools(self._rows(self._default.plan(load)))

    def _load(self) -> Load:
        vcpus = (self._vcpu(vm, index) for vm in self._vms for index in range(vm.vcpus))
        return Load(machine=self._machine, vcpus=tuple(vcpus))

    def _vcpu(self, vm: _Vm, index: int) -> Vcpu:
        counters = self._engine.counters(vm.number, index)
        return Vcpu(
            vm=vm.name,
            index=index,
            cpu=None if vm.is_new else self._engine.cpu_of(vm.number, index),
            cycles_used=sum(counters[f"cycles_{mode}"] for mode in ("user", "kernel", "monitor")),
            cycles_waiting=counters["cycles_waiting"],
        )

    def _rows(self, plan: Iterable[Pool]) -> list[tuple[Any, ...]]:
        """A plan as the engine takes it."""
        numbers = {vm.name: vm.number for vm in self._vms}
        return [
            (
                list(pool.cpus),
                [
                    (numbers[vcpu.vm], vcpu.index, pool.weights.get(vcpu.vm, 1))
                    for vcpu in pool.vcpus
                ],
                bool(pool.gang),
                self._machine.cycles(pool.time_slice_ms / 1000),
            )
            # One more than can be: each has a CPU of its own. A plan need not have an end.
            for pool in islice(plan, self._machine.cpus + 1)
        ]


def _interval(policy: SchedulingPolicy, machine: Machine) -> int:
    """Cycles between two plans; 0: only when VMs come and go."""
    seconds = getattr(policy, "interval_seconds", None)
    if seconds is None:
        return 0
    if not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
        raise ConfigError(
            f"scheduling policy {type(policy).__name__}: interval_seconds {seconds!r} asked;"
            " a number above 0, or None, is possible"
        )
    step = SLICE_ROUNDS * machine.quantum_cycles
    return -(-machine.cycles(seconds) // step) * step or step
