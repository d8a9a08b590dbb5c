"""Reads of files in shared folders, through the disk cache: files that several VMs read are in memory once.

A file of a folder can change at any time: by guests, if they may write, and by anybody on the host. So each
read is a read of the host's file, and says what the guest has to see; where a page of the cache has the same
content, that is mapped read-only, and where it has not, it goes and a new one is mapped. A guest sees the same
as without the cache, and later changes of the file never reach what it has read.

What is not whole pages, of the file and of the guest's memory, is copied, and so is what there is no room for.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from disco.devices.bus import Range
from disco.devices.virtio.p9 import ReadCounters
from disco.guests.platform import PAGE_SIZE
from disco.monitor.diskcache import DiskCache, cut
from disco.monitor.memory import VmMemory

_PAGE_SHIFT = PAGE_SIZE.bit_length() - 1


class _File:
    """The cached pages of a file: it can be as long as its file system takes, and nearly all of that a hole."""

    def __init__(self, identity: tuple[int, int], files: dict[tuple[int, int], _File]) -> None:
        """It is among `files` as long as it has pages."""
        self._identity = identity
        self._files = files
        self._pages: dict[int, int] = {}

    def run(self, first: int, count: int) -> array[int]:
        return array("I", (self._pages.get(block, 0) for block in range(first, first + count)))

    def put(self, block: int, page: int) -> None:
        if page:
            self._pages[block] = page
            self._files[self._identity] = self
            return
        self._pages.pop(block, None)
        if not self._pages:
            self._files.pop(self._identity, None)


class FolderCache:
    """The files of all shared folders of a machine, by their device and number on the host."""

    def __init__(self, cache: DiskCache) -> None:
        self.cache = cache
        self._files: dict[tuple[int, int], _File] = {}

    def file(self, identity: tuple[int, int]) -> _File:
        """The cached pages of a file; whoever has its number later finds others' pages, and drops them."""
        return self._files.get(identity) or _File(identity, self._files)


class FolderReads:
    """The reads of one VM from one folder: a `FilePages`."""

    def __init__(self, folders: FolderCache, memory: VmMemory) -> None:
        """`memory` is the VM's."""
        self._folders = folders
        self._memory = memory

    def share(
        self,
        identity: tuple[int, int],
        offset: int,
        data: bytes,
        target: Sequence[Range],
        counters: ReadCounters,
    ) -> list[tuple[int, list[Range]]]:
        """Maps what can be mapped of `data`; returns what is to be copied, as its place there and ranges.

        Raises:
            GuestMemoryError: a range is not RAM.
        """
        left: list[tuple[int, list[Range]]] = []
        cache = self._folders.cache
        for at, length, ranges, is_whole in cut(offset, target):
            pages = -(-length // PAGE_SIZE)
            if not is_whole:
                counters.copied_unaligned += pages
                left.append((at - offset, ranges))
                continue
            file, first = self._folders.file(identity), at >> _PAGE_SHIFT
            part = data[at - offset : at - offset + length]
            cache.revise(file, first, part)

            def read(block: int, count: int, part: bytes = part, first: int = first) -> bytes:
                begin = (block - first) * PAGE_SIZE
                return part[begin : begin + count * PAGE_SIZE]

            rest = cache.map(read, file, first, ranges, memory=self._memory)
            full = sum(length for _, some in rest for _, length in some) >> _PAGE_SHIFT
            counters.mapped += pages - full
            counters.copied_full += full
            left += [((block << _PAGE_SHIFT) - offset, some) for block, some in rest]
        return left
