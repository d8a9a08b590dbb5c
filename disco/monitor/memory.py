"""Machine memory: finding a page for a VM, and the VM's memory as its devices and its loader see it."""

from __future__ import annotations

from collections.abc import Callable

from disco._engine import Engine
from disco.devices.bus import GuestMemoryError
from disco.errors import MemoryExhausted
from disco.guests.platform import PAGE_SIZE, Platform
from disco.hardware.machine import Machine
from disco.monitor.placement import Fault, FirstTouch, HostFault, PlacementPolicy

#: Bytes that are written at a time: after each page that has to be found first, all of them are tried again.
_PIECE_BYTES = 16 * PAGE_SIZE

#: Page faults that a policy answers at once if it always gives the same answer: 1 MiB.
PAGES_IN_ADVANCE = 256


class Pages:
    """Gives machine pages to VMs, on the node that the policy wishes or the nearest with room.

    A policy is a guest in this house: if it raises, or names a node that does not exist, that is said
    once, the page goes to the node of the fault, and the machine goes on.
    """

    def __init__(
        self,
        engine: Engine,
        machine: Machine,
        policy: PlacementPolicy,
        warn: Callable[[str], None],
    ) -> None:
        self.machine = machine
        self._engine = engine
        self._policy = policy
        self._default = FirstTouch()
        self._warn = warn
        self._has_warned = False
        #: Frees pages of a node that can be done without; False: there are none. The monitor sets it.
        self.reclaim: Callable[[int], bool] = lambda _node: False
        self._orders = [machine.nodes_by_distance(node) for node in range(machine.nodes)]

    def free_pages(self, node: int) -> int:
        """Machine pages of the node that nobody owns."""
        return self._engine.free_pages(node)

    def answer(self, fault: Fault) -> None:
        """Gives the VM the page that a vCPU waits for, and the next ones if the policy always answers so.

        Raises:
            MemoryExhausted: no node has a free page.
        """
        node = self.place(fault)
        if node == self._always(fault):
            self._engine.set_pages_aside(fault.vm, fault.node, node, PAGES_IN_ADVANCE)

    def place(self, fault: Fault) -> int:
        """Gives the VM a zeroed page at `fault.ppn`; returns its node.

        Raises:
            MemoryExhausted: no node has a free page.
        """
        return self._give(self._engine.place_page, fault)

    def unshare(self, fault: Fault) -> None:
        """Gives the VM a page of its own with the content of the shared one at `fault.ppn`.

        Raises:
            MemoryExhausted: no node has a free page.
        """
        self._give(self._engine.unshare_page, fault)

    def _give(self, give: Callable[[int, int, int], int], fault: Fault) -> int:
        """Asks for a page of each node in turn, and says which gave it; a full one gives up first what only the
        disk cache has."""
        for node in self._orders[self._choose(fault)]:
            while True:
                if give(fault.vm, fault.ppn, node) >= 0:
                    return node
                if not self.reclaim(node):
                    break
        raise MemoryExhausted(
            f"physical page {fault.ppn:#x}: a machine page asked;"
            f" all {self.machine.memory_bytes // PAGE_SIZE} of the machine are in use"
        )

    def _choose(self, fault: Fault) -> int:
        try:
            node = self._policy.choose(fault, self)
            if 0 <= node < self.machine.nodes:
                return node
            problem = f"chose node {node!r}; 0 to {self.machine.nodes - 1} exist"
        except Exception as error:  # noqa: BLE001  a policy is the user's code: it can raise anything
            problem = f"raised {type(error).__name__}: {error}"
        self._blame(problem)
        return self._default.choose(fault, self)

    def _always(self, fault: Fault) -> int | None:
        """The node that the policy chooses for every such fault, if it says so."""
        always = getattr(self._policy, "always", None)
        if always is None:
            return None
        try:
            node: int | None = always(fault.vm, fault.node)
        except Exception as error:  # noqa: BLE001  as above
            self._blame(f"raised {type(error).__name__}: {error}")
            return None
        return node

    def _blame(self, problem: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            self._warn(
                f"placement policy {type(self._policy).__name__} {problem};"
                " such pages go to the node of the fault"
            )


class VmMemory:
    """The physical memory of one VM as a device or loader sees it: a `GuestMemory`.

    A page that is written here for the first time is placed as if vCPU 0 had touched it.

    Attributes:
        vm: the VM's number.
        node: that of the CPU of vCPU 0.
    """

    def __init__(
        self, *, engine: Engine, pages: Pages, vm: int, node: int, platform: Platform
    ) -> None:
        self._engine = engine
        self._pages = pages
        self.vm = vm
        self.node = node
        self._ram = [(region.base, region.end) for region in platform.ram]

    def read(self, paddr: int, length: int) -> bytes:
        """Returns `length` bytes; absent pages read as zero. Raises `GuestMemoryError`."""
        self.check(paddr, length)
        return self._engine.read_physical(self.vm, paddr, length)

    def write(self, paddr: int, data: bytes) -> None:
        """Stores `data`, a few pages at a time. Raises `GuestMemoryError` and `MemoryExhausted`."""
        self.check(paddr, len(data))
        if len(data) <= _PIECE_BYTES:
            self._write_piece(paddr, data)
        else:
            for start in range(0, len(data), _PIECE_BYTES):
                self._write_piece(paddr + start, data[start : start + _PIECE_BYTES])

    def check(self, paddr: int, length: int) -> None:
        """Raises `GuestMemoryError` unless all of it is RAM."""
        for base, end in self._ram:
            if base <= paddr and paddr + length <= end and length >= 0:
                return
        raise GuestMemoryError(paddr=paddr, length=length)

    def _write_piece(self, paddr: int, data: bytes) -> None:
        while True:
            try:
                self._engine.write_physical(self.vm, paddr, data)
                return
            except KeyError as error:  # nothing was written; it names the first page in the way
                self._make_writable(error.args[0])

    def _make_writable(self, ppn: int) -> None:
        fault = HostFault(
            vm=self.vm, vcpu=0, node=self.node, ppn=ppn, store=True, cycle=self._engine.now
        )
        if self._engine.is_shared(self.vm, ppn):
            self._pages.unshare(fault)
        else:
            self._pages.place(fault)
