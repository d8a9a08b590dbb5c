"""The simulated ccNUMA multiprocessor, as a frozen description.

    node 0 [CPU 0, CPU 4, memory] = node 1 [CPU 1, CPU 5, memory] = node 2 ... = node 0 (a ring)

CPUs are dealt out to the nodes in turn, so that the first few VMs, which get the first few CPUs, start
on different nodes. A node without a CPU is possible and has only memory. The ring gives "nearest" a
meaning; latencies do not depend on it yet.

Source: the FLASH machine of the paper (SOSP'97, section 4): each node holds processors and memory.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

from disco.errors import ConfigError
from disco.hardware import costs as cost_table

#: Nodes and CPUs as the engine takes them.
NODES_MAX = 64
CPUS_MAX = 128
MEMORY_MIB_PER_NODE_MAX = 64 * 1024
CLOCK_MHZ_MAX = 10_000
#: Config1.MMUSize has six bits.
TLB_ENTRIES_MAX = 64
#: An instruction and what it loads or stores need an entry each; with fewer than these, guests would crawl.
TLB_ENTRIES_MIN = 8
#: One set: the second-level TLB has four ways.
L2TLB_ENTRIES_MIN = 4
L2TLB_ENTRIES_MAX = 1 << 20
QUANTUM_CYCLES_MIN = 1_000
QUANTUM_CYCLES_MAX = 100_000_000
HOST_THREADS_MAX = 256
ENGINES = ("interpreter", "translator")
#: The translator makes code for this kind of host only.
DEFAULT_ENGINE = "translator" if platform.machine() == "x86_64" else "interpreter"


def _host_cores() -> int:
    return min(len(os.sched_getaffinity(0)), HOST_THREADS_MAX)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What to simulate. Equal descriptions give equal runs.

    Attributes:
        nodes: nodes, each with memory.
        cpus: CPUs of the whole machine; CPU number i is on node i modulo `nodes`.
        memory_mib_per_node: memory of a node in MiB.
        clock_mhz: clock of all CPUs; simulated seconds follow from it.
        tlb_entries: dual-page entries in the TLB of a CPU.
        l2tlb_entries: entries in the second-level TLB of a vCPU, a power of two from 4; 0 switches
            it off.
        large_pages: whether VMs get their memory by blocks of 1 MiB that lie in one piece, and Disco maps
            those by entries of 64 KiB and 1 MiB pages where a guest maps as much at once. The 1997
            system had pairs of 4 KiB pages only.
        quantum_cycles: length of a round: CPUs take turns, and the monitor decides, this often; up to
            sixteen times as long while each vCPU has a CPU to itself and nothing happens.
        seed: of everything random: guests' entropy, device data.
        host_threads: host threads that simulate CPUs, if there are as many CPUs; by default as many
            as the host has cores for this process. Of several, one that is idle makes host code of
            guest code. Never changes a result.
        engine: "translator" (guest code becomes host code; the default on x86-64 hosts) or
            "interpreter". Never changes a result.
        costs: cycles by action of the monitor; rows left out keep their default.

    Raises:
        ConfigError: no machine can have this.
    """

    nodes: int = 4
    cpus: int = 4
    memory_mib_per_node: int = 128
    clock_mhz: int = 200
    tlb_entries: int = 64
    l2tlb_entries: int = 16384
    large_pages: bool = True
    quantum_cycles: int = 100_000
    seed: int = 0
    host_threads: int = field(default_factory=_host_cores, compare=False)
    engine: str = field(default=DEFAULT_ENGINE, compare=False)
    costs: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("nodes", self.nodes, 1, NODES_MAX)
        _check("CPUs", self.cpus, 1, CPUS_MAX)
        _check("MiB of memory a node", self.memory_mib_per_node, 1, MEMORY_MIB_PER_NODE_MAX)
        _check("MHz of clock", self.clock_mhz, 1, CLOCK_MHZ_MAX)
        _check("TLB entries", self.tlb_entries, TLB_ENTRIES_MIN, TLB_ENTRIES_MAX)
        _check("cycles of quantum", self.quantum_cycles, QUANTUM_CYCLES_MIN, QUANTUM_CYCLES_MAX)
        _check("seed", self.seed, 0, 2**64 - 1)
        _check("host threads", self.host_threads, 1, HOST_THREADS_MAX)
        _check_l2tlb(self.l2tlb_entries)
        if self.engine not in ENGINES:
            raise ConfigError(
                f"machine: engine '{self.engine}' asked; {' and '.join(ENGINES)} are possible"
            )
        object.__setattr__(self, "costs", cost_table.complete(self.costs))

    @property
    def clock_hz(self) -> int:
        """Cycles of a simulated second."""
        return self.clock_mhz * 1_000_000

    @property
    def memory_bytes(self) -> int:
        """Memory of all nodes together."""
        return self.nodes * self.memory_bytes_per_node

    @property
    def memory_bytes_per_node(self) -> int:
        """Memory of one node in bytes."""
        return self.memory_mib_per_node << 20

    @property
    def node_of_cpu(self) -> tuple[int, ...]:
        """The node of each CPU, by CPU number."""
        return tuple(cpu % self.nodes for cpu in range(self.cpus))

    def nodes_by_distance(self, node: int) -> tuple[int, ...]:
        """All nodes, nearest to `node` first (itself); of two at equal distance the lower number."""

        def hops(other: int) -> int:
            return min((other - node) % self.nodes, (node - other) % self.nodes)

        return tuple(sorted(range(self.nodes), key=lambda other: (hops(other), other)))

    def cycles(self, seconds: float) -> int:
        """Simulated cycles in `seconds`."""
        return round(seconds * self.clock_hz)

    def __str__(self) -> str:
        return (
            f"{self.nodes} nodes, {self.cpus} CPUs at {self.clock_mhz} MHz,"
            f" {self.memory_bytes >> 20} MiB"
        )


def _check(what: str, asked: int, least: int, most: int) -> None:
    if not least <= asked <= most:
        raise ConfigError(f"machine: {asked} {what} asked; {least} to {most} are possible")


def _check_l2tlb(asked: int) -> None:
    is_power_of_two = asked > 0 and not asked & (asked - 1)
    if asked and not (is_power_of_two and L2TLB_ENTRIES_MIN <= asked <= L2TLB_ENTRIES_MAX):
        raise ConfigError(
            f"machine: {asked} second-level TLB entries asked; 0 (off) or a power of two from"
            f" {L2TLB_ENTRIES_MIN} to {L2TLB_ENTRIES_MAX} is possible"
        )
