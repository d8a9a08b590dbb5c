"""The bus of a VM: which device answers at which physical address, and which line it drives.

Windows are whole pages, because that is what the pmap can leave unmapped. Several devices may share an
interrupt line; the line is high while any of them drives it. A line goes to the only vCPU, or to the
source of its number at the global interrupt controller of a VM with several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from disco._engine import DeviceAccess
from disco.devices.bus import Device, PostedWrite
from disco.errors import DeviceError
from disco.guests.platform import PAGE_SIZE

_PAGE_SHIFT = PAGE_SIZE.bit_length() - 1


class Host(Protocol):
    """What devices are wired to: the engine of a monitor, or a bare machine. See `_engine.Engine`."""

    def add_window(self, vm: int, paddr: int, size: int) -> None: ...
    def latch(self, vm: int, paddr: int, size: int, value: int) -> None: ...
    def post(self, vm: int, paddr: int, size: int) -> None: ...
    def trap(self, vm: int, paddr: int, size: int) -> None: ...
    def connect_interrupt(self, vm: int, status: int, clear: int, line: int) -> None: ...
    def update_interrupt(self, vm: int, clear: int, cleared: int, raised: int) -> int: ...
    def set_line(self, vm: int, vcpu: int, line: int, level: bool) -> None: ...
    def set_wire(self, vm: int, source: int, level: bool) -> None: ...


class Window(NamedTuple):
    """The page at physical address `base`, in which `device` answers."""

    base: int
    device: Device


class Bus:
    """Takes a VM's accesses to its devices."""

    def __init__(self, *, engine: Host, vm: int, is_multiprocessor: bool = False) -> None:
        self._engine = engine
        self._vm = vm
        self._is_multiprocessor = is_multiprocessor
        self._windows: dict[int, Window] = {}
        self._levels: dict[int, int] = {}
        self._line_users = 0

    @property
    def devices(self) -> tuple[Device, ...]:
        """All devices, in the order in which they were attached."""
        return tuple(window.device for window in self._windows.values())

    def open(self, base: int) -> BusWiring:
        """Declares the page at `base` as a device's; the device comes with `attach`."""
        assert base % PAGE_SIZE == 0, f"device window at {base:#x}, not on a page"
        self._engine.add_window(self._vm, base, PAGE_SIZE)
        return BusWiring(engine=self._engine, vm=self._vm, base=base)

    def attach(self, base: int, device: Device) -> None:
        """From now on `device` answers in the window at `base`."""
        self._windows[base >> _PAGE_SHIFT] = Window(base, device)

    def line(self, number: int) -> BusLine:
        """One more input to interrupt line `number` (Cause.IP bit 2 to 6)."""
        self._line_users += 1
        return BusLine(bus=self, number=number, user=1 << self._line_users)

    def interrupt(self, base: int, *, status: int, clear: int, line: int) -> BusInterrupt:
        """An interrupt of the device at `base`, with registers at these offsets, on a line of such alone."""
        self._engine.connect_interrupt(self._vm, base + status, base + clear, line)
        return BusInterrupt(engine=self._engine, vm=self._vm, clear=base + clear)

    def access(self, access: DeviceAccess) -> int:
        """Lets the device answer; what a load reads, 0 for a store. Raises `DeviceError`."""
        base, device = self._windows[access.paddr >> _PAGE_SHIFT]
        offset = access.paddr - base
        size = access.size
        if offset + size > device.window_bytes:
            raise DeviceError(
                device=device.name,
                cause=f"access of {size} bytes at offset {offset:#x};"
                f" the window has {device.window_bytes} bytes",
            )
        if access.store:
            device.write(offset, size, access.value)
            return 0
        return device.read(offset, size)

    def posted(self, writes: Sequence[tuple[int, int, int, int]]) -> None:
        """Hands logged writes over, those of one device that follow each other in one call."""
        run: list[PostedWrite] = []
        page = writes[0][1] >> _PAGE_SHIFT
        for cycle, paddr, size, value in writes:
            if paddr >> _PAGE_SHIFT != page:
                self._windows[page].device.posted(run)
                run = []
                page = paddr >> _PAGE_SHIFT
            run.append(PostedWrite(cycle, paddr % PAGE_SIZE, size, value))
        self._windows[page].device.posted(run)

    def drive(self, number: int, user: int, level: bool) -> None:
        """Changes what one user of a line drives; the line is the OR of all."""
        before = self._levels.get(number, 0)
        after = before | user if level else before & ~user
        self._levels[number] = after
        if bool(before) != bool(after):
            if self._is_multiprocessor:
                self._engine.set_wire(self._vm, number, bool(after))
            else:
                self._engine.set_line(self._vm, 0, number, bool(after))


class BusLine:
    """One device's end of an interrupt line: an `InterruptLine`."""

    def __init__(self, *, bus: Bus, number: int, user: int) -> None:
        self._bus = bus
        self._number = number
        self._user = user

    def set(self, level: bool) -> None:
        """Drives the line."""
        self._bus.drive(self._number, self._user, level)


class BusInterrupt:
    """A device's end of an interrupt that the engine keeps: an `Interrupt`."""

    def __init__(self, *, engine: Host, vm: int, clear: int) -> None:
        self._engine = engine
        self._vm = vm
        self._clear = clear

    def update(self, *, cleared: int = 0, raised: int = 0) -> int:
        """Clears some of the bits, then sets some; what they are then."""
        return self._engine.update_interrupt(self._vm, self._clear, cleared, raised)


class BusWiring:
    """What a device in the window at `base` permits the engine to do for it: a `Wiring`."""

    def __init__(self, *, engine: Host, vm: int, base: int) -> None:
        self._engine = engine
        self._vm = vm
        self._base = base

    def latch(self, offset: int, size: int, value: int) -> None:
        """Loads at `offset` are answered with `value`."""
        self._engine.latch(self._vm, self._base + offset, size, value)

    def post(self, offset: int, size: int) -> None:
        """Stores at `offset` are logged."""
        self._engine.post(self._vm, self._base + offset, size)

    def trap(self, offset: int, size: int) -> None:
        """Accesses at `offset` are events."""
        self._engine.trap(self._vm, self._base + offset, size)
