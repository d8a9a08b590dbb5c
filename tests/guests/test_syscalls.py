"""Numbers and names of system calls."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from disco.guests.syscalls import NAMES, name_of

#: Debian's linux-libc-dev-mips64el-cross has them.
HEADERS = Path("/usr/mips64el-linux-gnuabi64/include/asm")


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (5000, "read"),
        (4003, "read"),
        (6000, "read"),
        (5057, "execve"),
        (4011, "execve"),
        (5242, "set_thread_area"),
        (4283, "set_thread_area"),
        (6246, "set_thread_area"),
        (4403, "clock_gettime64"),  # in the 32-bit tables only
        (5403, "system call 5403"),
        (5435, "clone3"),  # at one place in all tables
        (4435, "clone3"),
        (0, "system call 0"),
        (2**32 - 1, f"system call {2**32 - 1}"),
    ],
)
def test_a_number_has_the_name_of_its_table(number, name):
    assert name_of(number) == name


@pytest.mark.parametrize(("abi", "base"), [("o32", 4000), ("n64", 5000), ("n32", 6000)])
@pytest.mark.skipif(not HEADERS.is_dir(), reason="the kernel's headers for MIPS are not installed")
def test_the_tables_are_those_of_the_kernels_headers(abi, base):
    lines = (HEADERS / f"unistd_{abi}.h").read_text()
    pattern = r"#define __NR_(\w+)\s+\(__NR_Linux \+ (\d+)\)"
    theirs = {base + int(place): name for name, place in re.findall(pattern, lines)}
    common = {number: name for number, name in theirs.items() if number <= base + 450}
    ours = {number: name for number, name in NAMES.items() if base <= number < base + 1000}
    assert ours == common
