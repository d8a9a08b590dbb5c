"""Peripherals: devices of one's own, plugged into a VM beside those that Disco brings.

A peripheral has a page of the VM's physical memory and an interrupt line, and the device tree names it by
`compatible`, so the guest's own driver finds it. Its class is a `Device`, as all devices are.

It is a guest in this house, as policies are: what it raises, and an answer that is no value of the size asked
for, stop its VM with a message that names it, and other VMs go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from disco.devices.bus import Device, GuestMemory, InterruptLine, PostedWrite, Wiring
from disco.errors import ConfigError, DeviceError, DiscoError
from disco.guests.platform import PAGE_SIZE


@dataclass(frozen=True, kw_only=True)
class Socket:
    """Where a device is plugged in: what it has to work with.

    Attributes:
        line: its interrupt line.
        wiring: to say which accesses need not come to it (`disco/devices/bus.py`); without a word all do.
        memory: the VM's physical memory, for DMA.
        now: simulated time in cycles, at the last boundary of a round; never the host's.
        clock_hz: cycles of a second.
    """

    line: InterruptLine
    wiring: Wiring
    memory: GuestMemory
    now: Callable[[], int]
    clock_hz: int

    @property
    def seconds(self) -> float:
        """Simulated time."""
        return self.now() / self.clock_hz


@dataclass(frozen=True)
class Peripheral:
    """A device to plug in.

    Attributes:
        compatible: what its driver looks for in the device tree, such as "google,goldfish-rtc".
        make: makes the device of a VM, once.
    """

    compatible: str
    make: Callable[[Socket], Device]


def plugged(peripheral: Peripheral, socket: Socket) -> Device:
    """The device, made and with a guard around it.

    Raises:
        ConfigError: it could not be made, or is none that can be plugged in.
    """
    what = f"peripheral {peripheral.compatible}"
    try:
        device = peripheral.make(socket)
    except Exception as error:
        raise ConfigError(f"{what}: raised {type(error).__name__} when made: {error}") from error
    if not isinstance(device, Device):
        raise ConfigError(f"{what}: {type(device).__name__} made, and a Device is possible")
    if not isinstance(getattr(device, "name", None), str):
        raise ConfigError(f"{what}: no name; Device.__init__(name=...) gives it one")
    size = getattr(device, "window_bytes", None)
    if not isinstance(size, int) or not 1 <= size <= PAGE_SIZE:
        raise ConfigError(f"{what}: window_bytes {size!r} asked; 1 to {PAGE_SIZE} are possible")
    return _Guarded(device)


class _Guarded(Device):
    """A device whose faults are its VM's."""

    def __init__(self, device: Device) -> None:
        super().__init__(name=device.name)
        self.window_bytes = device.window_bytes
        self._device = device

    def read(self, offset: int, size: int) -> int:
        with self._blaming("read"):
            value = self._device.read(offset, size)
        if not isinstance(value, int) or not 0 <= value < 1 << (8 * size):
            self.refuse(f"read of {size} bytes at offset {offset:#x} answered {value!r}")
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        with self._blaming("write"):
            self._device.write(offset, size, value)

    def posted(self, writes: Sequence[PostedWrite]) -> None:
        with self._blaming("posted"):
            self._device.posted(writes)

    def reset(self) -> None:
        with self._blaming("reset"):
            self._device.reset()

    def save(self) -> object:
        with self._blaming("save"):
            return self._device.save()

    def restore(self, state: object) -> None:
        with self._blaming("restore"):
            self._device.restore(state)

    @contextmanager
    def _blaming(self, method: str) -> Iterator[None]:
        try:
            yield
        except DiscoError:
            raise
        except Exception as error:
            cause = f"{method} raised {type(error).__name__}: {error}"
            raise DeviceError(device=self.name, cause=cause) from error
