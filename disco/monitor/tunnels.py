"""TCP connections into running VMs for other processes: a Unix socket for each VM on the subnet.

    <runtime>/disco/<pid>/<vm>.tcp

Who connects says the number of a port and a line's end, and gets a line back: `open`, and from there on the
socket is the connection, or `refused`. The folder is this user's alone (`attach`), so no other user of the host
gets that far. Nothing here needs a way out of the subnet.

The server has no thread: it does its work when it is polled, between rounds of the machine.
"""

from __future__ import annotations

import os
import select
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from disco.errors import ConfigError
from disco.monitor.attach import runtime_folder
from disco.monitor.monitor import Monitor
from disco.monitor.vm import VirtualMachine
from disco.network.tcp import Connection, State

SUFFIX = ".tcp"
OPEN = b"open\n"
REFUSED = b"refused\n"
_PORT_BYTES_MAX = 6
_PENDING_BYTES_MAX = 1 << 20
_POLL_SECONDS = 0.001


class _Tunnel:
    """One client, and its connection once it has said to which port."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.connection: Connection | None = None
        self.asked = bytearray()
        self.pending = bytearray()
        self.is_told = False
        self.has_ended = False  # the client sends no more

    def fileno(self) -> int:
        """For select."""
        return self.client.fileno()

    @property
    def wants_more(self) -> bool:
        """Whether what the client sends has a place."""
        return not self.has_ended and (self.connection is None or self.connection.room > 0)


class TunnelServer:
    """The sockets of a monitor's VMs. A context manager; call `poll` while the monitor runs."""

    def __init__(self, monitor: Monitor, folder: Path | None = None) -> None:
        """`folder` is where to put them, if not `runtime_folder()`; VMs must have been created.

        Raises:
            ConfigError: no socket can be made there.
        """
        self._folder = (folder or runtime_folder()) / str(os.getpid())
        self._subnet = monitor.subnet
        self._listeners: dict[socket.socket, VirtualMachine] = {}
        self._tunnels: dict[_Tunnel, VirtualMachine] = {}
        self._next = 0.0
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            for vm in monitor.vms:
                if vm.network is not None:
                    self._listen(vm)
        except OSError as error:
            self.close()
            raise ConfigError(
                f"connections: {self._folder} cannot be used: {error.strerror or error}"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def is_attached(self) -> bool:
        """Whether there is a client."""
        return bool(self._tunnels)

    def poll(self) -> None:
        """Takes clients and moves what there is, both ways."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _POLL_SECONDS
        self._subnet.tick()
        reading = [one for one in self._tunnels if one.wants_more]
        sources: list[socket.socket | _Tunnel] = [*self._listeners, *reading]
        ready = set(select.select(sources, [], [], 0)[0])
        for listener, vm in tuple(self._listeners.items()):
            if vm.has_ended:
                self._close_listener(listener)
            elif listener in ready:
                client, _ = listener.accept()
                client.setblocking(False)
                self._tunnels[_Tunnel(client)] = vm
        for tunnel, vm in tuple(self._tunnels.items()):
            try:
                if tunnel in ready:
                    self._receive(tunnel, vm)
                is_over = self._advance(tunnel) or vm.has_ended
            except OSError:
                is_over = True
            if is_over:
                self._drop(tunnel)

    def close(self) -> None:
        """Cuts everybody off and removes the sockets. Twice is fine."""
        for tunnel in tuple(self._tunnels):
            self._drop(tunnel)
        for listener in tuple(self._listeners):
            self._close_listener(listener)

    def _listen(self, vm: VirtualMachine) -> None:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listeners[listener] = vm
        listener.setblocking(False)
        listener.bind(str(self._path(vm)))
        listener.listen()

    def _path(self, vm: VirtualMachine) -> Path:
        return self._folder / f"{vm.name}{SUFFIX}"

    def _close_listener(self, listener: socket.socket) -> None:
        self._path(self._listeners.pop(listener)).unlink(missing_ok=True)
        listener.close()

    def _receive(self, tunnel: _Tunnel, vm: VirtualMachine) -> None:
        connection = tunnel.connection
        wanted = _PORT_BYTES_MAX if connection is None else connection.room
        data = tunnel.client.recv(wanted)
        if not data:
            tunnel.has_ended = True
            if connection is not None:
                connection.finish()
        elif connection is not None:
            connection.write(data)
        else:
            tunnel.asked += data
            self._connect(tunnel, vm)

    def _connect(self, tunnel: _Tunnel, vm: VirtualMachine) -> None:
        """Connects once the client has said its line; what is behind it is data."""
        line, end, data = bytes(tunnel.asked).partition(b"\n")
        if not end and len(line) < _PORT_BYTES_MAX:
            return
        if not line.isdigit() or not 0 < int(line) < 1 << 16 or vm.network is None:
            raise OSError("no port")
        tunnel.connection = self._subnet.connect(vm.network.member, int(line))
        tunnel.connection.write(data)

    def _advance(self, tunnel: _Tunnel) -> bool:
        """Hands the client what has come; True when that was all."""
        connection = tunnel.connection
        if connection is None:
            return tunnel.has_ended
        if not tunnel.is_told and connection.state is not State.OPENING:
            tunnel.is_told = True
            tunnel.pending += REFUSED if connection.state is State.REFUSED else OPEN
        if connection.received and len(tunnel.pending) < _PENDING_BYTES_MAX:
            tunnel.pending += connection.take()
        try:
            while tunnel.pending:
                del tunnel.pending[: tunnel.client.send(tunnel.pending)]
        except BlockingIOError:
            return False
        if connection.has_all and not connection.received:
            tunnel.client.shutdown(socket.SHUT_WR)
        return not connection.is_alive and not connection.received

    def _drop(self, tunnel: _Tunnel) -> None:
        del self._tunnels[tunnel]
        if tunnel.connection is not None:
            tunnel.connection.abort()
        tunnel.client.close()
