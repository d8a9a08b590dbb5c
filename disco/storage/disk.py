"""Disks as a block device sees them: numbered sectors of 512 bytes, read, written and flushed.

`RawDisk` is a file (or block device) of the host whose bytes are the sectors in order. A writable
image is locked for its opener alone, a read-only one is shared with other readers, so no guest ever
sees sectors change under it; `flock` ends with the process that holds it, so a crash leaves no lock
behind. `MemoryDisk` keeps its sectors in the process.

A host that cannot read or write a sector (no space, a bad medium, a truncated file) raises
`DiskError`: the device above turns it into an I/O error for its guest, as a real disk would.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

from disco.closing import Closing
from disco.errors import ImageError

SECTOR_BYTES = 512


class DiskError(ImageError):
    """The host refused to read, write or flush an open image.

    Attributes:
        operation: "read", "write" or "flush".
        errno: the host's error number.
    """

    def __init__(self, *, image: str, operation: str, where: str, error: OSError) -> None:
        super().__init__(f"disk image '{image}': {operation}{where} failed: {error.strerror}")
        self.operation = operation
        self.errno = error.errno


class Disk(Protocol):
    """Sectors 0 to `sector_count` - 1. The caller keeps inside them and writes only if it may."""

    @property
    def sector_count(self) -> int: ...

    @property
    def is_read_only(self) -> bool: ...

    def read(self, sector: int, count: int) -> bytes:
        """Returns `count` sectors from `sector` on; raises `DiskError`."""

    def write(self, sector: int, data: bytes) -> None:
        """Stores whole sectors from `sector` on; raises `DiskError`."""

    def flush(self) -> None:
        """Returns when all that was written would survive a host crash; raises `DiskError`."""


@runtime_checkable
class CacheableDisk(Disk, Protocol):
    """A disk some of whose blocks nobody can write while it is open."""

    def cacheable_runs(self, block: int, count: int) -> Sequence[tuple[Hashable | None, int, int]]:
        """`count` blocks of 4 KiB from `block` on as runs: key, first block, count.

        Blocks with one key and number have one content, wherever the key comes from. None: they may change,
        or are the disk's own.
        """


class OpenDisk(Disk, Protocol):
    """A disk with files behind it. A context manager: leaving it gives them back."""

    def close(self) -> None:
        """Gives the files back. Twice is fine."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def check_range(disk: Disk, sector: int, count: int) -> None:
    inside = sector >= 0 and count >= 0 and sector + count <= disk.sector_count
    assert inside, f"sectors {sector} + {count} are not on a disk of {disk.sector_count}"


def check_write(disk: Disk, sector: int, data: bytes) -> None:
    assert not disk.is_read_only, "write to a read-only disk"
    assert len(data) % SECTOR_BYTES == 0, f"{len(data)} bytes are not whole sectors"
    check_range(disk, sector, len(data) // SECTOR_BYTES)


class MemoryDisk:
    """A disk in the process's memory, zeroed or with given contents."""

    def __init__(self, contents: bytes, *, read_only: bool = False) -> None:
        """`contents` is the whole disk; `bytes(n * SECTOR_BYTES)` makes an empty one.

        Raises:
            ImageError: `contents` is not a positive multiple of 512 bytes long.
        """
        self._sector_count = sectors_in("in memory", len(contents))
        self._bytes = bytearray(contents)
        self._is_read_only = read_only

    @property
    def sector_count(self) -> int:
        return self._sector_count

    @property
    def is_read_only(self) -> bool:
        return self._is_read_only

    def read(self, sector: int, count: int) -> bytes:
        check_range(self, sector, count)
        return bytes(self._bytes[sector * SECTOR_BYTES : (sector + count) * SECTOR_BYTES])

    def write(self, sector: int, data: bytes) -> None:
        check_write(self, sector, data)
        self._bytes[sector * SECTOR_BYTES : sector * SECTOR_BYTES + len(data)] = data

    def flush(self) -> None:
        """Nothing to do: the disk lasts as long as the process."""


class RawDisk(Closing):
    """A raw image on the host. A context manager: leaving it closes the file and drops its lock."""

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        """Opens and locks the image at `path`.

        Raises: ImageError: it is missing, unreadable, not a file or block device, empty, not a
        multiple of 512 bytes, or in use: open for writing elsewhere, or at all when writing is
        asked.
        """
        self._path = Path(path)
        self._is_read_only = read_only
        self._fd, size = open_locked(self._path, read_only=read_only)
        try:
            self._sector_count = sectors_in(str(self._path), size)
        except ImageError:
            os.close(self._fd)
            raise
        self._is_open = True
        state = os.fstat(self._fd)
        # While the lock is held nobody changes the content; whoever did so before has left his time.
        self._key = (state.st_dev, state.st_ino, size, state.st_mtime_ns, state.st_ctime_ns)

    def __repr__(self) -> str:
        mode = "read-only" if self._is_read_only else "writable"
        state = mode if self._is_open else "closed"
        return f"RawDisk('{self._path}', {self._sector_count} sectors, {state})"

    def close(self) -> None:
        """Gives the image back. Does not flush; closing twice is fine."""
        if self._is_open:
            self._is_open = False
            os.close(self._fd)

    @property
    def sector_count(self) -> int:
        return self._sector_count

    @property
    def is_read_only(self) -> bool:
        return self._is_read_only

    def read(self, sector: int, count: int) -> bytes:
        self._check_open()
        check_range(self, sector, count)
        offset, end = sector * SECTOR_BYTES, (sector + count) * SECTOR_BYTES
        parts = []
        try:
            while offset < end:
                part = os.pread(self._fd, end - offset, offset)
                if not part:
                    raise OSError(errno.EIO, "the image has become shorter")
                parts.append(part)
                offset += len(part)
        except OSError as error:
            raise self._failure("read", f" of {count} sectors at {sector}", error) from error
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write(self, sector: int, data: bytes) -> None:
        self._check_open()
        check_write(self, sector, data)
        offset, rest = sector * SECTOR_BYTES, memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._fd, rest, offset)
                offset, rest = offset + written, rest[written:]
        except OSError as error:
            where = f" of {len(data) // SECTOR_BYTES} sectors at {sector}"
            raise self._failure("write", where, error) from error

    def flush(self) -> None:
        self._check_open()
        if self._is_read_only:
            return
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise self._failure("flush", "", error) from error

    def cacheable_runs(self, block: int, count: int) -> Sequence[tuple[Hashable | None, int, int]]:
        return ((self._key if self._is_read_only else None, block, count),)

    def _check_open(self) -> None:
        assert self._is_open, f"{self!r} is used after close"

    def _failure(self, operation: str, where: str, error: OSError) -> DiskError:
        return DiskError(image=str(self._path), operation=operation, where=where, error=error)


def open_locked(path: Path, *, read_only: bool) -> tuple[int, int]:
    """Opens and locks an image, for its only writer or for any number of readers.

    Returns:
        Its file descriptor, whose closing drops the lock, and its size in bytes.

    Raises:
        ImageError: it is missing, unreadable, not a file or block device, or in use.
    """
    fd = _open(path, read_only=read_only)
    try:
        return fd, _claim(path, fd, read_only=read_only)
    except ImageError:
        os.close(fd)
        raise


def _open(path: Path, *, read_only: bool) -> int:
    """Opens without waiting: a FIFO without a writer would hang a plain open."""
    mode = os.O_RDONLY if read_only else os.O_RDWR
    try:
        return os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        wish = "read" if read_only else "written"
        raise ImageError(f"disk image '{path}' cannot be {wish}: {error.strerror}") from error


def _claim(path: Path, fd: int, *, read_only: bool) -> int:
    """Locks the open image and returns its size in bytes."""
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        kind = "a directory" if stat.S_ISDIR(mode) else "neither a file nor a block device"
        raise ImageError(f"disk image '{path}' is {kind}")
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        if read_only:
            text = "is open for writing elsewhere; close that VM first"
        else:
            text = "is in use elsewhere; one VM may write it, or several open it read-only"
        raise ImageError(f"disk image '{path}' {text}") from error
    except OSError as error:
        raise ImageError(f"disk image '{path}' cannot be locked: {error.strerror}") from error
    return os.lseek(fd, 0, os.SEEK_END)


def sectors_in(image: str, size: int) -> int:
    """Number of sectors in `size` bytes; an image is whole sectors, and at least one."""
    if size == 0:
        raise ImageError(
            f"disk image '{image}' is empty; the smallest disk is {SECTOR_BYTES} bytes"
        )
    if size % SECTOR_BYTES:
        raise ImageError(
            f"disk image '{image}' has {size} bytes, not a multiple of {SECTOR_BYTES}; "
            f"{size + -size % SECTOR_BYTES} would be the next whole size"
        )
    return size // SECTOR_BYTES
