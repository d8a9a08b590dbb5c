"""What QEMU needs that Disco does not: the program, and Debian's kernel for the board it emulates.

The generic kernel that Disco boots wants a CPU of Release 2 on a board that QEMU only has with other
CPUs, so QEMU's side boots the flavour `5kc-malta` of the same version, with the same initramfs, on the
Malta board with one CPU of Release 2.

Source: QEMU's manual, MIPS system emulator; guests/start.S for what the small kernels use of a board.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from bench.session import Boot
from disco.guests import apt, deb, recipe
from disco.guests.apt import Apt, Package
from disco.guests.cache import Cache, Progress
from disco.guests.images import Image

PROGRAM = "qemu-system-mips64el"
#: What to tell somebody who has no QEMU.
HOW_TO_GET_IT = f"{PROGRAM} is not on this machine: apt-get install qemu-system-mips"
_CPU = "MIPS64R2-generic"
_FLAVOUR = "5kc-malta"


def is_there() -> bool:
    """Whether QEMU is on this machine."""
    return shutil.which(PROGRAM) is not None


def command(boot: Boot, *, memory_mib: int, console: int) -> list[str]:
    """The command that runs one guest and ends with it; its serial line `console` is printed."""
    serial = ["-serial", "null"] * console + ["-serial", "stdio"]
    words = [PROGRAM, "-M", "malta", "-cpu", _CPU, "-m", str(memory_mib), "-smp", "1"]
    words += ["-accel", "tcg", "-no-reboot", "-display", "none", "-monitor", "none", "-net", "none"]
    words += ["-vga", "none", *serial, "-kernel", str(boot.kernel)]
    if boot.initrd is not None:
        words += ["-initrd", str(boot.initrd), "-append", boot.append]
    return words


def kernel(image: Image, *, cache: Cache, progress: Progress) -> Path:
    """The Malta kernel of the image's version, fetched once and kept in the cache.

    Raises:
        ImageError: it cannot be had.
    """
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
        path = cache.folder / "bench" / f"{name}-{package.sha256[:16]}"
        if not path.exists():
            _fetch(source, package, path, cache)
    return path


def _fetch(source: Apt, package: Package, path: Path, cache: Cache) -> None:
    path.parent.mkdir(exist_ok=True)
    with cache.temporary() as folder:
        source.download(package, folder / "kernel.deb")
        files = deb.read_files(folder / "kernel.deb", recipe.kernel_file_wanted)
        made = folder / path.name
        made.write_bytes(recipe.kernel_of(files))
        made.rename(path)
