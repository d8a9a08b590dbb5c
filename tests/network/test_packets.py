"""Headers, checksums and segments; scapy has the second opinion."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from disco.network import packets
from disco.network.frame import (
    GSO_ECN,
    GSO_TCPV4,
    GSO_TCPV6,
    Frame,
    Offload,
    finished,
    segments,
)
from disco.network.packets import Datagram

HERE = IPv4Address("10.97.0.1")
THERE = IPv4Address("10.97.1.2")
LINK = bytes.fromhex("02d15c000001")


def naive_checksum(data: bytes) -> int:
    """RFC 1071 by the word, carries added at the end."""
    padded = data + bytes(len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def test_checksums_are_those_of_adding_words():
    rng = random.Random(1)
    for length in [0, 1, 2, 3, 20, 1499, 1500, 60_000]:
        data = rng.randbytes(length)
        # The two zeros of ones' complement are the same sum.
        assert (packets.checksum(data) - naive_checksum(data)) % 0xFFFF == 0
    assert packets.checksum(b"\xff" * 100) in (0, 0xFFFF)


def test_what_we_write_is_what_scapy_reads():
    packet = IP(packets.udp(HERE, THERE, Datagram(53, 4711, b"answer!")))
    assert (packet.src, packet.dst, packet.ttl) == (str(HERE), str(THERE), 64)
    assert (packet[UDP].sport, packet[UDP].dport, bytes(packet[UDP].payload)) == (
        53,
        4711,
        b"answer!",
    )
    given = packet.chksum, packet[UDP].chksum
    del packet.chksum, packet[UDP].chksum
    made = IP(bytes(packet))
    assert (made.chksum, made[UDP].chksum) == given


def test_an_echo_is_answered_with_the_same_data():
    request = packets.read_ipv4(
        bytes(IP(src=str(THERE), dst=str(HERE)) / ICMP(id=7, seq=9) / b"data")
    )
    answer = IP(packets.echo_reply(request))
    assert (answer.src, answer.dst, answer[ICMP].type) == (str(HERE), str(THERE), 0)
    assert (answer[ICMP].id, answer[ICMP].seq, bytes(answer[ICMP].payload)) == (7, 9, b"data")
    assert packets.checksum(bytes(answer[ICMP])) in (0, 0xFFFF)


def test_an_arp_request_is_read_and_answered():
    asked = bytes(ARP(op=1, hwsrc="02:00:00:00:00:09", psrc=str(THERE), pdst=str(HERE)))
    request = packets.read_arp_request(asked)
    assert (request.asker, request.wanted) == (THERE, HERE)
    answer = ARP(packets.arp_reply(request, LINK))
    assert (answer.op, answer.hwsrc, answer.psrc) == (2, LINK.hex(":"), str(HERE))
    assert (answer.hwdst, answer.pdst) == ("02:00:00:00:00:09", str(THERE))


GOOD = bytes(IP(src=str(THERE), dst=str(HERE)) / UDP(sport=1, dport=53) / b"question")

MALFORMED_PACKETS = {
    "nothing": b"",
    "half a header": GOOD[:19],
    "version 6": b"\x65" + GOOD[1:],
    "header of 16 bytes": b"\x44" + GOOD[1:],
    "header longer than the packet": b"\x4f" + GOOD[1:],
    "longer than it is": GOOD[:-1],
    "a wrong checksum": GOOD[:8] + b"\x01" + GOOD[9:],
    "a fragment": bytes(IP(src=str(THERE), dst=str(HERE), flags="MF") / UDP() / b"x"),
    "a later fragment": bytes(IP(src=str(THERE), dst=str(HERE), frag=1) / b"xxxxxxxx"),
}


@pytest.mark.parametrize("name", MALFORMED_PACKETS)
def test_a_malformed_packet_is_none(name):
    assert packets.read_ipv4(GOOD) is not None
    assert packets.read_ipv4(MALFORMED_PACKETS[name]) is None


def test_bytes_behind_a_packet_are_no_part_of_it():
    """A short frame is padded to 60 bytes."""
    assert packets.read_ipv4(GOOD + bytes(20)) == packets.read_ipv4(GOOD)


@pytest.mark.parametrize("length", [0, 7, 17, 100])
def test_a_datagram_of_another_length_than_it_says_is_none(length):
    packet = (
        IP(src=str(THERE), dst=str(HERE))
        / UDP(sport=1, dport=53, len=length, chksum=0)
        / b"12345678"
    )
    assert packets.read_udp(packets.read_ipv4(bytes(packet)), is_checked=False) is None


def test_a_datagram_with_a_wrong_sum_is_none_unless_the_sum_is_not_made_yet():
    packet = IP(src=str(THERE), dst=str(HERE)) / UDP(sport=1, dport=53, chksum=0x1234) / b"x"
    read = packets.read_ipv4(bytes(packet))
    assert packets.read_udp(read, is_checked=False) is None
    assert packets.read_udp(read, is_checked=True) == Datagram(1, 53, b"x")


def test_random_bytes_are_read_without_an_error():
    rng = random.Random(5)
    for _ in range(5000):
        data = bytearray(GOOD)
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        read = packets.read_ipv4(bytes(data[: rng.randrange(len(data) + 1)]))
        if read is not None:
            packets.read_udp(read, is_checked=rng.random() < 0.5)
            packets.echo_reply(read)
        packets.read_arp_request(rng.randbytes(rng.randrange(40)))


def tcp_frame(version: int, length: int, flags: str) -> bytes:
    """A frame with right checksums, by scapy."""
    ip = (
        IP(src="10.97.1.1", dst="10.97.1.2", id=65530)
        if version == 4
        else IPv6(src="fe80::1", dst="fe80::2")
    )
    options = [("Timestamp", (1, 2)), ("NOP", None), ("NOP", None)]
    tcp = TCP(sport=1, dport=2, seq=2**32 - 1000, flags=flags, options=options)
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / ip / tcp / bytes(length))


def unsummed(data: bytes, version: int) -> tuple[bytes, int]:
    """The frame with only the sum of the pseudo header where the checksum will be."""
    start = 34 if version == 4 else 54
    network = data[14:start]
    pseudo = packets.pseudo_header(network, packets.PROTOCOL_TCP, len(data) - start)
    field = (0xFFFF - packets.checksum(pseudo)).to_bytes(2, "big")
    return data[: start + 16] + field + data[start + 18 :], start


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("length", [0, 1, 1001])
def test_a_checksum_left_to_the_card_is_filled_in(version, length):
    whole = tcp_frame(version, length, "PA")
    data, start = unsummed(whole, version)
    assert data != whole
    done = finished(Frame(data, Offload(True, start, 16)))
    assert done.data == whole
    assert not done.offload.needs_checksum


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("length", "size"), [(3000, 1000), (2999, 1000), (100, 1000), (5, 1)])
def test_segments_are_whole_tcp_packets_that_make_up_the_data(version, length, size):
    layer = IP if version == 4 else IPv6
    data, start = unsummed(tcp_frame(version, length, "FPAC"), version)
    kind = GSO_TCPV4 if version == 4 else GSO_TCPV6
    cut = segments(Frame(data, Offload(True, start, 16, kind | GSO_ECN, start + 32, size)))
    assert len(cut) == -(-length // size)
    taken = 0
    for number, one in enumerate(cut):
        packet = Ether(one.data)
        assert packet[TCP].seq == (2**32 - 1000 + taken) % 2**32
        assert ("F" in packet[TCP].flags) == ("P" in packet[TCP].flags) == (one is cut[-1])
        assert ("C" in packet[TCP].flags) == (number == 0)
        taken += len(packet[TCP].payload)
        given = packet[TCP].chksum
        del packet[TCP].chksum
        if version == 4:
            assert packet[IP].id == (65530 + number) % 65536
            header = bytes(packet[IP])[:20]
            del packet[IP].chksum, packet[IP].len
            assert bytes(packet[IP])[:20] == header
        else:
            assert packet[IPv6].plen == len(bytes(packet[IPv6].payload))
        assert Ether(bytes(packet))[TCP].chksum == given
        assert layer in packet
    assert taken == length


@pytest.mark.parametrize(
    ("data", "offload"),
    [
        (bytes(60), Offload(True, 50, 2, GSO_TCPV4, 0, 10)),  # no room for a TCP header
        (bytes(60), Offload(True, 20, 16, GSO_TCPV4, 0, 10)),  # nor for an IP header
        (
            bytes(46) + b"\xff" + bytes(33),
            Offload(True, 34, 16, GSO_TCPV4, 0, 10),
        ),  # 60 bytes of it
    ],
)
def test_what_only_says_to_be_tcp_has_no_segments(data, offload):
    assert segments(Frame(data, offload)) == []


def test_a_frame_with_nothing_left_to_do_is_its_own_segment():
    data = bytes(Ether() / Raw(b"x"))
    assert segments(Frame(data)) == [Frame(data)]
