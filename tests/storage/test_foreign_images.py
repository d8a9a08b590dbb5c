"""Images of others, made and spoilt with the real qemu-img: they become the same raw image, or are refused."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from disco import ImageError
from disco.storage import discodisk
from disco.storage.choice import DiskChoice, Mode
from disco.storage.disk import SECTOR_BYTES, RawDisk
from disco.storage.foreign import convert, foreign_format

pytestmark = pytest.mark.skipif(
    shutil.which("qemu-img") is None, reason="qemu-img (Debian package qemu-utils) is not there"
)

CLUSTER = 1 << 16
#: Compressible, random, zeros; not whole clusters.
CONTENT = b"again " * 40_000 + random.Random(9).randbytes(300_000) + bytes(200_000)
CONTENT += bytes(-len(CONTENT) % SECTOR_BYTES)


def qemu_img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    path = tmp_path / "raw"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def theirs(tmp_path: Path, raw: Path) -> Path:
    path = tmp_path / "theirs.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qcow2", ()),
        ("qcow2", ("-c",)),
        ("qcow2", ("-c", "-o", "cluster_size=4k,compat=0.10")),
        ("qcow2", ("-o", "extended_l2=on,lazy_refcounts=on")),
        ("vmdk", ()),
        ("vmdk", ("-o", "subformat=streamOptimized")),
        ("vdi", ()),
        ("vhdx", ()),
        ("vpc", ("-o", "force_size=on")),
    ],
)
def test_an_image_of_any_kind_becomes_the_same_raw_one(tmp_path, raw, name, options):
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    qemu_img("convert", "-f", "raw", "-O", name, *options, raw, theirs)
    assert foreign_format(theirs) == name
    convert(theirs, ours)
    content = ours.read_bytes()  # vdi and vhdx are whole clusters
    assert content[: len(CONTENT)] == CONTENT
    assert not any(content[len(CONTENT) :])
    with RawDisk(ours, read_only=True) as disk:
        assert disk.read(0, 8) == CONTENT[: 8 * SECTOR_BYTES]


def test_an_image_that_is_based_on_another_is_refused_and_its_whole_is_not(tmp_path, theirs):
    ours, over = tmp_path / "ours", tmp_path / "over.qcow2"
    qemu_img("create", "-f", "qcow2", "-b", theirs, "-F", "qcow2", over)
    with pytest.raises(ImageError, match=r"refers to another file \(backing-filename\)"):
        convert(over, ours)
    whole = tmp_path / "whole.qcow2"
    qemu_img("convert", "-O", "qcow2", over, whole)
    convert(whole, ours)
    assert ours.read_bytes() == CONTENT


def test_an_image_whose_data_are_in_another_file_is_refused(tmp_path):
    path = tmp_path / "theirs.qcow2"
    qemu_img("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'data'}", path, "1M")
    with pytest.raises(ImageError, match=r"refers to another file \(data-file\)"):
        convert(path, tmp_path / "ours")


@pytest.mark.parametrize(
    "how", ["qcow2", "qcow2 -c", "vmdk", "vmdk -o subformat=streamOptimized", "vdi", "vhdx", "vpc"]
)
@pytest.mark.parametrize("part", [0.2, 0.5, 0.85])
def test_a_truncated_image_is_refused_and_leaves_nothing(tmp_path, raw, how, part):
    theirs, (name, *options) = tmp_path / "theirs", how.split()
    qemu_img("convert", "-f", "raw", "-O", name, *options, raw, theirs)
    # What these add at their end holds nothing.
    held = {"vdi": len(CONTENT), "vpc": len(CONTENT), "vhdx": 8 << 20}.get(
        name, theirs.stat().st_size
    )
    with theirs.open("r+b") as file:
        file.truncate(int(held * part))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ImageError, match="theirs"):
        convert(theirs, tmp_path / "ours")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "at", "spoilt"),
    [
        ("version", 4, struct.pack(">I", 99)),
        ("bits of a cluster", 20, struct.pack(">I", 60)),
        ("size", 24, struct.pack(">Q", 1 << 63)),
        ("entries of the L1 table", 36, struct.pack(">I", 1 << 30)),
        ("place of the L1 table", 40, struct.pack(">Q", 1 << 50)),
        ("L1 entry behind the end", 3 * CLUSTER, struct.pack(">Q", 1 << 63 | 1 << 40)),
        ("L1 entry inside a cluster", 3 * CLUSTER, struct.pack(">Q", 1 << 63 | CLUSTER + 512)),
        ("L2 entry on the L1 table", 4 * CLUSTER, struct.pack(">Q", 1 << 63 | 3 * CLUSTER)),
    ],
)
def test_a_corrupt_image_is_refused_and_leaves_nothing(tmp_path, theirs, name, at, spoilt):
    with theirs.open("r+b") as file:
        tables = struct.unpack(">Q", file.read(48)[40:])[0]
        assert tables == 3 * CLUSTER, "where this qemu-img has put the L1 table"
        file.seek(at)
        file.write(spoilt)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ImageError):
        convert(theirs, tmp_path / "ours")
    assert sorted(tmp_path.iterdir()) == before


def test_random_damage_to_what_describes_an_image_is_an_error_or_harmless(tmp_path, theirs):
    rng, good = random.Random(4), theirs.read_bytes()
    refused = 0
    for number in range(40):
        spoilt = bytearray(good)
        at = rng.choice(
            [rng.randrange(4, 104), 3 * CLUSTER + rng.randrange(8), 4 * CLUSTER + rng.randrange(64)]
        )
        spoilt[at] ^= 1 << rng.randrange(8)
        theirs.write_bytes(spoilt)
        ours = tmp_path / f"ours{number}"
        try:
            convert(theirs, ours)
        except ImageError:
            refused += 1
        else:
            # A size is the image's own to say; everything else is whole.
            content = ours.read_bytes()
            assert CONTENT.startswith(content[: len(CONTENT)].rstrip(b"\0"))
    assert 10 < refused < 40


def test_an_image_that_was_made_raw_carries_a_disco_disk(tmp_path, theirs):
    convert(theirs, tmp_path / "ours")
    discodisk.create(tmp_path / "own.disk", base=tmp_path / "ours")
    with DiskChoice(tmp_path / "own.disk", Mode.PERSISTENT).open() as disk:
        disk.write(1, b"x" * SECTOR_BYTES)
        assert disk.read(0, 3) == CONTENT[:512] + b"x" * 512 + CONTENT[1024:1536]
