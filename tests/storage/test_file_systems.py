"""Debian writes ext4 on our disks; the host's own tools look at what is there afterwards."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from disco.storage import store
from disco.storage.store import StoreDisk

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
    store.create(tmp_path / "own.disk", base=tmp_path / "base.img")
    return tmp_path / "own.disk"


def exported(own: Path) -> Path:
    """The content of a disk as a raw image, after the file system's journal was replayed."""
    image = own.with_suffix(f".{len(list(own.parent.iterdir()))}.img")
    with StoreDisk(own, read_only=True) as disk:
        store.export(disk, image)
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
