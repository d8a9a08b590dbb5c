"""The host's end of a TCP connection into a VM: as much of TCP as an active opener on a short wire needs.

The subnet keeps order and loses next to nothing (a card that has no room), so there is no estimate of round
trips and no congestion control: what has not been acknowledged for a second of simulated time is sent again
from there on, and what comes out of order is left for the sender to repeat. Windows are kept both ways.

What comes from the guest is a stranger's: segments that do not belong are dropped, and none raises.

Source: RFC 9293 (TCP), 7323 (window scale).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import Enum
from ipaddress import IPv4Address
from typing import NamedTuple

from disco.network import packets

_HEADER = struct.Struct(">HHIIBBHHH")
_FIN, _SYN, _RST, _PSH, _ACK = 0x01, 0x02, 0x04, 0x08, 0x10
_MODULUS = 1 << 32
_OPTION_END, _OPTION_NOTHING, _OPTION_MSS, _OPTION_SCALE = 0, 1, 2, 3
_MSS_DEFAULT = 536
_SCALE = 5
_SCALE_MAX = 14
#: What may wait on the host's side, each way.
BUFFER_BYTES = 1 << 20
REPEAT_SECONDS = 1.0
#: Repeats without an answer after which the guest is taken to be gone.
REPEATS_MAX = 30


class State(Enum):
    """Where a connection is in its life."""

    OPENING = "opening"
    OPEN = "open"
    REFUSED = "refused"
    RESET = "reset"
    CLOSED = "closed"


class Segment(NamedTuple):
    """A TCP segment, read."""

    source_port: int
    destination_port: int
    sequence: int
    acknowledged: int
    flags: int
    window: int
    options: bytes
    payload: bytes


def read(packet: packets.Ipv4) -> Segment | None:
    """The segment in a packet, or None. Its checksum is not looked at: nothing on the way spoils bytes."""
    data = packet.payload
    if packet.protocol != packets.PROTOCOL_TCP or len(data) < _HEADER.size:
        return None
    source, destination, sequence, acknowledged, offset, flags, window, _, _ = _HEADER.unpack_from(
        data
    )
    header_bytes = (offset >> 4) * 4
    if not _HEADER.size <= header_bytes <= len(data):
        return None
    options, payload = data[_HEADER.size : header_bytes], data[header_bytes:]
    return Segment(source, destination, sequence, acknowledged, flags, window, options, payload)


class Connection:
    """One connection to a port of a guest.

    Attributes:
        state: where it is in its life.
        received: what has come and nobody has taken yet; `take` takes it.
        has_all: whether the guest has said that no more comes.
    """

    def __init__(
        self,
        *,
        host: tuple[IPv4Address, int],
        guest: tuple[IPv4Address, int],
        mss: int,
        send: Callable[[bytes], None],
        seconds: Callable[[], float],
    ) -> None:
        """Begins to open it.

        Args:
            host, guest: addresses and ports of both ends.
            mss: bytes of data that we take in one segment.
            send: takes an IPv4 packet for the guest.
            seconds: simulated time.
        """
        self.state = State.OPENING
        self.received = bytearray()
        self.has_all = False
        self._host = host
        self._guest = guest
        self._mss = mss
        self._emit = send
        self._seconds = seconds
        self._first = (host[1] * 64_007 + int(seconds() * 1e6)) % _MODULUS
        self._unsent_from = 0  # offset into `_outgoing` of what has not been sent
        self._outgoing = bytearray()  # from the first byte that is not acknowledged
        self._unacknowledged = (self._first + 1) % _MODULUS
        self._window = 0
        self._window_scale = 0
        self._segment_bytes = _MSS_DEFAULT
        self._is_finishing = False
        self._is_fin_sent = False
        self._is_finished = False  # the guest knows that no more data are sent
        self._next = 0  # sequence number that the guest sends next
        self._told_window = 0
        self._repeats = 0
        self._repeat_at = 0.0
        self._open()

    @property
    def is_alive(self) -> bool:
        """Whether anything can still come or go."""
        return self.state in (State.OPENING, State.OPEN)

    @property
    def room(self) -> int:
        """How many bytes `write` takes now."""
        return max(BUFFER_BYTES - len(self._outgoing), 0)

    # The host's side.

    def write(self, data: bytes) -> None:
        """Sends data, as soon as the guest has room."""
        self._outgoing += data
        self._push()

    def take(self) -> bytes:
        """What has come; the guest may send as much again."""
        data = bytes(self.received)
        self.received.clear()
        if self.state is State.OPEN and data and self._told_window < BUFFER_BYTES // 2:
            self._acknowledge()
        return data

    def finish(self) -> None:
        """Says that no more data are sent; what has been written still is."""
        self._is_finishing = True
        self._push()

    def abort(self) -> None:
        """Ends it at once."""
        if self.is_alive:
            self._segment(_RST | _ACK, self._unacknowledged + self._unsent_from)
            self.state = State.CLOSED

    def tick(self) -> None:
        """Repeats what has not been answered for too long."""
        if not self.is_alive or not self._is_waiting or self._seconds() < self._repeat_at:
            return
        self._repeats += 1
        if self._repeats > REPEATS_MAX:
            self.state = State.RESET
        elif self.state is State.OPENING:
            self._open()
        else:
            self._unsent_from = 0
            self._is_fin_sent = False
            self._push(is_probe=True)
        self._restart_timer()

    @property
    def _is_waiting(self) -> bool:
        return self.state is State.OPENING or bool(self._outgoing) or self._is_fin_sent

    # The guest's side.

    def deliver(self, segment: Segment) -> None:
        """Takes a segment of the guest's."""
        if self.state is State.OPENING:
            self._answered(segment)
        elif self.state is State.OPEN:
            self._take_in(segment)

    def _answered(self, segment: Segment) -> None:
        if not segment.flags & _ACK or segment.acknowledged != self._unacknowledged:
            return
        if segment.flags & _RST:
            self.state = State.REFUSED
        elif segment.flags & _SYN:
            self.state = State.OPEN
            self._next = (segment.sequence + 1) % _MODULUS
            self._window = segment.window
            self._segment_bytes, self._window_scale = _limits(segment.options)
            self._progress()
            self._acknowledge()
            self._push()

    def _take_in(self, segment: Segment) -> None:
        if segment.flags & _RST:
            if segment.sequence == self._next:
                self.state = State.RESET
            return
        if segment.flags & _SYN:
            self._acknowledge()  # our answer to it was lost
            return
        if segment.flags & _ACK:
            self._take_acknowledgment(segment)
        if segment.payload or segment.flags & _FIN:
            self._take_data(segment)
            self._acknowledge()
        if self.state is State.OPEN and self.has_all and self._is_finished:
            self.state = State.CLOSED
        else:
            self._push()

    def _take_acknowledgment(self, segment: Segment) -> None:
        count = (segment.acknowledged - self._unacknowledged) % _MODULUS
        limit = self._unsent_from + self._is_fin_sent
        if count > limit:
            return
        self._window = segment.window << self._window_scale
        if not count:
            return
        self._progress()
        data = min(count, self._unsent_from)
        del self._outgoing[:data]
        self._unsent_from -= data
        self._unacknowledged = (self._unacknowledged + count) % _MODULUS
        if count > data:
            self._is_fin_sent = False
            self._is_finished = True

    def _take_data(self, segment: Segment) -> None:
        behind = (self._next - segment.sequence) % _MODULUS
        if behind > len(segment.payload):
            return  # later than what is missing, or old altogether
        data = segment.payload[behind:]
        taken = data[: BUFFER_BYTES - len(self.received)]
        if not self.has_all:
            self.received += taken
            self._next = (self._next + len(taken)) % _MODULUS
            if segment.flags & _FIN and len(taken) == len(data):
                self._next = (self._next + 1) % _MODULUS
                self.has_all = True

    # Sending.

    def _open(self) -> None:
        options = struct.pack(
            ">BBHBBBB", _OPTION_MSS, 4, self._mss, _OPTION_NOTHING, _OPTION_SCALE, 3, _SCALE
        )
        self._segment(_SYN, self._first, options=options)
        self._restart_timer()

    def _push(self, *, is_probe: bool = False) -> None:
        """Sends what the guest has room for; a probe is a byte that it may have none for."""
        if self.state is not State.OPEN:
            return
        room = max(self._window, int(is_probe))
        while self._unsent_from < min(len(self._outgoing), room):
            end = min(self._unsent_from + self._segment_bytes, len(self._outgoing), room)
            data = bytes(self._outgoing[self._unsent_from : end])
            if not self._unsent_from:
                self._restart_timer()
            self._segment(_PSH | _ACK, self._unacknowledged + self._unsent_from, data)
            self._unsent_from = end
        is_all_sent = self._unsent_from == len(self._outgoing)
        if self._is_finishing and is_all_sent and not self._is_fin_sent and not self._is_finished:
            self._segment(_FIN | _ACK, self._unacknowledged + self._unsent_from)
            self._is_fin_sent = True
            self._restart_timer()

    def _acknowledge(self) -> None:
        self._segment(_ACK, self._unacknowledged + self._unsent_from + self._is_fin_sent)

    def _segment(
        self, flags: int, sequence: int, data: bytes = b"", *, options: bytes = b""
    ) -> None:
        self._told_window = BUFFER_BYTES - len(self.received)
        scale = 0 if flags & _SYN else _SCALE
        window = min(self._told_window >> scale, 0xFFFF)
        fields = (
            self._host[1],
            self._guest[1],
            sequence % _MODULUS,
            self._next if flags & _ACK else 0,
        )
        header_bytes = _HEADER.size + len(options)
        bare = _HEADER.pack(*fields, header_bytes // 4 << 4, flags, window, 0, 0) + options + data
        source, destination = self._host[0], self._guest[0]
        pseudo = source.packed + destination.packed
        pseudo += struct.pack(">BBH", 0, packets.PROTOCOL_TCP, len(bare))
        total = packets.checksum(pseudo + bare).to_bytes(2, "big")
        whole = bare[:16] + total + bare[18:]
        self._emit(packets.ipv4(source, destination, packets.PROTOCOL_TCP, whole))

    def _progress(self) -> None:
        self._repeats = 0
        self._restart_timer()

    def _restart_timer(self) -> None:
        self._repeat_at = self._seconds() + REPEAT_SECONDS


def _limits(options: bytes) -> tuple[int, int]:
    """Bytes of data in a segment, and the scale of windows, of the other side's first segment."""
    mss, scale, at = _MSS_DEFAULT, 0, 0
    while at < len(options) and options[at] != _OPTION_END:
        if options[at] == _OPTION_NOTHING:
            at += 1
            continue
        length = options[at + 1] if at + 1 < len(options) else 0
        if length < 2 or at + length > len(options):
            break
        if options[at] == _OPTION_MSS and length == 4:
            mss = max(int.from_bytes(options[at + 2 : at + 4], "big"), 64)
        elif options[at] == _OPTION_SCALE and length == 3:
            scale = min(options[at + 2], _SCALE_MAX)
        at += length
    return mss, scale
