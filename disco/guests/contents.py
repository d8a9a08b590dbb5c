"""Contents of files that VMs boot: in memory once, however many VMs boot them, and gone with the last.

They lie in pages of their own and not among Python's other objects, where tens of MiB would leave holes
that the host never gets back.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path
from typing import BinaryIO
from weakref import WeakValueDictionary

#: Contents by device, file number, size and time of the last change.
_held: WeakValueDictionary[tuple[int, ...], mmap.mmap] = WeakValueDictionary()


def read(path: Path) -> memoryview:
    """The file's bytes, read-only. Raises `OSError`."""
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or not about.st_size:
            return memoryview(file.read())
        key = (about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
        pages = _held.get(key)
        if pages is None:
            pages = _read(file, about.st_size)
            _held[key] = pages
        return memoryview(pages).toreadonly()


def _read(file: BinaryIO, size: int) -> mmap.mmap:
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if file.readinto(pages) != size:  # type: ignore[attr-defined]
        raise OSError(0, "became shorter while it was read")
    return pages
