"""The file of a Disco disk: an SQLite database with the modified blocks, and what it says of itself.

    about     identity, sector_count, commits; of a base its path, fingerprint, size and time; is_committing
    blocks    a row a block of 4 KiB: number, checksum, data

docs/disks.md says why SQLite.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import zlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from disco.errors import ImageError

APPLICATION_ID = 0x44495343  # "DISC", at byte 68 of the file
FORMAT_VERSION = 1

SQLITE_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID_AT = 68
_PAGE_SIZE_AT = 16
_PAGE_COUNT_AT = 28

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT_VERSION};
CREATE TABLE about (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE blocks (number INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, data BLOB NOT NULL);
"""


def checksum(number: int, data: bytes) -> int:
    """Of a block in its place."""
    return zlib.crc32(data, number & 0xFFFF_FFFF)


@dataclass(frozen=True)
class Base:
    """What a disk is based on, as it was when the disk was made.

    Attributes:
        path: as it was named; relative to the folder of the disk's own file.
        fingerprint: of its content.
        size_bytes, mtime_ns: of its file, so that content is hashed again only after a change.
    """

    path: str
    fingerprint: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class About:
    """What a store says of itself.

    Attributes:
        identity: random, given when it was made.
        sector_count: of the disk.
        base: None for a disk that began as zeros.
        commits: how often it has been written.
        is_committing: whether its blocks are being written to its base.
    """

    identity: str
    sector_count: int
    base: Base | None
    commits: int
    is_committing: bool


def is_store(path: Path) -> bool:
    """Whether the file says that it is a Disco disk."""
    try:
        with path.open("rb") as file:
            head = file.read(_APPLICATION_ID_AT + 4)
    except OSError:
        return False
    return head.startswith(SQLITE_MAGIC) and head[-4:] == struct.pack(">I", APPLICATION_ID)


def make(path: Path, about: Mapping[str, str | int]) -> None:
    """Makes a file without blocks; `about` are the rows of that name.

    Raises:
        ImageError: there is something at `path`, or the host refuses.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as database:
            database.executescript(_SCHEMA)
            database.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            database.execute("PRAGMA journal_mode = WAL")
        os.link(unfinished, path)
        sync_folder(path.parent)
    except FileExistsError as error:
        raise ImageError(
            f"disk '{path}': there is a file of that name; a new name is possible"
        ) from error
    except (OSError, sqlite3.Error) as error:
        raise ImageError(f"disk '{path}' cannot be made: {error}") from error
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{unfinished}{suffix}").unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Returns when the names in a folder would survive a host crash."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def check_head(path: Path, fd: int, size: int) -> None:
    """Looks whether an open file of `size` bytes is a Disco disk, and all of it is there.

    Raises:
        ImageError: it is not.
    """
    head = os.pread(fd, _APPLICATION_ID_AT + 4, 0)
    if not head.startswith(SQLITE_MAGIC) or not is_store(path):
        raise ImageError(f"disk '{path}' is no Disco disk, or damaged at its beginning")
    page_bytes = struct.unpack_from(">H", head, _PAGE_SIZE_AT)[0]
    page_bytes = 65536 if page_bytes == 1 else page_bytes
    said = struct.unpack_from(">I", head, _PAGE_COUNT_AT)[0] * page_bytes
    # With a log beside it, a file may be behind what its head says: a crash came between.
    if size < said and not Path(f"{path}-wal").exists():
        raise ImageError(f"disk '{path}' is truncated: {size} bytes of {said} are there")


def read_about(path: Path, database: sqlite3.Connection) -> About:
    """What an open database says of itself.

    Raises:
        ImageError: it is of another format, or damaged.
    """
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version != FORMAT_VERSION:
        raise ImageError(f"disk '{path}' has format {version}; {FORMAT_VERSION} is possible")
    rows = dict(database.execute("SELECT key, value FROM about"))
    try:
        about = About(
            identity=str(rows["identity"]),
            sector_count=int(rows["sector_count"]),
            base=_base(rows) if "base_path" in rows else None,
            commits=int(rows["commits"]),
            is_committing=bool(rows.get("is_committing", 0)),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ImageError(f"disk '{path}' is damaged: no {error} in it") from error
    if not 0 < about.sector_count < 1 << 48:
        raise ImageError(f"disk '{path}' is damaged: {about.sector_count} sectors")
    return about


def _base(rows: Mapping[str, str | int]) -> Base:
    return Base(
        path=str(rows["base_path"]),
        fingerprint=str(rows["base_fingerprint"]),
        size_bytes=int(rows["base_size_bytes"]),
        mtime_ns=int(rows["base_mtime_ns"]),
    )
