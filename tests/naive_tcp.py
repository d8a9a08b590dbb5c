"""A TCP server that does the least that one can: it is the other side of `disco/network/tcp.py` in tests."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from disco.network import packets, tcp

HOST, GUEST = (IPv4Address("10.97.0.1"), 2000), (IPv4Address("10.97.1.1"), 22)
FIN, SYN, RST, ACK = 1, 2, 4, 16
START = 0xFFFF_FF00  # its numbers wrap soon


def segment(
    flags: int, sequence: int, acknowledged: int, data: bytes = b"", *, window: int = 0
) -> bytes:
    options = struct.pack(">BBHBBBB", 2, 4, 1000, 1, 3, 3, 2) if flags & SYN else b""
    offset = (20 + len(options)) // 4 << 4
    fields = (GUEST[1], HOST[1], sequence % 2**32, acknowledged, offset, flags, window, 0, 0)
    header = struct.pack(">HHIIBBHHH", *fields)
    return packets.ipv4(GUEST[0], HOST[0], packets.PROTOCOL_TCP, header + options + data)


class Peer:
    """A server that takes what is in order, and sends `outgoing` again and again until it is acknowledged."""

    def __init__(self, outgoing: bytes, window: int) -> None:
        self.outgoing = outgoing
        self.window = window
        self.received = bytearray()
        self.has_fin = False
        self.sent = 0
        self.next: int | None = None
        self.out: list[bytes] = []

    def deliver(self, packet: bytes) -> None:
        read = packets.read_ipv4(packet)
        assert read is not None
        one = tcp.read(read)
        assert one is not None
        if one.flags & SYN:
            self.next = (one.sequence + 1) % 2**32
            self.out.append(segment(SYN | ACK, START, self.next, window=self.window))
            return
        if self.next is None:
            return
        assert len(one.payload) <= 1000
        done = (one.acknowledged - START - 1) % 2**32
        if done <= len(self.outgoing) + 1:
            self.sent = max(self.sent, done)
        if one.sequence == self.next and not self.has_fin:
            self.received += one.payload
            self.has_fin = bool(one.flags & FIN)
            self.next = (self.next + len(one.payload) + self.has_fin) % 2**32
        if one.payload or one.flags & FIN:
            self._send(ACK, b"", at=self.sent)

    def tick(self) -> None:
        if self.next is None or self.sent > len(self.outgoing):
            return
        for at in range(self.sent, min(self.sent + 5000, len(self.outgoing)), 1000):
            self._send(ACK, self.outgoing[at : at + 1000], at=at)
        if self.sent + 5000 >= len(self.outgoing):
            self._send(ACK | FIN, b"", at=len(self.outgoing))

    def _send(self, flags: int, data: bytes, *, at: int) -> None:
        assert self.next is not None
        self.out.append(segment(flags, START + 1 + at, self.next, data, window=self.window >> 2))
