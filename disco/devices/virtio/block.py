"""virtio-blk (section 5.2): a disk of 512-byte sectors on one queue.

A request is a header (type, reserved, sector), the data, and a status byte that the device writes
last:

    readable   16 bytes header, then for OUT the data
    writable   for IN and GET_ID the data, then 1 byte status

A request the disk cannot do (outside it, not whole sectors, too long, read-only, refused by the
host) ends with VIRTIO_BLK_S_IOERR; one we do not know with VIRTIO_BLK_S_UNSUPP. Only a chain
without room for header and status stops the VM. A write is durable after a flush, or at once for a
driver that did not take VIRTIO_BLK_F_FLUSH.

The host's own errors are reported once for each operation and error number, so that a full host
disk does not fill the log as well.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from disco._engine import Chain
from disco.devices.bus import GuestMemoryError, Range, SavedState, claimed_state
from disco.devices.virtio.device import VirtioDevice
from disco.devices.virtio.queue import Virtqueue, split
from disco.storage.disk import SECTOR_BYTES, Disk, DiskError

DEVICE_ID = 2
QUEUE_SIZE_MAX = 128

FEATURE_SIZE_MAX = 1 << 1
FEATURE_SEG_MAX = 1 << 2
FEATURE_RO = 1 << 5
FEATURE_BLK_SIZE = 1 << 6
FEATURE_FLUSH = 1 << 9

SEGMENT_BYTES_MAX = 64 << 10
SEGMENT_COUNT_MAX = QUEUE_SIZE_MAX - 2  # header and status take a descriptor each
REQUEST_BYTES_MAX = SEGMENT_BYTES_MAX * SEGMENT_COUNT_MAX  # bounds what one request makes us hold

CONFIG = struct.Struct("<QII4xI")  # capacity, size_max, seg_max, geometry (not offered), blk_size
HEADER = struct.Struct("<II Q")  # type, reserved, sector


class Type:
    """Requests that we know, section 5.2.6."""

    IN = 0
    OUT = 1
    FLUSH = 4
    GET_ID = 8


STATUS_OK = 0
STATUS_IOERR = 1
STATUS_UNSUPP = 2
STATUS_BYTES = 1

ID_BYTES = 20
STATE_VERSION = 1

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BlockState(SavedState):
    """Nothing under way between calls; the sectors are saved with the disk, not with the device."""


@dataclass
class BlockCounters:
    """What a guest has asked of its disk: requests, those that failed, flushes, and bytes."""

    requests: int = 0
    errors: int = 0
    flushes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


class PageReader(Protocol):
    """Reads that need neither I/O nor a copy, where pages of the disk are in machine memory."""

    def read(self, sector: int, target: Sequence[Range]) -> list[tuple[int, list[Range]]]:
        """Puts into `target` what it can of the sectors from `sector` on.

        Returns:
            What is left, as first sectors and ranges.

        Raises:
            GuestMemoryError: a range is not RAM.
            DiskError: the host cannot read the disk.
        """


class VirtioBlock(VirtioDevice):
    """A `Disk` for a guest.

    Attributes:
        counters: what has been asked of it.
    """

    device_id = DEVICE_ID
    queue_sizes_max = (QUEUE_SIZE_MAX,)

    def __init__(
        self,
        *,
        disk: Disk,
        serial: str = "",
        pages: PageReader | None = None,
        report: Callable[[DiskError], None] = lambda error: logger.error("%s", error),
    ) -> None:
        """`serial` answers GET_ID, cut to 20 bytes; `pages` is asked first for what is read; `report` gets the
        errors of the host's disk."""
        features = FEATURE_SIZE_MAX | FEATURE_SEG_MAX | FEATURE_BLK_SIZE | FEATURE_FLUSH
        super().__init__(features=features | (FEATURE_RO if disk.is_read_only else 0))
        self.counters = BlockCounters()
        self._disk = disk
        self._pages = pages
        self._id = serial.encode()[:ID_BYTES].ljust(ID_BYTES, b"\0")
        self._report = report
        self._reported: set[tuple[str, int | None]] = set()
        self._config = CONFIG.pack(
            disk.sector_count, SEGMENT_BYTES_MAX, SEGMENT_COUNT_MAX, SECTOR_BYTES
        )

    def config(self) -> bytes:
        return self._config

    def serve(self, index: int, queue: Virtqueue) -> None:
        for chain in queue.chains():
            self._handle(queue, chain)

    def _handle(self, queue: Virtqueue, chain: Chain) -> None:
        """Does one request and completes it."""
        writable_bytes = chain.writable_bytes
        if chain.readable_bytes < HEADER.size or writable_bytes < STATUS_BYTES:
            queue.refuse(
                f"chain {chain.head} has {chain.readable_bytes} readable and {writable_bytes} "
                f"writable bytes; a request needs {HEADER.size} and {STATUS_BYTES}"
            )
        header, source = split(chain.readable, HEADER.size)
        target, [(status_at, _)] = split(chain.writable, writable_bytes - STATUS_BYTES)
        kind, _, sector = HEADER.unpack(queue.gather(header))
        try:
            if kind == Type.IN:
                length = writable_bytes - STATUS_BYTES
                status, written = self._read(queue, sector, target, length)
            else:
                status, written = self._perform(queue, kind, sector, source, target)
        except DiskError as error:
            self._report_once(error)
            status, written = STATUS_IOERR, 0
        except GuestMemoryError as error:
            queue.refuse(f"buffer: {error}")
        self.counters.requests += 1
        self.counters.errors += status == STATUS_IOERR
        queue.complete(chain, written + STATUS_BYTES, tail=(status_at, bytes((status,))))

    def _perform(
        self, queue: Virtqueue, kind: int, sector: int, source: list[Range], target: list[Range]
    ) -> tuple[int, int]:
        """Status of a request that is no read, and how many bytes of data the guest got."""
        match kind:
            case Type.OUT:
                return self._write(queue, sector, source), 0
            case Type.FLUSH:
                self._disk.flush()
                self.counters.flushes += 1
                return STATUS_OK, 0
            case Type.GET_ID:
                answer = self._id[: _total(target)]
                queue.scatter(target, answer)
                return STATUS_OK, len(answer)
            case _:
                return STATUS_UNSUPP, 0

    def _read(
        self, queue: Virtqueue, sector: int, target: list[Range], length: int
    ) -> tuple[int, int]:
        if not self._is_on_disk(sector, length):
            return STATUS_IOERR, 0
        pieces = [(sector, target)] if self._pages is None else self._pages.read(sector, target)
        for first, ranges in pieces:
            queue.scatter(ranges, self._disk.read(first, _total(ranges) // SECTOR_BYTES))
        self.counters.read_bytes += length
        return STATUS_OK, length

    def _write(self, queue: Virtqueue, sector: int, source: list[Range]) -> int:
        if self._disk.is_read_only or not self._is_on_disk(sector, _total(source)):
            return STATUS_IOERR
        data = queue.gather(source)
        self._disk.write(sector, data)
        self.counters.written_bytes += len(data)
        if not self.accepted_features & FEATURE_FLUSH:
            self._disk.flush()
        return STATUS_OK

    def _is_on_disk(self, sector: int, length: int) -> bool:
        count, rest = divmod(length, SECTOR_BYTES)
        is_whole = rest == 0 and length <= REQUEST_BYTES_MAX
        return is_whole and sector + count <= self._disk.sector_count

    def _report_once(self, error: DiskError) -> None:
        key = (error.operation, error.errno)
        if key not in self._reported:
            self._reported.add(key)
            self._report(error)

    def save(self) -> BlockState:
        return BlockState(version=STATE_VERSION)

    def restore(self, state: object) -> None:
        claimed_state(state, BlockState, version=STATE_VERSION, device="virtio-blk")


def _total(ranges: list[Range]) -> int:
    return sum(length for _, length in ranges)
