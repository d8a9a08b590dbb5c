"""An Ethernet frame as it travels between VMs, with what its sender left to the network card.

Two kernels on one machine need not sum bytes that no wire can spoil, nor cut 64 KiB into pieces that the
other side puts together again. So a frame carries a note of what is still to do: fill in a checksum, cut
TCP data into segments. A receiver that agreed to do so takes it as it is; for any other `finished` and
`segments` do it here.

Most of a long frame can stay where its sender has it (`Rest`) until it is known who gets it, so that it goes
from guest to guest without a stop here.

The note has the fields of `virtio_net_hdr` (Virtual I/O Device 1.2, section 5.1.6), already checked:
what it points at lies in the frame.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from disco.network import packets
from disco.network.packets import ETHERNET_BYTES

#: The longest IP packet, behind an Ethernet header with a VLAN tag.
FRAME_BYTES_MAX = ETHERNET_BYTES + 4 + 0x1_0000

GSO_NONE = 0
GSO_TCPV4 = 1
GSO_TCPV6 = 4
GSO_ECN = 0x80

_TCP_FIN_PSH = 0x09
_TCP_CWR = 0x80
_SEQUENCE_MODULUS = 1 << 32


class Offload(NamedTuple):
    """What is left to do for a frame; all zeros: nothing.

    Attributes:
        needs_checksum: whether the checksum at `checksum_start + checksum_offset` is to be filled in,
            over everything from `checksum_start`; the field holds the sum of the pseudo header.
        gso: which kind of segments to cut, GSO_NONE for a frame that is one.
        header_bytes: length of all headers, as the sender says; only a hint.
        segment_bytes: TCP data in each segment.
    """

    needs_checksum: bool = False
    checksum_start: int = 0
    checksum_offset: int = 0
    gso: int = GSO_NONE
    header_bytes: int = 0
    segment_bytes: int = 0

    @property
    def gso_kind(self) -> int:
        """`gso` without the note about congestion bits."""
        return self.gso & ~GSO_ECN


NOTHING_LEFT = Offload()


class Rest(Protocol):
    """The end of a frame, where its sender has it: good until VMs run again, and after `settle` for ever."""

    @property
    def length(self) -> int:
        """Its size in bytes."""

    def read(self) -> bytes:
        """A copy of it."""

    def settle(self) -> None:
        """Keeps a copy, and no longer needs the sender."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Ethernet header and payload, without the check sequence; 14 bytes at least.

    Attributes:
        head: its beginning, all headers that a service or a switch may ask for.
        offload: what is left to do.
        rest: what follows `head`, if that is not all.
    """

    head: bytes
    offload: Offload = NOTHING_LEFT
    rest: Rest | None = None

    @property
    def data(self) -> bytes:
        """All of it; a copy if it is not all here."""
        return self.head if self.rest is None else self.head + self.rest.read()

    @property
    def length(self) -> int:
        """Its size in bytes."""
        return len(self.head) + (0 if self.rest is None else self.rest.length)

    def settle(self) -> None:
        """From here on it does not matter what becomes of its sender."""
        if self.rest is not None:
            self.rest.settle()

    @property
    def destination(self) -> bytes:
        """Link-level address of whom it is for."""
        return self.head[:6]

    @property
    def source(self) -> bytes:
        """Link-level address of who says to have sent it."""
        return self.head[6:12]


def finished(frame: Frame) -> Frame:
    """The frame with its checksum filled in. One of several segments stays whole."""
    offload = frame.offload
    if not offload.needs_checksum:
        return frame
    whole = frame.data
    total = packets.checksum(whole[offload.checksum_start :])
    at = offload.checksum_start + offload.checksum_offset
    # 0 and 0xffff are the same sum, and in UDP 0 means that there is none.
    field = (total or 0xFFFF).to_bytes(2, "big")
    data = whole[:at] + field + whole[at + 2 :]
    return Frame(data, offload._replace(needs_checksum=False))


def segments(frame: Frame) -> list[Frame]:
    """Frames with nothing left to do: the TCP segments of this one, or it alone.

    One that says it is TCP and is not what it says is no frame at all: the list is empty.
    """
    if frame.offload.gso == GSO_NONE:
        return [Frame(finished(frame).data)]
    return [Frame(data) for data in _tcp_segments(frame)]


def _tcp_segments(frame: Frame) -> Iterator[bytes]:
    data, offload = frame.data, frame.offload
    network = packets.network_offset(data)
    transport = offload.checksum_start
    is_ipv4 = offload.gso_kind == GSO_TCPV4
    if transport + 20 > len(data) or network + (20 if is_ipv4 else 40) > transport:
        return
    header_bytes = transport + (data[transport + 12] >> 4) * 4
    payload = data[header_bytes:]
    if header_bytes > len(data) or offload.segment_bytes == 0:
        return
    sequence = int.from_bytes(data[transport + 4 : transport + 8], "big")
    flags = data[transport + 13]
    for number, start in enumerate(range(0, len(payload), offload.segment_bytes)):
        part = payload[start : start + offload.segment_bytes]
        is_last = start + len(part) == len(payload)
        keep = (0xFF if is_last else ~_TCP_FIN_PSH) & (0xFF if number == 0 else ~_TCP_CWR)
        tcp = bytearray(data[transport:header_bytes])
        struct.pack_into(">I", tcp, 4, (sequence + start) % _SEQUENCE_MODULUS)
        tcp[13] = flags & keep & 0xFF
        ip = _ip_header(data[network:transport], len(tcp) + len(part), number, is_ipv4)
        tcp[16:18] = bytes(2)
        pseudo = packets.pseudo_header(ip, packets.PROTOCOL_TCP, len(tcp) + len(part))
        struct.pack_into(">H", tcp, 16, packets.checksum(pseudo + tcp + part))
        yield data[:network] + ip + tcp + part


def _ip_header(header: bytes, payload_bytes: int, number: int, is_ipv4: bool) -> bytes:
    """The header of segment `number`, made from that of the whole."""
    made = bytearray(header)
    if not is_ipv4:
        struct.pack_into(">H", made, 4, len(header) - 40 + payload_bytes)
        return bytes(made)
    identification = int.from_bytes(header[4:6], "big")
    struct.pack_into(
        ">HH", made, 2, len(header) + payload_bytes, (identification + number) & 0xFFFF
    )
    made[10:12] = bytes(2)
    struct.pack_into(">H", made, 10, packets.checksum(bytes(made)))
    return bytes(made)
