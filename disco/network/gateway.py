"""Disco itself on the subnet: it says who it is (ARP), answers pings, serves DHCP and DNS, has connections into
VMs, and hands what is for the world to the sender's way out, if it has one.

What is malformed gets no answer; what is for somebody else is not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address

from disco.network import dhcp, dns, packets, tcp
from disco.network.frame import Frame
from disco.network.packets import Datagram, Ipv4
from disco.network.switch import Port

Reply = Callable[[bytes, Port], None]
Forward = Callable[[Port, Frame], None]
#: Takes a TCP segment for Disco's address; False: it is of no connection of Disco's.
Connected = Callable[[Port, tcp.Segment], bool]


class Gateway:
    """Disco's services at one address."""

    def __init__(
        self,
        *,
        link: bytes,
        address: IPv4Address,
        names: Mapping[str, IPv4Address],
        offer_for: Callable[[Port], dhcp.Offer],
        reply: Reply,
        forward: Forward,
        connected: Connected,
    ) -> None:
        """Takes its place.

        Args:
            link, address: its own.
            names: addresses by name in lower case; looked at when somebody asks.
            offer_for: what whoever is at a port is told by DHCP.
            reply: sends a frame to one port.
            forward: takes what a port has sent and Disco does not answer itself.
            connected: takes what a port has sent over a connection with Disco.
        """
        self.link = link
        self.address = address
        self._names = names
        self._offer_for = offer_for
        self._reply = reply
        self._forward = forward
        self._connected = connected

    def take(self, sender: Port, frame: Frame) -> None:
        """Answers a frame that a port has sent to Disco or to all, if it asks for something."""
        kind = packets.ethernet_type(frame.data)
        payload = frame.data[packets.ETHERNET_BYTES :]
        if kind == packets.TYPE_ARP:
            self._arp(sender, payload)
        elif kind == packets.TYPE_IPV4:
            packet = packets.read_ipv4(payload)
            if packet is not None:
                self._ipv4(sender, frame, packet)

    def _arp(self, sender: Port, payload: bytes) -> None:
        request = packets.read_arp_request(payload)
        if request is not None and request.wanted == self.address:
            answer = packets.arp_reply(request, self.link)
            self._send(sender, request.asker_link, packets.TYPE_ARP, answer)

    def _ipv4(self, sender: Port, frame: Frame, packet: Ipv4) -> None:
        is_checked = frame.offload.needs_checksum
        datagram = packets.read_udp(packet, is_checked=is_checked)
        if datagram is not None and datagram.destination_port == dhcp.SERVER_PORT:
            self._dhcp(sender, packet, datagram)
        elif frame.destination != self.link:
            return  # for all, and no question to Disco
        elif self._answered(sender, frame, packet, datagram):
            return
        else:
            self._forward(sender, frame)

    def _answered(
        self, sender: Port, frame: Frame, packet: Ipv4, datagram: Datagram | None
    ) -> bool:
        """Whether it was Disco's: of a connection, a question for its own names, or a ping."""
        if packet.destination != self.address:
            return False
        segment = tcp.read(packet)
        if segment is not None and self._connected(sender, segment):
            return True
        answer = packets.echo_reply(packet)
        if answer is not None:
            self._send(sender, frame.source, packets.TYPE_IPV4, answer)
            return True
        if datagram is None or datagram.destination_port != dns.PORT:
            return False
        return self._dns(sender, frame.source, packet, datagram)

    def _dhcp(self, sender: Port, packet: Ipv4, datagram: Datagram) -> None:
        if packet.destination not in (self.address, dhcp.EVERYBODY):
            return
        message = dhcp.read(datagram.payload)
        answered = None if message is None else dhcp.answer(message, self._offer_for(sender))
        if message is None or answered is None:
            return
        data, address = answered
        reply = Datagram(dhcp.SERVER_PORT, dhcp.CLIENT_PORT, data)
        link = packets.BROADCAST if address == dhcp.EVERYBODY else message.hardware
        self._send(sender, link, packets.TYPE_IPV4, packets.udp(self.address, address, reply))

    def _dns(self, sender: Port, link: bytes, packet: Ipv4, query: Datagram) -> bool:
        """Whether the question was answered here."""
        if self._has_way_out(sender) and not dns.is_ours(query.payload, self._names):
            return False
        response = dns.answer(query.payload, self._names)
        if response is not None:
            reply = Datagram(dns.PORT, query.source_port, response)
            answer = packets.udp(self.address, packet.source, reply)
            self._send(sender, link, packets.TYPE_IPV4, answer)
        return True

    def _has_way_out(self, port: Port) -> bool:
        return self._offer_for(port).router is not None

    def _send(self, port: Port, link: bytes, kind: int, payload: bytes) -> None:
        self._reply(packets.ethernet(link, self.link, kind, payload), port)
