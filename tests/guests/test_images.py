"""Images: made once, the same each time, whole or not at all. The archive is a hand-made one."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import naive_cpio
import pytest
from fake_debian import KERNEL_RELEASE, FakeDebian, busybox, kernel_files

from disco.errors import ImageError
from disco.guests import apt, images, recipe
from disco.guests.cache import Cache

NAME = "debian-busybox"


def snapshot(cache: Cache) -> dict[str, bytes]:
    """All that is in the cache, apart from apt's own state and the lock."""
    return {
        str(path.relative_to(cache.folder)): path.read_bytes()
        for folder in (cache.images, cache.packages)
        for path in folder.rglob("*")
        if path.is_file()
    }


def leftovers(cache: Cache) -> list[Path]:
    return list(cache.folder.glob("partial-*"))


def test_an_image_is_kernel_busybox_modules_and_init(debian: FakeDebian, cache: Cache) -> None:
    image = images.build("default", cache=cache)
    assert image.name == NAME
    assert image.kernel.read_bytes() == b"\x7fELF kernel"
    (members,) = naive_cpio.read(image.initrd.read_bytes())
    content = {path: data for path, _, data in members}
    assert content["init"].startswith(b"#!/bin/sh\n")
    assert content["bin/busybox"] == busybox()
    assert f"lib/modules/{KERNEL_RELEASE}/kernel/fs/ext4/ext4.ko" in content
    assert [(one.name, one.version) for one in image.packages] == [
        (f"linux-image-{KERNEL_RELEASE}", "1:2.0-1"),
        ("busybox-static", "1:2.0-1"),
    ]


def test_what_only_some_vms_need_is_in_archives_of_its_own(
    debian: FakeDebian, cache: Cache
) -> None:
    image = images.build("default", cache=cache)
    plain, network, share, balloon = (
        {path: data for path, _, data in naive_cpio.read(one.read_bytes())[0]}
        for one in (image.initrd, image.network, image.share, image.balloon)
    )
    drivers = f"lib/modules/{KERNEL_RELEASE}/kernel/drivers/net"
    assert {path for path in network if path.endswith(".ko")} == {
        f"{drivers}/virtio_net.ko",
        f"{drivers}/net_failover.ko",
    }
    assert network["disco/network"].startswith(b"#!/bin/sh\n")
    assert not any(path.startswith(drivers) for path in plain)
    # Laid over the image, or modprobe would not find one half of what it knows.
    assert b"net_failover.ko" in plain[f"lib/modules/{KERNEL_RELEASE}/modules.dep"]
    assert b"virtio:d00000001v*" in plain[f"lib/modules/{KERNEL_RELEASE}/modules.alias"]
    assert not any("modules." in path for path in (*network, *share))
    assert {path.rpartition("/")[2] for path in share if path.endswith(".ko")} == {
        "9p.ko",
        "9pnet.ko",
        "9pnet_virtio.ko",
    }
    assert share["disco/share"].startswith(b"#!/bin/sh\n")
    drivers = [path for path in balloon if path.endswith(".ko")]
    assert [path.rpartition("/")[2] for path in drivers] == ["virtio_balloon.ko"]


def test_each_architecture_has_an_image_of_its_own_packages(
    debian: FakeDebian, cache: Cache
) -> None:
    wide, narrow = (images.build(f"debian-{one}", cache=cache) for one in ("mips64el", "mipsel"))
    assert wide.name == NAME
    for image, architecture in ((wide, "mips64el"), (narrow, "mipsel")):
        assert {one.architecture for one in image.packages} == {architecture}
        (members,) = naive_cpio.read(image.initrd.read_bytes())
        assert ("bin/busybox", busybox(architecture)) in [(path, data) for path, _, data in members]
        assert (cache.folder / "apt" / architecture / "apt.conf").exists()
    assert wide.key != narrow.key
    assert images.build("debian-mipsel", cache=cache, offline=True) == narrow
    with pytest.raises(ImageError, match=r"pinned to .* \(mipsel\); .* for mips64el are"):
        images.build(NAME, cache=cache, pinned=narrow.packages)


def test_what_an_image_is_called_does_not_matter_to_its_content(
    debian: FakeDebian, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = images.build(NAME, cache=cache)
    renamed = replace(recipe.DEBIAN_BUSYBOX, aliases=("default", "new"), description="other")
    monkeypatch.setattr(recipe, "RECIPES", (renamed,))
    assert images.build("new", cache=cache) == first


def test_a_second_build_is_a_look_into_the_cache(debian: FakeDebian, cache: Cache) -> None:
    first = images.build(NAME, cache=cache)
    shutil.rmtree(debian.programs)  # nothing of apt is needed any more
    said: list[str] = []
    assert images.build(NAME, cache=cache, progress=said.append) == first
    assert images.load("default", cache=cache) == first
    assert said == []
    assert len(debian.downloads()) == 2


def test_a_rebuild_gives_the_same_bytes(debian: FakeDebian, cache: Cache, tmp_path: Path) -> None:
    first = images.build(NAME, cache=cache)
    again = images.build(NAME, cache=Cache(tmp_path / "other"))
    assert (again.sha256, again.key) == (first.sha256, first.key)
    assert again.initrd.read_bytes() == first.initrd.read_bytes()


def test_refresh_takes_newer_packages_and_pins_bring_the_old_ones_back(
    debian: FakeDebian, cache: Cache
) -> None:
    first = images.build(NAME, cache=cache)
    debian.add("busybox-static", {"bin/busybox": busybox() + b" newer"})
    assert images.build(NAME, cache=cache) == first
    newer = images.build(NAME, cache=cache, refresh=True)
    assert newer.sha256["initrd.cpio"] != first.sha256["initrd.cpio"]
    assert newer.sha256["vmlinuz"] == first.sha256["vmlinuz"]
    assert not first.initrd.exists()  # one image of a name
    debian.misbehave("down")
    assert images.build(NAME, cache=cache, pinned=first.packages) == first


def test_a_pinned_package_that_the_archive_has_changed_is_refused(
    debian: FakeDebian, cache: Cache, tmp_path: Path
) -> None:
    first = images.build(NAME, cache=cache)
    debian.add("busybox-static", {"bin/busybox": busybox() + b" another"})
    with pytest.raises(ImageError, match=r"busybox-static .* wrong hash: SHA-256 \w+ asked"):
        images.build(NAME, cache=Cache(tmp_path / "other"), pinned=first.packages)
    with pytest.raises(ImageError, match=r"pinned to busybox-static .*; one linux-image"):
        images.build(NAME, cache=cache, pinned=first.packages[1:])


def test_another_recipe_is_another_image(
    debian: FakeDebian, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = images.build(NAME, cache=cache)
    monkeypatch.setattr("disco.guests.recipe.init_script", lambda: b"#!/bin/sh\n# other\n")
    second = images.build(NAME, cache=cache)
    assert second.key != first.key
    assert len(debian.downloads()) == 2  # packages were there


def test_the_manifest_has_each_package_and_file_with_its_hash(
    debian: FakeDebian, cache: Cache
) -> None:
    image = images.build(NAME, cache=cache)
    shown = json.loads(json.dumps(images.manifest("default", cache=cache)))
    assert shown["sha256"] == dict(image.sha256)
    assert shown["packages"][1] == {
        "name": "busybox-static", "version": "1:2.0-1", "architecture": "mips64el",
        "sha256": image.packages[1].sha256, "size": image.packages[1].size,
    }  # fmt: skip


def test_available_says_what_is_built(debian: FakeDebian, cache: Cache) -> None:
    def built() -> dict[str, bool]:
        return {one.name: one.is_built for one in images.available(cache=cache)}

    assert built() == {NAME: False, "debian-mipsel": False}
    images.build(NAME, cache=cache)
    assert built() == {NAME: True, "debian-mipsel": False}
    assert images.available(cache=cache)[0].aliases == ("default", "debian-mips64el")


def test_a_removed_image_is_gone_and_its_packages_on_request(
    debian: FakeDebian, cache: Cache
) -> None:
    images.build(NAME, cache=cache)
    images.remove("default", cache=cache)
    assert sorted(path.suffix for path in map(Path, snapshot(cache))) == [".deb", ".deb"]
    with pytest.raises(ImageError, match="not built, nothing to remove"):
        images.remove(NAME, cache=cache)
    images.build(NAME, cache=cache, offline=True)
    images.remove(NAME, packages=True, cache=cache)
    assert snapshot(cache) == {}


@pytest.mark.parametrize("act", [images.load, images.build, images.remove, images.manifest])
def test_an_unknown_image_is_told_which_are_known(act: Callable[..., object], cache: Cache) -> None:
    with pytest.raises(
        ImageError, match="image 'nope': unknown; known are debian-busybox, default"
    ):
        act("nope", cache=cache)


@pytest.mark.parametrize("act", [images.load, images.manifest])
def test_an_image_that_is_not_built_says_how(act: Callable[..., object], cache: Cache) -> None:
    with pytest.raises(ImageError, match="not built; 'disco image build debian-busybox' builds it"):
        act("default", cache=cache)


class Trouble(NamedTuple):
    """What goes wrong, and the words it is reported with."""

    cause: Callable[[FakeDebian, pytest.MonkeyPatch], None]
    words: str


def no_apt(debian: FakeDebian, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PATH", "")


def no_sources(debian: FakeDebian, patch: pytest.MonkeyPatch) -> None:
    (apt.ETC / "sources.list").unlink()


def no_mirror(debian: FakeDebian, patch: pytest.MonkeyPatch) -> None:
    debian.misbehave("down")


def no_package(debian: FakeDebian, patch: pytest.MonkeyPatch) -> None:
    debian.path("busybox-static", "control").unlink()


def not_fetched(debian: FakeDebian, patch: pytest.MonkeyPatch) -> None:
    debian.path("busybox-static", "deb").unlink()


def wrong_hash(debian: FakeDebian, patch: pytest.MonkeyPatch) -> None:
    debian.path("busybox-static", "deb").write_bytes(b"something else")


def no_busybox(debian: FakeDebian, patch: pytest.MonkeyPatch) -> None:
    debian.add("busybox-static", {"bin/other": b""})


def no_kernel(debian: FakeDebian, patch: pytest.MonkeyPatch) -> None:
    debian.add("linux-image-mips64r2el", {}, depends="something-else")


def no_module(debian: FakeDebian, patch: pytest.MonkeyPatch) -> None:
    files = {path: data for path, data in kernel_files().items() if "jbd2" not in path}
    debian.add(f"linux-image-{KERNEL_RELEASE}", files)


def little_room(debian: FakeDebian, patch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    patch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=3 << 20))


def disk_fills_up(debian: FakeDebian, patch: pytest.MonkeyPatch) -> None:
    def write_bytes(_path: Path, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(Path, "write_bytes", write_bytes)


TROUBLES = [
    Trouble(no_apt, "apt-config: not on this machine.* boot with --kernel and --initrd"),
    Trouble(no_sources, "no source of Debian's in .*; name a mirror of Debian bookworm"),
    Trouble(no_mirror, "no source gave a list for mips64el.*Could not resolve.*work offline"),
    Trouble(no_package, "package busybox-static: Debian bookworm for mips64el does not have it"),
    Trouble(not_fetched, "package busybox-static .* cannot be fetched"),
    Trouble(
        wrong_hash, r"package busybox-static .*wrong hash: SHA-256 \w{64} asked, .* has \w{64}"
    ),
    Trouble(no_busybox, "package busybox-static .* has no bin/busybox"),
    Trouble(no_kernel, "package linux-image-mips64r2el .* depends on 0 kernels"),
    Trouble(no_module, "module jbd2 is neither in it nor in the kernel"),
    Trouble(
        little_room, r"image debian-busybox: 384 MiB asked, 3 MiB free on the disk of .*XDG_CA"
    ),
    Trouble(disk_fills_up, "cannot be written: No space left on device; set XDG_CACHE_HOME"),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.cause.__name__)
def test_trouble_is_told_and_leaves_no_image(
    trouble: Trouble, debian: FakeDebian, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    trouble.cause(debian, monkeypatch)
    with pytest.raises(ImageError, match=trouble.words):
        images.build(NAME, cache=cache)
    assert not any("image" in path for path in snapshot(cache))
    assert leftovers(cache) == []


def test_trouble_keeps_the_image_that_was_there(debian: FakeDebian, cache: Cache) -> None:
    first = images.build(NAME, cache=cache)
    debian.add("busybox-static", {"bin/other": b""})
    with pytest.raises(ImageError, match="has no bin/busybox"):
        images.build(NAME, cache=cache, refresh=True)
    assert images.load(NAME, cache=cache) == first


def test_offline_never_asks_the_network(debian: FakeDebian, cache: Cache) -> None:
    with pytest.raises(ImageError, match=r"nor a list of packages.*build it once with a network"):
        images.build(NAME, cache=cache, offline=True)
    first = images.build(NAME, cache=cache)
    debian.misbehave("down")
    images.remove(NAME, cache=cache)
    assert images.build(NAME, cache=cache, offline=True) == first
    images.remove(NAME, packages=True, cache=cache)
    with pytest.raises(ImageError, match=r"linux-image-.* not in the cache; offline, it cannot be"):
        images.build(NAME, cache=cache, offline=True)
    assert len(debian.downloads()) == 2


@pytest.mark.parametrize("name", ["kernel", "initrd"])
def test_an_image_that_was_changed_is_not_booted(
    debian: FakeDebian, cache: Cache, name: str
) -> None:
    path: Path = getattr(images.build(NAME, cache=cache), name)
    path.write_bytes(path.read_bytes()[:-1])
    for act in (images.load, images.build):
        with pytest.raises(ImageError, match=f"wrong hash: {path} is not what was built"):
            act(NAME, cache=cache)
    images.remove(NAME, cache=cache)
    images.build(NAME, cache=cache)


def test_a_package_that_was_changed_in_the_cache_is_not_used(
    debian: FakeDebian, cache: Cache
) -> None:
    image = images.build(NAME, cache=cache)
    images.remove(NAME, cache=cache)
    cache.package(image.packages[0].sha256).write_bytes(b"!<arch>\n")
    with pytest.raises(ImageError, match=r"package linux-image-\S+ .*wrong hash"):
        images.build(NAME, cache=cache)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "x"}', "\x00"])
def test_a_damaged_record_is_told(debian: FakeDebian, cache: Cache, text: str) -> None:
    images.build(NAME, cache=cache)
    (cache.images / f"{NAME}-4.json").write_text(text)
    with pytest.raises(ImageError, match=r"its record .*debian-busybox-4\.json is damaged"):
        images.load(NAME, cache=cache)


def test_a_cache_that_cannot_be_written_is_named(debian: FakeDebian, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match=r"cannot be written: .*; set XDG_CACHE_HOME"):
        images.build(NAME, cache=Cache(tmp_path / "file" / "cache"))


def test_builders_at_the_same_time_fetch_once(debian: FakeDebian, cache: Cache) -> None:
    made: list[images.Image] = []
    builders = [
        threading.Thread(target=lambda: made.append(images.build(NAME, cache=cache)))
        for _ in range(4)
    ]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(made) == 4
    assert len({image.key for image in made}) == 1
    assert len(debian.downloads()) == 2


def test_ctrl_c_leaves_nothing_half_made(debian: FakeDebian, cache: Cache) -> None:
    debian.misbehave("slow")
    program = "import sys; from pathlib import Path; from disco.guests import apt, images, cache\n"
    program += f"apt.ETC = Path({str(apt.ETC)!r})\n"
    program += f"images.build({NAME!r}, cache=cache.Cache(Path({str(cache.folder)!r})))\n"
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | paths, stderr=subprocess.DEVNULL
    ) as builder:
        while not debian.downloads():
            assert builder.poll() is None
            time.sleep(0.02)
        builder.send_signal(signal.SIGINT)
        assert builder.wait(timeout=10) != 0
    assert snapshot(cache) == {}
    assert leftovers(cache) == []
    debian.behave("slow")
    images.build(NAME, cache=cache)


def test_what_a_killed_builder_left_is_removed(debian: FakeDebian, cache: Cache) -> None:
    orphan = cache.folder / "partial-abc"
    orphan.mkdir(parents=True)
    (orphan / "half").touch()
    images.build(NAME, cache=cache)
    assert leftovers(cache) == []


def test_apt_gets_a_state_of_its_own_and_no_hooks(debian: FakeDebian, cache: Cache) -> None:
    images.build(NAME, cache=cache)
    state = cache.folder / "apt" / "mips64el"
    settings = (state / "apt.conf").read_text()
    assert f'Dir::State "{state}";' in settings
    assert 'Acquire::http::Proxy "http://proxy.example:3128";' in settings
    assert "Post-Invoke" not in settings  # hooks could touch the machine
    assert '"de"' not in settings
    assert "mirror.example" in (state / "debian.sources").read_text()


def test_a_mirror_that_the_user_names_is_the_only_source(debian: FakeDebian, cache: Cache) -> None:
    images.build(NAME, cache=cache, mirror="http://other.example/debian")
    written = (cache.folder / "apt" / "mips64el" / "debian.sources").read_text()
    assert "other.example" in written
    assert "mirror.example" not in written


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("/somewhere", "/somewhere/disco"),
        ("", "/home/me/.cache/disco"),
        ("relative", "/home/me/.cache/disco"),
    ],
)
def test_the_cache_is_where_the_user_keeps_caches(
    monkeypatch: pytest.MonkeyPatch, variable: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("XDG_CACHE_HOME", variable)
    assert Cache.of_user().folder == Path(expected)


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt")
def test_real_apt_says_what_a_missing_mirror_is(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(
        ImageError, match=r"no source gave a list for mips64el of bookworm: .*nowhere"
    ):
        images.build(NAME, cache=cache, mirror=f"file://{tmp_path}/nowhere")
