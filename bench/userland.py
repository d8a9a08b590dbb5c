"""Debian's programs for guests: packages unpacked into archives that are laid over the image.

apt resolves what the named packages depend on; each package is fetched once, verified, and kept in
the cache both as it came and unpacked. No maintainer script runs: what a row needs of Debian is its
programs and their libraries, and those work from where they lie.

    <cache>/bench/closures.json     what apt said: names -> packages
    <cache>/bench/<sha256>.cpio     a package, unpacked
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from disco.guests import apt, deb, initramfs, recipe
from disco.guests.apt import Apt, Package
from disco.guests.cache import Cache, Progress
from disco.guests.images import Image

#: Raise it when the same package is unpacked differently.
_FORMAT = 2
#: In the image, /sbin is a link to /bin.
_SBIN = re.compile(r"sbin(?=/)")
#: What no row needs, and would only make the guest's boot longer.
_UNWANTED = re.compile(
    r"usr/share/(?:doc|man|info|locale|lintian|bug|gcc|gdb|bash-completion|menu|pixmaps)\b"
    r"|usr/lib/gcc/.*/(?:lto1|lto-wrapper|plugin|libgcov\.a|lib\w+san.*|libgomp\.a|libatomic\.a)"
    r"|usr/lib/[^/]+/(?:gconv|perl|audit|lib[^/]*(?<!nonshared)\.a$)"
    r"|usr/bin/(?:.*-)?(?:dwp|gp-.*|gprof.*|ld\.gold|gcov.*|lto-dump.*)$"
)
#: What the closure brings along and only maintainer scripts use.
_NOT_TAKEN = ("dpkg", "tar", "libmd0", "libacl1", "libselinux1", "libpcre2-8-0")


@dataclass(frozen=True)
class Userland:
    """Where Debian's packages for guests come from."""

    cache: Cache
    progress: Progress

    @property
    def folder(self) -> Path:
        """What the benchmark keeps in the cache."""
        return self.cache.folder / "bench"

    def packages(self, names: Iterable[str]) -> tuple[Package, ...]:
        """These packages and all that they need, as apt said the first time that it was asked.

        Raises:
            ImageError: apt cannot resolve them.
        """
        asked = tuple(sorted(set(names)))
        if not asked:
            return ()
        key = " ".join(asked)
        with self.cache.writing(progress=self.progress):
            known = self._closures()
            if key not in known:
                source = self._source()
                if not source.has_index():
                    source.update()
                known[key] = [asdict(package) for package in source.closure(asked)]
                self._keep("closures.json", json.dumps(known, indent=1).encode())
        found = (Package(**{**row, "depends": tuple(row["depends"])}) for row in known[key])
        not_taken = set(_NOT_TAKEN) - set(asked)
        return tuple(package for package in found if package.name not in not_taken)

    def archives(self, names: Iterable[str]) -> Iterator[bytes]:
        """Those packages as archives for `initramfs.append`.

        Raises:
            ImageError: a package cannot be had or read.
        """
        for package in self.packages(names):
            path = self.folder / f"{package.sha256[:32]}-{_FORMAT}.cpio"
            if not path.exists():
                with self.cache.writing(progress=self.progress):
                    self._unpack(package, path)
            yield path.read_bytes()

    def over(self, image: Image, names: Iterable[str], tree: initramfs.Tree) -> bytes:
        """The image's initramfs, the packages over it, and over all this tree.

        Raises:
            ImageError: a package cannot be had or read.
        """
        base = b"".join([image.initrd.read_bytes(), *self.archives(names)])
        return initramfs.append(base, tree)

    def keep(self, name: str, content: bytes) -> Path:
        """Keeps a file in the cache, whole or not at all."""
        with self.cache.writing(progress=self.progress):
            return self._keep(name, content)

    def _keep(self, name: str, content: bytes) -> Path:
        self.folder.mkdir(exist_ok=True)
        with self.cache.temporary() as folder:
            (folder / name).write_bytes(content)
            return (folder / name).rename(self.folder / name)

    def _unpack(self, package: Package, path: Path) -> None:
        fetched = self.cache.package(package.sha256)
        if not fetched.exists():
            self.cache.packages.mkdir(exist_ok=True)
            with self.cache.temporary() as folder:
                self._source().download(package, folder / fetched.name)
                (folder / fetched.name).rename(fetched)
        apt.check_hash(fetched, package)
        tree = deb.read_tree(fetched, lambda inner: not _UNWANTED.match(inner))
        self._keep(path.name, initramfs.archive(dict(_placed(tree))))

    def _closures(self) -> dict[str, list[dict[str, object]]]:
        path = self.folder / "closures.json"
        known: dict[str, list[dict[str, object]]] = (
            json.loads(path.read_text()) if path.exists() else {}
        )
        return known

    def _source(self) -> Apt:
        chosen = recipe.DEBIAN_BUSYBOX
        return Apt(
            folder=self.cache.folder / "apt" / chosen.architecture,
            architecture=chosen.architecture,
            release=chosen.release,
            etc=apt.ETC,
            progress=self.progress,
        )


def _placed(tree: initramfs.Tree) -> Iterator[tuple[str, initramfs.Node]]:
    """The tree where the image can have it; folders follow from what is in them."""
    for path, node in tree.items():
        if not stat.S_ISDIR(node.mode):
            yield _SBIN.sub("bin", path) if _SBIN.match(path) else path, node
