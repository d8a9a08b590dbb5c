"""virtio-9p (device 9): a shared folder of the host for a guest, by messages of 9P2000.L on one queue.

A request has the guest's message in its readable part and room for the answer in its writable part. The
configuration space has the tag by which the guest mounts the folder.

A message without a header, or without room for an error as its answer, stops the VM; so does one that is
longer than any that the server agrees to. Whatever is in a message is answered.

Source: Virtual I/O Device 1.2 only reserves the number; Linux 6.1, net/9p/trans_virtio.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from disco.devices.bus import SavedState, claimed_state
from disco.devices.p9 import HEADER, MESSAGE_BYTES_MAX, Fid, Server
from disco.devices.virtio.device import VirtioDevice
from disco.devices.virtio.queue import Chain, Virtqueue
from disco.storage.folder import SharedFolder

DEVICE_ID = 9
QUEUE_SIZE_MAX = 128  # Linux counts on as many descriptors in a chain

FEATURE_MOUNT_TAG = 1 << 0
ANSWER_BYTES_MIN = HEADER.size + 4

STATE_VERSION = 1


@dataclass(frozen=True)
class P9State(SavedState):
    """The guest's fids. The files are the host's and not saved."""

    fids: tuple[tuple[int, Fid], ...]


class VirtioP9(VirtioDevice):
    """A `SharedFolder` for a guest."""

    device_id = DEVICE_ID
    queue_sizes_max = (QUEUE_SIZE_MAX,)

    def __init__(self, *, folder: SharedFolder) -> None:
        """The folder stays its owner's to close."""
        super().__init__(features=FEATURE_MOUNT_TAG)
        self._tag = folder.tag.encode()
        self._server = Server(folder)

    def config(self) -> bytes:
        return struct.pack("<H", len(self._tag)) + self._tag

    def reset(self) -> None:
        self._server.reset()

    def serve(self, index: int, queue: Virtqueue) -> None:
        for chain in queue.chains():
            self._check(queue, chain)
            answer = self._server.answer(queue.gather(chain.readable))
            answer = answer[: chain.writable_bytes]  # what there is no room for is the guest's loss
            queue.scatter(chain.writable, answer)
            queue.complete(chain, len(answer))

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
