"""Disco disks: what differs from a base, in a file that lasts.

A base is remembered by path and fingerprint. One that has changed under its disks is refused, because blocks of
one file system on another are neither.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path

from disco.closing import Closing
from disco.errors import ImageError
from disco.storage.cow import CowDisk, ZeroDisk
from disco.storage.disk import Disk, RawDisk, check_write
from disco.storage.format import is_store, make
from disco.storage.store import Store

logger = logging.getLogger(__name__)


def create(path: Path, *, sector_count: int | None = None, base: Path | None = None) -> None:
    """Makes a Disco disk at `path`: empty, or with the content of `base`.

    Args:
        sector_count: size of an empty disk.
        base: a raw image or another Disco disk, which then must not change any more.

    Raises:
        ImageError: there is something at `path`, the base cannot be used, or the host refuses.
    """
    about: dict[str, str | int] = {"identity": secrets.token_hex(16), "commits": 0}
    if base is None:
        assert sector_count is not None and sector_count > 0, "an empty disk has a size"
        about["sector_count"] = sector_count
    else:
        with open_base(base) as disk:
            about["sector_count"] = disk.sector_count
            about |= base_rows(base, path)
    if path.exists():
        raise ImageError(f"disk '{path}': there is a file of that name; a new name is possible")
    make(path, about)


def base_rows(base: Path, path: Path) -> dict[str, str | int]:
    """What a disk at `path` says of its base, as that is now."""
    folder, target = path.parent.resolve(), base.resolve()
    named = os.path.relpath(target, folder) if target.is_relative_to(folder) else str(target)
    state = target.stat()
    return {
        "base_path": named,
        "base_fingerprint": fingerprint_of(target),
        "base_size_bytes": state.st_size,
        "base_mtime_ns": state.st_mtime_ns,
    }


class StoreDisk(Closing):
    """A Disco disk: a store over its base. A context manager: leaving it closes both."""

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool = False) -> None:
        """Opens the disk for the one VM that may write it, or for one of several that read it.

        Raises:
            ImageError: it or its base is missing, damaged or in use, or the base has changed.
        """
        self._is_read_only = read_only
        self._store = Store(Path(path), read_only=read_only)
        self._closers: list[Callable[[], None]] = [self._store.close]
        try:
            about = self._store.about
            key = (about.identity, about.commits) if read_only else None
            self._cow = CowDisk(self._open_base(), self._store, own_key=key)
        except ImageError:
            self.close()
            raise

    def _open_base(self) -> Disk:
        about, path = self._store.about, self._store.base_path
        if about.base is None or path is None:
            return ZeroDisk(about.sector_count)
        if about.is_committing and not self._is_read_only:
            # A crash came in the middle of a commit; each block that differs is in the store.
            logger.warning("disk '%s': its commit to '%s' is unfinished", self._store.path, path)
        disk = open_base(path)
        self._closers.append(disk.close)
        if not about.is_committing:
            check_base(self._store)
        if disk.sector_count != about.sector_count:
            raise ImageError(
                f"disk '{self._store.path}' has {about.sector_count} sectors, its base '{path}'"
                f" {disk.sector_count}"
            )
        return disk

    def close(self) -> None:
        """Writes what waits and gives the files back. Twice is fine."""
        while self._closers:
            self._closers.pop(0)()

    @property
    def store(self) -> Store:
        """Its own file."""
        return self._store

    @property
    def sector_count(self) -> int:
        return self._cow.sector_count

    @property
    def is_read_only(self) -> bool:
        return self._is_read_only

    @property
    def modified_bytes(self) -> int:
        """What it has of its own, in whole blocks."""
        return self._cow.modified_bytes

    def modified_ranges(self) -> Iterator[tuple[int, int]]:
        """Runs of modified sectors, as first sector and count, in order."""
        return self._cow.modified_ranges()

    def read(self, sector: int, count: int) -> bytes:
        return self._cow.read(sector, count)

    def cacheable_runs(self, block: int, count: int) -> Sequence[tuple[Hashable | None, int, int]]:
        return self._cow.cacheable_runs(block, count)

    def write(self, sector: int, data: bytes) -> None:
        check_write(self, sector, data)
        self._cow.write(sector, data)

    def flush(self) -> None:
        if not self._is_read_only:
            self._cow.flush()


def open_base(path: Path) -> RawDisk | StoreDisk:
    """Opens what is to stay as it is: a raw image or a Disco disk, shared with other readers.

    Raises:
        ImageError: it cannot be used.
    """
    if is_store(path):
        return StoreDisk(path, read_only=True)
    return RawDisk(path, read_only=True)


def check_base(store: Store, *, thoroughly: bool = False) -> None:
    """Looks whether the base is what it was when the disk was made.

    Its content is hashed only if its size or time of modification are others, or `thoroughly`.

    Raises:
        ImageError: it is missing or has changed.
    """
    base, path = store.about.base, store.base_path
    if base is None or path is None:
        return
    try:
        state = path.stat()
    except OSError as error:
        raise ImageError(
            f"disk '{store.path}': its base '{path}' cannot be read: {error.strerror}"
        ) from error
    is_same = (state.st_size, state.st_mtime_ns) == (base.size_bytes, base.mtime_ns)
    if is_same and not thoroughly:
        return
    if fingerprint_of(path) != base.fingerprint:
        raise ImageError(
            f"disk '{store.path}': its base '{path}' has changed since the disk was made; put it"
            " back as it was, since what the disk holds fits nothing else"
        )


def fingerprint_of(path: Path) -> str:
    """Of the content of a disk's file: the same as long as a disk on it means the same.

    Raises:
        ImageError: it cannot be read.
    """
    if is_store(path):
        with Store(path, read_only=True) as store:
            return f"disco:{store.about.identity}:{store.about.commits}"
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise ImageError(f"disk image '{path}' cannot be read: {error.strerror}") from error
