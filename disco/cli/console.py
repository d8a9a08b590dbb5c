"""`disco console`: this terminal as the console of a VM that another process runs."""

from __future__ import annotations

import os
import select
import socket
import sys
from pathlib import Path

from disco.cli.terminal import LEAVE, raw_terminal, say
from disco.errors import ConfigError
from disco.monitor import attach


def show_list() -> None:
    """The VMs that can be attached to."""
    found = list(attach.running())
    for process, name, _ in found:
        sys.stdout.write(f"{name}  (process {process})\n")
    if not found:
        say("no VM is running")


def console(wish: str) -> int:
    """Attaches to the VM `NAME` or `PROCESS/NAME`; the exit status.

    Raises:
        ConfigError: no such VM runs, or several do.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        path = find(wish)
        try:
            connection.connect(str(path))
        except OSError as error:
            raise ConfigError(f"console of '{wish}': {path}: {error.strerror}") from error
        if sys.stdin.isatty():
            say(f"attached to the console of {wish}; Ctrl-] leaves it, the VM goes on")
        with raw_terminal(sys.stdin.fileno()):
            is_left = _relay(connection, sys.stdin.fileno())
    say(f"left the console; {wish} goes on" if is_left else f"{wish} has ended")
    return 0


def find(wish: str) -> Path:
    """The socket of a VM.

    Raises:
        ConfigError: no such VM runs, or several do.
    """
    process, _, name = wish.rpartition("/")
    every = list(attach.running())
    found = [row for row in every if row[1] == name and process in ("", str(row[0]))]
    if len(found) == 1:
        return found[0][2]
    rows = found or every
    known = ", ".join(f"{pid}/{vm}" for pid, vm, _ in rows) or "none"
    what = "several run" if found else "not running"
    raise ConfigError(f"VM '{wish}': {what}; possible: {known}")


def _relay(connection: socket.socket, keyboard: int) -> bool:
    """Carries bytes both ways; True if the user left, False if the VM's side ended."""
    sources = [connection.fileno(), keyboard]
    while True:
        ready = select.select(sources, [], [])[0]
        if connection.fileno() in ready:
            try:
                data = connection.recv(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                return False
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        if keyboard in ready:
            keys = os.read(keyboard, 1024)
            if not keys:
                sources.remove(keyboard)  # the VM's output goes on without us typing
            elif LEAVE in keys:
                return True
            else:
                try:
                    connection.sendall(keys)
                except ConnectionError:
                    return False
