"""9P2000.L, the protocol by which a guest's kernel reads and writes a shared folder.

A message is its length, a type, a tag that the answer repeats, and fields. A *fid* is the guest's number
for a file; it stands for names below the folder, and, once opened, for a descriptor of the host. An answer
is the type plus one, or an error with a number of Linux: of Linux on MIPS, since that is who asks.

Whatever a message claims is checked: it is cut where it ends, fids exist, names are looked up by the folder
(`disco/storage/folder.py`), which also keeps guests in. Extended attributes are refused, locks are always
granted: a folder has one kernel at a time that cares.

Source: the protocol as diod documents it; Linux 6.1, net/9p and fs/9p.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from disco.storage.folder import ROOT_OWNER, Names, SharedFolder, Status, status_of

HEADER = struct.Struct("<IBH")  # length, type, tag
_ERROR = struct.Struct("<I")
_COUNT = struct.Struct("<I")
_QID = struct.Struct("<BIQ")
#: The largest message that we agree to; Linux cannot send a longer one in its 128 descriptors.
MESSAGE_BYTES_MAX = 512 << 10
_MESSAGE_BYTES_MIN = 4096
#: What a read or directory listing needs beside its data, with a margin.
_OVERHEAD_BYTES = 24
_VERSION = b"9P2000.L"
_NO_FID = 0xFFFF_FFFF
FIDS_MAX = 4096
OPEN_MAX = 256
_WALK_NAMES_MAX = 16
_NAMES_MAX = 128
_FILE_SYSTEM_MAGIC = 0x01021997


class Type:
    """Requests; the answer is one more."""

    ERROR = 6
    STATFS = 8
    LOPEN = 12
    LCREATE = 14
    SYMLINK = 16
    MKNOD = 18
    RENAME = 20
    READLINK = 22
    GETATTR = 24
    SETATTR = 26
    XATTRWALK = 30
    READDIR = 40
    FSYNC = 50
    LOCK = 52
    GETLOCK = 54
    LINK = 70
    MKDIR = 72
    RENAMEAT = 74
    UNLINKAT = 76
    VERSION = 100
    ATTACH = 104
    FLUSH = 108
    WALK = 110
    READ = 116
    WRITE = 118
    CLUNK = 120
    REMOVE = 122


class _Set:
    """What a SETATTR changes."""

    MODE = 1
    OWNER = 2
    GROUP = 4
    SIZE = 8
    MODIFIED = 0x20
    MODIFIED_GIVEN = 0x100


_GETATTR_BASIC = 0x7FF
_QID_FOLDER = 0x80
_QID_LINK = 0x02
_AT_REMOVE_FOLDER = 0x200
_LOCK_UNLOCKED = 2
_LOCK_SUCCESS = 0

#: Flags of an open, as the protocol numbers them, that mean something here.
_OPEN_FLAGS = {0o1000: os.O_TRUNC, 0o2000: os.O_APPEND}
_OPEN_ACCESS = 3

#: Numbers of errors that Linux has others for on MIPS than elsewhere.
MIPS_ERRNO = {
    errno.EDEADLK: 45,
    errno.ENAMETOOLONG: 78,
    errno.ENOLCK: 46,
    errno.ENOSYS: 89,
    errno.ENOTEMPTY: 93,
    errno.ELOOP: 90,
    errno.EOVERFLOW: 79,
    errno.EILSEQ: 88,
    errno.EOPNOTSUPP: 122,
    errno.ESTALE: 151,
    errno.EDQUOT: 1133,
}


@dataclass(frozen=True)
class Fid:
    """A file by its names; `flags` are those it was opened with, or None. Plain values, for saving."""

    names: Names
    flags: int | None = None


class _Reader:
    """The fields of a message, in order. Asked for more than there is, it raises EINVAL."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise _error(errno.EINVAL)
        self._at += count
        return self._data[self._at - count : self._at]

    def u16(self) -> int:
        return int.from_bytes(self.take(2), "little")

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "little")

    def u64(self) -> int:
        return int.from_bytes(self.take(8), "little")

    def text(self) -> bytes:
        return self.take(self.u16())


class FileData(NamedTuple):
    """Content of a file of the host: device and number of the file, and where in it this was."""

    content: bytes
    identity: tuple[int, int]
    offset: int


class Answer(NamedTuple):
    """What goes back: `head`, and behind it content of a file, if there is any."""

    head: bytes
    data: FileData | None = None


class Server:
    """Answers one guest's messages about one folder."""

    def __init__(self, folder: SharedFolder) -> None:
        """Nobody has a fid yet."""
        self._folder = folder
        self._message_bytes = MESSAGE_BYTES_MAX
        self._fids: dict[int, Fid] = {}
        self._open: dict[int, int] = {}
        self._listings: dict[int, list[bytes]] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self._seen = 0
        self._answers: Mapping[int, Callable[[_Reader], bytes | FileData]] = {
            Type.STATFS: self._statfs,
            Type.LOPEN: self._lopen,
            Type.LCREATE: self._lcreate,
            Type.SYMLINK: self._symlink,
            Type.RENAME: self._rename,
            Type.READLINK: self._readlink,
            Type.GETATTR: self._getattr,
            Type.SETATTR: self._setattr,
            Type.READDIR: self._readdir,
            Type.FSYNC: self._fsync,
            Type.LOCK: lambda _fields: bytes((_LOCK_SUCCESS,)),
            Type.GETLOCK: self._getlock,
            Type.LINK: self._link,
            Type.MKDIR: self._mkdir,
            Type.RENAMEAT: self._renameat,
            Type.UNLINKAT: self._unlinkat,
            Type.VERSION: self._version,
            Type.ATTACH: self._attach,
            Type.FLUSH: lambda _fields: b"",
            Type.WALK: self._walk,
            Type.READ: self._read,
            Type.WRITE: self._write,
            Type.CLUNK: self._clunk,
            Type.REMOVE: self._remove,
        }

    def answer(self, message: bytes) -> Answer:
        """The answer to a message, which has a header at least."""
        length, kind, tag = HEADER.unpack_from(message)
        try:
            if not HEADER.size <= length <= min(len(message), self._message_bytes):
                raise _error(errno.EINVAL)
            if kind not in self._answers:
                raise _error(errno.EOPNOTSUPP)
            body = self._answers[kind](_Reader(message[HEADER.size : length]))
        except OSError as error:
            number = error.errno or errno.EIO
            kind, body = Type.ERROR, _ERROR.pack(MIPS_ERRNO.get(number, number))
        if isinstance(body, FileData):
            count = len(body.content)
            length = HEADER.size + _COUNT.size + count
            return Answer(HEADER.pack(length, kind + 1, tag) + _COUNT.pack(count), body)
        return Answer(HEADER.pack(HEADER.size + len(body), kind + 1, tag) + body)

    def reset(self) -> None:
        """Forgets every fid, as when a guest begins anew."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()
        self._fids.clear()
        self._listings.clear()

    def save(self) -> tuple[tuple[int, Fid], ...]:
        """The fids, by their numbers."""
        return tuple(sorted(self._fids.items(), key=lambda one: one[0]))

    def restore(self, fids: tuple[tuple[int, Fid], ...]) -> None:
        """Goes on from `save`. A file that is no longer there is stale when it is used."""
        self.reset()
        self._fids.update(fids)

    # -- fids

    def _fid(self, number: int) -> Fid:
        if number not in self._fids:
            raise _error(errno.EBADF)
        return self._fids[number]

    def _names(self, fields: _Reader) -> Names:
        return self._fid(fields.u32()).names

    def _put(self, number: int, fid: Fid) -> None:
        if number == _NO_FID or len(fid.names) > _NAMES_MAX:
            raise _error(errno.EINVAL)
        if number not in self._fids and len(self._fids) >= FIDS_MAX:
            raise _error(errno.ENFILE)
        self._drop(number)
        self._fids[number] = fid

    def _drop(self, number: int) -> None:
        self._fids.pop(number, None)
        self._listings.pop(number, None)
        descriptor = self._open.pop(number, None)
        if descriptor is not None:
            os.close(descriptor)

    def _descriptor(self, number: int) -> int:
        """Of an open fid; opened again if it was restored."""
        fid = self._fid(number)
        if fid.flags is None:
            raise _error(errno.EBADF)
        if number not in self._open:
            self._open[number] = self._folder.open(fid.names, fid.flags & ~os.O_TRUNC)
        return self._open[number]

    def _qid(self, status: Status) -> bytes:
        """Kind, version and number of a file. Numbers are in the order in which files were first seen."""
        number = self._numbers.get(status.identity)
        if number is None:
            self._seen += 1
            number = self._numbers[status.identity] = self._seen
        kind = {stat.S_IFDIR: _QID_FOLDER, stat.S_IFLNK: _QID_LINK}.get(stat.S_IFMT(status.mode), 0)
        return _QID.pack(kind, 0, number)

    def _moved(self, old: Names, new: Names) -> None:
        """What lay at or below `old` lies at or below `new`."""
        for number, fid in self._fids.items():
            if fid.names[: len(old)] == old:
                self._fids[number] = replace(fid, names=new + fid.names[len(old) :])

    # -- sessions and walks

    def _version(self, fields: _Reader) -> bytes:
        asked, version = fields.u32(), fields.text()
        self.reset()
        if asked < _MESSAGE_BYTES_MIN:
            raise _error(errno.EINVAL)
        self._message_bytes = min(asked, MESSAGE_BYTES_MAX)
        agreed = _VERSION if version == _VERSION else b"unknown"
        return struct.pack("<I", self._message_bytes) + _text(agreed)

    def _attach(self, fields: _Reader) -> bytes:
        self._put(fields.u32(), Fid(()))
        return self._qid(self._folder.status(()))

    def _walk(self, fields: _Reader) -> bytes:
        start, target, count = fields.u32(), fields.u32(), fields.u16()
        names, qids = self._fid(start).names, b""
        if count > _WALK_NAMES_MAX:
            raise _error(errno.EINVAL)
        for step in range(count):
            name = fields.text()
            names = names[:-1] if name == b".." else (*names, name)
            try:
                qids += self._qid(self._folder.status(names))
            except OSError:
                if step == 0:
                    raise
                return struct.pack("<H", step) + qids  # as far as it goes; no new fid
        self._put(target, Fid(names))
        return struct.pack("<H", count) + qids

    def _clunk(self, fields: _Reader) -> bytes:
        number = fields.u32()
        self._fid(number)
        self._drop(number)
        return b""

    # -- files

    def _lopen(self, fields: _Reader) -> bytes:
        number, asked = fields.u32(), fields.u32()
        fid, flags = self._fid(number), _flags(asked)
        self._check_open(number)
        self._open[number] = self._folder.open(fid.names, flags)
        self._fids[number] = replace(fid, flags=flags)
        return self._qid(status_of(os.fstat(self._open[number]))) + struct.pack("<I", 0)

    def _lcreate(self, fields: _Reader) -> bytes:
        number, name, asked, mode = fields.u32(), fields.text(), fields.u32(), fields.u32()
        names, flags = (*self._fid(number).names, name), _flags(asked)
        self._check_open(number)
        self._open[number] = self._folder.create(names, flags, mode)
        self._fids[number] = Fid(names, flags)
        return self._qid(status_of(os.fstat(self._open[number]))) + struct.pack("<I", 0)

    def _check_open(self, number: int) -> None:
        if self._fid(number).flags is not None:
            raise _error(errno.EBADF)
        if len(self._open) >= OPEN_MAX:
            raise _error(errno.EMFILE)

    def _read(self, fields: _Reader) -> FileData:
        number, offset, count = fields.u32(), fields.u64(), fields.u32()
        count = min(count, self._message_bytes - _OVERHEAD_BYTES)
        descriptor = self._descriptor(number)
        content = os.pread(descriptor, count, _offset(offset))
        return FileData(content, status_of(os.fstat(descriptor)).identity, offset)

    def _write(self, fields: _Reader) -> bytes:
        number, offset, count = fields.u32(), fields.u64(), fields.u32()
        data = fields.take(count)
        return struct.pack("<I", os.pwrite(self._descriptor(number), data, _offset(offset)))

    def _fsync(self, fields: _Reader) -> bytes:
        os.fsync(self._descriptor(fields.u32()))
        return b""

    def _getlock(self, fields: _Reader) -> bytes:
        fields.u32()
        kind, start, length, process = fields.take(1), fields.u64(), fields.u64(), fields.u32()
        del kind
        answer = struct.pack("<BQQI", _LOCK_UNLOCKED, start, length, process)
        return answer + _text(fields.text())

    # -- status

    def _getattr(self, fields: _Reader) -> bytes:
        number = fields.u32()
        fid = self._fid(number)
        if number in self._open:  # it may have no name any more
            status = status_of(os.fstat(self._open[number]))
        else:
            status = self._folder.status(fid.names)
        seconds, rest = divmod(status.modified_ns, 10**9)
        times = (seconds, rest) * 3 + (0, 0)
        return (
            struct.pack("<Q", _GETATTR_BASIC)
            + self._qid(status)
            + struct.pack("<III", status.mode, status.owner, status.owner)
            + struct.pack("<QQQQQ", status.links, 0, status.size, 4096, -(-status.size // 512))
            + struct.pack("<8Q", *(value % (1 << 64) for value in times))
            + struct.pack("<QQ", 0, 0)
        )

    def _setattr(self, fields: _Reader) -> bytes:
        names, wanted, mode = self._names(fields), fields.u32(), fields.u32()
        owner, group, size = fields.u32(), fields.u32(), fields.u64()
        fields.take(16)  # time of access
        seconds, rest = fields.u64(), fields.u64()
        owners = [*([owner] * bool(wanted & _Set.OWNER)), *([group] * bool(wanted & _Set.GROUP))]
        if any(one != ROOT_OWNER for one in owners):
            raise _error(errno.EPERM)
        if wanted & _Set.MODE:
            self._folder.set_mode(names, mode)
        if wanted & _Set.SIZE:
            self._folder.set_size(names, _offset(size))
        if wanted & _Set.MODIFIED:
            is_given = wanted & _Set.MODIFIED_GIVEN
            self._folder.set_time(names, _time_ns(seconds, rest) if is_given else None)
        return b""

    def _statfs(self, fields: _Reader) -> bytes:
        self._names(fields)
        room = self._folder.room()
        sizes = (room.f_blocks, room.f_bfree, room.f_bavail, room.f_files, room.f_ffree, 0)
        head = struct.pack("<II", _FILE_SYSTEM_MAGIC, room.f_frsize)
        return head + struct.pack("<6Q", *sizes) + struct.pack("<I", room.f_namemax)

    def _readdir(self, fields: _Reader) -> bytes:
        number, offset, count = fields.u32(), fields.u64(), fields.u32()
        names = self._fid(number).names
        self._descriptor(number)
        if offset == 0 or number not in self._listings:
            self._listings[number] = [b".", b"..", *self._folder.list(names)]
        room = min(count, self._message_bytes - _OVERHEAD_BYTES)
        entries = b""
        for place, name in enumerate(
            self._listings[number][_offset(offset) :], _offset(offset) + 1
        ):
            entry = self._entry(names, name, place)
            if len(entries) + len(entry) > room:
                break
            entries += entry
        return struct.pack("<I", len(entries)) + entries

    def _entry(self, folder: Names, name: bytes, place: int) -> bytes:
        """One name of a listing; nothing if it has gone since."""
        names = {b".": folder, b"..": folder[:-1]}.get(name, (*folder, name))
        try:
            status = self._folder.status(names)
        except OSError:
            return b""
        kind = stat.S_IFMT(status.mode) >> 12  # as readdir(3) has it
        return self._qid(status) + struct.pack("<QB", place, kind) + _text(name)

    # -- names

    def _readlink(self, fields: _Reader) -> bytes:
        return _text(self._folder.read_link(self._names(fields)))

    def _symlink(self, fields: _Reader) -> bytes:
        names, target = (*self._names(fields), fields.text()), fields.text()
        self._folder.make_link(names, target)
        return self._qid(self._folder.status(names))

    def _link(self, fields: _Reader) -> bytes:
        folder, old = self._names(fields), self._names(fields)
        self._folder.make_hard_link((*folder, fields.text()), old)
        return b""

    def _mkdir(self, fields: _Reader) -> bytes:
        names, mode = (*self._names(fields), fields.text()), fields.u32()
        self._folder.make_folder(names, mode)
        return self._qid(self._folder.status(names))

    def _rename(self, fields: _Reader) -> bytes:
        old, folder = self._names(fields), self._names(fields)
        new = (*folder, fields.text())
        self._folder.rename(old, new)
        self._moved(old, new)
        return b""

    def _renameat(self, fields: _Reader) -> bytes:
        old = (*self._names(fields), fields.text())
        new = (*self._names(fields), fields.text())
        self._folder.rename(old, new)
        self._moved(old, new)
        return b""

    def _unlinkat(self, fields: _Reader) -> bytes:
        names = (*self._names(fields), fields.text())
        self._forget(names, is_folder=bool(fields.u32() & _AT_REMOVE_FOLDER))
        return b""

    def _remove(self, fields: _Reader) -> bytes:
        """The fid goes whether or not its file can."""
        number = fields.u32()
        names = self._fid(number).names
        self._drop(number)
        self._forget(names, is_folder=stat.S_ISDIR(self._folder.status(names).mode))
        return b""

    def _forget(self, names: Names, *, is_folder: bool) -> None:
        """Removes a name; the host may give the number of a file that has no other to the next one."""
        status = self._folder.status(names)
        self._folder.remove(names, is_folder=is_folder)
        if is_folder or status.links == 1:
            self._numbers.pop(status.identity, None)


def _flags(asked: int) -> int:
    """Flags of the host for those of the protocol; what means nothing here is left out."""
    flags = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR)[asked & _OPEN_ACCESS]
    for theirs, ours in _OPEN_FLAGS.items():
        flags |= ours if asked & theirs else 0
    return flags


def _offset(value: int) -> int:
    if value >= 1 << 63:
        raise _error(errno.EINVAL)
    return value


def _time_ns(seconds: int, rest: int) -> int:
    if seconds >= 1 << 33 or rest >= 10**9:
        raise _error(errno.EINVAL)
    return seconds * 10**9 + rest


def _text(data: bytes) -> bytes:
    return struct.pack("<H", len(data)) + data


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
