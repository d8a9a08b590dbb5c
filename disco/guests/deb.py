"""Package files: an `ar` archive whose member `data.tar.*` holds the files.

Read here, not by dpkg, which a machine that only has a copied cache may lack. gzip, bzip2 and xz
come with Python; for zstd, which Debian 12 does not use, there is a clear error.

A small package is read into memory. Of one like the kernel's, with 230 MiB of files of which a few are
looked at, `unpacked` puts the archive on disk and reads a file when it is asked for.

Source: deb(5), ar(5).
"""

from __future__ import annotations

import bz2
import io
import lzma
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from disco.errors import ImageError
from disco.guests import initramfs
from disco.guests.initramfs import Node

_MAGIC = b"!<arch>\n"
_HEADER_SIZE = 60
_DAMAGED = (KeyError, tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error)
_PIECE_SIZE = 1 << 16


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Plain:
    """What is not compressed, as if it were."""

    eof = True

    def decompress(self, data: bytes, /) -> bytes:
        return data


_READABLE: Mapping[str, Callable[[], _Decompressor]] = {
    "data.tar": _Plain,
    "data.tar.gz": lambda: zlib.decompressobj(wbits=31),
    "data.tar.bz2": bz2.BZ2Decompressor,
    "data.tar.xz": lzma.LZMADecompressor,
}


def read_files(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Content of the regular files in a package whose path (without leading "./") is wanted.

    Raises:
        ImageError: the file is no package, or a damaged one.
    """
    tree = read_tree(path, wanted)
    return {inner: node.content for inner, node in tree.items() if stat.S_ISREG(node.mode)}


def read_tree(path: Path, wanted: Callable[[str], bool]) -> dict[str, Node]:
    """The files, folders and links in a package whose path (without leading "./") is wanted.

    Raises:
        ImageError: the file is no package, or a damaged one.
    """
    name, data = _data_member(path)
    _check_readable(path, name)
    tree: dict[str, Node] = {}
    with (
        _told(path, name),
        tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as members,
    ):
        for member in members:
            inner = _inner(member)
            if inner in ("", ".") or not wanted(inner):
                continue
            node = _node(members, member)
            if node is not None:
                tree[inner] = node
    return tree


def plain(path: Path) -> bytes:
    """The same package with its files not compressed, so that reading it costs a guest little.

    Raises:
        ImageError: the file is no package, or a damaged one.
    """
    with path.open("rb") as package:
        name, offset, size = _data_place(path, package)
        _check_readable(path, name)
        package.seek(0)
        before, header = package.read(offset - _HEADER_SIZE), package.read(_HEADER_SIZE)
        files = b"".join(_decompressed(path, name, package, size))
    length = f"{len(files):<10}".encode()
    return before + b"data.tar".ljust(16) + header[16:48] + length + header[58:] + files


def files_offset(package: bytes) -> int:
    """Where the archive of files begins in a package that is `plain`; it ends with the package."""
    return package.index(b"data.tar ") + _HEADER_SIZE


def newest_time(files: bytes | memoryview) -> int:
    """The time of the newest file in an archive of files, in seconds since 1970."""
    with tarfile.open(fileobj=io.BytesIO(files), mode="r:") as members:
        return max((int(member.mtime) for member in members), default=0)


@contextmanager
def unpacked(
    path: Path, wanted: Callable[[str], bool], *, folder: Path
) -> Iterator[Mapping[str, bytes]]:
    """The regular files in a package whose path is wanted, each read when it is asked for.

    Args:
        path: the package.
        wanted: as for `read_files`.
        folder: where there is room for all files of the package; nothing stays there.

    Raises:
        ImageError: the file is no package, or a damaged one; also when a file is read.
    """
    with path.open("rb") as package, tempfile.TemporaryFile(dir=folder) as plain:
        name, offset, size = _data_place(path, package)
        _check_readable(path, name)
        package.seek(offset)
        for piece in _decompressed(path, name, package, size):
            plain.write(piece)
        plain.seek(0)
        with closing(_open(path, name, plain)) as members:
            yield _Files(path, members, wanted)


def _open(path: Path, name: str, plain: BinaryIO) -> tarfile.TarFile:
    with _told(path, name):
        return tarfile.open(fileobj=plain, mode="r:")


class _Files(Mapping[str, bytes]):
    """The files of an unpacked package."""

    def __init__(self, path: Path, members: tarfile.TarFile, wanted: Callable[[str], bool]) -> None:
        self._path = path
        self._members = members
        with _told(path, "data.tar"):
            found = (
                (_inner(member), member) for member in members if member.isfile() or member.islnk()
            )
            self._places = {inner: member for inner, member in found if wanted(inner)}

    def __getitem__(self, inner: str) -> bytes:
        member = self._places[inner]
        with _told(self._path, "data.tar"):
            content = self._members.extractfile(member)
            assert content is not None, "only regular files are kept"
            return content.read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _decompressed(path: Path, name: str, package: BinaryIO, size: int) -> Iterator[bytes]:
    """The next `size` bytes of a package, which are the member `name`, by pieces of its plain content."""
    unpack = _READABLE[name]()
    while size:
        piece = package.read(min(size, _PIECE_SIZE))
        size -= len(piece)
        with _told(path, name):
            yield unpack.decompress(piece)
    if not unpack.eof:
        raise ImageError(f"package {path}: {name} is damaged: it ends too early")


@contextmanager
def _told(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise ImageError(f"package {path}: {name} is damaged: {error}") from error


def _check_readable(path: Path, name: str) -> None:
    if name not in _READABLE:
        raise ImageError(f"package {path}: {name} cannot be read; {', '.join(_READABLE)} can")


def _inner(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./").rstrip("/")


def _node(members: tarfile.TarFile, member: tarfile.TarInfo) -> Node | None:
    """A member; None for what no Debian package has, such as a pipe. A hard link becomes a copy."""
    if member.isdir():
        return initramfs.folder(member.mode)
    if member.issym():
        return initramfs.link(member.linkname)
    content = members.extractfile(member)
    return None if content is None else initramfs.file(content.read(), member.mode)


def _data_member(path: Path) -> tuple[str, bytes]:
    """Name and bytes of the member that holds the files."""
    with path.open("rb") as package:
        name, offset, size = _data_place(path, package)
        package.seek(offset)
        return name, package.read(size)


def _data_place(path: Path, package: BinaryIO) -> tuple[str, int, int]:
    """Name, offset and size of the member that holds the files."""
    magic = package.read(len(_MAGIC))
    if magic != _MAGIC:
        raise ImageError(f"package {path}: not a Debian package: begins with {magic!r}")
    offset, end = len(_MAGIC), path.stat().st_size
    while offset + _HEADER_SIZE <= end:
        package.seek(offset)
        header = package.read(_HEADER_SIZE)
        name, digits = header[:16].decode("latin-1").strip(" /"), header[48:58].strip()
        if not digits.isdigit():
            break
        offset += _HEADER_SIZE
        size = int(digits)
        if offset + size > end:
            break
        if name.startswith("data.tar"):
            return name, offset, size
        offset += size + size % 2
    raise ImageError(f"package {path}: damaged: no whole member data.tar before byte {offset}")
