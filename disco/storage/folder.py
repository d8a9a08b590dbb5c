"""A folder of the host that VMs share, and nothing beside it.

Every name comes from a guest. A path is a row of names below the folder, and is walked anew for each
operation, name by name, from a descriptor of the folder: each step opens one name in the folder before it
and never follows a symbolic link. So neither `..` nor a link nor a folder that is renamed while we walk
leads out. Only regular files and folders are opened; devices, FIFOs and sockets of the host are seen and not
touched. What a guest creates never has set-user-ID or set-group-ID bits.

Owners: what belongs to whoever runs Disco belongs to root in the guest, all else to nobody.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from disco.errors import ConfigError

#: Names from the folder down; the folder itself has none.
Names = tuple[bytes, ...]

ROOT_OWNER = 0
NOBODY = 65534
NAME_BYTES_MAX = 255
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PERMISSIONS = 0o1777
_FOLDER_BYTES = 4096


@dataclass(frozen=True)
class Status:
    """What a guest is told of a file; times in nanoseconds since 1970.

    What depends on the host's file system and on when the folder came there is left out: the size of a
    folder, other times than that of the last change.
    """

    mode: int
    owner: int
    links: int
    size: int
    modified_ns: int
    identity: tuple[int, int]


class SharedFolder:
    """A folder of the host under a tag.

    Every method takes names below the folder and raises `OSError`, with EROFS for changes of what is
    read-only.

    Attributes:
        tag: by which guests mount it.
        is_read_only: whether guests cannot change anything.
    """

    def __init__(self, path: Path, *, tag: str = "", read_only: bool = True) -> None:
        """Opens the folder; `tag` is its name if there is none.

        Raises:
            ConfigError: it cannot be opened, or nobody can mount that tag.
        """
        self.tag = tag or path.resolve().name
        self.is_read_only = read_only
        if (
            not 0 < len(self.tag.encode()) <= 31
            or not self.tag.replace("-", "").replace("_", "").isalnum()
        ):
            raise ConfigError(
                f"shared folder {path}: tag '{self.tag}'; 1 to 31 letters, digits, hyphens and"
                " underscores are possible"
            )
        try:
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(
                f"shared folder {path}: cannot be opened: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Lets the folder go. Twice is fine."""
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    # -- looking

    def status(self, names: Names) -> Status:
        """Of a file, folder or link itself."""
        with self._parent(names) as (parent, name):
            return status_of(os.stat(name, dir_fd=parent, follow_symlinks=False))

    def read_link(self, names: Names) -> bytes:
        """Where a symbolic link points; the guest follows it itself."""
        with self._parent(names) as (parent, name):
            return os.readlink(name, dir_fd=parent)

    def list(self, names: Names) -> list[bytes]:
        """What is in a folder, sorted, so that the order is not the host's."""
        descriptor = self.open(names, os.O_RDONLY)
        try:
            if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise _error(errno.ENOTDIR)
            return sorted(os.fsencode(name) for name in os.listdir(descriptor))
        finally:
            os.close(descriptor)

    def room(self) -> os.statvfs_result:
        """Of the file system that the folder is in."""
        return os.fstatvfs(self._root)

    def open(self, names: Names, flags: int) -> int:
        """A descriptor of a file or folder; `flags` are os.O_*, of which O_CREAT and O_EXCL are not."""
        if flags & (os.O_ACCMODE | os.O_TRUNC):
            self._check_writable()
        with self._held(names) as held:
            if stat.S_IFMT(os.fstat(held).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                raise _error(errno.EACCES)
            return os.open(_proc(held), flags | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)

    # -- changing

    def create(self, names: Names, flags: int, mode: int) -> int:
        """Makes a file that was not there, and opens it."""
        with self._new(names) as (parent, name):
            flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(name, flags, mode & _PERMISSIONS, dir_fd=parent)

    def make_folder(self, names: Names, mode: int) -> None:
        """A new folder."""
        with self._new(names) as (parent, name):
            os.mkdir(name, mode & _PERMISSIONS, dir_fd=parent)

    def make_link(self, names: Names, target: bytes) -> None:
        """A new symbolic link; where it points is the guest's business."""
        if not target or b"\0" in target:
            raise _error(errno.EINVAL)
        with self._new(names) as (parent, name):
            os.symlink(target, name, dir_fd=parent)

    def make_hard_link(self, names: Names, old: Names) -> None:
        """One more name of a file."""
        with self._new(names) as (parent, name), self._parent(old) as (old_parent, old_name):
            os.link(old_name, name, src_dir_fd=old_parent, dst_dir_fd=parent, follow_symlinks=False)

    def rename(self, old: Names, new: Names) -> None:
        """Another name or place, over what was there."""
        with self._new(new) as (parent, name), self._parent(old) as (old_parent, old_name):
            os.rename(old_name, name, src_dir_fd=old_parent, dst_dir_fd=parent)

    def remove(self, names: Names, *, is_folder: bool) -> None:
        """A file's name, or an empty folder."""
        with self._new(names) as (parent, name):
            if is_folder:
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)

    def set_mode(self, names: Names, mode: int) -> None:
        """Permissions of a file or folder."""
        with self._changing(names) as held:
            os.chmod(_proc(held), mode & _PERMISSIONS)

    def set_size(self, names: Names, size: int) -> None:
        """Cuts a file, or makes it longer with zeros."""
        with self._changing(names) as held:
            os.truncate(_proc(held), size)

    def set_time(self, names: Names, modified_ns: int | None) -> None:
        """The time of the last change; None: now."""
        with self._changing(names) as held:
            given = time.time_ns() if modified_ns is None else modified_ns
            os.utime(_proc(held), ns=(given, given))

    # -- inside

    @contextmanager
    def _parent(self, names: Names) -> Iterator[tuple[int, bytes]]:
        """The folder that the last name is in, and that name; "." in the shared folder for no names."""
        for name in names:
            _check(name)
        here = os.dup(self._root)
        try:
            for name in names[:-1]:
                below = os.open(name, _STEP, dir_fd=here)
                os.close(here)
                here = below
            yield here, names[-1] if names else b"."
        finally:
            os.close(here)

    @contextmanager
    def _new(self, names: Names) -> Iterator[tuple[int, bytes]]:
        """The same for a name to be made, changed or removed, which the folder itself has not."""
        self._check_writable()
        if not names:
            raise _error(errno.EBUSY)
        with self._parent(names) as place:
            yield place

    @contextmanager
    def _held(self, names: Names) -> Iterator[int]:
        """A descriptor that only stands for the thing itself, be it a link."""
        with self._parent(names) as (parent, name):
            held = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            yield held
        finally:
            os.close(held)

    @contextmanager
    def _changing(self, names: Names) -> Iterator[int]:
        """The same of a file or folder whose status is to change."""
        self._check_writable()
        with self._held(names) as held:
            if stat.S_IFMT(os.fstat(held).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
                raise _error(errno.EACCES)
            yield held

    def _check_writable(self) -> None:
        if self.is_read_only:
            raise _error(errno.EROFS)


def status_of(found: os.stat_result) -> Status:
    """What a guest is told, of what the host says."""
    is_folder = stat.S_ISDIR(found.st_mode)
    return Status(
        mode=found.st_mode,
        owner=ROOT_OWNER if found.st_uid == os.geteuid() else NOBODY,
        links=1 if is_folder else found.st_nlink,
        size=_FOLDER_BYTES if is_folder else found.st_size,
        modified_ns=found.st_mtime_ns,
        identity=(found.st_dev, found.st_ino),
    )


def _check(name: bytes) -> None:
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        raise _error(errno.EINVAL)
    if len(name) > NAME_BYTES_MAX:
        raise _error(errno.ENAMETOOLONG)


def _proc(held: int) -> str:
    """A path to the very thing that a descriptor stands for."""
    return f"/proc/self/fd/{held}"


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
