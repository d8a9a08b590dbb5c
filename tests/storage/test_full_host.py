"""A host that has no room left while Debian writes: its programs get an error, the host's log says why."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from disco.storage import discodisk
from disco.storage.discodisk import StoreDisk

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("debian")]

MIB = 1 << 20
#: What a file of the host may have: less than the guest writes to either disk, more than Disco's own take.
ROOM = 32 * MIB
SCRIPT = """
for disk in vda vdb; do
    tr '\\0' a < /dev/zero | dd of=/dev/$disk bs=1M count=2 conv=fsync iflag=fullblock && echo first $disk
    dd if=/dev/zero of=/dev/$disk bs=1M count=90 seek=2 conv=fsync || echo full $disk
done
"""


def test_a_guest_gets_an_io_error_the_log_says_why_and_what_was_flushed_is_there(tmp_path: Path):
    raw, own = tmp_path / "raw.img", tmp_path / "own.disk"
    with raw.open("wb") as file:
        file.truncate(96 * MIB)
    discodisk.create(own, sector_count=96 * MIB // 512)
    words = ["run", "--disk", f"{raw}:persistent", "--disk", str(own), "--", "sh", "-c", SCRIPT]
    done = subprocess.run(
        [sys.executable, "-m", "disco.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for disk in ("vda", "vdb"):
        assert f"first {disk}" in done.stdout
        assert f"full {disk}" in done.stdout
    assert done.stdout.count("I/O error") >= 2, done.stdout
    assert "raw.img': write of" in done.stderr, done.stderr
    assert "File too large" in done.stderr, done.stderr
    assert "own.disk': " in done.stderr, done.stderr
    with raw.open("rb") as file:
        assert file.read(2 * MIB) == b"a" * (2 * MIB)
    with StoreDisk(own) as disk:
        assert disk.read(0, 4096) == b"a" * (2 * MIB)
        assert list(disk.store.problems()) == []
