"""The reset and power-off registers."""

from __future__ import annotations

import pytest
from model_bus import ModelBus

from disco.devices.power import ID, POWER_OFF, RESET, Power


class Ends:
    def __init__(self) -> None:
        self.bus = ModelBus()
        self.calls: list[object] = []
        self.power = Power(
            wiring=self.bus,
            on_reset=lambda: self.calls.append("reset"),
            on_power_off=self.calls.append,
        )
        self.bus.attach(self.power)


@pytest.mark.parametrize(
    ("offset", "value", "calls"),
    [
        (RESET, 0x43, []),
        (RESET, 0x142, []),  # the whole register is the key
        (POWER_OFF, 0x1_0005, []),  # a status has 8 bits
        (POWER_OFF, 0x0042, []),
        (ID, 0x42, []),
        (0xC, 0x5, []),
        (RESET, 0x42, ["reset"]),
        (POWER_OFF, 0x0005, [0]),
        (POWER_OFF, 0xFF05, [255]),
    ],
)
def test_only_the_keys_end_a_vm(offset, value, calls):
    ends = Ends()
    ends.bus.write(offset, value)
    assert ends.calls == calls


@pytest.mark.parametrize(
    ("offset", "size", "value"),
    [
        (RESET, 4, 0),  # regmap writes only what differs from what it read
        (POWER_OFF, 4, 0),
        (ID, 4, 0x4F435344),
        (ID, 1, 0x44),
        (ID + 2, 2, 0x4F43),
        (ID, 8, 0x4F435344),
        (0xC, 4, 0),
    ],
)
def test_registers_read_as_documented(offset, size, value):
    assert Ends().bus.read(offset, size) == value


def test_save_and_restore_do_nothing_visible():
    ends = Ends()
    ends.power.restore(ends.power.save())
    ends.power.reset()
    assert ends.calls == []
