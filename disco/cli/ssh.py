"""`disco ssh`, `disco cp`, and the tunnel under them: the host's own ssh and scp into a VM that another
process runs.

ssh is given the tunnel as its ProxyCommand, this user's key, and the VM's host key; it reads none of the user's
own settings, so it neither asks nor warns.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from disco.cli import console, keys
from disco.cli.terminal import say
from disco.errors import ConfigError
from disco.monitor import attach, tunnels

SSH_PORT = 22
#: How long a VM may take to boot until its server answers.
WAIT_SECONDS = 180.0
_RETRY_SECONDS = 0.5
_PIECE = 1 << 16
_REMOTE = re.compile(r"((?:\d+/)?[A-Za-z0-9][A-Za-z0-9-]*):(.*)", re.DOTALL)


def ssh(vm: str, command: Sequence[str], *, user: str) -> int:
    """Becomes an ssh into the VM; returns only with an error.

    Raises:
        ConfigError: there is no such VM, no way into it, or no ssh on this host.
    """
    program, path = keys.program("ssh"), find(vm)
    _wait_for_server(vm, path)
    words = [program, *_options(vm, path), "-l", user, _name(vm), *command]
    os.execv(program, words)


def copy(sources: Sequence[str], target: str, *, user: str, is_recursive: bool) -> int:
    """Becomes an scp from or to a VM; returns only with an error.

    Raises:
        ConfigError: not exactly one side is in a VM, or as for `ssh`.
    """
    program = keys.program("scp")
    vms = {vm for vm in map(_vm_of, (*sources, target)) if vm}
    is_in_vm = [bool(_vm_of(one)) for one in sources]
    if len(vms) != 1 or any(is_in_vm) == bool(_vm_of(target)) or len(set(is_in_vm)) != 1:
        raise ConfigError(
            f"{' '.join((*sources, target))}: files of this host to VM:PATH, or VM:PATH to this host,"
            " is possible, with one VM"
        )
    vm = vms.pop()
    path = find(vm)
    _wait_for_server(vm, path)
    words = [program, *(["-r"] if is_recursive else []), *_options(vm, path)]
    os.execv(program, [*words, "--", *(_place(one, user) for one in (*sources, target))])


def find(vm: str) -> Path:
    """The socket of a VM.

    Raises:
        ConfigError: no such VM runs, several do, or it was started without `--ssh`.
    """
    attached = console.find(vm)
    path = attached.with_name(attached.name.removesuffix(attach.SUFFIX) + tunnels.SUFFIX)
    if not path.exists():
        raise ConfigError(f"VM '{vm}': runs without ssh; 'disco run --ssh' starts one with it")
    return path


def tunnel(path: Path, port: int) -> int:
    """Standard input and output as a connection to a VM's port; the exit status.

    Raises:
        ConfigError: the VM has gone, or nobody there answers.
    """
    with _connected(path, port) as connection:
        _relay(connection)
    return 0


def _connected(path: Path, port: int) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(path))
        connection.sendall(f"{port}\n".encode())
        told = _line(connection)
    except OSError as error:
        connection.close()
        raise ConfigError(f"VM '{path.stem}': {path}: {error.strerror}") from error
    if told != tunnels.OPEN:
        connection.close()
        raise ConfigError(f"VM '{path.stem}': nobody answers at port {port}")
    return connection


def _line(connection: socket.socket) -> bytes:
    """One line, and no byte behind it."""
    told = b""
    while not told.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            break
        told += byte
    return told


def _wait_for_server(vm: str, path: Path) -> None:
    """Waits until an ssh server greets; a VM may still be booting."""
    start = time.monotonic()
    is_said = False
    while not _is_greeting(path):
        if not path.exists():
            raise ConfigError(f"VM '{vm}': has ended")
        waited = time.monotonic() - start
        if waited > WAIT_SECONDS:
            raise ConfigError(
                f"VM '{vm}': no ssh server answers at port {SSH_PORT} after {WAIT_SECONDS:.0f} s; the root"
                " 'debian' has one, others with '--packages openssh-server'"
            )
        if waited > 2 and not is_said:
            say(f"{vm}: no ssh server answers yet; waiting up to {WAIT_SECONDS:.0f} s")
            is_said = True
        time.sleep(_RETRY_SECONDS)


def _is_greeting(path: Path) -> bool:
    try:
        with _connected(path, SSH_PORT) as connection:
            return connection.recv(4) == b"SSH-"
    except (ConfigError, OSError):
        return False


def _options(vm: str, path: Path) -> list[str]:
    name = _name(vm)
    relay = [sys.executable, "-m", "disco.cli", "tunnel", str(path), str(SSH_PORT)]
    settings = {
        "ProxyCommand": shlex.join(relay).replace("%", "%%"),
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f'"{keys.known_hosts(name)}"',
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "HostKeyAlias": name,
        "LogLevel": "ERROR",
    }
    given = [word for one in settings.items() for word in ("-o", "=".join(one))]
    return ["-F", "/dev/null", "-i", str(keys.user_key()), *given]


def _name(vm: str) -> str:
    """The VM's own name, without the process that runs it."""
    return vm.rpartition("/")[2]


def _vm_of(place: str) -> str:
    """The VM of VM:PATH; empty for a file of this host, which `./` in front always says."""
    found = _REMOTE.fullmatch(place)
    return found[1] if found else ""


def _place(place: str, user: str) -> str:
    """A place as scp says it."""
    found = _REMOTE.fullmatch(place)
    if found:
        return f"{user}@{_name(found[1])}:{found[2]}"
    return place if place.startswith(("/", "./", "../")) else f"./{place}"


def _relay(connection: socket.socket) -> None:
    """Carries bytes both ways until the VM's side ends. Neither way waits for the other."""
    source, sink = sys.stdin.fileno(), sys.stdout.fileno()
    connection.setblocking(False)
    waiting = b""
    has_source = True
    while True:
        reading = [connection.fileno(), *([source] if has_source and not waiting else [])]
        writing = [connection.fileno()] if waiting else []
        ready, free, _ = select.select(reading, writing, [])
        try:
            if connection.fileno() in ready:
                data = connection.recv(_PIECE)
                if not data:
                    return
                while data:
                    data = data[os.write(sink, data) :]
            if source in ready:
                waiting = os.read(source, _PIECE)
                if not waiting:
                    has_source = False
                    connection.shutdown(socket.SHUT_WR)
            if free:
                waiting = waiting[connection.send(waiting) :]
        except BlockingIOError:
            continue
        except ConnectionError:
            return
