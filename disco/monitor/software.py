"""What runs in a VM: a kernel, its initrd and command line, and perhaps one command.

Everything is read and checked when the `Software` is made; putting it into memory cannot fail for a
reason that lies in a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from disco.devices.bus import GuestMemory
from disco.errors import ConfigError, ImageError
from disco.guests import command as guest_command
from disco.guests import contents, devicetree, identity, initramfs, kernel
from disco.guests.images import Image
from disco.guests.kernel import Layout, LoadedKernel
from disco.guests.platform import Platform
from disco.monitor.board import seed_of

Part = bytes | memoryview
Parts = tuple[Part, ...]

#: UHI's argument registers by number.
_PIECE_SIZE = 1 << 16
_REGISTER_NUMBERS = {"a0": 4, "a1": 5, "a2": 6, "a3": 7}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a VM's software comes from.

    Attributes:
        image: kernel, initrd and command line that belong together.
        kernel: path of an ELF kernel, instead of the image's.
        initrd: path of an initramfs, instead of the image's.
        append: more words for the kernel command line.
        command: one command for the image's /init: words, or a shell script; None boots to a shell.
        files: files by path without a leading slash, laid over the image's initramfs.
        network: lay over it what the image has for a network card, too.
        shares: the same for shared folders.
        balloon: the same for a balloon.
    """

    image: Image | None = None
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    command: Sequence[str] | str | None = None
    files: Mapping[str, bytes] | None = None
    network: bool = False
    shares: bool = False
    balloon: bool = False

    def read(self, platform: Platform, *, vm: str, seed: int) -> Software:
        """Reads the files and finds a place for each on `platform`.

        Raises:
            ConfigError: these don't go together.
            ImageError: a file cannot be read, or is not what it should be, or does not fit.
        """
        path = self._kernel_path(vm)
        loaded = kernel.load(path, memory_bytes=platform.memory_bytes)
        nonce = guest_command.nonce(seed=seed, vm=vm) if self._has_our_init else ""
        initrd = self._initrd(identity.tree(nonce=nonce, name=vm) if nonce else {})
        initrd_size = sum(len(part) for part in initrd)
        words = [
            self.image.command_line if self.image else "",
            self.append,
        ]
        return Software(
            kernel=loaded,
            initrd=initrd,
            layout=kernel.place(loaded, initrd_size=initrd_size, platform=platform),
            command_line=" ".join(word for word in words if word),
            nonce=nonce,
            seed=seed if nonce else seed_of(machine_seed=seed, vm=vm),
        )

    @property
    def _has_our_init(self) -> bool:
        return self.image is not None and self.initrd is None

    def _kernel_path(self, vm: str) -> Path:
        if self.command is not None and not self._has_our_init:
            raise ConfigError(
                f"VM '{vm}': a command asked, but no image; only an image's /init runs commands"
            )
        if self.kernel is not None:
            return self.kernel
        if self.image is None:
            raise ConfigError(f"VM '{vm}': nothing to boot; an image or a kernel is possible")
        return self.image.kernel

    def _extras(self) -> list[Path]:
        """Archives to lay over the image for what this VM has."""
        if self.image is None or not self._has_our_init:
            return []
        image = self.image
        wanted = (
            (image.network, self.network),
            (image.share, self.shares),
            (image.balloon, self.balloon),
        )
        return [path for path, is_wanted in wanted if is_wanted and path is not None]

    def _initrd(self, always: initramfs.Tree) -> Parts:
        path = self.initrd or (self.image.initrd if self.image else None)
        try:
            parts: Parts = (contents.read(path) if path else b"",)
            for path in self._extras():
                parts += (contents.read(path),)
        except OSError as error:
            raise ImageError(f"initrd {path}: cannot be read: {error.strerror}") from error
        if self.command is not None:
            tree = guest_command.tree(self.command, self.files)
        else:
            tree = {path: initramfs.file(content) for path, content in (self.files or {}).items()}
        tree = {**tree, **always}
        if not tree:
            return parts
        return (*parts, initramfs.appendix(sum(map(len, parts)), tree))


@dataclass(frozen=True, kw_only=True)
class Software:
    """A checked kernel with its companions and their places.

    Attributes:
        initrd: its parts, one behind the other; the first is shared by all VMs that boot it.
        nonce: the word that marks the exit status of command or shell; empty without an image's /init.
        seed: what the kernel's random numbers start from. VMs with an image's /init have it in common,
            which then gives each its own; others differ from the start.
    """

    kernel: LoadedKernel
    initrd: Parts
    layout: Layout
    command_line: str
    nonce: str
    seed: int

    def load(self, memory: GuestMemory, platform: Platform) -> dict[int, int]:
        """Puts all into memory, and returns the registers that the kernel is entered with, by number.

        Raises:
            ConfigError: the command line is longer than a kernel takes.
            MemoryExhausted: the machine has no page left.
        """
        boot = devicetree.Boot(
            command_line=self.command_line, initrd=self.layout.initrd, seed=self.seed
        )
        tree = devicetree.build(platform, boot)
        for segment in self.kernel.segments:
            _put(memory, segment.paddr, segment.data)
        memory.write(self.layout.device_tree.base, tree)
        if self.layout.initrd is not None:
            base = self.layout.initrd.base
            for part in self.initrd:
                _put(memory, base, part)
                base += len(part)
        return {_REGISTER_NUMBERS[name]: value for name, value in self.layout.registers.items()}


def _put(memory: GuestMemory, paddr: int, data: Part) -> None:
    """Writes piece by piece, so that there is no second copy of the whole."""
    for start in range(0, len(data), _PIECE_SIZE):
        memory.write(paddr + start, bytes(data[start : start + _PIECE_SIZE]))
