"""The balloon: what a guest gives back is gone, and nothing else."""

from __future__ import annotations

import random
import struct

import pytest
from virtio_driver import RAM_BYTES, Driver

from disco.devices.virtio.balloon import (
    FEATURE_PAGE_POISON,
    FEATURE_REPORTING,
    FEATURE_STATS,
    PAGE_BYTES,
    PAGES_MAX,
    VirtioBalloon,
)
from disco.errors import DeviceError

INFLATE, DEFLATE, STATISTICS, REPORTING = range(4)
BUFFER = 0x80000
FIRST_PAGE, PAGES = 0x90, 0x60
CONFIG = 0x100


class Guest:
    """A guest with a balloon; each page of its heap is full of its own number."""

    def __init__(self, *, without: int = 0) -> None:
        self.balloon = VirtioBalloon()
        self.driver = Driver(self.balloon).start(without=without)
        self.ram = self.driver.ram
        self.expected = {page: page & 0xFF for page in range(FIRST_PAGE, FIRST_PAGE + PAGES)}
        for page, value in self.expected.items():
            self.fill(page, value)

    def fill(self, page: int, value: int) -> None:
        self.ram.write(page * PAGE_BYTES, bytes([value]) * PAGE_BYTES)
        self.expected[page] = value

    def say(self, queue: int, pages: list[int]) -> dict[int, int]:
        data = struct.pack(f"<{len(pages)}I", *pages)
        return self.send(queue, data)

    def send(self, queue: int, data: bytes) -> dict[int, int]:
        self.ram.write(BUFFER, data)
        half = len(data) // 2
        ranges = [(BUFFER, half), (BUFFER + half, len(data) - half)]
        return self.submit(queue, [one for one in ranges if one[1]], [])

    def submit(self, queue: int, readable, writable) -> dict[int, int]:
        ring = self.driver.rings[queue]
        ring.submit(readable, writable)
        ring.notify()
        self.driver.finish_round()
        return ring.collect()

    def report(self, ranges: list[tuple[int, int]]) -> None:
        done = self.submit(REPORTING, [], ranges)
        assert list(done.values()) == [0]

    def check(self) -> None:
        for page, value in self.expected.items():
            found = self.ram.read(page * PAGE_BYTES, PAGE_BYTES)
            assert found == bytes([value]) * PAGE_BYTES, f"page {page:#x}"

    def config(self, offset: int) -> int:
        return self.driver.read(CONFIG + offset)


def statistics(**values: int) -> bytes:
    tags = {"major_faults": 2, "free_bytes": 4, "available_bytes": 6, "unknown": 77}
    return b"".join(struct.pack("<HQ", tags[name], value) for name, value in values.items())


@pytest.mark.parametrize("seed", range(2))
def test_pages_given_back_read_as_zero_or_as_written_since_and_others_as_before(seed):
    rng, guest = random.Random(seed), Guest()
    for _ in range(80):
        pages = rng.sample(sorted(guest.expected), rng.randint(1, 8))
        match rng.randint(0, 3):
            case 0:
                assert list(guest.say(INFLATE, [*pages, pages[0]]).values()) == [0]
                guest.expected.update(dict.fromkeys(pages, 0))
            case 1:
                guest.say(DEFLATE, pages)
            case 2:
                runs = [(page, min(rng.randint(1, 3), FIRST_PAGE + PAGES - page)) for page in pages]
                guest.report([(page * PAGE_BYTES, count * PAGE_BYTES) for page, count in runs])
                for page, count in runs:
                    guest.expected.update(dict.fromkeys(range(page, page + count), 0))
            case _:
                for page in pages:
                    guest.fill(page, rng.randint(1, 255))
        if rng.random() < 0.1:
            guest.driver.mmio.restore(guest.driver.mmio.save())
        guest.check()
    counters = guest.balloon.counters
    assert counters.inflated and counters.deflated and counters.reported


def test_only_whole_pages_of_what_is_reported_go():
    guest = Guest()
    at = FIRST_PAGE * PAGE_BYTES
    guest.report([(at + 1, 3 * PAGE_BYTES - 2), (at + 4 * PAGE_BYTES + 8, 100)])
    guest.expected[FIRST_PAGE + 1] = 0
    guest.check()


def test_pages_that_the_guest_fills_with_a_pattern_stay_when_they_are_reported():
    guest = Guest()
    guest.driver.write(CONFIG + 12, 0xAAAAAAAA)
    assert guest.config(12) == 0xAAAAAAAA
    guest.report([(FIRST_PAGE * PAGE_BYTES, PAGE_BYTES)])
    guest.check()
    guest.driver.write(CONFIG + 12, 0)
    guest.report([(FIRST_PAGE * PAGE_BYTES, PAGE_BYTES)])
    guest.expected[FIRST_PAGE] = 0
    guest.check()


def test_a_pattern_that_was_not_agreed_on_says_nothing():
    guest = Guest(without=FEATURE_PAGE_POISON)
    guest.driver.write(CONFIG + 12, 0xAAAAAAAA)
    guest.report([(FIRST_PAGE * PAGE_BYTES, PAGE_BYTES)])
    guest.expected[FIRST_PAGE] = 0
    guest.check()


def test_the_wish_and_the_answer_are_in_the_configuration():
    guest = Guest()
    guest.balloon.aim(300)
    assert guest.driver.line.level
    assert (guest.config(0), guest.config(4)) == (300, 0)
    guest.driver.write(CONFIG + 4, 120)
    guest.driver.write(CONFIG, 7)  # the driver may not say what is wished
    assert (guest.config(0), guest.config(4)) == (300, 120)
    assert guest.balloon.actual_pages == 120
    guest.driver.finish_round()
    levels = len(guest.driver.line.levels)
    guest.balloon.aim(300)
    assert len(guest.driver.line.levels) == levels, "what is not new is not said"


def test_statistics_are_kept_until_somebody_asks_for_new_ones():
    guest = Guest()
    assert not guest.balloon.has_driver
    assert guest.send(STATISTICS, statistics(free_bytes=5, unknown=1, major_faults=2)) == {}
    assert guest.balloon.has_driver
    assert guest.balloon.statistics == {"free_bytes": 5, "major_faults": 2}
    guest.balloon.ask()
    assert list(guest.driver.rings[STATISTICS].collect().values()) == [0]
    assert guest.send(STATISTICS, statistics(free_bytes=6)) == {}
    assert guest.balloon.statistics == {"free_bytes": 6}


def test_a_question_before_the_driver_is_there_is_answered_when_it_is():
    guest = Guest()
    guest.balloon.ask()
    assert len(guest.send(STATISTICS, statistics(free_bytes=5))) == 1
    assert guest.send(STATISTICS, statistics(free_bytes=6)) == {}


def test_queues_that_were_not_agreed_on_are_left_out_and_those_behind_move_up():
    guest = Guest(without=FEATURE_STATS)
    done = guest.submit(STATISTICS, [], [(FIRST_PAGE * PAGE_BYTES, PAGE_BYTES)])
    assert list(done.values()) == [0]
    guest.expected[FIRST_PAGE] = 0
    guest.check()


def test_a_reset_forgets_what_the_driver_said():
    guest = Guest()
    guest.balloon.aim(10)
    guest.driver.write(CONFIG + 4, 10)
    guest.send(STATISTICS, statistics(free_bytes=5))
    guest.driver.start()
    assert (guest.config(0), guest.config(4)) == (0, 0)
    assert not guest.balloon.has_driver


OUTSIDE = RAM_BYTES // PAGE_BYTES


@pytest.mark.parametrize(
    ("queue", "data", "message"),
    [
        (INFLATE, struct.pack("<2I", FIRST_PAGE, OUTSIDE), "is not RAM"),
        (INFLATE, struct.pack("<I", 0xFFFFFFFF), "is not RAM"),
        (INFLATE, b"abc", "3 bytes of page numbers"),
        (INFLATE, bytes(4 * PAGES_MAX + 4), "bytes of page numbers"),
        (DEFLATE, b"abcde", "5 bytes of page numbers"),
        (STATISTICS, bytes(11), "11 bytes of statistics"),
        (STATISTICS, bytes(650), "650 bytes of statistics"),
    ],
)
def test_what_cannot_be_is_refused_and_no_page_has_gone(queue, data, message):
    guest = Guest()
    with pytest.raises(DeviceError, match=message):
        guest.send(queue, data)
    guest.check()


def test_a_report_of_what_is_no_memory_is_refused_and_no_page_has_gone():
    guest = Guest()
    with pytest.raises(DeviceError, match="is not RAM"):
        guest.report(
            [(FIRST_PAGE * PAGE_BYTES, PAGE_BYTES), (RAM_BYTES - PAGE_BYTES, 2 * PAGE_BYTES)]
        )
    guest.check()


def test_a_queue_without_a_meaning_is_refused():
    guest = Guest(without=FEATURE_STATS | FEATURE_REPORTING)
    with pytest.raises(DeviceError, match="no meaning"):
        guest.submit(STATISTICS, [], [(FIRST_PAGE * PAGE_BYTES, PAGE_BYTES)])


@pytest.mark.parametrize("seed", range(12))
def test_a_hostile_guest_is_refused_and_harms_no_page_outside_of_its_own_words(seed):
    """Bytes of rings and buffers by lot: the device refuses, or does what it reads there."""
    rng, guest = random.Random(seed), Guest()
    for _ in range(40):
        ring = guest.driver.rings[rng.randrange(4)]
        at = ring.descriptors + rng.randrange(ring.end - ring.descriptors)
        guest.ram.write(at, rng.randbytes(rng.randint(1, 4)))
        guest.ram.write(BUFFER, struct.pack("<8I", *(rng.randrange(OUTSIDE + 4) for _ in range(8))))
        guest.driver.write(CONFIG + rng.choice((0, 2, 4, 8, 12, 16)), rng.randrange(1 << 32))
        try:
            if ring.free:
                length = rng.randrange(40)
                ring.submit([(BUFFER, length)], [(BUFFER, length)][: rng.randrange(2)])
            ring.notify()
            guest.driver.finish_round()
        except DeviceError:
            guest = Guest()
