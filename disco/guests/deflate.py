"""gzip, written the same on every host.

What zlib writes depends on its version and on who built it. Bytes that go into a guest decide how
many instructions it executes, so they may not; this encoder is small, and always gives the same.

It makes one block with the fixed codes. Matches are looked for at words only, which is where text
repeats; anything else goes out as literals.

Source: RFC 1951 (deflate), RFC 1952 (gzip).
"""

from __future__ import annotations

import re
import zlib
from bisect import bisect
from collections.abc import Iterator
from itertools import accumulate

_HEADER = bytes.fromhex("1f8b 08 00 00000000 00 ff")  # deflate, no name, time 0, unknown system
_TOKEN = re.compile(rb"[A-Za-z]+\s?|[^A-Za-z]{1,64}", re.DOTALL)

_DISTANCE_MAX = 32768
_MATCH_SIZE_MIN, _MATCH_SIZE_MAX = 3, 257
_END_OF_BLOCK = 256
_FIRST_LENGTH_SYMBOL = 257

#: Bits that follow each length and distance symbol, and the smallest value of each symbol.
_LENGTH_EXTRA = [max(0, i // 4 - 1) for i in range(28)]
_LENGTH_BASE = list(accumulate((1 << extra for extra in _LENGTH_EXTRA[:-1]), initial=3))
_DISTANCE_EXTRA = [max(0, i // 2 - 1) for i in range(30)]
_DISTANCE_BASE = list(accumulate((1 << extra for extra in _DISTANCE_EXTRA[:-1]), initial=1))

#: A value and its width in bits, the first bit to be written lowest.
_Bits = tuple[int, int]


def gzip(data: bytes) -> bytes:
    """`data` as a gzip file."""
    trailer = zlib.crc32(data).to_bytes(4, "little") + (len(data) % 2**32).to_bytes(4, "little")
    return _HEADER + _packed(_block(data)) + trailer


def _block(data: bytes) -> Iterator[_Bits]:
    yield 1, 1  # the last block
    yield 1, 2  # fixed codes
    last_seen: dict[bytes, int] = {}
    for token in _TOKEN.finditer(data):
        word, start = token[0], token.start()
        distance = start - last_seen.get(word, start)
        if 0 < distance <= _DISTANCE_MAX and _MATCH_SIZE_MIN <= len(word) <= _MATCH_SIZE_MAX:
            yield from _match(len(word), distance)
        else:
            yield from (_SYMBOLS[byte] for byte in word)
        last_seen[word] = start
    yield _SYMBOLS[_END_OF_BLOCK]


def _match(size: int, distance: int) -> Iterator[_Bits]:
    """The bits for "`size` bytes as they were `distance` bytes ago"."""
    index = bisect(_LENGTH_BASE, size) - 1
    yield _SYMBOLS[_FIRST_LENGTH_SYMBOL + index]
    yield size - _LENGTH_BASE[index], _LENGTH_EXTRA[index]
    index = bisect(_DISTANCE_BASE, distance) - 1
    yield _reversed(index, 5)
    yield distance - _DISTANCE_BASE[index], _DISTANCE_EXTRA[index]


def _packed(bits: Iterator[_Bits]) -> bytes:
    packed = bytearray()
    held = width = 0
    for value, more in bits:
        held |= value << width
        width += more
        while width >= 8:
            packed.append(held & 0xFF)
            held >>= 8
            width -= 8
    packed.append(held)
    return bytes(packed)


def _fixed_code(symbol: int) -> _Bits:
    """The fixed Huffman code of a literal or length symbol (RFC 1951, 3.2.6)."""
    if symbol < 144:
        return _reversed(0b0011_0000 + symbol, 8)
    if symbol < 256:
        return _reversed(0b1_1001_0000 + symbol - 144, 9)
    if symbol < 280:
        return _reversed(symbol - 256, 7)
    return _reversed(0b1100_0000 + symbol - 280, 8)


def _reversed(code: int, width: int) -> _Bits:
    """A code with its highest bit, which comes first, in the lowest place."""
    return int(f"{code:0{width}b}"[::-1], 2), width


_SYMBOLS = [_fixed_code(symbol) for symbol in range(286)]
