"""Kernels: any little-endian MIPS executable, and where it and its companions go in memory.

A kernel is an ELF file, 32 or 64 bits, whose segments are linked to addresses that need no mapping:
KSEG0, KSEG1 or XKPHYS. The physical address follows from the virtual one; the `p_paddr` field is
no help, because MIPS linkers put the virtual address in it.

Everything in the file is a claim until checked, and each check that fails says which claim it was.

Source: System V ABI, MIPS RISC Processor Supplement; MIPS64 Architecture volume III, chapter 4.
Entry state: MIPS Unified Hosting Interface (UHI), "device tree" boot protocol.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from disco.errors import ImageError
from disco.guests import contents, devicetree
from disco.guests.platform import (
    PAGE_SIZE,
    RAM_HIGH_BASE,
    RAM_LOW_SIZE_MAX,
    Platform,
    Region,
)

_ELF_MAGIC = b"\x7fELF"
_LITTLE_ENDIAN = 1
_TYPE_EXECUTABLE = 2
_MACHINE_MIPS = 8
_SEGMENT_LOAD = 1
_IDENT_SIZE = 16


@dataclass(frozen=True)
class _Form:
    """How the two ELF classes lay out the same fields."""

    bits: int
    header: struct.Struct
    segment: struct.Struct
    segment_fields: tuple[str, ...]


_FORMS = {
    1: _Form(
        bits=32,
        header=struct.Struct("<16xHHIIIIIHHHHHH"),
        segment=struct.Struct("<IIIIIIII"),
        segment_fields=("type", "offset", "vaddr", "paddr", "file_size", "size", "flags", "align"),
    ),
    2: _Form(
        bits=64,
        header=struct.Struct("<16xHHIQQQIHHHHHH"),
        segment=struct.Struct("<IIQQQQQQ"),
        segment_fields=("type", "flags", "offset", "vaddr", "paddr", "file_size", "size", "align"),
    ),
}

KSEG0 = 0xFFFF_FFFF_8000_0000
_KSEG2 = 0xFFFF_FFFF_C000_0000
_XKPHYS = 0x8000_0000_0000_0000
_XKPHYS_END = 0xC000_0000_0000_0000
_XKPHYS_OFFSET_MASK = (1 << 59) - 1

#: 32 physical address bits: Linux has more in a 32-bit kernel only with XPA, a Release 5 option.
_RAM_END_32_BIT = 1 << 32

#: A kernel that is loaded this high unpacks itself to memory below, and needs what lies around it.
_SELF_UNPACKING_BASE = 0x0100_0000
#: First address that such a kernel leaves alone: the unpacked kernel, its relocated copy and the
#: wrapper stay below 0x03700000 (measured with 6.1.176, relocation at its largest).
_SELF_UNPACKING_END = 0x0400_0000


@dataclass(frozen=True)
class Segment:
    """A piece of a kernel: `data` at `paddr`, and zeros behind it up to `size` bytes."""

    paddr: int
    data: bytes | memoryview
    size: int

    @property
    def region(self) -> Region:
        """The physical memory that the segment takes."""
        return Region(self.paddr, self.size)


@dataclass(frozen=True)
class LoadedKernel:
    """A kernel that has passed all checks.

    Attributes:
        name: the file it came from.
        bits: 32 or 64, the width of its addresses. Either runs on the same CPU.
        entry: virtual address of the first instruction, sign-extended to 64 bits.
        segments: by physical address; they don't overlap.
    """

    name: str
    bits: int
    entry: int
    segments: tuple[Segment, ...]

    @property
    def end(self) -> int:
        """First physical address behind the kernel."""
        return self.segments[-1].region.end

    @property
    def image_end(self) -> int:
        """First physical address behind the kernel that will run.

        One that unpacks itself is linked just behind what it unpacks.
        Source: Linux, arch/mips/boot/compressed/calc_vmlinuz_load_addr.c.
        """
        first = self.segments[0].paddr
        return first if first >= _SELF_UNPACKING_BASE else self.end


@dataclass(frozen=True)
class Layout:
    """Where the device tree and the initrd go, in physical memory."""

    device_tree: Region
    initrd: Region | None

    @property
    def registers(self) -> dict[str, int]:
        """The argument registers with which a kernel is entered, 64 bits, unsigned.

        Source: UHI: a0 = -2 says that a1 points to a device tree.
        """
        return {"a0": 2**64 - 2, "a1": KSEG0 + self.device_tree.base, "a2": 0, "a3": 0}


def load(path: Path, *, memory_bytes: int) -> LoadedKernel:
    """Reads and checks the kernel at `path` for a VM of `memory_bytes`.

    Raises:
        ImageError: the file cannot be read, is no such kernel, or does not fit into the memory.
    """
    try:
        image = contents.read(path)
    except OSError as error:
        raise ImageError(f"kernel {path}: cannot be read: {error.strerror}") from error
    return parse(image, name=str(path), memory_bytes=memory_bytes)


def parse(image: bytes | memoryview, *, name: str, memory_bytes: int) -> LoadedKernel:
    """`load` for a kernel that is already in memory; `name` is what errors call it."""
    form = _check_ident(image, name)
    kind, machine, _, entry, table, _, _, _, row_size, row_count, *_ = _unpack(
        form.header, image, 0, name, "its ELF header"
    )
    if machine != _MACHINE_MIPS:
        raise ImageError(
            f"kernel {name}: ELF machine {machine}; {_MACHINE_MIPS} (MIPS) is possible"
        )
    if kind != _TYPE_EXECUTABLE:
        raise ImageError(
            f"kernel {name}: ELF type {kind}; {_TYPE_EXECUTABLE} (executable) is possible"
        )
    if row_count and row_size != form.segment.size:
        raise ImageError(
            f"kernel {name}: program headers of {row_size} bytes; {form.segment.size} is possible"
        )
    segments = []
    for index in range(row_count):
        what = f"program header {index}"
        values = _unpack(form.segment, image, table + index * row_size, name, what)
        row = dict(zip(form.segment_fields, values, strict=True))
        if row["type"] == _SEGMENT_LOAD and row["size"]:
            segments.append(_segment(row, image, f"kernel {name}: segment {index}"))
    segments.sort(key=lambda segment: segment.paddr)
    entry = _sign_extended(entry)
    _check_segments(segments, name, memory_bytes)
    _check_entry(entry, segments, name)
    return LoadedKernel(name=name, bits=form.bits, entry=entry, segments=tuple(segments))


def place(kernel: LoadedKernel, *, initrd_size: int, platform: Platform) -> Layout:
    """Finds room for the device tree and an initrd of `initrd_size` bytes (0: none).

    The device tree comes first, because it must be within reach of KSEG0. An initrd that does not
    fit behind it in low RAM goes to the start of high RAM, unless the kernel has 32 bits: that one
    reads the initrd through KSEG0, too.

    Raises:
        ImageError: they don't fit, and how much memory would do; or the kernel cannot reach all RAM.
    """
    if kernel.bits == 32 and platform.ram[-1].end > _RAM_END_32_BIT:
        most_mib = (_RAM_END_32_BIT - RAM_HIGH_BASE + RAM_LOW_SIZE_MAX) >> 20
        raise ImageError(
            f"kernel {kernel.name}: {_mib(platform.memory_bytes)} MiB of RAM asked;"
            f" a 32-bit kernel reaches {most_mib} MiB"
        )
    start = _page_up(_free_from(kernel))
    tree = Region(start, devicetree.SIZE_MAX)
    low, *high = platform.ram
    if not low.holds(tree.base, tree.size):
        raise _too_small(kernel, initrd_size, platform, tree.end)
    if not initrd_size:
        return Layout(device_tree=tree, initrd=None)
    behind_tree = Region(tree.end, low.end - tree.end)
    for room in (behind_tree,) if kernel.bits == 32 else (behind_tree, *high):
        if room.size >= _page_up(initrd_size):
            return Layout(device_tree=tree, initrd=Region(room.base, initrd_size))
    raise _too_small(kernel, initrd_size, platform, tree.end)


def physical(vaddr: int) -> int | None:
    """The physical address behind an unmapped 64-bit virtual address, or None if it is mapped."""
    if KSEG0 <= vaddr < _KSEG2:
        return vaddr & 0x1FFF_FFFF
    if _XKPHYS <= vaddr < _XKPHYS_END:
        return vaddr & _XKPHYS_OFFSET_MASK
    return None


def _check_ident(image: bytes | memoryview, name: str) -> _Form:
    if len(image) < _IDENT_SIZE:
        raise ImageError(
            f"kernel {name}: {len(image)} bytes long; an ELF file has at least {_IDENT_SIZE}"
        )
    if image[:4] != _ELF_MAGIC:
        raise ImageError(
            f"kernel {name}: begins with {image[:4].hex(' ')}; an ELF file (vmlinux, vmlinuz)"
            f" begins with {_ELF_MAGIC.hex(' ')}"
        )
    if image[4] not in _FORMS:
        raise ImageError(f"kernel {name}: ELF class {image[4]}; 1 (32-bit) and 2 (64-bit) exist")
    form = _FORMS[image[4]]
    if image[5] != _LITTLE_ENDIAN:
        raise ImageError(
            f"kernel {name}: {form.bits}-bit, but not little-endian (ELF data"
            f" encoding {image[5]}); kernels for mipsel and mips64el are possible"
        )
    return form


def _unpack(
    form: struct.Struct, image: bytes | memoryview, offset: int, name: str, what: str
) -> tuple[int, ...]:
    if offset + form.size > len(image):
        raise ImageError(
            f"kernel {name}: truncated: {what} ends at byte {offset + form.size},"
            f" the file at {len(image)}"
        )
    return form.unpack_from(image, offset)


def _segment(row: dict[str, int], image: bytes | memoryview, name: str) -> Segment:
    vaddr = _sign_extended(row["vaddr"])
    paddr = physical(vaddr)
    if paddr is None:
        raise ImageError(
            f"{name}: linked to {vaddr:#x}, which is mapped by the TLB;"
            " KSEG0, KSEG1 and XKPHYS are possible"
        )
    file_end = row["offset"] + row["file_size"]
    if file_end > len(image):
        raise ImageError(f"{name}: truncated: ends at byte {file_end}, the file at {len(image)}")
    if row["file_size"] > row["size"]:
        raise ImageError(
            f"{name}: {row['file_size']} bytes in the file, but only {row['size']} in memory"
        )
    return Segment(paddr, image[row["offset"] : file_end], row["size"])


def _check_segments(segments: list[Segment], name: str, memory_bytes: int) -> None:
    if not segments:
        raise ImageError(f"kernel {name}: has no segment to load; a linked executable has some")
    for before, after in pairwise(segments):
        if before.region.end > after.paddr:
            raise ImageError(
                f"kernel {name}: segments overlap: {before.paddr:#x}-{before.region.end:#x}"
                f" and {after.paddr:#x}-{after.region.end:#x}"
            )
    ram = Platform(memory_bytes=memory_bytes).ram
    for region in (segment.region for segment in segments):
        if not any(part.holds(region.base, region.size) for part in ram):
            have = ", ".join(f"{part.base:#x}-{part.end:#x}" for part in ram)
            raise ImageError(
                f"kernel {name}: needs physical {region.base:#x}-{region.end:#x};"
                f" RAM of a VM with {_mib(memory_bytes)} MiB is {have}"
            )


def _check_entry(entry: int, segments: list[Segment], name: str) -> None:
    paddr = physical(entry)
    if paddr is None or not any(segment.region.holds(paddr, 4) for segment in segments):
        raise ImageError(f"kernel {name}: entry {entry:#x} lies in none of its segments")
    if entry % 4:
        raise ImageError(f"kernel {name}: entry {entry:#x} is no instruction address")


def _free_from(kernel: LoadedKernel) -> int:
    if kernel.segments[0].paddr >= _SELF_UNPACKING_BASE:
        return max(kernel.end, _SELF_UNPACKING_END)
    return kernel.end


def _too_small(
    kernel: LoadedKernel, initrd_size: int, platform: Platform, tree_end: int
) -> ImageError:
    parts = f"kernel {kernel.name}, device tree and an initrd of {initrd_size} bytes"
    if tree_end > RAM_LOW_SIZE_MAX:
        return ImageError(
            f"{parts}: the kernel ends at {kernel.end:#x}; at most"
            f" {RAM_LOW_SIZE_MAX - devicetree.SIZE_MAX:#x} is possible"
        )
    needed = tree_end + _page_up(initrd_size)
    if needed > RAM_LOW_SIZE_MAX and kernel.bits == 32:
        return ImageError(
            f"{parts}: do not fit into {_mib(RAM_LOW_SIZE_MAX)} MiB of low RAM; an initrd of"
            f" {RAM_LOW_SIZE_MAX - tree_end} bytes is possible"
        )
    if needed > RAM_LOW_SIZE_MAX:
        needed = RAM_LOW_SIZE_MAX + _page_up(initrd_size)
    return ImageError(
        f"{parts}: do not fit into {_mib(platform.memory_bytes)} MiB;"
        f" {-(-needed >> 20)} MiB would do"
    )


def _page_up(address: int) -> int:
    return -(-address // PAGE_SIZE) * PAGE_SIZE


def _sign_extended(vaddr: int) -> int:
    """A 32-bit address as a 64-bit CPU sees it; some linkers leave that out of 64-bit files too."""
    return vaddr | 0xFFFF_FFFF_0000_0000 if 0x8000_0000 <= vaddr < 1 << 32 else vaddr


def _mib(size: int) -> str:
    return f"{size / (1 << 20):g}"
