"""Disks that last: a file that holds the modified blocks of a disk, crash-safe, with one user at a time.

The file is an SQLite database in WAL mode, with the blocks in a B-tree by number as in the paper, and a
checksum for each. docs/disks.md says why SQLite. Between flushes blocks wait in memory; a flush writes all of
them in one transaction with `synchronous=FULL`, so that after a crash at any moment the disk is as it was at
the last flush or at a later one that was under way: never a mixture. When more than `PENDING_BLOCKS_MAX` wait,
they are written without being asked.

A host that has no room or fails leaves the blocks waiting: the guest gets an I/O error, nothing is lost, and a
later flush tries again.

The base is remembered by path and fingerprint. A base that has changed under its disks is refused, because
blocks of one file system on another are neither.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import sqlite3
import struct
import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from disco.errors import ImageError
from disco.storage.cow import BLOCK_BYTES, CowDisk, ZeroDisk, blocks_of
from disco.storage.disk import SECTOR_BYTES, Disk, DiskError, RawDisk, check_write, open_locked

APPLICATION_ID = 0x44495343  # "DISC", at byte 68 of the file
FORMAT_VERSION = 1
PENDING_BLOCKS_MAX = 4096  # 16 MiB

SQLITE_MAGIC = b"SQLite format 3\0"
_APPLICATION_ID_AT = 68
_PAGE_SIZE_AT = 16
_PAGE_COUNT_AT = 28
_CACHE_KIB = 16 << 10

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT_VERSION};
CREATE TABLE about (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;
CREATE TABLE blocks (number INTEGER PRIMARY KEY, checksum INTEGER NOT NULL, data BLOB NOT NULL);
"""

#: What an error of SQLite says of a file that is opened; else it is damaged.
_STATES = {
    sqlite3.SQLITE_BUSY: "is in use by another program",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_READONLY: "cannot be written",
    sqlite3.SQLITE_FULL: "has no room left on the host",
    sqlite3.SQLITE_IOERR: "cannot be read",
}

logger = logging.getLogger(__name__)


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
            about |= _base_rows(base, path)
    if path.exists():
        raise ImageError(f"disk '{path}': there is a file of that name; a new name is possible")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        with closing(sqlite3.connect(unfinished, isolation_level=None)) as database:
            database.executescript(_SCHEMA)
            database.executemany("INSERT INTO about VALUES (?, ?)", about.items())
            database.execute("PRAGMA journal_mode = WAL")
        os.link(unfinished, path)
        _sync_folder(path.parent)
    except FileExistsError as error:
        raise ImageError(
            f"disk '{path}': there is a file of that name; a new name is possible"
        ) from error
    except (OSError, sqlite3.Error) as error:
        raise ImageError(f"disk '{path}' cannot be made: {error}") from error
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{unfinished}{suffix}").unlink(missing_ok=True)


def _base_rows(base: Path, path: Path) -> dict[str, str | int]:
    folder, target = path.parent.resolve(), base.resolve()
    named = os.path.relpath(target, folder) if target.is_relative_to(folder) else str(target)
    state = target.stat()
    return {
        "base_path": named,
        "base_fingerprint": fingerprint_of(target),
        "base_size_bytes": state.st_size,
        "base_mtime_ns": state.st_mtime_ns,
    }


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Store:
    """The file of a Disco disk, open and locked: a `Modifications` that lasts."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Opens the file for its only writer, or for one of several readers.

        Raises:
            ImageError: it is missing, no Disco disk, damaged, or in use.
        """
        self.path = path
        self._is_read_only = read_only
        self._pending: dict[int, bytes] = {}
        self._fd, size = open_locked(path, read_only=read_only)
        self._is_open = True
        self._database: sqlite3.Connection | None = None
        try:
            self._check_head(size)
            with self._refused():
                self._database = self._connect()
                self.about = self._read_about()
                self.present = bytearray(blocks_of(self.about.sector_count))
                for (number,) in self._database.execute("SELECT number FROM blocks"):
                    self.present[number] = 1
        except ImageError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _check_head(self, size: int) -> None:
        head = os.pread(self._fd, _APPLICATION_ID_AT + 4, 0)
        if not head.startswith(SQLITE_MAGIC) or not is_store(self.path):
            raise ImageError(f"disk '{self.path}' is no Disco disk, or damaged at its beginning")
        page_bytes = struct.unpack_from(">H", head, _PAGE_SIZE_AT)[0]
        page_bytes = 65536 if page_bytes == 1 else page_bytes
        said = struct.unpack_from(">I", head, _PAGE_COUNT_AT)[0] * page_bytes
        # With a log beside it, a file may be behind what its head says: a crash came between.
        if size < said and not Path(f"{self.path}-wal").exists():
            raise ImageError(f"disk '{self.path}' is truncated: {size} bytes of {said} are there")

    def _connect(self) -> sqlite3.Connection:
        database = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=1
        )
        database.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
        if self._is_read_only:
            database.execute("PRAGMA query_only = ON")
        else:
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA synchronous = FULL")
        return database

    def _read_about(self) -> About:
        assert self._database is not None
        version = self._database.execute("PRAGMA user_version").fetchone()[0]
        if version != FORMAT_VERSION:
            raise ImageError(
                f"disk '{self.path}' has format {version}; {FORMAT_VERSION} is possible"
            )
        rows = dict(self._database.execute("SELECT key, value FROM about"))
        try:
            base = None
            if "base_path" in rows:
                base = Base(
                    path=str(rows["base_path"]),
                    fingerprint=str(rows["base_fingerprint"]),
                    size_bytes=int(rows["base_size_bytes"]),
                    mtime_ns=int(rows["base_mtime_ns"]),
                )
            about = About(
                identity=str(rows["identity"]),
                sector_count=int(rows["sector_count"]),
                base=base,
                commits=int(rows["commits"]),
                is_committing=bool(rows.get("is_committing", 0)),
            )
        except (KeyError, ValueError, TypeError) as error:
            raise ImageError(f"disk '{self.path}' is damaged: no {error} in it") from error
        if not 0 < about.sector_count < 1 << 48:
            raise ImageError(f"disk '{self.path}' is damaged: {about.sector_count} sectors")
        return about

    @contextmanager
    def _refused(self) -> Iterator[None]:
        """What SQLite says while a store is opened, in our words."""
        try:
            yield
        except (sqlite3.Error, IndexError, OverflowError) as error:
            state = _STATES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "is damaged")
            raise ImageError(f"disk '{self.path}' {state}: {error}") from error

    @property
    def base_path(self) -> Path | None:
        """Where the base should be."""
        base = self.about.base
        return None if base is None else self.path.resolve().parent / base.path

    # -- a Modifications --------------------------------------------------------------------

    def read(self, first: int, count: int) -> Mapping[int, bytes]:
        assert self._database is not None, f"{self.path} is used after close"
        found: dict[int, bytes] = {}
        where = f" of {count} blocks at {first}"
        try:
            rows = self._database.execute(
                "SELECT number, checksum, data FROM blocks WHERE number BETWEEN ? AND ?",
                (first, first + count - 1),
            )
            for number, known, data in rows:
                if len(data) != BLOCK_BYTES or checksum(number, data) != known:
                    if number in self._pending:
                        continue
                    text = f"block {number} is damaged: it has not the checksum that was stored"
                    self._fail("read", where, OSError(errno.EIO, text))
                found[number] = data
        except sqlite3.Error as error:
            self._fail("read", where, error)
        if self._pending:
            waiting = range(first, first + count)
            found |= {
                number: self._pending[number] for number in waiting if number in self._pending
            }
        present = self.present.count(1, first, first + count)
        if len(found) != present:
            text = f"{present - len(found)} of its blocks are gone"
            self._fail("read", where, OSError(errno.EIO, text))
        return found

    def write(self, blocks: Mapping[int, bytes]) -> None:
        if len(self._pending) + len(blocks) > PENDING_BLOCKS_MAX:
            self._write_pending("write")
        self._pending.update(blocks)
        for number in blocks:
            self.present[number] = 1

    def flush(self) -> None:
        self._write_pending("flush")

    def _write_pending(self, operation: str) -> None:
        if not self._pending:
            return
        rows = [(number, checksum(number, data), data) for number, data in self._pending.items()]
        where = f" of {len(rows)} blocks"
        with self._transaction(operation, where) as database:
            database.executemany("INSERT OR REPLACE INTO blocks VALUES (?, ?, ?)", rows)
            database.execute("UPDATE about SET value = value + 1 WHERE key = 'commits'")
        self._pending.clear()

    @contextmanager
    def _transaction(self, operation: str, where: str) -> Iterator[sqlite3.Connection]:
        database = self._database
        assert database is not None and not self._is_read_only, f"{self.path} cannot be written"
        try:
            database.execute("BEGIN IMMEDIATE")
            yield database
            database.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                if database.in_transaction:
                    database.execute("ROLLBACK")
            self._fail(operation, where, error)

    def _fail(self, operation: str, where: str, error: OSError | sqlite3.Error) -> NoReturn:
        if isinstance(error, sqlite3.Error):
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            number = errno.ENOSPC if code == sqlite3.SQLITE_FULL else errno.EIO
            failure = OSError(number, f"{error} ({getattr(error, 'sqlite_errorname', 'SQLite')})")
        else:
            failure = error
        raise DiskError(
            image=str(self.path), operation=operation, where=where, error=failure
        ) from error

    @property
    def modified_bytes(self) -> int:
        """What the disk has of its own, in whole blocks."""
        return self.present.count(1) * BLOCK_BYTES

    # -- merging into the base --------------------------------------------------------------

    def begin_commit(self) -> None:
        """Notes that the base is about to get these blocks: from now on it may be either."""
        with self._transaction("write", " of its state") as database:
            database.execute("INSERT OR REPLACE INTO about VALUES ('is_committing', 1)")

    def end_commit(self) -> None:
        """Drops all blocks: the base, as it is now, has them."""
        base = self.base_path
        assert base is not None
        rows = {**_base_rows(base, self.path.resolve()), "is_committing": 0}
        with self._transaction("write", " of its state") as database:
            database.execute("DELETE FROM blocks")
            database.executemany("INSERT OR REPLACE INTO about VALUES (?, ?)", rows.items())
            database.execute("UPDATE about SET value = value + 1 WHERE key = 'commits'")
        self.present = bytearray(len(self.present))

    # -- looking ----------------------------------------------------------------------------

    def problems(self) -> Iterator[str]:
        """What is wrong inside of the file, by reading all of it."""
        assert self._database is not None
        try:
            for (line,) in self._database.execute("PRAGMA integrity_check(20)"):
                if line != "ok":
                    yield f"structure: {line}"
            rows = self._database.execute("SELECT number, checksum, data FROM blocks")
            for number, known, data in rows:
                if not 0 <= number < len(self.present):
                    yield f"block {number}: the disk has {len(self.present)} blocks"
                elif len(data) != BLOCK_BYTES or checksum(number, data) != known:
                    yield f"block {number}: not the checksum that was stored"
        except sqlite3.Error as error:
            yield f"structure: {error}"

    def close(self) -> None:
        """Writes what waits, and gives the file back. Twice is fine."""
        if not self._is_open:
            return
        self._is_open = False
        try:
            self._write_pending("flush")
        except DiskError as error:
            logger.error("%s; writes that the guest did not flush are lost", error)
        finally:
            if self._database is not None:
                with suppress(sqlite3.Error):
                    self._database.close()
                self._database = None
            os.close(self._fd)  # last: closing any descriptor of a file drops SQLite's locks on it


class StoreDisk:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

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


SECTORS_PER_CHUNK = (1 << 20) // SECTOR_BYTES


def commit(path: Path) -> int:
    """Writes the modified blocks of a Disco disk into its base, and drops them from the disk.

    Other disks on that base are refused afterwards. A crash on the way loses nothing: the disk
    is the same before and after, and a second commit ends what the first began.

    Returns:
        Bytes written to the base.

    Raises:
        ImageError: the disk has no base, it or its base is in use, or the host refuses.
    """
    with Store(path) as store:
        base_path = store.base_path
        if base_path is None:
            raise ImageError(f"disk '{path}' has no base; 'disco disk commit --to' makes an image")
        if not store.about.is_committing:
            check_base(store)
        own = CowDisk(ZeroDisk(store.about.sector_count), store)
        base = StoreDisk(base_path) if is_store(base_path) else RawDisk(base_path)
        with base:
            store.begin_commit()
            for first, count in own.modified_ranges():
                for sector in range(first, first + count, SECTORS_PER_CHUNK):
                    size = min(SECTORS_PER_CHUNK, first + count - sector)
                    base.write(sector, own.read(sector, size))
            base.flush()
        written = own.modified_bytes
        store.end_commit()
        return written


def export(disk: Disk, target: Path) -> None:
    """Writes the content of a disk to a new raw image with holes where it is zero.

    Raises:
        ImageError: there is something at `target`, or the host refuses.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        with unfinished.open("xb") as file:
            file.truncate(disk.sector_count * SECTOR_BYTES)
            for sector in range(0, disk.sector_count, SECTORS_PER_CHUNK):
                data = disk.read(sector, min(SECTORS_PER_CHUNK, disk.sector_count - sector))
                if data.count(0) != len(data):
                    file.seek(sector * SECTOR_BYTES)
                    file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(unfinished, target)
        _sync_folder(target.parent)
    except FileExistsError as error:
        raise ImageError(
            f"disk image '{target}': there is a file of that name; a new name is possible"
        ) from error
    except OSError as error:
        raise ImageError(f"disk image '{target}' cannot be made: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
