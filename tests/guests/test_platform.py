"""The platform of a VM: one map, without overlaps, and only platforms that can exist."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from disco.errors import ConfigError
from disco.guests import platform
from disco.guests.platform import Platform, Region

MIB = 1 << 20


def test_ram_is_low_up_to_256_mib_and_high_from_there() -> None:
    assert Platform(memory_bytes=256 * MIB).ram == (Region(0, 256 * MIB),)
    more = Platform(memory_bytes=256 * MIB + 4096)
    assert more.ram == (Region(0, 256 * MIB), Region(0x2000_0000, 4096))


def test_no_two_parts_of_a_platform_share_a_page() -> None:
    widest = Platform(memory_bytes=platform.RAM_LOW_SIZE_MAX * 4, virtio_count=32)
    parts = [*widest.ram, widest.uart, widest.reset, *(slot.region for slot in widest.virtio)]
    parts.sort(key=lambda region: region.base)
    for before, after in pairwise(parts):
        assert -(-before.end // platform.PAGE_SIZE) <= after.base // platform.PAGE_SIZE


def test_devices_drive_lines_that_are_neither_software_nor_timer() -> None:
    lines = {slot.line for slot in Platform(memory_bytes=MIB, virtio_count=32).virtio}
    assert lines == {2, 3, 5, 6}
    assert platform.UART_LINE not in lines | {platform.TIMER_LINE, 0, 1}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"memory_bytes": 0}, "0 bytes asked"),
        ({"memory_bytes": -4096}, "-4096 bytes asked"),
        ({"memory_bytes": 4097}, "4097 bytes asked; a multiple of 4096"),
        ({"memory_bytes": 1 << 36}, "65536 MiB asked; up to 65280 MiB"),
        ({"memory_bytes": MIB, "virtio_count": 33}, "33 asked; 0 to 32"),
        ({"memory_bytes": MIB, "virtio_count": -1}, "-1 asked"),
        ({"memory_bytes": MIB, "vcpu_count": 0}, "0 asked; Debian's kernel takes 1 to 16"),
        ({"memory_bytes": MIB, "vcpu_count": 17}, "17 asked; Debian's kernel takes 1 to 16"),
        ({"memory_bytes": MIB, "clock_hz": 3}, "3 Hz asked"),  # Count goes at half of it
        ({"memory_bytes": MIB, "clock_hz": 1 << 32}, "Hz asked"),  # one cell of 32 bits
    ],
)
def test_a_platform_that_cannot_exist_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Platform(**wrong)
