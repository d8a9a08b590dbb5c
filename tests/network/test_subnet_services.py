"""Disco on the subnet: DHCP, DNS, ARP and pings; scapy asks."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.l2 import ARP, Ether

from disco.errors import ConfigError
from disco.network.frame import Frame
from disco.network.subnet import MEMBERS_MAX, Member, Subnet, link_of

GATEWAY = "10.97.0.1"
GATEWAY_LINK = "02:d1:5c:00:00:01"


class Net:
    """A subnet with two VMs; `ask` sends a packet from one and returns what comes back to it."""

    def __init__(self) -> None:
        self.now = 0
        self.warnings: list[str] = []
        self.subnet = Subnet(clock_hz=200_000_000, now=lambda: self.now, warn=self.warnings.append)
        self.got: dict[str, list[bytes]] = {}
        self.members = {name: self.join(name) for name in ("web", "db")}

    def join(self, name: str) -> Member:
        self.got[name] = []
        return self.subnet.join(name, lambda frame: self.got[name].append(frame.data))

    def ask(self, name: str, packet: Ether) -> list[Ether]:
        member = self.members[name]
        self.subnet.send(member, Frame(bytes(packet)), cycle=self.now)
        for _ in range(2):  # the question's round, and the answer's
            self.now += 100
            self.subnet.deliver(now=self.now)
        answers = [Ether(data) for data in self.got[name]]
        self.got[name].clear()
        return answers

    def link(self, name: str) -> str:
        return self.members[name].link.hex(":")


def discover(
    net: Net, name: str, kind: str, *options: object, hardware: str = "", **fixed: object
) -> Ether:
    link = hardware or net.link(name)
    return (
        Ether(src=link, dst="ff:ff:ff:ff:ff:ff")
        / IP(src="0.0.0.0", dst="255.255.255.255")
        / UDP(sport=68, dport=67)
        / BOOTP(chaddr=bytes.fromhex(link.replace(":", "")), xid=0x1234, **fixed)
        / DHCP(options=[("message-type", kind), *options, "end"])
    )


def options(answer: Ether) -> dict[str, object]:
    return {one[0]: one[1] for one in answer[DHCP].options if isinstance(one, tuple)}


def test_addresses_follow_from_the_order_of_joining():
    net = Net()
    assert [str(one.address) for one in net.subnet.members] == ["10.97.1.1", "10.97.1.2"]
    assert [one.link.hex(":") for one in net.subnet.members] == [
        "02:d1:5c:00:01:01",
        "02:d1:5c:00:01:02",
    ]


def test_the_255th_member_is_in_the_next_group():
    net = Net()
    for number in range(3, 256):
        last = net.join(f"vm{number}")
    assert str(last.address) == "10.97.2.1"
    assert last.link == link_of(last.address)
    assert MEMBERS_MAX == 64516


@pytest.mark.parametrize(
    "name", ["web", "WEB", "disco", "Disco", "", "a b", "-a", "a.b", "ä", "a" * 64]
)
def test_a_name_that_is_anothers_or_no_hosts_is_refused_and_changes_nothing(name):
    net = Net()
    with pytest.raises(ConfigError, match="on the subnet"):
        net.join(name)
    assert len(net.subnet.members) == 2
    assert str(net.join("next").address) == "10.97.1.3"


def test_a_vm_is_offered_its_address_and_gets_it():
    net = Net()
    (offer,) = net.ask("db", discover(net, "db", "discover"))
    assert (offer.src, offer.dst) == (GATEWAY_LINK, net.link("db"))
    assert (offer[IP].src, offer[IP].dst, offer[BOOTP].yiaddr) == (
        GATEWAY,
        "10.97.1.2",
        "10.97.1.2",
    )
    assert offer[BOOTP].xid == 0x1234
    assert options(offer) == {
        "message-type": 2,
        "server_id": GATEWAY,
        "subnet_mask": "255.255.0.0",
        "broadcast_address": "10.97.255.255",
        "name_server": GATEWAY,
        "hostname": b"db",
        "domain": b"disco.internal",
        "lease_time": 2**32 - 1,
    }
    wanted = (("requested_addr", "10.97.1.2"), ("server_id", GATEWAY))
    (ack,) = net.ask("db", discover(net, "db", "request", *wanted))
    assert options(ack)["message-type"] == 5


def test_a_client_that_cannot_hear_its_own_address_yet_is_answered_by_broadcast():
    net = Net()
    (offer,) = net.ask("web", discover(net, "web", "discover", flags=0x8000))
    assert (offer.dst, offer[IP].dst) == ("ff:ff:ff:ff:ff:ff", "255.255.255.255")
    assert len(net.got["db"]) == 1  # the question; the answer goes to who asked all the same


@pytest.mark.parametrize("wanted", ["10.97.1.1", "10.97.0.1", "192.168.0.1", "0.0.0.0"])
def test_a_request_for_another_address_is_refused(wanted):
    net = Net()
    (nak,) = net.ask("db", discover(net, "db", "request", ("requested_addr", wanted)))
    assert options(nak)["message-type"] == 6
    assert nak[BOOTP].yiaddr == "0.0.0.0"


def test_a_request_to_another_server_gets_no_answer():
    net = Net()
    assert net.ask("db", discover(net, "db", "request", ("server_id", "10.97.0.9"))) == []


def test_addresses_cannot_be_used_up_by_asking_under_many_names():
    net = Net()
    rng = random.Random(3)
    for _ in range(500):
        hardware = "06:" + ":".join(f"{rng.randrange(256):02x}" for _ in range(5))
        (offer,) = net.ask("web", discover(net, "web", "discover", hardware=hardware))
        assert offer[BOOTP].yiaddr == "10.97.1.1"
        net.got["db"].clear()
    (offer,) = net.ask("db", discover(net, "db", "discover"))
    assert offer[BOOTP].yiaddr == "10.97.1.2"


@pytest.mark.parametrize("kind", ["release", "decline", "offer", "ack"])
def test_messages_that_ask_for_nothing_get_nothing(kind):
    net = Net()
    assert net.ask("web", discover(net, "web", kind)) == []


def dns(net: Net, name: str, kind: str = "A", *, vm: str = "web", **fields: object) -> DNS:
    query = (
        Ether(src=net.link(vm), dst=GATEWAY_LINK)
        / IP(src=str(net.members[vm].address), dst=GATEWAY)
        / UDP(sport=4711, dport=53)
        / DNS(id=77, rd=1, qd=DNSQR(qname=name, qtype=kind), **fields)
    )
    (answer,) = net.ask(vm, query)
    assert (answer[IP].src, answer[UDP].sport, answer[UDP].dport) == (GATEWAY, 53, 4711)
    assert (answer[DNS].id, answer[DNS].qr, answer[DNS].aa) == (77, 1, 1)
    return answer[DNS]


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("db", "10.97.1.2"),
        ("DB", "10.97.1.2"),
        ("web.disco.internal", "10.97.1.1"),
        ("Web.Disco.Internal", "10.97.1.1"),
        ("disco", "10.97.0.1"),
    ],
)
def test_names_of_vms_are_addresses(name, address):
    answer = dns(Net(), name)
    assert (answer.rcode, answer.ancount, answer.an[0].rdata) == (0, 1, address)


def test_an_address_has_a_name():
    answer = dns(Net(), "2.1.97.10.in-addr.arpa", "PTR")
    assert answer.an[0].rdata == b"db.disco.internal."


@pytest.mark.parametrize(
    "name", ["nobody", "db.example.com", "disco.internal", "9.9.97.10.in-addr.arpa", "."]
)
def test_what_nobody_is_called_is_no_such_name(name):
    answer = dns(Net(), name, "PTR" if "arpa" in name else "A")
    assert (answer.rcode, answer.ancount) == (3, 0)


def test_a_name_without_a_record_of_that_kind_is_there_without_an_answer():
    """Or a resolver that asks for IPv6 first would give up."""
    answer = dns(Net(), "db", "AAAA")
    assert (answer.rcode, answer.ancount) == (0, 0)


def test_other_operations_are_not_implemented():
    assert dns(Net(), "db", opcode=2).rcode == 4


def test_a_vm_that_has_left_has_no_name():
    net = Net()
    net.subnet.leave(net.members["db"])
    assert dns(net, "db").rcode == 3
    assert str(net.join("db").address) == "10.97.1.3"


def test_disco_says_where_it_is_and_answers_pings():
    net = Net()
    source = {"hwsrc": net.link("web"), "psrc": "10.97.1.1"}
    arp = Ether(src=net.link("web"), dst="ff:ff:ff:ff:ff:ff") / ARP(op=1, pdst=GATEWAY, **source)
    (answer,) = net.ask("web", arp)
    assert (answer[ARP].op, answer[ARP].hwsrc, answer[ARP].psrc) == (2, GATEWAY_LINK, GATEWAY)
    ping = (
        Ether(src=net.link("web"), dst=GATEWAY_LINK)
        / IP(src="10.97.1.1", dst=GATEWAY)
        / ICMP()
        / b"hi"
    )
    (answer,) = net.ask("web", ping)
    assert (answer[ICMP].type, bytes(answer[ICMP].payload)) == (0, b"hi")
    assert (
        net.ask("web", Ether(bytes(arp).replace(bytes((10, 97, 0, 1)), bytes((10, 97, 1, 2)))))
        == []
    )


def test_what_is_spoilt_gets_an_answer_or_none_and_no_error():
    net, rng = Net(), random.Random(9)
    query = DNS(qd=DNSQR(qname="db"))
    whole = [
        discover(net, "web", "discover"),
        Ether(src=net.link("web"), dst=GATEWAY_LINK)
        / IP(src="10.97.1.1", dst=GATEWAY)
        / UDP(sport=9, dport=53, chksum=0)
        / query,
    ]
    for _ in range(1000):
        data = bytearray(bytes(rng.choice(whole)))
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(42, len(data))] = rng.choice([0, 0xC0, 0xFF, rng.randrange(256)])
        ip = IP(bytes(data[14 : rng.randint(42, len(data))]))
        del ip.len, ip.chksum, ip[UDP].len, ip[UDP].chksum
        for answer in net.ask("web", Ether(bytes(data[:14])) / ip):
            assert len(answer) >= 42
        net.got["db"].clear()
    assert net.warnings == []
    assert IPv4Address("10.97.1.1") == net.members["web"].address
