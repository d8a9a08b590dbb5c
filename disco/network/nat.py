"""The way out of the subnet: user-mode NAT by passt, a program of Debian's that needs no root.

Each VM with a way out has a passt of its own. It gets the VM's frames for the world, makes ordinary
connections of the host of them, and answers as the gateway. What comes in comes when the host pleases:
a run with a way out cannot be repeated, and does not get ahead of the wall clock.

passt has the host's DNS answer names that are not ours. The host's own loopback is not reachable from a VM;
published ports are open on the host's loopback only.

Frames go over a socket pair, each behind its length in four bytes.

Source: passt(1), "-F, --fd"; QEMU's socket network backend, whose form of frames it uses.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from disco.errors import ConfigError
from disco.network.frame import FRAME_BYTES_MAX, Frame, segments
from disco.network.packets import ETHERNET_BYTES

PROGRAM = "passt"
_LENGTH = struct.Struct(">I")
_RECEIVE_BYTES = 1 << 20
#: How much a passt that does not read may owe us before frames to it are dropped.
_UNSENT_BYTES_MAX = 4 << 20
_END_SECONDS = 5

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedPort:
    """A TCP port of a VM that is open on the host's loopback.

    Attributes:
        host: number of the port on the host.
        guest: number of the port in the VM.

    Raises:
        ConfigError: no port has such a number.
    """

    host: int
    guest: int

    def __post_init__(self) -> None:
        for number in (self.host, self.guest):
            if not 0 < number < 1 << 16:
                raise ConfigError(f"port {number} to be published: 1 to 65535 are possible")


@dataclass(frozen=True)
class Nat:
    """That a VM has a way out, and which of its ports have a way in."""

    publish: tuple[PublishedPort, ...] = ()


class WayOut:
    """A running passt for one VM."""

    def __init__(
        self,
        *,
        vm: str,
        address: IPv4Address,
        network: IPv4Network,
        gateway: IPv4Address,
        link: bytes,
        publish: Sequence[PublishedPort],
        warn: Callable[[str], None],
    ) -> None:
        """Starts it.

        Args:
            vm: name of the VM, for messages.
            address, network: of the VM.
            gateway, link: addresses under which the world answers.
            publish: ports with a way in.
            warn: gets what a user should know though the run goes on.

        Raises:
            ConfigError: passt is not installed, or a port of the host cannot be had.
        """
        program = shutil.which(PROGRAM)
        if program is None:
            raise ConfigError(
                f"VM '{vm}': a way out asked, but {PROGRAM} is not installed;"
                f" 'apt-get install {PROGRAM}' installs it"
            )
        for port in publish:
            _check_free(port.host, vm)
        self._vm = vm
        self._warn = warn
        self._received = bytearray()
        self._unsent = bytearray()
        self._socket, theirs = socket.socketpair()
        options = {
            "-F": str(theirs.fileno()),
            "-a": str(address),
            "-n": str(network.netmask),
            "-g": str(gateway),
            "-M": link.hex(":"),
            "--dns-forward": str(gateway),
        }
        words = [word for option in options.items() for word in option]
        quiet = ("-f", "-q", "-e", "-4", "--no-dhcp", "--no-map-gw")
        ports = [word for port in publish for word in ("-t", f"127.0.0.1/{port.host}:{port.guest}")]
        with theirs:
            self._process = subprocess.Popen(
                [program, *quiet, *words, *ports],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is for us
            )
        self._socket.setblocking(False)

    @property
    def is_open(self) -> bool:
        """Whether it is still there."""
        return self._socket.fileno() >= 0

    def fileno(self) -> int:
        """For select: readable when frames have come."""
        return self._socket.fileno()

    def send(self, frame: Frame) -> None:
        """Hands over a frame for the world; dropped if passt has not read for a long time."""
        if not self.is_open:
            return
        for one in segments(frame):
            if len(self._unsent) <= _UNSENT_BYTES_MAX:
                self._unsent += _LENGTH.pack(len(one.data)) + one.data
        self._push()

    def _push(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._lost()

    def receive(self) -> list[bytes]:
        """The frames that have come since the last time."""
        if not self.is_open:
            return []
        self._push()
        try:
            while self.is_open:
                data = self._socket.recv(_RECEIVE_BYTES)
                if not data:
                    self._lost()
                self._received += data
        except BlockingIOError:
            pass
        except OSError:
            self._lost()
        return self._whole_frames()

    def _whole_frames(self) -> list[bytes]:
        frames, at = [], 0
        while len(self._received) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._received, at)
            if not ETHERNET_BYTES <= length <= FRAME_BYTES_MAX:
                self._lost()
                break
            if len(self._received) - at - _LENGTH.size < length:
                break
            at += _LENGTH.size
            frames.append(bytes(self._received[at : at + length]))
            at += length
        del self._received[:at]
        return frames

    def _lost(self) -> None:
        """It has ended, or says what nobody understands: said once, and the VM goes on without."""
        if self.is_open:
            said = self._end()
            self._warn(f"VM '{self._vm}': its way out has ended{f': {said}' if said else ''}")

    def close(self) -> None:
        """Ends it. Twice is fine."""
        if self.is_open:
            self._end()

    def _end(self) -> str:
        """Stops the process; the last line of what it said."""
        self._socket.close()
        self._process.terminate()
        try:
            _, errors = self._process.communicate(timeout=_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, errors = self._process.communicate()
        lines = [one.strip() for one in errors.decode(errors="replace").splitlines()]
        told = [one for one in lines if one and not one.startswith("Failed to send")]
        return told[-1] if told else ""


def _check_free(port: int, vm: str) -> None:
    """passt would find out by itself, and say so too late."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ConfigError(
                f"VM '{vm}': port {port} of the host cannot be published: {error.strerror}"
            ) from error


def has_passt() -> bool:
    """Whether this host has what a way out needs."""
    return shutil.which(PROGRAM) is not None and os.name == "posix"
