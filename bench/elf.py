"""The shell of an ELF executable around code that our assembler made: one segment, no sections.

Source: System V ABI, object files; its MIPS supplement for machine and flags.
"""

from __future__ import annotations

import struct

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_IDENT = b"\x7fELF\x02\x01\x01"
_EXECUTABLE = 2
_MIPS = 8
#: Release 2 of the 64-bit architecture; calling convention n64.
_FLAGS = 0x8000_0000
_LOAD = 1
_READ_WRITE_EXECUTE = 7
_ALIGN = 0x1_0000

#: Where code begins behind the start of the file. The file is mapped as a whole.
CODE_OFFSET = _HEADER.size + _SEGMENT.size


def executable(code: bytes, *, base: int, entry: int) -> bytes:
    """An executable whose first byte is at virtual address `base`, code at `base + CODE_OFFSET`."""
    size = CODE_OFFSET + len(code)
    header = _HEADER.pack(
        _IDENT,
        _EXECUTABLE,
        _MIPS,
        1,
        entry,
        _HEADER.size,
        0,
        _FLAGS,
        _HEADER.size,
        _SEGMENT.size,
        1,
        0,
        0,
        0,
    )
    segment = _SEGMENT.pack(_LOAD, _READ_WRITE_EXECUTE, 0, base, base, size, size, _ALIGN)
    return header + segment + code
