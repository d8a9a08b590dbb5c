"""Reads of shared folders through the cache, against a list of bytes: files that change, VMs that write."""

from __future__ import annotations

import os
import random
import struct

import pytest
import tiny_guests

from disco import Machine, Monitor
from disco.devices.bus import GuestMemoryError
from disco.devices.virtio.p9 import ReadCounters
from disco.monitor.foldercache import FolderCache, FolderReads

PAGE = 4096
RAM_MIB = 4
DATA_AT = 2 << 20
DATA_PAGES = 64
FILE_PAGES = 24


class World:
    """VMs that read files of the host, without ever running."""

    def __init__(self, tmp_path, *, vms=2, cache_pages=None) -> None:
        self.monitor = Monitor(Machine(nodes=2, memory_mib_per_node=16))
        self.cache = self.monitor.disk_cache
        if cache_pages is not None:
            self.cache.capacity_pages = cache_pages
        self.folders = FolderCache(self.cache)
        kernel = tiny_guests.guest(tmp_path, "ok", tiny_guests.PRINT_OK)
        self.vms = [
            self.monitor.create_vm(f"vm{number}", kernel=kernel, memory_mib=RAM_MIB)
            for number in range(vms)
        ]
        for vm in self.vms:
            vm.counters = ReadCounters()
            vm.reads = FolderReads(self.folders, vm.board.memory)
            vm.model = bytearray(DATA_PAGES * PAGE)

    def read(self, vm, path, offset: int, target) -> bytes:
        """As virtio-9p does it: what the cache leaves is copied."""
        with path.open("rb") as file:
            data = os.pread(file.fileno(), sum(length for _, length in target), offset)
            found = os.fstat(file.fileno())
        assert len(data) == sum(length for _, length in target)
        identity = (found.st_dev, found.st_ino)
        for at, ranges in vm.reads.share(identity, offset, data, target, vm.counters):
            for paddr, length in ranges:
                vm.board.memory.write(paddr, data[at : at + length])
                at += length
        return data


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(random.Random(3).randbytes(FILE_PAGES * PAGE + 700))
    return path


def random_target(rng: random.Random, length: int) -> list[tuple[int, int]]:
    target, slots = [], rng.sample(range(DATA_PAGES // 4), DATA_PAGES // 4)
    while length:
        at, part = DATA_AT + slots.pop() * 4 * PAGE, min(length, PAGE * rng.randint(1, 4))
        if rng.random() < 0.15:
            at, part = at + rng.randrange(PAGE), min(length, rng.randint(1, PAGE))
        target.append((at, part))
        length -= part
    return target


@pytest.mark.parametrize("cache_pages", [None, 12, 2])
def test_guests_read_what_files_are_at_that_moment_and_keep_it(tmp_path, path, cache_pages):
    rng = random.Random(5)
    world = World(tmp_path, vms=3, cache_pages=cache_pages)
    for _ in range(600):
        vm, chance = rng.choice(world.vms), rng.random()
        if chance < 0.55:
            offset = rng.randrange(FILE_PAGES) * PAGE + rng.choice((0, 0, 0, rng.randrange(PAGE)))
            length = min(rng.choice((100, PAGE, 3 * PAGE, 5 * PAGE)), path.stat().st_size - offset)
            target = random_target(rng, length)
            data, at = world.read(vm, path, offset, target), 0
            for paddr, part in target:
                vm.model[paddr - DATA_AT : paddr - DATA_AT + part] = data[at : at + part]
                at += part
        elif chance < 0.75:  # by anybody on the host, who can keep the time of change
            with path.open("r+b") as file:
                os.pwrite(file.fileno(), rng.randbytes(9), rng.randrange(FILE_PAGES * PAGE))
        elif chance < 0.8:  # another file, perhaps of the same number
            content = path.read_bytes()
            path.unlink()
            path.write_bytes(content[PAGE:] + content[:PAGE])
        else:
            offset, data = (
                rng.randrange(DATA_PAGES * PAGE - 600),
                rng.randbytes(rng.randint(1, 600)),
            )
            vm.board.memory.write(DATA_AT + offset, data)
            vm.model[offset : offset + len(data)] = data
        for one in world.vms:
            assert one.board.memory.read(DATA_AT, DATA_PAGES * PAGE) == one.model
        assert world.cache.pages <= world.cache.capacity_pages
    counters = [vm.counters for vm in world.vms]
    assert (
        min(sum(one.mapped for one in counters), sum(one.copied_unaligned for one in counters)) > 50
    )
    assert (sum(one.copied_full for one in counters) > 10) == (cache_pages is not None)
    assert sum(world.monitor.pages_by_owner()["cache"]) == world.cache.pages


def test_a_file_that_two_vms_read_is_in_memory_once_until_it_changes(tmp_path, path):
    world = World(tmp_path)
    one, other = world.vms
    whole = [(DATA_AT, 4 * PAGE)]
    world.read(one, path, PAGE, whole)
    before = world.monitor.pages_by_owner()
    world.read(other, path, PAGE, whole)
    assert world.monitor.pages_by_owner() == before

    def pages(vm) -> list[int]:
        return vm.pmap[DATA_AT // PAGE : DATA_AT // PAGE + 4]["mpn"].tolist()

    assert pages(one) == pages(other)
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), b"new", 2 * PAGE)
    world.read(other, path, PAGE, whole)
    assert [a == b for a, b in zip(pages(one), pages(other), strict=True)] == [1, 0, 1, 1]
    assert (one.counters.mapped, other.counters.mapped) == (4, 8)
    assert world.cache.pages == 4


def test_files_without_pages_are_forgotten(tmp_path, path):
    world = World(tmp_path, vms=1, cache_pages=4)
    (vm,) = world.vms
    for number in range(40):
        small = tmp_path / f"small{number}"
        small.write_bytes(struct.pack("<Q", number) * (PAGE // 8))
        world.read(vm, small, 0, [(DATA_AT, PAGE)])
    assert vm.counters.mapped == 40
    assert len(world.folders._files) == world.cache.pages == 4


def test_a_range_that_is_not_ram_is_refused(tmp_path, path):
    world = World(tmp_path, vms=1)
    with pytest.raises(GuestMemoryError):
        world.read(world.vms[0], path, 0, [(RAM_MIB << 20, PAGE)])
