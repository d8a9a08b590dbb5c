"""The shell of an ELF executable around code that our assembler made: one segment, no sections.

Source: System V ABI, object files; its MIPS supplement for machine and flags.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_IDENT = b"\x7fELF%c\x01\x01"
_EXECUTABLE = 2
_MIPS = 8
_VERSION = 1
_LOAD = 1
_READ_WRITE_EXECUTE = 7
_ALIGN = 0x1_0000


@dataclass(frozen=True)
class Abi:
    """A kind of executables.

    Attributes:
        bits: 32 or 64.
        flags: `e_flags`: the release of the architecture, and the calling convention.
    """

    bits: int
    flags: int

    @property
    def _words(self) -> str:
        """How addresses and offsets are packed."""
        return "I" if self.bits == 32 else "Q"

    @property
    def _header(self) -> struct.Struct:
        return struct.Struct(f"<16sHHI{3 * self._words}IHHHHHH")

    @property
    def _segment(self) -> struct.Struct:
        return struct.Struct(f"<II{6 * self._words}" if self.bits == 64 else "<8I")

    @property
    def code_offset(self) -> int:
        """Where code begins behind the start of the file. The file is mapped as a whole."""
        return self._header.size + self._segment.size

    def executable(self, code: bytes, *, base: int, entry: int) -> bytes:
        """An executable whose first byte is at virtual address `base`, code at `base + code_offset`."""
        size = self.code_offset + len(code)
        header = self._header.pack(
            _IDENT % (1 if self.bits == 32 else 2),
            _EXECUTABLE,
            _MIPS,
            _VERSION,
            entry,
            self._header.size,
            0,
            self.flags,
            self._header.size,
            self._segment.size,
            1,
            0,
            0,
            0,
        )
        place = (0, base, base, size, size)
        if self.bits == 32:
            segment = self._segment.pack(_LOAD, *place, _READ_WRITE_EXECUTE, _ALIGN)
        else:
            segment = self._segment.pack(_LOAD, _READ_WRITE_EXECUTE, *place, _ALIGN)
        return header + segment + code


#: Release 2 of the 64-bit architecture; calling convention n64.
N64 = Abi(bits=64, flags=0x8000_0000)
#: Release 2 of the 32-bit architecture; calling convention o32. Debian's 64-bit kernel runs it too.
O32 = Abi(bits=32, flags=0x7000_1000)
