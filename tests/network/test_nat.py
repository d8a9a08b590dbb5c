"""The way out: what a VM is told, what goes to passt and what comes back, and what becomes of one that ends."""

from __future__ import annotations

import os
import socket
import sys
import textwrap
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether

from disco.cli import vms
from disco.errors import ConfigError
from disco.monitor.accounting import Pace
from disco.network import packets
from disco.network.frame import GSO_TCPV4, Frame, Offload
from disco.network.nat import Nat, PublishedPort, has_passt
from disco.network.subnet import Member, Subnet

GATEWAY_LINK = "02:d1:5c:00:00:01"

#: A passt that sends back each frame that it gets, in pieces, and ends at one of 14 bytes.
ECHO = f"""\
#!{sys.executable}
import socket, struct, sys
words = sys.argv[1:]
print("options", *words, file=sys.stderr, flush=True)
wire = socket.socket(fileno=int(words[words.index("-F") + 1]))
def take(count):
    data = b""
    while len(data) < count:
        part = wire.recv(count - len(data))
        if not part:
            sys.exit(0)
        data += part
    return data
while True:
    head = take(4)
    data = take(*struct.unpack(">I", head))
    if len(data) == 14:
        print("had enough", file=sys.stderr)
        sys.exit(1)
    for at in range(0, len(head + data), 1000):
        wire.sendall((head + data)[at:at + 1000])
"""


class Net:
    """A subnet with a VM that has a way out, through an echo, and one that has none."""

    def __init__(self, nat: Nat | None = None) -> None:
        self.warnings: list[str] = []
        self.got: list[bytes] = []
        self.now = 0
        self.subnet = Subnet(clock_hz=1000, now=lambda: self.now, warn=self.warnings.append)
        self.web = self.subnet.join(
            "web", lambda frame: self.got.append(frame.data), nat=nat or Nat()
        )
        self.db = self.subnet.join("db", lambda frame: self.got.append(frame.data))

    def send(self, member: Member, packet: object, offload: Offload | None = None) -> None:
        self.subnet.send(member, Frame(bytes(packet), offload or Offload()), cycle=self.now)
        self.step()

    def step(self) -> None:
        self.now += 1
        self.subnet.deliver(now=self.now)

    def back(self, count: int) -> list[bytes]:
        """Frames that come back, at least so many."""
        for _ in range(100):
            if len(self.got) >= count or not self.subnet.has_way_out:
                break
            self.subnet.take_from_outside(wait_seconds=0.1)
            self.step()
        got, self.got = self.got, []
        return got


@pytest.fixture(autouse=True)
def echo(tmp_path, monkeypatch):
    """passt is the echo."""
    program = tmp_path / "passt"
    program.write_text(textwrap.dedent(ECHO))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)


@pytest.fixture
def net():
    net = Net()
    yield net
    for member in net.subnet.members:
        net.subnet.leave(member)


def outward(data: bytes = b"x", to: str = "192.0.2.1") -> Ether:
    return (
        Ether(src="02:d1:5c:00:01:01", dst=GATEWAY_LINK)
        / IP(src="10.97.1.1", dst=to)
        / UDP()
        / data
    )


def test_frames_for_the_world_go_out_and_come_back_to_who_sent_them(net):
    sent = [outward(bytes(length)) for length in (1, 5000, 60_000)]
    for packet in sent:
        net.send(net.web, packet)
    assert net.back(3) == [bytes(packet) for packet in sent]


def test_a_vm_without_a_way_out_sends_into_the_void(net):
    packet = outward()
    packet.src, packet[IP].src = "02:d1:5c:00:01:02", "10.97.1.2"
    net.send(net.db, packet)
    net.send(net.web, outward())
    assert net.back(1) == [bytes(outward())]


def test_what_is_for_the_subnet_does_not_go_out(net):
    for to in ("ff:ff:ff:ff:ff:ff", "02:d1:5c:00:01:09"):
        packet = outward()
        packet.dst = to
        net.send(net.web, packet)
    net.got.clear()  # the other VM has heard them
    net.send(net.web, outward(b"last"))
    assert net.back(1) == [bytes(outward(b"last"))]


def test_large_tcp_packets_are_cut_on_the_way_out(net):
    ip = IP(src="10.97.1.1", dst="192.0.2.1")
    data = bytes(
        Ether(src="02:d1:5c:00:01:01", dst=GATEWAY_LINK) / ip / TCP(flags="PA") / bytes(2500)
    )
    net.send(net.web, data, Offload(True, 34, 16, GSO_TCPV4, 54, 1000))
    cut = [Ether(one) for one in net.back(3)]
    assert [len(one[TCP].payload) for one in cut] == [1000, 1000, 500]
    for one in cut:
        tcp = bytes(one[TCP])
        assert packets.checksum(packets.pseudo_header(bytes(one[IP])[:20], 6, len(tcp)) + tcp) in (
            0,
            0xFFFF,
        )


@pytest.mark.parametrize(
    ("name", "is_ours"), [("db", True), ("x.disco.internal", True), ("example.com", False)]
)
def test_only_names_that_are_not_ours_are_asked_outside(net, name, is_ours):
    query = Ether(src="02:d1:5c:00:01:01", dst=GATEWAY_LINK) / IP(src="10.97.1.1", dst="10.97.0.1")
    query = query / UDP(sport=4711, dport=53) / DNS(qd=DNSQR(qname=name))
    net.send(net.web, query)
    net.step()
    (answer,) = net.back(1)
    assert (answer != bytes(query)) == is_ours


def test_only_a_vm_with_a_way_out_is_told_of_a_router(net):
    for member, router in ((net.web, "10.97.0.1"), (net.db, None)):
        link = member.link.hex(":")
        net.send(
            member,
            Ether(src=link, dst="ff:ff:ff:ff:ff:ff")
            / IP(src="0.0.0.0", dst="255.255.255.255")
            / UDP(sport=68, dport=67)
            / BOOTP(chaddr=member.link)
            / DHCP(options=[("message-type", "discover"), "end"]),
        )
        net.step()
        offers = [Ether(data) for data in net.got if Ether(data).dst == link]
        net.got.clear()
        options = dict(one for one in offers[0][DHCP].options if isinstance(one, tuple))
        assert options.get("router") == router


def test_a_way_out_that_ends_is_told_once_and_the_vm_goes_on(net):
    net.send(net.web, Ether(src="02:d1:5c:00:01:01", dst=GATEWAY_LINK) / b"")
    net.subnet._ways_out[net.web.port].send(Frame(bytes(14)))
    for _ in range(100):
        net.subnet.take_from_outside(wait_seconds=0.05)
        if net.warnings:
            break
    net.send(net.web, outward())
    net.subnet.take_from_outside(wait_seconds=0)
    assert net.warnings == ["VM 'web': its way out has ended: had enough"]


def test_published_ports_are_open_on_the_loopback_only_and_the_hosts_own_is_closed_to_vms(tmp_path):
    net = Net(Nat(publish=(PublishedPort(8080, 80), PublishedPort(2222, 22))))
    way = net.subnet._ways_out[net.web.port]
    net.send(net.web, outward())
    net.back(1)
    said = way._end()
    net.subnet.leave(net.web)
    assert "-t 127.0.0.1/8080:80 -t 127.0.0.1/2222:22" in said
    assert "--no-map-gw" in said
    assert "-a 10.97.1.1 -n 255.255.0.0 -g 10.97.0.1" in said


def test_a_host_without_passt_is_told_what_to_install(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    net = Subnet(clock_hz=1000, now=lambda: 0, warn=print)
    with pytest.raises(ConfigError, match=r"VM 'web': .*'apt-get install passt'"):
        net.join("web", lambda _frame: None, nat=Nat())
    assert net.members == ()


def test_a_port_of_the_host_that_somebody_has_is_told_before_anything_starts():
    net = Subnet(clock_hz=1000, now=lambda: 0, warn=print)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"VM 'web': port {port} of the host .*in use"):
            net.join("web", lambda _frame: None, nat=Nat(publish=(PublishedPort(port, 80),)))
    assert net.members == ()


WISHES = vms.parse(["web=default", "db=default"], count=1, vcpus=1, memory_mib=128)


def test_ports_are_published_by_vm():
    ports = vms.published(["web:8080:80", "db:1:2", "web:3:4"], WISHES)
    assert ports == {
        "web": (PublishedPort(8080, 80), PublishedPort(3, 4)),
        "db": (PublishedPort(1, 2),),
    }
    assert vms.published(["5:6"], WISHES[:1]) == {"web": (PublishedPort(5, 6),)}


@pytest.mark.parametrize(
    "words",
    [["80"], ["5:6"], ["nobody:5:6"], ["web:5:6:7"], ["web::6"], ["web:a:6"], ["web:0:6"], ["web:5:65536"],
     ["web:5:6", "db:5:7"], [""], [":5:6"], ["web:-1:6"]],
)  # fmt: skip
def test_a_port_that_cannot_be_published_is_refused(words):
    with pytest.raises(ConfigError, match="publish"):
        vms.published(words, WISHES)


def test_simulated_time_waits_for_the_wall_and_does_not_make_up_for_what_it_lost(monkeypatch):
    wall = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: wall)
    pace = Pace()
    assert pace.ahead_seconds(5.0) == 0
    assert pace.ahead_seconds(7.0) == 2.0  # nothing to do for two seconds: they take two
    wall = 110.0
    assert pace.ahead_seconds(8.0) == 0  # it fell behind by seven
    assert pace.ahead_seconds(8.5) == 0.5


def _host_address() -> str:
    """The address under which others reach this host, or "" if there is none; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


class _Host(ThreadingHTTPServer):
    """Serves /word, and /end as soon as `is_done`."""

    is_done = False


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        is_there = self.path == "/word" or self.server.is_done
        self.send_response(200 if is_there else 404)
        self.end_headers()
        self.wfile.write(b"from the host" if is_there else b"")

    def log_message(self, *_words: object) -> None:
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("debian")
def test_debian_reaches_the_host_and_is_reached_through_a_published_port(disco, tmp_path):
    (tmp_path / "passt").unlink()  # the real one
    if not has_passt() or not (host := _host_address()):
        pytest.skip("needs passt and a route to somewhere")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with _Host(("", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        threading.Thread(target=_ask_until_answered, args=(server, port), daemon=True).start()
        base = f"http://{host}:{server.server_address[1]}"
        script = (
            f"wget -q -O word {base}/word && cat word; echo; httpd -h /root;"
            f" until wget -q -O - {base}/end; do sleep 0.5; done"
        )
        words = ("run", "--publish", f"{port}:80", "--wall-timeout", "240")
        done = disco(*words, "--", "sh", "-c", script)
        server.shutdown()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "vm1 | from the host" in done.stdout.splitlines()
    assert server.is_done


def _ask_until_answered(server: _Host, port: int) -> None:
    while not server.is_done:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/word", timeout=5) as answer:
                server.is_done = answer.read() == b"from the host"
        except OSError:
            time.sleep(0.5)
