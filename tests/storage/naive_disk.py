"""A disk as a list of sectors, and random work for it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from disco.storage.disk import SECTOR_BYTES

SECTORS = 117  # no whole number of blocks


class NaiveDisk:
    """The second opinion."""

    def __init__(self, contents: bytes = bytes(SECTORS * SECTOR_BYTES)) -> None:
        self.bytes = bytearray(contents)

    def read(self, sector: int, count: int) -> bytes:
        return bytes(self.bytes[sector * SECTOR_BYTES : (sector + count) * SECTOR_BYTES])

    def write(self, sector: int, data: bytes) -> None:
        self.bytes[sector * SECTOR_BYTES : sector * SECTOR_BYTES + len(data)] = data


@dataclass(frozen=True)
class Step:
    """One request."""

    kind: str
    sector: int
    count: int
    data: bytes = b""


def steps(seed: int, count: int, *, kinds: str = "rwwf") -> list[Step]:
    """Reads (r), writes (w) and flushes (f), small ones more often than large ones."""
    rng = random.Random(seed)
    made = []
    for _ in range(count):
        kind = rng.choice(kinds)
        sector = rng.randrange(SECTORS)
        length = min(SECTORS - sector, rng.choice((1, 2, 3, 8, 8, 16, 40, SECTORS)))
        data = rng.randbytes(length * SECTOR_BYTES) if kind == "w" else b""
        made.append(Step(kind, sector, length, data))
    return made
