"""9P2000.L as a guest speaks it, and as no guest should."""

from __future__ import annotations

import errno
import os
import random
import struct
from pathlib import Path

import pytest
from virtio_driver import Driver

from disco.devices.p9 import FIDS_MAX, HEADER, MESSAGE_BYTES_MAX, MIPS_ERRNO, Answer, Server, Type
from disco.devices.virtio.p9 import VirtioP9
from disco.errors import DeviceError
from disco.storage.folder import SharedFolder

ROOT, NO_FID = 1, 0xFFFF_FFFF


def text(data: bytes) -> bytes:
    return struct.pack("<H", len(data)) + data


def whole(answer: Answer) -> bytes:
    return answer.head + (answer.data.content if answer.data else b"")


class Client:
    """A guest's side, the naive way: says what it wants, gets fields or an error number."""

    def __init__(self, folder: SharedFolder) -> None:
        self.server = Server(folder)
        self.ask(Type.VERSION, "<I", 8192, tail=text(b"9P2000.L"))
        self.ask(Type.ATTACH, "<II", ROOT, NO_FID, tail=text(b"root") + text(b"") + bytes(4))
        self.last = ROOT

    def ask(self, kind: int, form: str = "<", *fields: int, tail: bytes = b"") -> bytes:
        body = struct.pack(form, *fields) + tail
        answer = whole(self.server.answer(HEADER.pack(HEADER.size + len(body), kind, 77) + body))
        length, told, tag = HEADER.unpack_from(answer)
        assert (length, tag) == (len(answer), 77)
        if told == Type.ERROR + 1:
            raise OSError(struct.unpack_from("<I", answer, HEADER.size)[0], "")
        assert told == kind + 1
        return answer[HEADER.size :]

    def walk(self, *names: bytes, start: int = ROOT) -> int:
        self.last += 1
        tail = b"".join(text(name) for name in names)
        answer = self.ask(Type.WALK, "<IIH", start, self.last, len(names), tail=tail)
        if struct.unpack_from("<H", answer)[0] != len(names):
            raise OSError(errno.ENOENT, "")
        return self.last

    def open(self, *names: bytes, flags: int = 0) -> int:
        fid = self.walk(*names)
        self.ask(Type.LOPEN, "<II", fid, flags)
        return fid

    def read(self, fid: int, count: int = 4096, offset: int = 0) -> bytes:
        answer = self.ask(Type.READ, "<IQI", fid, offset, count)
        assert struct.unpack_from("<I", answer)[0] == len(answer) - 4
        return answer[4:]

    def write(self, fid: int, data: bytes, offset: int = 0) -> int:
        answer = self.ask(Type.WRITE, "<IQI", fid, offset, len(data), tail=data)
        return struct.unpack("<I", answer)[0]

    def names(self, fid: int, count: int = 200) -> list[bytes]:
        """A whole listing, in pieces of `count` bytes."""
        found, offset = [], 0
        while answer := self.ask(Type.READDIR, "<IQI", fid, offset, count)[4:]:
            at = 0
            while at < len(answer):
                offset, _, length = struct.unpack_from("<QBH", answer, at + 13)
                found.append(answer[at + 24 : at + 24 + length])
                at += 24 + length
        return found

    def size(self, fid: int) -> int:
        return struct.unpack_from(
            "<Q", self.ask(Type.GETATTR, "<IQ", fid, 0x7FF), 8 + 13 + 12 + 16
        )[0]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    shared = tmp_path / "shared"
    (shared / "folder").mkdir(parents=True)
    (shared / "file").write_bytes(bytes(range(256)) * 100)
    (shared / "link").symlink_to("../secret")
    (tmp_path / "secret").write_bytes(b"not for guests")
    return shared


@pytest.fixture
def client(place: Path):
    folder = SharedFolder(place, read_only=False)
    one = Client(folder)
    yield one
    one.server.reset()
    folder.close()


def refused(number: int):
    return pytest.raises(OSError, match=rf"\[Errno {number}\]")


def test_a_file_is_read_where_the_guest_wants(client, place):
    fid = client.open(b"file")
    whole = (place / "file").read_bytes()
    assert client.size(fid) == len(whole)
    assert client.read(fid, 100, 1000) == whole[1000:1100]
    assert len(client.read(fid, 1 << 30)) == 8192 - 24  # as much as a message holds
    assert client.read(fid, 100, 1 << 40) == b""


def test_a_file_is_made_written_and_cut(client, place):
    fid = client.walk()
    client.ask(Type.LCREATE, "<I", fid, tail=text(b"new") + struct.pack("<III", 0o102, 0o644, 0))
    assert client.write(fid, b"hello world") == 11
    client.ask(Type.FSYNC, "<II", fid, 0)
    client.ask(Type.SETATTR, "<IIIIIQ", fid, 8, 0, 0, 0, 5, tail=bytes(32))
    assert (place / "new").read_bytes() == b"hello"
    again = client.open(b"new", flags=0o2001)  # append
    client.write(again, b" you")
    assert (place / "new").read_bytes() == b"hello you"
    client.open(b"new", flags=0o1001)  # truncate
    assert (place / "new").read_bytes() == b""


@pytest.mark.parametrize("count", [40, 200, 4000])
def test_a_listing_comes_in_pieces_and_each_name_once(client, place, count):
    for number in range(50):
        (place / "folder" / f"{number:02}").touch()
    fid = client.open(b"folder", flags=0o200000)
    expected = [b".", b"..", *(b"%02d" % number for number in range(50))]
    assert client.names(fid, count) == expected


def test_an_open_file_without_a_name_can_still_be_used(client):
    fid = client.open(b"file", flags=2)
    client.ask(Type.UNLINKAT, "<I", ROOT, tail=text(b"file") + bytes(4))
    assert client.write(fid, b"still here") == 10
    assert client.read(fid, 10) == b"still here"
    assert client.size(fid) == 25600
    with refused(errno.ENOENT):
        client.walk(b"file")


def test_a_fid_follows_its_file_when_a_folder_above_is_renamed(client, place):
    (place / "folder" / "inner").write_bytes(b"inner")
    fid = client.walk(b"folder", b"inner")
    client.ask(
        Type.RENAMEAT, "<I", ROOT, tail=text(b"folder") + struct.pack("<I", ROOT) + text(b"other")
    )
    assert client.size(fid) == 5
    client.ask(Type.LOPEN, "<II", fid, 0)
    assert client.read(fid) == b"inner"


def test_names_are_linked_made_and_removed(client, place):
    client.ask(Type.MKDIR, "<I", ROOT, tail=text(b"new") + struct.pack("<II", 0o755, 0))
    client.ask(Type.SYMLINK, "<I", ROOT, tail=text(b"soft") + text(b"target") + bytes(4))
    client.ask(Type.LINK, "<II", client.walk(b"new"), client.walk(b"file"), tail=text(b"hard"))
    assert (place / "new" / "hard").stat().st_nlink == 2
    assert client.ask(Type.READLINK, "<I", client.walk(b"soft")) == text(b"target")
    with refused(93):  # ENOTEMPTY, as MIPS numbers it
        client.ask(Type.UNLINKAT, "<I", ROOT, tail=text(b"new") + struct.pack("<I", 0x200))
    client.ask(Type.REMOVE, "<I", client.walk(b"new", b"hard"))
    client.ask(Type.REMOVE, "<I", client.walk(b"new"))
    assert sorted(os.listdir(place)) == ["file", "folder", "link", "soft"]


def test_the_way_up_ends_at_the_folder(client):
    top = client.ask(Type.GETATTR, "<IQ", ROOT, 0x7FF)[8:21]
    for names in ((b"..",), (b"..", b".."), (b"folder", b"..", b"..", b"..")):
        assert client.ask(Type.GETATTR, "<IQ", client.walk(*names), 0x7FF)[8:21] == top
    with refused(errno.ENOENT):
        client.walk(b"..", b"..", b"secret")


def test_a_link_out_is_read_but_not_opened_or_walked(client):
    fid = client.walk(b"link")
    assert client.ask(Type.READLINK, "<I", fid) == text(b"../secret")
    with refused(errno.EACCES):
        client.ask(Type.LOPEN, "<II", fid, 0)
    with refused(errno.ENOENT):
        client.walk(b"link", b"x")


def test_a_walk_that_ends_early_says_how_far_and_makes_no_fid(client):
    answer = client.ask(
        Type.WALK, "<IIH", ROOT, 50, 3, tail=text(b"folder") + text(b"no") + text(b"x")
    )
    assert struct.unpack_from("<H", answer)[0] == 1
    with refused(errno.EBADF):
        client.ask(Type.CLUNK, "<I", 50)


@pytest.mark.parametrize(
    ("kind", "form", "fields", "tail", "number"),
    [
        (Type.READ, "<IQI", (99, 0, 10), b"", errno.EBADF),  # no such fid
        (Type.READ, "<IQI", (ROOT, 0, 10), b"", errno.EBADF),  # not open
        (Type.CLUNK, "<I", (99,), b"", errno.EBADF),
        (Type.READ, "<IQ", (ROOT, 0), b"", errno.EINVAL),  # cut short
        (Type.WALK, "<IIH", (ROOT, 9, 1), b"\xff\xffx", errno.EINVAL),  # a name longer than the message
        (Type.WALK, "<IIH", (ROOT, 9, 17), text(b"x") * 17, errno.EINVAL),
        (Type.WALK, "<IIH", (ROOT, NO_FID, 0), b"", errno.EINVAL),
        (Type.MKDIR, "<I", (ROOT,), text(b"a/b") + bytes(8), errno.EINVAL),
        (Type.SETATTR, "<IIIIIQ", (ROOT, 2, 0, 7, 0, 0), bytes(32), errno.EPERM),
        (Type.MKNOD, "<I", (ROOT,), text(b"x") + bytes(16), 122),  # EOPNOTSUPP of MIPS
        (Type.XATTRWALK, "<II", (ROOT, 9), text(b"user.x"), 122),
        (255, "<", (), b"", 122),
    ],
)  # fmt: skip
def test_what_cannot_be_is_an_error_with_a_number_of_mips(client, kind, form, fields, tail, number):
    with refused(number):
        client.ask(kind, form, *fields, tail=tail)


def test_errors_that_mips_numbers_alike_are_not_listed():
    for name in ("ENOENT", "EACCES", "EROFS", "EEXIST", "EINVAL", "EBADF", "ENOSPC"):
        assert getattr(errno, name) not in MIPS_ERRNO


def test_fids_and_open_files_are_bounded(client):
    with refused(errno.EMFILE):
        for _ in range(300):
            client.open(b"file")
    with refused(errno.ENFILE):
        for _ in range(FIDS_MAX + 1):
            client.walk()
    client.ask(Type.VERSION, "<I", 8192, tail=text(b"9P2000.L"))
    assert client.server.save() == ()


def test_a_saved_client_goes_on_with_its_open_files(client):
    fid = client.open(b"file")
    twin = Server(client.server._folder)
    twin.restore(client.server.save())
    client.server, first = twin, client.server
    assert client.read(fid, 3) == bytes(range(3))
    first.reset()


def good_messages() -> list[bytes]:
    """One of each kind, about fids 1 to 3 and names that are there."""
    bodies = {
        Type.STATFS: struct.pack("<I", 1),
        Type.LOPEN: struct.pack("<II", 2, 2),
        Type.LCREATE: struct.pack("<I", 3) + text(b"made") + struct.pack("<III", 2, 0o644, 0),
        Type.SYMLINK: struct.pack("<I", 1) + text(b"soft") + text(b"../secret") + bytes(4),
        Type.RENAME: struct.pack("<II", 2, 3) + text(b"moved"),
        Type.READLINK: struct.pack("<I", 2),
        Type.GETATTR: struct.pack("<IQ", 1, 0x7FF),
        Type.SETATTR: struct.pack("<IIIIIQ", 2, 0x129, 0o600, 0, 0, 100) + bytes(32),
        Type.READDIR: struct.pack("<IQI", 3, 0, 500),
        Type.FSYNC: struct.pack("<II", 2, 0),
        Type.LOCK: struct.pack("<I", 2) + bytes(30),
        Type.GETLOCK: struct.pack("<IBQQI", 2, 0, 0, 0, 1) + text(b"me"),
        Type.LINK: struct.pack("<II", 1, 2) + text(b"hard"),
        Type.MKDIR: struct.pack("<I", 1) + text(b"dir") + struct.pack("<II", 0o755, 0),
        Type.RENAMEAT: struct.pack("<I", 1) + text(b"file") + struct.pack("<I", 3) + text(b"f"),
        Type.UNLINKAT: struct.pack("<I", 1) + text(b"soft") + struct.pack("<I", 0),
        Type.VERSION: struct.pack("<I", 8192) + text(b"9P2000.L"),
        Type.ATTACH: struct.pack("<II", 1, NO_FID) + text(b"") + text(b"") + bytes(4),
        Type.WALK: struct.pack("<IIH", 1, 2, 2) + text(b"folder") + text(b"inner"),
        Type.READ: struct.pack("<IQI", 2, 0, 100),
        Type.WRITE: struct.pack("<IQI", 2, 0, 4) + b"data",
        Type.CLUNK: struct.pack("<I", 2),
        Type.REMOVE: struct.pack("<I", 2),
    }
    return [HEADER.pack(HEADER.size + len(body), kind, 1) + body for kind, body in bodies.items()]


@pytest.mark.parametrize("seed", range(3))
def test_spoilt_messages_are_answered_and_nothing_outside_changes(place, seed):
    rng, folder = random.Random(seed), SharedFolder(place, read_only=False)
    server, messages = Server(folder), good_messages()
    beside = place.parent / "secret"
    for _ in range(5000):
        message = bytearray(rng.choice(messages))
        if rng.random() < 0.6:
            for _ in range(rng.randint(1, 3)):
                message[rng.randrange(len(message))] = rng.choice(
                    [0, 1, 2, 3, 0x2E, 0x2F, 0xFF, rng.randrange(256)]
                )
        if rng.random() < 0.1:
            del message[rng.randint(HEADER.size, len(message)) :]
        answer = whole(server.answer(bytes(message)))
        assert HEADER.unpack_from(answer)[0] == len(answer) <= MESSAGE_BYTES_MAX
    assert beside.read_bytes() == b"not for guests"
    assert sorted(os.listdir(place.parent)) == ["secret", "shared"]
    server.reset()
    folder.close()


def test_a_guest_finds_the_tag_and_talks_on_its_queue(place):
    folder = SharedFolder(place)
    driver = Driver(VirtioP9(folder=folder), name="virtio-9p").start()
    assert driver.device.config() == b"\x06\x00shared"
    message = good_messages()[16]
    driver.ram.write(0x20000, message)
    (ring,) = driver.rings
    head = ring.submit(
        [(0x20000, 7), (0x20007, len(message) - 7)], [(0x21000, 11), (0x22000, 4000)]
    )
    ring.notify()
    driver.finish_round()
    written = ring.collect()[head]
    answer = driver.ram.read(0x21000, 11) + driver.ram.read(0x22000, written - 11)
    assert answer[4] == Type.VERSION + 1
    assert answer.endswith(text(b"9P2000.L"))
    folder.close()


@pytest.mark.parametrize(
    ("readable", "writable"), [(6, 4096), (0, 11), (100, 10), (MESSAGE_BYTES_MAX + 1, 4096)]
)
def test_a_chain_that_holds_no_message_or_answer_is_a_device_error(place, readable, writable):
    folder = SharedFolder(place)
    driver = Driver(VirtioP9(folder=folder)).start()
    (ring,) = driver.rings
    ring.submit([(0x20000, readable)] if readable else [], [(0x10000, writable)])
    ring.notify()
    with pytest.raises(DeviceError, match=f"has {readable} readable and {writable} writable bytes"):
        driver.bus.end_round()
    folder.close()
