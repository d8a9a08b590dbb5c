"""The smallest thing that boots: an ELF executable with one segment."""

from __future__ import annotations

import struct
from pathlib import Path

BASE = 0xFFFF_FFFF_8010_0000


def elf(
    code: bytes = b"\0\0\0\0", *, base: int = BASE, size: int | None = None, bits: int = 64
) -> bytes:
    """An ELF executable for little-endian MIPS with `code` at `base`, which is also its entry."""
    memory_size = size or len(code)
    ident, executable, mips = b"\x7fELF" + bytes([bits // 32, 1, 1]), 2, 8
    base %= 1 << bits
    if bits == 64:
        # Program headers follow at once, the code behind them.
        sizes = (64, 56, 1, 0, 0, 0)
        header = struct.pack("<16sHHIQQQI6H", ident, executable, mips, 1, base, 64, 0, 0, *sizes)
        segment = struct.pack("<IIQQQQQQ", 1, 7, 120, base, base, len(code), memory_size, 16)
    else:
        sizes = (52, 32, 1, 0, 0, 0)
        header = struct.pack("<16sHHIIIII6H", ident, executable, mips, 1, base, 52, 0, 0, *sizes)
        segment = struct.pack("<8I", 1, 84, base, base, len(code), memory_size, 7, 16)
    return header + segment + code


def write(folder: Path, code: bytes = b"\0\0\0\0") -> Path:
    """`elf(code)` as a file in `folder`."""
    path = folder / "kernel.elf"
    path.write_bytes(elf(code))
    return path
