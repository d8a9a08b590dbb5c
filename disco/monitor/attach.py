"""Consoles of running VMs for other processes: a Unix socket each, in a folder of this user's.

    <runtime>/disco/<pid>/<vm>.console

`<runtime>` is `$XDG_RUNTIME_DIR`, else a folder of this user's in the temporary folder. On the socket, what
the VM prints comes out and what is sent is typed, byte for byte. A new client first gets the end of what was
printed before, so that it sees the prompt. Several clients see and type the same. A client that does not read
is cut off; nobody waits for it.

The server has no thread: it does its work when it is polled, between rounds of the machine.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from disco.closing import Closing
from disco.errors import ConfigError
from disco.monitor.monitor import Monitor
from disco.monitor.vm import VirtualMachine

SUFFIX = ".console"
#: What a new client gets of what was printed before.
TAIL_BYTES = 4096
#: What waits for a client at most.
PENDING_BYTES_MAX = 1 << 20
_POLL_SECONDS = 0.01


def runtime_folder() -> Path:
    """Where this user's running monitors have their sockets.

    Raises:
        ConfigError: the folder cannot be made, or is somebody else's.
    """
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    parent = Path(base) if os.path.isabs(base) else Path(tempfile.gettempdir())
    folder = parent / ("disco" if os.path.isabs(base) else f"disco-{os.getuid()}")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        about = folder.lstat()
    except OSError as error:
        raise ConfigError(f"consoles: {folder} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o077:
        raise ConfigError(f"consoles: {folder} is not a folder that is this user's alone")
    return folder


def running(folder: Path | None = None, *, suffix: str = SUFFIX) -> Iterator[tuple[int, str, Path]]:
    """Process, name and socket of each VM that can be attached to; removes what dead processes left.

    `suffix` says which kind of socket.
    """
    for process in sorted((folder or runtime_folder()).iterdir()):
        if not process.name.isdecimal():
            continue
        if not Path("/proc", process.name).exists():
            shutil.rmtree(process, ignore_errors=True)
            continue
        for path in sorted(process.glob(f"*{SUFFIX}")):
            yield int(process.name), path.name.removesuffix(SUFFIX), path


@dataclass
class _Client:
    connection: socket.socket
    pending: bytearray = field(default_factory=bytearray)


class ConsoleServer(Closing):
    """The sockets of a monitor's VMs. A context manager; call `poll` while the monitor runs."""

    def __init__(self, monitor: Monitor, folder: Path | None = None) -> None:
        """`folder` is where to put them, if not `runtime_folder()`; VMs must have been created.

        Raises:
            ConfigError: no socket can be made there.
        """
        self._folder = (folder or runtime_folder()) / str(os.getpid())
        self._clients: dict[int, list[_Client]] = {}
        self._listeners: dict[int, socket.socket] = {}
        self._vms = {vm.number: vm for vm in monitor.vms}
        self._next = 0.0
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            for number, vm in self._vms.items():
                self._listen(number, vm)
        except OSError as error:
            self.close()
            raise ConfigError(
                f"consoles: {self._folder} cannot be used: {error.strerror or error}"
            ) from error

    @property
    def is_attached(self) -> bool:
        """Whether there is a client."""
        return any(self._clients.values())

    def poll(self) -> bool:
        """Takes clients and what they typed, sends what is pending; False, as `Monitor.run`'s `until`."""
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + _POLL_SECONDS
        for number, vm in self._vms.items():
            if vm.has_ended:
                self._drop_all(number)
        sockets: list[socket.socket] = list(self._listeners.values())
        sockets += [one.connection for clients in self._clients.values() for one in clients]
        ready = set(select.select(sockets, [], [], 0)[0]) if sockets else set()
        for number, listener in list(self._listeners.items()):
            if listener in ready:
                self._accept(number, listener)
        for number, clients in self._clients.items():
            for client in tuple(clients):
                if client.connection in ready:
                    self._receive(number, client)
                if client in clients:
                    self._send(number, client)
        return False

    def close(self) -> None:
        """Cuts everybody off and removes the sockets. Twice is fine."""
        for number in tuple(self._listeners):
            self._drop_all(number)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _listen(self, number: int, vm: VirtualMachine) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listeners[number] = listener
        self._clients[number] = []
        listener.setblocking(False)
        listener.bind(str(self._folder / f"{vm.name}{SUFFIX}"))
        listener.listen()
        vm.console.listeners.append(lambda data: self._print(number, data))

    def _print(self, number: int, data: bytes) -> None:
        for client in self._clients[number]:
            client.pending += data

    def _accept(self, number: int, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setblocking(False)
        tail = self._vms[number].console.data[-TAIL_BYTES:]
        self._clients[number].append(_Client(connection, bytearray(tail)))

    def _receive(self, number: int, client: _Client) -> None:
        try:
            keys = client.connection.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            keys = b""
        if keys:
            self._vms[number].type(keys)
        else:
            self._drop(number, client)

    def _send(self, number: int, client: _Client) -> None:
        try:
            while client.pending:
                del client.pending[: client.connection.send(client.pending)]
        except BlockingIOError:
            if len(client.pending) > PENDING_BYTES_MAX:
                self._drop(number, client)
        except OSError:
            self._drop(number, client)

    def _drop(self, number: int, client: _Client) -> None:
        self._clients[number].remove(client)
        client.connection.close()

    def _drop_all(self, number: int) -> None:
        """Of a VM that has ended: its clients get the rest of what it printed."""
        listener = self._listeners.pop(number, None)
        if listener is None:
            return
        for client in tuple(self._clients[number]):
            self._send(number, client)
            if client in self._clients[number]:
                self._drop(number, client)
        listener.close()
        (self._folder / f"{self._vms[number].name}{SUFFIX}").unlink(missing_ok=True)
