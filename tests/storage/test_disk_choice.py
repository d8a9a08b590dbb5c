"""Which disk a word of the command line is, and which files are refused."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from disco.errors import ConfigError, ImageError
from disco.storage import discodisk, foreign
from disco.storage.choice import DiskChoice, Mode
from disco.storage.disk import SECTOR_BYTES, DiskError

DATA = b"base" * 2048


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.img"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def own(tmp_path, base):
    discodisk.create(tmp_path / "own.disk", base=base)
    return tmp_path / "own.disk"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:b.img", DiskChoice(Path("a:b.img"))),  # no mode: part of the name
        ("a.img:ro:cow", DiskChoice(Path("a.img:ro"), Mode.COW)),
        (":cow", DiskChoice(Path(":cow"))),
        ("a.img", DiskChoice(Path("a.img"))),
        ("a.img:ro", DiskChoice(Path("a.img"), Mode.RO)),
        ("a.img:cow,limit=64", DiskChoice(Path("a.img"), Mode.COW, 64)),
        ("a.img:shared,limit=0", DiskChoice(Path("a.img"), Mode.SHARED, 0)),
        ("a.img:persistent", DiskChoice(Path("a.img"), Mode.PERSISTENT)),
    ],
)
def test_a_word_is_a_file_and_perhaps_a_mode(text, expected):
    assert DiskChoice.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["a:ro,limit=1", "a:persistent,limit=1", "a:cow,limit=", "a:cow,x=1"]
)
def test_a_setting_that_means_nothing_is_refused(text):
    with pytest.raises(ConfigError, match="limit=MIB is possible with cow and shared"):
        DiskChoice.parse(text)


def written(disk: DiskChoice) -> bool:
    """Whether a write is seen when the disk is opened again."""
    with disk.open() as opened:
        opened.write(1, b"new!" * 128)
        assert opened.read(1, 1) == b"new!" * 128
    with disk.open() as opened:
        return opened.read(1, 1) == b"new!" * 128


def test_no_image_is_written_unless_that_is_said_and_a_disco_disk_is_made_for_it(base, own):
    assert not written(DiskChoice(base))
    assert not written(DiskChoice(base, Mode.COW))
    assert not written(DiskChoice(own, Mode.COW))
    assert base.read_bytes() == DATA
    assert written(DiskChoice(own))
    assert base.read_bytes() == DATA
    own.unlink()
    assert written(DiskChoice(base, Mode.PERSISTENT))
    assert base.read_bytes()[512:516] == b"new!"


def test_any_number_of_vms_have_one_base_and_each_its_own_sectors(base):
    disks = [DiskChoice(base, Mode.COW).open() for _ in range(8)]
    for number, disk in enumerate(disks):
        disk.write(0, bytes([number]) * SECTOR_BYTES)
    assert [disk.read(0, 1)[0] for disk in disks] == list(range(8))
    with pytest.raises(ImageError, match="in use elsewhere"):
        DiskChoice(base, Mode.PERSISTENT).open()
    for disk in disks:
        disk.close()
    DiskChoice(base, Mode.PERSISTENT).open().close()


def test_the_limit_of_a_disk_in_memory_is_the_one_that_was_asked_for(base):
    with DiskChoice(base, Mode.COW, limit_mib=0).open() as disk:
        with pytest.raises(DiskError, match="0 MiB of memory, which is their limit"):
            disk.write(0, bytes(SECTOR_BYTES))
        assert disk.read(0, 1) == DATA[:SECTOR_BYTES]


# -- images of others ---------------------------------------------------------------------------

FOREIGN = {
    "qcow2": b"QFI\xfb\0\0\0\3",
    "vmdk": b"KDMV\1\0\0\0",
    "vdi": bytes(64) + b"\x7f\x10\xda\xbe",
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("mode", [None, *Mode])
def test_an_image_in_another_format_is_not_taken_for_a_raw_one(tmp_path, name, mode):
    path = tmp_path / "theirs"
    path.write_bytes(FOREIGN[name].ljust(4096, b"\0"))
    with pytest.raises(ImageError, match=rf"is {name}, not raw; 'disco disk create NAME --from"):
        DiskChoice(path, mode).open()


@pytest.fixture
def theirs(tmp_path):
    path = tmp_path / "theirs.qcow2"
    path.write_bytes(FOREIGN["qcow2"].ljust(4096, b"\0"))
    return path


def test_without_qemu_img_the_package_that_has_it_is_named(theirs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(
        ImageError, match="is qcow2; qemu-img is needed to convert it: Debian package qemu-utils"
    ):
        foreign.convert(theirs, tmp_path / "ours.img")


def fake_qemu_img(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: dict[str, object]
) -> Path:
    """A qemu-img that knows `facts`, converts anything to "converted", and notes how it was called."""
    tool, calls = tmp_path / "bin" / "qemu-img", tmp_path / "calls"
    tool.parent.mkdir()
    tool.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {calls}\n'
        f"[ $1 = info ] && echo '{json.dumps(facts)}'\n"
        "[ $1 = map ] && echo []\n"
        '[ $1 = convert ] && for last; do :; done && printf converted > "$last"\n'
        "true\n"
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    return calls


def test_an_image_is_converted_by_qemu_img_as_the_format_that_it_is(theirs, tmp_path, monkeypatch):
    calls = fake_qemu_img(tmp_path, monkeypatch, {"format": "qcow2"})
    foreign.convert(theirs, tmp_path / "ours.img")
    assert (tmp_path / "ours.img").read_bytes() == b"converted"
    info, check, extents, conversion = calls.read_text().splitlines()
    assert check == f"check --output=json -f qcow2 {theirs}"
    assert extents == f"map --output=json -f qcow2 {theirs}"
    assert info == f"info --output=json -f qcow2 {theirs}"
    assert conversion.startswith(f"convert -f qcow2 -O raw {theirs} ")
    with pytest.raises(ImageError, match="there is a file of that name"):
        foreign.convert(theirs, tmp_path / "ours.img")


def test_an_image_that_would_have_another_file_read_is_refused(theirs, tmp_path, monkeypatch):
    fake_qemu_img(tmp_path, monkeypatch, {"format": "qcow2", "backing-filename": "/etc/shadow"})
    with pytest.raises(ImageError, match=r"refers to another file \(backing-filename\)"):
        foreign.convert(theirs, tmp_path / "ours.img")
    assert not (tmp_path / "ours.img").exists()
