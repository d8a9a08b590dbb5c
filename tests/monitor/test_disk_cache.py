"""The disk cache against a list of bytes: what guests read, who may write, what goes when room is short."""

from __future__ import annotations

import os
import random

import pytest
import tiny_guests

from disco import ConfigError, Machine, Monitor
from disco.devices.bus import GuestMemoryError
from disco.monitor.diskcache import MappedReads
from disco.storage import discodisk
from disco.storage.choice import DiskChoice, Mode
from disco.storage.disk import SECTOR_BYTES, DiskError

PAGE = 4096
BLOCKS = 48
RAM_MIB = 4
#: Where a guest of a few instructions has nothing.
DATA_AT = 2 << 20
DATA_PAGES = 64


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "base.img"
    path.write_bytes(
        random.Random(12).randbytes(BLOCKS * PAGE + 512)
    )  # the last block is not whole
    return path


class World:
    """VMs that read one image, each by a disk of its own, without ever running."""

    def __init__(
        self, tmp_path, image, *, vms=2, cache_pages=None, mode=Mode.COW, **machine
    ) -> None:
        self.monitor = Monitor(Machine(**{"nodes": 2, "memory_mib_per_node": 16, **machine}))
        if cache_pages is not None:
            self.monitor.disk_cache.capacity_pages = cache_pages
        self.cache = self.monitor.disk_cache
        self.kernel = tiny_guests.guest(tmp_path, "ok", tiny_guests.PRINT_OK)
        self.vms = [self.add(image, mode) for _ in range(vms)]

    def add(self, image, mode=Mode.COW):
        vm = self.monitor.create_vm(
            f"vm{len(self.monitor.vms)}",
            kernel=self.kernel,
            memory_mib=RAM_MIB,
            disks=[DiskChoice(image, mode)],
        )
        vm.disk = vm.config.disks[0]
        vm.reads = self.monitor._reads_of(vm.disk, vm.board.memory)
        vm.model = bytearray(DATA_PAGES * PAGE)
        return vm


def read(vm, sector, target) -> None:
    """As virtio-blk does it: what the cache leaves is copied."""
    assert isinstance(vm.reads, MappedReads)
    for first, ranges in vm.reads.read(sector, target):
        data = vm.disk.read(first, sum(length for _, length in ranges) // SECTOR_BYTES)
        for paddr, length in ranges:
            vm.board.memory.write(paddr, data[:length])
            data = data[length:]


def random_target(rng: random.Random, length: int) -> list[tuple[int, int]]:
    """Scatter-gather ranges that do not overlap: mostly whole pages, as Linux makes them, some cut anywhere."""
    target = []
    slots = rng.sample(range(DATA_PAGES // 4), DATA_PAGES // 4)
    while length:
        at = DATA_AT + slots.pop() * 4 * PAGE
        part = min(length, PAGE * rng.randint(1, 4))
        if rng.random() < 0.15:
            part, at = (
                min(length, rng.randint(1, PAGE)),
                at + rng.choice((0, 512, rng.randrange(PAGE))),
            )
        target.append((at, part))
        length -= part
    return target


@pytest.mark.parametrize("cache_pages", [None, 20, 3])
@pytest.mark.parametrize("seed", range(3))
def test_guests_read_what_is_on_their_disks_and_see_no_write_of_others(
    tmp_path, image, seed, cache_pages
):
    rng = random.Random(seed)
    world = World(tmp_path, image, vms=3, cache_pages=cache_pages)
    contents = [bytearray(image.read_bytes()) for _ in world.vms]
    for _ in range(500):
        index = rng.randrange(3)
        vm, content = world.vms[index], contents[index]
        sector = rng.randrange(BLOCKS) * 8 + rng.choice((0, 0, 0, rng.randrange(8)))
        count = min(rng.choice((1, 8, 16, 32, 40)), len(content) // 512 - sector)
        chance = rng.random()
        if chance < 0.6:
            target = random_target(rng, count * SECTOR_BYTES)
            read(vm, sector, target)
            at = sector * SECTOR_BYTES
            for paddr, length in target:
                vm.model[paddr - DATA_AT : paddr - DATA_AT + length] = content[at : at + length]
                at += length
        elif chance < 0.65:
            data = rng.randbytes(min(count, 8) * SECTOR_BYTES)
            vm.disk.write(sector, data)
            content[sector * SECTOR_BYTES : sector * SECTOR_BYTES + len(data)] = data
        else:
            offset = rng.randrange(DATA_PAGES * PAGE - 600)
            data = rng.randbytes(rng.randint(1, 600))
            vm.board.memory.write(DATA_AT + offset, data)  # a device's, as good as a guest's
            vm.model[offset : offset + len(data)] = data
        assert vm.board.memory.read(DATA_AT, DATA_PAGES * PAGE) == vm.model
        assert world.cache.pages <= world.cache.capacity_pages
    counters = world.cache.counters
    copied = min(counters.copied_unaligned, counters.copied_own)
    assert min(counters.hits, counters.misses, copied) > 10
    assert (counters.evicted > 10) == (cache_pages is not None)
    assert (counters.copied_full > 10) == (cache_pages is not None)
    assert sum(world.monitor.pages_by_owner()["cache"]) == world.cache.pages


def test_a_second_vm_reads_without_io_and_without_memory_of_its_own(tmp_path, image, monkeypatch):
    world = World(tmp_path, image)
    one, other = world.vms
    whole = [(DATA_AT, BLOCKS * PAGE)]
    read(one, 0, whole)
    before = world.monitor.pages_by_owner()
    calls = []
    monkeypatch.setattr(os, "pread", lambda *words: calls.append(words) or b"")
    read(other, 0, whole)
    assert (calls, world.monitor.pages_by_owner()) == ([], before)
    assert other.board.memory.read(*whole[0]) == image.read_bytes()[: BLOCKS * PAGE]
    rows = [vm.pmap[DATA_AT // PAGE : DATA_AT // PAGE + BLOCKS] for vm in world.vms]
    assert rows[0]["mpn"].tolist() == rows[1]["mpn"].tolist()
    assert set(rows[0]["state"].tolist()) == {3}
    assert not rows[0]["writable"].any()
    users = world.monitor.memmap["users"][rows[0]["mpn"]]
    assert set(users.tolist()) == {2}


def test_the_page_that_was_there_is_freed_and_a_write_gets_one_of_its_own(tmp_path, image):
    world = World(tmp_path, image, vms=1)
    (vm,) = world.vms
    vm.board.memory.write(DATA_AT, b"old")
    guests = sum(world.monitor.pages_by_owner()["guest"])
    read(vm, 0, [(DATA_AT, PAGE)])
    assert sum(world.monitor.pages_by_owner()["guest"]) == guests - 1
    assert sum(world.monitor.pages_by_owner()["cache"]) == 1
    vm.board.memory.write(DATA_AT + 1, b"new")
    assert sum(world.monitor.pages_by_owner()["guest"]) == guests
    assert world.cache.unused_pages == 1
    expected = bytearray(image.read_bytes()[:PAGE])
    expected[1:4] = b"new"
    assert vm.board.memory.read(DATA_AT, PAGE) == expected
    read(vm, 0, [(DATA_AT + PAGE, PAGE)])
    assert vm.board.memory.read(DATA_AT + PAGE, PAGE) == image.read_bytes()[:PAGE]


def test_what_a_vm_may_write_is_never_cached(tmp_path, image):
    for mode in (Mode.PERSISTENT, Mode.SHARED):
        world = World(tmp_path, image, vms=1, mode=mode)
        world.vms[0].disk.write(0, b"x" * PAGE)
        read(world.vms[0], 0, [(DATA_AT, PAGE)])
        assert (world.cache.pages, world.cache.counters.copied_own) == (0, 1), mode
        assert world.vms[0].board.memory.read(DATA_AT, PAGE) == b"x" * PAGE
        world.monitor.close()


def test_disks_that_last_share_the_blocks_of_their_base_and_of_its_own_base(tmp_path, image):
    discodisk.create(tmp_path / "middle.disk", base=image)
    with discodisk.StoreDisk(tmp_path / "middle.disk") as middle:
        middle.write(8, b"m" * PAGE)
    for name in ("one.disk", "two.disk"):
        discodisk.create(tmp_path / name, base=tmp_path / "middle.disk")
    world = World(tmp_path, image, vms=1)  # the image itself
    disks = [world.add(tmp_path / name, Mode.PERSISTENT) for name in ("one.disk", "two.disk")]
    for vm in (*world.vms, *disks):
        read(vm, 0, [(DATA_AT, 3 * PAGE)])
    assert (world.cache.pages, world.cache.counters.misses, world.cache.counters.hits) == (4, 4, 5)
    for vm in disks:
        assert vm.board.memory.read(DATA_AT + PAGE, PAGE) == b"m" * PAGE


def test_an_image_that_changed_between_two_vms_is_read_anew(tmp_path, image):
    world = World(tmp_path, image, vms=1)
    read(world.vms[0], 0, [(DATA_AT, PAGE)])
    world.monitor.close()
    image.write_bytes(bytes(BLOCKS * PAGE))
    later = world.add(image)
    read(later, 0, [(DATA_AT, PAGE)])
    assert later.board.memory.read(DATA_AT, PAGE) == bytes(PAGE)


def test_pages_outlive_their_reader_and_serve_the_next_one(tmp_path, image):
    world = World(tmp_path, image, vms=1)
    read(world.vms[0], 0, [(DATA_AT, 8 * PAGE)])
    world.monitor.close()
    assert (world.cache.pages, world.cache.unused_pages) == (8, 8)
    later = world.add(image)
    read(later, 0, [(DATA_AT, 8 * PAGE)])
    assert (world.cache.counters.hits, world.cache.unused_pages) == (8, 0)


def test_a_machine_without_room_takes_back_what_only_the_cache_has(tmp_path, image):
    image.write_bytes(bytes(512 * PAGE))
    world = World(
        tmp_path, image, vms=1, nodes=1, cpus=1, memory_mib_per_node=7, l2tlb_entries=4096
    )
    for at in range(0, 512, 64):
        read(world.vms[0], at * 8, [(DATA_AT, 64 * PAGE)])
    world.monitor.close()
    assert world.cache.unused_pages == 512
    free = sum(world.monitor.pages_by_owner()["free"])
    vm = world.add(image)
    small = world.monitor.create_vm("small", kernel=world.kernel, memory_mib=2)
    assert free < (RAM_MIB + 2 << 20) // PAGE, "it is needed"
    for machine, mib in ((vm, RAM_MIB), (small, 2)):
        for at in range(0, mib << 20, PAGE):
            machine.board.memory.write(at, b"x")
    assert world.cache.counters.evicted == 512 - world.cache.pages > 0


def test_a_range_that_is_not_ram_is_refused(tmp_path, image):
    world = World(tmp_path, image, vms=1)
    (vm,) = world.vms
    for paddr in ((RAM_MIB << 20) - PAGE, 0x1F00_0000, 1 << 40, (1 << 64) - PAGE):
        with pytest.raises(GuestMemoryError):
            vm.reads.read(0, [(DATA_AT, PAGE), (paddr & -PAGE, 2 * PAGE)])
    assert world.cache.unused_pages == world.cache.pages == 3  # read, and mapped nowhere


def test_a_block_that_cannot_be_read_is_an_error_and_the_next_read_tries_again(tmp_path, image):
    world = World(tmp_path, image, vms=1)
    contents = image.read_bytes()
    os.truncate(image, 2 * PAGE)
    with pytest.raises(DiskError, match="has become shorter"):
        read(world.vms[0], 16, [(DATA_AT, 4 * PAGE)])
    assert world.cache.pages == 0
    image.write_bytes(contents)
    read(world.vms[0], 16, [(DATA_AT, 4 * PAGE)])
    assert world.vms[0].board.memory.read(DATA_AT, 4 * PAGE) == contents[2 * PAGE : 6 * PAGE]


def test_a_cache_of_nothing_is_none_and_of_less_is_refused(tmp_path, image):
    with Monitor(Machine(nodes=1, cpus=1), disk_cache_mib=0) as monitor:
        vm = monitor.create_vm(
            "vm",
            kernel=tiny_guests.guest(tmp_path, "ok", tiny_guests.PRINT_OK),
            memory_mib=RAM_MIB,
            disks=[image],
        )
        assert monitor._reads_of(vm.config.disks[0], vm.board.memory) is None
    with pytest.raises(ConfigError, match="disk cache: -1 MiB asked"):
        Monitor(Machine(nodes=1, cpus=1), disk_cache_mib=-1)
