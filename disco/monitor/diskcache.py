"""The global disk cache: what one VM has read from a disk, others read without I/O and without a copy.

A machine page holds a block of an image as long as somebody maps it, and longer if there is room. A VM that
reads whole aligned pages gets them mapped read-only in place of its own; the first write to one faults, and
Disco copies it (`Pages.unshare`). So the page caches, programs and libraries of all VMs on one image are in
machine memory once. The guest notices nothing: it is as if its disk had written the pages.

Of disks, only blocks that nobody can write are cached: those of an image that is open read-only or as the
base of copy-on-write disks. What a VM has written itself is copied to it, like all that is not whole aligned
pages. Files of shared folders (`disco.monitor.foldercache`) may change at any time: each read of one is a read
of the host's file, and only pages that still have its content are mapped.

Which pages are cached is decided here, between rounds; the engine fills, maps and copies them. Of the
pages that no VM maps, the one that was cached first goes first.

Source: Disco (SOSP'97) section 4.2.5.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from disco import _engine
from disco._engine import Engine
from disco.devices.bus import Range
from disco.devices.virtio.queue import split
from disco.guests.platform import PAGE_SIZE
from disco.hardware.machine import Machine
from disco.monitor.memory import VmMemory
from disco.storage.cow import BLOCK_BYTES, BLOCK_SECTORS
from disco.storage.disk import SECTOR_BYTES, CacheableDisk

assert BLOCK_BYTES == PAGE_SIZE, "a page holds a block"

_ROW_BYTES = int(_engine.memmap_dtype["itemsize"])
_USERS_AT = int(_engine.memmap_dtype["offsets"][_engine.memmap_dtype["names"].index("users")])
_PAGE_SHIFT = PAGE_SIZE.bit_length() - 1
_IN_PAGE = PAGE_SIZE - 1
#: How many pages more than needed are looked at for one that nobody maps, before the search is given up.
_PATIENCE = 256


@dataclass
class CacheCounters:
    """What became of the pages that guests have read, and of those of the cache.

    Attributes:
        hits: were in machine memory, and were mapped.
        misses: were read from the disk into the cache, and mapped.
        copied_unaligned: copied, since disk or memory were not at a page's beginning, or for less than a page.
        copied_own: copied, since the VM's own disk has them, or it can be written.
        copied_full: copied, since all that the cache may have is mapped.
        evicted: pages that the cache gave up.
    """

    hits: int = 0
    misses: int = 0
    copied_unaligned: int = 0
    copied_own: int = 0
    copied_full: int = 0
    evicted: int = 0


#: Reads blocks that are not cached: from their first number, how many.
ReadBlocks = Callable[[int, int], bytes]


class Cached(Protocol):
    """The cached pages of a disk or file: a machine page a block, 0 for none."""

    def run(self, first: int, count: int) -> array[int]:
        """Those of `count` blocks."""

    def put(self, block: int, page: int) -> None:
        """From now on this is the block's page."""


class _Image:
    """A disk: most of its blocks are read some time."""

    def __init__(self, block_count: int) -> None:
        self._pages = array("I", bytes(4 * block_count))

    def run(self, first: int, count: int) -> array[int]:
        return self._pages[first : first + count]

    def put(self, block: int, page: int) -> None:
        self._pages[block] = page


class DiskCache:
    """The cache of a machine.

    Attributes:
        capacity_pages: how many pages it may have.
        counters: what has been counted.
    """

    def __init__(self, engine: Engine, machine: Machine, *, capacity_pages: int) -> None:
        self.capacity_pages = capacity_pages
        self.counters = CacheCounters()
        self._engine = engine
        self._memmap = engine.memmap().cast("B")
        self._rows_per_node = len(self._memmap) // _ROW_BYTES // machine.nodes
        self._orders = [machine.nodes_by_distance(node) for node in range(machine.nodes)]
        self._images: dict[Hashable, _Image] = {}
        #: Where each cached machine page belongs, the one cached first first.
        self._places: dict[int, tuple[Cached, int]] = {}

    @property
    def pages(self) -> int:
        """Machine pages in the cache, mapped or not."""
        return len(self._places)

    @property
    def unused_pages(self) -> int:
        """Those of them that no VM maps."""
        return sum(not self._users(page) for page in self._places)

    def image(self, key: Hashable, block_count: int) -> _Image:
        """The cached pages of the image with that key."""
        if (image := self._images.get(key)) is None:
            image = self._images[key] = _Image(block_count)
        return image

    def map(
        self,
        read: ReadBlocks,
        image: Cached,
        first: int,
        target: Sequence[Range],
        *,
        memory: VmMemory,
    ) -> list[tuple[int, list[Range]]]:
        """Maps blocks of an image from `first` on over whole pages of a VM.

        Args:
            read: for blocks that are not cached.
            target: whole aligned pages.
            memory: the VM's. Blocks that are not cached go to its node, if there is room.

        Returns:
            Blocks for which there is no room, as their first number and their part of the target.

        Raises:
            GuestMemoryError: a range is not RAM; nothing has been mapped then.
            DiskError: a block cannot be read; nothing has been mapped then.
        """
        count = sum([length for _, length in target]) >> _PAGE_SHIFT
        pages = image.run(first, count)
        missing = pages.count(0)
        if not missing:
            memory.map_cached(target, pages.tobytes())
            self.counters.hits += count
            return []
        self._fill(read, image, first, pages, missing, memory.node)
        left = pages.count(0)
        self.counters.hits += count - missing
        self.counters.misses += missing - left
        self.counters.copied_full += left
        return _map_runs(memory, first, pages, target)

    def _fill(
        self,
        read: ReadBlocks,
        image: Cached,
        first: int,
        pages: array[int],
        missing: int,
        node: int,
    ) -> None:
        """Reads the blocks whose machine page is 0 in `pages`, and fills those in, as far as there is room."""
        over = len(self._places) + missing - self.capacity_pages
        if over > 0:
            self._evict(over, keep=frozenset(pages), patience=_PATIENCE)
        for start, count in _zeros(pages):
            wanted = min(count, self.capacity_pages - len(self._places))
            if wanted <= 0:
                return
            new = self._allocate(read(first + start, wanted), node)
            for at, page in enumerate(new, start):
                pages[at] = page
                image.put(first + at, page)
                self._places[page] = (image, first + at)

    def _allocate(self, contents: bytes, node: int) -> list[int]:
        new: list[int] = []
        for candidate in self._orders[node]:
            new += self._engine.fill_cache(candidate, contents[len(new) * PAGE_SIZE :])
            if len(new) * PAGE_SIZE == len(contents):
                break
        return new

    # -- giving up --------------------------------------------------------------------------

    def reclaim(self, node: int, count: int = 64) -> bool:
        """Frees up to `count` pages of a node that no VM maps. False: there is none."""
        return self._evict(count, node=node, patience=len(self._places)) > 0

    def _users(self, page: int) -> int:
        return self._memmap[page * _ROW_BYTES + _USERS_AT]

    def _evict(
        self,
        count: int,
        *,
        keep: frozenset[int] = frozenset(),
        node: int | None = None,
        patience: int,
    ) -> int:
        """Drops up to `count` unused pages; those in use on the way go to the end of the line."""
        victims: list[int] = []
        passed: list[int] = []
        for page in self._places:
            if len(victims) == count or len(passed) > patience:
                break
            is_elsewhere = node is not None and page // self._rows_per_node != node
            if self._users(page) or page in keep or is_elsewhere:
                passed.append(page)
            else:
                victims.append(page)
        for page in passed:
            self._places[page] = self._places.pop(page)
        self._drop(victims)
        self.counters.evicted += len(victims)
        return len(victims)

    def revise(self, image: Cached, first: int, contents: bytes) -> None:
        """Drops those of an image's pages, from block `first` on, that have another content than this.

        Args:
            contents: of whole blocks.
        """
        pages = image.run(first, len(contents) >> _PAGE_SHIFT)
        known = [(page, at) for at, page in enumerate(pages) if page]
        if known:
            theirs = [contents[at * PAGE_SIZE : (at + 1) * PAGE_SIZE] for _, at in known]
            found = self._engine.differing([page for page, _ in known], theirs)
            self._drop([known[at][0] for at in found])

    def _drop(self, pages: Sequence[int]) -> None:
        for page in pages:
            image, block = self._places.pop(page)
            image.put(block, 0)
        if pages:
            self._engine.drop_cached(pages)


def _map_runs(
    memory: VmMemory, first: int, pages: array[int], target: Sequence[Range]
) -> list[tuple[int, list[Range]]]:
    """Maps all but the zeros of `pages`, whose first is for block `first`; returns these as `map` does."""
    left: list[tuple[int, list[Range]]] = []
    rest: Sequence[Range] = target
    at = 0
    for start, count in [*_zeros(pages), (len(pages), 0)]:
        mapped, rest = split(rest, (start - at) * PAGE_SIZE)
        if mapped:
            memory.map_cached(mapped, pages[at:start].tobytes())
        at = start + count
        part, rest = split(rest, count * PAGE_SIZE)
        if part:
            left.append((first + start, part))
    return left


def _zeros(pages: array[int]) -> list[tuple[int, int]]:
    """The runs of zeros, as first index and length."""
    runs: list[tuple[int, int]] = []
    for at, page in enumerate(pages):
        if page:
            continue
        if runs and sum(runs[-1]) == at:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((at, 1))
    return runs


def cut(offset: int, target: Sequence[Range]) -> Iterator[tuple[int, int, list[Range], bool]]:
    """Cuts what is read from `offset` on into what is whole pages on both sides, and what is not.

    Yields:
        Offset, bytes and ranges of each part, and whether it is whole aligned pages.
    """
    whole: list[Range] = []
    whole_bytes = 0
    for paddr, length in target:
        aligned = 0 if (paddr | offset) & _IN_PAGE else length & ~_IN_PAGE
        if aligned:
            whole.append((paddr, aligned))
            whole_bytes += aligned
            offset += aligned
        if aligned < length:
            if whole:
                yield offset - whole_bytes, whole_bytes, whole, True
                whole, whole_bytes = [], 0
            rest = length - aligned
            yield offset, rest, [(paddr + aligned, rest)], False
            offset += rest
    if whole:
        yield offset - whole_bytes, whole_bytes, whole, True


class MappedReads:
    """The reads of one VM from one disk, through the cache: a `PageReader`."""

    def __init__(self, *, cache: DiskCache, disk: CacheableDisk, memory: VmMemory) -> None:
        """`memory` is the VM's."""
        self._cache = cache
        self._disk = disk
        self._memory = memory
        self._blocks = disk.sector_count // BLOCK_SECTORS

    def read(self, sector: int, target: Sequence[Range]) -> list[tuple[int, list[Range]]]:
        """Maps what can be mapped of a read; returns what is to be copied, as first sector and ranges.

        Raises:
            GuestMemoryError: a range is not RAM.
            DiskError: the host cannot read the disk.
        """
        pieces = _Pieces()
        for offset, length, ranges, is_whole in cut(sector * SECTOR_BYTES, target):
            if is_whole:
                self._map(offset, length, ranges, pieces)
            else:
                pieces.add(offset, ranges)
                self._cache.counters.copied_unaligned += -(-length // PAGE_SIZE)
        return pieces.done

    def _map(self, offset: int, length: int, target: list[Range], pieces: _Pieces) -> None:
        """Maps what can be mapped of whole pages of the disk from `offset` on."""
        first = offset >> _PAGE_SHIFT
        part, rest = target, target
        for key, start, count in self._disk.cacheable_runs(first, length >> _PAGE_SHIFT):
            if count * PAGE_SIZE < length:
                part, rest = split(rest, count * PAGE_SIZE)
            if key is None:
                pieces.add(start * PAGE_SIZE, part)
                self._cache.counters.copied_own += count
                continue
            image = self._cache.image(key, self._blocks)
            for block, ranges in self._cache.map(
                self._read_blocks, image, start, part, memory=self._memory
            ):
                pieces.add(block * PAGE_SIZE, ranges)

    def _read_blocks(self, first: int, count: int) -> bytes:
        return self._disk.read(first * BLOCK_SECTORS, count * BLOCK_SECTORS)


class _Pieces:
    """What is left to copy: stretches of the disk, each with the memory that it goes to."""

    def __init__(self) -> None:
        self.done: list[tuple[int, list[Range]]] = []
        self._end = -1

    def add(self, offset: int, ranges: Sequence[Range]) -> None:
        """Stretches that follow each other on the disk are one; all begin at a sector."""
        if offset == self._end:
            self.done[-1][1].extend(ranges)
        else:
            self.done.append((offset // SECTOR_BYTES, list(ranges)))
        self._end = offset + sum(length for _, length in ranges)
