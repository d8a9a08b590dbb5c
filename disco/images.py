"""Images: what VMs boot. Two kinds by one name each: in memory (`disco.guests.images`), and roots on a disk
(`disco.roots`).

image = images.build("debian")
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from disco.errors import ImageError
from disco.guests import images as in_memory
from disco.guests import recipe as kernels
from disco.guests.apt import Package
from disco.guests.cache import Cache, Progress, silent
from disco.guests.images import Image, Offer

__all__ = ["Image", "Offer", "available", "build", "export", "load", "manifest", "remove"]


def available(*, cache: Cache | None = None) -> tuple[Offer, ...]:
    """All images that can be built or are."""
    from disco.roots import store

    cache = cache or Cache.of_user()
    roots = (store.find(name, cache) for name in store.names(cache))
    return (
        *in_memory.available(cache=cache),
        *(Offer(one.name, (), one.description, store.is_built(one.name, cache)) for one in roots),
    )


def load(name: str, *, cache: Cache | None = None) -> Image:
    """The image as it was built.

    Raises:
        ImageError: unknown, not built, or its files are no longer what was built.
    """
    if _is_in_memory(name):
        return in_memory.load(name, cache=cache)
    from disco.roots import store

    _check_known(name, cache)
    return store.load(name, cache=cache or Cache.of_user())


def build(
    name: str,
    *,
    packages: Sequence[str] | None = None,
    architecture: str = "mips64el",
    disk_mib: int | None = None,
    offline: bool = False,
    refresh: bool = False,
    mirror: str | None = None,
    pinned: Sequence[Package] | None = None,
    progress: Progress = silent,
    cache: Cache | None = None,
) -> Image:
    """The image; made first if the cache does not have it by the present recipe.

    Args:
        name: a ready image, one that was built before, or with `packages` a new name.
        packages: what a root of one's own has beside Debian's essential packages.
        architecture: of such a root: mips64el or mipsel.
        disk_mib: size of its disk; None: 4 GiB. What is not written takes no room on the host.
        offline: use only what is in the cache.
        refresh: make it of the newest packages, even if it is there.
        mirror: address of a mirror of Debian; None: those of the machine's apt.
        pinned: for an image in memory: the very packages to make it of, from an earlier record.
        progress: called with each step.

    Raises:
        ImageError: unknown, or something that it needs cannot be had.
    """
    options = {"offline": offline, "refresh": refresh, "mirror": mirror, "progress": progress}
    if packages is None and _is_in_memory(name):
        return in_memory.build(name, **options, pinned=pinned, cache=cache)  # type: ignore[arg-type]
    from disco.roots import recipe, store

    cache = cache or Cache.of_user()
    if packages is None:
        _check_known(name, cache)
        chosen = store.find(name, cache)
    else:
        chosen = store.made_of(
            name,
            packages,
            architecture=architecture,
            disk_mib=recipe.DISK_MIB if disk_mib is None else disk_mib,
        )
        store.check_free(chosen, cache)
    return store.build(chosen, **options, cache=cache)  # type: ignore[arg-type]


def remove(name: str, *, packages: bool = False, cache: Cache | None = None) -> None:
    """Takes an image out of the cache, and with `packages` what it was made from.

    Raises:
        ImageError: unknown, not built, or a running VM reads its disk.
    """
    if _is_in_memory(name):
        in_memory.remove(name, packages=packages, cache=cache)
        return
    from disco.roots import store

    _check_known(name, cache)
    store.remove(name, packages=packages, cache=cache or Cache.of_user())


def manifest(name: str, *, cache: Cache | None = None) -> dict[str, Any]:
    """The record of a built image: its packages and files with their hashes, as JSON would have it.

    Raises:
        ImageError: unknown, or not built.
    """
    if _is_in_memory(name):
        return in_memory.manifest(name, cache=cache)
    from disco.roots import store

    _check_known(name, cache)
    return store.manifest(name, cache=cache or Cache.of_user())


def export(name: str, target: Path, *, cache: Cache | None = None) -> None:
    """Writes an image's files and its record into the new folder `target`.

    Raises:
        ImageError: unknown, not built, or the folder cannot be written.
    """
    from disco.roots import store

    cache = cache or Cache.of_user()
    store.export(load(name, cache=cache), manifest(name, cache=cache), target)


def is_root(name: str, *, cache: Cache | None = None) -> bool:
    """Whether that is the name of a root, built or not."""
    from disco.roots import store

    return not _is_in_memory(name) and store.is_known(name, cache or Cache.of_user())


def canonical_name(name: str, *, cache: Cache | None = None) -> str:
    """The name that an image is kept under.

    Raises:
        ImageError: unknown.
    """
    if _is_in_memory(name):
        return in_memory.find_recipe(name).name
    _check_known(name, cache)
    return name


def _is_in_memory(name: str) -> bool:
    return any(name == one.name or name in one.aliases for one in kernels.RECIPES)


def _check_known(name: str, cache: Cache | None) -> None:
    """Raises ImageError with the names of both kinds."""
    from disco.roots import store

    cache = cache or Cache.of_user()
    if store.is_known(name, cache):
        return
    ready = [word for one in kernels.RECIPES for word in (one.name, *one.aliases)]
    known = ", ".join([*ready, *store.names(cache)])
    raise ImageError(
        f"image '{name}': unknown; known are {known}; 'disco image build {name} --packages ...' makes"
        " a new one"
    )
