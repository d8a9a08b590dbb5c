"""What is in a Disco disk goes into its base, or with that into a new image."""

from __future__ import annotations

import os
from pathlib import Path

from disco.errors import ImageError
from disco.storage.cow import CowDisk, ZeroDisk
from disco.storage.discodisk import StoreDisk, base_rows, check_base
from disco.storage.disk import SECTOR_BYTES, Disk, RawDisk
from disco.storage.format import is_store, sync_folder
from disco.storage.store import Store

SECTORS_PER_CHUNK = (1 << 20) // SECTOR_BYTES


def commit(path: Path) -> int:
    """Writes the modified blocks of a Disco disk into its base, and drops them from the disk.

    Other disks on that base are refused afterwards. A crash on the way loses nothing: the disk
    is the same before and after, and a second commit ends what the first began.

    Returns:
        Bytes written to the base.

    Raises:
        ImageError: the disk has no base, it or its base is in use, or the host refuses.
    """
    with Store(path) as store:
        base_path = store.base_path
        if base_path is None:
            raise ImageError(f"disk '{path}' has no base; 'disco disk commit --to' makes an image")
        if not store.about.is_committing:
            check_base(store)
        own = CowDisk(ZeroDisk(store.about.sector_count), store)
        base = StoreDisk(base_path) if is_store(base_path) else RawDisk(base_path)
        with base:
            store.begin_commit()
            for first, count in own.modified_ranges():
                for sector in range(first, first + count, SECTORS_PER_CHUNK):
                    size = min(SECTORS_PER_CHUNK, first + count - sector)
                    base.write(sector, own.read(sector, size))
            base.flush()
        written = own.modified_bytes
        store.end_commit(base_rows(base_path, path.resolve()))
        return written


def export(disk: Disk, target: Path) -> None:
    """Writes the content of a disk to a new raw image with holes where it is zero.

    Raises:
        ImageError: there is something at `target`, or the host refuses.
    """
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        with unfinished.open("xb") as file:
            file.truncate(disk.sector_count * SECTOR_BYTES)
            for sector in range(0, disk.sector_count, SECTORS_PER_CHUNK):
                data = disk.read(sector, min(SECTORS_PER_CHUNK, disk.sector_count - sector))
                if data.count(0) != len(data):
                    file.seek(sector * SECTOR_BYTES)
                    file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.link(unfinished, target)
        sync_folder(target.parent)
    except FileExistsError as error:
        raise ImageError(
            f"disk image '{target}': there is a file of that name; a new name is possible"
        ) from error
    except OSError as error:
        raise ImageError(f"disk image '{target}' cannot be made: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
