"""Recipes of roots: which packages a Debian system on a disk has, and how it is set up.

Every root has Debian's essential packages, an init system, and what makes a machine of it: kernel modules, the
network by DHCP, a login on the console. A recipe adds packages. The init system is sysvinit, or systemd if
that is among them.
"""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from importlib import resources

from disco.guests import recipe as kernels
from disco.guests.recipe import Recipe

#: Raise it when a root comes out differently from the same packages.
FORMAT = 1
#: What runs in guests; a root follows from them, too.
SCRIPTS = ("build.sh", "finish.sh")
#: apt's word for packages that no Debian system is without.
ESSENTIAL = "?essential"
#: The mark that programs and libraries are in one place.
_MERGED = "usr-is-merged"
_SYSVINIT = "sysvinit-core"
_SYSTEMD = "systemd-sysv"
#: What systemd waits for before it shows a login, and what its services talk through.
_SYSTEMD_TOO = ("udev", "dbus")
#: Packages whose files make `mkfs.ext4` run.
FILESYSTEM_TOOLS = (
    "libc6",
    "libcom-err2",
    "libext2fs2",
    "libss2",
    "libblkid1",
    "libuuid1",
    "e2fsprogs",
)
#: No udev unless systemd waits for it: devtmpfs has the nodes of all devices, and none comes later on this
#: platform.
_MACHINE = (
    "kmod",
    "e2fsprogs",
    "ifupdown",
    "isc-dhcp-client",
    "iproute2",
    "procps",
)
_MODULES = (
    "virtio_mmio",
    "virtio_blk",
    "virtio_console",
    "virtio_net",
    "virtio_balloon",
    "virtio-rng",
    "ext4",
    "crc32c_generic",
    "9p",
    "9pnet_virtio",
    "nfs",
    "nfsv3",
    "nfsv4",
    "nfsd",
    "overlay",
    "fuse",
    "loop",
    "autofs4",
    "binfmt_misc",
    "tun",
    "bridge",
    "veth",
)
#: Size of a root's disk; what is not written takes no room on the host.
DISK_MIB = 4096


@dataclass(frozen=True, kw_only=True)
class RootRecipe:
    """How to make a root.

    Attributes:
        name: what users call it.
        description: one line for them.
        kernel: the recipe whose kernel it boots and in whose VM it is configured.
        packages: what it has beside Debian's essential packages and those of every root.
        disk_mib: size of its disk.
    """

    name: str
    description: str
    kernel: Recipe
    packages: tuple[str, ...]
    disk_mib: int = DISK_MIB

    @property
    def first(self) -> tuple[str, ...]:
        """What is installed at once: the essential packages and the init system, with which later packages
        register their services."""
        return (ESSENTIAL, _MERGED, _SYSTEMD if self._has_systemd else _SYSVINIT)

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every package that apt is asked for."""
        more = _SYSTEMD_TOO if self._has_systemd else ()
        return tuple(dict.fromkeys((*self.first, *_MACHINE, *more, *self.packages)))

    @property
    def _has_systemd(self) -> bool:
        return _SYSTEMD in self.packages

    @property
    def modules(self) -> tuple[str, ...]:
        """Kernel modules that the root has."""
        return _MODULES


DEBIAN = RootRecipe(
    name="debian",
    description="Debian 12 on a disk: login, network by DHCP, ssh server, Python",
    kernel=kernels.DEBIAN_BUSYBOX,
    packages=("openssh-server", "python3-minimal"),
)
DEBIAN_DEV = RootRecipe(
    name="debian-dev",
    description="the same with gcc, make, gdb and git",
    kernel=kernels.DEBIAN_BUSYBOX,
    packages=("openssh-server", "python3", "gcc", "libc6-dev", "make", "gdb", "git"),
)

READY = (DEBIAN, DEBIAN_DEV)


def key_of(chosen: RootRecipe) -> str:
    """Hash of what a root is made from beside packages; what it is described as is no part of it."""
    parts = [
        str(FORMAT),
        chosen.name,
        chosen.kernel.architecture,
        chosen.kernel.release,
        str(chosen.disk_mib),
        *chosen.wanted,
        *chosen.modules,
    ]
    scripts = (resources.files(__package__).joinpath(name).read_bytes() for name in SCRIPTS)
    return hashlib.sha256("\n".join(parts).encode() + b"".join(scripts)).hexdigest()


def init_script() -> bytes:
    """The /init of the initramfs that mounts a root."""
    return resources.files(__package__).joinpath("init.sh").read_bytes()


def uuid_of(chosen: RootRecipe) -> str:
    """The identifier of its file system: the same in each build."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"disco root {key_of(chosen)}"))
