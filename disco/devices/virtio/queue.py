"""Split virtqueues (section 2.7): how a guest hands buffers to a device and gets them back.

    descriptor table   size * 16 bytes   buffers: address, length, flags, index of the next in the
    chain driver area        the avail ring    flags, idx, heads of the chains that the guest offers
    device area        the used ring     flags, idx, (head, bytes written) of the chains given back

Everything in the first two is a claim. A chain is walked with every index, flag and length checked
before a byte of its buffers is touched, and a claim that section 2.7 forbids raises `DeviceError`
with the values. Addresses are checked where they are used: the memory refuses what is not RAM.

Each call into guest memory crosses to the engine, so a batch reads the avail ring once and the
descriptor table once, and returns all its chains with at most three writes. That is sound because
guests do not run meanwhile; a buffer that overlaps its own rings harms nobody but its owner.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from disco.devices.bus import GuestMemory, GuestMemoryError
from disco.errors import DeviceError

DESCRIPTOR = struct.Struct("<QIHH")  # address, length, flags, next
DESCRIPTOR_NEXT = 1
DESCRIPTOR_WRITE = 2  # for the device to write; otherwise for it to read
DESCRIPTOR_INDIRECT = 4

RING_HEADER = struct.Struct("<HH")  # flags, idx
AVAIL_NO_INTERRUPT = 1
AVAIL_ENTRY_BYTES = 2
USED_ENTRY = struct.Struct("<II")  # head, bytes written
INDEX_MODULUS = 1 << 16
CHAIN_BYTES_MAX = 1 << 32
ADDRESS_END = 1 << 64

Range = tuple[int, int]  # physical address, length in bytes


@dataclass(frozen=True, slots=True)
class Chain:
    """One request of the guest: buffers the device may read, then buffers it may write."""

    head: int
    readable: Sequence[Range]
    writable: Sequence[Range]

    @property
    def readable_bytes(self) -> int:
        return sum(length for _, length in self.readable)

    @property
    def writable_bytes(self) -> int:
        return sum(length for _, length in self.writable)


def split(ranges: Sequence[Range], at: int) -> tuple[list[Range], list[Range]]:
    """The first `at` bytes of `ranges`, and the rest. How a guest cuts a request is free."""
    left: list[Range] = []
    right: list[Range] = []
    for paddr, length in ranges:
        taken = min(at, length)
        if taken:
            left.append((paddr, taken))
        if taken < length:
            right.append((paddr + taken, length - taken))
        at -= taken
    return left, right


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
        self._avail_index = 0  # next entry of the avail ring, modulo 2**16
        self._used_index = 0
        self._completions: list[tuple[int, int]] = []

    # Set-up.

    def make_ready(self) -> None:
        """Checks size, alignment and place of the three areas; the rings begin at index 0."""
        size = self.size
        if not 0 < size <= self.size_max or size & (size - 1):
            self.refuse(f"size {size} is not a power of two up to {self.size_max}")
        self._check_area("descriptor table", self.descriptor_area, 16, size * DESCRIPTOR.size)
        avail_bytes = RING_HEADER.size + size * AVAIL_ENTRY_BYTES
        self._check_area("avail ring", self.driver_area, 2, avail_bytes)
        used_bytes = RING_HEADER.size + size * USED_ENTRY.size
        self._check_area("used ring", self.device_area, 4, used_bytes)
        self._avail_index = 0
        self._used_index = 0
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
        heads = self._offered_heads()
        if not heads:
            return
        table = self._read(
            _given(self.descriptor_area), self.size * DESCRIPTOR.size, "descriptor table"
        )
        for head in heads:
            self._avail_index = (self._avail_index + 1) % INDEX_MODULUS
            yield self._walk(table, head)

    def untake(self, count: int) -> None:
        """Puts the last `count` chains back, untouched: `chains` yields them again."""
        self._avail_index = (self._avail_index - count) % INDEX_MODULUS

    def complete(self, chain: Chain, written: int) -> None:
        """Notes that `chain` is done, with `written` bytes stored in its writable part."""
        self._completions.append((chain.head, written))

    def publish(self) -> bool:
        """Gives the completed chains back to the guest. True if there were any."""
        if not self._completions:
            return False
        device_area = _given(self.device_area)
        entries = b"".join(USED_ENTRY.pack(*completion) for completion in self._completions)
        first = self._used_index % self.size
        until_wrap = (self.size - first) * USED_ENTRY.size
        ring = device_area + RING_HEADER.size
        self._write(ring + first * USED_ENTRY.size, entries[:until_wrap], "used ring")
        if len(entries) > until_wrap:
            self._write(ring, entries[until_wrap:], "used ring")
        self._used_index = (self._used_index + len(self._completions)) % INDEX_MODULUS
        self._write(device_area, RING_HEADER.pack(0, self._used_index), "used ring")
        self._completions.clear()
        return True

    def gather(self, ranges: Sequence[Range]) -> bytes:
        """The bytes of `ranges`, joined."""
        if len(ranges) == 1:
            return self._read(*ranges[0], "buffer")
        return b"".join(self._read(paddr, length, "buffer") for paddr, length in ranges)

    def scatter(self, ranges: Sequence[Range], data: bytes) -> None:
        """Stores `data` over the first `len(data)` bytes of `ranges`."""
        at = 0
        for paddr, length in ranges:
            part = data[at : at + length]
            if not part:
                break
            self._write(paddr, part, "buffer")
            at += len(part)

    def refuse(self, cause: str) -> NoReturn:
        """Raises the `DeviceError` that stops this VM."""
        raise DeviceError(device=self._device, cause=f"queue {self._index}: {cause}")

    # Walking.

    def _offered_heads(self) -> list[int]:
        """Heads in the avail ring from our index to the guest's."""
        length = RING_HEADER.size + self.size * AVAIL_ENTRY_BYTES
        ring = self._read(_given(self.driver_area), length, "avail ring")
        flags, index = RING_HEADER.unpack_from(ring)
        self.is_interrupt_wanted = not flags & AVAIL_NO_INTERRUPT
        count = (index - self._avail_index) % INDEX_MODULUS
        if count > self.size:
            self.refuse(
                f"avail idx jumped from {self._avail_index} to {index}; "
                f"at most {self.size} chains fit"
            )
        entries = struct.unpack_from(f"<{self.size}H", ring, RING_HEADER.size)
        return [entries[(self._avail_index + step) % self.size] for step in range(count)]

    def _walk(self, table: bytes, head: int) -> Chain:
        """Follows the chain from `head`, through at most one indirect table at its end."""
        readable: list[Range] = []
        writable: list[Range] = []
        index, limit, is_indirect, steps = head, self.size, False, 0
        while True:
            if index >= limit:
                self.refuse(f"chain {head} goes to descriptor {index} of {limit}")
            if steps == limit:
                self.refuse(f"chain {head} has a loop or more than {limit} descriptors")
            steps += 1
            paddr, length, flags, following = DESCRIPTOR.unpack_from(table, index * DESCRIPTOR.size)
            if flags & DESCRIPTOR_INDIRECT:
                self._check_indirect(head, length, flags, is_indirect)
                table = self._read(paddr, length, "indirect table")
                index, limit, is_indirect, steps = 0, length // DESCRIPTOR.size, True, 0
                continue
            self._check_buffer(head, paddr, length)
            if flags & DESCRIPTOR_WRITE:
                writable.append((paddr, length))
            elif writable:
                self.refuse(f"chain {head} has a readable buffer after a writable one")
            else:
                readable.append((paddr, length))
            if not flags & DESCRIPTOR_NEXT:
                break
            index = following
        chain = Chain(head, readable, writable)
        if chain.readable_bytes + chain.writable_bytes > CHAIN_BYTES_MAX:
            self.refuse(f"chain {head} is longer than 2^32 bytes")
        return chain

    def _check_indirect(self, head: int, length: int, flags: int, is_indirect: bool) -> None:
        """One table, negotiated, last in its chain, of whole entries (section 2.7.5.3.1).

        Its length is held to the largest size of the queue, not the size chosen: Linux sizes
        requests by the device's limits even where it was short of memory for the full ring.
        """
        if not self.is_indirect_allowed:
            self.refuse(f"chain {head} has an indirect table, which was not negotiated")
        if is_indirect:
            self.refuse(f"chain {head} has an indirect table inside an indirect table")
        if flags & DESCRIPTOR_NEXT:
            self.refuse(f"chain {head} goes on after its indirect table")
        if length == 0 or length % DESCRIPTOR.size:
            self.refuse(f"chain {head} has an indirect table of {length} bytes, not entries of 16")
        if length > self.size_max * DESCRIPTOR.size:
            count = length // DESCRIPTOR.size
            self.refuse(f"chain {head} has {count} indirect descriptors, at most {self.size_max}")

    def _check_buffer(self, head: int, paddr: int, length: int) -> None:
        if length == 0:
            self.refuse(f"chain {head} has a buffer of no bytes at {paddr:#x}")
        if paddr + length > ADDRESS_END:
            self.refuse(f"chain {head} has a buffer of {length} bytes at {paddr:#x}: wraps around")

    # Memory, with the name of what was looked for in the message.

    def _read(self, paddr: int, length: int, what: str) -> bytes:
        try:
            return self._memory.read(paddr, length)
        except GuestMemoryError as error:
            self._refuse_place(error, what)

    def _write(self, paddr: int, data: bytes, what: str) -> None:
        try:
            self._memory.write(paddr, data)
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
            avail_index=self._avail_index,
            used_index=self._used_index,
        )

    def restore(self, state: QueueState) -> None:
        self.reset()
        self.size = state.size
        self.descriptor_area = state.descriptor_area
        self.driver_area = state.driver_area
        self.device_area = state.device_area
        self.is_ready = state.is_ready
        self._avail_index = state.avail_index
        self._used_index = state.used_index


def _given(paddr: int | None) -> int:
    assert paddr is not None, "a queue in service has its areas"
    return paddr
