"""`disco disk` as users and their scripts meet it."""

from __future__ import annotations

import json
import sqlite3

import pytest
import tiny_guests

from disco.cli import disk as command
from disco.errors import ConfigError, ImageError
from disco.storage.discodisk import StoreDisk

DATA = b"base" * 4096


@pytest.fixture
def base(tmp_path):
    path = tmp_path / "base.img"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def own(tmp_path, base):
    command.create(tmp_path / "own.disk", base=base, size=None, source=None)
    with StoreDisk(tmp_path / "own.disk") as disk:
        disk.write(8, b"new!" * 128)
    return tmp_path / "own.disk"


@pytest.mark.parametrize(
    ("text", "size"),
    [("512", 512), ("1k", 1024), ("3M", 3 << 20), ("2GiB", 2 << 30), ("1T", 1 << 40)],
)
def test_a_size_is_a_number_with_a_unit(text, size):
    assert command.size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "513", "-1M", "1.5G", "M", "1X", "9999999999T"])
def test_a_size_that_no_disk_can_have_is_refused(text):
    with pytest.raises(ConfigError, match="or a number with K, M, G or T"):
        command.size_bytes(text)


def test_a_disk_goes_through_its_life_by_the_command_line(disco, tmp_path, base):
    own, whole = tmp_path / "own.disk", tmp_path / "whole.img"
    kernel = tiny_guests.guest(tmp_path, "ok", tiny_guests.PRINT_OK)
    assert disco("disk", "create", str(own), "--base", str(base)).returncode == 0
    with StoreDisk(own) as disk:
        disk.write(8, b"new!" * 128)
        done = disco("run", "--kernel", str(kernel), "--memory", "4", "--disk", f"{own}")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert "is in use elsewhere; one VM may write it" in done.stderr
    done = disco("disk", "info", str(own), "--json")
    known = json.loads(done.stdout)
    assert (known["format"], known["size_bytes"], known["modified_bytes"]) == ("disco", 16384, 4096)
    assert disco("disk", "diff", str(own)).stdout == "8+8\n"
    assert disco("disk", "check", str(own)).returncode == 0
    assert disco("disk", "commit", str(own), "--to", str(whole)).returncode == 0
    assert (
        disco("run", "--kernel", str(kernel), "--memory", "4", "--disk", f"{own}").returncode == 0
    )
    assert base.read_bytes() == DATA
    assert disco("disk", "commit", str(own)).returncode == 0
    assert base.read_bytes() == whole.read_bytes() != DATA
    assert disco("disk", "diff", str(own)).stdout == ""


def test_a_check_names_what_is_wrong(own, base, capsys):
    assert command.check(own)
    with sqlite3.connect(own) as raw:
        raw.execute("UPDATE blocks SET checksum = 1")
    raw.close()
    base.write_bytes(DATA[::-1])
    assert not command.check(own)
    block, changed = capsys.readouterr().out.splitlines()
    assert block == "block 1: not the checksum that was stored"
    assert "has changed since the disk was made" in changed


def test_info_says_what_images_of_others_are(tmp_path, base, capsys):
    (tmp_path / "x.qcow2").write_bytes(b"QFI\xfb")
    command.info(tmp_path / "x.qcow2", as_json=True)
    command.info(base, as_json=True)
    formats = [json.loads(line)["format"] for line in capsys.readouterr().out.splitlines()]
    assert formats == ["qcow2", "raw"]


def test_a_disk_is_made_in_one_way_and_never_over_a_file(tmp_path, base, own):
    with pytest.raises(ConfigError, match="one of --base, --size and --from is needed"):
        command.create(tmp_path / "x", base=base, size="1M", source=None)
    for make in ({"base": base, "size": None}, {"base": None, "size": "1M"}):
        with pytest.raises(ImageError, match="there is a file of that name"):
            command.create(own, source=None, **make)
    with pytest.raises(ImageError, match="No such file"):
        command.create(tmp_path / "x", base=tmp_path / "none", size=None, source=None)
    with pytest.raises(ImageError, match="cannot be made"):
        command.create(tmp_path / "no" / "x", base=None, size="1M", source=None)


def test_a_raw_image_has_nothing_to_commit_or_to_differ_from(base):
    with pytest.raises(ImageError, match="is no Disco disk"):
        command.commit(base, target=None)
    with pytest.raises(ImageError, match="is no Disco disk"):
        command.diff(base, as_json=False)
