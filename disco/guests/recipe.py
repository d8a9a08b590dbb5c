"""Recipes: which Debian packages an image is made of, and which of their files go where.

One recipe for each of Debian's little-endian MIPS architectures; their images are put together
alike. The kernel is Debian's file as it is. The userland is Debian's busybox, linked under each of
the names it answers to, and our own /init. Of the kernel's modules only those for a VM's devices
are taken, with whatever they need, and the tables by which modprobe (and the kernel itself, through
/sbin/modprobe) finds them.

Source: modinfo sections of the modules; modules.dep(5); Linux, Documentation/filesystems/
ramfs-rootfs-initramfs.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from importlib import resources
from pathlib import PurePosixPath

from disco.errors import ImageError
from disco.guests import initramfs


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make an image.

    Attributes:
        name, aliases: what users call it.
        description: one line for them.
        architecture, release: of Debian.
        kernel: package that depends on the newest kernel of one flavour.
        userland: package with a statically linked busybox.
        modules: kernel modules to take; those they need come along.
        network: further modules, for VMs with a network card only.
        share: further modules, for VMs with shared folders only.
        balloon: further modules, for VMs with a balloon only.
        command_line: kernel command line to boot it with.
    """

    name: str
    aliases: tuple[str, ...]
    description: str
    architecture: str
    release: str
    kernel: str
    userland: str
    modules: tuple[str, ...]
    network: tuple[str, ...]
    share: tuple[str, ...]
    balloon: tuple[str, ...]
    command_line: str


def _debian_12(
    name: str, *aliases: str, description: str, architecture: str, flavour: str
) -> Recipe:
    """Debian 12 with a busybox userland, for one of its little-endian MIPS architectures."""
    return Recipe(
        name=name,
        aliases=aliases,
        description=description,
        architecture=architecture,
        release="bookworm",
        kernel=f"linux-image-{flavour}",
        userland="busybox-static",
        modules=(
            "virtio_mmio",
            "virtio_blk",
            "virtio_console",
            "virtio-rng",
            "ext4",
            # ext4 asks for it by its algorithm, when it mounts a filesystem with checksums.
            "crc32c_generic",
        ),
        network=("virtio_net",),
        share=("9pnet_virtio", "9p"),
        balloon=("virtio_balloon",),
        # Without `nokaslr` addresses would differ by boot; `panic=-1` ends a VM that has panicked.
        command_line="earlycon console=ttyS0,115200 nokaslr panic=-1 rdinit=/init",
    )


DEBIAN_BUSYBOX = _debian_12(
    "debian-busybox",
    "default",
    "debian-mips64el",
    description="Debian 12 kernel for MIPS64R2 with a busybox userland in memory",
    architecture="mips64el",
    flavour="mips64r2el",
)
DEBIAN_MIPSEL = _debian_12(
    "debian-mipsel",
    description="the same in 32 bits: kernel for MIPS32R2 and userland for mipsel",
    architecture="mipsel",
    flavour="mips32r2el",
)

RECIPES = (DEBIAN_BUSYBOX, DEBIAN_MIPSEL)


def init_script() -> bytes:
    """The image's /init."""
    return resources.files(__package__).joinpath("init.sh").read_bytes()


def scripts() -> bytes:
    """All that is in an image of our own, one behind the other."""
    return init_script() + network_script() + share_script()


def network_script() -> bytes:
    """What /init runs in a VM with a network card, and udhcpc calls."""
    return resources.files(__package__).joinpath("network.sh").read_bytes()


def share_script() -> bytes:
    """What /init runs in a VM with shared folders."""
    return resources.files(__package__).joinpath("share.sh").read_bytes()


def kernel_file_wanted(path: str) -> bool:
    """Whether a file of a kernel package is looked at: the kernel, modules and their tables."""
    return path.startswith(("boot/vmlinu", "lib/modules/"))


def kernel_of(files: Mapping[str, bytes]) -> bytes:
    """The kernel among the files of its package.

    Raises:
        ImageError: there is none, or several.
    """
    paths = [path for path in files if path.startswith("boot/vmlinu")]
    if len(paths) != 1:
        raise ImageError(f"kernel package: {len(paths)} kernels in it; exactly one is possible")
    return files[paths[0]]


def userland(busybox: bytes) -> initramfs.Tree:
    """The tree without modules: busybox under all its names, /init, and places to mount on."""
    tree = {
        "init": initramfs.program(init_script()),
        "bin/busybox": initramfs.program(busybox),
        "dev/console": initramfs.character_device(5, 1),
        "dev/null": initramfs.character_device(1, 3, 0o666),
        "etc/passwd": initramfs.file(b"root:x:0:0:root:/root:/bin/sh\n"),
        "etc/group": initramfs.file(b"root:x:0:\n"),
        "tmp": initramfs.folder(0o1777),
        "root": initramfs.folder(0o700),
        # The kernel calls /sbin/modprobe, and scripts the names they know.
        "sbin": initramfs.link("bin"),
        "usr/bin": initramfs.link("../bin"),
        "usr/sbin": initramfs.link("../bin"),
    }
    for name in ("disco", "mnt", "proc", "run", "sys", "var"):
        tree[name] = initramfs.folder()
    for name in applets(busybox):
        tree[f"bin/{name}"] = initramfs.link("busybox")
    return tree


def applets(busybox: bytes) -> tuple[str, ...]:
    """The names that a busybox answers to, read from the table in the program.

    The table is a row of sorted names, each ended by a zero, and begins with "[" and "[[".

    Raises:
        ImageError: no such table, or one without the names that /init uses.
    """
    table = re.search(rb"\0(\[\0\[\[\0(?:[^\0]+\0)+)\0", busybox)
    names = table[1].decode("ascii", "replace").split("\0")[:-1] if table else []
    missing = {"sh", "mount", "modprobe", "setsid", "cttyhack", "poweroff"} - set(names)
    if missing:
        raise ImageError(f"busybox: does not offer {', '.join(sorted(missing))}; /init needs them")
    return tuple(name for name in names if name != "busybox")


@dataclass(frozen=True)
class _Module:
    """A kernel module; its facts are in the section `.modinfo`, as NAME=VALUE ended by zeros."""

    path: str
    files: Mapping[str, bytes]

    @cached_property
    def name(self) -> str:
        return _module_name(PurePosixPath(self.path).stem)

    @cached_property
    def content(self) -> bytes:
        return self.files[self.path]

    def values(self, key: str) -> tuple[str, ...]:
        found = re.findall(rb"\0%s=([^\0]*)\0" % key.encode(), self.content)
        return tuple(value.decode("latin-1") for value in found)

    @cached_property
    def needs(self) -> tuple[str, ...]:
        return tuple(
            _module_name(n) for text in self.values("depends") for n in text.split(",") if n
        )


def modules(files: Mapping[str, bytes], roots: Iterable[str]) -> initramfs.Tree:
    """The modules `roots` and all they need out of a kernel package, with modprobe's tables.

    Raises:
        ImageError: the package lacks one that is not built into the kernel either.
    """
    all_of_them = (_Module(path, files) for path in files if path.endswith(".ko"))
    offered = {module.name: module for module in all_of_them}
    built_in = _built_in(files)
    chosen = _closure([_module_name(root) for root in roots], offered, built_in)
    if not chosen:
        return {}
    tree = {module.path: initramfs.file(module.content) for module in chosen}
    base = "/".join(chosen[0].path.split("/")[:3])
    tree[f"{base}/modules.dep"] = initramfs.file(_dependency_table(chosen, base))
    tree[f"{base}/modules.alias"] = initramfs.file(_alias_table(chosen))
    return tree


def trees(
    chosen: Recipe, *, busybox: bytes, kernel_files: Mapping[str, bytes]
) -> tuple[initramfs.Tree, initramfs.Tree, initramfs.Tree, initramfs.Tree]:
    """The tree of an image, and what to lay over it for a network card, for shared folders and for a balloon.

    Unpacking costs guest instructions, so a VM without a card does not get its driver. The tables of
    modprobe are in the first tree and name all modules, those of the other trees too.
    """
    plain = modules(kernel_files, chosen.modules)
    network = modules(kernel_files, (*chosen.modules, *chosen.network))
    share = modules(kernel_files, (*chosen.modules, *chosen.share))
    balloon = modules(kernel_files, (*chosen.modules, *chosen.balloon))
    tables = modules(
        kernel_files, (*chosen.modules, *chosen.network, *chosen.share, *chosen.balloon)
    )
    own = {path: node for path, node in tables.items() if path in plain}
    return (
        {**userland(busybox), **own},
        {**_beyond(plain, network), "disco/network": initramfs.program(network_script())},
        {**_beyond(plain, share), "disco/share": initramfs.program(share_script())},
        _beyond(plain, balloon),
    )


def _beyond(plain: initramfs.Tree, tree: initramfs.Tree) -> initramfs.Tree:
    return {path: node for path, node in tree.items() if path not in plain}


def _built_in(files: Mapping[str, bytes]) -> set[str]:
    return {
        _module_name(PurePosixPath(line).stem)
        for path in files
        if path.endswith("/modules.builtin")
        for line in files[path].decode().splitlines()
    }


def _closure(
    roots: Iterable[str], offered: Mapping[str, _Module], built_in: set[str]
) -> list[_Module]:
    """The modules in an order in which each comes after those it needs."""
    graph: dict[str, tuple[str, ...]] = {}
    waiting = [name for name in roots if name not in built_in]
    while waiting:
        name = waiting.pop()
        if name in graph:
            continue
        if name not in offered:
            raise ImageError(f"kernel package: module {name} is neither in it nor in the kernel")
        graph[name] = tuple(n for n in sorted(offered[name].needs) if n not in built_in)
        waiting.extend(graph[name])
    try:
        order = TopologicalSorter(dict(sorted(graph.items()))).static_order()
        return [offered[name] for name in order]
    except CycleError as error:
        raise ImageError(f"kernel package: modules need each other: {error.args[1]}") from error


def _dependency_table(chosen: list[_Module], base: str) -> bytes:
    """modules.dep: a module, and behind it all it needs, in the reverse of the order of loading."""
    place = {module.name: module.path.removeprefix(f"{base}/") for module in chosen}
    needed: dict[str, list[str]] = {}
    for module in chosen:
        direct = [name for name in module.needs if name in place]
        all_of_them = {*direct, *(far for name in direct for far in needed[name])}
        needed[module.name] = [m.name for m in reversed(chosen) if m.name in all_of_them]
    rows = (f"{place[n]}: {' '.join(place[far] for far in needed[n])}".rstrip() for n in place)
    return "".join(f"{row}\n" for row in rows).encode()


def _alias_table(chosen: list[_Module]) -> bytes:
    rows = (
        f"alias {alias} {module.name}\n" for module in chosen for alias in module.values("alias")
    )
    return "".join(rows).encode()


def _module_name(stem: str) -> str:
    """As the kernel spells it: "virtio-rng.ko" is the module virtio_rng."""
    return stem.replace("-", "_")
