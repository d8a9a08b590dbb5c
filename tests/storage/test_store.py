"""Disks that last: what a crash leaves, who may have them, and what damage and a full host do."""

from __future__ import annotations

import errno
import multiprocessing
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest
from naive_disk import SECTORS, NaiveDisk, steps

from disco.errors import ImageError
from disco.storage import discodisk, merging, store
from disco.storage.cow import BLOCK_BYTES
from disco.storage.discodisk import StoreDisk
from disco.storage.disk import SECTOR_BYTES, DiskError, RawDisk
from disco.storage.store import Store

CONTENTS = random.Random(9).randbytes(SECTORS * SECTOR_BYTES)
KILLS = 200
STEPS = 150


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.img"
    path.write_bytes(CONTENTS)
    return path


@pytest.fixture
def path(tmp_path, base):
    discodisk.create(tmp_path / "own.disk", base=base)
    return tmp_path / "own.disk"


@pytest.fixture
def in_memory():
    """A disk without a base on a file system in memory if there is one: what a killed process has
    written is there for the next one on any, and nobody waits for a real disk 10,000 times."""
    shared = Path("/dev/shm")
    folder = tempfile.mkdtemp(dir=shared if os.access(shared, os.W_OK) else None)
    discodisk.create(Path(folder, "own.disk"), sector_count=SECTORS)
    yield Path(folder, "own.disk")
    shutil.rmtree(folder)


def written(path: Path, sector: int = 0, data: bytes = b"x" * 9 * BLOCK_BYTES) -> None:
    with StoreDisk(path) as disk:
        disk.write(sector, data)
        disk.flush()


# -- crashes ------------------------------------------------------------------------------------


def work(path: Path, seed: int, pending_max: int, acknowledge: Connection) -> None:
    """The child: does its steps and says after each flush how far it is."""
    store.PENDING_BLOCKS_MAX = pending_max
    disk = StoreDisk(path)
    for number, step in enumerate(steps(seed, STEPS, kinds="wwf")):
        if step.kind == "w":
            disk.write(step.sector, step.data)
        else:
            disk.flush()
            acknowledge.send(number)
    disk.flush()
    acknowledge.send(STEPS)
    acknowledge.recv()  # never


def states(contents: bytes, seed: int) -> list[bytes]:
    """The disk after each step, and before the first."""
    model = NaiveDisk(contents)
    after = [contents]
    for step in steps(seed, STEPS, kinds="wwf"):
        if step.kind == "w":
            model.write(step.sector, step.data)
        after.append(bytes(model.bytes))
    return after


@pytest.mark.parametrize("pending_max", [store.PENDING_BLOCKS_MAX, 20], ids=["flushes", "pressure"])
def test_a_process_killed_at_any_moment_loses_nothing_that_was_flushed(in_memory, pending_max):
    """The disk is as it was after some step, one at or after the last acknowledged flush."""
    path = in_memory
    context = multiprocessing.get_context("fork")
    rng = random.Random(10)
    contents, moments = bytes(SECTORS * SECTOR_BYTES), set()
    for attempt in range(KILLS // 2):
        here, there = context.Pipe()
        child = context.Process(target=work, args=(path, attempt, pending_max, there))
        child.start()
        last = -1
        for _ in range(rng.randrange(12)):
            last = here.recv()
        if rng.random() < 0.5:
            while here.poll(rng.random() * 0.004):  # further, by time
                last = here.recv()
        child.kill()
        child.join()
        assert child.exitcode == -9
        there.close()
        with suppress(EOFError):
            while here.poll():
                last = here.recv()
        with StoreDisk(path, read_only=True) as disk:
            found = disk.read(0, SECTORS)
        possible = states(contents, attempt)[min(last + 1, STEPS) :]
        assert found in possible, f"kill {attempt} after step {last}"
        moments.add((last, possible.index(found)))
        contents = found
    assert len(moments) > 10, "the kills came at different moments"
    with Store(path, read_only=True) as opened:
        assert list(opened.problems()) == []


def test_what_waits_for_a_flush_is_written_when_the_disk_is_given_back(path):
    with StoreDisk(path) as disk:
        disk.write(1, b"z" * SECTOR_BYTES)
    with StoreDisk(path) as disk:
        assert disk.read(1, 1) == b"z" * SECTOR_BYTES


def test_a_flush_is_a_commit_that_sqlite_makes_durable(path):
    with Store(path) as opened:
        assert opened._database.execute("PRAGMA synchronous").fetchone() == (2,)
        assert opened._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        opened.write({0: bytes(BLOCK_BYTES)})
        opened.flush()
        assert not opened._pending


# -- one at a time ------------------------------------------------------------------------------

OPEN = """
import sys
from disco.errors import ImageError
from disco.storage.discodisk import StoreDisk
try:
    StoreDisk(sys.argv[1], read_only=sys.argv[2] == "ro").read(0, 1)
except ImageError as error:
    sys.exit(str(error))
"""


def other_process(path: Path, mode: str) -> str:
    words = [sys.executable, "-c", OPEN, str(path), mode]
    return subprocess.run(words, capture_output=True, text=True, check=False).stderr


def test_a_disk_has_one_writer_or_any_number_of_readers_in_this_process_and_others(path, base):
    with StoreDisk(path):
        for mode, said in (("rw", "is in use elsewhere"), ("ro", "is open for writing elsewhere")):
            with pytest.raises(ImageError, match=said):
                StoreDisk(path, read_only=mode == "ro")
            assert said in other_process(path, mode)
        assert (
            other_process(base, "ro")
            .strip()
            .endswith("is no Disco disk, or damaged at its beginning")
        )
    with StoreDisk(path, read_only=True), StoreDisk(path, read_only=True):
        assert other_process(path, "ro") == ""
        assert "is in use elsewhere" in other_process(path, "rw")
    assert other_process(path, "rw") == ""


def test_a_base_cannot_be_written_while_a_disk_on_it_is_open(path, base):
    with StoreDisk(path), pytest.raises(ImageError, match="is in use elsewhere"):
        RawDisk(base)


# -- the host fails -----------------------------------------------------------------------------


def test_a_full_host_fails_the_flush_loses_nothing_and_a_later_flush_succeeds(path):
    with StoreDisk(path) as disk:
        disk.write(0, b"a" * 8 * BLOCK_BYTES)
        disk.flush()
        database = disk.store._database
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages + 2}")
        disk.write(0, b"b" * 14 * BLOCK_BYTES)
        for _ in range(2):
            with pytest.raises(DiskError, match="full") as raised:
                disk.flush()
            assert raised.value.errno == errno.ENOSPC
        assert disk.read(0, 112) == b"b" * 14 * BLOCK_BYTES
        database.execute("PRAGMA max_page_count = 1000000")
        disk.flush()
    with StoreDisk(path) as disk:
        assert disk.read(0, 112) == b"b" * 14 * BLOCK_BYTES


FILL = """
import resource, signal, sys
from disco.storage.disk import DiskError
from disco.storage.discodisk import StoreDisk
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
disk = StoreDisk(sys.argv[1])
disk.write(0, b"a" * 4096); disk.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
disk.write(0, b"b" * 57344)
try:
    disk.flush()
except DiskError as error:
    print(error.operation, error.errno)
disk.close()
"""


def test_a_host_that_refuses_to_write_leaves_the_disk_as_it_was_flushed(path):
    words = [sys.executable, "-c", FILL, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("flush ")
    assert "writes that the guest did not flush are lost" in done.stderr
    with StoreDisk(path) as disk:
        assert disk.read(0, 112) == b"a" * 4096 + CONTENTS[4096:57344]
    with Store(path, read_only=True) as opened:
        assert list(opened.problems()) == []


# -- damage -------------------------------------------------------------------------------------


def test_a_block_whose_bytes_have_changed_is_an_error_and_its_neighbours_are_not(path):
    written(path)
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("UPDATE blocks SET data = zeroblob(4096) WHERE number = 3")
    raw.close()
    with StoreDisk(path) as disk:
        assert disk.read(0, 24) == b"x" * 3 * BLOCK_BYTES
        with pytest.raises(DiskError, match="block 3 is damaged") as raised:
            disk.read(20, 8)
        assert raised.value.errno == errno.EIO
        disk.write(24, b"y" * BLOCK_BYTES)  # written anew, it is whole again
        assert disk.read(24, 8) == b"y" * BLOCK_BYTES
    with Store(path, read_only=True) as opened:
        assert list(opened.problems()) == []


@pytest.mark.parametrize("keep", [0, 50, 511, 4096, 12288, 0.5, 0.9])
def test_a_truncated_disk_is_refused(path, keep):
    written(path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(int(size * keep) if isinstance(keep, float) else keep)
    with pytest.raises(ImageError, match=r"truncated|damaged"):
        StoreDisk(path)


def test_random_damage_is_a_typed_error_or_harmless_but_never_other_data(path):
    written(path)
    whole = path.read_bytes()
    rng = random.Random(11)
    outcomes = set()
    expected = b"x" * 9 * BLOCK_BYTES + CONTENTS[9 * BLOCK_BYTES :]
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 8))):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            with StoreDisk(path) as disk:
                assert disk.read(0, SECTORS) == expected
            outcomes.add("harmless")
        except ImageError:  # a DiskError is one
            outcomes.add("refused")
    assert outcomes == {"harmless", "refused"}


def test_a_disk_of_a_later_format_is_refused(path):
    with sqlite3.connect(path) as raw:
        raw.execute("PRAGMA user_version = 2")
    raw.close()
    with pytest.raises(ImageError, match="has format 2; 1 is possible"):
        StoreDisk(path)


# -- the base -----------------------------------------------------------------------------------


def test_a_base_that_has_changed_is_refused_and_one_that_was_only_touched_is_not(path, base):
    base.touch()
    StoreDisk(path).close()
    base.write_bytes(CONTENTS[:-1] + b"?")
    with pytest.raises(ImageError, match=r"its base .* has changed since the disk was made"):
        StoreDisk(path)
    base.unlink()
    with pytest.raises(ImageError, match="No such file"):
        StoreDisk(path)


def test_disk_and_base_in_one_folder_can_move_together(path, base, tmp_path):
    written(path)
    (tmp_path / "new").mkdir()
    base.rename(tmp_path / "new" / base.name)
    moved = path.rename(tmp_path / "new" / path.name)
    with StoreDisk(moved) as disk:
        assert disk.read(0, 8) == b"x" * BLOCK_BYTES


def test_a_base_that_is_a_disk_itself_is_refused_once_it_was_written(path, tmp_path):
    discodisk.create(tmp_path / "upper.disk", base=path)
    StoreDisk(tmp_path / "upper.disk").close()
    written(path)
    with pytest.raises(ImageError, match="has changed"):
        StoreDisk(tmp_path / "upper.disk")


def test_a_commit_writes_the_base_and_empties_the_disk(path, base):
    written(path, 8, b"n" * 3 * SECTOR_BYTES)
    assert merging.commit(path) == BLOCK_BYTES
    expected = CONTENTS[:4096] + b"n" * 3 * SECTOR_BYTES + CONTENTS[4096 + 3 * SECTOR_BYTES :]
    assert base.read_bytes() == expected
    with StoreDisk(path) as disk:
        assert (disk.modified_bytes, disk.read(0, SECTORS)) == (0, expected)


def test_a_commit_that_was_killed_leaves_the_disk_as_it_was_and_can_be_repeated(path, base):
    written(path)
    expected = b"x" * 9 * BLOCK_BYTES + CONTENTS[9 * BLOCK_BYTES :]
    with Store(path) as opened:
        opened.begin_commit()
    base.write_bytes(b"x" * 5 * BLOCK_BYTES + CONTENTS[5 * BLOCK_BYTES :])  # half of it
    with StoreDisk(path) as disk:
        assert disk.read(0, SECTORS) == expected
    merging.commit(path)
    assert base.read_bytes() == expected


def test_an_export_is_the_content_and_leaves_nothing_where_something_was(path, tmp_path):
    written(path)
    with StoreDisk(path, read_only=True) as disk:
        merging.export(disk, tmp_path / "all.img")
        assert (tmp_path / "all.img").read_bytes() == disk.read(0, SECTORS)
        with pytest.raises(ImageError, match="there is a file of that name"):
            merging.export(disk, tmp_path / "all.img")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["all.img", "base.img", "own.disk"]


def test_an_empty_disk_reads_as_zeros_and_costs_nothing(tmp_path):
    discodisk.create(tmp_path / "empty.disk", sector_count=1 << 24)
    with StoreDisk(tmp_path / "empty.disk") as disk:
        assert disk.read((1 << 24) - 1, 1) == bytes(SECTOR_BYTES)
    assert (tmp_path / "empty.disk").stat().st_size < 64 << 10
