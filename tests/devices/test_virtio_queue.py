"""Rings and chains: what section 2.7 forbids stops the VM with words, and nothing else does."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import naive_queue
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_bus import Ram
from virtio_driver import INDIRECT, INDIRECT_DESC, NEXT, RAM_BYTES, WRITE, Driver, Ring

from disco._engine import Rings
from disco.devices.virtio.block import VirtioBlock
from disco.devices.virtio.console import VirtioConsole
from disco.devices.virtio.net import VirtioNet
from disco.devices.virtio.p9 import VirtioP9
from disco.devices.virtio.queue import split
from disco.devices.virtio.rng import VirtioRng
from disco.errors import DeviceError
from disco.network.frame import Frame
from disco.storage.disk import MemoryDisk
from disco.storage.folder import SharedFolder

SIZE = 8
BUFFER = 0x10000
TABLE = 0x20000
TOP = 2**64 - 1


def console_driver() -> Driver:
    """A console: its output queue reads any chain, so chains alone decide."""
    return Driver(VirtioConsole(sink=lambda _: None), name="virtio-console 0").start(size=SIZE)


# Descriptors as (index, paddr, length, flags, next); chain 0 is offered.
HOSTILE_CHAINS = {
    "loop to itself": ([(0, BUFFER, 4, NEXT, 0)], "loop or more than 8"),
    "loop of two": ([(0, BUFFER, 4, NEXT, 1), (1, BUFFER, 4, NEXT, 0)], "loop or more than 8"),
    "next past the table": ([(0, BUFFER, 4, NEXT, 8)], "goes to descriptor 8 of 8"),
    "next at the end of 16 bits": ([(0, BUFFER, 4, NEXT, 65535)], "goes to descriptor 65535 of 8"),
    "no bytes": ([(0, BUFFER, 0, 0, 0)], "buffer of no bytes at 0x10000"),
    "wraps around": ([(0, TOP, 2, 0, 0)], "wraps around"),
    "wraps around while long": ([(0, TOP - 5, 2**32 - 1, 0, 0)], "wraps around"),
    "last byte of all": ([(0, TOP, 1, 0, 0)], "physical range 0xffffffffffffffff"),
    "past RAM": ([(0, RAM_BYTES, 4, 0, 0)], "buffer: physical range 0x100000"),
    "over the end of RAM": ([(0, RAM_BYTES - 2, 4, 0, 0)], "buffer: physical range 0xffffe"),
    "readable after writable": (
        [(0, BUFFER, 4, NEXT | WRITE, 1), (1, BUFFER, 4, 0, 0)],
        "readable buffer after a writable one",
    ),
    "over 2^32 bytes": (
        [(0, 0, 2**32 - 1, NEXT, 1), (1, 0, 2**32 - 1, 0, 0)],
        "longer than 2\\^32 bytes",
    ),
    "indirect goes on": ([(0, TABLE, 16, INDIRECT | NEXT, 1)], "goes on after its indirect table"),
    "indirect of no bytes": ([(0, TABLE, 0, INDIRECT, 0)], "indirect table of 0 bytes"),
    "indirect of part entries": ([(0, TABLE, 17, INDIRECT, 0)], "indirect table of 17 bytes"),
    "indirect too long": (
        [(0, TABLE, 16 * 65, INDIRECT, 0)],
        "65 indirect descriptors, at most 64",
    ),
    "indirect of 4 GiB": ([(0, TABLE, 2**32 - 16, INDIRECT, 0)], "at most 64"),
    "indirect past RAM": ([(0, RAM_BYTES - 8, 16, INDIRECT, 0)], "indirect table: physical range"),
    "indirect wraps around": ([(0, TOP - 7, 16, INDIRECT, 0)], "indirect table: physical range"),
}

# Entries of the indirect table as (paddr, length, flags, next).
HOSTILE_TABLES = {
    "indirect inside indirect": ([(TABLE, 16, INDIRECT, 0)], "indirect table inside an indirect"),
    "loop in the table": ([(BUFFER, 4, NEXT, 0)], "loop or more than 1"),
    "next past the table": ([(BUFFER, 4, NEXT, 1)], "goes to descriptor 1 of 1"),
    "readable after writable": (
        [(BUFFER, 4, WRITE | NEXT, 1), (BUFFER, 4, 0, 0)],
        "readable buffer after a writable one",
    ),
    "no bytes": ([(BUFFER, 0, 0, 0)], "buffer of no bytes"),
}


@pytest.mark.parametrize("name", HOSTILE_CHAINS)
def test_a_hostile_chain_is_a_device_error_with_words(name):
    descriptors, words = HOSTILE_CHAINS[name]
    driver = console_driver()
    ring = driver.rings[1]
    for descriptor in descriptors:
        ring.put(*descriptor)
    ring.offer(0)
    ring.notify()
    with pytest.raises(DeviceError, match=words) as caught:
        driver.bus.end_round()
    assert caught.value.device == "virtio-console 0"
    assert caught.value.cause.startswith("queue 1: ")
    assert ring.collect() == {}


@pytest.mark.parametrize("name", HOSTILE_TABLES)
def test_a_hostile_indirect_table_is_a_device_error_with_words(name):
    entries, words = HOSTILE_TABLES[name]
    driver = console_driver()
    ring = driver.rings[1]
    driver.ram.write(TABLE, b"".join(struct.pack("<QIHH", *entry) for entry in entries))
    ring.put(0, TABLE, 16 * len(entries), INDIRECT, 0)
    ring.offer(0)
    ring.notify()
    with pytest.raises(DeviceError, match=words):
        driver.bus.end_round()


def test_an_indirect_table_after_a_refusal_of_the_feature_is_a_device_error():
    driver = Driver(VirtioConsole(sink=lambda _: None)).start(size=SIZE, without=INDIRECT_DESC)
    ring = driver.rings[1]
    ring.submit([(BUFFER, 4)], [], indirect=TABLE)
    ring.notify()
    with pytest.raises(DeviceError, match="not negotiated"):
        driver.bus.end_round()


@pytest.mark.parametrize(
    ("index", "words"),
    [
        (9, "avail idx jumped from 0 to 9; at most 8"),
        (65535, "avail idx jumped from 0 to 65535"),  # one backwards
    ],
)
def test_a_jump_of_the_avail_index_is_a_device_error(index, words):
    driver = console_driver()
    driver.ram.write(driver.rings[1].avail + 2, struct.pack("<H", index))
    driver.rings[1].notify()
    with pytest.raises(DeviceError, match=words):
        driver.bus.end_round()


def test_a_head_past_the_table_is_a_device_error():
    driver = console_driver()
    driver.rings[1].offer(8)
    driver.rings[1].notify()
    with pytest.raises(DeviceError, match="chain 8 goes to descriptor 8 of 8"):
        driver.bus.end_round()


def test_a_chain_through_the_whole_table_is_fine():
    output = bytearray()
    driver = Driver(VirtioConsole(sink=output.extend)).start(size=SIZE)
    ring = driver.rings[1]
    driver.ram.write(BUFFER, b"abcdefgh")
    ring.submit([(BUFFER + at, 1) for at in range(SIZE)], [])
    ring.notify()
    driver.finish_round()
    assert output == b"abcdefgh"


def test_direct_buffers_may_come_before_the_indirect_table():
    output = bytearray()
    driver = Driver(VirtioConsole(sink=output.extend)).start(size=SIZE)
    ring = driver.rings[1]
    driver.ram.write(BUFFER, b"abcd")
    driver.ram.write(TABLE, struct.pack("<QIHH", BUFFER + 2, 2, 0, 0))
    ring.put(3, BUFFER, 2, NEXT, 5)
    ring.put(5, TABLE, 16, INDIRECT | WRITE, 0)  # the write flag of a table means nothing
    ring.offer(3)
    ring.notify()
    driver.bus.end_round()
    assert output == b"abcd"


def test_rings_and_indices_wrap_around():
    """More chains than 2**16, in batches that straddle the end of the ring."""
    taken = bytearray()
    driver = Driver(VirtioConsole(sink=taken.extend)).start(size=SIZE)
    ring = driver.rings[1]
    driver.ram.write(BUFFER, bytes(range(256)))
    count = 0
    while count < 66000:
        batch = 1 + count % SIZE
        for step in range(batch):
            ring.submit([(BUFFER + (count + step) % 256, 1)], [])
        ring.notify()
        driver.finish_round()
        assert len(ring.collect()) == batch
        count += batch
    assert taken == bytes(at % 256 for at in range(count))


@given(
    lengths=st.lists(st.integers(1, 40), max_size=6),
    at=st.integers(0, 260),
)
def test_split_cuts_ranges_like_a_string(lengths, at):
    ranges, paddr = [], 0
    for length in lengths:
        ranges.append((paddr, length))
        paddr += length + 3
    everything = [p + i for p, n in ranges for i in range(n)]
    left, right = split(ranges, at)
    assert [p + i for p, n in left for i in range(n)] == everything[:at]
    assert [p + i for p, n in right for i in range(n)] == everything[at:]
    assert all(n > 0 for _, n in left + right)


def random_descriptor(rng: random.Random, size: int) -> bytes:
    """One that most chains can have; sometimes one that none can."""
    flags = rng.choice([0, NEXT, NEXT, NEXT | WRITE, WRITE, INDIRECT])
    if flags == INDIRECT:
        table = (TABLE + 64 * rng.randrange(4), 16 * rng.randint(1, 4), INDIRECT, 0)
        return struct.pack("<QIHH", *table) if rng.random() < 0.9 else rng.randbytes(16)
    length = rng.choice([1, 16, 512, 4096, rng.getrandbits(32)])
    following = rng.randrange(size) if rng.random() < 0.97 else rng.getrandbits(16)
    return struct.pack("<QIHH", rng.getrandbits(40), length, flags, following)


def test_chains_are_those_that_a_naive_walk_finds():
    rng = random.Random(7)
    found = forbidden = 0
    for _ in range(4000):
        size, ram = rng.choice([1, 2, 4, 8]), Ram(RAM_BYTES)
        start, count = rng.choice([0, 5, 65533]), rng.randint(0, size)
        ram.write(0, b"".join(random_descriptor(rng, size) for _ in range(size)))
        ram.write(TABLE, b"".join(random_descriptor(rng, 4) for _ in range(16)))
        heads = struct.pack(f"<{size}H", *(rng.randrange(size) for _ in range(size)))
        index = (start + count + 9 * (rng.random() < 0.02)) % 65536
        ram.write(0x1000, struct.pack("<HH", 1, index) + heads)
        indirect_max = rng.choice([0, 3, 8, 8, 8])
        queue = {"size": size, "indirect_max": indirect_max}
        rings = Rings(descriptors=0, driver=0x1000, avail_index=start, **queue)
        naive = naive_queue.chains(ram, table=0, avail=0x1000, index=start, **queue)
        try:
            expected = list(naive)
        except naive_queue.Forbidden:
            with pytest.raises(ValueError, match=r"chain|avail idx"):
                ram.take_chains(rings, size)
            assert rings.avail_index == start
            forbidden += 1
            continue
        flags, chains = ram.take_chains(rings, size)
        assert [(it.head, it.readable, it.writable) for it in chains] == expected
        assert (flags, rings.avail_index) == (1, (start + count) % 65536)
        for chain in chains:
            assert chain.readable_bytes == sum(length for _, length in chain.readable)
            assert chain.writable_bytes == sum(length for _, length in chain.writable)
        found += len(chains)
    assert min(found, forbidden) > 1000


def test_chains_beyond_those_that_are_wanted_stay_offered():
    driver = console_driver()
    ring = driver.rings[1]
    for at in range(5):
        ring.submit([(BUFFER + at, 1)], [])
    queue = {"size": SIZE, "indirect_max": 0, "descriptors": ring.descriptors, "driver": ring.avail}
    rings = Rings(avail_index=0, **queue)
    heads = [[it.head for it in driver.ram.take_chains(rings, 2)[1]] for _ in range(4)]
    assert [len(some) for some in heads] == [2, 2, 1, 0]
    rings.untake(3)
    assert [it.head for it in driver.ram.take_chains(rings, 9)[1]] == heads[1] + heads[2]


# Fuzz: whatever lies in the rings and is written to the registers, only DeviceError escapes.

FOLDER = SharedFolder(Path(__file__).parent)
DEVICES = {
    "block": lambda: VirtioBlock(disk=MemoryDisk(bytes(64 * 512))),
    "console": lambda: VirtioConsole(sink=lambda _: None),
    "rng": lambda: VirtioRng(seed=1),
    "9p": lambda: VirtioP9(folder=FOLDER),
    "net": lambda: VirtioNet(link=bytes(6), send=lambda _frame, _cycle: None),
}
FUZZ_RAM_BYTES = 0x8000


def hostile_descriptor(rng: random.Random) -> bytes:
    paddr = rng.choice([0, 0x4000, 0x4000, 0x4100, FUZZ_RAM_BYTES - 4, TOP, rng.getrandbits(64)])
    length = rng.choice([0, 1, 16, 16, 32, 512, 528, 2**32 - 1, rng.getrandbits(32)])
    flags = rng.choice([0, 0, NEXT, NEXT, WRITE, NEXT | WRITE, INDIRECT, rng.getrandbits(16)])
    return struct.pack("<QIHH", paddr, length, flags, rng.choice([0, 1, 2, 3, rng.getrandbits(16)]))


def write_almost_a_request(rng: random.Random, ram: Ram, ring: Ring) -> None:
    """A chain that any of our devices can serve, most times with one descriptor spoilt."""
    sector = rng.choice([0, 63, 64, TOP])
    ram.write(0x4100, struct.pack("<IIQ", rng.choice([0, 1, 4, 8, 9]), 0, sector))
    ram.write(0x4000, b"".join(hostile_descriptor(rng) for _ in range(3)))
    ring.put(0, 0x4100, 16, NEXT, 1)
    ring.put(1, 0x4200, 512, NEXT | WRITE, 2)
    ring.put(2, 0x4600, 1, WRITE, 0)
    if rng.random() < 0.8:
        spoilt = ring.descriptors + 16 * rng.randrange(4)
        ram.write(spoilt, hostile_descriptor(rng))


def started(kind: str) -> Driver:
    driver = Driver(DEVICES[kind](), ram=Ram(FUZZ_RAM_BYTES))
    return driver.start(size=4)


@pytest.mark.parametrize("kind", DEVICES)
def test_hostile_rings_raise_device_errors_only(kind):
    rng = random.Random(f"rings {kind}")
    refused = served = 0
    driver = started(kind)
    for _ in range(10_000):
        ring = rng.choice(driver.rings)
        write_almost_a_request(rng, driver.ram, ring)
        try:
            if kind == "console":
                driver.device.feed(b"typed")
            if kind == "net":
                driver.device.deliver(Frame(rng.randbytes(rng.choice([14, 60, 1500]))))
            if rng.random() < 0.9:
                ring.offer(*rng.choices([0, 0, 0, 0, 1, 2, 3, 4, 65535], k=rng.choice([1, 1, 2])))
            else:
                driver.ram.write(ring.avail, rng.randbytes(12))
            ring.notify()
            driver.bus.end_round()
            served += 1
        except DeviceError as error:
            assert error.cause
            refused += 1
            driver = started(kind)
    assert refused > 1000
    assert served > 1000


@pytest.mark.parametrize("kind", DEVICES)
@pytest.mark.parametrize("posting", [True, False])
def test_random_register_writes_raise_device_errors_only(kind, posting):
    rng = random.Random(f"registers {kind}")
    values = [0, 1, 2, 3, 4, 8, 11, 15, 0x80, 0x1000, 0x2000, 0x3000, 2**32 - 1]
    offsets = [0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x84, 0x90, 0xA0]
    driver = started(kind) if posting else Driver(DEVICES[kind](), posting=False)
    for _ in range(20_000):
        offset = rng.choice(offsets) if rng.random() < 0.9 else rng.randrange(0x200)
        size = 4 if rng.random() < 0.95 else rng.choice([1, 2, 8])
        value = rng.choice([*values, rng.getrandbits(32)]) & ((1 << 8 * size) - 1)
        try:
            if rng.random() < 0.3:
                driver.bus.read(offset & -size, size)
            else:
                driver.bus.write(offset & -size, value, size)
            if rng.random() < 0.1:
                driver.bus.end_round()
        except DeviceError as error:
            assert error.cause
            driver.bus.log.clear()
            if rng.random() < 0.2:
                driver.mmio.reset()
                if rng.random() < 0.7:
                    driver.start(size=4)
