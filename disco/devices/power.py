"""The reset and power-off registers: how a guest ends its VM.

Debian's kernel reaches a restart through a `syscon` node and `syscon-reboot`, which reads the
register, replaces the masked bits and writes only if the result differs; so the register must read
as zero. The same kernel has no driver for power-off (it halts its CPUs, which the monitor
recognises), so that register is for guests of our own, which also hand over an exit status.

    offset  name       access  meaning
    0x0     RESET      RW      write RESET_MAGIC: restart the VM. Reads 0
    0x4     POWER_OFF  RW      write POWER_OFF_MAGIC in bits 7:0, exit status in bits 15:8. Reads 0
    0x8     ID         R       "DSCO" as ASCII, little-endian
    0xc     reserved           reads 0, writes ignored

Any other value written is ignored, as a real power controller ignores a wrong key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from disco.devices.bus import Declarations, Device, SavedState, Wiring, claimed_state

RESET = 0x0
POWER_OFF = 0x4
ID = 0x8
RESERVED = 0xC

WINDOW_BYTES = 16
REGISTER_BYTES = 4

RESET_MAGIC = 0x42
POWER_OFF_MAGIC = 0x5
POWER_OFF_STATUS_SHIFT = 8
ID_VALUE = int.from_bytes(b"DSCO", "little")

STATE_VERSION = 1


@dataclass(frozen=True)
class PowerState(SavedState):
    """Nothing: the registers hold no state."""


class Power(Device):
    """Turns two register writes into calls of the VM's life cycle."""

    window_bytes = WINDOW_BYTES

    def __init__(
        self,
        *,
        wiring: Wiring,
        on_reset: Callable[[], None],
        on_power_off: Callable[[int], None],
        name: str = "power",
    ) -> None:
        """`on_power_off` gets the exit status, 0 to 255. Both return; the VM ends later."""
        super().__init__(name=name)
        self._on_reset = on_reset
        self._on_power_off = on_power_off
        declarations = Declarations(wiring=wiring, size=REGISTER_BYTES)
        for offset in (RESET, POWER_OFF, ID, RESERVED):
            declarations.declare(offset, latched=self.read(offset, REGISTER_BYTES))

    def read(self, offset: int, size: int) -> int:
        window = ID_VALUE << (8 * ID)
        return (window >> (8 * offset)) & ((1 << (8 * size)) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == RESET and value == RESET_MAGIC:
            self._on_reset()
        elif offset == POWER_OFF:
            status, key = divmod(value, 1 << POWER_OFF_STATUS_SHIFT)
            if key == POWER_OFF_MAGIC and status <= 0xFF:
                self._on_power_off(status)

    def reset(self) -> None:
        """Nothing to rebuild."""

    def save(self) -> PowerState:
        return PowerState(version=STATE_VERSION)

    def restore(self, state: object) -> None:
        claimed_state(state, PowerState, version=STATE_VERSION, device=self.name)
