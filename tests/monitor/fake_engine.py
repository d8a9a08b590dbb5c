"""An engine without a CPU: vCPUs that act out lists of actions.

The naive second opinion on what the monitor may expect of `disco._engine.Engine`: dictionaries for
tables, one round an action, and an assertion wherever the real engine would refuse a call.

    ("touch", ppn)            a store to a page of RAM
    ("load", paddr, size)     a load from a device register; `loads` collects what it reads
    ("store", paddr, size, value)
    ("work", cycles)          instructions that ask for nothing
    ("halt",)  ("die", cause) the vCPU stops
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

PAGE = 4096

#: Prepared behaviour by VM number, for engines made from now on.
scripts: dict[int, list[tuple[Any, ...]]] = {}

default_costs = {"trap": 24, "page_fault": 400}
pmap_dtype = {
    "names": ["mpn", "state", "writable", "overflowed"],
    "formats": ["<u4", "u1", "u1", "u1"],
    "offsets": [0, 4, 5, 6],
    "itemsize": 8,
}
memmap_dtype = {
    "names": ["ppn", "vm", "owner", "users"],
    "formats": ["<u4", "<u2", "u1", "u1"],
    "offsets": [0, 4, 6, 7],
    "itemsize": 8,
}
ABSENT, PRIVATE = 0, 2
NOBODY, GUEST = 0, 1


@dataclass
class PageFault:
    vm: int
    vcpu: int
    cpu: int
    node: int
    ppn: int
    store: bool
    protected: bool
    cycle: int


@dataclass
class DeviceAccess:
    vm: int
    vcpu: int
    paddr: int
    size: int
    store: bool
    value: int
    cycle: int


@dataclass
class PostedWrites:
    vm: int
    writes: list[tuple[int, int, int, int]]


@dataclass
class VcpuStopped:
    vm: int
    vcpu: int
    cause: str
    detail: str
    pc: int
    cycle: int


@dataclass
class Followed:
    vm: int
    vcpu: int
    steps: list[dict[str, Any]]


Event = PageFault | DeviceAccess | PostedWrites | VcpuStopped | Followed


@dataclass
class FakeVm:
    ram: list[tuple[int, int]]
    script: list[tuple[Any, ...]]
    pmap: np.ndarray[Any, Any]
    cpu: int = -1
    is_ready: bool = False
    is_waiting: bool = False
    instructions: int = 0
    windows: set[int] = field(default_factory=set)
    latched: dict[int, int] = field(default_factory=dict)
    posted: set[int] = field(default_factory=set)
    lines: dict[int, bool] = field(default_factory=dict)
    #: Line and bits, by the address that clears these.
    interrupts: dict[int, tuple[int, int]] = field(default_factory=dict)
    loads: list[int] = field(default_factory=list)


class Engine:
    """See the head of this file. One vCPU a VM."""

    def __init__(
        self,
        *,
        node_of_cpu: Sequence[int],
        nodes: int,
        memory_bytes_per_node: int,
        quantum_cycles: int,
        **_other: object,
    ) -> None:
        self.now = 0
        self.translation_seconds = 0.0
        self.vms: dict[int, FakeVm] = {}
        self._created = 0
        self.set_aside: list[tuple[int, int, int, int]] = []
        self._quantum = quantum_cycles
        self._node_of_cpu = node_of_cpu
        pages = memory_bytes_per_node // PAGE
        self._memmap = np.zeros(nodes * pages, dtype=np.dtype(memmap_dtype))  # type: ignore[call-overload]
        self._node = np.repeat(np.arange(nodes), pages)
        self._memory: dict[int, bytearray] = {}

    # -- virtual machines

    def create_vm(self, *, ram: Sequence[tuple[int, int]], vcpus: int) -> int:
        assert vcpus == 1
        rows = max(base + size for base, size in ram) // PAGE
        pmap = np.zeros(rows, dtype=np.dtype(pmap_dtype))  # type: ignore[call-overload]
        number = self._created
        self._created += 1
        self.vms[number] = FakeVm(ram=list(ram), script=list(scripts.get(number, ())), pmap=pmap)
        return number

    def destroy_vm(self, vm: int) -> None:
        for ppn in np.flatnonzero(self.vms[vm].pmap["state"] == PRIVATE):
            self._free(int(self.vms[vm].pmap["mpn"][ppn]))
        del self.vms[vm]

    def set_vcpu(self, vm: int, vcpu: int, *, pc: int, gpr: Mapping[int, int]) -> None:
        assert vcpu == 0
        assert all(0 <= value < 2**64 for value in (pc, *gpr.values()))
        guest = self.vms[vm]
        guest.is_ready = True
        if guest.is_waiting:  # a reset: its access never ends, the script goes on behind it
            guest.is_waiting = False
            guest.script.pop(0)

    def set_pools(self, pools: Sequence[tuple[Any, ...]]) -> None:
        """Each vCPU gets the CPU of its pool that has fewest, and keeps it."""
        for cpus, vcpus, _gang, _slice_cycles in pools:
            for vm, _vcpu, _weight in vcpus:
                if self.vms[vm].cpu < 0:
                    taken = [guest.cpu for guest in self.vms.values()]
                    self.vms[vm].cpu = min(cpus, key=taken.count)

    def cpu_of(self, vm: int, vcpu: int) -> int:
        return self.vms[vm].cpu

    def vcpu_registers(self, vm: int, vcpu: int) -> dict[str, int]:
        return {"pc": 0xFFFF_FFFF_8000_0000 + self.vms[vm].instructions}

    # -- devices

    def add_window(self, vm: int, paddr: int, size: int) -> None:
        assert size == PAGE
        assert paddr % PAGE == 0
        self.vms[vm].windows.add(paddr)

    def latch(self, vm: int, paddr: int, size: int, value: int) -> None:
        self.vms[vm].latched[paddr] = value

    def post(self, vm: int, paddr: int, size: int) -> None:
        self.vms[vm].posted.add(paddr)

    def trap(self, vm: int, paddr: int, size: int) -> None:
        self.vms[vm].latched.pop(paddr, None)
        self.vms[vm].posted.discard(paddr)

    def complete_access(self, vm: int, vcpu: int, value: int) -> None:
        guest = self.vms[vm]
        assert guest.is_waiting
        if guest.script.pop(0)[0] == "load":
            guest.loads.append(value)
        guest.is_waiting = False

    def connect_interrupt(self, vm: int, status: int, clear: int, line: int) -> None:
        self.vms[vm].interrupts[clear] = (line, 0)

    def update_interrupt(self, vm: int, clear: int, cleared: int, raised: int) -> int:
        line, bits = self.vms[vm].interrupts[clear]
        self.vms[vm].interrupts[clear] = (line, bits & ~cleared | raised)
        levels = [bits != 0 for other, bits in self.vms[vm].interrupts.values() if other == line]
        self.vms[vm].lines[line] = any(levels)
        return bits & ~cleared | raised

    def set_line(self, vm: int, vcpu: int, line: int, level: bool) -> None:
        self.vms[vm].lines[line] = level

    # -- memory

    def place_page(self, vm: int, ppn: int, node: int) -> int:
        guest = self.vms[vm]
        assert guest.pmap["state"][ppn] == ABSENT
        is_free = (self._memmap["owner"] == NOBODY) & (self._node == node)
        if not is_free.any():
            return -1
        mpn = int(np.flatnonzero(is_free)[0])
        self._memmap["owner"][mpn] = GUEST
        self._memory[mpn] = bytearray(PAGE)
        guest.pmap["mpn"][ppn] = mpn
        guest.pmap["state"][ppn] = PRIVATE
        guest.pmap["writable"][ppn] = 1
        return mpn

    def set_pages_aside(self, vm: int, cpu_node: int, node: int, count: int) -> None:
        """Only noted: a fake vCPU asks for each page."""
        self.set_aside.append((vm, cpu_node, node, count))

    def unmap_page(self, vm: int, ppn: int) -> None:
        row = self.vms[vm].pmap[ppn]
        assert row["state"] == PRIVATE
        self._free(int(row["mpn"]))
        self.vms[vm].pmap["state"][ppn] = ABSENT

    def _free(self, mpn: int) -> None:
        self._memmap["owner"][mpn] = NOBODY
        del self._memory[mpn]

    def protect_page(self, vm: int, ppn: int, writable: bool) -> None:
        self.vms[vm].pmap["writable"][ppn] = writable

    def footprint(self, kernels: Mapping[int, int]) -> tuple[list[Any], list[Any], list[Any], int]:
        return [], [], [], 0

    def content_counts(self) -> dict[str, int]:
        return {}

    def is_shared(self, vm: int, ppn: int) -> bool:
        return False

    def unmap_all(self, vm: int) -> None:
        for ppn in np.flatnonzero(self.vms[vm].pmap["state"] == PRIVATE).tolist():
            self.unmap_page(vm, ppn)

    def pages_by_node(self, vm: int) -> list[int]:
        rows = self.vms[vm].pmap
        nodes = self._node[rows["mpn"][rows["state"] == PRIVATE]].tolist()
        return [nodes.count(node) for node in range(self._node[-1] + 1)]

    def table_pages_by_node(self, vm: int) -> list[int]:
        return [0] * (self._node[-1] + 1)

    def owned_pages_by_node(self, owner: int) -> list[int]:
        nodes = self._node[self._memmap["owner"] == owner].tolist()
        return [nodes.count(node) for node in range(self._node[-1] + 1)]

    def free_pages(self, node: int) -> int:
        return int(((self._memmap["owner"] == NOBODY) & (self._node == node)).sum())

    def _check_ram(self, vm: int, paddr: int, length: int) -> None:
        if not any(b <= paddr and paddr + length <= b + s for b, s in self.vms[vm].ram):
            raise IndexError(paddr, length)

    def read_physical(self, vm: int, paddr: int, length: int) -> bytes:
        self._check_ram(vm, paddr, length)
        return bytes(self._byte(vm, paddr + index) for index in range(length))

    def _byte(self, vm: int, paddr: int) -> int:
        row = self.vms[vm].pmap[paddr // PAGE]
        return self._memory[int(row["mpn"])][paddr % PAGE] if row["state"] == PRIVATE else 0

    def write_pieces(self, vm: int, pieces: Sequence[tuple[int, bytes]]) -> None:
        rows = self.vms[vm].pmap
        in_the_way: set[int] = set()
        for paddr, data in pieces:
            self._check_ram(vm, paddr, len(data))
            pages = range(paddr // PAGE, -(-(paddr + len(data)) // PAGE))
            in_the_way |= {ppn for ppn in pages if rows["state"][ppn] != PRIVATE}
        if in_the_way:
            raise KeyError(sorted(in_the_way))
        for paddr, data in pieces:
            for at, byte in enumerate(data, paddr):
                self._memory[int(rows["mpn"][at // PAGE])][at % PAGE] = byte

    def pmap(self, vm: int) -> memoryview:
        return memoryview(self.vms[vm].pmap.view(np.uint8))

    def memmap(self) -> memoryview:
        return memoryview(self._memmap.view(np.uint8))

    # -- running

    def run(self, until: int) -> list[Event]:
        while self.now < until and self.next_event() is not None:
            self.now += self._quantum
            log: list[Event] = []
            events: list[Event] = []
            for number, guest in self.vms.items():
                assert not guest.is_waiting, "an access was never completed"
                if guest.is_ready:
                    self._act(number, guest, log, events)
            if log or events:
                return log + events
        return []

    def _act(self, number: int, guest: FakeVm, log: list[Event], events: list[Event]) -> None:
        guest.instructions += 1
        kind, *rest = guest.script[0] if guest.script else ("halt",)
        match kind:
            case "touch" if guest.pmap["state"][rest[0]] == PRIVATE:
                guest.script.pop(0)
            case "touch":
                node = self._node_of_cpu[guest.cpu]
                events.append(PageFault(number, 0, guest.cpu, node, rest[0], True, False, self.now))
            case "load" if rest[0] in guest.latched:
                guest.loads.append(guest.latched[rest[0]])
                guest.script.pop(0)
            case "store" if rest[0] in guest.posted:
                log.append(PostedWrites(number, [(self.now, *rest)]))
                guest.script.pop(0)
            case "load" | "store":
                paddr, size, value = (*rest, 0)[:3]
                assert paddr & -PAGE in guest.windows
                guest.is_waiting = True
                is_store = kind == "store"
                events.append(DeviceAccess(number, 0, paddr, size, is_store, value, self.now))
            case "work":
                guest.instructions += rest[0]
                guest.script.pop(0)
            case _:
                guest.is_ready = False
                cause = "halted" if kind == "halt" else rest[0]
                events.append(VcpuStopped(number, 0, cause, "by the script", 0x80, self.now))

    def next_event(self) -> int | None:
        return self.now if any(guest.is_ready for guest in self.vms.values()) else None

    def counters(self, vm: int, vcpu: int) -> dict[str, int]:
        names = ("user", "kernel", "monitor", "waiting")
        zeros = {f"cycles_{name}": 0 for name in names}
        return {"instructions": self.vms[vm].instructions, **zeros}

    def services(self, vm: int) -> list[dict[str, Any]]:
        return []

    def follow(self, vm: int, kind: str) -> None:
        raise ValueError(f"nothing to follow: {kind}")
