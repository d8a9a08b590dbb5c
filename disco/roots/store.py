"""Roots in the cache: built, found, listed, removed, exported.

    roots/<name>.json           the record: recipe, packages and files
    roots/<name>-<key>/         vmlinuz, initrd.cpio and disk.raw; the key is the hash of all they were made of
    roots/<name>.building/      a build that is under way or was cut off

The record is written last and names the folder, so a root is there as a whole or not at all. A VM only reads
disk.raw, and holds a shared lock on it meanwhile. The hash of the list of packages is in the record: the same
list and recipe give the same root.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from disco.errors import ImageError
from disco.guests import apt, images
from disco.guests import recipe as kernels
from disco.guests.apt import Apt, Package
from disco.guests.cache import Cache, Progress, sha256_of, silent
from disco.guests.images import Image
from disco.roots import builder, recipe
from disco.roots.builder import Construction
from disco.roots.recipe import RootRecipe

KERNEL = "vmlinuz"
INITRD = "initrd.cpio"
DISK = "disk.raw"
MANIFEST = "manifest.json"
#: What a root's console shows when somebody can log in.
READY = "login: "
_BUILDING = ".building"
_WISH = "recipe.json"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ROOM_FACTOR = 8
_ARCHITECTURES = {one.architecture: one for one in kernels.RECIPES}


@dataclass(frozen=True)
class Record:
    """What is known of a root that is built.

    Attributes:
        recipe: by which it can be built again.
        packages: what it was made of; the kernel's first.
        key: hash of recipe and packages.
        sha256: of each of its files.
        disk_stamp: size and time of the last change of its disk, by which another disk is noticed.
        epoch: the time that its clock starts at, in seconds since 1970.
    """

    recipe: RootRecipe
    packages: tuple[Package, ...]
    key: str
    sha256: dict[str, str]
    disk_stamp: tuple[int, int]
    epoch: int


def names(cache: Cache) -> tuple[str, ...]:
    """Ready recipes and all that is built or began to be, by name."""
    built = [path.stem for path in cache.roots.glob("*.json")]
    built += [path.parent.stem for path in cache.roots.glob(f"*{_BUILDING}/{_WISH}")]
    return tuple(dict.fromkeys([*(one.name for one in recipe.READY), *sorted(built)]))


def is_built(name: str, cache: Cache) -> bool:
    """Whether there is a record of it."""
    return _record_path(cache, name).exists()


def is_known(name: str, cache: Cache) -> bool:
    """Whether `find` finds it."""
    return name in names(cache)


def find(name: str, cache: Cache) -> RootRecipe:
    """The recipe of that name: a ready one, or that by which a root was built or began to be.

    Raises:
        ImageError: its record cannot be read.
    """
    for one in recipe.READY:
        if one.name == name:
            return one
    record = read_record(name, cache)
    if record is not None:
        return record.recipe
    return _recipe_of(json.loads((_building(cache, name) / _WISH).read_text()))


def check_free(chosen: RootRecipe, cache: Cache) -> None:
    """Makes sure that no root of other packages has the name.

    Raises:
        ImageError: one has.
    """
    if is_known(chosen.name, cache):
        there = find(chosen.name, cache)
        if recipe.key_of(there) != recipe.key_of(chosen):
            raise ImageError(
                f"image '{chosen.name}': there is one with {' '.join(there.packages)} for"
                f" {there.kernel.architecture}; 'disco image remove {chosen.name}', or another name"
            )


def made_of(name: str, packages: Sequence[str], *, architecture: str, disk_mib: int) -> RootRecipe:
    """A recipe of the user's own.

    Raises:
        ImageError: no root can be called so, or made so.
    """
    taken = [*(one.name for one in recipe.READY)]
    taken += [word for one in kernels.RECIPES for word in (one.name, *one.aliases)]
    if not _NAME.fullmatch(name) or name in taken:
        raise ImageError(
            f"image '{name}': lower-case letters, digits and hyphens are possible, and no name of a"
            f" ready image: {', '.join(taken)}"
        )
    if architecture not in _ARCHITECTURES:
        raise ImageError(
            f"image '{name}': architecture {architecture} asked; {' and '.join(_ARCHITECTURES)} are"
            " possible"
        )
    return RootRecipe(
        name=name,
        description=f"Debian 12 for {architecture} with {' '.join(packages)}",
        kernel=_ARCHITECTURES[architecture],
        packages=tuple(packages),
        disk_mib=disk_mib,
    )


def load(name: str, *, cache: Cache) -> Image:
    """The root as it was built.

    Raises:
        ImageError: unknown, not built, or its files are no longer what was built.
    """
    record = read_record(name, cache)
    if record is None:
        chosen = find(name, cache)
        raise ImageError(
            f"image {chosen.name}: not built; 'disco image build {chosen.name}' builds it"
        )
    folder = _folder(cache, record)
    for inner in (KERNEL, INITRD):
        path = folder / inner
        if not path.exists() or sha256_of(path) != record.sha256[inner]:
            raise _changed(name, path)
    if _stamp(folder / DISK) != record.disk_stamp:
        raise _changed(name, folder / DISK)
    return Image(
        name=name,
        kernel=folder / KERNEL,
        initrd=folder / INITRD,
        packages=record.packages,
        command_line=record.recipe.kernel.command_line,
        key=record.key,
        sha256=record.sha256,
        disk=folder / DISK,
        ready=READY,
    )


def build(
    chosen: RootRecipe,
    *,
    cache: Cache,
    offline: bool = False,
    refresh: bool = False,
    mirror: str | None = None,
    progress: Progress = silent,
) -> Image:
    """The root; made first if the cache does not have it by this recipe.

    A build that was cut off goes on, unless `refresh` asks for the newest packages.

    Raises:
        ImageError: something that it needs cannot be had, or a maintainer script failed.
    """
    base = images.build(
        chosen.kernel.name, offline=offline, mirror=mirror, progress=progress, cache=cache
    )
    if not refresh and _is_current(chosen, cache):
        _renew_initrd(chosen.name, base, cache)
        return load(chosen.name, cache=cache)
    with _constructing(cache, chosen, progress) as folder:
        if not refresh and _is_current(chosen, cache):
            return load(chosen.name, cache=cache)  # another process was faster
        found = None if refresh else builder.unfinished(chosen, base, folder)
        if found is None:
            _clear(folder)
            found = _planned(chosen, base, folder, cache, offline, mirror, progress)
            builder.save(found)
        else:
            progress(f"image {chosen.name}: going on with the build that was cut off")
        _fetch(found, cache, offline, mirror, progress)
        cache.check_room(
            _ROOM_FACTOR * sum(one.size for one in found.plan.packages),
            what=f"image {chosen.name}",
        )
        epoch = builder.construct(found, cache=cache, progress=progress)
        _finish(found, epoch, cache)
    return load(chosen.name, cache=cache)


def remove(name: str, *, packages: bool, cache: Cache) -> None:
    """Takes a root, and what an unfinished build left, out of the cache.

    Raises:
        ImageError: unknown, not built, or in use by a VM.
    """
    find(name, cache)
    record, building = read_record(name, cache), _building(cache, name)
    if record is None and not building.exists():
        raise ImageError(f"image {name}: not built, nothing to remove")
    with cache.writing():
        if record is not None:
            with _unused(name, _folder(cache, record) / DISK):
                _record_path(cache, name).unlink()
                shutil.rmtree(_folder(cache, record))
            for package in record.packages if packages else ():
                cache.package(package.sha256).unlink(missing_ok=True)
    if building.exists():
        with _locked(cache, name, lambda: _busy(name)):
            shutil.rmtree(building)


def export(image: Image, record: dict[str, Any], target: Path) -> None:
    """Writes kernel, initrd, disk and record of any image into a new folder; the disk stays sparse.

    Raises:
        ImageError: its disk is not what was built, or the folder cannot be written.
    """
    if image.disk is not None and sha256_of_disk(image.disk) != image.sha256[DISK]:
        raise _changed(image.name, image.disk)
    try:
        target.mkdir(parents=True)
        for path in (image.kernel, image.initrd):
            shutil.copyfile(path, target / path.name)
        if image.disk is not None:
            copy_sparse(image.disk, target / DISK)
        (target / MANIFEST).write_text(json.dumps(record, indent=2) + "\n")
    except FileExistsError as error:
        raise ImageError(
            f"export to {target}: is there already; a new folder is possible"
        ) from error
    except OSError as error:
        raise ImageError(f"export to {target}: cannot be written: {error.strerror}") from error


def manifest(name: str, *, cache: Cache) -> dict[str, Any]:
    """The record of a root as JSON would have it, with the hash of its list of packages.

    Raises:
        ImageError: unknown, or not built.
    """
    load(name, cache=cache)
    record = read_record(name, cache)
    assert record is not None, "it has been loaded"
    return _as_data(record)


def packages_sha256(packages: Sequence[Package]) -> str:
    """The hash of a list of packages: a line each, sorted, of name, version, architecture and hash."""
    lines = sorted(f"{one.name} {one.version} {one.architecture} {one.sha256}" for one in packages)
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def sha256_of_disk(path: Path) -> str:
    """SHA-256 of what a sparse file holds: each run of bytes that are there, behind its place."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for start, end in _runs(file.fileno()):
            file.seek(start)
            while start < end:
                piece = file.read(min(1 << 20, end - start))
                for at in range(0, len(piece), 4096):
                    block = piece[at : at + 4096]
                    if block.strip(b"\0"):
                        digest.update(f"{start + at} ".encode() + block)
                start += len(piece)
    return digest.hexdigest()


def copy_sparse(source: Path, target: Path) -> None:
    """Copies a file without the holes in it. Raises OSError."""
    with source.open("rb") as reader, target.open("xb") as writer:
        for start, end in _runs(reader.fileno()):
            while start < end:
                start += os.copy_file_range(
                    reader.fileno(), writer.fileno(), end - start, start, start
                )
        writer.truncate(source.stat().st_size)


def _runs(fd: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: first byte, and first byte behind."""
    end, size = 0, os.fstat(fd).st_size
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:
            return  # no data behind `end`
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def _planned(
    chosen: RootRecipe,
    base: Image,
    folder: Path,
    cache: Cache,
    offline: bool,
    mirror: str | None,
    progress: Progress,
) -> Construction:
    source = _source(chosen, cache, mirror, progress)
    with cache.writing(progress=progress):
        if not offline:
            source.update()
        elif not source.has_index():
            raise ImageError(
                f"image {chosen.name}: no list of packages to make it from; offline, it cannot be"
                " fetched: build it once with a network"
            )
        essential = source.plan(chosen.first).packages
        plan = source.plan(chosen.wanted)
    (folder / _WISH).write_text(json.dumps(_recipe_data(chosen)))
    progress(f"image {chosen.name}: {len(plan.packages)} packages")
    return Construction(
        recipe=chosen,
        base=base,
        plan=plan,
        essential=tuple(package.name for package in essential),
        folder=folder,
    )


def _fetch(
    build: Construction, cache: Cache, offline: bool, mirror: str | None, progress: Progress
) -> None:
    missing = [one for one in build.packages if not cache.package(one.sha256).exists()]
    if not missing:
        return
    if offline:
        raise ImageError(
            f"package {missing[0]}: not in the cache; offline, it cannot be fetched"
            f" ({len(missing)} packages are missing)"
        )
    with cache.writing(progress=progress):
        source = _source(build.recipe, cache, mirror, progress)
        if not source.has_index():
            source.update()
        source.download_all(missing, cache)


def _source(chosen: RootRecipe, cache: Cache, mirror: str | None, progress: Progress) -> Apt:
    return Apt(
        folder=cache.folder / "apt" / chosen.kernel.architecture,
        architecture=chosen.kernel.architecture,
        release=chosen.kernel.release,
        mirror=mirror,
        etc=apt.ETC,
        progress=progress,
    )


def _finish(build: Construction, epoch: int, cache: Cache) -> None:
    """Puts the finished root in the place of the one that was there."""
    name = build.recipe.name
    key = _key(build.recipe, build.packages)
    before = read_record(name, cache)
    target = cache.roots / f"{name}-{key[:16]}"
    with cache.writing(), cache.temporary() as folder:
        made = folder / target.name
        made.mkdir()
        shutil.copyfile(build.base.kernel, made / KERNEL)
        (made / INITRD).write_bytes(builder.initrd(build.base, epoch))
        build.disk.chmod(0o444)
        build.disk.rename(made / DISK)
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
        sha256 = {inner: sha256_of(target / inner) for inner in (KERNEL, INITRD)}
        sha256[DISK] = sha256_of_disk(target / DISK)
        stamp = _stamp(target / DISK)
        assert stamp is not None, "it has just been put there"
        record = folder / "record"
        made_record = Record(build.recipe, build.packages, key, sha256, stamp, epoch)
        record.write_text(json.dumps(_as_data(made_record), indent=2) + "\n")
        record.rename(_record_path(cache, name))
    if before is not None and _folder(cache, before) != target:
        shutil.rmtree(_folder(cache, before), ignore_errors=True)


def _renew_initrd(name: str, base: Image, cache: Cache) -> None:
    """Makes the initrd anew if this Disco has another one for the same kernel; the disk stays."""
    record = read_record(name, cache)
    assert record is not None, "it is current"
    if record.packages[0] not in base.packages:
        return  # the modules in the base image's initramfs are another kernel's
    made = builder.initrd(base, record.epoch)
    sha256 = hashlib.sha256(made).hexdigest()
    if sha256 == record.sha256[INITRD]:
        return
    with cache.writing(), cache.temporary() as folder:
        (folder / INITRD).write_bytes(made)
        (folder / INITRD).rename(_folder(cache, record) / INITRD)
        renewed = replace(record, sha256={**record.sha256, INITRD: sha256})
        (folder / "record").write_text(json.dumps(_as_data(renewed), indent=2) + "\n")
        (folder / "record").rename(_record_path(cache, name))


def _key(chosen: RootRecipe, packages: Sequence[Package]) -> str:
    text = f"{recipe.key_of(chosen)}\n{packages_sha256(packages)}"
    return hashlib.sha256(text.encode()).hexdigest()


def _is_current(chosen: RootRecipe, cache: Cache) -> bool:
    record = read_record(chosen.name, cache)
    return record is not None and record.key == _key(chosen, record.packages)


# -- records ------------------------------------------------------------------------------------


def read_record(name: str, cache: Cache) -> Record | None:
    """The record of a root; None if it is not built.

    Raises:
        ImageError: it cannot be read.
    """
    path = _record_path(cache, name)
    try:
        data = json.loads(path.read_text())
        size, changed_ns = data["disk_stamp"]
        return Record(
            recipe=replace(_recipe_of(data["recipe"]), name=data["name"]),
            packages=tuple(Package(**one) for one in data["packages"]),
            key=data["key"],
            sha256={inner: data["sha256"][inner] for inner in (KERNEL, INITRD, DISK)},
            disk_stamp=(size, changed_ns),
            epoch=data["epoch"],
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ImageError(
            f"image {name}: its record {path} cannot be read: {error.strerror}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ImageError(
            f"image {name}: its record {path} is damaged; remove that file and build again"
        ) from error


def _as_data(record: Record) -> dict[str, Any]:
    return {
        "name": record.recipe.name,
        "key": record.key,
        "recipe": _recipe_data(record.recipe),
        "sha256": record.sha256,
        "disk_stamp": list(record.disk_stamp),
        "epoch": record.epoch,
        "packages_sha256": packages_sha256(record.packages),
        "packages": [
            {key: value for key, value in asdict(one).items() if key != "depends"}
            for one in record.packages
        ],
    }


def _recipe_data(chosen: RootRecipe) -> dict[str, Any]:
    return {
        "name": chosen.name,
        "description": chosen.description,
        "architecture": chosen.kernel.architecture,
        "packages": list(chosen.packages),
        "disk_mib": chosen.disk_mib,
    }


def _recipe_of(data: dict[str, Any]) -> RootRecipe:
    return RootRecipe(
        name=data["name"],
        description=data["description"],
        kernel=_ARCHITECTURES[data["architecture"]],
        packages=tuple(data["packages"]),
        disk_mib=data["disk_mib"],
    )


def _record_path(cache: Cache, name: str) -> Path:
    return cache.roots / f"{name}.json"


def _folder(cache: Cache, record: Record) -> Path:
    return cache.roots / f"{record.recipe.name}-{record.key[:16]}"


def _building(cache: Cache, name: str) -> Path:
    return cache.roots / f"{name}{_BUILDING}"


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns


def _changed(name: str, path: Path) -> ImageError:
    return ImageError(
        f"image {name}: {path} is not what was built; 'disco image remove {name}', then build it again"
    )


# -- locks --------------------------------------------------------------------------------------


@contextmanager
def _constructing(cache: Cache, chosen: RootRecipe, progress: Progress) -> Iterator[Path]:
    """The folder of a build, held by one process; what it is doing can take minutes."""

    def wait() -> None:
        progress(f"image {chosen.name}: waiting for another process that builds it")

    folder = _building(cache, chosen.name)
    with cache.writing(progress=progress):
        folder.mkdir(parents=True, exist_ok=True)
    with _locked(cache, chosen.name, wait):
        folder.mkdir(exist_ok=True)
        yield folder
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(cache: Cache, name: str, when_busy: Callable[[], None]) -> Iterator[None]:
    with (cache.roots / f"{name}.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            when_busy()
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _busy(name: str) -> None:
    raise ImageError(f"image {name}: another process builds it; wait for it, or end it first")


@contextmanager
def _unused(name: str, disk: Path) -> Iterator[None]:
    """Makes sure that no VM has the disk."""
    try:
        with disk.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except FileNotFoundError:
        yield
    except BlockingIOError as error:
        raise ImageError(f"image {name}: in use by a running VM; end that first") from error


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
