"""Taking chains from a split virtqueue, the naive way: the whole table is read, and a chain is a loop."""

from __future__ import annotations

import struct

from model_bus import Ram

NEXT, WRITE, INDIRECT = 1, 2, 4


class Forbidden(Exception):
    """Section 2.7 forbids it."""


def chains(ram: Ram, *, size: int, indirect_max: int, table: int, avail: int, index: int):
    """All chains that are offered behind `index`, as (head, readable, writable)."""
    (idx,) = struct.unpack("<H", ram.read(avail + 2, 2))
    count = (idx - index) % 65536
    if count > size:
        raise Forbidden
    descriptors = _table(ram, table, size)
    for step in range(count):
        slot = avail + 4 + 2 * ((index + step) % size)
        (head,) = struct.unpack("<H", ram.read(slot, 2))
        yield head, *_walk(ram, descriptors, head, indirect_max)


def _table(ram: Ram, at: int, count: int) -> list[tuple[int, int, int, int]]:
    return list(struct.iter_unpack("<QIHH", ram.read(at, 16 * count)))


def _walk(ram: Ram, descriptors, head: int, indirect_max: int):
    readable, writable, seen, index = [], [], set(), head
    while True:
        if index >= len(descriptors) or index in seen:
            raise Forbidden
        seen.add(index)
        paddr, length, flags, following = descriptors[index]
        if flags & INDIRECT:
            is_whole = length and length % 16 == 0 and length // 16 <= indirect_max
            if not is_whole or flags & NEXT:
                raise Forbidden
            descriptors, seen, index = _table(ram, paddr, length // 16), set(), 0
            indirect_max = 0
            continue
        is_late = writable and not flags & WRITE
        if not length or paddr + length > 2**64 or is_late:
            raise Forbidden
        (writable if flags & WRITE else readable).append((paddr, length))
        if not flags & NEXT:
            break
        index = following
    if sum(length for _, length in readable + writable) > 2**32:
        raise Forbidden
    return readable, writable
