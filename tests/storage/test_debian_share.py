"""A folder of the host in Debian VMs."""

from __future__ import annotations

import hashlib
import json
import os
import random

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("debian")]

SCRIPT = """
    cd /mnt/in; md5sum large; cat 'sub/a b'; ls sub; touch x; cat out/secret; cat up/secret
    cd /mnt/out; mkdir -p d/e; cp /mnt/in/large d/e; mv d/e/large d/copy; rmdir d/e; ln -s copy d/soft
    md5sum < d/soft; rm -r d; dd if=/dev/zero of=zeros bs=100k count=3 2> /dev/null; truncate -s 10 zeros
    chmod 4755 zeros; chown 5 zeros; mknod null c 1 3; echo from $(hostname) >> log"""


def test_vms_read_and_write_a_folder_of_the_host_and_nothing_beside_it(disco, tmp_path):
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "sub").mkdir(parents=True)
    target.mkdir()
    (tmp_path / "secret").write_text("not for guests")
    large = random.Random(1).randbytes(2_000_001)
    (source / "large").write_bytes(large)
    (source / "sub" / "a b").write_text("small\n")
    (source / "out").symlink_to(tmp_path)
    (source / "up").symlink_to("..")
    words = (
        "run",
        "a=default",
        "b=debian-mipsel",
        "--share",
        f"{source}",
        "--share",
        f"{target}:rw",
    )
    done = disco(*words, "--", "sh", "-c", SCRIPT)
    assert done.returncode == 0, done.stdout + done.stderr
    md5 = hashlib.md5(large).hexdigest()
    for prefix in ("a | ", "b | "):
        shown = [
            line.removeprefix(prefix)
            for line in done.stdout.splitlines()
            if line.startswith(prefix)
        ]
        assert f"{md5}  large" in shown
        assert f"{md5}  -" in shown
        assert "small" in shown
        assert "a b" in shown
        assert "touch: x: Read-only file system" in shown
        assert "chown: zeros: Operation not permitted" in shown
        assert "mknod: null: Operation not supported" in shown
    assert "not for guests" not in done.stdout
    assert sorted(os.listdir(target)) == ["log", "zeros"]
    assert sorted((target / "log").read_text().splitlines()) == ["from a", "from b"]
    assert (target / "zeros").read_bytes() == bytes(10)
    assert (target / "zeros").stat().st_mode & 0o7777 == 0o755
    assert sorted(os.listdir(source)) == ["large", "out", "sub", "up"]


def test_what_vms_read_into_whole_pages_is_in_memory_once(disco, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "large").write_bytes(random.Random(2).randbytes(4 << 20))
    command = "dd if=/mnt/in/large of=/dev/null bs=128k"
    done = disco(
        "run", "--vms", "2", "--share", f"{tmp_path / 'in'}", "--json", "--", "sh", "-c", command
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [vm["shares"]["in"]["mapped"] for vm in told["vms"]] == [1024, 1024]
    assert (told["disk_cache"]["misses"], told["disk_cache"]["hits"]) == (1024, 1024)
