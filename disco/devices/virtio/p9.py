"""virtio-9p (device 9): a shared folder of the host for a guest, by messages of 9P2000.L on one queue.

A request has the guest's message in its readable part and room for the answer in its writable part. The
configuration space has the tag by which the guest mounts the folder.

A message without a header, or without room for an error as its answer, stops the VM; so does one that is
longer than any that the server agrees to. Whatever is in a message is answered.

The content of a file lies behind the head of its answer, where Linux has the pages of whoever reads: whole
aligned pages need not be copied there.

Source: Virtual I/O Device 1.2 only reserves the number; Linux 6.1, net/9p/trans_virtio.c.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from disco.devices.bus import GuestMemoryError, Range, SavedState, claimed_state
from disco.devices.p9 import HEADER, MESSAGE_BYTES_MAX, Fid, FileData, Server
from disco.devices.virtio.device import VirtioDevice
from disco.devices.virtio.queue import Chain, Virtqueue, split
from disco.storage.folder import SharedFolder

DEVICE_ID = 9
QUEUE_SIZE_MAX = 128  # Linux counts on as many descriptors in a chain

FEATURE_MOUNT_TAG = 1 << 0
ANSWER_BYTES_MIN = HEADER.size + 4

#: What the counters count in.
PAGE_BYTES = 4096

STATE_VERSION = 1


@dataclass(frozen=True)
class P9State(SavedState):
    """The guest's fids. The files are the host's and not saved."""

    fids: tuple[tuple[int, Fid], ...]


@dataclass
class ReadCounters:
    """What became of the pages of files that a guest has read.

    Attributes:
        mapped: pages of machine memory that others have or may have too.
        copied_unaligned: copied, since file or memory were not at a page's beginning, or for less than a page.
        copied_full: copied, since all that the cache may have is mapped.
        copied_uncached: copied, since there is no cache.
    """

    mapped: int = 0
    copied_unaligned: int = 0
    copied_full: int = 0
    copied_uncached: int = 0


class FilePages(Protocol):
    """Reads that need no copy, where pages with that content are in machine memory, or can be."""

    def share(
        self,
        identity: tuple[int, int],
        offset: int,
        data: bytes,
        target: Sequence[Range],
        counters: ReadCounters,
    ) -> list[tuple[int, list[Range]]]:
        """Puts what it can of `data` into `target`, which is as long, and counts.

        Args:
            identity, offset: device and number of the file on the host, and where in it the data is.

        Returns:
            What is left, as its place in the data and ranges.

        Raises:
            GuestMemoryError: a range is not RAM.
        """


class VirtioP9(VirtioDevice):
    """A `SharedFolder` for a guest.

    Attributes:
        tag: by which it is mounted.
        counters: what became of what has been read.
    """

    device_id = DEVICE_ID
    queue_sizes_max = (QUEUE_SIZE_MAX,)

    def __init__(self, *, folder: SharedFolder, pages: FilePages | None = None) -> None:
        """The folder stays its owner's to close; `pages` is asked first for what is read."""
        super().__init__(features=FEATURE_MOUNT_TAG)
        self.tag = folder.tag
        self.counters = ReadCounters()
        self._pages = pages
        self._server = Server(folder)

    def config(self) -> bytes:
        tag = self.tag.encode()
        return struct.pack("<H", len(tag)) + tag

    def reset(self) -> None:
        self._server.reset()

    def serve(self, index: int, queue: Virtqueue) -> None:
        for chain in queue.chains():
            self._check(queue, chain)
            answer = self._server.answer(queue.gather(chain.readable))
            head, room = split(chain.writable, len(answer.head))
            queue.scatter(head, answer.head)
            written = min(len(answer.head), chain.writable_bytes)
            if answer.data is not None:
                written += self._put(queue, answer.data, room)
            queue.complete(chain, written)

    def _put(self, queue: Virtqueue, data: FileData, room: list[Range]) -> int:
        """Stores content of a file; what there is no room for is the guest's loss."""
        length = min(len(data.content), sum(length for _, length in room))
        content, (target, _) = data.content[:length], split(room, length)
        if self._pages is None:
            self.counters.copied_uncached += -(-length // PAGE_BYTES)
            queue.scatter(target, content)
            return length
        try:
            left = self._pages.share(data.identity, data.offset, content, target, self.counters)
        except GuestMemoryError as error:
            queue.refuse(f"buffer: {error}")
        for at, ranges in left:
            queue.scatter(ranges, content[at : at + sum(length for _, length in ranges)])
        return length

    @staticmethod
    def _check(queue: Virtqueue, chain: Chain) -> None:
        readable, writable = chain.readable_bytes, chain.writable_bytes
        if not HEADER.size <= readable <= MESSAGE_BYTES_MAX or writable < ANSWER_BYTES_MIN:
            queue.refuse(
                f"chain {chain.head} has {readable} readable and {writable} writable bytes; a message has"
                f" {HEADER.size} to {MESSAGE_BYTES_MAX}, its answer {ANSWER_BYTES_MIN} or more"
            )

    def save(self) -> P9State:
        return P9State(version=STATE_VERSION, fids=self._server.save())

    def restore(self, state: object) -> None:
        saved = claimed_state(state, P9State, version=STATE_VERSION, device="virtio-9p")
        self._server.restore(saved.fids)
