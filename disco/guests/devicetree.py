"""The device tree: a `Platform` as a kernel reads it.

Only what the kernel needs is in it, because each node costs guest instructions at boot, and nothing
that a real machine would randomise: the same platform, boot arguments and seed give the same bytes.
Some properties deserve a word:

- `rng-seed` is a seed stretched to 32 bytes. Without it the kernel waits for entropy that no device of a
  simulated machine has. `kaslr-seed` is left out: the kernel stays where it was linked, and addresses in a
  trace mean the same in each run.
- Each interrupt controller names its parent, and the CPU's own is its own parent: Linux sets them up
  in that order, and the GIC's handler must come after the CPU's or it is overwritten.
- `syscon-reboot` has only `mask`, the older of its two forms: the kernel writes the whole register
  with it.

Source: Devicetree Specification 0.4; bindings of Linux 6.1 (`ns16550a`, `virtio,mmio`,
`mti,cpu-interrupt-controller`, `syscon-reboot`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import fdt  # type: ignore[import-untyped]

from disco.errors import ConfigError
from disco.guests.platform import (
    CPC_BASE,
    CPC_SIZE,
    GIC_BASE,
    GIC_SIZE,
    RESET_VALUE,
    UART_BAUD,
    UART_CLOCK_HZ,
    UART_LINE,
    UART_REGISTER_COUNT,
    UART_REGISTER_SHIFT,
    UART_REGISTER_WIDTH,
    PeripheralSlot,
    Platform,
    Region,
    VirtioSlot,
)

#: Room that a layout keeps for a tree: 256 CPUs, all slots and the longest command line fit.
SIZE_MAX = 0x1_0000
#: Linux on MIPS cuts what is longer (COMMAND_LINE_SIZE, with the closing zero).
COMMAND_LINE_SIZE_MAX = 4095

_PHANDLE_CLOCK = 1
_PHANDLE_INTERRUPTS = 2
_PHANDLE_RESET = 3
_PHANDLE_GIC = 4

#: How a source of the global interrupt controller is named: shared, number, high level.
_GIC_SHARED = 0
_GIC_LEVEL_HIGH = 4

#: Text, one 32-bit cell, or bytes as they are; empty bytes: a property that is only there.
_Properties = Mapping[str, str | int | bytes]


@dataclass(frozen=True, kw_only=True)
class Boot:
    """What one boot tells the kernel beside the platform.

    Attributes:
        command_line: the kernel command line.
        initrd: where the initrd lies in physical memory, or None.
        seed: what the kernel's random numbers follow from.
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
    tree = fdt.FDT()
    tree.root = _node(
        "/",
        {
            **_cells(address=2, size=2),
            "compatible": "disco,vm",
            "model": "Disco virtual machine",
            "interrupt-parent": (
                _PHANDLE_GIC if platform.is_multiprocessor else _PHANDLE_INTERRUPTS
            ),
        },
        _chosen(boot),
        _node("aliases", {"serial0": f"/soc/serial@{platform.uart.base:x}"}),
        *(_memory(region) for region in platform.ram),
        _cpus(platform),
        *_clock_and_interrupts(platform),
        *(_multiprocessor() if platform.is_multiprocessor else ()),
        _soc(platform),
    )
    dtb: bytes = tree.to_dtb(version=17)
    assert len(dtb) <= SIZE_MAX, f"device tree of {len(dtb)} bytes, room for {SIZE_MAX}"
    return dtb


def rng_seed(seed: int) -> bytes:
    """The 32 bytes from which a kernel starts its random numbers."""
    return hashlib.blake2b(str(seed).encode(), digest_size=32, person=b"disco rng-seed").digest()


def _chosen(boot: Boot) -> fdt.Node:
    properties: dict[str, str | int | bytes] = {
        "bootargs": boot.command_line.encode() + b"\0",
        "stdout-path": f"serial0:{UART_BAUD}",
        "rng-seed": rng_seed(boot.seed),
    }
    if boot.initrd is not None:
        properties["linux,initrd-start"] = _u64s(boot.initrd.base)
        properties["linux,initrd-end"] = _u64s(boot.initrd.end)
    return _node("chosen", properties)


def _memory(region: Region) -> fdt.Node:
    return _node(
        f"memory@{region.base:x}",
        {"device_type": "memory", "reg": _u64s(region.base, region.size)},
    )


def _cpus(platform: Platform) -> fdt.Node:
    vcpus = (
        _node(
            f"cpu@{index:x}",
            {
                "device_type": "cpu",
                "compatible": "mti,mips64r2",
                "reg": index,
                "clocks": _PHANDLE_CLOCK,
            },
        )
        for index in range(platform.vcpu_count)
    )
    return _node("cpus", _cells(address=1, size=0), *vcpus)


def _clock_and_interrupts(platform: Platform) -> tuple[fdt.Node, fdt.Node]:
    clock: _Properties = {
        "compatible": "fixed-clock",
        "#clock-cells": 0,
        "clock-frequency": platform.clock_hz,
        "phandle": _PHANDLE_CLOCK,
    }
    interrupts: _Properties = {
        "compatible": "mti,cpu-interrupt-controller",
        "interrupt-controller": b"",
        "#address-cells": 0,
        "#interrupt-cells": 1,
        "interrupt-parent": _PHANDLE_INTERRUPTS,
        "phandle": _PHANDLE_INTERRUPTS,
    }
    return _node("cpu-clock", clock), _node("interrupt-controller", interrupts)


def _soc(platform: Platform) -> fdt.Node:
    return _node(
        "soc",
        {"compatible": "simple-bus", **_cells(address=2, size=2), "ranges": b""},
        _uart(platform),
        *_reset(platform.reset),
        *(_virtio(platform, slot) for slot in platform.virtio),
        *(_peripheral(platform, slot) for slot in platform.peripheral_slots),
    )


def _multiprocessor() -> tuple[fdt.Node, fdt.Node]:
    gic: _Properties = {
        "compatible": "mti,gic",
        "reg": _u64s(GIC_BASE, GIC_SIZE),
        "interrupt-controller": b"",
        "#address-cells": 0,
        "#interrupt-cells": 3,
        "interrupt-parent": _PHANDLE_INTERRUPTS,
        "phandle": _PHANDLE_GIC,
    }
    cpc: _Properties = {"compatible": "mti,mips-cpc", "reg": _u64s(CPC_BASE, CPC_SIZE)}
    return (
        _node(f"interrupt-controller@{GIC_BASE:x}", gic),
        _node(f"power-controller@{CPC_BASE:x}", cpc),
    )


def _interrupt(platform: Platform, line: int) -> int | bytes:
    """A device's interrupt: a line of the CPU, or the source of that number at the GIC."""
    if not platform.is_multiprocessor:
        return line
    return b"".join(cell.to_bytes(4, "big") for cell in (_GIC_SHARED, line, _GIC_LEVEL_HIGH))


def _uart(platform: Platform) -> fdt.Node:
    uart = platform.uart
    return _node(
        f"serial@{uart.base:x}",
        {
            "compatible": "ns16550a",
            "reg": _u64s(uart.base, UART_REGISTER_COUNT << UART_REGISTER_SHIFT),
            "reg-shift": UART_REGISTER_SHIFT,
            "reg-io-width": UART_REGISTER_WIDTH,
            "clock-frequency": UART_CLOCK_HZ,
            "interrupts": _interrupt(platform, UART_LINE),
        },
    )


def _reset(reset: Region) -> tuple[fdt.Node, fdt.Node]:
    register: _Properties = {
        "compatible": "syscon",
        "reg": _u64s(reset.base, 4),
        "phandle": _PHANDLE_RESET,
    }
    reboot: _Properties = {
        "compatible": "syscon-reboot",
        "regmap": _PHANDLE_RESET,
        "offset": 0,
        "mask": RESET_VALUE,
    }
    return _node(f"syscon@{reset.base:x}", register), _node("reboot", reboot)


def _virtio(platform: Platform, slot: VirtioSlot) -> fdt.Node:
    return _node(
        f"virtio@{slot.region.base:x}",
        {
            "compatible": "virtio,mmio",
            "reg": _u64s(slot.region.base, slot.region.size),
            "interrupts": _interrupt(platform, slot.line),
        },
    )


def _peripheral(platform: Platform, slot: PeripheralSlot) -> fdt.Node:
    return _node(
        f"peripheral@{slot.region.base:x}",
        {
            "compatible": slot.compatible,
            "reg": _u64s(slot.region.base, slot.region.size),
            "interrupts": _interrupt(platform, slot.line),
        },
    )


def _cells(*, address: int, size: int) -> _Properties:
    return {"#address-cells": address, "#size-cells": size}


def _u64s(*values: int) -> bytes:
    return b"".join(value.to_bytes(8, "big") for value in values)


def _node(name: str, properties: _Properties, *children: fdt.Node) -> fdt.Node:
    node = fdt.Node(name)
    for key, value in properties.items():
        node.append(_property(key, value))
    for child in children:
        node.append(child)
    return node


def _property(name: str, value: str | int | bytes) -> fdt.Property:
    if value == b"":
        return fdt.Property(name)
    if isinstance(value, bytes):
        return fdt.PropBytes(name, data=value)
    return fdt.PropStrings(name, value) if isinstance(value, str) else fdt.PropWords(name, value)
