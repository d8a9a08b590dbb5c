"""The smallest thing that boots: an ELF executable with one segment."""

from __future__ import annotations

import struct
from pathlib import Path

BASE = 0xFFFF_FFFF_8010_0000


def elf(code: bytes = b"\0\0\0\0", *, base: int = BASE, size: int | None = None) -> bytes:
    """An ELF64 executable for little-endian MIPS with `code` at `base`, which is also its entry."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",
        2,  # executable
        8,  # MIPS
        1,
        base,
        64,  # program headers follow at once
        0,
        0,
        64,
        56,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, 120, base, base, len(code), size or len(code), 16)
    return header + segment + code


def write(folder: Path, code: bytes = b"\0\0\0\0") -> Path:
    """`elf(code)` as a file in `folder`."""
    path = folder / "kernel.elf"
    path.write_bytes(elf(code))
    return path
