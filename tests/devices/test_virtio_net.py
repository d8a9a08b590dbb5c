"""The network card: frames both ways, buffers that are too few or too small, and what a driver may not do."""

from __future__ import annotations

import random
import struct

import pytest
from virtio_driver import Driver

from disco.devices.virtio import fragments, net
from disco.devices.virtio.net import HEADER, MTU_BYTES, VirtioNet
from disco.errors import DeviceError
from disco.network.frame import FRAME_BYTES_MAX, GSO_TCPV4, Frame, Offload

LINK = bytes.fromhex("02d15c000101")
BUFFER = 0x20000
PLAIN = bytes(HEADER.size)


def frame(length: int, *, seed: int = 0, offload: Offload | None = None) -> Frame:
    data = LINK + LINK + random.Random(seed).randbytes(length - 12)
    return Frame(data, offload or Offload())


class Card:
    """A guest with a network card; `sent` has what came out of it."""

    def __init__(self, *, without: int = 0, size: int = 16) -> None:
        self.sent: list[tuple[Frame, int]] = []
        self.net = VirtioNet(link=LINK, send=lambda one, cycle: self.sent.append((one, cycle)))
        self.driver = Driver(self.net, name="virtio-net").start(size=size, without=without)
        self.receive, self.transmit = self.driver.rings

    def send(self, *parts: bytes) -> None:
        at, ranges = BUFFER, []
        for part in parts:
            self.driver.ram.write(at, part)
            ranges.append((at, len(part)))
            at += len(part)
        self.transmit.submit(ranges, [])
        self.transmit.notify()
        self.driver.finish_round()
        self.transmit.collect()

    def offer(self, *lengths: int) -> list[tuple[int, int]]:
        """A buffer of each length, a chain each; head and place."""
        places = []
        for length in lengths:
            head = self.receive.free[-1]
            place = BUFFER + 0x1000 * head
            self.receive.submit([], [(place, length)])
            places.append((head, place))
        self.receive.notify()
        self.driver.finish_round()
        return places

    def received(self, places: list[tuple[int, int]]) -> list[bytes]:
        """What lies in each buffer that came back."""
        done = self.receive.collect()
        return [self.driver.ram.read(place, done[head]) for head, place in places if head in done]


def test_the_configuration_has_the_address_and_a_mtu_of_whole_pages_of_data():
    card = Card()
    mac, status, _, mtu = struct.unpack("<6sHHH", card.net.config())
    assert (mac, status, mtu) == (LINK, 1, MTU_BYTES)
    assert (mtu - 20 - 32) % 4096 == 0  # behind IPv4 and TCP with timestamps
    assert card.driver.read(0x104) == 0x0001_0101  # the end of the address, and the status
    card.net.set_link(is_up=False)
    assert card.driver.read(0x104) == 0x0000_0101
    assert card.driver.read(0x60) == 2  # the configuration has changed


def test_a_frame_leaves_the_guest_as_it_is_however_it_is_cut():
    card, whole = Card(), frame(300).data
    card.send(PLAIN, whole)
    card.send(PLAIN[:5], PLAIN[5:] + whole[:1], whole[1:])
    assert [one.data for one, _ in card.sent] == [whole, whole]


def test_a_frame_is_announced_at_the_cycle_of_the_first_store_of_the_round():
    card = Card()
    card.driver.ram.write(BUFFER, PLAIN + frame(60).data)
    card.transmit.submit([(BUFFER, 72)], [])
    card.transmit.notify()
    first = card.driver.bus.cycle
    card.transmit.submit([(BUFFER, 72)], [])
    card.transmit.notify()
    card.driver.finish_round()
    assert [cycle for _, cycle in card.sent] == [first, first]


def test_a_frame_lies_in_as_many_buffers_as_it_needs_and_the_first_says_how_many():
    card, one = Card(), frame(1000)
    places = card.offer(400, 400, 400, 400)
    card.net.deliver(one)
    parts = card.received(places)
    assert [len(part) for part in parts] == [400, 400, 212]
    assert HEADER.unpack(parts[0][:12])[-1] == 3
    assert b"".join(parts)[12:] == one.data


def test_a_frame_waits_until_there_are_buffers_enough_and_keeps_its_order():
    card, first, second = Card(), frame(500, seed=1), frame(60, seed=2)
    card.net.deliver(first)
    card.net.deliver(second)
    places = card.offer(300)
    assert card.received(places) == []
    places += card.offer(300, 300)
    parts = card.received(places)
    assert parts[0][12:] + parts[1] == first.data
    assert parts[2][12:] == second.data


def test_a_driver_without_mergeable_buffers_gets_each_frame_in_one_chain_or_not_at_all():
    card = Card(without=net.FEATURE_MRG_RXBUF)
    card.net.deliver(frame(900, seed=1))
    card.net.deliver(frame(100, seed=2))
    (part,) = card.received(card.offer(512))
    assert HEADER.unpack(part[:12])[-1] == 1
    assert part[12:] == frame(100, seed=2).data
    assert card.net.frames_dropped == 1


def test_a_frame_longer_than_all_buffers_together_is_dropped_and_the_next_one_comes():
    card = Card(size=4)
    places = card.offer(64, 64, 64, 64)
    card.net.deliver(frame(600))
    card.net.deliver(frame(60, seed=9))
    parts = card.received(places)
    assert b"".join(parts)[12:] == frame(60, seed=9).data
    assert card.net.frames_dropped == 1


def test_what_waits_is_bounded():
    card = Card()
    for number in range(100):
        card.net.deliver(frame(60_000, seed=number))
    waiting = card.net.save().backlog
    assert sum(len(one.data) for one in waiting) <= net.BACKLOG_BYTES_MAX
    assert len(waiting) + card.net.frames_dropped == 100
    assert waiting[0] == frame(60_000, seed=0)  # the oldest stay


def test_nothing_waits_for_a_guest_without_a_driver_or_with_the_link_down():
    card = Card()
    card.net.set_link(is_up=False)
    card.net.deliver(frame(60))
    card.send(PLAIN, frame(60).data)
    assert not card.sent
    card.net.set_link(is_up=True)
    card.net.deliver(frame(60))
    card.driver.write(0x70, 0)  # the driver begins anew: what waited is gone
    card.net.deliver(frame(60))
    assert card.net.save().backlog == ()
    assert card.net.frames_dropped == 2


@pytest.mark.parametrize(
    ("paddr", "length", "expected"),
    [
        (0, 0, 0),
        (0, 4095, 0),
        (0, 4096, 1),
        (1, 8190, 0),
        (1, 8191, 1),
        (4096, 12288, 3),
        (4095, 4097, 1),
    ],
)
def test_whole_pages_of_a_buffer_are_counted(paddr, length, expected):
    assert fragments.whole_pages(paddr, length) == expected


def test_whole_pages_that_a_guest_sends_are_counted():
    card = Card()
    header = [(0x1F000, len(PLAIN)), (0x1F100, 54)]
    card.transmit.submit([*header, (0x30000, 8192), (0x33000, 100)], [])
    card.transmit.notify()
    card.driver.finish_round()
    ((sent, _),) = card.sent
    assert sent.rest.pages_whole == 2


def tcp_header(*, start: int, offset: int, segment: int, gso: int = GSO_TCPV4) -> bytes:
    return HEADER.pack(1, gso, 54, segment, start, offset, 0)


def test_an_offload_crosses_from_guest_to_guest_as_it_is():
    sender, receiver = Card(), Card()
    data = frame(9000).data
    sender.send(tcp_header(start=34, offset=16, segment=1000), data)
    ((one, _),) = sender.sent
    assert one.offload == Offload(True, 34, 16, GSO_TCPV4, 54, 1000)
    places = receiver.offer(4096, 4096, 4096)
    receiver.net.deliver(one)
    whole = b"".join(receiver.received(places))
    assert whole == HEADER.pack(1, GSO_TCPV4, 54, 1000, 34, 16, 3) + data


# Headers as (flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers), features not taken.
HOSTILE_HEADERS = {
    "sum behind the frame": ((1, 0, 0, 0, 50, 9, 0), 0, "checksum at 50 \\+ 9 in a frame of 60"),
    "sum at 65535": ((1, 0, 0, 0, 65535, 65535, 0), 0, "checksum at 65535 \\+ 65535"),
    "sum not agreed": ((1, 0, 0, 0, 34, 16, 0), net.FEATURE_CSUM, "was not negotiated"),
    "UFO": ((1, 3, 0, 100, 34, 16, 0), 0, "kind 0x3, not negotiated"),
    "unknown kind": ((1, 0x7F, 0, 100, 34, 16, 0), 0, "kind 0x7f"),
    "TSO not agreed": ((1, 1, 0, 100, 34, 16, 0), net.FEATURE_HOST_TSO4, "kind 0x1"),
    "ECN not agreed": ((1, 0x81, 0, 100, 34, 16, 0), net.FEATURE_HOST_ECN, "kind 0x81"),
    "only ECN": ((1, 0x80, 0, 100, 34, 16, 0), 0, "kind 0x80"),
    "segments of nothing": ((1, 1, 0, 0, 34, 16, 0), 0, "segments of 0 bytes"),
    "segments without sums": ((0, 1, 0, 100, 34, 16, 0), 0, "without their checksums"),
}


@pytest.mark.parametrize("name", HOSTILE_HEADERS)
def test_a_header_that_a_driver_may_not_write_is_a_device_error(name):
    fields, without, words = HOSTILE_HEADERS[name]
    card = Card(without=without)
    with pytest.raises(DeviceError, match=words):
        card.send(HEADER.pack(*fields), frame(60).data)
    assert not card.sent


@pytest.mark.parametrize("length", [0, 11, HEADER.size + FRAME_BYTES_MAX + 1])
def test_a_chain_that_holds_no_header_or_too_much_is_a_device_error(length):
    card = Card()
    readable = [(BUFFER, length)] if length else []
    card.transmit.submit(readable, [] if length else [(BUFFER, 1)])
    card.transmit.notify()
    with pytest.raises(DeviceError, match=f"has {length} readable bytes"):
        card.driver.bus.end_round()


@pytest.mark.parametrize("length", [1, 11])
def test_a_buffer_without_room_for_the_header_is_a_device_error_when_a_frame_comes(length):
    card = Card()
    card.offer(length)
    with pytest.raises(DeviceError, match=f"has {length} writable bytes"):
        card.net.deliver(frame(60))


def test_a_frame_without_an_ethernet_header_is_the_switchs_to_refuse():
    card = Card()
    card.send(PLAIN)
    assert [one.data for one, _ in card.sent] == [b""]


def naive_receive(frames: list[Frame], buffers: list[int]) -> tuple[list[bytes], int]:
    """Frames that fit into the buffers in order, and how many buffers they take."""
    taken, got = 0, []
    for one in frames:
        need, count = HEADER.size + len(one.data), 0
        while need > 0 and taken + count < len(buffers):
            need -= buffers[taken + count]
            count += 1
        if need > 0:
            break
        taken += count
        got.append(one.data)
    return got, taken


@pytest.mark.parametrize("seed", range(5))
def test_random_frames_and_buffers_arrive_as_a_naive_model_says(seed):
    rng, card = random.Random(seed), Card(size=128)
    frames: list[Frame] = []
    buffers: list[tuple[int, int, int]] = []
    for step in range(100):
        if rng.random() < 0.3:
            frames.append(frame(rng.randint(20, 5000), seed=step))
            card.net.deliver(frames[-1])
        else:
            length = rng.choice([64, 512, 1536, 4096])
            ((head, place),) = card.offer(length)
            buffers.append((head, place, length))
        if rng.random() < 0.05:
            card.driver.bus.end_round()
            card.driver.mmio.restore(card.driver.mmio.save())
    expected, used = naive_receive(frames, [length for *_, length in buffers])
    done = card.receive.collect()
    assert list(done) == [head for head, *_ in buffers[:used]]
    stream = b"".join(card.driver.ram.read(place, done[head]) for head, place, _ in buffers[:used])
    at, got = 0, []
    while at < len(stream):
        data = frames[len(got)].data
        got.append(stream[at + HEADER.size : at + HEADER.size + len(data)])
        at += HEADER.size + len(data)
    assert got == expected
    assert expected


def test_chains_put_back_are_yielded_again():
    card = Card()
    card.offer(100, 100)
    queue = card.driver.mmio._queues[0]
    heads = [chain.head for chain in queue.chains()]
    queue.untake(2)
    assert [chain.head for chain in queue.chains()] == heads != []


# Frames whose rest stays with the sender until it is known who gets them.

PAGE = 4096
PAGES_AT = 0x30000


def lent_frame(card: Card, head: bytes, *pages: tuple[int, int]) -> Frame:
    """What comes out of a card whose guest sends `head` and then these ranges."""
    card.driver.ram.write(0x1F000, PLAIN + head)
    card.transmit.submit([(0x1F000, len(PLAIN + head)), *pages], [])
    card.transmit.notify()
    card.driver.finish_round()
    card.transmit.collect()
    return card.sent[-1][0]


def filled(card: Card, *, seed: int, length: int = 16 * PAGE) -> None:
    card.driver.ram.write(PAGES_AT, random.Random(seed).randbytes(length))


@pytest.mark.parametrize("before", [0, 100])
def test_whole_pages_of_a_frame_begin_with_a_buffer_of_their_own(before):
    sender, receiver = Card(), Card()
    filled(sender, seed=1)
    head = frame(66).data
    one = lent_frame(sender, head, (PAGES_AT + PAGE - before, before + 2 * PAGE + 7))
    data = one.data
    places = receiver.offer(PAGE, PAGE, PAGE, PAGE)
    receiver.net.deliver(one)
    parts = receiver.received(places)
    assert [len(part) for part in parts] == [12 + 66 + before, PAGE, PAGE, 7]
    assert HEADER.unpack(parts[0][:12])[-1] == 4
    assert b"".join(parts)[12:] == data


def test_a_frame_that_fits_only_without_a_gap_is_not_lost():
    sender, receiver = Card(), Card(size=4)
    filled(sender, seed=2)
    one = lent_frame(sender, frame(66).data, (PAGES_AT, 3 * PAGE + 1000))
    data = one.data
    places = receiver.offer(PAGE, PAGE, PAGE, PAGE)
    receiver.net.deliver(one)
    assert b"".join(receiver.received(places))[12:] == data
    assert receiver.net.frames_dropped == 0


def test_frames_arrive_whole_however_both_ends_cut_their_buffers():
    rng = random.Random(7)
    for seed in range(60):
        sender, receiver = Card(), Card(size=32)
        filled(sender, seed=seed)
        ranges, at = [], PAGES_AT
        for _ in range(rng.randint(1, 5)):
            at = (at + PAGE - 1) // PAGE * PAGE if rng.random() < 0.7 else at + rng.randint(0, 999)
            length = rng.choice([PAGE, 2 * PAGE, rng.randint(1, 5000)])
            ranges.append((at, length))
            at += length
        one = lent_frame(sender, frame(rng.choice([54, 66, 300])).data, *ranges)
        data = one.data
        if rng.random() < 0.5:
            one.settle()
            filled(sender, seed=seed + 1000)  # its sender has the buffers back
        places = receiver.offer(
            *[rng.choice([PAGE, 1536, rng.randint(200, PAGE)]) for _ in range(31)]
        )
        receiver.net.deliver(one)
        parts = receiver.received(places)
        assert HEADER.unpack(parts[0][:12])[-1] == len(parts)
        assert b"".join(parts)[12:] == data


def test_a_buffer_that_is_no_ram_stops_its_sender_before_anything_is_sent():
    card = Card()
    card.transmit.submit([(0x1F000, 78), (PAGES_AT, PAGE), (1 << 40, PAGE)], [])
    card.transmit.notify()
    with pytest.raises(DeviceError, match="buffer: physical range 0x10000000000"):
        card.driver.finish_round()
    assert card.sent == []


def test_a_frame_that_waits_is_a_copy():
    sender, receiver = Card(), Card()
    filled(sender, seed=3)
    one = lent_frame(sender, frame(66).data, (PAGES_AT, 2 * PAGE))
    data = one.data
    receiver.net.deliver(one)
    filled(sender, seed=4)
    assert receiver.net.save().backlog == (Frame(data),)
    assert b"".join(receiver.received(receiver.offer(PAGE, PAGE, PAGE)))[12:] == data
    assert receiver.net.account.pages_copied_late == 2
