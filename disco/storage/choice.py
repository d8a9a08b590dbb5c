"""Which disk a user means: a file and a mode, opened as what the file is.

    ro           read-only, shared by any number of VMs
    cow          written copy-on-write, in memory, lost at power-off; each VM has its own
    shared       the same, but one for all VMs that get it: each sees what the others write
    persistent   written for good, by one VM at a time

Without a mode, a Disco disk is persistent, since it was made to be written, and anything else is a base image
and copied on write: nobody's image is written unless he says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from disco.errors import ConfigError
from disco.storage.cow import MEMORY_LIMIT_BYTES, CowDisk, MemoryModifications, blocks_of
from disco.storage.discodisk import StoreDisk, open_base
from disco.storage.disk import OpenDisk, RawDisk
from disco.storage.foreign import refuse_foreign
from disco.storage.format import is_store


class Mode(StrEnum):
    """What becomes of what is written."""

    RO = "ro"
    COW = "cow"
    SHARED = "shared"
    PERSISTENT = "persistent"


@dataclass(frozen=True)
class DiskChoice:
    """A disk as a user asks for it.

    Attributes:
        path: a raw image, or a Disco disk.
        mode: what becomes of what is written; None: by what the file is.
        limit_mib: how much may be modified in memory, in MiB; None: a GiB.
    """

    path: Path
    mode: Mode | None = None
    limit_mib: int | None = None

    @classmethod
    def parse(cls, text: str) -> DiskChoice:
        """`FILE[:MODE[,limit=MIB]]`. A file whose name ends so can be given with its mode.

        Raises:
            ConfigError: the limit is no number, or of a mode that keeps nothing in memory.
        """
        name, colon, words = text.rpartition(":")
        word, *settings = words.split(",")
        if not colon or not name or word not in list(Mode):
            return cls(Path(text))
        mode, limit = Mode(word), None
        for setting in settings:
            key, _, value = setting.partition("=")
            in_memory = mode in (Mode.COW, Mode.SHARED)
            if key != "limit" or not value.isascii() or not value.isdecimal() or not in_memory:
                raise ConfigError(
                    f"disk '{text}': '{setting}' asked; limit=MIB is possible with cow and shared"
                )
            limit = int(value)
        return cls(Path(name), mode, limit)

    @property
    def effective_mode(self) -> Mode:
        """The mode, as said or by what the file is."""
        if self.mode is not None:
            return self.mode
        return Mode.PERSISTENT if is_store(self.path) else Mode.COW

    def open(self) -> OpenDisk:
        """Opens and locks the file; the disk is a context manager that gives it back.

        Raises:
            ImageError: it cannot be used so.
        """
        refuse_foreign(self.path)
        match self.effective_mode:
            case Mode.RO:
                return open_base(self.path)
            case Mode.PERSISTENT:
                return StoreDisk(self.path) if is_store(self.path) else RawDisk(self.path)
            case Mode.COW | Mode.SHARED:
                base = open_base(self.path)
                limit = MEMORY_LIMIT_BYTES if self.limit_mib is None else self.limit_mib << 20
                own = MemoryModifications(
                    name=str(self.path),
                    block_count=blocks_of(base.sector_count),
                    limit_bytes=limit,
                )
                return CowDisk(base, own, close=base.close)
