"""The device tree, read back by the reference library (libfdt) and by dtc."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

import pytest

from disco.errors import ConfigError
from disco.guests import devicetree, platform
from disco.guests.devicetree import Boot
from disco.guests.platform import Platform, Region

# Comes as source only: where it cannot be built, the tree has no second opinion.
libfdt = pytest.importorskip("libfdt")

MIB = 1 << 20
FULL = Platform(memory_bytes=512 * MIB, virtio_count=5)
TWO_VCPUS = Platform(memory_bytes=512 * MIB, vcpu_count=2, virtio_count=5)
BOOT = Boot(command_line="console=ttyS0", initrd=Region(0x401_0000, 4_902_400), seed=7)


def cells(tree: Any, path: str, name: str) -> list[int]:
    value = bytes(tree.getprop(tree.path_offset(path), name))
    return [int.from_bytes(value[i : i + 4], "big") for i in range(0, len(value), 4)]


def text(tree: Any, path: str, name: str) -> str:
    return str(tree.getprop(tree.path_offset(path), name).as_str())


def test_ram_is_where_the_platform_has_it() -> None:
    tree = libfdt.Fdt(devicetree.build(FULL, BOOT))
    assert cells(tree, "/memory@0", "reg") == [0, 0, 0, 0x1000_0000]
    assert cells(tree, "/memory@20000000", "reg") == [0, 0x2000_0000, 0, 0x1000_0000]


def test_every_device_of_the_platform_is_in_the_tree() -> None:
    tree = libfdt.Fdt(devicetree.build(FULL, BOOT))
    for slot in FULL.virtio:
        path = f"/soc/virtio@{slot.region.base:x}"
        assert text(tree, path, "compatible") == "virtio,mmio"
        assert cells(tree, path, "reg") == [0, slot.region.base, 0, 0x200]
        assert cells(tree, path, "interrupts") == [slot.line]
    uart = f"/soc/serial@{FULL.uart.base:x}"
    assert cells(tree, uart, "reg") == [0, 0x1F00_0000, 0, 0x20]
    assert cells(tree, uart, "reg-shift") == [2]
    assert text(tree, "/aliases", "serial0") == uart
    assert cells(tree, "/soc/reboot", "mask") == [platform.RESET_VALUE]
    regmap = tree.node_offset_by_phandle(cells(tree, "/soc/reboot", "regmap")[0])
    assert tree.get_name(regmap) == f"syscon@{FULL.reset.base:x}"


def test_devices_of_a_vm_with_several_vcpus_are_wired_to_its_global_controller() -> None:
    tree = libfdt.Fdt(devicetree.build(TWO_VCPUS, BOOT))
    gic = tree.node_offset_by_phandle(cells(tree, "/", "interrupt-parent")[0])
    assert tree.getprop(gic, "compatible").as_str() == "mti,gic"
    shared, level_high = 0, 4  # by the binding
    for slot in TWO_VCPUS.virtio:
        path = f"/soc/virtio@{slot.region.base:x}"
        assert cells(tree, path, "interrupts") == [shared, slot.line, level_high]
    alone = libfdt.Fdt(devicetree.build(FULL, BOOT))
    assert alone.path_offset(f"/{tree.get_name(gic)}", libfdt.QUIET_NOTFOUND) < 0


def test_each_vcpu_has_the_clock() -> None:
    tree = libfdt.Fdt(devicetree.build(TWO_VCPUS, BOOT))
    for index in range(2):
        assert cells(tree, f"/cpus/cpu@{index}", "reg") == [index]
        clock = tree.node_offset_by_phandle(cells(tree, f"/cpus/cpu@{index}", "clocks")[0])
        assert tree.getprop(clock, "clock-frequency").as_uint32() == FULL.clock_hz
    assert tree.path_offset("/cpus/cpu@2", libfdt.QUIET_NOTFOUND) < 0


def test_chosen_says_what_this_boot_is() -> None:
    tree = libfdt.Fdt(devicetree.build(FULL, BOOT))
    assert text(tree, "/chosen", "bootargs") == "console=ttyS0"
    assert cells(tree, "/chosen", "linux,initrd-start") == [0, 0x401_0000]
    assert cells(tree, "/chosen", "linux,initrd-end") == [0, 0x401_0000 + 4_902_400]
    assert len(tree.getprop(tree.path_offset("/chosen"), "rng-seed")) == 32
    bare = libfdt.Fdt(devicetree.build(FULL, Boot()))
    assert not bare.hasprop(bare.path_offset("/chosen"), "linux,initrd-start")


def test_the_same_seed_gives_the_same_tree_and_another_seed_another() -> None:
    assert devicetree.build(FULL, BOOT) == devicetree.build(FULL, BOOT)
    assert devicetree.rng_seed(7) != devicetree.rng_seed(8)


def test_the_largest_tree_fits_into_the_room_kept_for_it() -> None:
    largest = Platform(memory_bytes=1 << 34, vcpu_count=16, virtio_count=32)
    tree = devicetree.build(largest, Boot(command_line="x" * devicetree.COMMAND_LINE_SIZE_MAX))
    assert len(tree) <= devicetree.SIZE_MAX
    with pytest.raises(ConfigError, match="4096 bytes asked; up to 4095"):
        devicetree.build(largest, Boot(command_line="x" * 4096))


@pytest.mark.skipif(shutil.which("dtc") is None, reason="needs dtc")
@pytest.mark.parametrize("vm", [FULL, TWO_VCPUS], ids=["one vCPU", "two vCPUs"])
def test_dtc_has_no_complaint(vm: Platform) -> None:
    result = subprocess.run(
        ["dtc", "-I", "dtb", "-O", "dts", "-"],
        input=devicetree.build(vm, BOOT), capture_output=True, check=True,
    )  # fmt: skip
    # A node without `reg` in a bus: the form that the binding of syscon-reboot asks for.
    complaints = [line for line in result.stderr.decode().splitlines() if "/soc/reboot" not in line]
    assert complaints == []
