"""The guest's half of virtio, the naive way: a driver that sets up queues and submits chains.

Descriptors are taken in random order, rings lie where the driver likes, and nothing is checked: a
hostile test writes over what the driver wrote.
"""

from __future__ import annotations

import random
import struct

from model_bus import Line, ModelBus, Ram, Status

from disco.devices.virtio.device import VirtioDevice
from disco.devices.virtio.mmio import Reg, VirtioMmio

RAM_BYTES = 1 << 20
NEXT, WRITE, INDIRECT = 1, 2, 4
VERSION_1 = 1 << 32
INDIRECT_DESC = 1 << 28


class Ring:
    """One queue as the driver keeps it."""

    def __init__(self, driver: Driver, index: int, size: int, at: int) -> None:
        self.driver = driver
        self.index = index
        self.size = size
        self.descriptors = at
        self.avail = at + 16 * size
        self.used = (self.avail + 4 + 2 * size + 3) & ~3
        self.end = self.used + 4 + 8 * size
        self.avail_index = 0
        self.used_index = 0
        self.free = list(range(size))
        driver.rng.shuffle(self.free)
        self.chains: dict[int, list[int]] = {}
        driver.ram.write(at, bytes(self.end - at))

    def put(self, index: int, paddr: int, length: int, flags: int, following: int) -> None:
        entry = struct.pack("<QIHH", paddr, length, flags, following)
        self.driver.ram.write(self.descriptors + 16 * index, entry)

    def offer(self, *heads: int) -> None:
        """Writes heads into the avail ring and lets the device see them."""
        for head in heads:
            slot = self.avail + 4 + 2 * (self.avail_index % self.size)
            self.driver.ram.write(slot, struct.pack("<H", head))
            self.avail_index = (self.avail_index + 1) % 65536
        self.driver.ram.write(self.avail + 2, struct.pack("<H", self.avail_index))

    def submit(self, readable, writable, *, indirect: int | None = None) -> int:
        """Offers a chain of (paddr, length) lists; `indirect` is where to put an indirect table."""
        buffers = [(p, n, 0) for p, n in readable] + [(p, n, WRITE) for p, n in writable]
        if indirect is not None:
            table = b"".join(
                struct.pack("<QIHH", p, n, f | (NEXT if i + 1 < len(buffers) else 0), i + 1)
                for i, (p, n, f) in enumerate(buffers)
            )
            self.driver.ram.write(indirect, table)
            buffers = [(indirect, len(table), INDIRECT)]
        taken = [self.free.pop() for _ in buffers]
        for place, (paddr, length, flags) in enumerate(buffers):
            is_last = place + 1 == len(taken)
            following = 0 if is_last else taken[place + 1]
            self.put(taken[place], paddr, length, flags | (0 if is_last else NEXT), following)
        self.chains[taken[0]] = taken
        self.offer(taken[0])
        return taken[0]

    def notify(self) -> None:
        self.driver.bus.write(0x50, self.index)

    def collect(self) -> dict[int, int]:
        """Takes back what the device has used: head to bytes written."""
        ram, done = self.driver.ram, {}
        (index,) = struct.unpack("<H", ram.read(self.used + 2, 2))
        while self.used_index != index:
            slot = self.used + 4 + 8 * (self.used_index % self.size)
            head, written = struct.unpack("<II", ram.read(slot, 8))
            self.free += self.chains.pop(head)
            done[head] = written
            self.used_index = (self.used_index + 1) % 65536
        self.driver.rng.shuffle(self.free)
        return done


class Driver:
    """A virtio driver on a model bus with its own RAM."""

    def __init__(
        self,
        device: VirtioDevice,
        *,
        name: str = "virtio 0",
        posting: bool = True,
        ram: Ram | None = None,
        seed: int = 0,
    ) -> None:
        self.rng = random.Random(seed)
        self.ram = ram or Ram(RAM_BYTES)
        self.line = Line()
        self.bus = ModelBus(posting=posting)
        self.device = device
        status = Status(self.line)
        self.bus.status[Reg.INTERRUPT_STATUS] = self.bus.clear[Reg.INTERRUPT_ACK] = status
        self.mmio = VirtioMmio(
            name=name, device=device, memory=self.ram, interrupt=status, wiring=self.bus
        )
        self.bus.attach(self.mmio)
        self.rings: list[Ring] = []

    def read(self, offset: int) -> int:
        return self.bus.read(offset)

    def write(self, offset: int, value: int) -> None:
        self.bus.write(offset, value)

    def offered_features(self) -> int:
        features = 0
        for word in (0, 1):
            self.write(0x14, word)
            features |= self.read(0x10) << (32 * word)
        return features

    def negotiate(self, *, without: int = 0) -> None:
        self.write(0x70, 0)
        self.write(0x70, 1)
        self.write(0x70, 3)
        features = self.offered_features() & ~without
        for word in (0, 1):
            self.write(0x24, word)
            self.write(0x20, features >> (32 * word) & 0xFFFFFFFF)
        self.write(0x70, 11)

    def set_up_ring(self, index: int, *, size: int, at: int) -> Ring:
        ring = Ring(self, index, size, at)
        self.write(0x30, index)
        self.write(0x38, size)
        for low, paddr in ((0x80, ring.descriptors), (0x90, ring.avail), (0xA0, ring.used)):
            self.write(low, paddr & 0xFFFFFFFF)
            self.write(low + 4, paddr >> 32)
        return ring

    def start(self, *, size: int = 16, without: int = 0) -> Driver:
        """Brings the device all the way to DRIVER_OK with rings of `size`."""
        self.rings.clear()
        self.negotiate(without=without)
        assert self.read(0x70) == 11
        at = self.ram.base + 0x1000
        for index in range(len(self.device.queue_sizes_max)):
            ring = self.set_up_ring(index, size=size, at=at)
            self.write(0x44, 1)
            assert self.read(0x44) == 1
            self.rings.append(ring)
            at = (ring.end + 0xFFF) & ~0xFFF
        self.write(0x70, 15)
        return self

    def finish_round(self) -> None:
        """Ends the round and handles the interrupt as Linux does: read the status, acknowledge."""
        self.bus.end_round()
        if self.line.level:
            self.write(0x64, self.read(0x60))
