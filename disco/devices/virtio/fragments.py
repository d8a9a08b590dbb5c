"""The buffers of a frame in its sender's memory, as the subnet hands them on.

A chain goes back to its guest at once, though its buffers are read later: no VM runs before that. Whoever
lets VMs run, or takes a sender's memory away, settles what is still on its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from disco.devices.bus import GuestMemory, Range

PAGE_BYTES = 4096


@dataclass
class PageAccount:
    """What became of the whole aligned pages among what other VMs have sent to a VM.

    Attributes:
        pages_remapped: are the sender's and the receiver's now, and copied when one of them writes.
        pages_copied_by_choice: copied, since pages are not to be remapped.
        pages_copied_unaligned: copied, since they are no whole pages in the receiver's buffers.
        pages_copied_late: copied, since the frame had to wait for buffers or for another round, or had
            checksums or segments to be made.
    """

    pages_remapped: int = 0
    pages_copied_by_choice: int = 0
    pages_copied_unaligned: int = 0
    pages_copied_late: int = 0


def whole_pages(paddr: int, length: int) -> int:
    """How many aligned pages lie in a buffer as a whole."""
    first = -(-paddr // PAGE_BYTES)
    return max((paddr + length) // PAGE_BYTES - first, 0)


def _lead(ranges: Sequence[Range]) -> int:
    at = 0
    for paddr, length in ranges:
        if whole_pages(paddr, length):
            return at + -paddr % PAGE_BYTES
        at += length
    return at


class Fragments:
    """Ranges of a VM's memory; a `Rest` of a frame.

    Attributes:
        length: in bytes.
        pages_whole: whole aligned pages in them.
        lead: bytes in front of the first of those; all if there is none.
    """

    def __init__(self, memory: GuestMemory, ranges: Sequence[Range]) -> None:
        """Takes note of them.

        Raises:
            GuestMemoryError: one of them is not RAM.
        """
        memory.check(ranges)
        self.length = sum([length for _, length in ranges])
        self.pages_whole = sum([whole_pages(*one) for one in ranges])
        self.lead = _lead(ranges)
        self._ranges = ranges
        self._memory: GuestMemory | None = memory
        self._copy = b""

    def read(self) -> bytes:
        """A copy of them."""
        return self._copy if self._memory is None else self._memory.gather(self._ranges)

    def settle(self) -> None:
        """Keeps a copy, and no longer needs the sender."""
        self._copy = self.read()
        self._memory = None

    def store(
        self, memory: GuestMemory, target: Sequence[Range], account: PageAccount, *, remap: bool
    ) -> None:
        """Puts them over ranges of another VM's memory that are as long.

        Raises:
            GuestMemoryError: a range of the target is not RAM.
        """
        if self._memory is None:
            _write(memory, target, self._copy)
            account.pages_copied_late += self.pages_whole
            return
        met, mapped = memory.copy_from(self._memory, self._ranges, target, remap=remap)
        account.pages_remapped += mapped
        account.pages_copied_by_choice += 0 if remap else met
        account.pages_copied_unaligned += self.pages_whole - (mapped if remap else met)


def _write(memory: GuestMemory, target: Sequence[Range], data: bytes) -> None:
    pieces, at = [], 0
    for paddr, length in target:
        pieces.append((paddr, data[at : at + length]))
        at += length
    memory.write_pieces(pieces)
