"""What went over the subnet, as a file for tcpdump or Wireshark: pcapng with an interface for each port.

Times are simulated, in nanoseconds since the machine was switched on; so the file of a run is the same
whenever and wherever it is run. Checksums that a sender left to the hardware are filled in; frames that
stand for several TCP segments are shown as the one frame that they are.

Source: draft-ietf-opsawg-pcapng, "PCAP Next Generation Capture File Format".
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from disco.closing import Closing
from disco.errors import ConfigError
from disco.network.frame import FRAME_BYTES_MAX, Frame, finished
from disco.network.switch import Port

_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_PACKET = 6
_BYTE_ORDER = 0x1A2B3C4D
_LENGTH_UNKNOWN = -1
_LINK_ETHERNET = 1
_OPTION_END = 0
_OPTION_APPLICATION = 4
_OPTION_NAME = 2
_OPTION_RESOLUTION = 9
_NANOSECONDS = b"\x09"  # 10^-9 s
_NS_PER_SECOND = 10**9


class Capture(Closing):
    """A file being written. A context manager: leaving it closes the file."""

    def __init__(self, path: Path, *, clock_hz: int) -> None:
        """Starts the file at `path` anew; `clock_hz` turns cycles into time.

        Raises:
            ConfigError: the file cannot be written.
        """
        self._path = path
        self._clock_hz = clock_hz
        self._interfaces: dict[int, int] = {}
        try:
            self._file: BinaryIO = path.open("wb")
        except OSError as error:
            raise ConfigError(f"capture {path}: cannot be written: {error.strerror}") from error
        body = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, _LENGTH_UNKNOWN)
        self._block(_SECTION, body + _options((_OPTION_APPLICATION, b"disco")))

    def close(self) -> None:
        """Ends the file. Twice is fine.

        Raises:
            ConfigError: the host has no room for the rest of it.
        """
        try:
            self._file.close()
        except OSError as error:
            self._refuse(error)

    def note(self, sender: Port, frame: Frame, cycle: int) -> None:
        """Writes a frame.

        Raises:
            ConfigError: the host has no room for it.
        """
        data = finished(frame).data
        time_ns = cycle * _NS_PER_SECOND // self._clock_hz
        head = (self._interface(sender), time_ns >> 32, time_ns & 0xFFFF_FFFF, len(data), len(data))
        self._block(_PACKET, struct.pack("<IIIII", *head) + _padded(data))

    def _interface(self, port: Port) -> int:
        """The interface of a port, described in the file before its first frame."""
        if port.number not in self._interfaces:
            self._interfaces[port.number] = len(self._interfaces)
            body = struct.pack("<HHI", _LINK_ETHERNET, 0, FRAME_BYTES_MAX)
            named = (_OPTION_NAME, port.name.encode())
            self._block(_INTERFACE, body + _options(named, (_OPTION_RESOLUTION, _NANOSECONDS)))
        return self._interfaces[port.number]

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("<I", 12 + len(body))
        try:
            self._file.write(struct.pack("<I", kind) + length + body + length)
        except OSError as error:
            self._refuse(error)

    def _refuse(self, error: OSError) -> None:
        raise ConfigError(f"capture {self._path}: cannot be written: {error.strerror}") from error


def _options(*options: tuple[int, bytes]) -> bytes:
    packed = (struct.pack("<HH", code, len(data)) + _padded(data) for code, data in options)
    return b"".join(packed) + struct.pack("<HH", _OPTION_END, 0)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
