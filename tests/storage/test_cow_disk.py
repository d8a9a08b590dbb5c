"""Copy-on-write disks of both kinds against a list of sectors; bases stay as they are."""

from __future__ import annotations

import errno
import random

import pytest
from naive_disk import SECTORS, NaiveDisk, steps

from disco.storage import discodisk
from disco.storage.cow import (
    BLOCK_BYTES,
    BLOCK_SECTORS,
    CowDisk,
    MemoryModifications,
    blocks_of,
)
from disco.storage.discodisk import StoreDisk
from disco.storage.disk import SECTOR_BYTES, DiskError, MemoryDisk

CONTENTS = random.Random(8).randbytes(SECTORS * SECTOR_BYTES)


def in_memory(base: MemoryDisk, limit_bytes: int = 1 << 20) -> CowDisk:
    count = blocks_of(base.sector_count)
    own = MemoryModifications(name="base.img", block_count=count, limit_bytes=limit_bytes)
    return CowDisk(base, own)


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.img"
    path.write_bytes(CONTENTS)
    return path


def memory_cow(base, _tmp_path):
    return in_memory(MemoryDisk(CONTENTS, read_only=True))


def stored_cow(base, tmp_path):
    discodisk.create(tmp_path / "own.disk", base=base)
    return StoreDisk(tmp_path / "own.disk")


def stored_on_stored(base, tmp_path):
    discodisk.create(tmp_path / "middle.disk", base=base)
    with StoreDisk(tmp_path / "middle.disk") as middle:
        middle.write(3, CONTENTS[3 * SECTOR_BYTES : 50 * SECTOR_BYTES])  # the same once more
    discodisk.create(tmp_path / "own.disk", base=tmp_path / "middle.disk")
    return StoreDisk(tmp_path / "own.disk")


every_kind = pytest.mark.parametrize("make", [memory_cow, stored_cow, stored_on_stored])


@every_kind
@pytest.mark.parametrize("seed", range(3))
def test_random_requests_agree_with_a_list_of_sectors(make, seed, base, tmp_path):
    disk, model = make(base, tmp_path), NaiveDisk(CONTENTS)
    with disk:
        for step in steps(seed, 600):
            if step.kind == "w":
                disk.write(step.sector, step.data)
                model.write(step.sector, step.data)
            elif step.kind == "r":
                expected = model.read(step.sector, step.count)
                assert disk.read(step.sector, step.count) == expected
            else:
                disk.flush()
    assert base.read_bytes() == CONTENTS


@every_kind
def test_a_disk_that_is_only_read_has_nothing_of_its_own(make, base, tmp_path):
    with make(base, tmp_path) as disk:
        assert disk.read(0, SECTORS) == CONTENTS
        assert (disk.modified_bytes, list(disk.modified_ranges())) == (0, [])


@every_kind
def test_modified_ranges_are_the_blocks_that_were_written(make, base, tmp_path):
    with make(base, tmp_path) as disk:
        disk.write(9, bytes(SECTOR_BYTES))
        disk.write(16, bytes(9 * SECTOR_BYTES))
        disk.write(SECTORS - 1, bytes(SECTOR_BYTES))
        last = (SECTORS - 1) // BLOCK_SECTORS * BLOCK_SECTORS
        assert list(disk.modified_ranges()) == [(8, 24), (last, SECTORS - last)]
        assert disk.modified_bytes == 4 * BLOCK_BYTES


@every_kind
@pytest.mark.parametrize(("sector", "count"), [(SECTORS, 1), (SECTORS - 1, 2), (-1, 1)])
def test_access_past_the_disk_is_the_callers_bug(make, sector, count, base, tmp_path):
    with make(base, tmp_path) as disk:
        with pytest.raises(AssertionError, match="not on a disk of 117"):
            disk.read(sector, count)
        with pytest.raises(AssertionError, match="not on a disk of 117"):
            disk.write(sector, bytes(count * SECTOR_BYTES))


def test_two_disks_on_one_base_do_not_see_each_other():
    base = MemoryDisk(CONTENTS, read_only=True)
    one, other = in_memory(base), in_memory(base)
    one.write(5, b"1" * SECTOR_BYTES)
    other.write(6, b"2" * SECTOR_BYTES)
    assert one.read(6, 1) == CONTENTS[6 * SECTOR_BYTES : 7 * SECTOR_BYTES]
    assert other.read(5, 1) == CONTENTS[5 * SECTOR_BYTES : 6 * SECTOR_BYTES]
    assert base.read(0, SECTORS) == CONTENTS


def test_a_write_beyond_the_limit_of_memory_fails_whole_and_what_was_there_stays():
    disk = in_memory(MemoryDisk(CONTENTS, read_only=True), limit_bytes=2 * BLOCK_BYTES)
    disk.write(0, b"a" * 2 * BLOCK_BYTES)
    with pytest.raises(
        DiskError, match="more than 0 MiB of memory, which is their limit"
    ) as raised:
        disk.write(8, b"b" * 2 * BLOCK_BYTES)  # its first block has its memory already
    assert raised.value.errno == errno.ENOSPC
    assert disk.read(0, 24) == b"a" * 2 * BLOCK_BYTES + CONTENTS[2 * BLOCK_BYTES :][:BLOCK_BYTES]
    disk.write(0, b"c" * 2 * BLOCK_BYTES)
    assert disk.read(0, 8) == b"c" * BLOCK_BYTES
