"""Reading packages, whole and damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_debian import deb

from disco.errors import ImageError
from disco.guests.deb import read_files

FILES = {"bin/busybox": b"program", "usr/share/doc/x": b"words", "odd": b"123"}


@pytest.mark.parametrize("compression", ["xz", "gz", "bz2"])
def test_wanted_files_are_read(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.deb"
    path.write_bytes(deb(FILES, compression=compression))
    assert read_files(path, lambda name: True) == FILES
    assert read_files(path, lambda name: name.startswith("bin/")) == {"bin/busybox": b"program"}


def test_a_package_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    path, whole = tmp_path / "a.deb", deb(FILES)
    for size in range(len(whole) - 1):  # the last byte may be padding
        path.write_bytes(whole[:size])
        with pytest.raises(ImageError, match=r"a\.deb: (damaged|not a Debian package)"):
            read_files(path, lambda name: True)


@pytest.mark.parametrize("compression", ["xz", "gz", "bz2"])
def test_damaged_contents_are_refused(tmp_path: Path, compression: str) -> None:
    whole = bytearray(deb(FILES, compression=compression))
    middle = whole.index(b"data.tar") + 60 + 20
    whole[middle : middle + 8] = b"\xff" * 8
    path = tmp_path / "a.deb"
    path.write_bytes(whole)
    with pytest.raises(ImageError, match=f"data.tar.{compression} is damaged"):
        read_files(path, lambda name: True)


def test_a_compression_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.deb"
    path.write_bytes(deb(FILES, compression="gz").replace(b"data.tar.gz ", b"data.tar.zst"))
    with pytest.raises(ImageError, match=r"data\.tar\.zst cannot be read; data\.tar, .* can"):
        read_files(path, lambda name: True)
