"""What apt resolves, as we ask it."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_debian import FakeDebian

from disco.errors import ImageError
from disco.guests import apt
from disco.guests.apt import Apt


@pytest.fixture
def source(debian: FakeDebian, tmp_path: Path) -> Apt:
    debian.add("libz", {"lib/z": b"z"})
    debian.add("tool", {"usr/bin/tool": b"t"}, depends="libz")
    made = Apt(folder=tmp_path / "apt", architecture="mips64el", release="bookworm", etc=apt.ETC)
    made.update()
    return made


def test_what_packages_depend_on_comes_along(source: Apt) -> None:
    found = source.closure(["tool"])
    assert [package.name for package in found] == ["libz", "tool"]
    assert all(len(package.sha256) == 64 for package in found)


def test_packages_that_apt_cannot_install_are_named_with_its_reason(source: Apt) -> None:
    with pytest.raises(ImageError, match=r"packages tool, toil: .*Unable to locate package toil"):
        source.closure(["tool", "toil"])
