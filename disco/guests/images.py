"""Images: a kernel and an initramfs, made from Debian's packages by a recipe and kept in the cache.

    images/<name>-<format>.json the record: packages and files, each with its SHA-256
    images/<name>-<key>/        kernel and archives; the key is the hash of all they were made from

Versions of Disco that make an image differently have records of their own, side by side. The record is
written last and names the folder, so an image is there as a whole or not at all. The same packages and
recipe give the same bytes. Packages are remembered with version and hash: given to `build` as `pinned`,
they make the same image again as long as the cache or a mirror has them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from disco.errors import ImageError
from disco.guests import apt, deb, initramfs, recipe
from disco.guests.apt import Apt, Package
from disco.guests.cache import Cache, Progress, sha256_of, silent
from disco.guests.recipe import Recipe

#: Raise it when an image comes out differently from the same packages.
_FORMAT = 4
#: End of what an image's shell prints when it is ready for input (PS1 of its /init).
PROMPT = ":~# "
_KERNEL = "vmlinuz"
_INITRD = "initrd.cpio"
_NETWORK = "network.cpio"
_SHARE = "share.cpio"
_BALLOON = "balloon.cpio"
_FILES = (_KERNEL, _INITRD, _NETWORK, _SHARE, _BALLOON)
#: What a build writes beside the packages: kernel, initrd, apt's index, for a while the files of the kernel's
#: package, with a margin.
_ROOM_SIZE = 384 << 20


@dataclass(frozen=True, kw_only=True)
class Image:
    """A kernel and an initrd that belong together.

    Attributes:
        name: of the image.
        kernel: path of the ELF kernel.
        initrd: path of the initramfs, to which more archives may be appended.
        network: path of an archive to append for a VM with a network card; None: the image needs none.
        share: path of one to append for a VM with shared folders; None: the image needs none.
        balloon: path of one to append for a VM with a balloon; None: the image needs none.
        packages: what it was made from.
        command_line: kernel command line to boot it with.
        key: hash of all that it was made from.
        disk: a disk for /dev/vda that VMs read and do not write; None: all is in the initramfs.
        ready: what the console shows when somebody can type.
    """

    name: str
    kernel: Path
    initrd: Path
    network: Path | None = None
    share: Path | None = None
    balloon: Path | None = None
    packages: tuple[Package, ...]
    command_line: str
    key: str
    sha256: Mapping[str, str] = field(repr=False)
    disk: Path | None = None
    ready: str = PROMPT


@dataclass(frozen=True)
class Offer:
    """A recipe, as users see it."""

    name: str
    aliases: tuple[str, ...]
    description: str
    is_built: bool


def available(*, cache: Cache | None = None) -> tuple[Offer, ...]:
    """All images that can be built, and which of them are."""
    cache = cache or Cache.of_user()
    return tuple(
        Offer(one.name, one.aliases, one.description, _record_path(cache, one).exists())
        for one in recipe.RECIPES
    )


def load(name: str, *, cache: Cache | None = None) -> Image:
    """The image as it was built.

    Raises:
        ImageError: unknown, not built, or its files are no longer what was built.
    """
    cache, chosen = cache or Cache.of_user(), find_recipe(name)
    image = _read_record(cache, chosen)
    if image is None:
        raise ImageError(
            f"image {chosen.name}: not built; 'disco image build {chosen.name}' builds it"
        )
    for path in (image.kernel, image.initrd, image.network, image.share, image.balloon):
        if path is not None and (not path.exists() or sha256_of(path) != image.sha256[path.name]):
            raise ImageError(
                f"image {chosen.name}: wrong hash: {path} is not what was built;"
                f" 'disco image remove {chosen.name}', then build it again"
            )
    return image


def build(
    name: str,
    *,
    offline: bool = False,
    refresh: bool = False,
    mirror: str | None = None,
    pinned: Sequence[Package] | None = None,
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Image:
    """The image; made first if the cache does not have it by the present recipe.

    Args:
        offline: use only what is in the cache.
        refresh: make it of the newest packages, even if it is there.
        mirror: address of a mirror of Debian; None: those of the machine's apt.
        pinned: the very packages to make it of, from the record of an earlier build.
        progress: called with each step.

    Raises:
        ImageError: unknown, or something that it needs cannot be had. The cache is as before.
    """
    cache, chosen = cache or Cache.of_user(), find_recipe(name)
    if pinned is None and not refresh and _is_current(cache, chosen):
        return load(name, cache=cache)
    with cache.writing(progress=progress):
        if pinned is None and not refresh and _is_current(cache, chosen):
            return load(name, cache=cache)  # another process was faster
        cache.check_room(_ROOM_SIZE, what=f"image {chosen.name}")
        source = Apt(
            folder=cache.folder / "apt" / chosen.architecture,
            architecture=chosen.architecture,
            release=chosen.release,
            mirror=mirror,
            etc=apt.ETC,
            progress=progress,
        )
        packages = _Packages(cache, source, offline=offline)
        parts = packages.resolve(chosen) if pinned is None else packages.pin(chosen, pinned)
        files = (packages.fetch(parts[0]), packages.fetch(parts[1]))
        progress(f"putting together {chosen.name}")
        _make(cache, chosen, parts, files)
    return load(name, cache=cache)


def remove(name: str, *, packages: bool = False, cache: Cache | None = None) -> None:
    """Takes an image out of the cache, and with `packages` what it was made from.

    Raises:
        ImageError: unknown, or not built.
    """
    cache, chosen = cache or Cache.of_user(), find_recipe(name)
    with cache.writing():
        image = _read_record(cache, chosen)
        if image is None:
            raise ImageError(f"image {chosen.name}: not built, nothing to remove")
        _record_path(cache, chosen).unlink()
        shutil.rmtree(image.kernel.parent, ignore_errors=True)
        for package in image.packages if packages else ():
            cache.package(package.sha256).unlink(missing_ok=True)


def manifest(name: str, *, cache: Cache | None = None) -> dict[str, Any]:
    """The record of a built image: its packages and files with their hashes, as JSON would have it.

    Raises:
        ImageError: unknown, or not built.
    """
    image = load(name, cache=cache)
    return _record(image)


def find_recipe(name: str) -> Recipe:
    """The recipe of that name or alias.

    Raises:
        ImageError: there is none.
    """
    for one in recipe.RECIPES:
        if name == one.name or name in one.aliases:
            return one
    known = ", ".join(name for one in recipe.RECIPES for name in (one.name, *one.aliases))
    raise ImageError(f"image '{name}': unknown; known are {known}")


@dataclass(frozen=True)
class _Packages:
    """Gets the packages of a recipe out of the cache or from apt."""

    cache: Cache
    apt: Apt
    offline: bool

    def resolve(self, chosen: Recipe) -> tuple[Package, Package]:
        """Kernel and userland, the newest that the index has."""
        self._update(chosen)
        meta = self.apt.find(chosen.kernel)
        kernels = [name for name in meta.depends if name.startswith("linux-image-")]
        if len(kernels) != 1:
            raise ImageError(f"package {meta}: depends on {len(kernels)} kernels; one is possible")
        return self.apt.find(kernels[0]), self.apt.find(chosen.userland)

    def pin(self, chosen: Recipe, pinned: Sequence[Package]) -> tuple[Package, Package]:
        """Kernel and userland among the packages of an earlier build."""
        usable = [one for one in pinned if one.architecture == chosen.architecture]
        kernels = [one for one in usable if one.name.startswith("linux-image-")]
        userlands = [one for one in usable if one.name == chosen.userland]
        if len(kernels) != 1 or len(userlands) != 1:
            names = ", ".join(str(one) for one in pinned)
            raise ImageError(
                f"image {chosen.name}: pinned to {names}; one linux-image-* and one"
                f" {chosen.userland} for {chosen.architecture} are possible"
            )
        return kernels[0], userlands[0]

    def fetch(self, package: Package) -> Path:
        """The package file, whole and with the right hash."""
        path = self.cache.package(package.sha256)
        if path.exists():
            apt.check_hash(path, package)
            return path
        if self.offline:
            raise ImageError(f"package {package}: not in the cache; offline, it cannot be fetched")
        self._check_index(package)
        self.cache.check_room(package.size, what=f"package {package}")
        self.cache.packages.mkdir(exist_ok=True)
        with self.cache.temporary() as folder:
            self.apt.download(package, folder / path.name)
            (folder / path.name).rename(path)
        return path

    def _update(self, chosen: Recipe) -> None:
        if not self.offline:
            self.apt.update()
        elif not self.apt.has_index():
            raise ImageError(
                f"image {chosen.name}: not in the cache, nor a list of packages to make it from;"
                " offline, they cannot be fetched: build it once with a network"
            )

    def _check_index(self, package: Package) -> None:
        """A pinned package must still be what the archive calls by that name and version."""
        if not self.apt.has_index():
            self.apt.update()
        found = self.apt.find(package.name, version=package.version)
        if found.sha256 != package.sha256:
            raise ImageError(
                f"package {package}: wrong hash: SHA-256 {package.sha256} asked,"
                f" the archive has {found.sha256}"
            )


def _make(
    cache: Cache, chosen: Recipe, packages: tuple[Package, Package], files: tuple[Path, Path]
) -> None:
    """Makes the image from its two packages, and puts it in the place of the one that was there."""
    programs = deb.read_files(files[1], lambda path: path == "bin/busybox")
    if not programs:
        raise ImageError(f"package {packages[1]}: has no bin/busybox")
    with deb.unpacked(files[0], recipe.kernel_file_wanted, folder=cache.folder) as kernel_files:
        kernel = recipe.kernel_of(kernel_files)
        tree, network, share, balloon = recipe.trees(
            chosen, busybox=programs["bin/busybox"], kernel_files=kernel_files
        )
    contents = {
        _KERNEL: kernel,
        _INITRD: initramfs.archive(tree),
        _NETWORK: initramfs.archive(network),
        _SHARE: initramfs.archive(share),
        _BALLOON: initramfs.archive(balloon),
    }
    key = _key(chosen, packages)
    before = _read_record(cache, chosen)
    target = cache.images / f"{chosen.name}-{key[:16]}"
    with cache.temporary() as folder:
        made = folder / target.name
        made.mkdir()
        for name, content in contents.items():
            (made / name).write_bytes(content)
        image = Image(
            name=chosen.name,
            kernel=target / _KERNEL,
            initrd=target / _INITRD,
            network=target / _NETWORK,
            share=target / _SHARE,
            balloon=target / _BALLOON,
            packages=packages,
            command_line=chosen.command_line,
            key=key,
            sha256={name: hashlib.sha256(data).hexdigest() for name, data in contents.items()},
        )
        record = folder / "record"
        record.write_text(json.dumps(_record(image), indent=2) + "\n")
        cache.images.mkdir(exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
        record.rename(_record_path(cache, chosen))
    if before is not None and before.kernel.parent != target:
        shutil.rmtree(before.kernel.parent, ignore_errors=True)


def _key(chosen: Recipe, packages: Sequence[Package]) -> str:
    """Hash of the recipe and the packages."""
    parts = [_recipe_key(chosen), *(package.sha256 for package in packages)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _recipe_key(chosen: Recipe) -> str:
    """Hash of what an image is made from beside packages; what it is called is no part of it."""
    unnamed = replace(chosen, name="", aliases=(), description="")
    text = f"{_FORMAT}\n{unnamed!r}\n".encode() + recipe.scripts()
    return hashlib.sha256(text).hexdigest()


def _is_current(cache: Cache, chosen: Recipe) -> bool:
    image = _read_record(cache, chosen)
    return image is not None and image.key == _key(chosen, image.packages)


def _record_path(cache: Cache, chosen: Recipe) -> Path:
    return cache.images / f"{chosen.name}-{_FORMAT}.json"


def _record(image: Image) -> dict[str, Any]:
    return {
        "name": image.name,
        "key": image.key,
        "folder": image.kernel.parent.name,
        "command_line": image.command_line,
        "sha256": dict(image.sha256),
        "packages": [_package_record(package) for package in image.packages],
    }


def _package_record(package: Package) -> dict[str, Any]:
    return {name: value for name, value in asdict(package).items() if name != "depends"}


def _read_record(cache: Cache, chosen: Recipe) -> Image | None:
    path = _record_path(cache, chosen)
    try:
        record = json.loads(path.read_text())
        folder = cache.images / record["folder"]
        return Image(
            name=record["name"],
            kernel=folder / _KERNEL,
            initrd=folder / _INITRD,
            network=folder / _NETWORK,
            share=folder / _SHARE,
            balloon=folder / _BALLOON,
            packages=tuple(Package(**one) for one in record["packages"]),
            command_line=record["command_line"],
            key=record["key"],
            sha256={name: record["sha256"][name] for name in _FILES},
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ImageError(
            f"image {chosen.name}: its record {path} cannot be read: {error.strerror}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(
            f"image {chosen.name}: its record {path} is damaged; remove that file and build again"
        ) from error
