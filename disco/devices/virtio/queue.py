"""Split virtqueues (section 2.7): how a guest hands buffers to a device and gets them back.

    descriptor table   size * 16 bytes   buffers: address, length, flags, index of the next in the
                                         chain
    driver area        the avail ring    flags, idx, heads of the chains that the guest offers
    device area        the used ring     flags, idx, (head, bytes written) of the chains given back

Everything in the first two is a claim. The engine walks the chains (`engine/machine/src/virtqueue.rs`)
and checks every index, flag and length before a byte of their buffers is touched; what section 2.7
forbids raises `DeviceError` with the values. Addresses are checked where they are used: the memory
refuses what is not RAM.

Each call into guest memory crosses to the engine, so chains are taken many at a time and given back
with one write. That is sound because guests do not run meanwhile; a buffer that overlaps its own
rings harms nobody but its owner.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from disco._engine import Chain as Chain  # what devices get from a queue
from disco._engine import Rings
from disco.devices.bus import GuestMemory, GuestMemoryError, Range
from disco.devices.virtio.fragments import Fragments, PageAccount
from disco.errors import DeviceError

DESCRIPTOR_BYTES = 16
RING_HEADER = struct.Struct("<HH")  # flags, idx
AVAIL_NO_INTERRUPT = 1
AVAIL_ENTRY_BYTES = 2
USED_ENTRY = struct.Struct("<II")  # head, bytes written
INDEX_MODULUS = 1 << 16

#: Chains that are taken at a time.
_BATCH = 32

T = TypeVar("T")


def split(ranges: Sequence[Range], at: int) -> tuple[list[Range], list[Range]]:
    """The first `at` bytes of `ranges`, and the rest. How a guest cuts a request is free."""
    for place, (paddr, length) in enumerate(ranges):
        if at < length:
            left, right = list(ranges[:place]), list(ranges[place:])
            if at:
                left.append((paddr, at))
                right[0] = (paddr + at, length - at)
            return left, right
        at -= length
    return list(ranges), []


@dataclass(frozen=True)
class QueueState:
    """A queue's registers and where it is in its rings. An area not yet given is None."""

    size: int
    descriptor_area: int | None
    driver_area: int | None
    device_area: int | None
    is_ready: bool
    avail_index: int
    used_index: int


class Virtqueue:
    """One queue: its registers (set by the transport) and its rings (walked by the device)."""

    def __init__(self, *, device: str, index: int, size_max: int, memory: GuestMemory) -> None:
        """`device` is the device's name, for messages; `size_max` a power of two."""
        self._device = device
        self._index = index
        self.size_max = size_max
        self._memory = memory
        self.reset()

    def reset(self) -> None:
        self.size = 0
        self.descriptor_area: int | None = None
        self.driver_area: int | None = None
        self.device_area: int | None = None
        self.is_ready = False
        self.is_indirect_allowed = False  # as negotiated; kept by the transport
        self.is_interrupt_wanted = True  # as the avail ring's flags said last
        self._rings: Rings | None = None  # while it is in service
        self._used_index = 0
        self._completions: list[tuple[int, int]] = []
        self._tails: list[tuple[int, bytes]] = []

    # Set-up.

    def make_ready(self) -> None:
        """Checks size, alignment and place of the three areas; the rings begin at index 0."""
        size = self.size
        if not 0 < size <= self.size_max or size & (size - 1):
            self.refuse(f"size {size} is not a power of two up to {self.size_max}")
        self._check_area("descriptor table", self.descriptor_area, 16, size * DESCRIPTOR_BYTES)
        avail_bytes = RING_HEADER.size + size * AVAIL_ENTRY_BYTES
        self._check_area("avail ring", self.driver_area, 2, avail_bytes)
        used_bytes = RING_HEADER.size + size * USED_ENTRY.size
        self._check_area("used ring", self.device_area, 4, used_bytes)
        self._used_index = 0
        self._begin(avail_index=0)

    def _begin(self, *, avail_index: int) -> None:
        """From here on the device may walk the rings."""
        self._rings = Rings(
            size=self.size,
            indirect_max=self.size_max if self.is_indirect_allowed else 0,
            descriptors=_given(self.descriptor_area),
            driver=_given(self.driver_area),
            avail_index=avail_index,
        )
        self.is_ready = True

    def _check_area(self, what: str, paddr: int | None, alignment: int, length: int) -> None:
        if paddr is None:
            self.refuse(f"ready without an address for the {what}")
        if paddr % alignment:
            self.refuse(f"{what} at {paddr:#x} is not aligned to {alignment} bytes")
        self._read(paddr, length, what)

    # The device's side: take chains, move bytes, give chains back.

    def chains(self) -> Iterator[Chain]:
        """Walks the chains offered and not yet taken; each one yielded is to be completed."""
        rings = _given(self._rings)
        wanted = min(_BATCH, self.size)
        while True:
            batch = self._take(rings, wanted)
            rest = len(batch)
            try:
                for chain in batch:
                    rest -= 1
                    yield chain
            finally:
                rings.untake(rest)  # whoever asked has enough
            if len(batch) < wanted:
                return

    def _take(self, rings: Rings, wanted: int) -> list[Chain]:
        try:
            flags, batch = self._memory.take_chains(rings, wanted)
        except ValueError as error:
            self.refuse(str(error))
        self.is_interrupt_wanted = not flags & AVAIL_NO_INTERRUPT
        return batch

    def untake(self, count: int) -> None:
        """Puts the last `count` chains back, untouched: `chains` yields them again."""
        _given(self._rings).untake(count)

    def complete(
        self, chain: Chain, written: int, *, tail: tuple[int, bytes] | None = None
    ) -> None:
        """Notes that `chain` is done, with `written` bytes stored in its writable part.

        `tail` are bytes of it that are still to be stored, and where.
        """
        self._completions.append((chain.head, written))
        if tail is not None:
            self._tails.append(tail)

    def publish(self) -> bool:
        """Gives the completed chains back to the guest. True if there were any."""
        completions, tails = self._completions, self._tails
        if not completions:
            return False
        self._completions, self._tails = [], []
        if tails:
            self._write(tails, "buffer")
        device_area = _given(self.device_area)
        entries = b"".join([USED_ENTRY.pack(*completion) for completion in completions])
        first = self._used_index % self.size
        until_wrap = (self.size - first) * USED_ENTRY.size
        ring = device_area + RING_HEADER.size
        pieces = [(ring + first * USED_ENTRY.size, entries[:until_wrap])]
        if len(entries) > until_wrap:
            pieces.append((ring, entries[until_wrap:]))
        self._used_index = (self._used_index + len(completions)) % INDEX_MODULUS
        pieces.append((device_area, RING_HEADER.pack(0, self._used_index)))
        self._write(pieces, "used ring")
        return True

    def gather(self, ranges: Sequence[Range]) -> bytes:
        """The bytes of `ranges`, joined."""
        try:
            return self._memory.gather(ranges)
        except GuestMemoryError as error:
            self._refuse_place(error, "buffer")

    def scatter(self, ranges: Sequence[Range], data: bytes) -> None:
        """Stores `data` over the first `len(data)` bytes of `ranges`."""
        pieces, at = [], 0
        for paddr, length in ranges:
            part = data[at : at + length]
            if not part:
                break
            pieces.append((paddr, part))
            at += len(part)
        self._write(pieces, "buffer")

    def lend(self, ranges: Sequence[Range]) -> Fragments:
        """The bytes of `ranges` where they are, until VMs run again."""
        try:
            return Fragments(self._memory, ranges)
        except GuestMemoryError as error:
            self._refuse_place(error, "buffer")

    def store(
        self,
        fragments: Fragments,
        target: Sequence[Range],
        account: PageAccount,
        *,
        remap: bool,
    ) -> None:
        """Stores what another VM has lent over `target`, which is as long; see `Fragments.store`."""
        try:
            fragments.store(self._memory, target, account, remap=remap)
        except GuestMemoryError as error:
            self._refuse_place(error, "buffer")

    def discard(self, ranges: Sequence[Range]) -> int:
        """Takes the whole pages of `ranges` away from the VM; see `GuestMemory.discard`."""
        try:
            return self._memory.discard(ranges)
        except GuestMemoryError as error:
            self._refuse_place(error, "page")

    def refuse(self, cause: str) -> NoReturn:
        """Raises the `DeviceError` that stops this VM."""
        raise DeviceError(device=self._device, cause=f"queue {self._index}: {cause}")

    # Memory, with the name of what was looked for in the message.

    def _read(self, paddr: int, length: int, what: str) -> bytes:
        try:
            return self._memory.read(paddr, length)
        except GuestMemoryError as error:
            self._refuse_place(error, what)

    def _write(self, pieces: Sequence[tuple[int, bytes]], what: str) -> None:
        try:
            self._memory.write_pieces(pieces)
        except GuestMemoryError as error:
            self._refuse_place(error, what)

    def _refuse_place(self, error: GuestMemoryError, what: str) -> NoReturn:
        cause = f"queue {self._index}: {what}: {error}"
        raise DeviceError(device=self._device, cause=cause) from error

    # Saved state. Chains are taken and given back within one call, so none is ever under way.

    def save(self) -> QueueState:
        assert not self._completions, "saved between taking chains and giving them back"
        return QueueState(
            size=self.size,
            descriptor_area=self.descriptor_area,
            driver_area=self.driver_area,
            device_area=self.device_area,
            is_ready=self.is_ready,
            avail_index=self._rings.avail_index if self._rings is not None else 0,
            used_index=self._used_index,
        )

    def restore(self, state: QueueState) -> None:
        """Goes on from `state`; the queue is as after `reset`, and knows what was negotiated."""
        self.size = state.size
        self.descriptor_area = state.descriptor_area
        self.driver_area = state.driver_area
        self.device_area = state.device_area
        self._used_index = state.used_index
        if state.is_ready:
            self._begin(avail_index=state.avail_index)


def _given(what: T | None) -> T:
    assert what is not None, "a queue in service has its areas and rings"
    return what
