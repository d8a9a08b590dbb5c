"""A VM around a device, the naive way: memory is a bytearray, the engine a dictionary."""

from __future__ import annotations

from disco.devices.bus import Device, GuestMemory, GuestMemoryError, PostedWrite


class Ram(GuestMemory):
    """RAM from `base` on; nothing else is memory."""

    def __init__(self, size: int, *, base: int = 0) -> None:
        self.base = base
        self.bytes = bytearray(size)

    def read(self, paddr: int, length: int) -> bytes:
        start = self._start(paddr, length)
        return bytes(self.bytes[start : start + length])

    def write(self, paddr: int, data: bytes) -> None:
        start = self._start(paddr, len(data))
        self.bytes[start : start + len(data)] = data

    def _start(self, paddr: int, length: int) -> int:
        if not self.base <= paddr <= paddr + length <= self.base + len(self.bytes):
            raise GuestMemoryError(paddr=paddr, length=length)
        return paddr - self.base


class Line:
    """An interrupt line that remembers each level it was driven to."""

    def __init__(self) -> None:
        self.levels: list[bool] = []

    def set(self, level: bool) -> None:
        self.levels.append(level)

    @property
    def level(self) -> bool:
        return bool(self.levels) and self.levels[-1]


class Status:
    """Bits of an interrupt and their line, the naive way: an `Interrupt`."""

    def __init__(self, line: Line) -> None:
        self.bits = 0
        self.line = line

    def update(self, *, cleared: int = 0, raised: int = 0) -> int:
        self.bits = self.bits & ~cleared | raised
        if (self.bits != 0) != self.line.level:
            self.line.set(self.bits != 0)
        return self.bits


class ModelBus:
    """The engine's side of a device. Make it, make the device with it as wiring, then `attach`.

    With `posting` it uses each permission the device gives, and checks it: answering a latched read
    must be what the device would have answered, and must leave the device as it was. Without, all
    traps.
    """

    def __init__(self, *, posting: bool = True) -> None:
        self.posting = posting
        self.latched: dict[int, tuple[int, int]] = {}
        self.posting_sizes: dict[int, int] = {}
        self.log: list[PostedWrite] = []
        self.trapped_count = 0
        self.cycle = 0
        self.device: Device | None = None
        #: Interrupts by the offsets of the registers that read and clear their bits.
        self.status: dict[int, Status] = {}
        self.clear: dict[int, Status] = {}

    def attach(self, device: Device) -> None:
        self.device = device

    # Wiring.

    def latch(self, offset: int, size: int, value: int) -> None:
        assert 0 <= value < 1 << (8 * size)
        self.latched[offset] = (size, value)

    def post(self, offset: int, size: int) -> None:
        self.posting_sizes[offset] = size

    def trap(self, offset: int, size: int) -> None:
        self.latched.pop(offset, None)
        self.posting_sizes.pop(offset, None)

    # A guest's accesses.

    def read(self, offset: int, size: int = 4) -> int:
        self.cycle += 1
        latched_size, latched = self.latched.get(offset, (0, 0))
        if offset in self.status:
            latched_size, latched = 4, self.status[offset].bits
        if self.posting and size <= latched_size:
            if not self.log:
                self._check_latched(offset, size, latched)
            return latched & ((1 << (8 * size)) - 1)
        self.end_round()
        self.trapped_count += 1
        return self.device.read(offset, size)

    def write(self, offset: int, value: int, size: int = 4) -> None:
        self.cycle += 1
        if self.posting and size == 4 and offset in self.clear:
            self.clear[offset].update(cleared=value)
            return
        if self.posting and size <= self.posting_sizes.get(offset, 0):
            self.log.append(PostedWrite(self.cycle, offset, size, value))
            return
        self.end_round()
        self.trapped_count += 1
        self.device.write(offset, size, value)

    def end_round(self) -> None:
        log, self.log = self.log, []
        if log:
            self.device.posted(log)

    def _check_latched(self, offset: int, size: int, latched: int) -> None:
        before = self.device.save()
        assert self.device.read(offset, size) == latched & ((1 << (8 * size)) - 1)
        assert self.device.save() == before
