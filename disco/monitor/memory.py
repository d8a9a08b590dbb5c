"""Machine memory: finding a page for a VM, and the VM's memory as its devices and its loader see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from disco._engine import Chain, Engine, Rings
from disco.devices.bus import GuestMemory, GuestMemoryError, Range
from disco.errors import MemoryExhausted
from disco.guests.platform import PAGE_SIZE
from disco.hardware.machine import Machine
from disco.monitor.placement import Fault, FirstTouch, HostFault, PlacementPolicy

#: Page faults that a policy answers at once if it always gives the same answer: 1 MiB.
PAGES_IN_ADVANCE = 256

T = TypeVar("T")


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


class VmMemory(GuestMemory):
    """The physical memory of one VM as a device or loader sees it.

    A page that is written here for the first time is placed as if vCPU 0 had touched it.

    Attributes:
        vm: the VM's number.
        node: that of the CPU of vCPU 0.
    """

    def __init__(self, *, engine: Engine, pages: Pages, vm: int, node: int) -> None:
        self._engine = engine
        self._pages = pages
        self.vm = vm
        self.node = node

    def read(self, paddr: int, length: int) -> bytes:
        """Returns `length` bytes; absent pages read as zero. Raises `GuestMemoryError`."""
        try:
            return self._engine.read_physical(self.vm, paddr, length)
        except IndexError as error:
            raise _outside(error) from None

    def gather(self, ranges: Sequence[Range]) -> bytes:
        """As `read`, of all ranges."""
        try:
            return self._engine.gather(self.vm, ranges)
        except IndexError as error:
            raise _outside(error) from None

    def write(self, paddr: int, data: bytes) -> None:
        """Stores `data`. Raises `GuestMemoryError` and `MemoryExhausted`."""
        self.write_pieces([(paddr, data)])

    def write_pieces(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        """Stores all pieces or none. Raises `GuestMemoryError` and `MemoryExhausted`."""
        self._storing(lambda: self._engine.write_pieces(self.vm, pieces))

    def check(self, ranges: Sequence[Range]) -> None:
        """Raises `GuestMemoryError` if a range is not RAM."""
        try:
            self._engine.check_ram(self.vm, ranges)
        except IndexError as error:
            raise _outside(error) from None

    def copy_from(
        self,
        source: GuestMemory,
        ranges: Sequence[Range],
        target: Sequence[Range],
        *,
        remap: bool = False,
    ) -> tuple[int, int]:
        """In one call of the engine. Raises `GuestMemoryError` and `MemoryExhausted`."""
        if not isinstance(source, VmMemory):
            return super().copy_from(source, ranges, target, remap=remap)
        other = source.vm
        return self._storing(lambda: self._engine.transfer(other, ranges, self.vm, target, remap))

    def _storing(self, store: Callable[[], T]) -> T:
        """Does it, with the pages that are in the way made writable first."""
        while True:
            try:
                return store()
            except KeyError as error:  # nothing was written; it names the pages in the way
                for ppn in error.args[0]:
                    self._make_writable(ppn)
            except IndexError as error:
                raise _outside(error) from None

    def take_chains(self, rings: Rings, wanted: int) -> tuple[int, list[Chain]]:
        """In one call of the engine."""
        return self._engine.take_chains(self.vm, rings, wanted)

    def map_cached(self, target: Sequence[Range], pages: bytes) -> None:
        """Maps pages of the disk cache; see `Engine.map_cached`. Raises `GuestMemoryError`."""
        try:
            self._engine.map_cached(self.vm, target, pages)
        except IndexError as error:
            raise _outside(error) from None

    def discard(self, ranges: Sequence[Range]) -> int:
        """Takes whole pages away from the VM, for others to have. Raises `GuestMemoryError`."""
        try:
            return self._engine.discard(self.vm, list(ranges))
        except IndexError as error:
            raise _outside(error) from None

    def _make_writable(self, ppn: int) -> None:
        fault = HostFault(
            vm=self.vm, vcpu=0, node=self.node, ppn=ppn, store=True, cycle=self._engine.now
        )
        if self._engine.is_shared(self.vm, ppn):
            self._pages.unshare(fault)
        else:
            self._pages.place(fault)


def _outside(error: IndexError) -> GuestMemoryError:
    paddr, length = error.args
    return GuestMemoryError(paddr=paddr, length=length)
