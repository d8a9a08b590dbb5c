"""Our sources in assembly, guests/*.S, and what they are told by symbols."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

GUESTS = Path(__file__).absolute().parent.parent / "guests"


def source_of(name: str, symbols: Mapping[str, int]) -> str:
    """One of guests/*.S, with these symbols defined before it."""
    lines = [f"        .equ    {symbol}, {value}\n" for symbol, value in symbols.items()]
    return "".join(lines) + (GUESTS / name).read_text()
