"""Debian writes ext4 on our disks; the host's own tools look at what is there afterwards."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from disco import Machine, Monitor, images
from disco.storage import discodisk, merging
from disco.storage.choice import DiskChoice, Mode
from disco.storage.discodisk import StoreDisk

TOOLS = ("mke2fs", "fsck.ext4", "debugfs")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(shutil.which(tool) for tool in TOOLS),
        reason="the host's e2fsprogs are the second opinion; Debian package e2fsprogs",
    ),
]

WORK = (
    "mkdir /m; mount -t ext4 /dev/vda /m; i=0;"
    "while true; do i=$((i+1)); dd if=/dev/urandom of=/m/f$i bs=1000 count=70 2>&-; sync;"
    "echo synced $i $(md5sum < /m/f$i); rm -f /m/f$((i-2)); done"
)


@pytest.fixture
def own(tmp_path):
    with (tmp_path / "base.img").open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", tmp_path / "base.img"], check=True)
    discodisk.create(tmp_path / "own.disk", base=tmp_path / "base.img")
    return tmp_path / "own.disk"


def exported(own: Path) -> Path:
    """The content of a disk as a raw image, after the file system's journal was replayed."""
    image = own.with_suffix(f".{len(list(own.parent.iterdir()))}.img")
    with StoreDisk(own, read_only=True) as disk:
        merging.export(disk, image)
    subprocess.run(["fsck.ext4", "-p", image], check=False, capture_output=True)
    return image


def assert_clean(image: Path) -> None:
    done = subprocess.run(["fsck.ext4", "-fn", image], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_killed_run_leaves_a_file_system_that_is_clean_and_has_what_was_synced(own, tmp_path):
    words = [sys.executable, "-m", "disco.cli", "run", "--disk", str(own), "--", "sh", "-c", WORK]
    sums: dict[int, str] = {}
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if found := re.search(r"synced (\d+) ([0-9a-f]{32})", line):
                sums[int(found[1])] = found[2]
            if len(sums) == 6:
                break
        child.kill()
    image = exported(own)
    assert_clean(image)
    last = max(sums)
    for number in (last - 1, last):
        content = tmp_path / f"f{number}"
        subprocess.run(["debugfs", "-R", f"dump /f{number} {content}", image], check=True)
        digest = subprocess.run(["md5sum", content], check=True, capture_output=True, text=True)
        assert digest.stdout.split()[0] == sums[number]
    assert_clean(tmp_path / "base.img")


SHARING = (
    "mkdir /m; mount -t ext4 /dev/vda /m; cat /m/* | md5sum; echo here > /m/$(hostname); sync;"
    "echo 3 > /proc/sys/vm/drop_caches; cat /m/a* | md5sum; cat /m/a0 /m/a1 > /m/a2; sync; umount /m"
)


def shared_run(disks: list[DiskChoice], host_threads: int) -> Monitor:
    """Three VMs that read the same files and write a few, each on its own disk."""
    machine = Machine(nodes=2, cpus=3, memory_mib_per_node=220, host_threads=host_threads)
    with Monitor(machine) as monitor:
        for number, disk in enumerate(disks):
            vm = monitor.create_vm(
                f"vm{number}",
                image=images.build("default"),
                command=["sh", "-c", SHARING],
                disks=[disk],
            )
            vm.boot()
        monitor.run()
    return monitor


def test_vms_that_share_files_see_their_own_and_are_the_same_with_any_number_of_threads(tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    for number in range(12):
        (files / f"a{number}").write_bytes(random.Random(number).randbytes(150_000 + number))
    base = tmp_path / "base.img"
    with base.open("wb") as file:
        file.truncate(16 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", files, base], check=True)
    before = base.read_bytes()
    digests = set()
    for host_threads in (1, 2, 4):
        kept = tmp_path / f"kept{host_threads}.disk"
        discodisk.create(kept, base=base)
        cow = DiskChoice(base, Mode.COW)
        monitor = shared_run([cow, cow, DiskChoice(kept)], host_threads)
        digests.add(monitor.digest())
        sums = [
            re.findall(r"^([0-9a-f]{32})  ?-", vm.console.text, re.MULTILINE) for vm in monitor.vms
        ]
        whole = b"".join(path.read_bytes() for path in sorted(files.iterdir()))
        assert sums == [[hashlib.md5(whole).hexdigest()] * 2] * 3
        counters = monitor.disk_cache.counters
        assert counters.hits > 2 * counters.misses > 400, counters
        assert counters.copied_full == 0
        image = exported(kept)
        assert_clean(image)
        dumped = tmp_path / f"dumped{host_threads}"
        subprocess.run(["debugfs", "-R", f"dump /a2 {dumped}", image], check=True)
        assert dumped.read_bytes() == (files / "a0").read_bytes() + (files / "a1").read_bytes()
    assert len(digests) == 1
    assert base.read_bytes() == before
