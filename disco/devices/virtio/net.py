"""virtio-net (section 5.1): a network card with one pair of queues.

Queue 0 takes frames to the guest, queue 1 frames from it. Each frame has a header of 12 bytes in front:

    flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers

What is offered, and why:

    MAC               the address is the subnet's to give
    MTU               15 pages of TCP data and their headers: the paper's "no limit on the MTU", held to
                      what one IP packet takes, in whole pages
    MRG_RXBUF         a frame of 60 KiB lies in as many page-sized buffers as it needs; without it the
                      guest would keep 64 KiB ready for each frame
    CSUM, GUEST_CSUM  nobody sums bytes that no wire can spoil
    HOST_TSO4, HOST_TSO6, GUEST_TSO4, GUEST_TSO6, HOST_ECN, GUEST_ECN
                      TCP data cross in pieces of up to 64 KiB whatever the MTU is
    STATUS            the link can be pulled
    not CTRL_VQ       the switch already sends only what is for the guest; not MQ: one queue is enough
                      for rounds; not UFO: Linux has given it up

A driver that takes less gets frames with sums and segments made here. Frames for which the guest has no
buffers wait, up to a bound; later ones are dropped, as on a wire.

What a guest's programs can put on the wire never stops its VM. What only a driver can do wrong (a chain
without room for the header, an offload that was not agreed, one that points out of the frame) does.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from disco.devices.bus import SavedState, claimed_state
from disco.devices.virtio.device import VirtioDevice
from disco.devices.virtio.queue import Chain, Virtqueue
from disco.network.frame import (
    FRAME_BYTES_MAX,
    GSO_ECN,
    GSO_NONE,
    GSO_TCPV4,
    GSO_TCPV6,
    Frame,
    Offload,
    finished,
    segments,
)

DEVICE_ID = 1
RECEIVE_QUEUE = 0
TRANSMIT_QUEUE = 1
QUEUE_SIZE_MAX = 256

FEATURE_CSUM = 1 << 0
FEATURE_GUEST_CSUM = 1 << 1
FEATURE_MTU = 1 << 3
FEATURE_MAC = 1 << 5
FEATURE_GUEST_TSO4 = 1 << 7
FEATURE_GUEST_TSO6 = 1 << 8
FEATURE_GUEST_ECN = 1 << 9
FEATURE_HOST_TSO4 = 1 << 11
FEATURE_HOST_TSO6 = 1 << 12
FEATURE_HOST_ECN = 1 << 13
FEATURE_MRG_RXBUF = 1 << 15
FEATURE_STATUS = 1 << 16
FEATURES = (
    FEATURE_CSUM
    | FEATURE_GUEST_CSUM
    | FEATURE_MTU
    | FEATURE_MAC
    | FEATURE_GUEST_TSO4
    | FEATURE_GUEST_TSO6
    | FEATURE_GUEST_ECN
    | FEATURE_HOST_TSO4
    | FEATURE_HOST_TSO6
    | FEATURE_HOST_ECN
    | FEATURE_MRG_RXBUF
    | FEATURE_STATUS
)

CONFIG = struct.Struct("<6sHHH")  # mac, status, max_virtqueue_pairs (not offered), mtu
STATUS_LINK_UP = 1

HEADER = struct.Struct("<BBHHHHH")
HEADER_NEEDS_CSUM = 1

PAGE_BYTES = 4096
#: 15 pages of data behind IPv4 and TCP headers with timestamps, which Linux always sends.
MTU_BYTES = 15 * PAGE_BYTES + 20 + 32

#: What may wait for buffers of the guest.
BACKLOG_BYTES_MAX = 4 << 20

_HOST_GSO = {GSO_TCPV4: FEATURE_HOST_TSO4, GSO_TCPV6: FEATURE_HOST_TSO6}
_GUEST_GSO = {GSO_TCPV4: FEATURE_GUEST_TSO4, GSO_TCPV6: FEATURE_GUEST_TSO6}

STATE_VERSION = 1


@dataclass(frozen=True)
class NetState(SavedState):
    """Whether the link is up, and the frames that the guest has had no buffers for."""

    is_link_up: bool
    backlog: tuple[Frame, ...]


def whole_pages(paddr: int, length: int) -> int:
    """How many aligned pages lie in a buffer as a whole."""
    first = -(-paddr // PAGE_BYTES)
    return max((paddr + length) // PAGE_BYTES - first, 0)


class VirtioNet(VirtioDevice):
    """A network card. `deliver` gives it a frame for the guest, `send` gets those of the guest.

    Attributes:
        whole_pages_copied: whole aligned pages among what the guest has sent. All of it is copied; these are
            what could be mapped into the receiver instead.
        frames_dropped: frames for the guest that it got no chance to take: no room to wait, link down.
    """

    device_id = DEVICE_ID
    queue_sizes_max = (QUEUE_SIZE_MAX, QUEUE_SIZE_MAX)

    def __init__(self, *, link: bytes, send: Callable[[Frame, int], None]) -> None:
        """`link` is its address, 6 bytes; `send` takes a frame and the cycle of its announcement."""
        super().__init__(features=FEATURES)
        self.whole_pages_copied = 0
        self.frames_dropped = 0
        self._link = link
        self._send = send
        self._is_link_up = True
        self._backlog: deque[Frame] = deque()
        self._backlog_bytes = 0

    def config(self) -> bytes:
        status = STATUS_LINK_UP if self._is_link_up else 0
        return CONFIG.pack(self._link, status, 0, MTU_BYTES)

    def set_link(self, *, is_up: bool) -> None:
        """Plugs the cable in, or pulls it."""
        if is_up != self._is_link_up:
            self._is_link_up = is_up
            self._tell_config_changed()

    def reset(self) -> None:
        self._backlog.clear()
        self._backlog_bytes = 0

    def serve(self, index: int, queue: Virtqueue) -> None:
        if index == RECEIVE_QUEUE:
            self._serve_receive(queue)
        else:
            self._serve_transmit(queue)

    # From the guest.

    def _serve_transmit(self, queue: Virtqueue) -> None:
        for chain in queue.chains():
            length = chain.readable_bytes - HEADER.size
            if not 0 <= length <= FRAME_BYTES_MAX:
                queue.refuse(
                    f"chain {chain.head} has {chain.readable_bytes} readable bytes;"
                    f" a header of {HEADER.size} and a frame of up to {FRAME_BYTES_MAX} are possible"
                )
            data = queue.gather(chain.readable)
            offload = self._offload(queue, chain, data[: HEADER.size], length)
            queue.complete(chain, 0)
            self.whole_pages_copied += sum(whole_pages(*one) for one in chain.readable)
            if self._is_link_up:
                self._send(Frame(data[HEADER.size :], offload), self.notified_cycle)

    def _offload(self, queue: Virtqueue, chain: Chain, header: bytes, length: int) -> Offload:
        """What the header leaves to do, checked against the features and the frame."""
        flags, gso, header_bytes, segment_bytes, start, offset, _ = HEADER.unpack(header)
        needs_checksum = bool(flags & HEADER_NEEDS_CSUM)
        if needs_checksum and not self.accepted_features & FEATURE_CSUM:
            queue.refuse(f"chain {chain.head} leaves a checksum to do, which was not negotiated")
        if needs_checksum and start + offset + 2 > length:
            queue.refuse(
                f"chain {chain.head} has its checksum at {start} + {offset} in a frame of {length} bytes"
            )
        if gso != GSO_NONE:
            self._check_gso(queue, chain, gso, needs_checksum, segment_bytes)
        if not needs_checksum:
            return Offload()
        return Offload(True, start, offset, gso, header_bytes, segment_bytes)

    def _check_gso(
        self, queue: Virtqueue, chain: Chain, gso: int, needs_checksum: bool, segment_bytes: int
    ) -> None:
        feature = _HOST_GSO.get(gso & ~GSO_ECN, 0)
        wanted = feature | (FEATURE_HOST_ECN if gso & GSO_ECN else 0)
        if not feature or wanted & ~self.accepted_features:
            queue.refuse(f"chain {chain.head} leaves segments of kind {gso:#x}, not negotiated")
        if not needs_checksum or segment_bytes == 0:
            queue.refuse(
                f"chain {chain.head} leaves segments of {segment_bytes} bytes to cut"
                f" {'with' if needs_checksum else 'without'} their checksums"
            )

    # To the guest.

    def deliver(self, frame: Frame) -> None:
        """Takes a frame for the guest: now if it has buffers, else later, else never."""
        if not self._is_link_up or not self.accepted_features:
            self.frames_dropped += 1
            return
        for part in self._fitted(frame):
            if self._backlog_bytes + len(part.data) > BACKLOG_BYTES_MAX:
                self.frames_dropped += 1
            else:
                self._backlog.append(part)
                self._backlog_bytes += len(part.data)
        self._ask_service(RECEIVE_QUEUE)

    def _fitted(self, frame: Frame) -> list[Frame]:
        """The frame as this driver can take it."""
        offload = frame.offload
        if offload.gso != GSO_NONE:
            wanted = _GUEST_GSO.get(offload.gso_kind, 0) | FEATURE_GUEST_CSUM
            wanted |= FEATURE_GUEST_ECN if offload.gso & GSO_ECN else 0
            return segments(frame) if wanted & ~self.accepted_features else [frame]
        return [frame if self.accepted_features & FEATURE_GUEST_CSUM else finished(frame)]

    def _serve_receive(self, queue: Virtqueue) -> None:
        if not self._backlog:
            return
        is_merging = bool(self.accepted_features & FEATURE_MRG_RXBUF)
        taken: list[Chain] = []
        room = 0
        for chain in queue.chains():
            taken.append(chain)
            room += self._room(queue, chain)
            if not is_merging or len(taken) == queue.size:
                self._drop_longer_than(room - HEADER.size)
            if self._backlog and len(self._backlog[0].data) <= room - HEADER.size:
                self._fill(queue, taken)
                taken, room = [], 0
            if not self._backlog:
                break
        queue.untake(len(taken))

    @staticmethod
    def _room(queue: Virtqueue, chain: Chain) -> int:
        room = chain.writable_bytes
        if room < HEADER.size:
            queue.refuse(
                f"chain {chain.head} has {room} writable bytes for a frame; {HEADER.size} are needed"
            )
        return room

    def _fill(self, queue: Virtqueue, chains: list[Chain]) -> None:
        """Stores the first frame that waits over these chains, which have room."""
        frame = self._take_first()
        offload = frame.offload
        header = HEADER.pack(
            HEADER_NEEDS_CSUM if offload.needs_checksum else 0,
            offload.gso,
            offload.header_bytes,
            offload.segment_bytes,
            offload.checksum_start,
            offload.checksum_offset,
            len(chains),
        )
        data, at = header + frame.data, 0
        for chain in chains:
            part = data[at : at + chain.writable_bytes]
            queue.scatter(chain.writable, part)
            queue.complete(chain, len(part))
            at += len(part)

    def _take_first(self) -> Frame:
        frame = self._backlog.popleft()
        self._backlog_bytes -= len(frame.data)
        return frame

    def _drop_longer_than(self, length: int) -> None:
        """Drops the first frames that wait, as long as they are longer than any room the guest has."""
        while self._backlog and len(self._backlog[0].data) > length:
            self._take_first()
            self.frames_dropped += 1

    # Saved state.

    def save(self) -> NetState:
        return NetState(
            version=STATE_VERSION, is_link_up=self._is_link_up, backlog=tuple(self._backlog)
        )

    def restore(self, state: object) -> None:
        saved = claimed_state(state, NetState, version=STATE_VERSION, device="virtio-net")
        self._is_link_up = saved.is_link_up
        self._backlog = deque(saved.backlog)
        self._backlog_bytes = sum(len(frame.data) for frame in saved.backlog)
