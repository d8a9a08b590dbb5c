"""Register and memory contents for random programs: mostly odd values, some random ones."""

from __future__ import annotations

import random
import struct

from random_programs import CONSTANT_FPR, K0, WORDS
from two_machines import FCSR, FPRS, HI, LO, SCRATCH_BYTES, STATE_BYTES, Kind

MASK64 = (1 << 64) - 1

WORD_VALUES = [
    0,
    1,
    2,
    -1,
    -2,
    0x7FFF_FFFF,
    -0x8000_0000,
    -0x7FFF_FFFF,
    0x7FFE_FFFF,
    0x7FFF,
    0x8000,
]
WORD_VALUES += [
    -0x8000,
    0xFFFF,
    0x5555_5555,
    -0x5555_5556,
    0x0F0F_0F0F,
    31,
    32,
    63,
    64,
    0x100,
    0x80,
]
DOUBLE_VALUES = [-0x8000_0000_0000_0000, 0x7FFF_FFFF_FFFF_FFFF, 0xFFFF_FFFF, 0x8000_0000]
DOUBLE_VALUES += [0x1_0000_0000, -0x1_0000_0000, 0x5555_5555_5555_5555, -0x8000_0000_0000_0001]
DOUBLE_VALUES += [0x0123_4567_89AB_CDEF, 0x7FFF_FFFF_8000_0000, 1 << 62, -(1 << 62)]

#: Zeros, ones, extremes, denormals, infinities, NaNs of both kinds, edges of the integer formats.
SINGLES = [0, 0x3F80_0000, 0x0080_0000, 0x7F7F_FFFF, 0x0000_0001, 0x007F_FFFF, 0x7F80_0000]
SINGLES += [
    0x7FBF_FFFF,
    0x7FC0_0000,
    0x7FFF_FFFF,
    0x3F80_0001,
    0x3F00_0000,
    0x3FC0_0000,
    0x4020_0000,
]
SINGLES += [
    0x4F00_0000,
    0x4EFF_FFFF,
    0x4F80_0000,
    0x5F00_0000,
    0x5EFF_FFFF,
    0x4B00_0001,
    0x3EAA_AAAB,
]
SINGLES += [0x0040_0000, 0x0100_0000, 0x2000_0000, 0x1F80_0000, 0x6000_0000]
DOUBLES = [0, 0x3FF0_0000_0000_0000, 0x0010_0000_0000_0000, 0x7FEF_FFFF_FFFF_FFFF, 1]
DOUBLES += [
    0x000F_FFFF_FFFF_FFFF,
    0x7FF0_0000_0000_0000,
    0x7FF7_FFFF_FFFF_FFFF,
    0x7FF8_0000_0000_0000,
]
DOUBLES += [
    0x3FF0_0000_0000_0001,
    0x3FE0_0000_0000_0000,
    0x3FF8_0000_0000_0000,
    0x4004_0000_0000_0000,
]
DOUBLES += [
    0x41DF_FFFF_FFC0_0000,
    0x41E0_0000_0000_0000,
    0x41DF_FFFF_FFE0_0000,
    0x43E0_0000_0000_0000,
]
DOUBLES += [
    0x43DF_FFFF_FFFF_FFFF,
    0x4330_0000_0000_0001,
    0x47EF_FFFF_E000_0000,
    0x47EF_FFFF_F000_0000,
]
DOUBLES += [
    0x3690_0000_0000_0000,
    0x3810_0000_0000_0000,
    0x380F_FFFF_FFFF_FFFF,
    0x3FD5_5555_5555_5555,
]


def word_value(source: random.Random) -> int:
    """A sign-extended word."""
    if source.random() < 0.6:
        return source.choice(WORD_VALUES) & MASK64
    return (source.getrandbits(32) - (1 << 31)) & MASK64


def double_value(source: random.Random) -> int:
    choice = source.random()
    if choice < 0.3:
        return word_value(source)
    if choice < 0.6:
        return source.choice(DOUBLE_VALUES) & MASK64
    return source.getrandbits(64)


def float_value(source: random.Random) -> int:
    """A double, or two singles."""
    choice = source.random()
    if choice < 0.3:
        return source.choice(DOUBLES) | source.getrandbits(1) << 63
    if choice < 0.6:
        return single_value(source) << 32 | single_value(source)
    if choice < 0.9:
        # Near each other, so that sums cancel and quotients round.
        return struct.unpack("<Q", struct.pack("<d", source.uniform(-4, 4)))[0]  # type: ignore[no-any-return]
    return source.getrandbits(64)


def single_value(source: random.Random) -> int:
    if source.random() < 0.6:
        return source.choice(SINGLES) | source.getrandbits(1) << 31
    (bits,) = struct.unpack("<I", struct.pack("<f", source.uniform(-4, 4)))
    return int(bits)


def state(source: random.Random, kind: Kind) -> bytes:
    """A state as `two_machines` lays it out."""
    data = bytearray(STATE_BYTES)
    for number in range(1, 32):
        value = word_value(source) if number in WORDS else double_value(source)
        struct.pack_into("<Q", data, 8 * number, value)
    struct.pack_into("<Q", data, 8 * K0, source.choice(kind.bases))
    for number in range(32):
        value = 0x3FF8_0000_0000_0000 if number >= CONSTANT_FPR else float_value(source)
        struct.pack_into("<Q", data, FPRS + 8 * number, value)
    struct.pack_into("<QQ", data, HI, double_value(source), double_value(source))
    # Condition codes, flags and rounding mode.
    struct.pack_into("<Q", data, FCSR, source.getrandbits(32) & 0xFE80_007F)
    assert LO == HI + 8
    return bytes(data)


def scratch(source: random.Random) -> bytes:
    """The scratch memory: numbers of all kinds at every alignment."""
    values = [source.choice((double_value, float_value))(source) for _ in range(1021)]
    block = struct.pack("<1021Q", *values)
    return (block * (SCRATCH_BYTES // len(block) + 1))[:SCRATCH_BYTES]
