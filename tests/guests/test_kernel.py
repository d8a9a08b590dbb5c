"""The kernel loader: what it takes, and every claim of a file that it doesn't believe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_debian import ElfPart, elf

from disco.errors import ImageError
from disco.guests import devicetree, kernel
from disco.guests.kernel import LoadedKernel, Segment
from disco.guests.platform import Platform, Region

MIB = 1 << 20
BASE = 0xFFFF_FFFF_8010_0000
PART = ElfPart(vaddr=BASE, data=b"\x01\x02\x03\x04" * 4, size=0x1000)


def parse(image: bytes, memory_bytes: int = 64 * MIB) -> LoadedKernel:
    return kernel.parse(image, name="k", memory_bytes=memory_bytes)


@pytest.mark.parametrize(
    ("bits", "vaddr", "entry", "paddr"),
    [
        (64, 0x8010_0000, 0x8010_0000, 0x10_0000),  # not sign-extended by its linker
        (32, 0xA010_0000, 0xA010_0010, 0x10_0000),  # KSEG1
        (32, 0x8010_0000, 0x8010_0000, 0x10_0000),
        (64, 0x9800_0000_0010_0000, 0x9800_0000_0010_0000, 0x10_0000),  # XKPHYS, cached
        (64, 0x9000_0000_0010_0000, 0x9000_0000_0010_0004, 0x10_0000),  # XKPHYS, uncached
        (64, BASE, BASE, 0x10_0000),
    ],
)
def test_unmapped_addresses_become_physical(bits: int, vaddr: int, entry: int, paddr: int) -> None:
    part = ElfPart(vaddr=vaddr, data=PART.data, size=PART.size)
    loaded = parse(elf([part], entry=entry, bits=bits))
    assert loaded.segments == (Segment(paddr, PART.data, 0x1000),)
    assert loaded.end == paddr + 0x1000
    assert loaded.entry == (entry if entry >> 32 else entry | 0xFFFF_FFFF << 32)
    assert loaded.bits == bits


@pytest.mark.parametrize("bits", [32, 64])
def test_a_kernel_cut_at_any_byte_is_refused(bits: int) -> None:
    image = elf([PART], entry=BASE % (1 << bits), bits=bits)
    parse(image)
    for size in range(len(image)):
        with pytest.raises(ImageError, match=r"^kernel k: .*(truncated|at least|begins with)"):
            parse(image[:size])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"order": ">"}, "64-bit, but not little-endian"),
        ({"order": ">", "bits": 32, "entry": 0x8010_0000}, "32-bit, but not little-endian"),
        ({"machine": 62}, "ELF machine 62"),  # x86-64
        ({"kind": 1}, "ELF type 1"),  # an object file, such as a module
        ({"kind": 3}, "ELF type 3"),  # a shared object
        ({"parts": []}, "no segment to load"),
        ({"parts": [ElfPart(vaddr=BASE, data=b"", size=0)]}, "no segment to load"),
        ({"parts": [ElfPart(vaddr=BASE, data=b"note", size=4, kind=4)]}, "no segment to load"),
        ({"entry": BASE + 2}, "no instruction address"),
        ({"entry": BASE + 0x1000}, "in none of its segments"),
        ({"entry": BASE + 0xFFE}, "in none of its segments"),  # its last bytes would be outside
        ({"entry": 0x40_0000}, "in none of its segments"),  # user space
        ({"parts": [ElfPart(vaddr=0x40_0000, data=b"user", size=4)]}, "mapped by the TLB"),
        ({"parts": [ElfPart(vaddr=0xFFFF_FFFF_C000_0000, data=b"", size=4)]}, "mapped by the TLB"),
        ({"parts": [ElfPart(vaddr=0xC000_0000_0000_0000, data=b"", size=4)]}, "mapped by the TLB"),
        ({"parts": [PART, PART]}, "segments overlap"),
        ({"parts": [PART, ElfPart(vaddr=BASE + 0xFFF, data=b"", size=1)]}, "segments overlap"),
        ({"parts": [ElfPart(vaddr=BASE, data=b"12345678", size=7)]}, "only 7 in memory"),
        ({"parts": [ElfPart(vaddr=BASE, data=b"1234", size=2**63)]}, "needs physical"),
        ({"parts": [ElfPart(vaddr=BASE, data=b"1234", size=64 * MIB)]}, "needs physical"),
        # In the window of the devices:
        ({"parts": [ElfPart(vaddr=BASE + 0x1E00_0000, data=b"1234", size=4)]}, "needs physical"),
        # KSEG0 reaches 512 MiB and no further, so a segment across its end has no one place:
        ({"parts": [ElfPart(vaddr=BASE + 0x1FEF_FFFC, data=b"", size=8)]}, "needs physical"),
    ],
)
def test_a_claim_that_cannot_hold_is_refused(changes: dict[str, Any], words: str) -> None:
    arguments: dict[str, Any] = {"parts": [PART], "entry": BASE} | changes
    with pytest.raises(ImageError, match=f"^kernel k: .*{words}"):
        parse(elf(arguments.pop("parts"), **arguments))


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"\x1f\x8b\x08 a compressed kernel",
        b"\x27\x05\x19\x56 a U-Boot image ",
        b"\x7fELF\x03\x01\x01" + bytes(60),  # no such class
    ],
)
def test_what_is_no_elf_file_is_refused(image: bytes) -> None:
    with pytest.raises(ImageError, match=r"^kernel k: "):
        parse(image)


def test_any_byte_of_the_headers_may_be_wrong() -> None:
    # Each single byte at each of a few values: either still a kernel, or a clear error.
    image = bytearray(elf([PART], entry=BASE))
    for index in range(64 + 56):
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            before, image[index] = image[index], value
            try:
                parse(bytes(image))
            except ImageError as error:
                assert "kernel k: " in str(error)
            image[index] = before


def test_a_kernel_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="missing: cannot be read: No such file"):
        kernel.load(tmp_path / "missing", memory_bytes=MIB)
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        kernel.load(tmp_path, memory_bytes=MIB)


DEBIAN = LoadedKernel("vmlinuz", 64, 0xFFFF_FFFF_812A_0000, (Segment(0x12A_0000, b"", 0x9C_5800),))
MIPSEL = LoadedKernel("mipsel", 32, 0xFFFF_FFFF_8113_0000, (Segment(0x113_0000, b"", 0x9B_ED10),))
SMALL = LoadedKernel("small", 64, BASE, (Segment(0x10_0000, b"", 0x1801),))


@pytest.mark.parametrize(
    ("what", "initrd_size", "memory_mib", "tree", "initrd"),
    [
        # Room for what a compressed kernel unpacks is left free.
        (DEBIAN, 5 * MIB, 128, 0x400_0000, 0x401_0000),
        (DEBIAN, 0, 65, 0x400_0000, None),
        # A kernel that stays where it is needs no such room.
        (SMALL, 0, 2, 0x10_2000, None),
        (SMALL, 1, 2, 0x10_2000, 0x11_2000),
        # To the last page; an initrd that low RAM cannot hold goes to high RAM.
        (DEBIAN, 192 * MIB - 0x1_0000, 256, 0x400_0000, 0x401_0000),
        (DEBIAN, 192 * MIB - 0xFFFF, 512, 0x400_0000, 0x2000_0000),
        (MIPSEL, 5 * MIB, 128, 0x400_0000, 0x401_0000),
        (MIPSEL, 192 * MIB - 0x1_0000, 3840, 0x400_0000, 0x401_0000),
    ],
)
def test_tree_and_initrd_find_a_place(
    what: LoadedKernel, initrd_size: int, memory_mib: int, tree: int, initrd: int | None
) -> None:
    layout = kernel.place(
        what, initrd_size=initrd_size, platform=Platform(memory_bytes=memory_mib * MIB)
    )
    assert layout.device_tree == Region(tree, devicetree.SIZE_MAX)
    assert layout.initrd == (None if initrd is None else Region(initrd, initrd_size))


@pytest.mark.parametrize(
    ("what", "initrd_size", "memory_mib", "needed_mib"),
    [
        (DEBIAN, 0, 64, 65),
        (DEBIAN, 5 * MIB, 64, 70),
        (DEBIAN, 5 * MIB, 69, 70),
        (DEBIAN, 192 * MIB - 0xFFFF, 256, 448),  # 256 low, and 192 for the initrd alone
        (SMALL, MIB, 2, 3),
    ],
)
def test_what_does_not_fit_says_how_much_memory_would_do(
    what: LoadedKernel, initrd_size: int, memory_mib: int, needed_mib: int
) -> None:
    def place(mib: int) -> None:
        kernel.place(what, initrd_size=initrd_size, platform=Platform(memory_bytes=mib * MIB))

    with pytest.raises(ImageError, match=f"not fit into {memory_mib} MiB; {needed_mib} MiB would"):
        place(memory_mib)
    place(needed_mib)


def test_the_initrd_of_a_32_bit_kernel_stays_within_reach_of_kseg0() -> None:
    platform = Platform(memory_bytes=512 * MIB)
    most = 192 * MIB - 0x1_0000
    with pytest.raises(ImageError, match=f"256 MiB of low RAM; an initrd of {most} bytes is"):
        kernel.place(MIPSEL, initrd_size=most + 1, platform=platform)
    kernel.place(MIPSEL, initrd_size=most, platform=platform)


def test_a_32_bit_kernel_gets_no_more_ram_than_it_reaches() -> None:
    most = Platform(memory_bytes=3840 * MIB)
    kernel.place(MIPSEL, initrd_size=0, platform=most)
    more = Platform(memory_bytes=3841 * MIB)
    kernel.place(DEBIAN, initrd_size=0, platform=more)
    with pytest.raises(ImageError, match="3841 MiB of RAM asked; a 32-bit kernel reaches 3840 MiB"):
        kernel.place(MIPSEL, initrd_size=0, platform=more)


def test_a_kernel_that_fills_low_ram_leaves_no_place() -> None:
    full = LoadedKernel("full", 64, BASE, (Segment(0, b"", 256 * MIB),))
    with pytest.raises(ImageError, match=r"kernel ends at 0x10000000; at most 0xfff0000"):
        kernel.place(full, initrd_size=0, platform=Platform(memory_bytes=512 * MIB))


def test_a_kernel_is_entered_as_uhi_says() -> None:
    layout = kernel.place(DEBIAN, initrd_size=0, platform=Platform(memory_bytes=128 * MIB))
    assert layout.registers == {
        "a0": 0xFFFF_FFFF_FFFF_FFFE, "a1": 0xFFFF_FFFF_8400_0000, "a2": 0, "a3": 0,
    }  # fmt: skip
