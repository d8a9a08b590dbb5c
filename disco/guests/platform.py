"""The platform of a VM: what is where in its physical memory, and which interrupt line it drives.

    0x00000000  RAM, up to 256 MiB
    0x1e000000  virtio-mmio slots, one page each
    0x1e100000  peripherals, one page each
    0x1f000000  16550 console
    0x1f001000  reset register
    0x1fba0000  global interrupt controller, power controller, coherence manager (several vCPUs only)
    0x20000000  the rest of RAM

A device has a page of its own, so that the monitor can leave exactly that page unmapped and every
access to it comes to us. The devices lie in the lowest 512 MiB, which a kernel reaches uncached
through KSEG1 before it has any mapping, and above 256 MiB, because a MIPS kernel keeps memory in
sections of that size. The rest of RAM follows at once, so that a table with a row a physical page
has as few unused rows as possible.

Lines are the CPU's own: Cause.IP2 to Cause.IP7. Line 7 is the timer (IntCtl.IPTI); the virtio
slots share four lines between them and the driver asks each device on the line. Peripherals have what is left
of these, or else the console's. With several vCPUs a device drives the source of the same number at the global
interrupt controller instead, and each peripheral has one of its own.

Source: the MIPS-generic kernel of Linux 6.1 takes any such map from its device tree.
"""

from __future__ import annotations

from dataclasses import dataclass

from disco.errors import ConfigError

PAGE_SIZE = 0x1000

RAM_LOW_SIZE_MAX = 0x1000_0000
RAM_HIGH_BASE = 0x2000_0000
#: 64 GiB: a 64-bit kernel without large physical addresses (Config3.LPA = 0) has 36 address bits.
RAM_END_MAX = 1 << 36

VIRTIO_BASE = 0x1E00_0000
VIRTIO_STRIDE = PAGE_SIZE
VIRTIO_SIZE = 0x200
VIRTIO_LINES = (2, 3, 5, 6)
VIRTIO_COUNT_MAX = 32

PERIPHERAL_BASE = 0x1E10_0000
PERIPHERAL_COUNT_MAX = 8
#: The first's at the global interrupt controller.
PERIPHERAL_SOURCE = 16

UART_BASE = 0x1F00_0000
UART_LINE = 4
#: Registers are 32 bits wide and 4 bytes apart: a plain word access on either byte order.
UART_REGISTER_SHIFT = 2
UART_REGISTER_WIDTH = 4
UART_REGISTER_COUNT = 8
UART_CLOCK_HZ = 3_686_400
UART_BAUD = 115_200

RESET_BASE = 0x1F00_1000
#: What a guest writes to the reset register in order to be restarted.
RESET_VALUE = 0x42

#: Debian's kernel is built for as many (NR_CPUS).
VCPU_COUNT_MAX = 16

#: As the engine's `machine::coherence` has them.
GIC_BASE = 0x1FBA_0000
GIC_SIZE = 0x2_0000
CPC_BASE = 0x1FBE_0000
CPC_SIZE = 0x8000

TIMER_LINE = 7
#: Count goes at half of this: 100 MHz.
CPU_CLOCK_HZ = 200_000_000


@dataclass(frozen=True)
class Region:
    """A range of physical addresses; `size` in bytes."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """The first address behind the region."""
        return self.base + self.size

    def holds(self, address: int, size: int = 1) -> bool:
        """Whether all `size` bytes from `address` lie in the region."""
        return self.base <= address and address + size <= self.end


@dataclass(frozen=True)
class VirtioSlot:
    """A place for one virtio-mmio device."""

    index: int
    region: Region
    line: int


@dataclass(frozen=True)
class PeripheralSlot:
    """A place for a device of somebody's own; `compatible` is what its driver looks for."""

    compatible: str
    region: Region
    line: int


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One VM's platform.

    Attributes:
        memory_bytes: RAM of the VM, a multiple of 4 KiB.
        vcpu_count: virtual CPUs.
        virtio_count: virtio slots that the guest is told of; an unused slot costs it a probe.
        peripherals: what the driver of each peripheral looks for.
        clock_hz: frequency of the CPU clock; Count goes at half of it.

    Raises:
        ConfigError: no VM can have this.
    """

    memory_bytes: int
    vcpu_count: int = 1
    virtio_count: int = 0
    peripherals: tuple[str, ...] = ()
    clock_hz: int = CPU_CLOCK_HZ
    uart: Region = Region(UART_BASE, PAGE_SIZE)
    reset: Region = Region(RESET_BASE, PAGE_SIZE)

    def __post_init__(self) -> None:
        if self.memory_bytes <= 0 or self.memory_bytes % PAGE_SIZE:
            raise ConfigError(
                f"VM memory: {self.memory_bytes} bytes asked; a multiple of {PAGE_SIZE} is possible"
            )
        if self.ram[-1].end > RAM_END_MAX:
            most_mib = (RAM_END_MAX - RAM_HIGH_BASE + RAM_LOW_SIZE_MAX) >> 20
            raise ConfigError(
                f"VM memory: {self.memory_bytes >> 20} MiB asked; up to {most_mib} MiB is possible"
            )
        if not 0 <= self.virtio_count <= VIRTIO_COUNT_MAX:
            raise ConfigError(
                f"virtio devices: {self.virtio_count} asked; 0 to {VIRTIO_COUNT_MAX} are possible"
            )
        if len(self.peripherals) > PERIPHERAL_COUNT_MAX:
            raise ConfigError(
                f"peripherals: {len(self.peripherals)} asked;"
                f" up to {PERIPHERAL_COUNT_MAX} are possible"
            )
        for compatible in self.peripherals:
            if not compatible.isascii() or not compatible.isprintable() or not compatible:
                raise ConfigError(f"peripheral {compatible!r} asked; printable ASCII is possible")
        if not 1 <= self.vcpu_count <= VCPU_COUNT_MAX:
            raise ConfigError(
                f"vCPUs of a VM: {self.vcpu_count} asked; Debian's kernel takes 1 to {VCPU_COUNT_MAX}"
            )
        if not 2 <= self.clock_hz < 1 << 32 or self.clock_hz % 2:
            raise ConfigError(
                f"CPU clock: {self.clock_hz} Hz asked; an even number below 2^32 is possible"
            )

    @property
    def is_multiprocessor(self) -> bool:
        """Whether there is a global interrupt controller, which devices are wired to then."""
        return self.vcpu_count > 1

    @property
    def ram(self) -> tuple[Region, ...]:
        """RAM by address: up to 256 MiB from 0, the rest from 0x20000000."""
        low = Region(0, min(self.memory_bytes, RAM_LOW_SIZE_MAX))
        if self.memory_bytes <= RAM_LOW_SIZE_MAX:
            return (low,)
        return (low, Region(RAM_HIGH_BASE, self.memory_bytes - RAM_LOW_SIZE_MAX))

    @property
    def virtio(self) -> tuple[VirtioSlot, ...]:
        """The virtio slots; neighbours are on different lines."""
        return tuple(
            VirtioSlot(
                index=index,
                region=Region(VIRTIO_BASE + index * VIRTIO_STRIDE, VIRTIO_SIZE),
                line=VIRTIO_LINES[index % len(VIRTIO_LINES)],
            )
            for index in range(self.virtio_count)
        )

    @property
    def peripheral_slots(self) -> tuple[PeripheralSlot, ...]:
        """The peripherals and their places."""
        left = VIRTIO_LINES[self.virtio_count :] or (UART_LINE,)
        return tuple(
            PeripheralSlot(
                compatible=compatible,
                region=Region(PERIPHERAL_BASE + index * PAGE_SIZE, PAGE_SIZE),
                line=PERIPHERAL_SOURCE + index
                if self.is_multiprocessor
                else left[index % len(left)],
            )
            for index, compatible in enumerate(self.peripherals)
        )
