"""Headers of the packets that Disco itself reads and writes: Ethernet, ARP, IPv4, UDP, ICMP echo.

Reading is for what strangers send: anything that is not whole is None, and nothing raises. Own code of a
page, because the libraries that know every protocol are either not kept up any more (dpkt's last release
is of 2022), not free enough to be shipped (scapy, GPL), or larger than what they would save. The tests ask
scapy for its opinion.

Source: RFC 826 (ARP), 791 (IPv4), 768 (UDP), 792 (ICMP), 1071 (checksum).
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Address
from typing import NamedTuple

ETHERNET_BYTES = 14
BROADCAST = b"\xff" * 6

TYPE_IPV4 = 0x0800
TYPE_ARP = 0x0806
TYPE_VLAN = 0x8100

PROTOCOL_ICMP = 1
PROTOCOL_TCP = 6
PROTOCOL_UDP = 17

_ARP = struct.Struct(">HHBBH6s4s6s4s")
_ARP_FORM = (1, TYPE_IPV4, 6, 4)  # Ethernet and IPv4, with the lengths of their addresses
_ARP_REQUEST = 1
_ARP_REPLY = 2
_IPV4 = struct.Struct(">BBHHHBBH4s4s")
_IPV4_FRAGMENT = 0x3FFF  # more fragments, and the offset
_UDP = struct.Struct(">HHHH")
_ICMP_ECHO = 8
_TTL = 64


class Ipv4(NamedTuple):
    """An IPv4 packet that is no fragment."""

    source: IPv4Address
    destination: IPv4Address
    protocol: int
    payload: bytes


class Datagram(NamedTuple):
    """A UDP datagram."""

    source_port: int
    destination_port: int
    payload: bytes


class ArpRequest(NamedTuple):
    """A question for the link-level address of `wanted`."""

    asker_link: bytes
    asker: IPv4Address
    wanted: IPv4Address


def checksum(data: bytes) -> int:
    """The Internet checksum: the ones' complement of the ones' complement sum of 16-bit words.

    That sum is the remainder modulo 2^16 - 1 of all of the data as one number, since 2^16 leaves 1.
    """
    padded = data + bytes(len(data) % 2)
    return 0xFFFF - (int.from_bytes(padded, "big") % 0xFFFF)


def ethernet(destination: bytes, source: bytes, kind: int, payload: bytes) -> bytes:
    """A frame."""
    return destination + source + kind.to_bytes(2, "big") + payload


def ethernet_type(frame: bytes) -> int:
    """What a frame carries."""
    return int.from_bytes(frame[12:14], "big")


def network_offset(frame: bytes) -> int:
    """Where the packet begins: behind the Ethernet header and a VLAN tag, if there is one."""
    return ETHERNET_BYTES + (4 if ethernet_type(frame) == TYPE_VLAN else 0)


def read_arp_request(payload: bytes) -> ArpRequest | None:
    """A request for an IPv4 address on Ethernet."""
    if len(payload) < _ARP.size:
        return None
    *form, operation, asker_link, asker, _, wanted = _ARP.unpack_from(payload)
    if tuple(form) != _ARP_FORM or operation != _ARP_REQUEST:
        return None
    return ArpRequest(asker_link, IPv4Address(asker), IPv4Address(wanted))


def arp_reply(request: ArpRequest, link: bytes) -> bytes:
    """Says that what was asked for is at `link`."""
    return _ARP.pack(
        *_ARP_FORM,
        _ARP_REPLY,
        link,
        request.wanted.packed,
        request.asker_link,
        request.asker.packed,
    )


def read_ipv4(packet: bytes) -> Ipv4 | None:
    """A whole packet with a right header; fragments are None."""
    if len(packet) < _IPV4.size:
        return None
    first, _, length, _, fragment, _, protocol, _, source, destination = _IPV4.unpack_from(packet)
    header_bytes = (first & 0xF) * 4
    if first >> 4 != 4 or not _IPV4.size <= header_bytes <= length <= len(packet):
        return None
    if fragment & _IPV4_FRAGMENT or checksum(packet[:header_bytes]) not in (0, 0xFFFF):
        return None
    payload = packet[header_bytes:length]
    return Ipv4(IPv4Address(source), IPv4Address(destination), protocol, payload)


def ipv4(source: IPv4Address, destination: IPv4Address, protocol: int, payload: bytes) -> bytes:
    """A packet."""
    fields = (0x45, 0, _IPV4.size + len(payload), 0, 0x4000, _TTL, protocol)
    addresses = (source.packed, destination.packed)
    header = _IPV4.pack(*fields, 0, *addresses)
    return _IPV4.pack(*fields, checksum(header), *addresses) + payload


def pseudo_header(ip_header: bytes, protocol: int, length: int) -> bytes:
    """What a transport's checksum covers of the IP header in front of it."""
    if ip_header[0] >> 4 == 4:
        return ip_header[12:20] + struct.pack(">BBH", 0, protocol, length)
    return ip_header[8:40] + struct.pack(">II", length, protocol)


def read_udp(packet: Ipv4, *, is_checked: bool) -> Datagram | None:
    """The datagram in a packet; `is_checked`: its checksum needs no look, since it is not made yet."""
    if packet.protocol != PROTOCOL_UDP or len(packet.payload) < _UDP.size:
        return None
    source_port, destination_port, length, total = _UDP.unpack_from(packet.payload)
    if not _UDP.size <= length <= len(packet.payload):
        return None
    if total and not is_checked:
        header = _udp_pseudo(packet.source, packet.destination, length)
        if checksum(header + packet.payload[:length]) not in (0, 0xFFFF):
            return None
    return Datagram(source_port, destination_port, packet.payload[_UDP.size : length])


def udp(source: IPv4Address, destination: IPv4Address, datagram: Datagram) -> bytes:
    """A packet with a datagram."""
    length = _UDP.size + len(datagram.payload)
    ports = (datagram.source_port, datagram.destination_port, length)
    bare = _UDP.pack(*ports, 0) + datagram.payload
    total = checksum(_udp_pseudo(source, destination, length) + bare) or 0xFFFF
    return ipv4(source, destination, PROTOCOL_UDP, _UDP.pack(*ports, total) + datagram.payload)


def echo_reply(packet: Ipv4) -> bytes | None:
    """The answer to a ping, or None if the packet is none."""
    message = packet.payload
    if packet.protocol != PROTOCOL_ICMP or len(message) < 8 or message[0] != _ICMP_ECHO:
        return None
    bare = bytes(4) + message[4:]
    answer = bare[:2] + checksum(bare).to_bytes(2, "big") + bare[4:]
    return ipv4(packet.destination, packet.source, PROTOCOL_ICMP, answer)


def _udp_pseudo(source: IPv4Address, destination: IPv4Address, length: int) -> bytes:
    return source.packed + destination.packed + struct.pack(">BBH", 0, PROTOCOL_UDP, length)
