"""Debian's programs for guests: resolved once, unpacked once, placed where the image can have them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "guests"))
import fake_debian
import naive_cpio
from fake_debian import FakeDebian

from bench.userland import Userland
from disco.errors import ImageError
from disco.guests import apt
from disco.guests.cache import Cache


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDebian:
    """An archive with a tool and the library that it needs."""
    fake = fake_debian.make(tmp_path)
    fake.add("libz", {"lib/libz.so": b"library", "usr/share/doc/libz/copyright": b"words"})
    fake.add("tool", {"usr/bin/tool": b"program", "sbin/toold": b"daemon"}, depends="libz")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/sources.list").write_text("deb http://mirror.example/debian bookworm main\n")
    monkeypatch.setenv("PATH", f"{fake.programs}:/usr/bin:/bin")
    monkeypatch.setattr(apt, "ETC", tmp_path / "etc")
    return fake


@pytest.fixture
def userland(debian: FakeDebian, tmp_path: Path) -> Userland:
    return Userland(Cache(tmp_path / "cache"), lambda line: None)


def members(archives: list[bytes]) -> dict[str, bytes]:
    """Content by path of all files in the archives."""
    read = naive_cpio.read(b"".join(archives))
    return {path: data for archive in read for path, _, data in archive if data}


def test_packages_come_with_what_they_need_and_without_what_no_row_needs(
    userland: Userland,
) -> None:
    assert members(list(userland.archives(["tool"]))) == {
        "lib/libz.so": b"library",
        "usr/bin/tool": b"program",
        "bin/toold": b"daemon",  # in the image, /sbin is a link to /bin
    }


def test_what_was_fetched_once_needs_no_archive_again(
    userland: Userland, debian: FakeDebian
) -> None:
    first = list(userland.archives(["tool"]))
    debian.misbehave("down")
    for path in debian.folder.glob("*.deb"):
        path.unlink()
    assert list(userland.archives(["tool"])) == first
    assert len(debian.downloads()) == 2


def test_no_packages_are_no_archives(userland: Userland) -> None:
    assert list(userland.archives([])) == []


def test_a_package_that_debian_lacks_is_named(userland: Userland) -> None:
    with pytest.raises(ImageError, match="toil"):
        list(userland.archives(["toil"]))
