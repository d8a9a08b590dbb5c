"""What a device declares crosses to the engine once; a log means what its writes would have."""

from __future__ import annotations

import pytest

from disco.devices.bus import Declarations, Device, GuestMemoryError, PostedWrite
from disco.errors import DeviceError, DiscoError


class Recorder:
    """A wiring that keeps what it was told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def latch(self, offset: int, size: int, value: int) -> None:
        self.calls.append(("latch", value))

    def post(self, offset: int, size: int) -> None:
        self.calls.append(("post", size))

    def trap(self, offset: int, size: int) -> None:
        self.calls.append(("trap", size))


@pytest.mark.parametrize(
    ("before", "after", "calls"),
    [
        # Trapping withdraws both permissions, so the one that stays is given again.
        ((7, True), (None, True), [("trap", 4), ("post", 4)]),
        ((7, True), (7, False), [("trap", 4), ("latch", 7)]),
        ((7, True), (None, False), [("trap", 4)]),
        ((7, True), (8, True), [("latch", 8)]),
        ((7, True), (7, True), []),
        ((0, False), (None, False), [("trap", 4)]),  # a latched zero is a latch
        ((None, False), (0, False), [("latch", 0)]),
        ((None, False), (None, False), []),
        ((None, False), (0, True), [("latch", 0), ("post", 4)]),
        ((None, True), (3, False), [("trap", 4), ("latch", 3)]),
    ],
)
def test_only_changes_cross_to_the_engine(before, after, calls):
    recorder = Recorder()
    declarations = Declarations(wiring=recorder, size=4)
    declarations.declare(8, latched=before[0], posted=before[1])
    recorder.calls.clear()
    declarations.declare(8, latched=after[0], posted=after[1])
    assert recorder.calls == calls


class Notebook(Device):
    """The least a device can be."""

    window_bytes = 16

    def __init__(self) -> None:
        super().__init__(name="notebook")
        self.written: list[tuple[int, int, int]] = []

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        if value == 0:
            self.refuse("zero written")
        self.written.append((offset, size, value))

    def reset(self) -> None:
        self.written.clear()

    def save(self) -> object:
        return tuple(self.written)

    def restore(self, state: object) -> None:
        """Not needed here."""


def test_a_log_is_by_default_its_writes_in_order():
    notebook = Notebook()
    notebook.posted([PostedWrite(5, 4, 1, 9), PostedWrite(6, 0, 4, 8), PostedWrite(6, 4, 1, 7)])
    assert notebook.written == [(4, 1, 9), (0, 4, 8), (4, 1, 7)]


def test_a_refusal_names_the_device():
    with pytest.raises(DeviceError, match="notebook: zero written"):
        Notebook().write(0, 1, 0)


def test_a_range_that_is_not_ram_is_named():
    error = GuestMemoryError(paddr=0x1000, length=64)
    assert isinstance(error, DiscoError)
    assert "0x1000 + 0x40 bytes" in str(error)
