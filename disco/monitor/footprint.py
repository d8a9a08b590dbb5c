"""What machine memory is used for, and who shares it: Figure 6 of the paper for the VMs that live.

    kernel_text    pages in the kernel's part of memory whose instructions a CPU has executed
    buffer_cache   pages that still hold what was read from a disk, on pages of the disk cache
    anonymous      everything else: data of kernel and programs, and what they have read in another way
    monitor        Disco's own text and tables

The *virtual* footprint is what VMs would need without sharing, the *machine* footprint what they have, each
machine page once. A VM's part of a shared page is the page divided by its users.

Source: Disco (SOSP'97) section 5.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from disco._engine import Engine
from disco.guests.platform import PAGE_SIZE
from disco.monitor.accounting import Owner

if TYPE_CHECKING:
    from disco.monitor.vm import VirtualMachine

USES = ("kernel_text", "buffer_cache", "anonymous", "monitor")


@dataclass(frozen=True)
class Part:
    """Memory of one VM of one use, in bytes.

    Attributes:
        virtual_bytes: as the guest counts it.
        shared_bytes: of these, on machine pages that have another user too.
        merged_bytes: of these, because they had the same content.
        machine_bytes: its part of machine memory.
    """

    virtual_bytes: int = 0
    shared_bytes: int = 0
    merged_bytes: int = 0
    machine_bytes: int = 0


@dataclass(frozen=True)
class Footprint:
    """Machine memory by use at one moment.

    Attributes:
        cycle: the moment, in simulated time.
        vms: for each VM by name, its parts by use.
        machine_bytes: of all of them together by use, each page once; a page that two VMs use in different
            ways counts for the first. Disco's own is that of the whole machine.
        common_bytes: what two VMs have in common, by their names.
        unused_cache_bytes: blocks in the disk cache that no VM maps.
    """

    cycle: int
    vms: Mapping[str, Mapping[str, Part]]
    machine_bytes: Mapping[str, int]
    common_bytes: Mapping[tuple[str, str], int]
    unused_cache_bytes: int

    @property
    def virtual_by_use(self) -> dict[str, int]:
        """The virtual footprint in bytes, by use. Disco's own is what it is."""
        own = {use: sum(vm[use].virtual_bytes for vm in self.vms.values()) for use in USES[:-1]}
        return {**own, "monitor": self.machine_bytes["monitor"]}

    @property
    def ratio(self) -> float:
        """Machine over virtual footprint; the paper has 0.49 for eight VMs."""
        return sum(self.machine_bytes.values()) / max(sum(self.virtual_by_use.values()), 1)

    def as_data(self) -> dict[str, Any]:
        """The same as JSON can have it."""
        return {
            "cycle": self.cycle,
            "vms": {
                name: {
                    use: {
                        "virtual_bytes": part.virtual_bytes,
                        "shared_bytes": part.shared_bytes,
                        "merged_bytes": part.merged_bytes,
                        "machine_bytes": part.machine_bytes,
                    }
                    for use, part in parts.items()
                }
                for name, parts in self.vms.items()
            },
            "virtual_bytes": self.virtual_by_use,
            "machine_bytes": dict(self.machine_bytes),
            "ratio": self.ratio,
            "common": [
                {"vms": list(names), "bytes": size} for names, size in self.common_bytes.items()
            ],
            "unused_cache_bytes": self.unused_cache_bytes,
        }


def footprint_of(engine: Engine, vms: Sequence[VirtualMachine]) -> Footprint:
    """The footprint of living VMs, now."""
    names = {vm.number: vm.name for vm in vms}
    kernels = {vm.number: -(-vm.kernel_end // PAGE_SIZE) for vm in vms}
    rows, machine, common, unused = engine.footprint(kernels)
    parts = {
        vm.name: {
            **dict.fromkeys(USES[:-1], Part()),
            "monitor": _own(sum(engine.table_pages_by_node(vm.number)) * PAGE_SIZE),
        }
        for vm in vms
    }
    for vm, use, pages, shared, merged, size in rows:
        parts[names[vm]][use] = Part(
            virtual_bytes=pages * PAGE_SIZE,
            shared_bytes=shared * PAGE_SIZE,
            merged_bytes=merged * PAGE_SIZE,
            machine_bytes=size,
        )
    return Footprint(
        cycle=engine.now,
        vms=parts,
        machine_bytes={
            **dict.fromkeys(USES[:-1], 0),
            **{use: pages * PAGE_SIZE for use, pages in machine},
            "monitor": sum(engine.owned_pages_by_node(Owner.MONITOR)) * PAGE_SIZE,
        },
        common_bytes={
            (names[one], names[other]): pages * PAGE_SIZE for one, other, pages in common
        },
        unused_cache_bytes=unused * PAGE_SIZE,
    )


def _own(size: int) -> Part:
    return Part(virtual_bytes=size, machine_bytes=size)
