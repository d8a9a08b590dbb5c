"""What goes into an image: applets, modules with what they need, /init."""

from __future__ import annotations

import shutil
import subprocess

import fake_debian
import pytest

from disco.errors import ImageError
from disco.guests import recipe

BASE = f"lib/modules/{fake_debian.KERNEL_RELEASE}"


def test_busybox_is_linked_under_each_of_its_names() -> None:
    tree = recipe.userland(fake_debian.busybox())
    links = {path for path, node in tree.items() if node.content == b"busybox"}
    assert links == {f"bin/{name}" for name in fake_debian.APPLETS if name != "busybox"}
    assert tree["bin/busybox"].content == fake_debian.busybox()


@pytest.mark.parametrize(
    ("program", "missing"),
    [
        (b"\x7fELF", "cttyhack, modprobe, mount, poweroff, setsid, sh"),
        (fake_debian.busybox().replace(b"modprobe\0", b""), "modprobe"),
    ],
)
def test_a_busybox_without_what_init_uses_is_refused(program: bytes, missing: str) -> None:
    with pytest.raises(ImageError, match=f"does not offer {missing};"):
        recipe.userland(program)


def test_modules_bring_what_they_need_and_nothing_else() -> None:
    tree = recipe.modules(fake_debian.kernel_files(), ["virtio-rng", "ext4"])
    names = {path.rpartition("/")[2] for path in tree if path.endswith(".ko")}
    # rng-core is built into the kernel.
    assert names == {"virtio-rng.ko", "virtio.ko", "ext4.ko", "jbd2.ko", "mbcache.ko"}


def test_modprobe_finds_modules_by_name_and_alias() -> None:
    tree = recipe.modules(fake_debian.kernel_files(), ["virtio_blk", "ext4"])
    rows = dict(
        line.split(":") for line in tree[f"{BASE}/modules.dep"].content.decode().splitlines()
    )
    assert set(rows["kernel/drivers/block/virtio_blk.ko"].split()) == {
        "kernel/drivers/virtio/virtio.ko", "kernel/drivers/virtio/virtio_ring.ko",
    }  # fmt: skip
    assert rows["kernel/fs/mbcache.ko"] == ""
    aliases = tree[f"{BASE}/modules.alias"].content.decode().splitlines()
    assert sorted(aliases) == ["alias fs-ext4 ext4", "alias virtio:d00000002v* virtio_blk"]


def test_what_is_needed_far_down_is_loaded_first() -> None:
    files = {
        f"{BASE}/{name}.ko": fake_debian.module(name, needs=needs)
        for name, needs in {"a": "b,d", "b": "c", "c": "", "d": "c"}.items()
    }
    table = recipe.modules(files, ["a"])[f"{BASE}/modules.dep"].content.decode()
    row = next(line for line in table.splitlines() if line.startswith("a.ko:"))
    # modprobe loads from the last to the first.
    assert row.split()[-1] == "c.ko"
    assert sorted(row.split()[1:]) == ["b.ko", "c.ko", "d.ko"]


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"a": "gone"}, "module gone is neither in it nor in the kernel"),
        ({"a": "b", "b": "a"}, "modules need each other"),
        ({}, "module a is neither"),
    ],
)
def test_modules_that_cannot_be_loaded_are_refused(needs: dict[str, str], words: str) -> None:
    files = {f"{BASE}/{n}.ko": fake_debian.module(n, needs=needs[n]) for n in needs}
    with pytest.raises(ImageError, match=words):
        recipe.modules(files, ["a"])


def test_modules_that_are_built_in_leave_no_trace() -> None:
    assert recipe.modules(fake_debian.kernel_files(), ["rng_core"]) == {}


@pytest.mark.parametrize("count", [0, 2])
def test_a_kernel_package_holds_one_kernel(count: int) -> None:
    files = {f"boot/vmlinuz-{i}": b"" for i in range(count)}
    with pytest.raises(ImageError, match=f"{count} kernels in it"):
        recipe.kernel_of(files)


@pytest.mark.skipif(shutil.which("dash") is None, reason="needs dash")
def test_init_is_a_script_that_a_small_shell_can_read() -> None:
    subprocess.run(["dash", "-n"], input=recipe.init_script(), check=True)
