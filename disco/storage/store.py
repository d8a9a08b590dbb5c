"""The file of a disk that lasts, open: its blocks, crash-safe, with one writer at a time.

The database (`disco.storage.format`) is in WAL mode, with the blocks in a B-tree by number as in the paper.
Between flushes blocks wait in memory; a flush writes all of
them in one transaction with `synchronous=FULL`, so that after a crash at any moment the disk is as it was at
the last flush or at a later one that was under way: never a mixture. When more than `PENDING_BLOCKS_MAX` wait,
they are written without being asked.

A host that has no room or fails leaves the blocks waiting: the guest gets an I/O error, nothing is lost, and a
later flush tries again.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from disco.closing import Closing
from disco.errors import ImageError
from disco.storage.cow import BLOCK_BYTES, blocks_of
from disco.storage.disk import DiskError, open_locked
from disco.storage.format import check_head, checksum, read_about

PENDING_BLOCKS_MAX = 4096  # 16 MiB
_CACHE_KIB = 16 << 10

#: What an error of SQLite says of a file that is opened; else it is damaged.
_STATES = {
    sqlite3.SQLITE_BUSY: "is in use by another program",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_READONLY: "cannot be written",
    sqlite3.SQLITE_FULL: "has no room left on the host",
    sqlite3.SQLITE_IOERR: "cannot be read",
}

logger = logging.getLogger(__name__)


class Store(Closing):
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
            check_head(path, self._fd, size)
            with self._refused():
                self._database = self._connect()
                self.about = read_about(path, self._database)
                self.present = bytearray(blocks_of(self.about.sector_count))
                for (number,) in self._database.execute("SELECT number FROM blocks"):
                    self.present[number] = 1
        except ImageError:
            self.close()
            raise

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

    def end_commit(self, base: Mapping[str, str | int]) -> None:
        """Drops all blocks: the base has them, and these rows of it as it is now."""
        rows = {**base, "is_committing": 0}
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
