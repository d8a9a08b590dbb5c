"""The circuit of programs/circuit.v once more, as a program: what the row `simulation` has to print."""

from __future__ import annotations

_WORD = (1 << 32) - 1
_COEFFICIENTS = tuple(i * i + 3 for i in range(8))


def result(cycles: int) -> str:
    """What the circuit prints after so many clock cycles out of reset."""
    table = [_crc_of_byte(byte) for byte in range(256)]
    word, filtered, crc = 2463534242, 0, _WORD
    taps = [0] * 8
    counts = [0] * 256
    for _ in range(cycles):
        # All registers take their next values at once, so these are worked out from the present ones.
        total = (filtered + word) & _WORD
        crc ^= total
        for _ in range(4):
            crc = crc >> 8 ^ table[crc & 0xFF]
        counts[total & 0xFF] += total >> 8 & 0xFF
        filtered = sum(t * c for t, c in zip(taps, _COEFFICIENTS, strict=True)) & _WORD
        taps = [word & 0xFFFF, *taps[:7]]
        word = _xorshift(word)
    total = 0
    for count in counts:
        total = (total * 31 + count) & _WORD
    return f"{crc:08x}-{total:08x}"


def _xorshift(word: int) -> int:
    word ^= word << 13 & _WORD
    word ^= word >> 17
    return word ^ (word << 5 & _WORD)


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0xEDB88320 if byte & 1 else 0)
    return byte
