"""The package disk: what a root is made of, laid out so that a guest reads it with `dd`.

Parts one behind the other, each from a multiple of 64 KiB on. Packages are laid as their maintainers made
them, but for the compression of their files, which the host undoes: a guest would need a hundred
instructions a byte. The host has checked the hash of the package that it read.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from disco.guests import deb
from disco.guests.initramfs import Tree

BLOCK_BYTES = 64 << 10


@dataclass
class PackageDisk:
    """A package disk that is being written to `path`.

    Attributes:
        sizes: bytes of each part.
        epoch: the time of the newest file of a package, in seconds since 1970.
    """

    path: Path
    sizes: dict[str, int] = field(default_factory=dict)
    epoch: int = 0
    _lines: list[str] = field(default_factory=list)
    _blocks: int = 0

    def add(self, name: str, content: bytes | memoryview) -> None:
        """Lays a part down."""
        assert name not in self.sizes, f"{name} is on the disk already"
        self.sizes[name] = len(content)
        self._lines.append(f"{name} {self._blocks} {len(content)}\n")
        with self.path.open("ab") as file:
            file.write(content)
            file.write(bytes(-len(content) % BLOCK_BYTES))
        self._blocks += -(-len(content) // BLOCK_BYTES)

    def add_package(self, name: str, path: Path, *, with_files: bool) -> None:
        """Lays the package down as NAME.deb, and its files alone as NAME.tar if they are wanted, too.

        Raises:
            ImageError: it is no package, or a damaged one.
        """
        package = deb.plain(path)
        files = memoryview(package)[deb.files_offset(package) :]
        self.epoch = max(self.epoch, deb.newest_time(files))
        self.add(f"{name}.deb", package)
        if with_files:
            self.add(f"{name}.tar", files)

    @property
    def index(self) -> bytes:
        """A line a part: name, first block, bytes."""
        return "".join(self._lines).encode()


def archive(tree: Tree, files: Mapping[str, bytes]) -> bytes:
    """The regular files of a tree and some more as one `tar` archive, owned by root."""
    packed = io.BytesIO()
    contents = {path: node.content for path, node in tree.items()} | dict(files)
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as members:
        for path, content in sorted(contents.items()):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            members.addfile(member, io.BytesIO(content))
    return packed.getvalue()
