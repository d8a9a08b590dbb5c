"""Roots: planned, packed, kept, gone on with, removed, exported. The VM that configures them is played by a
function; `tests/cli/test_debian_roots.py` has the real one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace

import naive_cpio
import pytest
from fake_debian import KERNEL_RELEASE, FakeDebian, kernel_files

from disco import images
from disco.errors import ImageError
from disco.guests import apt
from disco.guests.cache import Cache
from disco.roots import builder, recipe, store
from disco.storage.disk import DiskError

ESSENTIAL = ("libc6", "dpkg", "base-passwd")
SYSVINIT = ("usr-is-merged", "sysvinit-core")
SYSTEMD = ("usr-is-merged", "systemd-sysv", "udev", "dbus")
Work = Callable[[bytes], bytes]


class Vm:
    """Plays the VM: notes what it is given, and writes the disk or ends as it is told to.

    Attributes:
        given: the files of each run.
        disks: what was on the disk when each run began.
        end: called in the place of the work's second half; may raise.
    """

    def __init__(self) -> None:
        self.given: list[Mapping[str, bytes]] = []
        self.disks: list[bytes] = []
        self.end: Callable[[], None] = lambda: None

    def run(self, build, packages, files, progress) -> None:  # type: ignore[no-untyped-def]
        self.given.append(files)
        with build.disk.open("r+b") as disk:
            self.disks.append(disk.read(4))
            disk.seek(0)
            disk.write(b"half")
            self.end()
            disk.seek(8192)
            disk.write(packages.path.read_bytes())

    def steps(self, number: int = -1) -> list[str]:
        return self.given[number]["disco/steps"].decode().splitlines()


@pytest.fixture
def vm(monkeypatch: pytest.MonkeyPatch) -> Vm:
    played = Vm()
    monkeypatch.setattr(builder, "_run", played.run)
    return played


@pytest.fixture
def archive(debian: FakeDebian, monkeypatch: pytest.MonkeyPatch) -> FakeDebian:
    """Debian with all that a root needs."""
    monkeypatch.setattr(recipe, "DISK_MIB", 4)
    monkeypatch.setattr(recipe, "_MACHINE", ("kmod",))
    monkeypatch.setattr(recipe, "FILESYSTEM_TOOLS", ("libc6", "dpkg"))
    for architecture in ("mips64el", "mipsel"):
        needed = {*ESSENTIAL, *recipe.FILESYSTEM_TOOLS, *recipe._MACHINE, *SYSVINIT, *SYSTEMD}
        for name in sorted(needed):
            debian.add(name, {f"usr/bin/{name}": name.encode()}, architecture=architecture)
        debian.add("tool", {"usr/bin/tool": b"t"}, depends="libz", architecture=architecture)
        debian.add("libz", {"usr/lib/z": b"z"}, architecture=architecture)
    (debian.folder / "essential").write_text(" ".join(ESSENTIAL))
    monkeypatch.setattr(recipe, "_MODULES", ("virtio_blk", "ext4"))
    return debian


def build(cache: Cache, name: str = "lab", *packages: str, **options: object) -> images.Image:
    return images.build(name, packages=packages or ("tool",), cache=cache, **options)  # type: ignore[arg-type]


def test_a_root_is_kernel_initrd_and_disk(archive: FakeDebian, cache: Cache, vm: Vm) -> None:
    image = build(cache)
    assert image.kernel.read_bytes() == b"\x7fELF kernel"
    members = [member for part in naive_cpio.read(image.initrd.read_bytes()) for member in part]
    inits = [data for path, _, data in members if path == "init"]
    assert b"switch_root" in inits[-1]
    assert image.disk is not None
    assert image.disk.stat().st_size == 4 << 20
    assert not os.access(image.disk, os.W_OK) or os.getuid() == 0
    names = [package.name for package in image.packages]
    assert names[0] == f"linux-image-{KERNEL_RELEASE}"
    assert {"tool", "libz", *ESSENTIAL} <= set(names)
    assert images.load("lab", cache=cache) == image


def test_dpkg_is_given_apts_steps_behind_the_essential_packages(
    archive: FakeDebian, cache: Cache, vm: Vm
) -> None:
    build(cache)
    base, unpack, configure, *rest = vm.steps()
    assert base.split()[0] == "base"
    assert {*ESSENTIAL, *SYSVINIT} <= set(base.split()[1:])
    assert unpack.split()[-2:] == ["libz", "tool"]
    assert set(unpack.split()[1:]) == set(configure.split()[1:])
    assert not set(base.split()) & set(unpack.split())
    assert rest == [f"modules modules {KERNEL_RELEASE}", "finish"]


def test_who_asks_for_systemd_gets_it_and_no_sysvinit(
    archive: FakeDebian, cache: Cache, vm: Vm
) -> None:
    image = build(cache, "lab", "tool", "systemd-sysv")
    names = {package.name for package in image.packages}
    assert {"tool", *SYSTEMD} <= names
    assert "sysvinit-core" not in names
    assert "systemd-sysv" in vm.steps()[0].split()


def test_packages_of_many_bytes_are_unpacked_a_few_at_a_time() -> None:
    sizes = {f"{name}.deb": size for name, size in zip("abcd", (40, 20, 90, 10), strict=True)}
    mib = {name: size << 20 for name, size in sizes.items()}
    assert builder._batches("abcd", mib) == [["a", "b"], ["c"], ["d"]]


def test_the_package_disk_has_every_package_where_the_index_says(
    archive: FakeDebian, cache: Cache, vm: Vm
) -> None:
    image = build(cache)
    assert image.disk is not None
    disk = image.disk.read_bytes()[8192:]
    rows = [line.split() for line in vm.given[0]["disco/index"].decode().splitlines()]
    parts = {name: disk[int(at) << 16 : (int(at) << 16) + int(size)] for name, at, size in rows}
    assert parts["tool.deb"].startswith(b"!<arch>\ndebian-binary")
    assert b"data.tar " in parts["tool.deb"]  # not compressed
    assert "tool.tar" not in parts
    assert b"./usr/bin/dpkg" in parts["dpkg.tar"][:512]
    assert b"ext4.ko" in parts["modules.tar"]


def test_the_same_packages_give_the_same_list_key_and_disk(
    archive: FakeDebian, cache: Cache, vm: Vm, tmp_path: Path
) -> None:
    other = Cache(tmp_path / "other")
    first, again = build(cache), build(other)
    assert (first.key, first.sha256) == (again.key, again.sha256)
    lists = [images.manifest("lab", cache=one)["packages_sha256"] for one in (cache, other)]
    assert lists[0] == lists[1]
    archive.add("tool", {"usr/bin/tool": b"newer"}, depends="libz")
    assert build(cache).key == first.key  # it is there
    assert images.build("lab", refresh=True, cache=cache).key != first.key
    assert images.manifest("lab", cache=cache)["packages_sha256"] != lists[0]


def test_a_built_root_is_known_by_name_and_built_again_without_its_packages_being_said(
    archive: FakeDebian, cache: Cache, vm: Vm
) -> None:
    image = build(cache)
    archive.misbehave("down")
    assert images.build("lab", cache=cache) == image
    assert len(vm.given) == 1
    offer = next(one for one in images.available(cache=cache) if one.name == "lab")
    assert offer.is_built
    assert "tool" in offer.description


def test_another_init_needs_no_new_disk(
    archive: FakeDebian, cache: Cache, vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(cache)
    monkeypatch.setattr(recipe, "init_script", lambda: b"#!/bin/sh\nexec other\n")
    again = build(cache)
    assert b"exec other" in again.initrd.read_bytes()
    assert (again.disk, len(vm.given)) == (first.disk, 1)
    assert images.load("lab", cache=cache) == again
    # The modules of another kernel would not do.
    archive.add(f"linux-image-{KERNEL_RELEASE}", {**kernel_files(), "boot/new": b""})
    images.build("default", refresh=True, cache=cache)
    monkeypatch.setattr(recipe, "init_script", lambda: b"#!/bin/sh\nexec third\n")
    assert build(cache) == again


def test_a_finished_disk_is_not_made_again_when_its_record_could_not_be_written(
    archive: FakeDebian, cache: Cache, vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_words: object) -> None:
        raise ImageError("cache: cannot be written")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_finish", fail)
        with pytest.raises(ImageError, match="cannot be written"):
            build(cache)
    build(cache)
    assert len(vm.given) == 1


def test_a_root_of_the_other_architecture(archive: FakeDebian, cache: Cache, vm: Vm) -> None:
    image = build(cache, architecture="mipsel")
    assert {package.architecture for package in image.packages} == {"mipsel"}
    with pytest.raises(ImageError, match="architecture arm64 asked; mips64el and mipsel are"):
        build(cache, "other", architecture="arm64")


@pytest.mark.parametrize("name", ["debian", "default", "debian-mipsel", "Lab", "a/b", "", "-x"])
def test_a_root_has_a_name_of_its_own(archive: FakeDebian, cache: Cache, name: str) -> None:
    with pytest.raises(ImageError, match=f"image '{name}': lower-case letters"):
        build(cache, name)


def test_a_name_stands_for_one_set_of_packages(archive: FakeDebian, cache: Cache, vm: Vm) -> None:
    build(cache)
    with pytest.raises(
        ImageError, match=r"image 'lab': there is one with tool for mips64el; .*rem"
    ):
        build(cache, "lab", "libz")
    images.remove("lab", cache=cache)
    build(cache, "lab", "libz")


def test_an_unknown_image_is_told_which_are_known(cache: Cache) -> None:
    acts = (images.load, images.build, images.remove, images.manifest)
    for act in acts:
        with pytest.raises(
            ImageError, match=r"image 'nope': unknown; .*default.*debian-dev; 'disco"
        ):
            act("nope", cache=cache)  # type: ignore[operator]
    with pytest.raises(ImageError, match="image debian: not built; 'disco image build debian'"):
        images.load("debian", cache=cache)


def test_an_unknown_package_is_told_and_leaves_nothing(
    archive: FakeDebian, cache: Cache, vm: Vm
) -> None:
    with pytest.raises(ImageError, match=r"packages .*toil: .*Unable to locate package toil"):
        build(cache, "lab", "toil")
    assert vm.given == []
    assert "lab" not in [one.name for one in images.available(cache=cache)]


def test_a_build_that_was_cut_off_goes_on(archive: FakeDebian, cache: Cache, vm: Vm) -> None:
    def cut_off() -> None:
        raise KeyboardInterrupt

    vm.end = cut_off
    with pytest.raises(KeyboardInterrupt):
        build(cache)
    fetched = archive.downloads()
    archive.misbehave("down")  # nothing is asked any more
    archive.add("tool", {"usr/bin/tool": b"newer"}, depends="libz")
    vm.end = lambda: None
    said: list[str] = []
    image = images.build("lab", cache=cache, progress=said.append)
    assert any("going on" in line for line in said)
    assert vm.disks == [b"\0\0\0\0", b"half"]
    assert vm.given[0] == vm.given[1]
    assert archive.downloads() == fetched
    assert image.disk is not None
    assert sorted(path.name for path in cache.roots.iterdir() if path.is_dir()) == [
        image.disk.parent.name
    ]


def test_a_cut_off_build_can_be_thrown_away(archive: FakeDebian, cache: Cache, vm: Vm) -> None:
    def fail() -> None:
        raise ImageError("image lab: step 3: configure tool; its last words")

    vm.end = fail
    with pytest.raises(ImageError, match="configure tool"):
        build(cache)
    images.remove("lab", cache=cache)
    with pytest.raises(ImageError, match="image 'lab': unknown"):
        images.remove("lab", cache=cache)
    vm.end = lambda: None
    build(cache)
    assert vm.disks[-1] == b"\0\0\0\0"


def test_a_cut_off_build_of_another_recipe_is_begun_anew(
    archive: FakeDebian, cache: Cache, vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off() -> None:
        raise KeyboardInterrupt

    vm.end = cut_off
    with pytest.raises(KeyboardInterrupt):
        build(cache)
    vm.end = lambda: None
    monkeypatch.setattr(recipe, "FORMAT", recipe.FORMAT + 1)
    build(cache)
    assert vm.disks == [b"\0\0\0\0", b"\0\0\0\0"]


def test_what_was_fetched_before_the_mirror_went_is_kept(
    archive: FakeDebian, cache: Cache, vm: Vm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apt, "_FETCH_COUNT", 2)
    deb = archive.path("tool", "deb")
    content = deb.read_bytes()
    deb.unlink()
    with pytest.raises(ImageError, match=r"package tool .*cannot be fetched"):
        build(cache)
    before = archive.downloads()
    deb.write_bytes(content)
    build(cache)
    again = archive.downloads()[len(before) :]
    assert len(again) <= 2 < len(before)


def test_a_package_with_another_hash_is_refused(archive: FakeDebian, cache: Cache, vm: Vm) -> None:
    archive.path("tool", "deb").write_bytes(b"something else")
    with pytest.raises(ImageError, match=r"package tool .*wrong hash: SHA-256 \w{64} asked"):
        build(cache)


def test_an_image_in_use_is_not_removed(archive: FakeDebian, cache: Cache, vm: Vm) -> None:
    image = build(cache)
    assert image.disk is not None
    with image.disk.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(ImageError, match="image lab: in use by a running VM"):
            images.remove("lab", cache=cache)
        assert images.load("lab", cache=cache) == image
    images.remove("lab", packages=True, cache=cache)
    assert not image.disk.exists()
    assert [one for one in image.packages if cache.package(one.sha256).exists()] == []


@pytest.mark.parametrize("name", ["vmlinuz", "initrd.cpio", "disk.raw"])
def test_a_root_that_was_changed_is_not_booted(
    archive: FakeDebian, cache: Cache, vm: Vm, name: str
) -> None:
    image = build(cache)
    path = image.kernel.parent / name
    path.chmod(0o644)
    with path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(ImageError, match=f"image lab: .*{name} is not what was built"):
        images.load("lab", cache=cache)


def test_an_exported_root_is_the_root_and_its_holes_stay_holes(
    archive: FakeDebian, cache: Cache, vm: Vm, tmp_path: Path
) -> None:
    image = build(cache)
    target = tmp_path / "out" / "lab"
    images.export("lab", target, cache=cache)
    assert image.disk is not None
    assert (target / "disk.raw").read_bytes() == image.disk.read_bytes()
    assert (target / "disk.raw").stat().st_blocks <= image.disk.stat().st_blocks
    assert (target / "vmlinuz").read_bytes() == image.kernel.read_bytes()
    assert json.loads((target / "manifest.json").read_text())["name"] == "lab"
    with pytest.raises(ImageError, match="is there already; a new folder is possible"):
        images.export("lab", target, cache=cache)


def test_a_disk_that_was_changed_behind_our_back_is_not_exported(
    archive: FakeDebian, cache: Cache, vm: Vm, tmp_path: Path
) -> None:
    image = build(cache)
    assert image.disk is not None
    times = image.disk.stat()
    image.disk.chmod(0o644)
    with image.disk.open("r+b") as file:
        file.write(b"!")
    os.utime(image.disk, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ImageError, match="is not what was built"):
        images.export("lab", tmp_path / "out", cache=cache)


def test_the_hash_of_a_disk_does_not_depend_on_where_its_holes_are(tmp_path: Path) -> None:
    sparse, full, other = (tmp_path / name for name in ("sparse", "full", "other"))
    content = bytes(8192) + b"x" * 100 + bytes(20000) + b"y"
    full.write_bytes(content)
    other.write_bytes(content[:-1] + b"z")
    with sparse.open("wb") as file:
        file.seek(8192)
        file.write(b"x" * 100)
        file.seek(len(content) - 1)
        file.write(b"y")
    assert store.sha256_of_disk(sparse) == store.sha256_of_disk(full)
    assert store.sha256_of_disk(other) != store.sha256_of_disk(full)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "x"}'])
def test_a_damaged_record_is_told(archive: FakeDebian, cache: Cache, vm: Vm, text: str) -> None:
    build(cache)
    (cache.roots / "lab.json").write_text(text)
    with pytest.raises(ImageError, match=r"its record .*lab\.json is damaged"):
        images.load("lab", cache=cache)


@pytest.fixture
def construction(tmp_path: Path) -> builder.Construction:
    base = images.Image(
        name="base",
        kernel=tmp_path,
        initrd=tmp_path,
        packages=(),
        command_line="",
        key="",
        sha256={},
    )
    return builder.Construction(recipe.DEBIAN, base, apt.Plan((), ()), (), tmp_path)


def test_a_maintainer_script_that_fails_is_shown_with_its_last_words(
    construction: builder.Construction,
) -> None:
    lines = [
        "earlier words " + "x" * 40,
        *(f"Setting up lib{number} (1.0) ..." for number in range(40)),
        "tool: cannot make a key",
        "dpkg: error processing package tool (--configure):",
        " installed tool package post-installation script subprocess returned error exit status 1",
        "disco-build: failed: step 3: configure tool",
        "disco[0123]: exit status 1",
        "[   12.3] reboot: System halted",
    ]
    vm = SimpleNamespace(exit_status=1, error=None, status="halted")
    with pytest.raises(ImageError) as told:
        builder._check(construction, vm, None, lines)  # type: ignore[arg-type]
    said = str(told.value)
    assert said.startswith("image debian: step 3: configure tool; its last words:\n")
    assert "tool: cannot make a key" in said
    assert "post-installation script subprocess returned error exit status 1" in said
    assert "earlier words" not in said
    assert "System halted" not in said
    assert said.endswith("'disco image build debian' goes on from here")


def test_a_host_disk_that_is_full_is_told_and_not_dpkgs_input_output_error(
    construction: builder.Construction,
) -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    refused = DiskError(
        image="disk.raw", operation="write", where=" of 8 sectors at 0", error=error
    )
    vm = SimpleNamespace(exit_status=1, error=None, status="halted")
    with pytest.raises(ImageError, match="write of 8 sectors at 0 failed: No space left on device"):
        builder._check(construction, vm, refused, ["dpkg: error: Input/output error"])  # type: ignore[arg-type]


def test_a_vm_that_was_stopped_is_told(construction: builder.Construction) -> None:
    vm = SimpleNamespace(exit_status=None, error="VM 'build' stopped: why", status="stopped")
    with pytest.raises(ImageError, match="its VM ended: VM 'build' stopped: why; the log is"):
        builder._check(construction, vm, None, [])  # type: ignore[arg-type]
