"""The VMs of a run, as words of the command line: `[NAME=]IMAGE[,vcpus=N][,memory=MIB][,root=DISK]`, one
word a VM.

    disco run debian-mipsel                                   one VM, vm1
    disco run default debian-mipsel                           two, vm1 and vm2
    disco run web=default,vcpus=2 old=debian-mipsel,memory=96
    disco run web=debian,root=web.disk                        its root is a disk that lasts

What a word leaves open is said by the options for all VMs, `--vcpus` and `--memory`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from disco import images
from disco.cli.terminal import say
from disco.errors import ConfigError
from disco.guests.images import Image
from disco.network.nat import PublishedPort

_FORM = "[NAME=]IMAGE[,vcpus=N][,memory=MIB][,root=DISK]"
#: A guest takes its VM's name for its host name.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_NUMBERS = ("vcpus", "memory")


@dataclass(frozen=True, kw_only=True)
class VmWish:
    """One VM as it is asked for.

    Attributes:
        name: on this machine.
        image: name of the image that it boots, or None for a kernel of the user's own.
        vcpus: virtual CPUs.
        memory_mib: physical memory in MiB.
        root: the disk of its root in the place of a copy-on-write disk on the image's, or None.
    """

    name: str
    image: str | None
    vcpus: int
    memory_mib: int
    root: Path | None = None


def without_image(*, count: int, vcpus: int, memory_mib: int) -> tuple[VmWish, ...]:
    """`count` VMs for a kernel of the user's own."""
    return tuple(
        VmWish(name=f"vm{number}", image=None, vcpus=vcpus, memory_mib=memory_mib)
        for number in range(1, count + 1)
    )


def parse(words: Sequence[str], *, count: int, vcpus: int, memory_mib: int) -> tuple[VmWish, ...]:
    """The VMs that `words` ask for, `count` for each word.

    A VM without a name of its own is called `vm` and its number; several of one name are numbered.

    Raises:
        ConfigError: a word does not have the form, or two VMs have one name.
    """
    wishes: list[VmWish] = []
    for word in words:
        first, *rest = word.split(",")
        name, named, image = first.rpartition("=")
        if not image or (named and not _NAME.fullmatch(name)):
            raise ConfigError(
                f"VM '{word}': {_FORM} is possible; a name is letters, digits and hyphens"
            )
        settings = {"vcpus": vcpus, "memory": memory_mib}
        root: Path | None = None
        for text in rest:
            if text.startswith("root=") and text != "root=":
                root = Path(text.removeprefix("root="))
            else:
                settings |= _setting(text, word)
        for copy in range(1, count + 1):
            own_name = name if count == 1 else f"{name}{copy}"
            wish = VmWish(
                name=own_name if named else f"vm{len(wishes) + 1}",
                image=image,
                vcpus=settings["vcpus"],
                memory_mib=settings["memory"],
                root=root,
            )
            wishes.append(wish)
    doubled = [name for name, uses in Counter(wish.name for wish in wishes).items() if uses > 1]
    if doubled:
        raise ConfigError(f"VM '{doubled[0]}': asked twice; each VM has a name of its own")
    return tuple(wishes)


def build_images(wishes: Sequence[VmWish], *, offline: bool) -> dict[str | None, Image]:
    """The images that VMs boot, by the names that they were asked for by.

    Raises:
        ImageError: one is unknown, or cannot be made.
    """
    names = dict.fromkeys(wish.image for wish in wishes)
    return {name: images.build(name, offline=offline, progress=say) for name in names if name}


def published(
    words: Sequence[str], wishes: Sequence[VmWish]
) -> dict[str, tuple[PublishedPort, ...]]:
    """The ports of VMs that are to be open on the host, by name of the VM.

    Raises:
        ConfigError: a word does not have the form, names no VM or no port, or two want one port.
    """
    names = [wish.name for wish in wishes]
    ports: dict[str, tuple[PublishedPort, ...]] = {}
    taken: set[int] = set()
    for word in words:
        *named, host, guest = ["", *word.split(":")] if word.count(":") else ["", "", ""]
        name = "".join(named) or (names[0] if len(names) == 1 else "")
        if not (host.isdecimal() and guest.isdecimal() and name in names) or len(named) > 2:
            raise ConfigError(
                f"--publish {word}: [VM:]HOST:GUEST is possible, with the numbers of two ports; the VMs"
                f" are {', '.join(names)}"
            )
        if int(host) in taken:
            raise ConfigError(f"--publish {word}: port {host} of the host is asked twice")
        taken.add(int(host))
        ports[name] = (*ports.get(name, ()), PublishedPort(int(host), int(guest)))
    return ports


def _setting(text: str, word: str) -> dict[str, int]:
    key, _, value = text.partition("=")
    if key not in _NUMBERS or not value.isascii() or not value.isdecimal():
        raise ConfigError(
            f"VM '{word}': '{text}' asked; vcpus=N, memory=MIB and root=DISK are possible"
        )
    return {key: int(value)}
