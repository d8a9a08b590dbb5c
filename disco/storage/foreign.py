"""Disk images of others that are not raw: known by how they begin, refused, and converted by qemu-img."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from disco.errors import ImageError

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
