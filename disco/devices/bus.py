"""What a device and the rest of a VM know of each other.

A guest's access to a device window is answered by Python, which is slow next to the engine: a
kernel that prints through a polled UART would spend most of its time crossing over. Two permissions
that a device gives to the engine keep Python out of such paths without changing one visible answer:

    latched   a read without side effect. The engine answers with the value latched last. posted
    a write that changes nothing a guest can see before the device is next asked. The engine appends
    it to a log, which the device gets in one call.

The log reaches `Device.posted` at the end of the round, and always before any other call of that
device: a trapped access, `save`, `reset`. So the device sees every write in the order in which the
guest made them. Permissions are never duties. An engine may trap every access, and the guest cannot
tell.

An access covered by a permission starts at the declared offset and is not longer than the declared
size. Values are unsigned and little-endian, as the bus is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, Protocol, TypeVar

from disco._engine import Chain, Rings, take_chains
from disco.errors import DeviceError, DiscoError, ImageError

#: Pages that can be discarded.
DISCARD_BYTES = 4096

#: A stretch of physical memory: address, length in bytes.
Range = tuple[int, int]


class GuestMemoryError(DiscoError):
    """A range of physical addresses is not, or not wholly, RAM of that VM. Nothing was read or
    written.

    Attributes:
        paddr: first physical address of the range.
        length: size of the range in bytes.
    """

    def __init__(self, *, paddr: int, length: int) -> None:
        super().__init__(f"physical range {paddr:#x} + {length:#x} bytes is not RAM of this VM")
        self.paddr = paddr
        self.length = length


class GuestMemory(Protocol):
    """The physical memory of one VM as a device sees it (DMA).

    A memory that can do many things in one call does better than what is written out here.
    """

    @abstractmethod
    def read(self, paddr: int, length: int) -> bytes:
        """Returns `length` bytes from physical address `paddr`; raises `GuestMemoryError`."""

    @abstractmethod
    def write(self, paddr: int, data: bytes) -> None:
        """Stores `data` at physical address `paddr`; raises `GuestMemoryError`."""

    def gather(self, ranges: Sequence[Range]) -> bytes:
        """The bytes of all ranges, joined; raises `GuestMemoryError`."""
        return b"".join(self.read(paddr, length) for paddr, length in ranges)

    def write_pieces(self, pieces: Sequence[tuple[int, bytes]]) -> None:
        """Stores each piece at its physical address; raises `GuestMemoryError`."""
        for paddr, data in pieces:
            self.write(paddr, data)

    def check(self, ranges: Sequence[Range]) -> None:
        """Whether all ranges are RAM; raises `GuestMemoryError`."""
        self.gather(ranges)

    def copy_from(
        self,
        source: GuestMemory,
        ranges: Sequence[Range],
        target: Sequence[Range],
        *,
        remap: bool = False,
    ) -> tuple[int, int]:
        """Stores what another VM's memory has in `ranges` over `target`, which is as long.

        Args:
            remap: map whole pages of the source where they meet whole pages of the target, rather than copy.

        Returns:
            How many pages meet so, and how many have been mapped.

        Raises:
            GuestMemoryError: a range of either is not RAM.
        """
        data, at, pieces = source.gather(ranges), 0, []
        for paddr, length in target:
            pieces.append((paddr, data[at : at + length]))
            at += length
        self.write_pieces(pieces)
        return 0, 0

    def discard(self, ranges: Sequence[Range]) -> int:
        """Forgets the content of the whole pages in `ranges`: they read as zero until they are written again.

        Returns:
            How many pages of the machine have become free.

        Raises:
            GuestMemoryError: a range is not RAM; nothing has changed.
        """
        self.check(ranges)
        for paddr, length in ranges:
            first, end = -(-paddr // DISCARD_BYTES), (paddr + length) // DISCARD_BYTES
            if first < end:
                self.write(first * DISCARD_BYTES, bytes((end - first) * DISCARD_BYTES))
        return 0

    def take_chains(self, rings: Rings, wanted: int) -> tuple[int, list[Chain]]:
        """Takes chains that the guest offers; see `Engine.take_chains`."""
        return take_chains(self, rings, wanted)


class Interrupt(Protocol):
    """Bits that are set while a guest has something to see, and a line that is high meanwhile.

    The engine keeps them, answers the register in which a guest reads them, and carries out the stores to
    the one that clears them. So the device need not be told of either.
    """

    def update(self, *, cleared: int = 0, raised: int = 0) -> int:
        """Clears some of the bits, then sets some; what they are then."""


class InterruptLine(Protocol):
    """A level-triggered input of the VM's interrupt controller."""

    def set(self, level: bool) -> None:
        """Drives the line. Idempotent; devices call it when the level changes."""


class Wiring(Protocol):
    """How a device tells the engine which accesses need not come to it; see this file's head."""

    def latch(self, offset: int, size: int, value: int) -> None:
        """Reads at `offset` of up to `size` bytes now return the low bytes of `value`."""

    def post(self, offset: int, size: int) -> None:
        """Writes at `offset` of up to `size` bytes now go to the log."""

    def trap(self, offset: int, size: int) -> None:
        """Reads and writes at `offset` come to the device again."""


class PostedWrite(NamedTuple):
    """One write that the engine logged instead of trapping."""

    cycle: int  # simulated time of the access
    offset: int  # byte offset in the device's window
    size: int  # bytes: 1, 2, 4 or 8
    value: int


class Declarations:
    """What a device has declared of each register, so that only changes cross to the engine."""

    def __init__(self, *, wiring: Wiring, size: int) -> None:
        """`size` is the width in bytes of each register declared through this object."""
        self._wiring = wiring
        self._size = size
        self._declared: dict[int, tuple[int | None, bool]] = {}

    def declare(self, offset: int, *, latched: int | None = None, posted: bool = False) -> None:
        """States all that holds for the register at `offset`; `latched=None`: reads trap."""
        latched_before, posted_before = self._declared.get(offset, (None, False))
        if (latched, posted) == (latched_before, posted_before):
            return
        self._declared[offset] = (latched, posted)
        withdrawn = (latched is None and latched_before is not None) or (
            posted_before and not posted
        )
        if withdrawn:
            self._wiring.trap(offset, self._size)
        if latched is not None and (withdrawn or latched != latched_before):
            self._wiring.latch(offset, self._size, latched)
        if posted and (withdrawn or not posted_before):
            self._wiring.post(offset, self._size)


class Device(ABC):
    """One device of one VM, seen through a window of its physical address space.

    The bus hands over accesses inside the window, `size` being 1, 2, 4 or 8 bytes. Whatever the
    guest asks is a claim: what the device's specification forbids raises `DeviceError`, which stops
    that VM.

    Attributes:
        name: as messages show it, such as "virtio-blk 0".
        window_bytes: size of the window.
    """

    window_bytes: int

    def __init__(self, *, name: str) -> None:
        self.name = name

    @abstractmethod
    def read(self, offset: int, size: int) -> int:
        """Answers a trapped read; unsigned."""

    @abstractmethod
    def write(self, offset: int, size: int, value: int) -> None:
        """Takes a trapped write; `value` fits in `size` bytes."""

    def posted(self, writes: Sequence[PostedWrite]) -> None:
        """Takes the logged writes since the last call, oldest first.

        Correct for every device; those with a busy posted register do better.
        """
        for posted in writes:
            self.write(posted.offset, posted.size, posted.value)

    @abstractmethod
    def reset(self) -> None:
        """Power-on state of what the guest sees. The host's end (disk, pending input) stays."""

    @abstractmethod
    def save(self) -> object:
        """Everything that `restore` needs: a frozen dataclass of plain values with a `version`."""

    @abstractmethod
    def restore(self, state: object) -> None:
        """Goes on from `state`, as given by `save`, and drives the line and the latches
        accordingly.

        Raises:
            ImageError: `state` is of another device or version; nothing has changed.
        """

    def refuse(self, cause: str) -> NoReturn:
        """Raises the `DeviceError` that stops this VM."""
        raise DeviceError(device=self.name, cause=cause)


@dataclass(frozen=True)
class SavedState:
    """Base of saved states. `version` grows when the meaning of a field changes."""

    version: int


StateT = TypeVar("StateT", bound=SavedState)


def claimed_state(state: object, kind: type[StateT], *, version: int, device: str) -> StateT:
    """Returns `state` if it is of this `kind` and `version`; raises `ImageError` otherwise."""
    if not isinstance(state, kind):
        raise ImageError(f"{device}: saved state is {type(state).__name__}, needs {kind.__name__}")
    if state.version != version:
        raise ImageError(f"{device}: saved state has version {state.version}, needs {version}")
    return state
