"""Disco's end of a TCP connection, against a naive peer over a wire that loses, repeats and swaps packets."""

from __future__ import annotations

import random

import pytest
from naive_tcp import ACK, GUEST, HOST, RST, Peer, segment

from disco.network import packets, tcp
from disco.network.tcp import Connection, State


class Wire:
    """Both ends, and simulated time."""

    def __init__(self, peer: Peer, *, seed: int = 0, trouble: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.trouble = trouble
        self.peer = peer
        self.now = 0.0
        self.to_peer: list[bytes] = []
        self.connection = Connection(
            host=HOST, guest=GUEST, mss=2000, send=self.to_peer.append, seconds=lambda: self.now
        )

    def step(self) -> None:
        self.now += 0.1
        for packet in self._carried(self.to_peer):
            self.peer.deliver(packet)
        self.peer.tick()
        for packet in self._carried(self.peer.out):
            read = packets.read_ipv4(packet)
            assert read is not None
            one = tcp.read(read)
            assert one is not None
            self.connection.deliver(one)
        self.connection.tick()

    def _carried(self, queue: list[bytes]) -> list[bytes]:
        moved = [one for one in queue if self.random.random() >= self.trouble]
        queue.clear()
        if self.random.random() < self.trouble:
            self.random.shuffle(moved)
            moved += moved[:2]
        return moved


@pytest.mark.parametrize("trouble", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(8))
def test_all_data_arrive_both_ways_in_order_and_both_ends_close(seed, trouble):
    rng = random.Random(seed)
    there, back = rng.randbytes(rng.randint(0, 40_000)), rng.randbytes(rng.randint(0, 40_000))
    wire = Wire(Peer(back, window=rng.choice([3000, 60_000])), seed=seed, trouble=trouble)
    got, rest = b"", there
    for _ in range(5000):
        size = rng.randint(0, 3000)
        wire.connection.write(rest[:size])
        rest = rest[size:]
        if not rest:
            wire.connection.finish()
        wire.step()
        if rng.random() < 0.7:
            got += wire.connection.take()
        if wire.connection.state is not State.OPEN and wire.connection.state is not State.OPENING:
            break
    assert wire.connection.state is State.CLOSED
    assert got + wire.connection.take() == back
    assert wire.peer.received == there


def test_a_port_where_nobody_listens_refuses():
    wire = Wire(Peer(b"", window=1000))
    syn = tcp.read(packets.read_ipv4(wire.to_peer[0]))
    answer = segment(RST | ACK, 0, (syn.sequence + 1) % 2**32)
    wire.connection.deliver(tcp.read(packets.read_ipv4(answer)))
    assert wire.connection.state is State.REFUSED


def test_a_guest_that_never_answers_is_given_up():
    wire = Wire(Peer(b"", window=1000), trouble=1.0)
    for _ in range(400):
        wire.step()
    assert wire.connection.state is State.RESET


def test_a_reader_that_takes_nothing_is_not_sent_more_than_there_is_room_for():
    wire = Wire(Peer(bytes(3 * tcp.BUFFER_BYTES), window=60_000))
    for _ in range(2000):
        wire.step()
    assert len(wire.connection.received) <= tcp.BUFFER_BYTES
    assert wire.connection.is_alive


def test_what_strangers_send_is_never_an_error():
    rng = random.Random(3)
    wire = Wire(Peer(b"x" * 100, window=1000))
    for _ in range(20_000):
        data = rng.randbytes(rng.choice([0, 19, 20, 24, 60, 200]))
        one = tcp.read(packets.Ipv4(GUEST[0], HOST[0], packets.PROTOCOL_TCP, data))
        if one is not None:
            wire.connection.deliver(one)
    wire.step()
