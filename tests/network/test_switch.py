"""Who gets a frame, and in which order."""

from __future__ import annotations

import random

import pytest

from disco.network.frame import Frame
from disco.network.packets import BROADCAST
from disco.network.switch import LEARNED_MAX, Port, Switch

STRANGER = bytes.fromhex("0a0000000001")


def link(number: int) -> bytes:
    return bytes((2, 0, 0, 0, 0, number))


class Net:
    """A switch with some ports; `got` has what arrived where, in order."""

    def __init__(self, count: int = 3) -> None:
        self.got: list[tuple[str, bytes]] = []
        self.switch = Switch()
        self.ports = [self.open(number) for number in range(count)]

    def open(self, number: int) -> Port:
        name = f"p{number}"
        return self.switch.open(name, link(number), lambda f: self.got.append((name, f.data[12:])))

    def send(self, sender: int, to: bytes, *, source: bytes | None = None, cycle: int = 0) -> None:
        data = to + (source or link(sender)) + bytes((sender, cycle % 256))
        self.switch.send(self.ports[sender], Frame(data), cycle=cycle)

    def receivers(self) -> list[str]:
        """Who got something since the last time."""
        self.switch.deliver(before=1 << 60)
        got, self.got = [name for name, _ in self.got], []
        return got


def test_a_frame_for_a_port_goes_there_and_one_for_all_to_all_others():
    net = Net()
    net.send(0, link(2))
    assert net.receivers() == ["p2"]
    net.send(0, BROADCAST)
    assert net.receivers() == ["p1", "p2"]
    net.send(0, link(0))  # to oneself: the wire has no other end
    assert net.receivers() == []


def test_a_strange_address_goes_everywhere_until_it_has_been_seen():
    net = Net()
    net.send(0, STRANGER)
    assert net.receivers() == ["p1", "p2"]
    net.send(1, link(0), source=STRANGER)
    net.send(0, STRANGER, cycle=1)
    assert net.receivers() == ["p0", "p1"]


def test_an_address_that_moves_is_found_where_it_was_seen_last():
    net = Net()
    net.send(1, link(0), source=STRANGER)
    net.send(2, link(0), source=STRANGER, cycle=1)
    net.send(0, STRANGER, cycle=2)
    assert net.receivers() == ["p0", "p0", "p2"]


def test_nobody_gets_frames_of_a_port_by_sending_under_its_address():
    net = Net()
    net.send(1, link(2), source=link(0))
    net.send(2, link(0), cycle=1)
    assert net.receivers() == ["p2", "p0"]


def test_invented_addresses_push_out_only_those_of_the_same_port():
    net = Net()
    net.send(2, link(0), source=STRANGER)
    for number in range(3 * LEARNED_MAX):
        net.send(1, link(0), source=b"\x06" + number.to_bytes(5, "big"))
    net.receivers()
    net.send(0, STRANGER)
    net.send(0, b"\x06" + (3 * LEARNED_MAX - 1).to_bytes(5, "big"), cycle=1)
    net.send(0, b"\x06" + (0).to_bytes(5, "big"), cycle=2)  # forgotten: to all
    assert net.receivers() == ["p2", "p1", "p1", "p2"]
    assert len(net.ports[1].learned) == LEARNED_MAX


@pytest.mark.parametrize("data", [b"", bytes(13), BROADCAST + b"\x01" + bytes(7)])
def test_what_is_no_frame_goes_nowhere_and_is_counted(data):
    net = Net()
    net.switch.send(net.ports[0], Frame(data), cycle=0)
    assert net.receivers() == []
    assert net.ports[0].traffic.frames_malformed == 1
    assert net.ports[0].traffic.frames_sent == 0


@pytest.mark.parametrize("seed", range(5))
def test_delivery_is_in_the_order_of_cycle_and_port_whatever_order_they_came_in(seed):
    rng = random.Random(seed)
    sent = [(rng.randrange(50), rng.randrange(3)) for _ in range(200)]
    arrivals = []
    for _ in range(2):
        net = Net(4)
        # Frames of one port come in the order of its clock; those of different ports mix.
        waiting = {port: sorted(one for one in sent if one[1] == port) for port in range(3)}
        while any(waiting.values()):
            port = rng.choice([number for number, rest in waiting.items() if rest])
            net.send(port, link(3), cycle=waiting[port].pop(0)[0])
        net.switch.deliver(before=50)
        arrivals.append([tuple(data) for _, data in net.got])
    assert arrivals[0] == arrivals[1]
    assert [(cycle, port) for port, cycle in arrivals[0]] == sorted(sent)


def test_a_frame_waits_for_the_end_of_its_round():
    net = Net()
    net.send(0, link(1), cycle=99)
    net.send(0, link(2), cycle=100)
    net.switch.deliver(before=100)
    assert [name for name, _ in net.got] == ["p1"]
    assert net.switch.has_waiting
    net.switch.deliver(before=200)
    assert [name for name, _ in net.got] == ["p1", "p2"]
    assert not net.switch.has_waiting


def test_what_a_port_sent_arrives_though_it_has_gone_and_nothing_goes_to_it():
    net = Net()
    net.send(0, link(1), source=STRANGER)
    net.switch.close(net.ports[0])
    net.send(1, link(0), cycle=1)
    net.send(2, STRANGER, cycle=2)
    assert net.receivers() == ["p1", "p2", "p1"]  # addresses of nobody, so to all the others


def test_counts_are_of_frames_and_bytes_each_way():
    net = Net()
    net.send(0, BROADCAST)
    net.receivers()
    sender, receiver = net.ports[0].traffic, net.ports[1].traffic
    assert (sender.frames_sent, sender.bytes_sent, sender.frames_received) == (1, 14, 0)
    assert (receiver.frames_sent, receiver.frames_received, receiver.bytes_received) == (0, 1, 14)
