"""The real thing: Debian's packages through the machine's apt, into the user's own cache."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path

import naive_cpio
import pytest

from disco.guests import deb, images, kernel, recipe
from disco.guests.cache import Cache
from disco.guests.images import Image
from disco.guests.platform import Platform, Region

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt"),
]
MIB = 1 << 20


@pytest.fixture(scope="module", params=[one.name for one in recipe.RECIPES])
def image(request: pytest.FixtureRequest) -> Image:
    return images.build(request.param)


def test_a_built_image_is_at_hand_in_a_tenth_of_a_second(image: Image) -> None:
    start = time.perf_counter()
    assert images.build(image.name) == image
    assert time.perf_counter() - start < 0.1


def test_the_same_packages_give_the_same_image_again(image: Image, tmp_path: Path) -> None:
    other = Cache(tmp_path)
    other.packages.mkdir()
    for package in image.packages:
        path = other.package(package.sha256)
        shutil.copyfile(Cache.of_user().package(package.sha256), path)
    again = images.build(image.name, cache=other, pinned=image.packages, offline=True)
    assert (again.key, again.sha256) == (image.key, image.sha256)


def test_debians_kernel_is_read_as_another_reader_does(image: Image) -> None:
    elffile = pytest.importorskip("elftools.elf.elffile")
    loaded = kernel.load(image.kernel, memory_bytes=128 * MIB)
    with image.kernel.open("rb") as source:
        other = elffile.ELFFile(source)
        assert loaded.bits == other.elfclass
        assert loaded.entry % (1 << loaded.bits) == other.header["e_entry"]
        (segment,) = (one for one in other.iter_segments() if one["p_type"] == "PT_LOAD")
        assert loaded.segments[0].region == Region(
            segment["p_vaddr"] & 0x1FFF_FFFF, segment["p_memsz"]
        )
        assert loaded.segments[0].data == segment.data()


def test_debians_kernel_unpacks_itself_out_of_the_way(image: Image) -> None:
    loaded = kernel.load(image.kernel, memory_bytes=128 * MIB)
    size = image.initrd.stat().st_size
    layout = kernel.place(loaded, initrd_size=size, platform=Platform(memory_bytes=128 * MIB))
    assert layout.device_tree.base == 0x400_0000


def test_the_image_has_the_drivers_of_our_devices(image: Image) -> None:
    (members,) = naive_cpio.read(image.initrd.read_bytes())
    names = {path.rpartition("/")[2] for path, _, _ in members}
    recipe = images.find_recipe(image.name)
    for name in recipe.modules:
        assert f"{name}.ko" in names
    (laid_over,) = naive_cpio.read(image.network.read_bytes())
    (shared,) = naive_cpio.read(image.share.read_bytes())
    for name in recipe.share:
        assert f"{name}.ko" in {path.rpartition("/")[2] for path, _, _ in shared}
    for name in recipe.network:
        assert f"{name}.ko" in {path.rpartition("/")[2] for path, _, _ in laid_over}
    applets = {
        "sh",
        "tar",
        "gunzip",
        "sha256sum",
        "md5sum",
        "sort",
        "uniq",
        "awk",
        "head",
        "poweroff",
        "ip",
        "udhcpc",
    }
    assert applets <= names


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_a_package_is_read_as_dpkg_does(image: Image) -> None:
    path = Cache.of_user().package(image.packages[1].sha256)
    stream = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", os.fspath(path)], capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(stream)) as members:
        expected = {
            member.name.removeprefix("./"): content.read()
            for member in members
            if member.isfile() and (content := members.extractfile(member))
        }
    assert deb.read_files(path, lambda name: True) == expected
