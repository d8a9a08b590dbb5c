"""Where a page goes: the policies that answer a page fault with a node.

A policy states a wish. If the node it names is full, the page goes to the nearest node that has room;
only when every node is full has the machine run out of memory. So a policy need not look at free pages,
but it may.

Source: SOSP'97, section 4.2.3: allocate on the node whose processor touches the page first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from disco.errors import ConfigError
from disco.hardware.machine import Machine


class Fault(Protocol):
    """What is known of an access to a page that is not there. The engine's `PageFault` is one."""

    @property
    def vm(self) -> int:
        """Number of the VM, from 0 in the order of creation."""

    @property
    def vcpu(self) -> int:
        """Index of the vCPU that touched the page; a device's access counts for vCPU 0."""

    @property
    def node(self) -> int:
        """Node of the CPU that the vCPU runs on."""

    @property
    def ppn(self) -> int:
        """Physical page number."""

    @property
    def store(self) -> bool:
        """Whether the access was a store."""

    @property
    def cycle(self) -> int:
        """Simulated time."""


@dataclass(frozen=True)
class HostFault:
    """The fault that stands for an access by a device or by the loader of a kernel."""

    vm: int
    vcpu: int
    node: int
    ppn: int
    store: bool
    cycle: int


class MachineMemory(Protocol):
    """What a policy may look at."""

    @property
    def machine(self) -> Machine:
        """The machine's description."""

    def free_pages(self, node: int) -> int:
        """Machine pages of the node that nobody owns."""


class PlacementPolicy(Protocol):
    """Chooses a node for each new page. Same faults, same answers: a policy with chance in it
    takes a seed.

    A policy may have a second method, `always(vm, node)`: the node that it would choose for every fault
    of that VM on CPUs of `node`, or None. It is then asked once in a while instead of at each fault, and
    VMs do not wait for each other's faults.
    """

    def choose(self, fault: Fault, memory: MachineMemory) -> int:
        """The node on which the page should be."""


class FirstTouch:
    """The node of the CPU that touched the page first. The default."""

    def choose(self, fault: Fault, memory: MachineMemory) -> int:
        return fault.node

    def always(self, vm: int, node: int) -> int:
        """The node of the CPU, whatever is touched."""
        return node


class RoundRobin:
    """Each node in turn: no node is a bottleneck, most accesses are remote."""

    def __init__(self) -> None:
        self._turn = -1

    def choose(self, fault: Fault, memory: MachineMemory) -> int:
        self._turn = (self._turn + 1) % memory.machine.nodes
        return self._turn


class Fixed:
    """Always the same node."""

    def __init__(self, node: int) -> None:
        """Raises `ConfigError` if no machine has such a node."""
        if node < 0:
            raise ConfigError(f"placement: node {node} asked; nodes count from 0")
        self._node = node

    def choose(self, fault: Fault, memory: MachineMemory) -> int:
        return self._node

    def always(self, vm: int, node: int) -> int:
        """The same node, wherever the CPU is."""
        return self._node
