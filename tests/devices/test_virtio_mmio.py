"""The register window: set-up as the specification orders it, and what it forbids."""

from __future__ import annotations

import pytest
from model_bus import Ram
from virtio_driver import Driver

from disco.devices.virtio.console import VirtioConsole
from disco.devices.virtio.rng import VirtioRng
from disco.errors import ConfigError, DeviceError, ImageError

RAM_END = 1 << 20


def rng_driver(**options) -> Driver:
    return Driver(VirtioRng(seed=1), name="virtio-rng 0", **options)


@pytest.mark.parametrize(
    ("offset", "size", "value"),
    [
        (0x000, 4, 0x74726976),
        (0x004, 4, 2),
        (0x008, 4, 4),
        (0x00C, 4, 0x4F435344),
        (0x034, 4, 8),
        (0x044, 4, 0),
        (0x060, 4, 0),
        (0x070, 4, 0),
        (0x0B0, 4, 0xFFFFFFFF),  # no shared memory region: length -1
        (0x0FC, 4, 0),
        (0x018, 4, 0),  # reserved
        (0x1FC, 4, 0),  # past the configuration
        (0x000, 8, 0x2_74726976),
        (0x002, 2, 0x7472),
        (0x003, 1, 0x74),
    ],
)
def test_registers_read_as_documented(offset, size, value):
    assert rng_driver().bus.read(offset, size) == value
    assert rng_driver(posting=False).bus.read(offset, size) == value


def test_feature_words_past_the_second_are_zero():
    driver = rng_driver()
    driver.write(0x14, 2)
    assert driver.read(0x10) == 0


def test_access_platform_is_not_offered():
    assert rng_driver().offered_features() == 1 << 32 | 1 << 28


@pytest.mark.parametrize(
    ("features", "is_accepted"),
    [
        (0, False),  # VERSION_1 is not optional
        (1 << 32 | 1 << 33, False),  # ACCESS_PLATFORM was not offered
        (1 << 32 | 1 << 29, False),  # nor EVENT_IDX
        (1 << 32, True),
        (1 << 32 | 1 << 28, True),
    ],
)
def test_features_ok_sticks_only_for_a_set_that_was_offered(features, is_accepted):
    driver = rng_driver()
    driver.write(0x70, 3)
    for word in (0, 1):
        driver.write(0x24, word)
        driver.write(0x20, features >> (32 * word) & 0xFFFFFFFF)
    driver.write(0x70, 11)
    assert driver.read(0x70) == (11 if is_accepted else 3)
    driver.write(0x70, 0x80 | driver.read(0x70))  # a driver that gives up may say so
    driver.write(0x70, 0)
    assert driver.read(0x70) == 0


def write_all(driver: Driver, writes) -> None:
    for offset, value in writes:
        driver.write(offset, value)
    driver.bus.end_round()


@pytest.mark.parametrize(
    ("writes", "words"),
    [
        ([(0x70, 4)], "DRIVER_OK without FEATURES_OK"),
        ([(0x70, 3), (0x70, 1)], "Status bits 0x2 cleared without a reset"),
        ([(0x24, 2), (0x20, 1)], "DriverFeatures 0x1 in word 2"),
        ([(0x44, 1)], "queue 0 made ready before FEATURES_OK"),
        ([(0x30, 1), (0x38, 8)], "QueueNum written for queue 1 of 1"),
        ([(0x30, 0xFFFFFFFF), (0x80, 8)], "written for queue 4294967295 of 1"),
        ([(0x50, 1)], "queue 1 notified, there are 1"),
    ],
)
def test_what_the_specification_forbids_is_a_device_error(writes, words):
    with pytest.raises(DeviceError, match=words) as caught:
        write_all(rng_driver(), writes)
    assert caught.value.device == "virtio-rng 0"


@pytest.mark.parametrize("offset", [0x70, 0x50, 0x44, 0x60])
@pytest.mark.parametrize("size", [1, 2, 8])
@pytest.mark.parametrize("posting", [True, False])
def test_a_register_written_with_another_width_is_a_device_error(offset, size, posting):
    driver = rng_driver(posting=posting)
    with pytest.raises(DeviceError, match="registers take 4"):
        driver.bus.write(offset, 0, size)
        driver.bus.end_round()


@pytest.mark.parametrize(
    ("size", "areas", "words"),
    [
        (None, {}, "size 0 is not a power of two"),
        (0, {}, "size 0 is not a power of two"),
        (3, {}, "size 3 is not a power of two"),
        (16, {}, "size 16 is not a power of two up to 8"),
        (0xFFFFFFFF, {}, "size 4294967295 is not"),
        (8, {}, "ready without an address for the descriptor table"),
        (8, {0x80: 0x1000}, "ready without an address for the avail ring"),
        (8, {0x80: 0x1000, 0x90: 0x2000}, "ready without an address for the used ring"),
        (8, {0x80: 0x1008, 0x90: 0x2000, 0xA0: 0x3000}, "not aligned to 16"),
        (8, {0x80: 0x1000, 0x90: 0x2001, 0xA0: 0x3000}, "not aligned to 2"),
        (8, {0x80: 0x1000, 0x90: 0x2000, 0xA0: 0x3002}, "not aligned to 4"),
        (8, {0x80: 0x1000, 0x90: 0x2000, 0xA0: RAM_END - 64}, "used ring: physical range"),
        (8, {0x80: RAM_END, 0x90: 0x2000, 0xA0: 0x3000}, "descriptor table: physical range"),
        (8, {0x80: 0x1000, 0x90: RAM_END - 18, 0xA0: 0x3000}, "avail ring: physical range"),
        (8, {0x80: 0xFFFFFFF0, 0x84: 0xFFFFFFFF, 0x90: 0, 0xA0: 0}, "0xfffffffffffffff0"),
    ],
)
def test_a_queue_that_cannot_work_is_refused_when_made_ready(size, areas, words):
    driver = rng_driver()
    driver.negotiate()
    if size is not None:
        driver.write(0x38, size)
    for offset, value in areas.items():
        driver.write(offset, value)
    with pytest.raises(DeviceError, match=words):
        driver.write(0x44, 1)
    assert driver.read(0x44) == 0


def test_areas_may_lie_above_4_gib_and_end_with_ram():
    base = 1 << 33
    driver = rng_driver(ram=Ram(1 << 16, base=base)).start(size=8)
    (ring,) = driver.rings
    ring.submit([], [(base + 0x8000, 32)])
    ring.notify()
    driver.finish_round()
    assert ring.collect() != {}


def test_a_ready_queue_may_not_be_rewritten_but_may_be_stopped():
    driver = rng_driver().start(size=8)
    for offset in (0x38, 0x80, 0xA4, 0x44):
        with pytest.raises(DeviceError, match="while queue 0 is ready"):
            driver.write(offset, 1)
    driver.write(0x44, 0)
    assert driver.read(0x44) == 0
    with pytest.raises(DeviceError, match="queue 0 notified, which is not ready"):
        write_all(driver, [(0x50, 0)])


def test_features_may_not_change_after_features_ok():
    driver = rng_driver().start(size=8)
    with pytest.raises(DeviceError, match="DriverFeatures written after FEATURES_OK"):
        driver.write(0x20, 0)


def test_stopping_a_queue_that_does_not_exist_is_ignored():
    driver = rng_driver()
    driver.write(0x30, 7)
    driver.write(0x44, 0)
    assert driver.read(0x34) == 0
    assert driver.read(0x44) == 0


def test_buffers_offered_before_driver_ok_are_served_then():
    driver = rng_driver()
    driver.negotiate()
    ring = driver.set_up_ring(0, size=8, at=0x1000)
    driver.write(0x44, 1)
    ring.submit([], [(0x8000, 16)])
    ring.notify()
    driver.bus.end_round()
    assert ring.collect() == {}
    driver.write(0x70, 15)
    assert len(ring.collect()) == 1


def test_a_failed_driver_is_served_no_more():
    driver = rng_driver().start(size=8)
    driver.write(0x70, 0x8F)
    driver.rings[0].submit([], [(0x8000, 16)])
    driver.rings[0].notify()
    driver.finish_round()
    assert driver.rings[0].collect() == {}


def test_an_interrupt_stays_until_it_is_acknowledged():
    driver = rng_driver().start(size=8)
    (ring,) = driver.rings
    ring.submit([], [(0x8000, 16)])
    ring.notify()
    assert not driver.line.level  # posted: nothing happens before the round ends
    driver.bus.end_round()
    assert driver.line.level
    assert driver.read(0x60) == 1
    driver.write(0x64, 2)
    assert driver.line.level
    driver.write(0x64, 1)
    assert not driver.line.level
    assert driver.read(0x60) == 0


def test_no_interrupt_is_raised_for_a_guest_that_wants_none():
    driver = rng_driver().start(size=8)
    (ring,) = driver.rings
    driver.ram.write(ring.avail, b"\1\0")
    ring.submit([], [(0x8000, 16)])
    ring.notify()
    driver.bus.end_round()
    assert len(ring.collect()) == 1
    assert not driver.line.level


def test_a_request_costs_the_log_and_no_trap():
    driver = rng_driver().start(size=8)
    (ring,) = driver.rings
    before = driver.bus.trapped_count
    for _ in range(8):
        ring.submit([], [(0x8000, 16)])
        ring.notify()
    driver.finish_round()
    assert len(ring.collect()) == 8
    assert not driver.line.level  # InterruptACK was the engine's
    assert driver.bus.trapped_count == before


def test_writing_zero_to_status_resets_all_that_the_guest_sees():
    driver = rng_driver().start(size=8)
    (ring,) = driver.rings
    ring.submit([], [(0x8000, 16)])
    ring.notify()
    driver.bus.end_round()
    driver.write(0x70, 0)
    assert not driver.line.level
    assert [driver.read(offset) for offset in (0x44, 0x60, 0x70)] == [0, 0, 0]
    driver.start(size=4)  # and it can be brought up again


def test_a_resized_terminal_changes_config_and_generation_and_interrupts():
    console = VirtioConsole(sink=lambda _: None)
    driver = Driver(console)
    console.resize(columns=100, rows=30)  # before a driver: no interrupt
    assert (driver.read(0x100), driver.read(0xFC)) == (30 << 16 | 100, 1)
    assert not driver.line.level
    driver.start()
    console.resize(columns=132, rows=50)
    assert (driver.read(0x100), driver.read(0xFC)) == (50 << 16 | 132, 2)
    assert driver.bus.read(0x100, 2) == 132
    assert driver.bus.read(0x102, 2) == 50
    assert driver.read(0x60) == 2
    with pytest.raises(ConfigError, match="0 x 50"):
        console.resize(columns=0, rows=50)
    assert driver.bus.read(0x100, 2) == 132


def test_writes_to_configuration_and_read_only_registers_are_ignored():
    driver = rng_driver()
    before = driver.mmio.save()
    for offset in (0x000, 0x034, 0x060, 0x0FC, 0x1FC, 0x018):
        driver.write(offset, 0xFFFFFFFF)
    driver.bus.write(0x101, 0xFF, 1)
    assert driver.mmio.save() == before


def test_a_device_restored_in_service_goes_on():
    original = rng_driver().start(size=8)
    (ring,) = original.rings
    ring.submit([], [(0x8000, 16)])
    ring.notify()
    original.bus.end_round()
    ring.submit([], [(0x9000, 16)])  # offered, not yet notified

    twin = Driver(VirtioRng(seed=99), name="virtio-rng 0", ram=Ram(RAM_END))
    twin.ram.bytes[:] = original.ram.bytes
    twin.mmio.restore(original.mmio.save())
    assert twin.line.level
    assert twin.bus.latched == original.bus.latched
    for driver in (original, twin):
        driver.write(0x64, 1)
        driver.write(0x50, 0)
        driver.bus.end_round()
        assert driver.line.level
    assert twin.ram.bytes == original.ram.bytes
    assert twin.mmio.save() == original.mmio.save()


def test_state_of_another_device_is_refused_and_changes_nothing():
    driver = rng_driver().start(size=8)
    other = Driver(VirtioConsole(sink=lambda _: None))
    before = driver.mmio.save()
    with pytest.raises(ImageError, match="ConsoleState, needs RngState"):
        driver.mmio.restore(other.mmio.save())
    assert driver.mmio.save() == before
