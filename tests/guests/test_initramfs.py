"""The initramfs writer, against an independent reader and the system's cpio."""

from __future__ import annotations

import gzip
import shutil
import stat
import subprocess

import naive_cpio
import pytest

from disco.guests import initramfs
from disco.guests.initramfs import Node, Tree

TREE: Tree = {
    "init": initramfs.program(b"#!/bin/sh\n"),
    "bin/sh": initramfs.link("busybox"),
    "dev/console": initramfs.character_device(5, 1),
    "empty": initramfs.file(b""),
    "tmp": initramfs.folder(0o1777),
    "deep/er/file": initramfs.file(b"12345"),
}


def test_an_independent_reader_finds_the_tree() -> None:
    (members,) = naive_cpio.read(initramfs.archive(TREE))
    found = {
        path: Node(fields["mode"], content, (fields["rdevmajor"], fields["rdevminor"]))
        for path, fields, content in members
    }
    missing_folders = {name: initramfs.folder() for name in ("bin", "dev", "deep", "deep/er")}
    assert found == {**TREE, **missing_folders}


def test_folders_come_before_what_they_hold() -> None:
    (members,) = naive_cpio.read(initramfs.archive(TREE))
    seen: set[str] = set()
    for path, _, _ in members:
        parent = path.rpartition("/")[0]
        assert not parent or parent in seen
        seen.add(path)


def test_the_bytes_do_not_depend_on_the_order_of_the_tree() -> None:
    assert initramfs.archive(TREE) == initramfs.archive(dict(reversed(list(TREE.items()))))


def test_nothing_of_the_host_is_in_it() -> None:
    (members,) = naive_cpio.read(initramfs.archive(TREE))
    assert all(f["uid"] == f["gid"] == f["mtime"] == 0 for _, f, _ in members)
    assert [f["ino"] for _, f, _ in members] == list(range(1, len(members) + 1))


@pytest.mark.parametrize("padding", range(5))
def test_an_appended_archive_follows_whatever_the_first_ends_on(padding: int) -> None:
    # An initrd that the user names need not end on a multiple of anything.
    base = initramfs.archive(TREE) + bytes(padding)
    both = naive_cpio.read(initramfs.append(base, {"disco/command": initramfs.program(b"x")}))
    assert [path for path, _, _ in both[1]] == ["disco", "disco/command"]


def test_a_compressed_archive_holds_the_same() -> None:
    assert gzip.decompress(initramfs.archive(TREE, compress=True)) == initramfs.archive(TREE)


@pytest.mark.parametrize("path", ["/absolute", "a//b", "a/../b", "", "./a"])
def test_a_path_that_is_none_is_our_bug(path: str) -> None:
    with pytest.raises(AssertionError, match="no path in a tree"):
        initramfs.archive({path: initramfs.folder()})


@pytest.mark.skipif(shutil.which("cpio") is None, reason="needs cpio")
def test_cpio_lists_the_same() -> None:
    listed = subprocess.run(
        ["cpio", "--list", "--verbose", "--numeric-uid-gid"],
        input=initramfs.archive(TREE), capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    lines = {line.split()[8]: line.split() for line in listed.splitlines() if "console" not in line}
    assert lines["init"][0] == stat.filemode(stat.S_IFREG | 0o755)
    assert lines["tmp"][0] == "drwxrwxrwt"
    assert lines["bin/sh"][-1] == "busybox"
    assert "5,   1" in next(line for line in listed.splitlines() if "console" in line)
