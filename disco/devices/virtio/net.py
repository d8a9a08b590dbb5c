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

Of a long frame only the head is looked at here; the rest goes from the sender's pages to the receiver's in one
call of the engine, and begins in a buffer of its own: mergeable buffers need not be filled. Linux makes them a
page each once long frames come, and aligned, so that pages of data are whole at both ends.

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
from disco.devices.virtio.fragments import PAGE_BYTES, Fragments, PageAccount
from disco.devices.virtio.queue import Chain, Virtqueue, split
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

#: 15 pages of data behind IPv4 and TCP headers with timestamps, which Linux always sends.
MTU_BYTES = 15 * PAGE_BYTES + 20 + 32

#: Ethernet and IPv4: what a buffer holds that is taken to hold all headers.
_HEAD_BYTES_MIN = HEADER.size + 14 + 20
_HEAD_BYTES_MAX = 256
#: Shorter chains are taken whole: a second call of the engine costs more than such a copy.
_WHOLE_BYTES_MAX = 2048

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


class VirtioNet(VirtioDevice):
    """A network card. `deliver` gives it a frame for the guest, `send` gets those of the guest.

    Attributes:
        account: what became of the whole pages in frames that other VMs have sent to this one.
        frames_dropped: frames for the guest that it got no chance to take: no room to wait, link down.
    """

    device_id = DEVICE_ID
    queue_sizes_max = (QUEUE_SIZE_MAX, QUEUE_SIZE_MAX)

    def __init__(
        self, *, link: bytes, send: Callable[[Frame, int], None], remap: bool = False
    ) -> None:
        """Plugged in.

        Args:
            link: its address, 6 bytes.
            send: takes a frame and the cycle of its announcement.
            remap: map whole pages of frames into both VMs where their buffers allow it, rather than copy.
        """
        super().__init__(features=FEATURES)
        self.account = PageAccount()
        self._remap = remap
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
            head, rest = split(chain.readable, _head_bytes(chain))
            data = queue.gather(head)
            offload = self._offload(queue, chain, data[: HEADER.size], length)
            frame = Frame(data[HEADER.size :], offload, queue.lend(rest) if rest else None)
            queue.complete(chain, 0)
            if self._is_link_up:
                self._send(frame, self.notified_cycle)

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
            if self._backlog_bytes + part.length > BACKLOG_BYTES_MAX:
                self.frames_dropped += 1
            else:
                self._backlog.append(part)
                self._backlog_bytes += part.length
        self._ask_service(RECEIVE_QUEUE)
        if self._backlog:
            self._backlog[-1].settle()  # the others are

    def _fitted(self, frame: Frame) -> list[Frame]:
        """The frame as this driver can take it."""
        offload = frame.offload
        if offload.gso != GSO_NONE:
            wanted = _GUEST_GSO.get(offload.gso_kind, 0) | FEATURE_GUEST_CSUM
            wanted |= FEATURE_GUEST_ECN if offload.gso & GSO_ECN else 0
            return self._worked_on(frame, segments) if wanted & ~self.accepted_features else [frame]
        if not offload.needs_checksum or self.accepted_features & FEATURE_GUEST_CSUM:
            return [frame]
        return self._worked_on(frame, lambda one: [finished(one)])

    def _worked_on(self, frame: Frame, work: Callable[[Frame], list[Frame]]) -> list[Frame]:
        if isinstance(frame.rest, Fragments):
            self.account.pages_copied_late += frame.rest.pages_whole
        return work(frame)

    def _serve_receive(self, queue: Virtqueue) -> None:
        if not self._backlog:
            return
        is_merging = bool(self.accepted_features & FEATURE_MRG_RXBUF)
        taken: list[Chain] = []
        room = wanted = gap = 0
        for chain in queue.chains():
            taken.append(chain)
            room += self._room(queue, chain)
            if len(taken) == 1:
                gap = _gap(self._backlog[0], chain) if is_merging else 0
                wanted = HEADER.size + self._backlog[0].length + gap
            if room < wanted:
                if is_merging and len(taken) < queue.size:
                    continue
                gap = 0
                self._drop_longer_than(room - HEADER.size)
            if self._backlog:
                self._fill(queue, taken, gap)
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

    def _fill(self, queue: Virtqueue, chains: list[Chain], gap: int) -> None:
        """Stores the first frame that waits over these chains, which have room; `gap` bytes in front of its
        first whole page stay as they are."""
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
        buffers = [buffer for chain in chains for buffer in chain.writable]
        rest = frame.rest if isinstance(frame.rest, Fragments) else None
        head = header + (frame.data if rest is None else frame.head)
        queue.scatter(buffers, head)
        if rest is not None:
            _, behind = split(buffers, len(head))
            if gap:
                lead, behind = split(behind, rest.lead)
                behind = [*lead, *split(behind, gap)[1]]
            target, _ = split(behind, rest.length)
            queue.store(rest, target, self.account, remap=self._remap)
        left = HEADER.size + frame.length + gap
        for chain in chains:
            written = min(left, chain.writable_bytes)
            left -= written
            queue.complete(chain, written - gap)
            gap = 0

    def _take_first(self) -> Frame:
        frame = self._backlog.popleft()
        self._backlog_bytes -= frame.length
        return frame

    def _drop_longer_than(self, length: int) -> None:
        """Drops the first frames that wait, as long as they are longer than any room the guest has."""
        while self._backlog and self._backlog[0].length > length:
            self._take_first()
            self.frames_dropped += 1

    # Saved state.

    def save(self) -> NetState:
        return NetState(
            version=STATE_VERSION,
            is_link_up=self._is_link_up,
            backlog=tuple(Frame(one.data, one.offload) for one in self._backlog),
        )

    def restore(self, state: object) -> None:
        saved = claimed_state(state, NetState, version=STATE_VERSION, device="virtio-net")
        self._is_link_up = saved.is_link_up
        self._backlog = deque(saved.backlog)
        self._backlog_bytes = sum(frame.length for frame in saved.backlog)


def _head_bytes(chain: Chain) -> int:
    """How much of a chain to look at: its first buffers, if they end where headers may end, else some bytes."""
    if chain.readable_bytes <= _WHOLE_BYTES_MAX:
        return chain.readable_bytes
    at = 0
    for _, length in chain.readable:
        at += length
        if at >= _HEAD_BYTES_MIN:
            break
    return min(at, _HEAD_BYTES_MAX)


def _gap(frame: Frame, first: Chain) -> int:
    """What to leave unused in the first chain so that whole pages of a frame begin with the second: there they
    may be whole too, and the guest copies them on by aligned words."""
    rest = frame.rest
    if not isinstance(rest, Fragments) or not rest.pages_whole:
        return 0
    return max(first.writable_bytes - HEADER.size - len(frame.head) - rest.lead, 0)
