"""`disco disk`: disks that last, what is in them, and what becomes of it."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from disco import images
from disco.cli.terminal import say
from disco.errors import ConfigError, ImageError
from disco.storage import discodisk, merging
from disco.storage.discodisk import StoreDisk
from disco.storage.disk import SECTOR_BYTES, RawDisk
from disco.storage.foreign import convert, foreign_format, refuse_foreign
from disco.storage.format import is_store
from disco.storage.store import Store

_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SIZE = re.compile(r"([0-9]+)([KMGT]?)i?B?", re.IGNORECASE)


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def size_bytes(text: str) -> int:
    """`64M`, `1GiB`, `4096`: a size in bytes, by powers of 1024.

    Raises:
        ConfigError: it is no size, or not whole sectors.
    """
    found = _SIZE.fullmatch(text)
    size = int(found[1]) << _UNITS[found[2].upper()] if found else 0
    if not 0 < size < 1 << 56 or size % SECTOR_BYTES:
        raise ConfigError(
            f"size '{text}' asked; possible are bytes in multiples of {SECTOR_BYTES},"
            " or a number with K, M, G or T"
        )
    return size


def create(path: Path, *, base: Path | None, size: str | None, source: Path | None) -> None:
    """Makes a Disco disk on a base or of a size, or a raw image of another's image."""
    if sum(wish is not None for wish in (base, size, source)) != 1:
        raise ConfigError(f"disk '{path}': one of --base, --size and --from is needed")
    if source is not None:
        convert(source, path)
        say(f"disk image '{path}': a raw image of '{source}'")
    elif base is not None:
        base = _base(base)
        refuse_foreign(base)
        discodisk.create(path, base=base)
        say(f"disk '{path}': made on '{base}', which must not change from now on")
    else:
        assert size is not None
        discodisk.create(path, sector_count=size_bytes(size) // SECTOR_BYTES)
        say(f"disk '{path}': made, empty")


def _base(wish: Path) -> Path:
    """A file, or the disk of a built root if there is no such file but an image of that name."""
    if not wish.exists() and images.is_root(str(wish)):
        disk = images.load(str(wish)).disk
        assert disk is not None, "a root has a disk"
        return disk
    return wish


def facts(path: Path) -> dict[str, Any]:
    """What a disk is, as data.

    Raises:
        ImageError: it cannot be read, or is open for writing.
    """
    if (foreign := foreign_format(path)) is not None:
        return {"path": str(path), "format": foreign}
    if not is_store(path):
        with RawDisk(path, read_only=True) as raw:
            size = raw.sector_count * SECTOR_BYTES
        return {"path": str(path), "format": "raw", "size_bytes": size}
    with Store(path, read_only=True) as opened:
        about = opened.about
        return {
            "path": str(path),
            "format": "disco",
            "size_bytes": about.sector_count * SECTOR_BYTES,
            "base": None if opened.base_path is None else str(opened.base_path),
            "modified_bytes": opened.modified_bytes,
            "file_bytes": path.stat().st_size,
            "commits": about.commits,
            "is_committing": about.is_committing,
        }


def info(path: Path, *, as_json: bool) -> None:
    """What the disk is."""
    known = facts(path)
    if as_json:
        _print(json.dumps(known))
        return
    for name, value in known.items():
        _print(f"{name.replace('_', ' '):16}{f'{value:,}' if type(value) is int else value}")


def diff(path: Path, *, as_json: bool) -> None:
    """The sectors in which a Disco disk differs from its base."""
    if not is_store(path):
        raise ImageError(f"disk image '{path}' is no Disco disk, so it differs from nothing")
    with StoreDisk(path, read_only=True) as disk:
        ranges = list(disk.modified_ranges())
    if as_json:
        rows = [{"sector": first, "count": count} for first, count in ranges]
        _print(json.dumps({"ranges": rows, "sectors": sum(count for _, count in ranges)}))
        return
    for first, count in ranges:
        _print(f"{first}+{count}")
    say(f"{sum(count for _, count in ranges):,} sectors in {len(ranges):,} runs")


def commit(path: Path, *, target: Path | None) -> None:
    """Writes the disk's sectors to its base, or all of its content to a new raw image."""
    if target is None:
        if not is_store(path):
            raise ImageError(f"disk image '{path}' is no Disco disk; there is nothing to commit")
        written = merging.commit(path)
        say(f"disk '{path}': {written:,} bytes written to its base; other disks on it are void")
        return
    refuse_foreign(path)
    with discodisk.open_base(path) as disk:
        merging.export(disk, target)
    say(f"disk image '{target}': the content of '{path}'")


def check(path: Path) -> bool:
    """Reads all of a disk and its base, and says what is wrong. True: nothing is."""
    problems: list[str] = []
    refuse_foreign(path)
    if not is_store(path):
        with RawDisk(path, read_only=True) as raw:
            for sector in range(0, raw.sector_count, merging.SECTORS_PER_CHUNK):
                raw.read(sector, min(merging.SECTORS_PER_CHUNK, raw.sector_count - sector))
    else:
        with Store(path, read_only=True) as opened:
            problems += opened.problems()
            try:
                discodisk.check_base(opened, thoroughly=True)
            except ImageError as error:
                if not opened.about.is_committing:
                    problems.append(str(error))
            if opened.about.is_committing:
                problems.append("a commit to its base is unfinished; 'disco disk commit' ends it")
    for problem in problems:
        _print(problem)
    say(f"disk '{path}': {f'{len(problems)} problems' if problems else 'no problem'}")
    return not problems
