"""The console port and the source of random bytes."""

from __future__ import annotations

import random

import pytest
from virtio_driver import Driver

from disco.devices.virtio.console import VirtioConsole
from disco.devices.virtio.rng import VirtioRng
from disco.errors import DeviceError

BUFFER = 0x20000


class Terminal:
    """A guest with a virtio console."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.console = VirtioConsole(sink=self.output.extend)
        self.driver = Driver(self.console).start()
        self.receive, self.transmit = self.driver.rings

    def print(self, data: bytes, *, cut_at: int) -> None:
        self.driver.ram.write(BUFFER, data)
        ranges = [(BUFFER, cut_at), (BUFFER + cut_at, len(data) - cut_at)]
        self.transmit.submit([r for r in ranges if r[1]], [])
        self.transmit.notify()
        self.driver.finish_round()
        self.transmit.collect()


def test_output_arrives_in_order():
    terminal, rng, printed = Terminal(), random.Random(3), b""
    for _ in range(300):
        data = rng.randbytes(rng.randint(1, 200))
        terminal.print(data, cut_at=rng.randint(0, len(data)))
        printed += data
    assert terminal.output == printed


@pytest.mark.parametrize("seed", range(3))
def test_input_waits_for_buffers_and_arrives_in_order(seed):
    rng, terminal = random.Random(seed), Terminal()
    typed, received, places = b"", b"", {}
    for _ in range(500):
        if rng.random() < 0.5:
            data = rng.randbytes(rng.randint(1, 60))
            typed += data
            terminal.console.feed(data)
        elif len(terminal.receive.free) > 2:
            length, slot = rng.randint(1, 40), terminal.receive.free[-1]
            head = terminal.receive.submit([], [(BUFFER + 64 * slot, length)])
            places[head] = BUFFER + 64 * slot
            terminal.receive.notify()
        if rng.random() < 0.05:
            terminal.driver.bus.end_round()
            terminal.driver.mmio.restore(terminal.driver.mmio.save())
        terminal.driver.finish_round()
        for head, written in terminal.receive.collect().items():
            received += terminal.driver.ram.read(places[head], written)
    waiting = terminal.console.save().backlog
    assert received + waiting == typed
    assert received


def test_buffers_that_input_does_not_need_stay_offered():
    terminal = Terminal()
    first, second = (terminal.receive.submit([], [(BUFFER + at, 4)]) for at in (0, 4))
    terminal.console.feed(b"abcd")
    assert terminal.receive.collect() == {first: 4}
    terminal.console.feed(b"ef")
    assert terminal.receive.collect() == {second: 2}
    assert terminal.driver.ram.read(BUFFER, 6) == b"abcdef"


def test_input_typed_before_the_driver_waits():
    console = VirtioConsole(sink=lambda _: None)
    driver = Driver(console)
    console.feed(b"early")
    driver.start()
    driver.rings[0].submit([], [(BUFFER, 64)])
    driver.rings[0].notify()
    driver.finish_round()
    assert driver.ram.read(BUFFER, 5) == b"early"


@pytest.mark.parametrize(
    ("queue", "readable", "writable", "words"),
    [
        (0, [(BUFFER, 8)], [], "no writable buffer for input"),
        (1, [], [(BUFFER, 8)], "has 0 bytes of output"),
        (1, [(0, 1 << 20), (0, 1)], [], "has 1048577 bytes of output"),
    ],
)
def test_a_chain_that_is_no_request_is_a_device_error(queue, readable, writable, words):
    terminal = Terminal()
    terminal.console.feed(b"x")
    terminal.driver.rings[queue].submit(readable, writable)
    terminal.driver.rings[queue].notify()
    with pytest.raises(DeviceError, match=words):
        terminal.driver.bus.end_round()


def draw(driver: Driver, *lengths: int) -> bytes:
    """Random bytes from one chain of buffers."""
    (ring,) = driver.rings
    places = [(BUFFER + 0x2000 * at, length) for at, length in enumerate(lengths)]
    head = ring.submit([], places)
    ring.notify()
    driver.finish_round()
    written = ring.collect()[head]
    return b"".join(driver.ram.read(*place) for place in places)[:written]


def test_one_seed_gives_one_stream_and_another_seed_another():
    first, second, other = (Driver(VirtioRng(seed=seed)).start(size=8) for seed in (1, 1, 2))
    stream = draw(first, 64) + draw(first, 100)
    assert draw(second, 64) + draw(second, 100) == stream
    assert draw(other, 64) != stream[:64]
    assert len(set(stream)) > 64  # and it is not a constant


def test_the_stream_does_not_start_again_with_the_driver():
    driver = Driver(VirtioRng(seed=1)).start(size=8)
    before = draw(driver, 64)
    driver.start(size=8)
    assert draw(driver, 64) != before


def test_the_stream_goes_on_after_restore():
    original, twin = (Driver(VirtioRng(seed=seed)).start(size=8) for seed in (1, 2))
    draw(original, 100)
    twin.device.restore(original.device.save())
    assert draw(twin, 10, 90) == draw(original, 100)


def test_a_huge_buffer_is_filled_in_part():
    driver = Driver(VirtioRng(seed=1)).start(size=8)
    assert len(draw(driver, 0x2000, 0x2000)) == 4096


def test_a_chain_without_a_writable_buffer_is_a_device_error():
    driver = Driver(VirtioRng(seed=1)).start(size=8)
    driver.rings[0].submit([(BUFFER, 8)], [])
    driver.rings[0].notify()
    with pytest.raises(DeviceError, match="no writable buffer for random bytes"):
        driver.bus.end_round()
