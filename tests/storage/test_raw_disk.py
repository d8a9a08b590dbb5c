"""Raw images: what opens, what does not and why, and one writer at a time."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys

import pytest

from disco.errors import ImageError
from disco.storage.disk import SECTOR_BYTES, DiskError, MemoryDisk, RawDisk


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(64 * SECTOR_BYTES))
    return path


def memory_disk(_path):
    return MemoryDisk(bytes(64 * SECTOR_BYTES))


@pytest.mark.parametrize("make", [RawDisk, memory_disk], ids=["raw", "memory"])
def test_a_disk_holds_what_was_written_last(make, image):
    rng = random.Random(5)
    disk, model = make(image), {}
    for _ in range(2000):
        sector = rng.randrange(64)
        count = rng.randint(0, 64 - sector)
        if rng.random() < 0.5:
            data = rng.randbytes(count * SECTOR_BYTES)
            disk.write(sector, data)
            for at in range(count):
                model[sector + at] = data[at * SECTOR_BYTES : (at + 1) * SECTOR_BYTES]
        else:
            zero = bytes(SECTOR_BYTES)
            expected = b"".join(model.get(sector + at, zero) for at in range(count))
            assert disk.read(sector, count) == expected
    disk.flush()


@pytest.mark.parametrize("make", [RawDisk, memory_disk], ids=["raw", "memory"])
@pytest.mark.parametrize(("sector", "count"), [(64, 1), (63, 2), (-1, 1), (2**63, 1)])
def test_access_past_the_disk_is_the_callers_bug(make, image, sector, count):
    disk = make(image)
    with pytest.raises(AssertionError, match="not on a disk of 64"):
        disk.read(sector, count)
    with pytest.raises(AssertionError, match="not on a disk of 64"):
        disk.write(sector, bytes(count * SECTOR_BYTES))


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "is empty; the smallest disk is 512 bytes"),
        (511, "has 511 bytes, not a multiple of 512; 512 would be"),
        (1025, "has 1025 bytes, not a multiple of 512; 1536 would be"),
    ],
)
def test_an_image_is_whole_sectors(tmp_path, size, words):
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(size))
    with pytest.raises(ImageError, match=words):
        RawDisk(path)
    with pytest.raises(ImageError, match=words):
        MemoryDisk(bytes(size))


def test_what_cannot_be_a_disk_is_an_image_error(tmp_path):
    with pytest.raises(ImageError, match=r"missing\.img' cannot be written: No such file"):
        RawDisk(tmp_path / "missing.img")
    with pytest.raises(ImageError, match="is a directory"):
        RawDisk(tmp_path, read_only=True)
    with pytest.raises(ImageError, match="Is a directory"):
        RawDisk(tmp_path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ImageError, match="neither a file nor a block device"):
        RawDisk(tmp_path / "fifo", read_only=True)  # and does not wait for a writer
    with pytest.raises(ImageError, match="neither a file nor a block device"):
        RawDisk("/dev/null")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_an_image_without_permission_is_an_image_error(image):
    image.chmod(0o400)
    with pytest.raises(ImageError, match="cannot be written: Permission denied"):
        RawDisk(image)
    image.chmod(0)
    with pytest.raises(ImageError, match="cannot be read: Permission denied"):
        RawDisk(image, read_only=True)


def test_an_image_has_one_writer_or_many_readers(image):
    writer = RawDisk(image)
    with pytest.raises(ImageError, match="is in use elsewhere"):
        RawDisk(image)
    with pytest.raises(ImageError, match="is open for writing elsewhere"):
        RawDisk(image, read_only=True)
    writer.close()
    readers = [RawDisk(image, read_only=True) for _ in range(2)]
    with pytest.raises(ImageError, match="several open it read-only"):
        RawDisk(image)
    for reader in readers:
        reader.close()
    RawDisk(image).close()


def test_the_lock_holds_between_processes_and_ends_with_the_holder(image):
    program = "import sys; from disco.storage.disk import RawDisk; d = RawDisk(sys.argv[1])\n"
    program += "print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program, image],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as holder:
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(ImageError, match="is in use elsewhere"):
            RawDisk(image)
        holder.kill()
        holder.wait()
    RawDisk(image).close()


def test_a_failed_open_leaves_nothing_behind(tmp_path):
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(100))
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with pytest.raises(ImageError):
            RawDisk(path)
    assert len(os.listdir("/proc/self/fd")) == before
    path.write_bytes(bytes(512))
    RawDisk(path).close()


def test_a_read_only_disk_is_never_written(image):
    for disk in (RawDisk(image, read_only=True), MemoryDisk(bytes(512), read_only=True)):
        assert disk.is_read_only
        with pytest.raises(AssertionError, match="read-only"):
            disk.write(0, bytes(512))
        disk.flush()


def test_an_image_that_shrinks_under_us_is_a_disk_error(image):
    disk = RawDisk(image)
    os.truncate(image, 3 * SECTOR_BYTES)
    assert disk.read(0, 3) == bytes(3 * SECTOR_BYTES)
    with pytest.raises(DiskError, match=r"read of 2 sectors at 2 failed: the image has become"):
        disk.read(2, 2)


@pytest.mark.parametrize(
    ("call", "operation", "act"),
    [
        ("pread", "read", lambda disk: disk.read(1, 2)),
        ("pwrite", "write", lambda disk: disk.write(1, bytes(1024))),
        ("fsync", "flush", lambda disk: disk.flush()),
    ],
)
def test_an_error_of_the_host_names_image_and_operation(image, monkeypatch, call, operation, act):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    disk = RawDisk(image)
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(DiskError, match="No space left on device") as caught:
        act(disk)
    assert (caught.value.operation, caught.value.errno) == (operation, errno.ENOSPC)
    assert str(image) in str(caught.value)


def test_short_reads_and_writes_of_the_host_are_continued(image, monkeypatch):
    pread, pwrite = os.pread, os.pwrite
    monkeypatch.setattr(os, "pread", lambda fd, n, at: pread(fd, min(n, 100), at))
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:77], at))
    disk = RawDisk(image)
    data = random.Random(2).randbytes(4 * SECTOR_BYTES)
    disk.write(7, data)
    assert disk.read(7, 4) == data


def test_use_after_close_is_our_bug(image):
    disk = RawDisk(image)
    disk.close()
    disk.close()
    assert "closed" in repr(disk)
    with pytest.raises(AssertionError, match="after close"):
        disk.read(0, 1)
