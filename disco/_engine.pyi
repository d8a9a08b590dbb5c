"""The extension module: the simulated machine and the resident part of the monitor, in Rust.

Everything here converts and forwards; nothing here decides. The boundary carries arrays and events:
`Engine.run` goes on without the GIL until there is something to decide and returns it as a list.
All numbers are plain ints; addresses are bytes, page numbers count 4 KiB pages, times are cycles.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self, final

__all__ = [
    "BareCpu",
    "BareMachine",
    "Chain",
    "DeviceAccess",
    "Engine",
    "Event",
    "Followed",
    "InstructionRow",
    "PageFault",
    "Paused",
    "PostedWrites",
    "Rings",
    "VcpuStopped",
    "__version__",
    "assemble",
    "backmap_dtype",
    "build_profile",
    "cost_meanings",
    "default_costs",
    "disassemble",
    "instruction_rows",
    "memmap_dtype",
    "pmap_dtype",
    "take_chains",
]

__version__: str
#: "debug" or "release": how the loaded module was built.
build_profile: str

#: Names of the monitor's actions that cost cycles, with their default costs.
default_costs: dict[str, int]
#: What each of these actions is, in a sentence.
cost_meanings: dict[str, str]
#: NumPy dtype descriptions of the rows of the pmap, its backmaps and the memmap.
pmap_dtype: dict[str, Any]
backmap_dtype: dict[str, Any]
memmap_dtype: dict[str, Any]

@final
class PageFault:
    """A vCPU needs a page that its VM does not have, or may not write."""

    vm: int
    vcpu: int
    cpu: int
    #: Node of the CPU that faulted.
    node: int
    #: Physical page number.
    ppn: int
    #: Whether the access was a store.
    store: bool
    #: Whether the page is present but read-only (copy-on-write), instead of absent.
    protected: bool
    cycle: int

@final
class DeviceAccess:
    """A vCPU read or wrote a device register; it waits until `Engine.complete_access`."""

    vm: int
    vcpu: int
    paddr: int
    #: 1, 2, 4 or 8.
    size: int
    store: bool
    #: What is stored (0 for a load).
    value: int
    cycle: int

@final
class PostedWrites:
    """Stores to posted registers of one VM during the round, in order."""

    vm: int
    #: (cycle, paddr, size, value) of each store.
    writes: list[tuple[int, int, int, int]]

@final
class VcpuStopped:
    """A vCPU cannot go on; nothing of the VM runs any more."""

    vm: int
    vcpu: int
    #: "halted" (waits with all interrupts off: an orderly power-off of this platform),
    #: "no handler" (guest exception inside its own vector, for ever), "bad access" (an address outside of its
    #: physical memory), "unsupported" (an instruction that cannot be emulated).
    cause: str
    #: The cause with its values, for people.
    detail: str
    pc: int
    cycle: int

@final
class Paused:
    """A vCPU that somebody debugs has paused before the instruction at `pc`, until `Engine.go_on`."""

    vm: int
    vcpu: int
    #: "breakpoint" or "step".
    cause: str
    pc: int
    cycle: int

@final
class Followed:
    """A miss that `Engine.follow` waited for, complete.

    Each step is a dict with at least `kind`, `cycle`, `cycles` and the values of that step.
    """

    vm: int
    vcpu: int
    steps: list[dict[str, Any]]

Event = PageFault | DeviceAccess | PostedWrites | VcpuStopped | Paused | Followed

@final
class Engine:
    """The machine with Disco's resident part on it."""

    def __new__(
        cls,
        *,
        node_of_cpu: Sequence[int],
        nodes: int,
        memory_bytes_per_node: int,
        quantum_cycles: int,
        tlb_entries: int,
        l2tlb_entries: int,
        host_threads: int,
        costs: Mapping[str, int],
        interleave_cycles: int = 2000,
        large_pages: bool = True,
        engine: str = "translator",
    ) -> Self:
        """Raises ValueError naming what was asked and what is possible."""

    @property
    def translation_seconds(self) -> float:
        """Host time that the translators of all CPUs have spent so far; 0 with the interpreter."""

    @property
    def now(self) -> int:
        """Simulated time of the round boundary, in cycles."""

    # -- virtual machines -------------------------------------------------------------------
    def create_vm(self, *, ram: Sequence[tuple[int, int]], vcpus: int) -> int:
        """Makes a VM and returns its number. `ram` lists (paddr, bytes); pages there start absent.

        Physical pages outside of `ram` and of device windows do not exist for the guest.
        """
    def destroy_vm(self, vm: int) -> None:
        """Frees every machine page of the VM and forgets it."""
    def set_vcpu(self, vm: int, vcpu: int, *, pc: int, gpr: Mapping[int, int]) -> None:
        """Resets the vCPU and makes it ready to run at `pc` with these registers."""
    def set_pools(
        self,
        pools: Sequence[tuple[Sequence[int], Sequence[tuple[int, int, int]], bool, int]],
    ) -> None:
        """Divides the CPUs among the vCPUs, from the next round on.

        A pool is (CPUs, vCPUs, gang, cycles of a time slice), a vCPU is (VM, index, weight of its VM). Slices
        are rounded up to whole rounds. ValueError when a CPU or vCPU does not exist or is in two pools, a vCPU
        is in none, or a gang is larger than its pool; nothing has changed then.
        """
    def cpu_of(self, vm: int, vcpu: int) -> int | None:
        """The CPU that the vCPU is on, or was on last. None: it is in no pool."""
    def vcpu_registers(self, vm: int, vcpu: int) -> dict[str, int]:
        """pc, hi, lo, gpr 0-31 as "r0".."r31", and the virtual CP0 by manual name."""

    # -- devices ----------------------------------------------------------------------------
    def add_window(self, vm: int, paddr: int, size: int) -> None:
        """Declares whole pages as device registers: each access is a DeviceAccess event."""
    def latch(self, vm: int, paddr: int, size: int, value: int) -> None:
        """Loads of this register are answered with `value` without an event."""
    def post(self, vm: int, paddr: int, size: int) -> None:
        """Stores to this register are logged and delivered as PostedWrites at the boundary."""
    def trap(self, vm: int, paddr: int, size: int) -> None:
        """Loads and stores of this register are events again."""
    def connect_interrupt(self, vm: int, status: int, clear: int, line: int) -> None:
        """Loads at `status` return the bits of an interrupt, stores at `clear` clear them, 4 bytes each and
        without an event. The line (or source) is high while any interrupt on it has bits; nobody else drives
        it."""
    def update_interrupt(self, vm: int, clear: int, cleared: int, raised: int) -> int:
        """Clears bits of the interrupt with that `clear`, then sets some; what it has then."""
    def complete_access(self, vm: int, vcpu: int, value: int) -> None:
        """Ends the vCPU's DeviceAccess; `value` is what a load reads."""
    def postpone_fault(self, vm: int, vcpu: int, until: int) -> None:
        """Lets a vCPU that needs a page try again no earlier than at cycle `until`, and others have its CPU."""
    def set_line(self, vm: int, vcpu: int, line: int, level: bool) -> None:
        """Drives interrupt line `line` (2 to 6; Cause.IP bit) of the vCPU of a VM that has one."""
    def set_wire(self, vm: int, source: int, level: bool) -> None:
        """Drives source `source` (0 to 63) of the global interrupt controller of a VM with several vCPUs."""

    # -- memory -----------------------------------------------------------------------------
    def place_page(self, vm: int, ppn: int, node: int) -> int:
        """Takes a free page of the node, zeroed, and maps it private and writable. -1: the node is full."""
    def set_pages_aside(self, vm: int, cpu_node: int, node: int, count: int) -> None:
        """Answers the VM's faults on CPUs of `cpu_node` in advance, with up to `count` free pages of `node`."""
    def unmap_page(self, vm: int, ppn: int) -> None:
        """Takes the page away from the VM (TLB shootdown through memmap and backmaps) and frees it."""
    def discard(self, vm: int, ranges: Sequence[tuple[int, int]]) -> int:
        """Takes the whole pages in these ranges (address, bytes) away where the VM has them; how many.

        IndexError as for `read_physical`; nothing has changed then.
        """
    def unmap_all(self, vm: int) -> None:
        """Takes all pages away from the VM."""
    def protect_page(self, vm: int, ppn: int, writable: bool) -> None:
        """Changes whether the VM may write the page; takes write permission out of every TLB."""
    def move_page(self, vm: int, ppn: int, node: int) -> int:
        """Copies a private page to a free page of the node and redirects the VM to it. -1: the node is full."""
    def fill_cache(self, node: int, contents: bytes) -> list[int]:
        """Takes free pages of the node, as far as there are any, into the disk cache, filled with these."""
    def drop_cached(self, pages: Sequence[int]) -> None:
        """Takes machine pages out of the disk cache: free then, or their users' alone."""
    def differing(self, pages: Sequence[int], contents: Sequence[bytes]) -> list[int]:
        """Which of these machine pages of the disk cache have another content, as places in the list."""
    def map_cached(self, vm: int, target: Sequence[tuple[int, int]], pages: bytes) -> None:
        """Maps machine pages of the disk cache read-only as the VM's pages in these ranges, for what it had.

        `target` lists (paddr, bytes), whole aligned pages; `pages` are 32-bit numbers in the host's byte order,
        one for each. IndexError(paddr, bytes) when a range is not RAM, ValueError when a page is not in the
        cache; nothing has changed then.
        """
    def unshare_page(self, vm: int, ppn: int, node: int) -> int:
        """Gives the VM a writable page of its own with the content of a shared one. -1: the node is full."""
    def is_shared(self, vm: int, ppn: int) -> bool:
        """Whether the VM's page is shared, and so never writable."""
    def share_content(self, vm: int, count: int) -> None:
        """Looks at the VM's next `count` pages, not beyond its last one, and merges those that have been found
        equal to others. Only between rounds."""
    def content_counts(self) -> dict[str, int]:
        """What sharing by content has come to, in pages: "scanned", "hashed", "candidates", "compared",
        "merged", "merged_zero", "broken"."""
    def footprint(
        self, kernels: Mapping[int, int]
    ) -> tuple[
        list[tuple[int, str, int, int, int, int]],
        list[tuple[str, int]],
        list[tuple[int, int, int]],
        int,
    ]:
        """What the memory of these VMs is used for. `kernels` has for each the first page behind its kernel.

        Returns rows of (VM, use, pages, of these on machine pages with several users, of these because they
        had the same content, bytes of machine memory), of (use, machine pages), of (VM, other VM, machine pages
        that both have), and how many pages of the disk cache nobody maps. A shared page counts for each of its
        users in equal parts.
        """
    def free_pages(self, node: int) -> int: ...
    def pages_by_node(self, vm: int) -> list[int]:
        """Machine pages in the VM's pmap."""
    def table_pages_by_node(self, vm: int) -> list[int]:
        """Machine pages that hold the monitor's tables for the VM."""
    def owned_pages_by_node(self, owner: int) -> list[int]:
        """Machine pages whose rows in the memmap have this `owner`."""
    def node_of(self, mpn: int) -> int:
        """The node whose memory the page is. ValueError when there is no such page."""
    def read_physical(self, vm: int, paddr: int, length: int) -> bytes:
        """Reads guest memory; absent pages read as zero. IndexError(paddr, length) outside of the VM's RAM."""
    def gather(self, vm: int, ranges: Sequence[tuple[int, int]]) -> bytes:
        """Reads all of these (paddr, length), joined; otherwise as `read_physical`."""
    def write_pieces(self, vm: int, pieces: Sequence[tuple[int, bytes]]) -> None:
        """Writes all of these (paddr, data) to guest memory. IndexError(paddr, length) outside of RAM;
        KeyError(list of ppn) when pages are absent or not writable (place them and call again). Nothing was
        written then."""
    def check_ram(self, vm: int, ranges: Sequence[tuple[int, int]]) -> None:
        """IndexError(paddr, length) when one of these is not RAM of the VM."""
    def transfer(
        self,
        vm: int,
        source: Sequence[tuple[int, int]],
        to: int,
        target: Sequence[tuple[int, int]],
        remap: bool,
    ) -> tuple[int, int]:
        """Stores what a VM has at `source` at `target` of another, which is as long; both are (paddr, length).

        Where whole pages meet, `remap` maps the one of `vm` into both, read-only. Returns how many meet, and
        how many were mapped. IndexError and KeyError as `write_pieces`; nothing was written then.
        """
    def take_chains(self, vm: int, rings: Rings, wanted: int) -> tuple[int, list[Chain]]:
        """Takes up to `wanted` chains that the guest offers in a virtqueue; returns them behind the avail
        ring's flags. ValueError with the values for what section 2.7 of virtio forbids; nothing is taken then.
        """
    def pmap(self, vm: int) -> memoryview:
        """The VM's pmap, a row a physical page, shared without copy (dtype `pmap_dtype`)."""
    def backmaps(self, vm: int) -> memoryview:
        """The backmaps of the VM's pages, shared without copy (dtype `backmap_dtype`)."""
    def users(self, mpn: int) -> list[tuple[int, int]]:
        """The (VM, physical page) pairs that use a machine page. ValueError when there is no such page."""
    def memmap(self) -> memoryview:
        """The memmap, a row a machine page, shared without copy (dtype `memmap_dtype`)."""

    # -- running ----------------------------------------------------------------------------
    def run(self, until: int) -> list[Event]:
        """Runs rounds until there is something to decide or simulated time reaches `until`.

        Events come sorted by (cycle, CPU). An empty list means that `until` was reached, or that every
        vCPU waits for ever (then `now` is still below `until`; see `next_event`).
        """
    def next_event(self) -> int | None:
        """When a vCPU will be ready: now if one can run, its timer if all wait, None if none ever will."""
    def counters(self, vm: int, vcpu: int) -> dict[str, int]:
        """Everything counted for a vCPU, by name.

        The `cycles_monitor_*`, by cause, together are `cycles_monitor`.
        """
    def cpu_counters(self, cpu: int) -> dict[str, int]:
        """Instructions of a CPU, its clock as "now", and the parts of it, named as a vCPU's."""

    def record_services(self, vm: int) -> None:
        """Records from now on what the services of the VM's kernel cost. Changes no result."""
    def services(self, vm: int) -> list[dict[str, Any]]:
        """A row a service: `service`, `number`, `count`, `switched`, `interrupted`, `cycles`,
        `median_cycles`, `instructions`, `monitor` (cycles by cause). Empty if nobody records."""

    # -- looking ----------------------------------------------------------------------------
    def follow(self, vm: int, kind: str) -> None:
        """Records the next miss of this kind: "any", "l2tlb", "forwarded", "kernel", "page fault"."""
    def set_breakpoints(self, vm: int, addresses: Sequence[int]) -> None:
        """vCPUs of the VM pause before the instructions at these virtual addresses, and at no others."""
    def go_on(self, vm: int, *, vcpu: int = 0, steps: int | None = None) -> None:
        """Paused vCPUs of the VM go on; `vcpu` for so many instructions, if that is said."""
    def read_virtual(self, vm: int, vcpu: int, vaddr: int, length: int) -> bytes:
        """Reads through the guest's own translation, without side effects. ValueError where it has none."""

@final
class Rings:
    """Where the descriptor table and the avail ring of a virtqueue are, and how far its device has come."""

    def __new__(
        cls, *, size: int, indirect_max: int, descriptors: int, driver: int, avail_index: int
    ) -> Self:
        """`size` is a power of two; an indirect table has up to `indirect_max` entries, 0: there is none."""
    @property
    def avail_index(self) -> int:
        """The next entry of the avail ring, modulo 2**16."""
    def untake(self, count: int) -> None:
        """Puts the last `count` chains back."""

@final
class Chain:
    """One request of the guest: buffers that the device may read, then buffers that it may write."""

    head: int
    #: (paddr, length) of each buffer.
    readable: list[tuple[int, int]]
    writable: list[tuple[int, int]]
    readable_bytes: int
    writable_bytes: int

def take_chains(memory: Any, rings: Rings, wanted: int) -> tuple[int, list[Chain]]:
    """`Engine.take_chains` of any memory that has `read(paddr, length)`; what that raises is the cause."""

@final
class BareCpu:
    """One CPU on a machine of one node, without the monitor, for second opinions in tests."""

    def __new__(cls, *, memory_bytes: int) -> Self: ...
    def run(self, until: int) -> str:
        """Runs until `until` cycles: "until", "wait", or "bus" when nothing answers at an address."""
    @property
    def now(self) -> int: ...
    @property
    def instructions(self) -> int: ...
    pc: int
    #: 32 values; register 0 stays 0.
    gpr: list[int]
    fpr: list[int]
    hi: int
    lo: int
    fcsr: int
    @property
    def mode(self) -> str: ...
    def read_cp0(self, number: int, select: int) -> int: ...
    def write_cp0(self, number: int, select: int, value: int) -> None: ...
    def set_lines(self, lines: int) -> None: ...
    def read_memory(self, address: int, length: int) -> bytes: ...
    def write_memory(self, address: int, data: bytes) -> None: ...

@final
class InstructionRow:
    """A row of the instruction table; the words are those of its file, `table.rs`."""

    #: What a word of the row decodes to; "Reserved" and "Cop2" have several rows.
    op: str
    mnemonic: str
    #: 32 characters from bit 31 down, and spaces: 0 and 1 must match, letters are fields, - is ignored.
    pattern: str
    operands: str
    family: str
    flags: list[str]

def instruction_rows() -> list[InstructionRow]:
    """The instruction table, for tests that make programs from it."""

@final
class BareMachine:
    """CPUs with memory and devices, without the monitor. `vm` is always 0 and ignored; a vCPU is a CPU."""

    def __new__(
        cls,
        *,
        memory_bytes: int,
        cpus: int = 1,
        interleave_cycles: int = 2000,
        engine: str = "translator",
    ) -> Self:
        """Raises ValueError naming what was asked and what is possible."""
    @property
    def now(self) -> int:
        """Simulated time of the CPU that is furthest behind, in cycles."""
    def set_cpu(self, *, pc: int, gpr: Mapping[int, int]) -> None:
        """Where CPU 0 starts, and with which registers. It starts the others itself."""
    def add_window(self, vm: int, paddr: int, size: int) -> None: ...
    def latch(self, vm: int, paddr: int, size: int, value: int) -> None: ...
    def post(self, vm: int, paddr: int, size: int) -> None: ...
    def trap(self, vm: int, paddr: int, size: int) -> None: ...
    def connect_interrupt(self, vm: int, status: int, clear: int, line: int) -> None: ...
    def update_interrupt(self, vm: int, clear: int, cleared: int, raised: int) -> int: ...
    def set_line(self, vm: int, vcpu: int, line: int, level: bool) -> None:
        """ValueError on a machine of several CPUs, which have a global interrupt controller."""
    def set_wire(self, vm: int, source: int, level: bool) -> None:
        """ValueError on a machine of one CPU, which has no global interrupt controller."""
    def complete_access(self, vm: int, vcpu: int, value: int) -> None: ...
    def read_physical(self, vm: int, paddr: int, length: int) -> bytes: ...
    def write_physical(self, vm: int, paddr: int, data: bytes) -> None: ...
    def run(self, until: int) -> list[Event]:
        """Runs until CPUs access devices or power off, or time reaches `until`."""
    def next_event(self) -> int | None: ...
    def record_services(self) -> None: ...
    def services(self) -> list[dict[str, Any]]:
        """As `Engine.services`; `monitor` is empty."""
    def counters(self, cpu: int) -> dict[str, int]:
        """Instructions, cycles by mode, exceptions, device accesses. The cycles together are its clock."""

def assemble(source: str, base: int) -> bytes:
    """Assembles MIPS64 text at virtual address `base`. ValueError names the line."""

def disassemble(word: int, pc: int) -> str: ...
