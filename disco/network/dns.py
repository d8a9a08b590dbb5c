"""DNS: names of VMs to addresses, and back.

A question is answered with one address or name, or with "no such name". Names that are not ours are somebody
else's to answer, if there is a way out (`is_ours`).

Source: RFC 1035; RFC 6761 for the domain of names that are nobody else's.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from ipaddress import IPv4Address

PORT = 53
#: "internal" is kept free for networks of one's own.
DOMAIN = "disco.internal"

_HEADER = struct.Struct(">HHHHHH")
_FLAG_RESPONSE = 0x8000
_FLAG_OPCODE = 0x7800
_FLAG_TRUNCATED = 0x0200
_FLAG_AUTHORITY = 0x0400
_FLAG_RECURSION_WANTED = 0x0100
_FLAG_RECURSION_POSSIBLE = 0x0080
_FORMAT_ERROR = 1
_NO_SUCH_NAME = 3
_NOT_IMPLEMENTED = 4

_TYPE_A = 1
_TYPE_PTR = 12
_TYPE_ANY = 255
_CLASS_INTERNET = 1
_ANSWER = struct.Struct(">HHHIH")  # pointer to the question's name, type, class, TTL, length
_POINTER_TO_QUESTION = 0xC000 | _HEADER.size
_TTL_SECONDS = 60
_REVERSE = ".in-addr.arpa"


def answer(query: bytes, names: Mapping[str, IPv4Address]) -> bytes | None:
    """The response to a query; None for what is none.

    Args:
        query: what came.
        names: addresses by name in lower case, without the domain.
    """
    if len(query) < _HEADER.size:
        return None
    number, flags, questions, *_ = _HEADER.unpack_from(query)
    if flags & _FLAG_RESPONSE:
        return None
    if flags & _FLAG_OPCODE:
        return _response(number, flags, _NOT_IMPLEMENTED)
    read = _question(query) if questions == 1 and not flags & _FLAG_TRUNCATED else None
    if read is None:
        return _response(number, flags, _FORMAT_ERROR)
    name, kind, question = read
    found = _find(name, kind, names)
    if found is None:
        return _response(number, flags, _NO_SUCH_NAME, question)
    return _response(number, flags, 0, question, found)


def is_ours(query: bytes, names: Mapping[str, IPv4Address]) -> bool:
    """Whether a query is about a VM, or in our domain."""
    read = _question(query) if len(query) >= _HEADER.size else None
    if read is None:
        return False
    name, kind, _ = read
    return name == DOMAIN or name.endswith(f".{DOMAIN}") or _find(name, kind, names) is not None


def _find(name: str, kind: int, names: Mapping[str, IPv4Address]) -> bytes | None:
    """The answer's record; empty if the name has none of that kind; None if there is no such name."""
    if name.endswith(_REVERSE):
        wanted = ".".join(reversed(name.removesuffix(_REVERSE).split(".")))
        owner = next((one for one, address in names.items() if str(address) == wanted), None)
        if owner is None:
            return None
        return _record(_TYPE_PTR, _labels(f"{owner}.{DOMAIN}"), kind)
    address = names.get(name.removesuffix(f".{DOMAIN}"))
    return None if address is None else _record(_TYPE_A, address.packed, kind)


def _record(kind: int, data: bytes, asked: int) -> bytes:
    if asked not in (kind, _TYPE_ANY):
        return b""
    head = _ANSWER.pack(_POINTER_TO_QUESTION, kind, _CLASS_INTERNET, _TTL_SECONDS, len(data))
    return head + data


def _response(
    number: int, flags: int, code: int, question: bytes = b"", record: bytes = b""
) -> bytes:
    kept = flags & (_FLAG_OPCODE | _FLAG_RECURSION_WANTED)
    told = _FLAG_RESPONSE | _FLAG_AUTHORITY | _FLAG_RECURSION_POSSIBLE | kept | code
    header = _HEADER.pack(number, told, bool(question), bool(record), 0, 0)
    return header + question + record


def _question(query: bytes) -> tuple[str, int, bytes] | None:
    """Name in lower case, type, and the bytes of the only question; None if it is not whole."""
    labels: list[bytes] = []
    at = _HEADER.size
    while at < len(query) and query[at]:
        length = query[at]
        if length > 63 or at + 1 + length > len(query):  # a question has no pointers
            return None
        labels.append(query[at + 1 : at + 1 + length])
        at += 1 + length
    end = at + 5
    if end > len(query) or at - _HEADER.size > 254:
        return None
    kind, group = struct.unpack_from(">HH", query, at + 1)
    if group not in (_CLASS_INTERNET, _TYPE_ANY):
        return None
    name = b".".join(labels).decode("ascii", "replace").lower()
    return name, kind, query[_HEADER.size : end]


def _labels(name: str) -> bytes:
    parts = name.encode("ascii", "replace").split(b".")
    return b"".join(bytes((len(part),)) + part for part in parts) + b"\0"
