"""The cache: the folder where packages and images are kept, safe against others and against Ctrl-C.

    <cache>/lock                one writer at a time
    <cache>/apt/<architecture>  apt's own state for a foreign architecture
    <cache>/packages            packages, each under the SHA-256 of its bytes
    <cache>/images              what was made from them
    <cache>/roots               Debian systems on disks, and builds of them that were cut off

Whatever appears in it was written elsewhere in the same folder and renamed into place, so a
reader never sees half a file and needs no lock; a writer that dies leaves at most a temporary
folder, which the next writer removes.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from disco.errors import ImageError

#: Called with one line a step; a command line shows it, a test collects it.
Progress = Callable[[str], None]

_TEMPORARY = "partial-"


def silent(_message: str) -> None:
    """A `Progress` that shows nothing."""


@dataclass(frozen=True)
class Cache:
    """The cache in `folder`."""

    folder: Path

    @classmethod
    def of_user(cls) -> Cache:
        """The cache of whoever runs this: `$XDG_CACHE_HOME/disco`, else `~/.cache/disco`."""
        base = os.environ.get("XDG_CACHE_HOME", "")
        root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
        return cls(root / "disco")

    @property
    def images(self) -> Path:
        """Folder of finished images."""
        return self.folder / "images"

    @property
    def roots(self) -> Path:
        """Folder of roots."""
        return self.folder / "roots"

    @property
    def packages(self) -> Path:
        """Folder of packages."""
        return self.folder / "packages"

    def package(self, sha256: str) -> Path:
        """Where the package with this hash is, if it is there."""
        return self.packages / f"{sha256}.deb"

    @contextmanager
    def writing(self, *, progress: Progress = silent) -> Iterator[None]:
        """Holds the lock of writers; waits for another process that has it.

        Raises:
            ImageError: the folder cannot be written, or the disk is full.
        """
        with _told(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / "lock").open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    progress(f"waiting for another process that writes to {self.folder}")
                    fcntl.flock(lock, fcntl.LOCK_EX)
                for orphan in self.folder.glob(f"{_TEMPORARY}*"):
                    shutil.rmtree(orphan)
                yield

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """A folder on the cache's disk that is gone afterwards, however that comes about."""
        with tempfile.TemporaryDirectory(prefix=_TEMPORARY, dir=self.folder) as folder:
            yield Path(folder)

    def check_room(self, size: int, *, what: str) -> None:
        """Makes sure that `size` bytes can be written.

        Raises:
            ImageError: they cannot; `what` is what they were for.
        """
        free = shutil.disk_usage(self.folder).free
        if free < size:
            raise ImageError(
                f"{what}: {_mib(size)} MiB asked, {_mib(free)} MiB free on the disk of"
                f" {self.folder}; set XDG_CACHE_HOME to a folder with more room"
            )


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Says in our words what the disk says in its own: full, read-only, not ours."""
    try:
        yield
    except OSError as error:
        raise ImageError(
            f"cache {folder}: cannot be written: {error.strerror};"
            " set XDG_CACHE_HOME to a folder that can"
        ) from error


def _mib(size: int) -> int:
    return -(-size >> 20)
