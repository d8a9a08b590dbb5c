"""The virtual subnet of a machine: every VM with a network card is on it, under its own name.

    10.97.0.1   02:d1:5c:00:00:01   Disco: DHCP, DNS, answers pings; its name is "disco"
    10.97.1.1   02:d1:5c:00:01:01   the first VM on the subnet, and so on in the order of creation

Addresses follow from that order alone. A name is good with or without the domain `disco.internal`.

A VM may have a way out to the world (`nat`), which answers in Disco's name.

Frames wait for the end of the round in which they were sent (`switch`); Disco's own answers are sent at
that moment, so they arrive a round later.
"""

from __future__ import annotations

import re
import select
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from disco.errors import ConfigError
from disco.network import dhcp, dns, packets, tcp
from disco.network.capture import Capture
from disco.network.frame import Frame
from disco.network.gateway import Gateway
from disco.network.nat import Nat, WayOut
from disco.network.switch import Port, Switch, Traffic

NETWORK = IPv4Network("10.97.0.0/16")
GATEWAY = NETWORK[1]
GATEWAY_NAME = "disco"
_FIRST = 0x0101  # the first VM's address within the network
_PER_GROUP = 254  # addresses x.1 to x.254 of each 256
#: Addresses from 10.97.1.1 to 10.97.254.254.
MEMBERS_MAX = 254 * _PER_GROUP

#: Ports of Disco's ends of connections; the host's own ones, which a way out uses, are above.
_HOST_PORTS = range(1024, 32768)
#: Data in a segment to Disco, as between VMs.
_SEGMENT_BYTES = 15 * 4096

_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_LINK_PREFIX = bytes.fromhex("02d15c00")  # locally administered


@dataclass(frozen=True, eq=False)
class Member:
    """A VM on the subnet.

    Attributes:
        name: of the VM.
        link: link-level address, 6 bytes.
        address: IPv4 address.
        port: its place at the switch.
    """

    name: str
    link: bytes
    address: IPv4Address
    port: Port

    @property
    def traffic(self) -> Traffic:
        """What went through its port."""
        return self.port.traffic


class Subnet:
    """See this file's head."""

    def __init__(
        self, *, clock_hz: int, now: Callable[[], int], warn: Callable[[str], None]
    ) -> None:
        """Disco is its first member.

        Args:
            clock_hz: turns cycles into time for captures.
            now: simulated time in cycles.
            warn: gets what a user should know though the run goes on.
        """
        self._warn = warn
        self._clock_hz = clock_hz
        self._now = now
        self._members: dict[Port, Member] = {}
        self._names: dict[str, IPv4Address] = {GATEWAY_NAME: GATEWAY}
        self._joined = 0
        self._capture: Capture | None = None
        self._switch = Switch(watch=self._watch)
        self._port = self._switch.open(GATEWAY_NAME, link_of(GATEWAY), lambda _frame: None)
        self._gateway = Gateway(
            link=self._port.link,
            address=GATEWAY,
            names=self._names,
            offer_for=self._offer_for,
            reply=self._reply,
            forward=self._forward,
            connected=self._take_segment,
        )
        self._connections: dict[tuple[Port, int, int], tcp.Connection] = {}
        self._connected = 0
        self._ways_out: dict[Port, WayOut] = {}

    @property
    def members(self) -> tuple[Member, ...]:
        """Who is on it now."""
        return tuple(self._members.values())

    @property
    def has_waiting(self) -> bool:
        """Whether a frame waits for the end of its round."""
        return self._switch.has_waiting

    def join(
        self, name: str, deliver: Callable[[Frame], None], *, nat: Nat | None = None
    ) -> Member:
        """Gives a VM its place and its addresses.

        Args:
            name: of the VM.
            deliver: takes the frames that are for it.
            nat: its way out, or None if it has none.

        Raises:
            ConfigError: the name cannot be a host's, or is another's but for case; or all addresses
                have been given; or there is no way out.
        """
        if not _HOST_NAME.fullmatch(name):
            raise ConfigError(
                f"VM '{name}': on the subnet a name of letters, digits and hyphens is possible"
            )
        if name.lower() in self._names:
            raise ConfigError(
                f"VM '{name}': on the subnet a name is possible that differs from"
                f" {', '.join(repr(one) for one in self._names)} in more than case"
            )
        if self._joined == MEMBERS_MAX:
            raise ConfigError(f"VM '{name}': the subnet has given all {MEMBERS_MAX} addresses")
        group, place = divmod(self._joined, _PER_GROUP)
        address = NETWORK[_FIRST + group * 256 + place]
        way_out = None if nat is None else self._start(name, address, nat)
        port = self._switch.open(name, link_of(address), deliver)
        if way_out is not None:
            self._ways_out[port] = way_out
        member = Member(name, port.link, address, port)
        self._joined += 1
        self._members[port] = member
        self._names[name.lower()] = address
        return member

    def leave(self, member: Member) -> None:
        """Takes a VM's place and name away; its addresses are nobody's from then on."""
        self._switch.close(member.port)
        way_out = self._ways_out.pop(member.port, None)
        if way_out is not None:
            way_out.close()
        del self._members[member.port]
        del self._names[member.name.lower()]

    def send(self, member: Member, frame: Frame, *, cycle: int) -> None:
        """Takes a frame that a VM has announced at that cycle."""
        self._switch.send(member.port, frame, cycle=cycle)

    def deliver(self, *, now: int) -> None:
        """At the end of a round: hands over what was sent before `now`."""
        if self._switch.has_waiting:
            self._switch.deliver(before=now)

    def settle(self) -> None:
        """Before a VM's memory goes away: what it has sent is copied."""
        self._switch.settle()

    def capture(self, path: Path) -> Capture:
        """Writes every frame from now on to a pcapng file at `path`, until the capture is closed.

        Raises:
            ConfigError: the file cannot be written.
        """
        self._capture = Capture(path, clock_hz=self._clock_hz)
        return self._capture

    def connect(self, member: Member, port: int) -> tcp.Connection:
        """Begins to open a connection from Disco to a TCP port of a VM. Call `tick` while it is alive."""
        self._connected += 1
        host_port = _HOST_PORTS[self._connected % len(_HOST_PORTS)]

        def send(packet: bytes) -> None:
            frame = packets.ethernet(member.link, self._port.link, packets.TYPE_IPV4, packet)
            self._reply(frame, member.port)

        connection = tcp.Connection(
            host=(GATEWAY, host_port),
            guest=(member.address, port),
            mss=_SEGMENT_BYTES,
            send=send,
            seconds=lambda: self._now() / self._clock_hz,
        )
        self._connections[member.port, port, host_port] = connection
        return connection

    def tick(self) -> None:
        """Repeats what connections have had no answer to, and forgets those that have ended."""
        for key, connection in tuple(self._connections.items()):
            connection.tick()
            if not connection.is_alive:
                del self._connections[key]

    def _take_segment(self, sender: Port, segment: tcp.Segment) -> bool:
        key = (sender, segment.source_port, segment.destination_port)
        connection = self._connections.get(key)
        if connection is not None:
            connection.deliver(segment)
        return connection is not None

    def _watch(self, sender: Port, frame: Frame, cycle: int) -> None:
        if self._capture is not None:
            self._note(self._capture, sender, frame, cycle)
        is_for_disco = frame.destination[0] & 1 or frame.destination == self._port.link
        if is_for_disco and sender in self._members:
            self._gateway.take(sender, frame)

    def _note(self, capture: Capture, sender: Port, frame: Frame, cycle: int) -> None:
        """A host without room ends the capture, and no VM."""
        try:
            capture.note(sender, frame, cycle)
        except ConfigError as error:
            self._capture = None
            self._warn(f"{error}; the run goes on without it")

    def _offer_for(self, port: Port) -> dhcp.Offer:
        member = self._members[port]
        return dhcp.Offer(
            address=member.address,
            network=NETWORK,
            server=GATEWAY,
            router=GATEWAY if port in self._ways_out else None,
            host_name=member.name,
            domain=dns.DOMAIN,
        )

    def _start(self, name: str, address: IPv4Address, nat: Nat) -> WayOut:
        return WayOut(
            vm=name,
            address=address,
            network=NETWORK,
            gateway=GATEWAY,
            link=self._port.link,
            publish=nat.publish,
            warn=self._warn,
        )

    @property
    def has_way_out(self) -> bool:
        """Whether frames can come from outside, at any time."""
        return bool(self._ways_out)

    def take_from_outside(self, *, wait_seconds: float) -> None:
        """Sends on what has come from outside, waiting for something for so long."""
        open_ones = {port: way for port, way in self._ways_out.items() if way.is_open}
        readable, _, _ = select.select(open_ones.values(), (), (), max(wait_seconds, 0.0))
        for port, way in open_ones.items():
            if way in readable:
                for data in way.receive():
                    self._reply(data, port)

    def _forward(self, port: Port, frame: Frame) -> None:
        if port in self._ways_out:
            self._ways_out[port].send(frame)

    def _reply(self, data: bytes, port: Port) -> None:
        self._switch.send(self._port, Frame(data), cycle=self._now(), only=port)


def link_of(address: IPv4Address) -> bytes:
    """The link-level address that belongs to an address on the subnet."""
    return _LINK_PREFIX + address.packed[2:]
