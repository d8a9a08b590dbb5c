"""What QEMU needs that Disco does not: the program, and Debian's kernel for the board it emulates.

The generic kernel that Disco boots wants a CPU of Release 2 on a board that QEMU only has with other
CPUs, so QEMU's side boots the flavour `5kc-malta` of the same version, with the same initramfs, on the
Malta board with one CPU of Release 2.

Source: QEMU's manual, MIPS system emulator; guests/start.S for what the small kernels use of a board.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.session import Boot
from disco.guests import apt, deb, initramfs, recipe
from disco.guests.apt import Apt
from disco.guests.cache import Cache, Progress
from disco.guests.images import Image

PROGRAM = "qemu-system-mips64el"
#: What to tell somebody who has no QEMU.
HOW_TO_GET_IT = f"{PROGRAM} is not on this machine: apt-get install qemu-system-mips"
_CPU = "MIPS64R2-generic"
_FLAVOUR = "5kc-malta"
_DRIVERS = ("virtio_pci", "virtio_net")


def is_there() -> bool:
    """Whether QEMU is on this machine."""
    return shutil.which(PROGRAM) is not None


def command(boot: Boot, *, memory_mib: int, console: int) -> list[str]:
    """The command that runs one guest and ends with it; its serial line `console` is printed."""
    serial = ["-serial", "null"] * console + ["-serial", "stdio"]
    words = [PROGRAM, "-M", "malta", "-cpu", _CPU, "-m", str(memory_mib), "-smp", "1"]
    words += ["-accel", "tcg", "-no-reboot", "-display", "none", "-monitor", "none"]
    words += ["-vga", "none", *serial, "-kernel", str(boot.kernel)]
    if boot.initrd is not None:
        words += ["-initrd", str(boot.initrd), "-append", boot.append]
    return words


def card(wire: int, guest: int) -> list[str]:
    """The words that give a guest a network card, at the end of a cable with this descriptor."""
    link = f"02:d1:5c:00:01:{guest + 1:02x}"  # as under Disco
    device = f"virtio-net-pci,netdev=wire,mac={link},romfile="
    return ["-netdev", f"socket,id=wire,fd={wire}", "-device", device]


def kernel(image: Image, *, cache: Cache, progress: Progress) -> Path:
    """The Malta kernel of the image's version, fetched once and kept in the cache.

    Raises:
        ImageError: it cannot be had.
    """
    return _of_package(image, "", recipe.kernel_of, cache=cache, progress=progress)


def drivers(image: Image, *, cache: Cache, progress: Progress) -> Path:
    """An archive with the drivers of a network card for that kernel, kept in the same way.

    Raises:
        ImageError: it cannot be had.
    """

    def made(files: Mapping[str, bytes]) -> bytes:
        return initramfs.archive(recipe.modules(files, _DRIVERS))

    return _of_package(image, "-drivers", made, cache=cache, progress=progress)


def _of_package(
    image: Image,
    suffix: str,
    make: Callable[[Mapping[str, bytes]], bytes],
    *,
    cache: Cache,
    progress: Progress,
) -> Path:
    """What `make` makes of the files of the kernel's package, kept in the cache under its name and `suffix`."""
    own = next(one for one in image.packages if one.name.startswith("linux-image-"))
    name = f"{own.name.rsplit('-', 1)[0]}-{_FLAVOUR}"
    chosen = recipe.DEBIAN_BUSYBOX
    source = Apt(
        folder=cache.folder / "apt" / chosen.architecture,
        architecture=chosen.architecture,
        release=chosen.release,
        etc=apt.ETC,
        progress=progress,
    )
    with cache.writing(progress=progress):
        if not source.has_index():
            source.update()
        package = source.find(name, version=own.version)
        path = cache.folder / "bench" / f"{name}-{package.sha256[:16]}{suffix}"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            with cache.temporary() as folder:
                source.download(package, folder / "kernel.deb")
                files = deb.read_files(folder / "kernel.deb", recipe.kernel_file_wanted)
                (folder / path.name).write_bytes(make(files))
                (folder / path.name).rename(path)
    return path
