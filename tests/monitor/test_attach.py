"""Consoles for other processes: what clients see and type, and what cannot happen to a run by them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest

from disco.errors import ConfigError
from disco.monitor import attach
from disco.monitor.attach import ConsoleServer
from disco.monitor.console import Console


@dataclass
class Vm:
    """What the server needs of a VM."""

    name: str
    number: int
    console: Console = field(default_factory=Console)
    has_ended: bool = False
    typed: bytes = b""

    def type(self, keys: bytes) -> None:
        self.typed += keys


@pytest.fixture
def vms() -> list[Vm]:
    return [Vm("web", 0), Vm("db", 1)]


@pytest.fixture
def server(
    vms: list[Vm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ConsoleServer]:
    monkeypatch.setattr(attach, "_POLL_SECONDS", 0.0)
    with ConsoleServer(SimpleNamespace(vms=vms), tmp_path) as made:  # type: ignore[arg-type]
        yield made


def connect(folder: Path, name: str) -> socket.socket:
    (path,) = (path for _, vm, path in attach.running(folder) if vm == name)
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(5)
    client.connect(str(path))
    return client


def test_the_vms_of_a_running_monitor_are_listed(server: ConsoleServer, tmp_path: Path) -> None:
    assert [(pid, name) for pid, name, _ in attach.running(tmp_path)] == [
        (os.getpid(), "db"),
        (os.getpid(), "web"),
    ]
    server.close()
    assert list(attach.running(tmp_path)) == []


def test_a_client_sees_the_end_of_what_was_printed_and_all_that_follows(
    server: ConsoleServer, vms: list[Vm], tmp_path: Path
) -> None:
    vms[0].console.write(b"x" * attach.TAIL_BYTES + b"login: ")
    with connect(tmp_path, "web") as client:
        assert server.poll() is False
        server.poll()
        seen = client.recv(1 << 16)
        assert len(seen) == attach.TAIL_BYTES
        assert seen.endswith(b"xlogin: ")
        vms[0].console.write(b"Password: ")
        vms[1].console.write(b"of another VM")
        server.poll()
        assert client.recv(1 << 16) == b"Password: "


def test_what_a_client_types_goes_to_its_vm(
    server: ConsoleServer, vms: list[Vm], tmp_path: Path
) -> None:
    with connect(tmp_path, "db") as client:
        server.poll()
        assert server.is_attached
        client.sendall(b"root\r\x03")
        server.poll()
        assert (vms[0].typed, vms[1].typed) == (b"", b"root\r\x03")


def test_clients_share_a_console_and_leave_it_one_by_one(
    server: ConsoleServer, vms: list[Vm], tmp_path: Path
) -> None:
    with connect(tmp_path, "web") as first:
        with connect(tmp_path, "web") as second:
            for _ in range(3):
                server.poll()
            vms[0].console.write(b"both")
            server.poll()
            assert first.recv(10) == second.recv(10) == b"both"
        server.poll()
        vms[0].console.write(b"one")
        server.poll()
        assert first.recv(10) == b"one"
    server.poll()
    assert not server.is_attached


def test_a_client_gets_the_last_words_of_a_vm_and_then_its_end(
    server: ConsoleServer, vms: list[Vm], tmp_path: Path
) -> None:
    with connect(tmp_path, "web") as client:
        server.poll()
        vms[0].console.write(b"System halted")
        vms[0].has_ended = True
        server.poll()
        assert client.recv(100) == b"System halted"
        assert client.recv(100) == b""
    assert [name for _, name, _ in attach.running(tmp_path)] == ["db"]


def test_a_client_that_does_not_read_is_cut_off_and_holds_nobody_up(
    server: ConsoleServer, vms: list[Vm], tmp_path: Path
) -> None:
    with connect(tmp_path, "web"):
        server.poll()
        for _ in range(40):
            vms[0].console.write(bytes(100_000))
            server.poll()
        assert not server.is_attached


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "999999999"
    left.mkdir()
    (left / "web.console").touch()
    assert list(attach.running(tmp_path)) == []
    assert not left.exists()


def test_the_folder_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = attach.runtime_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    with pytest.raises(ConfigError, match="is not a folder that is this user's alone"):
        attach.runtime_folder()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="is not a folder that is this user's alone"):
        attach.runtime_folder()
