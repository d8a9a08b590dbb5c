"""A shared folder: what a guest can do in it, and that nothing leads out."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from disco.errors import ConfigError
from disco.storage.folder import NOBODY, SharedFolder

SECRET = b"not for guests"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to share, beside a secret; with links, a FIFO and a socket in it."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    shared = tmp_path / "shared"
    (shared / "folder").mkdir(parents=True)
    (shared / "file").write_bytes(b"0123456789")
    (shared / "folder" / "inner").write_bytes(b"inner")
    (shared / "up").symlink_to("..")
    (shared / "absolute").symlink_to(tmp_path / "outside")
    (shared / "straight").symlink_to(tmp_path / "secret")
    (shared / "good").symlink_to("folder/inner")
    os.mkfifo(shared / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(shared / "socket"))
    return shared


@pytest.fixture
def folder(place: Path):
    shared = SharedFolder(place, read_only=False)
    yield shared
    shared.close()


def content(folder: SharedFolder, *names: bytes) -> bytes:
    descriptor = folder.open(names, os.O_RDONLY)
    try:
        return os.pread(descriptor, 1000, 0)
    finally:
        os.close(descriptor)


#: Names that lead out of the folder, or are no names.
WAYS_OUT = [
    (b"..",), (b"..", b"secret"), (b"folder", b"..", b"..", b"secret"), (b"../secret",), (b"/etc/passwd",),
    (b"up", b"secret"), (b"absolute", b"secret"), (b"up", b"outside", b"secret"), (b"folder/inner",),
    (b"",), (b".",), (b"folder", b"."), (b"folder\0",), (b"x" * 256,),
]  # fmt: skip

CHANGES = {
    "create": lambda f, names: os.close(f.create(names, os.O_RDWR, 0o644)),
    "make_folder": lambda f, names: f.make_folder(names, 0o755),
    "make_link": lambda f, names: f.make_link(names, b"x"),
    "make_hard_link": lambda f, names: f.make_hard_link(names, (b"file",)),
    "link out of": lambda f, names: f.make_hard_link((b"new",), names),
    "rename to": lambda f, names: f.rename((b"file",), names),
    "rename": lambda f, names: f.rename(names, (b"new",)),
    "remove": lambda f, names: f.remove(names, is_folder=False),
    "remove folder": lambda f, names: f.remove(names, is_folder=True),
    "set_mode": lambda f, names: f.set_mode(names, 0o777),
    "set_size": lambda f, names: f.set_size(names, 0),
    "set_time": lambda f, names: f.set_time(names, 0),
}
LOOKS = {
    "status": lambda f, names: f.status(names),
    "open": lambda f, names: os.close(f.open(names, os.O_RDONLY)),
    "list": lambda f, names: f.list(names),
    "read_link": lambda f, names: f.read_link(names),
}


def everything(place: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """What is beside the shared folder, with all that an operation could have changed."""
    found = {}
    for path in sorted(place.parent.rglob("*")):
        if place not in (path, *path.parents):
            about = path.lstat()
            data = path.read_bytes() if path.is_file() else b""
            found[str(path)] = (about.st_mode, about.st_nlink, about.st_mtime_ns, data)
    return found


@pytest.mark.parametrize("names", WAYS_OUT, ids=repr)
@pytest.mark.parametrize("operation", [*LOOKS, *CHANGES])
def test_no_name_leads_out(folder, place, operation, names):
    before, inside = everything(place), sorted(os.listdir(place))
    with pytest.raises(OSError) as caught:
        {**LOOKS, **CHANGES}[operation](folder, names)
    known = (errno.EINVAL, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
    assert caught.value.errno in known
    assert everything(place) == before
    assert sorted(os.listdir(place)) == inside


@pytest.mark.parametrize("name", [b"straight", b"absolute", b"up", b"good", b"fifo", b"socket"])
def test_links_and_special_files_are_seen_and_not_touched(folder, name):
    assert not stat.S_ISREG(folder.status((name,)).mode)
    for operation in (
        LOOKS["open"],
        *(CHANGES[one] for one in ("set_mode", "set_size", "set_time")),
    ):
        with pytest.raises(OSError) as caught:
            operation(folder, (name,))
        assert caught.value.errno == errno.EACCES
    with pytest.raises(OSError):
        folder.create((name,), os.O_RDWR, 0o644)


def test_a_link_is_read_and_not_followed(folder, tmp_path):
    assert folder.read_link((b"straight",)) == os.fsencode(tmp_path / "secret")
    assert folder.status((b"straight",)).size == len(os.fsencode(tmp_path / "secret"))
    folder.make_link((b"mine",), b"/anywhere")
    assert folder.read_link((b"mine",)) == b"/anywhere"
    folder.remove((b"straight",), is_folder=False)
    assert (tmp_path / "secret").read_bytes() == SECRET


@pytest.mark.parametrize("operation", CHANGES)
def test_nothing_changes_what_is_read_only(place, operation):
    shared = SharedFolder(place)
    with pytest.raises(OSError) as caught:
        CHANGES[operation](shared, (b"file",))
    assert caught.value.errno == errno.EROFS
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        with pytest.raises(OSError, match="Read-only"):
            shared.open((b"file",), flags)
    assert content(shared, b"file") == b"0123456789"
    shared.close()
    shared.close()


def test_files_folders_and_names_are_made_changed_and_removed(folder, place):
    descriptor = folder.create((b"folder", b"new"), os.O_RDWR, 0o640)
    os.pwrite(descriptor, b"written", 0)
    os.close(descriptor)
    assert (place / "folder" / "new").read_bytes() == b"written"
    folder.make_folder((b"folder", b"deep"), 0o700)
    folder.rename((b"folder", b"new"), (b"folder", b"deep", b"moved"))
    folder.make_hard_link((b"twin",), (b"folder", b"deep", b"moved"))
    assert folder.status((b"twin",)).links == 2
    folder.set_size((b"twin",), 5)
    assert content(folder, b"folder", b"deep", b"moved") == b"writt"
    folder.set_time((b"twin",), 1_000_000_007)
    assert folder.status((b"twin",)).modified_ns == 1_000_000_007
    folder.remove((b"twin",), is_folder=False)
    folder.remove((b"folder", b"deep", b"moved"), is_folder=False)
    folder.remove((b"folder", b"deep"), is_folder=True)
    assert folder.list((b"folder",)) == [b"inner"]


def test_the_folder_itself_cannot_be_renamed_or_removed(folder):
    for operation in ("rename", "remove folder", "create"):
        with pytest.raises(OSError) as caught:
            CHANGES[operation](folder, ())
        assert caught.value.errno == errno.EBUSY


def test_a_guest_makes_no_programs_that_run_as_somebody_else(folder, place):
    os.close(folder.create((b"new",), os.O_RDWR, 0o6755))
    folder.make_folder((b"dir",), 0o7755)
    folder.set_mode((b"file",), 0o6755)
    for name in ("new", "dir", "file"):
        assert not (place / name).stat().st_mode & (stat.S_ISUID | stat.S_ISGID)


def test_a_listing_is_sorted(folder, place):
    for number in (3, 1, 2):
        (place / "folder" / str(number)).touch()
    assert folder.list((b"folder",)) == [b"1", b"2", b"3", b"inner"]
    with pytest.raises(NotADirectoryError):
        folder.list((b"file",))


def test_what_is_not_ours_is_nobodys(folder, place, monkeypatch):
    assert folder.status((b"file",)).owner == 0
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert folder.status((b"file",)).owner == NOBODY


def test_a_folder_that_is_swapped_for_a_link_while_we_walk_leads_nowhere_else(folder, place):
    """The classic race, many times: a check of the path and then a use of it would lose it."""
    (place / "trap").mkdir()
    (place / "trap" / "secret").write_bytes(b"harmless")
    (place / "link").symlink_to(place.parent / "outside")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for name in ("link", "trap"):
                os.rename(place / name, place / "other")
                os.rename(place / ("trap" if name == "link" else "link"), place / name)
                os.rename(place / "other", place / ("trap" if name == "link" else "link"))

    thread = threading.Thread(target=swap)
    thread.start()
    seen, refused = 0, 0
    try:
        while (seen < 300 or refused < 300) and seen + refused < 100_000:
            try:
                assert content(folder, b"trap", b"secret") == b"harmless"
                seen += 1
            except OSError as error:
                assert error.errno in (errno.ENOTDIR, errno.ENOENT, errno.ELOOP)
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert seen > 0 < refused


@pytest.mark.parametrize("tag", ["a b", "a/b", "x" * 32, "ä" * 16, "."])
def test_a_tag_that_cannot_be_a_folders_name_is_refused(place, tag):
    with pytest.raises(ConfigError, match="1 to 31 letters"):
        SharedFolder(place, tag=tag)


def test_a_folder_that_is_none_is_refused(place):
    for path in (place / "nowhere", place / "file"):
        with pytest.raises(ConfigError, match="cannot be opened"):
            SharedFolder(path)
