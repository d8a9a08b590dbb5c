"""The disk as a guest drives it, against a list of sectors; and what each bad request gets."""

from __future__ import annotations

import errno
import random
import struct
from itertools import pairwise

import pytest
from virtio_driver import Driver

from disco.devices.virtio.block import VirtioBlock
from disco.errors import DeviceError
from disco.storage.disk import SECTOR_BYTES, DiskError, MemoryDisk

IN, OUT, FLUSH, GET_ID = 0, 1, 4, 8
OK, IOERR, UNSUPP = 0, 1, 2
SECTORS = 64
HEADER_AT, STATUS_AT, DATA_AT, TABLE_AT = 0x8000, 0x8100, 0x10000, 0x9000
FLUSH_FEATURE = 1 << 9


class FailingDisk(MemoryDisk):
    """A disk whose host has a problem."""

    error: OSError | None = None

    def write(self, sector: int, data: bytes) -> None:
        self._fail("write")
        super().write(sector, data)

    def flush(self) -> None:
        self.flush_count = getattr(self, "flush_count", 0) + 1
        self._fail("flush")

    def _fail(self, operation: str) -> None:
        if self.error is not None:
            raise DiskError(image="x.img", operation=operation, where="", error=self.error)


class Disk:
    """A guest with one virtio disk."""

    def __init__(self, disk: MemoryDisk | None = None, **start) -> None:
        self.disk = disk or FailingDisk(bytes(SECTORS * SECTOR_BYTES))
        self.reports: list[str] = []
        block = VirtioBlock(
            disk=self.disk, serial="disco-0", report=lambda error: self.reports.append(str(error))
        )
        self.driver = Driver(block, name="virtio-blk 0").start(**start)
        self.ring = self.driver.rings[0]

    def submit(self, kind, sector, source=(), target=(), *, slot=0, indirect=None) -> int:
        """Offers a request whose data lies in the ranges `source` or `target`."""
        header, status = HEADER_AT + 16 * slot, STATUS_AT + slot
        self.driver.ram.write(header, struct.pack("<IIQ", kind, 0, sector))
        self.driver.ram.write(status, b"\xee")
        return self.ring.submit([(header, 16), *source], [*target, (status, 1)], indirect=indirect)

    def status(self, slot: int = 0) -> int:
        return self.driver.ram.read(STATUS_AT + slot, 1)[0]

    def run(self) -> dict[int, int]:
        self.ring.notify()
        self.driver.finish_round()
        return self.ring.collect()

    def finish(self, head: int) -> tuple[int, int]:
        written = self.run()[head]
        return self.status(), written


def do(guest: Disk, kind, sector, source=(), target=()) -> tuple[int, int]:
    return guest.finish(guest.submit(kind, sector, source, target))


def cut(rng: random.Random, paddr: int, length: int) -> list[tuple[int, int]]:
    """One stretch of memory as a few ranges, at any byte."""
    marks = sorted({0, length, *(rng.randrange(1, length) for _ in range(rng.randrange(3)))})
    return [(paddr + a, b - a) for a, b in pairwise(marks)]


@pytest.mark.parametrize("seed", range(4))
def test_a_disk_under_random_requests_agrees_with_a_list(seed):
    """Batches of up to four requests, direct and indirect, cut anywhere, restored midway."""
    rng = random.Random(seed)
    guest = Disk(size=64)
    model = [bytes(SECTOR_BYTES)] * SECTORS
    for _ in range(400):
        expected: list[tuple[int, bytes]] = []
        for slot in range(rng.randint(1, 4)):
            sector = rng.randrange(SECTORS)
            count = rng.randint(1, min(8, SECTORS - sector))
            length = count * SECTOR_BYTES
            paddr = DATA_AT + 0x2000 * slot + rng.randrange(16)
            indirect = TABLE_AT + 0x100 * slot if rng.random() < 0.5 else None
            ranges = cut(rng, paddr, length)
            if rng.random() < 0.5:
                data = rng.randbytes(length)
                guest.driver.ram.write(paddr, data)
                guest.submit(OUT, sector, source=ranges, slot=slot, indirect=indirect)
                for at in range(count):
                    model[sector + at] = data[SECTOR_BYTES * at : SECTOR_BYTES * (at + 1)]
            else:
                guest.submit(IN, sector, target=ranges, slot=slot, indirect=indirect)
                expected.append((paddr, b"".join(model[sector : sector + count])))
        if rng.random() < 0.1:
            guest.driver.mmio.restore(guest.driver.mmio.save())
        guest.run()
        assert {guest.status(at) for at in range(slot + 1)} == {OK}
        for paddr, data in expected:
            assert guest.driver.ram.read(paddr, len(data)) == data, f"seed {seed}"
    assert guest.disk.read(0, SECTORS) == b"".join(model)


@pytest.mark.parametrize(
    ("kind", "sector", "length", "status"),
    [
        (IN, SECTORS, SECTOR_BYTES, IOERR),
        (IN, SECTORS - 1, 2 * SECTOR_BYTES, IOERR),
        (IN, 2**64 - 1, SECTOR_BYTES, IOERR),  # sector + count wraps in 64 bits
        (IN, 2**55, SECTOR_BYTES, IOERR),  # its byte offset wraps
        (IN, 0, SECTOR_BYTES - 1, IOERR),
        (IN, 0, SECTOR_BYTES, OK),
        (IN, SECTORS - 1, SECTOR_BYTES, OK),
        (OUT, SECTORS, SECTOR_BYTES, IOERR),
        (OUT, 0, SECTOR_BYTES + 1, IOERR),
        (OUT, SECTORS - 1, SECTOR_BYTES, OK),
        (11, 0, SECTOR_BYTES, UNSUPP),  # DISCARD, not offered
        (2**32 - 1, 0, SECTOR_BYTES, UNSUPP),
    ],
)
def test_a_request_the_disk_cannot_do_ends_with_a_status(kind, sector, length, status):
    guest = Disk()
    ranges = [(DATA_AT, length)]
    is_out = kind == OUT
    result = do(guest, kind, sector, ranges if is_out else (), () if is_out else ranges)
    assert result == (status, 1 + (length if status == OK and kind == IN else 0))


class HugeDisk(MemoryDisk):
    """A terabyte, none of which may be asked for at once."""

    sector_count = 1 << 31

    def read(self, sector: int, count: int) -> bytes:
        raise AssertionError(f"{count} sectors read")


def test_a_request_over_the_stated_limits_is_an_io_error_and_costs_no_memory():
    """64 descriptors over one megabyte ask for 64 MiB; the limit is 126 segments of 64 KiB."""
    guest = Disk(HugeDisk(bytes(SECTOR_BYTES)), size=128)
    whole = [(0, 1 << 20)] * 64
    assert do(guest, IN, 0, target=whole) == (IOERR, 1)
    assert do(guest, OUT, 0, source=whole) == (IOERR, 1)


@pytest.mark.parametrize(
    ("readable", "writable"),
    [
        ([(HEADER_AT, 16)], []),  # no status byte
        ([(HEADER_AT, 15)], [(STATUS_AT, 1)]),
        ([], [(STATUS_AT, 1)]),
        ([], [(DATA_AT, 512), (STATUS_AT, 1)]),
    ],
)
def test_a_chain_without_room_for_header_and_status_is_a_device_error(readable, writable):
    guest = Disk()
    guest.ring.submit(readable, writable)
    with pytest.raises(DeviceError, match=r"virtio-blk 0: queue 0: .* a request needs 16 and 1"):
        guest.run()


def test_a_header_and_status_may_be_cut_anywhere():
    guest = Disk()
    guest.driver.ram.write(HEADER_AT, struct.pack("<IIQ", OUT, 0, 5) + b"x" * 511)
    guest.driver.ram.write(HEADER_AT + 527, b"y")
    guest.ring.submit(
        [(HEADER_AT, 3), (HEADER_AT + 3, 30), (HEADER_AT + 33, 495)], [(STATUS_AT, 1)]
    )
    guest.run()
    assert guest.disk.read(5, 1) == b"x" * 511 + b"y"
    assert guest.status() == OK


@pytest.mark.parametrize("length", [20, 5, 100])
def test_get_id_answers_the_serial(length):
    guest = Disk()
    assert do(guest, GET_ID, 0, target=[(DATA_AT, length)]) == (OK, min(length, 20) + 1)
    assert guest.driver.ram.read(DATA_AT, min(length, 20)) == b"disco-0".ljust(20, b"\0")[:length]


def test_configuration_states_capacity_limits_and_block_size():
    guest = Disk()
    words = [guest.driver.read(0x100 + 4 * at) for at in range(6)]
    assert words == [SECTORS, 0, 64 << 10, 126, 0, 512]
    assert guest.driver.offered_features() == 1 << 32 | 1 << 28 | 1 << 9 | 1 << 6 | 1 << 2 | 1 << 1


def test_a_read_only_disk_says_so_and_fails_writes():
    guest = Disk(MemoryDisk(bytes(SECTORS * SECTOR_BYTES), read_only=True))
    assert guest.driver.offered_features() & 1 << 5
    assert do(guest, OUT, 0, source=[(DATA_AT, 512)]) == (IOERR, 1)
    assert do(guest, IN, 0, target=[(DATA_AT, 512)]) == (OK, 513)
    assert do(guest, FLUSH, 0) == (OK, 1)
    assert guest.reports == []


@pytest.mark.parametrize(("without", "flushes"), [(0, 1), (FLUSH_FEATURE, 3)])
def test_writes_are_durable_at_once_for_a_driver_that_does_not_flush(without, flushes):
    guest = Disk(without=without)
    do(guest, OUT, 0, source=[(DATA_AT, 512)])
    do(guest, OUT, 1, source=[(DATA_AT, 512)])
    do(guest, FLUSH, 0)
    assert guest.disk.flush_count == flushes


def test_an_error_of_the_host_is_the_guests_io_error_and_reported_once():
    guest = Disk()
    guest.disk.error = OSError(errno.ENOSPC, "No space left on device")
    for _ in range(5):
        assert do(guest, OUT, 0, source=[(DATA_AT, 512)]) == (IOERR, 1)
    assert guest.reports == ["disk image 'x.img': write failed: No space left on device"]
    assert do(guest, FLUSH, 0) == (IOERR, 1)
    guest.disk.error = OSError(errno.EIO, "Input/output error")
    assert do(guest, OUT, 0, source=[(DATA_AT, 512)]) == (IOERR, 1)
    assert len(guest.reports) == 3  # another operation, another error
    guest.disk.error = None
    assert do(guest, OUT, 0, source=[(DATA_AT, 512)]) == (OK, 1)


def test_a_bad_buffer_stops_the_vm_before_the_disk_changes():
    guest = Disk()
    guest.submit(OUT, 0, source=[(DATA_AT, 256), ((1 << 20) - 128, 256)])
    with pytest.raises(DeviceError, match="buffer: physical range"):
        guest.run()
    assert guest.disk.read(0, 1) == bytes(512)
