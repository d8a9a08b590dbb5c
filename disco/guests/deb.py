"""Package files: an `ar` archive whose member `data.tar.*` holds the files.

Read here, not by dpkg, which a machine that only has a copied cache may lack. gzip, bzip2 and xz
come with Python; for zstd, which Debian 12 does not use, there is a clear error.

Source: deb(5), ar(5).
"""

from __future__ import annotations

import io
import lzma
import stat
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

from disco.errors import ImageError
from disco.guests import initramfs
from disco.guests.initramfs import Node

_MAGIC = b"!<arch>\n"
_HEADER_SIZE = 60
_READABLE = ("data.tar", "data.tar.gz", "data.tar.bz2", "data.tar.xz")


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
    if name not in _READABLE:
        raise ImageError(f"package {path}: {name} cannot be read; {', '.join(_READABLE)} can")
    tree: dict[str, Node] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:*") as members:
            for member in members:
                inner = member.name.removeprefix("./").rstrip("/")
                if inner in ("", ".") or not wanted(inner):
                    continue
                node = _node(members, member)
                if node is not None:
                    tree[inner] = node
    except (KeyError, tarfile.TarError, EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ImageError(f"package {path}: {name} is damaged: {error}") from error
    return tree


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
    archive = path.read_bytes()
    if not archive.startswith(_MAGIC):
        raise ImageError(f"package {path}: not a Debian package: begins with {archive[:8]!r}")
    offset = len(_MAGIC)
    while offset + _HEADER_SIZE <= len(archive):
        header = archive[offset : offset + _HEADER_SIZE]
        name, digits = header[:16].decode("latin-1").strip(" /"), header[48:58].strip()
        if not digits.isdigit():
            break
        offset += _HEADER_SIZE
        content = archive[offset : offset + int(digits)]
        if len(content) < int(digits):
            break
        if name.startswith("data.tar"):
            return name, content
        offset += int(digits) + int(digits) % 2
    raise ImageError(f"package {path}: damaged: no whole member data.tar before byte {offset}")
