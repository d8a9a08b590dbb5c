"""The device tree: a `Platform` as a kernel reads it.

Only what the kernel needs is in it, because each node costs guest instructions at boot, and nothing
that a real machine would randomise: the same platform, boot arguments and seed give the same bytes.
Two properties deserve a word:

- `rng-seed` is the run's seed stretched to 32 bytes. Without it the kernel waits for entropy that
  no device of a simulated machine has. `kaslr-seed` is left out: the kernel stays where it was
  linked, and addresses in a trace mean the same in each run.
- `syscon-reboot` has only `mask`, the older of its two forms: the kernel writes the whole register
  with it.

Source: Devicetree Specification 0.4; bindings of Linux 6.1 (`ns16550a`, `virtio,mmio`,
`mti,cpu-interrupt-controller`, `syscon-reboot`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import libfdt  # type: ignore[import-untyped]

from disco.errors import ConfigError
from disco.guests.platform import (
    RESET_VALUE,
    UART_BAUD,
    UART_CLOCK_HZ,
    UART_LINE,
    UART_REGISTER_COUNT,
    UART_REGISTER_SHIFT,
    UART_REGISTER_WIDTH,
    Platform,
    Region,
)

#: Room that a layout keeps for a tree: 256 CPUs, all slots and the longest command line fit.
SIZE_MAX = 0x1_0000
#: Linux on MIPS cuts what is longer (COMMAND_LINE_SIZE, with the closing zero).
COMMAND_LINE_SIZE_MAX = 4095

_PHANDLE_CLOCK = 1
_PHANDLE_INTERRUPTS = 2
_PHANDLE_RESET = 3


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What one boot tells the kernel beside the platform.

    Attributes:
        command_line: the kernel command line.
        initrd: where the initrd lies in physical memory, or None.
        seed: the run's seed; the kernel's random numbers follow from it.
    """

    command_line: str = ""
    initrd: Region | None = None
    seed: int = 0


def build(platform: Platform, boot: Boot) -> bytes:
    """The flattened device tree for one boot of `platform`.

    Raises:
        ConfigError: the command line is longer than a kernel takes.
    """
    if len(boot.command_line.encode()) > COMMAND_LINE_SIZE_MAX:
        raise ConfigError(
            f"kernel command line: {len(boot.command_line.encode())} bytes asked;"
            f" up to {COMMAND_LINE_SIZE_MAX} are possible"
        )
    tree = libfdt.FdtSw()
    tree.finish_reservemap()
    with _node(tree, ""):
        _cells(tree, address=2, size=2)
        tree.property_string("compatible", "disco,vm")
        tree.property_string("model", "Disco virtual machine")
        tree.property_u32("interrupt-parent", _PHANDLE_INTERRUPTS)
        _write_chosen(tree, boot)
        with _node(tree, "aliases"):
            tree.property_string("serial0", f"/soc/serial@{platform.uart.base:x}")
        _write_memory(tree, platform)
        _write_cpus(tree, platform)
        _write_soc(tree, platform)
    dtb = bytes(tree.as_fdt().as_bytearray())
    assert len(dtb) <= SIZE_MAX, f"device tree of {len(dtb)} bytes, room for {SIZE_MAX}"
    return dtb


def rng_seed(seed: int) -> bytes:
    """The 32 bytes from which a kernel starts its random numbers, by the run's seed."""
    return hashlib.blake2b(str(seed).encode(), digest_size=32, person=b"disco rng-seed").digest()


def _write_chosen(tree: libfdt.FdtSw, boot: Boot) -> None:
    with _node(tree, "chosen"):
        tree.property_string("bootargs", boot.command_line)
        tree.property_string("stdout-path", f"serial0:{UART_BAUD}")
        tree.property("rng-seed", rng_seed(boot.seed))
        if boot.initrd is not None:
            tree.property_u64("linux,initrd-start", boot.initrd.base)
            tree.property_u64("linux,initrd-end", boot.initrd.end)


def _write_memory(tree: libfdt.FdtSw, platform: Platform) -> None:
    for region in platform.ram:
        with _node(tree, f"memory@{region.base:x}"):
            tree.property_string("device_type", "memory")
            tree.property("reg", _u64s(region.base, region.size))


def _write_cpus(tree: libfdt.FdtSw, platform: Platform) -> None:
    with _node(tree, "cpus"):
        _cells(tree, address=1, size=0)
        for index in range(platform.vcpu_count):
            with _node(tree, f"cpu@{index:x}"):
                tree.property_string("device_type", "cpu")
                tree.property_string("compatible", "mti,mips64r2")
                tree.property_u32("reg", index)
                tree.property_u32("clocks", _PHANDLE_CLOCK)
    with _node(tree, "cpu-clock"):
        tree.property_string("compatible", "fixed-clock")
        tree.property_u32("#clock-cells", 0)
        tree.property_u32("clock-frequency", platform.clock_hz)
        tree.property_u32("phandle", _PHANDLE_CLOCK)
    with _node(tree, "interrupt-controller"):
        tree.property_string("compatible", "mti,cpu-interrupt-controller")
        tree.property("interrupt-controller", b"")
        tree.property_u32("#address-cells", 0)
        tree.property_u32("#interrupt-cells", 1)
        tree.property_u32("phandle", _PHANDLE_INTERRUPTS)


def _write_soc(tree: libfdt.FdtSw, platform: Platform) -> None:
    with _node(tree, "soc"):
        tree.property_string("compatible", "simple-bus")
        _cells(tree, address=2, size=2)
        tree.property("ranges", b"")
        _write_uart(tree, platform.uart)
        _write_reset(tree, platform.reset)
        for slot in platform.virtio:
            with _node(tree, f"virtio@{slot.region.base:x}"):
                tree.property_string("compatible", "virtio,mmio")
                tree.property("reg", _u64s(slot.region.base, slot.region.size))
                tree.property_u32("interrupts", slot.line)


def _write_uart(tree: libfdt.FdtSw, uart: Region) -> None:
    with _node(tree, f"serial@{uart.base:x}"):
        tree.property_string("compatible", "ns16550a")
        tree.property("reg", _u64s(uart.base, UART_REGISTER_COUNT << UART_REGISTER_SHIFT))
        tree.property_u32("reg-shift", UART_REGISTER_SHIFT)
        tree.property_u32("reg-io-width", UART_REGISTER_WIDTH)
        tree.property_u32("clock-frequency", UART_CLOCK_HZ)
        tree.property_u32("interrupts", UART_LINE)


def _write_reset(tree: libfdt.FdtSw, reset: Region) -> None:
    with _node(tree, f"syscon@{reset.base:x}"):
        tree.property_string("compatible", "syscon")
        tree.property("reg", _u64s(reset.base, 4))
        tree.property_u32("phandle", _PHANDLE_RESET)
    with _node(tree, "reboot"):
        tree.property_string("compatible", "syscon-reboot")
        tree.property_u32("regmap", _PHANDLE_RESET)
        tree.property_u32("offset", 0)
        tree.property_u32("mask", RESET_VALUE)


@contextmanager
def _node(tree: libfdt.FdtSw, name: str) -> Iterator[None]:
    tree.begin_node(name)
    yield
    tree.end_node()


def _cells(tree: libfdt.FdtSw, *, address: int, size: int) -> None:
    tree.property_u32("#address-cells", address)
    tree.property_u32("#size-cells", size)


def _u64s(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "big") for value in values)
