"""DHCP: each VM is told the address that it has, whoever in it asks.

The server knows which port of the switch a request came from, and each port has one address. So there is
no pool that a guest could empty by asking under many names, and no state: the answer is a function of the
question. Leases never end.

Source: RFC 2131 (protocol), RFC 2132 (options).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

SERVER_PORT = 67
CLIENT_PORT = 68

_FIXED = struct.Struct(">BBBBIHH4s4s4s4s16s64s128s4s")
_BOOT_REQUEST = 1
_BOOT_REPLY = 2
_MAGIC = b"\x63\x82\x53\x63"
_FLAG_BROADCAST = 0x8000
_ETHERNET = (1, 6)
#: Clients may count on room for this (RFC 2131, section 2); some old ones drop less than 300 bytes.
_MESSAGE_BYTES_MIN = 300

_LEASE_FOR_EVER = (1 << 32) - 1
NOBODY = IPv4Address(0)
EVERYBODY = IPv4Address((1 << 32) - 1)


class Option:
    """Options that we read or write."""

    PAD = 0
    MASK = 1
    ROUTER = 3
    DNS = 6
    HOST_NAME = 12
    DOMAIN = 15
    BROADCAST = 28
    REQUESTED = 50
    LEASE = 51
    KIND = 53
    SERVER = 54
    END = 255


class Kind:
    """Kinds of messages."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    ACK = 5
    NAK = 6
    INFORM = 8


@dataclass(frozen=True, kw_only=True)
class Offer:
    """What a VM is told.

    Attributes:
        address: of the VM.
        network: that the address is in.
        server: address of DHCP and DNS.
        router: the way out, or None if there is none.
        host_name, domain: of the VM.
    """

    address: IPv4Address
    network: IPv4Network
    server: IPv4Address
    router: IPv4Address | None
    host_name: str
    domain: str


@dataclass(frozen=True, kw_only=True)
class Message:
    """A client's message, read."""

    kind: int
    transaction: int
    flags: int
    client: IPv4Address
    hardware: bytes
    options: Mapping[int, bytes]

    @property
    def wanted(self) -> IPv4Address:
        """The address that it asks for or has; 0.0.0.0 if none."""
        asked = self.options.get(Option.REQUESTED, b"")
        return IPv4Address(asked) if len(asked) == 4 else self.client


def read(data: bytes) -> Message | None:
    """A client's message, or None for anything else."""
    if len(data) < _FIXED.size:
        return None
    fields = _FIXED.unpack_from(data)
    operation, *hardware_form = fields[:3]
    if operation != _BOOT_REQUEST or tuple(hardware_form) != _ETHERNET or fields[-1] != _MAGIC:
        return None
    options = _options(data[_FIXED.size :])
    if options is None or len(options.get(Option.KIND, b"")) != 1:
        return None
    return Message(
        kind=options[Option.KIND][0],
        transaction=fields[4],
        flags=fields[6],
        client=IPv4Address(fields[7]),
        hardware=fields[11][:6],
        options=options,
    )


def answer(message: Message, offer: Offer) -> tuple[bytes, IPv4Address] | None:
    """The reply, and to which address it goes; None if the message asks for none."""
    match message.kind:
        case Kind.DISCOVER:
            return _reply(message, offer, Kind.OFFER)
        case Kind.REQUEST:
            server = message.options.get(Option.SERVER)
            if server not in (None, offer.server.packed):
                return None  # it has taken another server's offer
            return _reply(message, offer, Kind.ACK if message.wanted == offer.address else Kind.NAK)
        case Kind.INFORM:
            return _reply(message, offer, Kind.ACK)
        case _:
            return None


def _reply(message: Message, offer: Offer, kind: int) -> tuple[bytes, IPv4Address]:
    is_refusal = kind == Kind.NAK
    given = NOBODY if is_refusal or message.kind == Kind.INFORM else offer.address
    fixed = _FIXED.pack(
        _BOOT_REPLY,
        *_ETHERNET,
        0,
        message.transaction,
        0,
        message.flags,
        (NOBODY if is_refusal else message.client).packed,
        given.packed,
        NOBODY.packed,
        NOBODY.packed,
        message.hardware,
        b"",
        b"",
        _MAGIC,
    )
    options = {Option.KIND: bytes((kind,)), Option.SERVER: offer.server.packed}
    if not is_refusal:
        options |= _facts(offer)
    if given != NOBODY:
        options[Option.LEASE] = struct.pack(">I", _LEASE_FOR_EVER)
    packed = b"".join(bytes((code, len(value))) + value for code, value in options.items())
    data = fixed + packed + bytes((Option.END,))
    return data.ljust(_MESSAGE_BYTES_MIN, b"\0"), _destination(message, given, is_refusal)


def _facts(offer: Offer) -> dict[int, bytes]:
    facts = {
        Option.MASK: offer.network.netmask.packed,
        Option.BROADCAST: offer.network.broadcast_address.packed,
        Option.DNS: offer.server.packed,
        Option.HOST_NAME: offer.host_name.encode()[:255],
        Option.DOMAIN: offer.domain.encode(),
    }
    if offer.router is not None:
        facts[Option.ROUTER] = offer.router.packed
    return facts


def _destination(message: Message, given: IPv4Address, is_refusal: bool) -> IPv4Address:
    """RFC 2131, section 4.1: to where the client can hear it."""
    if is_refusal or message.flags & _FLAG_BROADCAST:
        return EVERYBODY
    return message.client if message.client != NOBODY else given


def _options(data: bytes) -> dict[int, bytes] | None:
    """Options by code; None if one goes past the end. What is given twice is joined (RFC 3396)."""
    options: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != Option.END:
        code = data[at]
        at += 1
        if code == Option.PAD:
            continue
        if at >= len(data) or at + 1 + data[at] > len(data):
            return None
        options[code] = options.get(code, b"") + data[at + 1 : at + 1 + data[at]]
        at += 1 + data[at]
    return options
