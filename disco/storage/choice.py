"""Which disk a user means: a file and a mode, opened as what the file is.

    ro           read-only, shared by any number of VMs
    cow          written copy-on-write, in memory, lost at power-off; each VM has its own
    shared       the same, but one for all VMs that get it: each sees what the others write
    persistent   written for good, by one VM at a time

Without a mode, a Disco disk is persistent, since it was made to be written, and anything else is a base image
and copied on write: nobody's image is written unless he says so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from disco.errors import ConfigError, ImageError
from disco.storage.cow import MEMORY_LIMIT_BYTES, CowDisk, MemoryModifications, blocks_of
from disco.storage.disk import OpenDisk, RawDisk
from disco.storage.store import StoreDisk, is_store, open_base


class Mode(StrEnum):
    """What becomes of what is written."""

    RO = "ro"
    COW = "cow"
    SHARED = "shared"
    PERSISTENT = "persistent"


@dataclass(frozen=True)
class DiskChoice:
    """A disk as a user asks for it.

    Attributes:
        path: a raw image, or a Disco disk.
        mode: what becomes of what is written; None: by what the file is.
        limit_mib: how much may be modified in memory, in MiB; None: a GiB.
    """

    path: Path
    mode: Mode | None = None
    limit_mib: int | None = None

    @classmethod
    def parse(cls, text: str) -> DiskChoice:
        """`FILE[:MODE[,limit=MIB]]`. A file whose name ends so can be given with its mode.

        Raises:
            ConfigError: the limit is no number, or of a mode that keeps nothing in memory.
        """
        name, colon, words = text.rpartition(":")
        word, *settings = words.split(",")
        if not colon or not name or word not in list(Mode):
            return cls(Path(text))
        mode, limit = Mode(word), None
        for setting in settings:
            key, _, value = setting.partition("=")
            in_memory = mode in (Mode.COW, Mode.SHARED)
            if key != "limit" or not value.isascii() or not value.isdecimal() or not in_memory:
                raise ConfigError(
                    f"disk '{text}': '{setting}' asked; limit=MIB is possible with cow and shared"
                )
            limit = int(value)
        return cls(Path(name), mode, limit)

    @property
    def effective_mode(self) -> Mode:
        """The mode, as said or by what the file is."""
        if self.mode is not None:
            return self.mode
        return Mode.PERSISTENT if is_store(self.path) else Mode.COW

    def open(self) -> OpenDisk:
        """Opens and locks the file; the disk is a context manager that gives it back.

        Raises:
            ImageError: it cannot be used so.
        """
        refuse_foreign(self.path)
        match self.effective_mode:
            case Mode.RO:
                return open_base(self.path)
            case Mode.PERSISTENT:
                return StoreDisk(self.path) if is_store(self.path) else RawDisk(self.path)
            case Mode.COW | Mode.SHARED:
                base = open_base(self.path)
                limit = MEMORY_LIMIT_BYTES if self.limit_mib is None else self.limit_mib << 20
                own = MemoryModifications(
                    name=str(self.path),
                    block_count=blocks_of(base.sector_count),
                    limit_bytes=limit,
                )
                return CowDisk(base, own, close=base.close)


# -- images of others ---------------------------------------------------------------------------

#: How image files begin that we do not read ourselves, by the name that qemu-img has for them.
_FOREIGN = {
    b"QFI\xfb": "qcow2",
    b"KDMV": "vmdk",
    b"vhdxfile": "vhdx",
    b"conectix": "vpc",
    b"QED\0": "qed",
}
#: Of qemu-img check: nothing is wrong; clusters that nobody uses; the format has nothing to check.
_CHECK_STATUSES_GOOD = (0, 3, 63)
_VDI_SIGNATURE = b"\x7f\x10\xda\xbe"  # at byte 64


def foreign_format(path: Path) -> str | None:
    """The format of an image that has to be converted, by its first bytes, or None."""
    head = b""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(68)
    if head[64:68] == _VDI_SIGNATURE:
        return "vdi"
    return next((name for magic, name in _FOREIGN.items() if head.startswith(magic)), None)


def refuse_foreign(path: Path) -> None:
    """Raises `ImageError` for an image that would be read as if it were raw, but is not."""
    if (name := foreign_format(path)) is not None:
        raise ImageError(
            f"disk image '{path}' is {name}, not raw;"
            f" 'disco disk create NAME --from {path}' makes a raw image of it"
        )


def convert(source: Path, target: Path) -> None:
    """Makes a raw image of an image in another format, by qemu-img.

    Images that refer to other files are refused: whoever made one could have it read any file. So are damaged
    ones: of what is missing at its end, qemu-img would make zeros.

    Raises:
        ImageError: there is no qemu-img, something at `target`, or the image cannot be converted.
    """
    name = foreign_format(source) or "raw"
    if target.exists():
        raise ImageError(
            f"disk image '{target}': there is a file of that name; a new name is possible"
        )
    if not source.exists():
        raise ImageError(f"disk image '{source}' cannot be read: No such file or directory")
    if shutil.which("qemu-img") is None:
        raise ImageError(
            f"disk image '{source}' is {name}; qemu-img is needed to convert it:"
            " Debian package qemu-utils"
        )
    source = source.resolve()  # a full path is no protocol of qemu's
    facts = _qemu_img(source, "info", "--output=json", "-f", name, str(source))
    for word in ("backing-filename", "data-file"):
        if f'"{word}"' in facts:
            raise ImageError(
                f"disk image '{source}' refers to another file ({word});"
                " 'qemu-img convert' makes one of both, if you trust it"
            )
    _check(source, name, cluster_bytes=json.loads(facts).get("cluster-size", 0))
    unfinished = target.resolve().with_name(f".{target.name}.new")
    try:
        _qemu_img(source, "convert", "-f", name, "-O", "raw", str(source), str(unfinished))
        unfinished.rename(target)
    finally:
        unfinished.unlink(missing_ok=True)


def _check(source: Path, name: str, *, cluster_bytes: int) -> None:
    """Raises `ImageError` if what the image says of itself does not fit together, or is not in the file."""
    done = _run("check", "--output=json", "-f", name, str(source))
    if done.returncode not in _CHECK_STATUSES_GOOD:
        cause = done.stderr.strip().partition("\n")[0] or f"qemu-img ended with {done.returncode}"
        raise ImageError(f"disk image '{source}' is damaged or truncated: {cause}")
    size = source.stat().st_size
    # Tables behind the file's end are read as empty ones. The last cluster need not be whole.
    ends = [json.loads(done.stdout or "{}").get("image-end-offset", 0) - cluster_bytes + 1]
    stretches = json.loads(_qemu_img(source, "map", "--output=json", "-f", name, str(source)))
    ends += [one["offset"] + one["length"] for one in stretches if one["data"] and "offset" in one]
    if max(ends) > size:
        raise ImageError(
            f"disk image '{source}' is truncated: {size} bytes are there, {max(ends)} or more were"
        )


def _qemu_img(source: Path, *words: str) -> str:
    done = _run(*words)
    if done.returncode:
        cause = done.stderr.strip() or f"qemu-img ended with {done.returncode}"
        raise ImageError(f"disk image '{source}' cannot be converted: {cause}")
    return done.stdout


def _run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["qemu-img", *words], capture_output=True, text=True, check=False)
