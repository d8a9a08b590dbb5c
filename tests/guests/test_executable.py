"""Executables around assembled code, as an independent reader sees them."""

from __future__ import annotations

import io

import pytest
from elftools.elf.elffile import ELFFile

from disco.guests.executable import N64, O32, Abi


@pytest.mark.parametrize(("abi", "bits", "flags"), [(N64, 64, 0x8000_0000), (O32, 32, 0x7000_1000)])
def test_an_executable_has_one_segment_with_the_code_where_it_was_assembled(
    abi: Abi, bits: int, flags: int
) -> None:
    base, code = 0x40_0000, b"\x01\x02\x03\x04" * 5
    entry = base + abi.code_offset + 8
    file = ELFFile(io.BytesIO(abi.executable(code, base=base, entry=entry)))
    header = file.header
    assert (file.elfclass, file.little_endian, file["e_machine"]) == (bits, True, "EM_MIPS")
    assert (header["e_type"], header["e_entry"], header["e_flags"]) == ("ET_EXEC", entry, flags)
    (segment,) = file.iter_segments()
    assert (segment["p_type"], segment["p_vaddr"], segment["p_offset"]) == ("PT_LOAD", base, 0)
    assert segment["p_filesz"] == segment["p_memsz"] == abi.code_offset + len(code)
    assert segment["p_flags"] == 7
    assert segment.data()[abi.code_offset :] == code
