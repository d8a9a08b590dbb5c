"""Who shares which CPUs: the policies that divide the machine.

A policy answers one question with a *plan*: a list of pools, each some CPUs and the vCPUs that share
them. What follows from a plan is the engine's business in every round: whose turn it is, who moves to
another CPU, who has to wait (`engine/resident/src/schedule.rs`). So a policy is asked seldom: when a VM
comes or goes, and every `interval_seconds` if the policy has such an attribute.

In a pool each VM has time by its weight, its vCPUs having equal parts. A vCPU stays on its CPU, then on
its node, as long as that costs nobody more than a turn. One that waits makes way at once.

Sources: SOSP'97, section 4.2.2: vCPUs are time-shared on the CPUs, with affinity. Gangs are those of
Ousterhout: Scheduling techniques for concurrent systems (ICDCS'82).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Protocol

from disco.errors import ConfigError
from disco.hardware.machine import Machine

#: Long enough that filling the TLB again costs little, short enough that a second has many turns.
TIME_SLICE_MS = 2.0
#: What the engine takes.
WEIGHT_MAX = 10_000


@dataclass(frozen=True)
class Vcpu:
    """A vCPU as a policy sees it.

    Attributes:
        vm: name of its VM.
        index: which one in the VM, from 0.
        cpu: the CPU that it is on, or was on last; None: it is new.
        cycles_used: cycles in its life in guest user mode, guest kernel, and Disco on its behalf.
        cycles_waiting: cycles in its life in which it could have run and had no CPU.
    """

    vm: str
    index: int
    cpu: int | None
    cycles_used: int
    cycles_waiting: int


@dataclass(frozen=True)
class Load:
    """What there is to divide.

    Attributes:
        machine: its description: CPUs, and their nodes.
        vcpus: the vCPUs of all living VMs, VM by VM in the order of creation.
    """

    machine: Machine
    vcpus: tuple[Vcpu, ...]

    @property
    def cpus(self) -> range:
        """All CPUs."""
        return range(self.machine.cpus)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Some CPUs, and the vCPUs that share them.

    Attributes:
        cpus: numbers of the CPUs; each in one pool at most.
        vcpus: the vCPUs; each in exactly one pool.
        weights: by name of a VM; 1 for VMs that are not named.
        gang: the vCPUs of a VM that have something to do run together or not at all.
        time_slice_ms: length of a turn in simulated milliseconds, rounded up to whole rounds.
    """

    cpus: Sequence[int]
    vcpus: Sequence[Vcpu]
    weights: Mapping[str, int] = field(default_factory=dict)
    gang: bool = False
    time_slice_ms: float = TIME_SLICE_MS


class SchedulingPolicy(Protocol):
    """Divides the machine. Same loads, same plans: a policy with chance in it takes a seed.

    It may have an attribute `interval_seconds`: it is then asked again after that much simulated time,
    rounded up to a multiple of 20 rounds. A `ConfigError` that it raises when a VM is made refuses that
    VM. Whatever else it raises, or a plan that cannot be, is said once, and `TimeSharing` takes over
    until its next plan.
    """

    def plan(self, load: Load) -> Iterable[Pool]:
        """The pools."""


class TimeSharing:
    """All vCPUs share all CPUs. The default."""

    def __init__(
        self, *, weights: Mapping[str, int] | None = None, time_slice_ms: float = TIME_SLICE_MS
    ) -> None:
        """Args:
            weights: by name of a VM; 1 for VMs that are not named.
            time_slice_ms: length of a turn in simulated milliseconds.

        Raises:
            ConfigError: no such weight or time slice is possible.
        """
        self._weights = _checked_weights(weights)
        self._time_slice_ms = _checked_slice(time_slice_ms)

    def plan(self, load: Load) -> Iterable[Pool]:
        return [self._pool(load.cpus, load.vcpus)]

    def _pool(self, cpus: Sequence[int], vcpus: Sequence[Vcpu], *, gang: bool = False) -> Pool:
        return Pool(
            cpus=cpus,
            vcpus=vcpus,
            weights=self._weights,
            gang=gang,
            time_slice_ms=self._time_slice_ms,
        )


class Gang(TimeSharing):
    """As `TimeSharing`, and the vCPUs of a VM have their turns together.

    So no vCPU spins for a lock whose holder is on no CPU. In exchange a CPU can stand idle for which no
    whole gang is left.
    """

    def plan(self, load: Load) -> Iterable[Pool]:
        for vm, vcpus in _by_vm(load).items():
            if len(vcpus) > len(load.cpus):
                raise ConfigError(
                    f"VM '{vm}': a gang of {len(vcpus)} vCPUs asked; up to {len(load.cpus)}, as many"
                    " as the machine has CPUs, are possible"
                )
        return [self._pool(load.cpus, load.vcpus, gang=True)]


class Pinned(TimeSharing):
    """Each vCPU has one CPU and stays there; those of one CPU share it."""

    def __init__(
        self,
        cpus: Mapping[str, int | Sequence[int]] | None = None,
        *,
        weights: Mapping[str, int] | None = None,
        time_slice_ms: float = TIME_SLICE_MS,
    ) -> None:
        """Args:
            cpus: by name of a VM, the CPU of vCPU 0, 1, ...; a list that is too short starts again.
                vCPUs of other VMs get the CPU that has fewest.
            weights, time_slice_ms: as for `TimeSharing`.

        Raises:
            ConfigError: a list is empty, or no such weight or time slice is possible.
        """
        super().__init__(weights=weights, time_slice_ms=time_slice_ms)
        self._cpus = {
            vm: (chosen,) if isinstance(chosen, int) else tuple(chosen)
            for vm, chosen in (cpus or {}).items()
        }
        for vm, chosen in self._cpus.items():
            if not chosen:
                raise ConfigError(f"pins: no CPU for VM '{vm}'; one and more are possible")
        self._dealt: dict[tuple[str, int], int] = {}

    def plan(self, load: Load) -> Iterable[Pool]:
        for vm, chosen in self._cpus.items():
            for cpu in chosen:
                if cpu not in load.cpus:
                    raise ConfigError(
                        f"pins: CPU {cpu} for VM '{vm}' asked; 0 to {load.cpus[-1]} are possible"
                    )
        queues: dict[int, list[Vcpu]] = {cpu: [] for cpu in load.cpus}
        new = []
        for vcpu in load.vcpus:
            known = self._known(vcpu)
            if known is None:
                new.append(vcpu)
            else:
                queues[known].append(vcpu)
        for vcpu in new:
            emptiest = min(queues, key=lambda cpu: len(queues[cpu]))
            self._dealt[vcpu.vm, vcpu.index] = emptiest
            queues[emptiest].append(vcpu)
        return [self._pool((cpu,), queue) for cpu, queue in queues.items()]

    def _known(self, vcpu: Vcpu) -> int | None:
        chosen = self._cpus.get(vcpu.vm)
        if chosen is not None:
            return chosen[vcpu.index % len(chosen)]
        return self._dealt.get((vcpu.vm, vcpu.index))


def _by_vm(load: Load) -> dict[str, list[Vcpu]]:
    vms: dict[str, list[Vcpu]] = {}
    for vcpu in load.vcpus:
        vms.setdefault(vcpu.vm, []).append(vcpu)
    return vms


def _checked_weights(weights: Mapping[str, int] | None) -> dict[str, int]:
    for vm, weight in (weights or {}).items():
        if not isinstance(weight, int) or not 1 <= weight <= WEIGHT_MAX:
            raise ConfigError(
                f"weight of VM '{vm}': {weight} asked; whole numbers from 1 to {WEIGHT_MAX} are possible"
            )
    return dict(weights or {})


def _checked_slice(time_slice_ms: float) -> float:
    if not (isfinite(time_slice_ms) and 0 < time_slice_ms <= 1_000_000):
        raise ConfigError(
            f"time slice: {time_slice_ms} ms asked; more than 0 and up to 1,000,000 ms are possible"
        )
    return time_slice_ms
