"""Copy-on-write: a disk that is a base which nobody writes, and the blocks in which it differs from it.

A block is 4 KiB, the size of a machine page and of the blocks of most file systems. What a VM writes goes
into a `Modifications`, of which there are two kinds: `MemoryModifications`, lost with the process, and those
of a `Store` (`disco.storage.store`), which last. Any number of disks can have one base.

Source: Disco (SOSP'97) section 4.2.5.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Protocol

from disco.closing import Closing
from disco.storage.disk import (
    SECTOR_BYTES,
    CacheableDisk,
    Disk,
    DiskError,
    check_range,
    check_write,
)

BLOCK_BYTES = 4096
BLOCK_SECTORS = BLOCK_BYTES // SECTOR_BYTES

#: What a disk that is lost at power-off may hold of its own, unless the user says something else.
MEMORY_LIMIT_BYTES = 1 << 30


def blocks_of(sector_count: int) -> int:
    """Blocks of a disk; the last one may be half there."""
    return -(-sector_count // BLOCK_SECTORS)


class Modifications(Protocol):
    """The blocks of a disk that differ from its base.

    Attributes:
        present: a byte a block, 1 for a block that is in here.
    """

    present: bytearray

    def read(self, first: int, count: int) -> Mapping[int, bytes]:
        """Those of `count` blocks from `first` on that are in here; raises `DiskError`."""

    def write(self, blocks: Mapping[int, bytes]) -> None:
        """Takes whole blocks, all or, with `DiskError`, none."""

    def flush(self) -> None:
        """Returns when all that was taken would survive a host crash, if it ever will."""


class MemoryModifications:
    """Blocks in the process's memory, up to a limit."""

    def __init__(self, *, name: str, block_count: int, limit_bytes: int) -> None:
        """`name` is the disk's, for messages."""
        self.present = bytearray(block_count)
        self._name = name
        self._limit_bytes = limit_bytes
        self._blocks: dict[int, bytes] = {}

    def read(self, first: int, count: int) -> Mapping[int, bytes]:
        numbers = range(first, first + count)
        return {number: self._blocks[number] for number in numbers if self.present[number]}

    def write(self, blocks: Mapping[int, bytes]) -> None:
        new = sum(not self.present[number] for number in blocks)
        if (len(self._blocks) + new) * BLOCK_BYTES > self._limit_bytes:
            raise DiskError(
                image=self._name,
                operation="write",
                where=f" of {len(blocks)} blocks",
                error=OSError(
                    errno.ENOSPC,
                    f"its modifications would need more than {self._limit_bytes >> 20} MiB of"
                    " memory, which is their limit",
                ),
            )
        for number, data in blocks.items():
            self._blocks[number] = data
            self.present[number] = 1

    def flush(self) -> None:
        """Nothing to do: they last as long as the process."""


class CowDisk(Closing):
    """A base with modifications. Writable; the base is only read. A context manager."""

    is_read_only = False

    def __init__(
        self,
        base: Disk,
        modifications: Modifications,
        *,
        close: Callable[[], None] = lambda: None,
        own_key: Hashable | None = None,
    ) -> None:
        """`close` gives back what is behind the disk; `own_key` is a key for the modifications, if nobody adds
        any."""
        self._base = base
        self._own = modifications
        self._close = close
        self._own_key = own_key
        self._cacheable_base = base if isinstance(base, CacheableDisk) else None

    def close(self) -> None:
        """Gives back what is behind it."""
        self._close()

    @property
    def sector_count(self) -> int:
        return self._base.sector_count

    @property
    def modified_bytes(self) -> int:
        """What the disk has of its own: whole blocks, in bytes."""
        return self._own.present.count(1) * BLOCK_BYTES

    def modified_ranges(self) -> Iterator[tuple[int, int]]:
        """Runs of modified sectors, as first sector and count, in order."""
        present, start = self._own.present, 0
        while (start := present.find(1, start)) >= 0:
            end = present.find(0, start)
            end = len(present) if end < 0 else end
            first, last = start * BLOCK_SECTORS, min(end * BLOCK_SECTORS, self.sector_count)
            yield first, last - first
            start = end

    def read(self, sector: int, count: int) -> bytes:
        check_range(self, sector, count)
        first, end = sector // BLOCK_SECTORS, blocks_of(sector + count)
        if self._own.present.find(1, first, end) < 0:
            return self._base.read(sector, count)
        own = self._own.read(first, end - first)
        if len(own) < end - first:
            data = bytearray(self._base.read(sector, count))
        else:
            data = bytearray(count * SECTOR_BYTES)
        start, length = sector * SECTOR_BYTES, count * SECTOR_BYTES
        for number, block in own.items():
            at = number * BLOCK_BYTES - start
            skipped = max(0, -at)
            part = block[skipped : skipped + length - max(0, at)]
            data[max(0, at) : max(0, at) + len(part)] = part
        return bytes(data)

    def cacheable_runs(self, block: int, count: int) -> Sequence[tuple[Hashable | None, int, int]]:
        """The base's blocks with its keys, and those of the disk's own with their key, if they have one."""
        present, end = self._own.present, block + count
        if present.find(1, block, end) < 0:
            return self._runs_of_base(block, count)
        runs: list[tuple[Hashable | None, int, int]] = []
        while block < end:
            is_own = present[block]
            found = present.find(1 - is_own, block, end)
            stop = end if found < 0 else found
            if is_own:
                runs.append((self._own_key, block, stop - block))
            else:
                runs += self._runs_of_base(block, stop - block)
            block = stop
        return runs

    def _runs_of_base(self, block: int, count: int) -> Sequence[tuple[Hashable | None, int, int]]:
        if self._cacheable_base is None:
            return [(None, block, count)]
        return self._cacheable_base.cacheable_runs(block, count)

    def write(self, sector: int, data: bytes) -> None:
        check_write(self, sector, data)
        start, end = sector * SECTOR_BYTES, sector * SECTOR_BYTES + len(data)
        blocks: dict[int, bytes] = {}
        for number in range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES)):
            at = number * BLOCK_BYTES
            part = data[max(0, at - start) : at + BLOCK_BYTES - start]
            if len(part) < BLOCK_BYTES:
                part = self._patched(number, max(0, start - at), part)
            blocks[number] = bytes(part)
        if blocks:
            self._own.write(blocks)

    def _patched(self, number: int, offset: int, part: bytes) -> bytes:
        """The block as it is now, with `part` put in at `offset`."""
        sector = number * BLOCK_SECTORS
        old = self.read(sector, min(BLOCK_SECTORS, self.sector_count - sector))
        block = bytearray(old.ljust(BLOCK_BYTES, b"\0"))
        block[offset : offset + len(part)] = part
        return bytes(block)

    def flush(self) -> None:
        self._own.flush()


class ZeroDisk:
    """A base of zeros: what a disk without contents reads as until it is written."""

    is_read_only = True

    def __init__(self, sector_count: int) -> None:
        self.sector_count = sector_count

    def read(self, sector: int, count: int) -> bytes:
        check_range(self, sector, count)
        return bytes(count * SECTOR_BYTES)

    def write(self, sector: int, data: bytes) -> None:
        raise AssertionError("write to a base")

    def flush(self) -> None:
        """Nothing was written."""
