"""Connections of other processes into VMs: a socket for each VM, over the subnet, to a naive server there."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from naive_tcp import ACK, RST, Peer, segment

from disco.monitor.tunnels import OPEN, REFUSED, TunnelServer
from disco.network import packets, tcp
from disco.network.frame import Frame
from disco.network.subnet import Subnet


class World:
    """A VM on a subnet whose server at port 22 sends `greeting` and ends; other ports refuse."""

    def __init__(self, folder: Path, greeting: bytes) -> None:
        self.cycle = 0
        self.subnet = Subnet(clock_hz=1000, now=lambda: self.cycle, warn=pytest.fail)
        self.peers: dict[int, Peer] = {}
        self.greeting = greeting
        self.member = self.subnet.join("web", self.deliver)
        network = SimpleNamespace(member=self.member)
        self.vm = SimpleNamespace(name="web", network=network, has_ended=False)
        monitor = SimpleNamespace(subnet=self.subnet, vms=[self.vm])
        self.server = TunnelServer(monitor, folder)  # type: ignore[arg-type]
        (self.path,) = folder.glob("*/web.tcp")

    def deliver(self, frame: Frame) -> None:
        packet = packets.read_ipv4(frame.data[14:])
        one = tcp.read(packet)
        if one.destination_port != 22:
            answer = segment(RST | ACK, 0, (one.sequence + 1) % 2**32)
            ports = (one.destination_port, one.source_port)
            self.send(self.readdressed(answer, *ports))
            return
        peer = self.peers.setdefault(one.source_port, Peer(self.greeting, window=60_000))
        peer.deliver(packets.ipv4(*packet))
        self.flush(one.source_port, peer)

    def flush(self, port: int, peer: Peer) -> None:
        for packet in peer.out:
            self.send(self.readdressed(packet, 22, port))
        peer.out.clear()

    @staticmethod
    def readdressed(packet: bytes, source: int, destination: int) -> bytes:
        ports = source.to_bytes(2, "big") + destination.to_bytes(2, "big")
        return packet[:20] + ports + packet[24:]

    def send(self, packet: bytes) -> None:
        link = bytes.fromhex("02d15c000001")
        frame = packets.ethernet(link, self.member.link, packets.TYPE_IPV4, packet)
        self.subnet.send(self.member, Frame(frame), cycle=self.cycle)

    def run(self, steps: int = 40) -> None:
        for _ in range(steps):
            self.cycle += 100
            for port, peer in self.peers.items():
                peer.tick()
                self.flush(port, peer)
            self.subnet.deliver(now=self.cycle)
            self.server._next = 0.0
            self.server.poll()

    def client(self, words: bytes) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.path))
        client.settimeout(5)
        client.sendall(words)
        return client


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, b"SSH-2.0 " + bytes(9000))
    yield world
    world.server.close()


def all_of(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(1 << 16):
        data += piece
    return data


def test_a_client_has_a_connection_behind_its_first_line(world):
    client = world.client(b"22\nhello")
    world.run()
    client.shutdown(socket.SHUT_WR)
    world.run()
    assert all_of(client) == OPEN + world.greeting
    (peer,) = world.peers.values()
    assert (bytes(peer.received), peer.has_fin) == (b"hello", True)
    assert not world.server.is_attached


def test_several_clients_at_once_have_connections_of_their_own(world):
    clients = [world.client(b"22\n%d" % number) for number in range(5)]
    world.run()
    assert world.server.is_attached
    assert sorted(bytes(peer.received) for peer in world.peers.values()) == [
        b"%d" % n for n in range(5)
    ]
    for client in clients:
        client.close()
    world.run()
    assert not world.server.is_attached


def test_a_port_where_nobody_listens_is_said(world):
    client = world.client(b"23\n")
    world.run()
    assert all_of(client) == REFUSED


@pytest.mark.parametrize("words", [b"0\n", b"65536\n", b"x\n", b"1234567", b"\n", b"-1\n"])
def test_a_client_that_names_no_port_is_cut_off(world, words):
    client = world.client(words)
    world.run(3)
    assert _rest(client) == b""
    assert world.peers == {}


def _rest(client: socket.socket) -> bytes:
    try:
        return all_of(client)
    except ConnectionError:
        return b""


def test_a_vm_that_has_ended_has_no_socket_and_no_clients(world):
    client = world.client(b"22\n")
    world.run(3)
    world.vm.has_ended = True
    world.run(2)
    assert not world.path.exists()
    assert not world.server.is_attached
    _rest(client)
