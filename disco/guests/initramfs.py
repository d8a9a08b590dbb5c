"""The initramfs: a file tree as the cpio archive ("newc") that a kernel unpacks as its first root.

An archive is a row of members, each with a header of thirteen hexadecimal fields, and ends with a
member named `TRAILER!!!`. A kernel unpacks several archives laid end to end, the later ones over
the earlier, so the large one can be kept and a small one (a command, a workload) appended.

The archive is a function of the tree alone: members sorted by path, owner root, time 0, inode
numbers in order. It is not compressed by default: unpacking would be done by guest instructions.

Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst.
"""

from __future__ import annotations

import gzip
import stat
from collections.abc import Mapping
from dataclasses import dataclass

_MAGIC = b"070701"
_ALIGN = 4
#: Archives start on this boundary; the kernel skips the zeros between two of them.
_BLOCK = 512


@dataclass(frozen=True)
class Node:
    """One member: a file, folder, symbolic link or device node.

    Attributes:
        mode: kind and permission bits, as `st_mode`.
        content: bytes of a file, target of a link.
        device: major and minor number of a device node.
    """

    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(mode: int = 0o755) -> Node:
    """A folder."""
    return Node(stat.S_IFDIR | mode)


def file(content: bytes, mode: int = 0o644) -> Node:
    """A regular file."""
    return Node(stat.S_IFREG | mode, content)


def program(content: bytes) -> Node:
    """A file that can be run."""
    return file(content, 0o755)


def link(target: str) -> Node:
    """A symbolic link."""
    return Node(stat.S_IFLNK | 0o777, target.encode())


def character_device(major: int, minor: int, mode: int = 0o600) -> Node:
    """A character device node; making one in an archive needs no privilege."""
    return Node(stat.S_IFCHR | mode, device=(major, minor))


#: A tree: path without a leading slash -> node. Folders above a member are added where missing.
Tree = Mapping[str, Node]


def archive(tree: Tree, *, compress: bool = False) -> bytes:
    """The tree as one archive, a multiple of 512 bytes.

    Args:
        tree: what to pack.
        compress: pack with gzip as well. The bytes then also depend on the host's zlib.
    """
    members = sorted(_with_folders(tree).items())
    packed = b"".join(_member(path, node, inode) for inode, (path, node) in enumerate(members, 1))
    packed = _padded(packed + _member("TRAILER!!!", Node(0), 0), _BLOCK)
    return gzip.compress(packed, mtime=0) if compress else packed


def append(base: bytes, tree: Tree) -> bytes:
    """`base` with `tree` laid over it by a second archive."""
    return base + appendix(len(base), tree)


def appendix(base_size: int, tree: Tree) -> bytes:
    """What to put behind an archive of `base_size` bytes, so that `tree` is laid over it."""
    return bytes(-base_size % _BLOCK) + archive(tree)


def _with_folders(tree: Tree) -> dict[str, Node]:
    whole: dict[str, Node] = {}
    for path, node in tree.items():
        parts = path.split("/")
        assert all(part not in ("", ".", "..") for part in parts), f"no path in a tree: {path!r}"
        for depth in range(1, len(parts)):
            whole.setdefault("/".join(parts[:depth]), folder())
        whole[path] = node
    return whole


def _member(path: str, node: Node, inode: int) -> bytes:
    name = path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(node.mode) else 1
    major, minor = node.device
    owner = group = time = checksum = 0
    kind = (inode, node.mode, owner, group, links, time, len(node.content))
    fields = (*kind, 0, 0, major, minor, len(name), checksum)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    return _padded(header + name, _ALIGN) + _padded(node.content, _ALIGN)


def _padded(data: bytes, align: int) -> bytes:
    return data + bytes(-len(data) % align)
