"""Sessions of our own small kernels: one loop each, without an operating system.

They run on both boards: only the addresses of the console and of the reset register differ. What a loop
works out is compared with what the host works out in another way.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.session import DISCO, QEMU, Boot, Row, Session
from bench.sources import source_of
from disco._engine import assemble
from disco.guests import platform
from disco.guests.executable import N64

MEMORY_MIB = 128

_BASE = 0xFFFF_FFFF_8010_0000
#: In start.S.
_ENTRY_OFFSET = 0x400
_KSEG1 = -0x6000_0000

#: A random cycle through 2^20 lines: see chase.S.
_MULTIPLIER = 660_741
_INCREMENT = 362_437
#: As chase.S and walk.S want them.
CYCLE = {"MULTIPLIER": _MULTIPLIER, "INCREMENT": _INCREMENT}
_LINE_COUNT = 1 << 20
_LINE_SIZE = 64
_AREA = 0x0400_0000


@dataclass(frozen=True)
class Board:
    """Where a board has what start.S uses, as physical addresses."""

    uart: int
    uart_stride: int
    reset: int
    reset_value: int

    @property
    def symbols(self) -> Mapping[str, int]:
        """As start.S wants them: addresses in KSEG1."""
        return {
            "UART_DATA": _KSEG1 + self.uart,
            "UART_STATUS": _KSEG1 + self.uart + 5 * self.uart_stride,
            "RESET": _KSEG1 + self.reset,
            "RESET_VALUE": self.reset_value,
        }


BOARDS = {
    DISCO: Board(
        uart=platform.UART_BASE,
        uart_stride=1 << platform.UART_REGISTER_SHIFT,
        reset=platform.RESET_BASE,
        reset_value=platform.RESET_VALUE,
    ),
    # Malta: the UART on the CBUS, and SOFTRES in its FPGA. Source: MIPS Malta user's manual.
    QEMU: Board(uart=0x1F00_0900, uart_stride=8, reset=0x1F00_0500, reset_value=0x42),
}
#: The CBUS UART is Malta's third.
_MALTA_CONSOLE = 2


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One of guests/*.S.

    Attributes:
        name: of the file and of the row.
        steps: how often the loop runs.
        result: works out the register that it ends with from the number of steps.
    """

    name: str
    title: str
    steps: int
    result: Callable[[int], int]


def kernels(*, is_quick: bool) -> tuple[Kernel, ...]:
    """All of them, with fewer steps if `is_quick`."""

    def kernel(name: str, title: str, million_steps: int, result: Callable[[int], int]) -> Kernel:
        scale = 1 if is_quick else 4
        return Kernel(
            name=name, title=title, steps=million_steps * 1_000_000 * scale, result=result
        )

    return (
        kernel("loop", "integer loop", 320, xorshift),
        kernel("float", "floating-point loop", 20, series),
        kernel("chase", "pointer chase, 64 MiB", 4, chase),
        kernel("syscall", "system-call loop", 4, lambda steps: steps),
    )


def names() -> tuple[str, ...]:
    """The names of all rows."""
    return tuple(kernel.name for kernel in kernels(is_quick=True))


def sessions(folder: Path, *, is_quick: bool, wanted: Container[str]) -> Iterator[Session]:
    """A session for each wanted kernel; executables are written to `folder`."""
    for kernel in kernels(is_quick=is_quick):
        if kernel.name not in wanted:
            continue
        boots = {}
        for side in BOARDS:
            path = folder / f"{kernel.name}-{side}"
            path.write_bytes(build(kernel, BOARDS[side]))
            boots[side] = Boot(kernel=path)
        row = Row(
            name=kernel.name,
            group="our kernels",
            title=kernel.title,
            begin=f"bench: begin {kernel.name}",
            end=f"bench: end {kernel.name}",
            checks=(f"bench: end {kernel.name} {kernel.result(kernel.steps):016x}",),
        )
        yield Session(
            name=kernel.name,
            rows=(row,),
            boots=boots,
            console=_MALTA_CONSOLE,
            memory_mib=MEMORY_MIB,
        )


def build(kernel: Kernel, board: Board) -> bytes:
    """The kernel as an ELF executable for a board."""
    symbols = {**board.symbols, **CYCLE, "STEPS": kernel.steps}
    source = source_of("start.S", symbols) + source_of(f"{kernel.name}.S", {})
    code = assemble(f'{source}name:   .asciiz "{kernel.name}"\n', _BASE)
    return N64.executable(code, base=_BASE - N64.code_offset, entry=_BASE + _ENTRY_OFFSET)


def xorshift(steps: int) -> int:
    """Marsaglia's xorshift from 1 after so many steps.

    A step is linear over the field of two elements, so it is a matrix, and the matrix is raised to the
    power by squaring: another way than the guest's.
    """
    columns = [_xorshift_step(1 << bit) for bit in range(64)]
    state = 1
    while steps:
        if steps & 1:
            state = _times(columns, state)
        columns = [_times(columns, column) for column in columns]
        steps >>= 1
    return state


def _xorshift_step(state: int) -> int:
    state ^= state << 13 & (1 << 64) - 1
    state ^= state >> 7
    return state ^ (state << 17 & (1 << 64) - 1)


def _times(columns: list[int], vector: int) -> int:
    result = 0
    for bit, column in enumerate(columns):
        if vector >> bit & 1:
            result ^= column
    return result


def series(steps: int) -> int:
    """The sum of 1 / (k * k + k) in the guest's order, as the bits of a double."""
    k = np.arange(1, steps + 1, dtype=np.float64)
    total = np.add.accumulate(1.0 / (k * k + k))[-1]
    return int(struct.unpack("<Q", struct.pack("<d", total))[0])


def chase(steps: int) -> int:
    """The address that the pointer chase ends at."""
    line = 0
    for _ in range(steps % _LINE_COUNT):
        line = (_MULTIPLIER * line + _INCREMENT) % _LINE_COUNT
    return _AREA + _LINE_SIZE * line
