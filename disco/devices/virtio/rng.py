"""virtio-rng (section 5.4): random bytes for the guest, the same in every run with the same seed.

Block n of the stream is BLAKE2b of n under a key made from the seed, so the state is one counter
and a restored VM goes on where it was. The bytes are as good as the seed is secret: fit for
simulation, and for nothing that needs real randomness.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from disco.devices.bus import SavedState, claimed_state
from disco.devices.virtio.device import VirtioDevice
from disco.devices.virtio.queue import Virtqueue

DEVICE_ID = 4
QUEUE_SIZE_MAX = 8
BLOCK_BYTES = 64  # BLAKE2b's digest
FILL_BYTES_MAX = 4096  # section 5.4.6 lets the device fill less than the buffer

STATE_VERSION = 1


@dataclass(frozen=True)
class RngState(SavedState):
    """The key, and the number of the next block of the stream."""

    key: bytes
    block: int


class VirtioRng(VirtioDevice):
    """A source of pseudo-random bytes."""

    device_id = DEVICE_ID
    queue_sizes_max = (QUEUE_SIZE_MAX,)

    def __init__(self, *, seed: int) -> None:
        """Two devices with one `seed` give one stream; a machine derives one seed for each VM."""
        super().__init__(features=0)
        self._key = hashlib.blake2b(str(seed).encode(), digest_size=BLOCK_BYTES).digest()
        self._block = 0

    def config(self) -> bytes:
        return b""

    def serve(self, index: int, queue: Virtqueue) -> None:
        for chain in queue.chains():
            if not chain.writable:
                queue.refuse(f"chain {chain.head} has no writable buffer for random bytes")
            data = self._draw(min(chain.writable_bytes, FILL_BYTES_MAX))
            queue.scatter(chain.writable, data)
            queue.complete(chain, len(data))

    def _draw(self, length: int) -> bytes:
        """The next `length` bytes; the rest of the last block is thrown away."""
        first = self._block
        self._block += -(-length // BLOCK_BYTES)
        blocks = (
            hashlib.blake2b(number.to_bytes(8, "little"), key=self._key).digest()
            for number in range(first, self._block)
        )
        return b"".join(blocks)[:length]

    def save(self) -> RngState:
        return RngState(version=STATE_VERSION, key=self._key, block=self._block)

    def restore(self, state: object) -> None:
        saved = claimed_state(state, RngState, version=STATE_VERSION, device="virtio-rng")
        self._key = saved.key
        self._block = saved.block
