"""Reading packages, whole and damaged."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from fake_debian import deb

from disco.errors import ImageError
from disco.guests.deb import files_offset, read_files, unpacked
from disco.guests.deb import plain as read_plain

Wanted = Callable[[str], bool]
Read = Callable[[Path, Wanted], Mapping[str, bytes]]


def read_unpacked(path: Path, wanted: Wanted) -> dict[str, bytes]:
    """What `read_files` gives, by way of the disk; nothing may stay there."""
    before = set(path.parent.iterdir())
    with unpacked(path, wanted, folder=path.parent) as files:
        found = dict(files)
    assert set(path.parent.iterdir()) == before
    return found


both_ways = pytest.mark.parametrize("read", [read_files, read_unpacked])

FILES = {"bin/busybox": b"program", "usr/share/doc/x": b"words", "odd": b"123"}


@both_ways
@pytest.mark.parametrize("compression", ["xz", "gz", "bz2"])
def test_wanted_files_are_read(tmp_path: Path, compression: str, read: Read) -> None:
    path = tmp_path / "a.deb"
    path.write_bytes(deb(FILES, compression=compression))
    assert read(path, lambda name: True) == FILES
    assert read(path, lambda name: name.startswith("bin/")) == {"bin/busybox": b"program"}


@both_ways
def test_a_package_cut_at_any_byte_is_refused(tmp_path: Path, read: Read) -> None:
    path, whole = tmp_path / "a.deb", deb(FILES)
    for size in range(len(whole) - 1):  # the last byte may be padding
        path.write_bytes(whole[:size])
        with pytest.raises(ImageError, match=r"a\.deb: (damaged|not a Debian package)"):
            read(path, lambda name: True)


@both_ways
@pytest.mark.parametrize("compression", ["xz", "gz", "bz2"])
def test_damaged_contents_are_refused(tmp_path: Path, compression: str, read: Read) -> None:
    whole = bytearray(deb(FILES, compression=compression))
    middle = whole.index(b"data.tar") + 60 + 20
    whole[middle : middle + 8] = b"\xff" * 8
    path = tmp_path / "a.deb"
    path.write_bytes(whole)
    with pytest.raises(ImageError, match=f"data.tar.{compression} is damaged"):
        read(path, lambda name: True)


@both_ways
def test_a_compression_that_cannot_be_read_is_named(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.deb"
    path.write_bytes(deb(FILES, compression="gz").replace(b"data.tar.gz ", b"data.tar.zst"))
    with pytest.raises(ImageError, match=r"data\.tar\.zst cannot be read; data\.tar, .* can"):
        read(path, lambda name: True)


def test_a_compression_may_be_none(tmp_path: Path) -> None:
    path = tmp_path / "a.deb"
    path.write_bytes(deb(FILES, compression="xz"))
    plain = tmp_path / "plain.deb"
    plain.write_bytes(deb(FILES, compression=""))
    for read in (read_files, read_unpacked):
        assert read(plain, lambda name: True) == read(path, lambda name: True)


def test_a_full_disk_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_error: object) -> None: ...

        def write(self, _data: bytes) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_options: Full())
    path = tmp_path / "a.deb"
    path.write_bytes(deb(FILES))
    with pytest.raises(OSError, match="No space left"), unpacked(path, bool, folder=tmp_path):
        pass


def test_what_its_user_raises_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.deb"
    path.write_bytes(deb(FILES))
    with pytest.raises(KeyError, match="absent"), unpacked(path, bool, folder=tmp_path) as files:
        files["absent"]


@pytest.mark.parametrize("compression", ["xz", "gz", "bz2"])
def test_a_package_without_its_compression_is_the_same_package(
    tmp_path: Path, compression: str
) -> None:
    packed, plain = tmp_path / "packed.deb", tmp_path / "plain.deb"
    packed.write_bytes(deb(FILES, compression=compression))
    plain.write_bytes(content := read_plain(packed))
    assert read_files(plain, lambda name: True) == FILES
    assert (
        content[: content.index(b"data.tar")] == packed.read_bytes()[: content.index(b"data.tar")]
    )
    assert b"./usr/share/doc/x" in content[files_offset(content) :]
    assert read_plain(plain) == content
