"""virtio-balloon (section 5.5): a guest gives memory back to the machine, asked or not.

    queue        the guest offers                          the device
    inflate      numbers of pages that it has taken        takes them away from the VM
    deflate      numbers of pages that it wants again      counts; they are absent, and zero when touched
    statistics   what it knows of its memory               reads it, and keeps the buffer until it asks again
    reporting    stretches of memory that are free         takes them away from the VM, uncounted: any may be
                                                           used again without a word

A guest with a balloon in its memory has as much less to use. How large the balloon should be is the `num_pages`
of the configuration; how large it is, the guest says in `actual`. Free-page reporting needs no such wish: Linux
reports free stretches of 2 MiB and more by itself, two seconds after they have become free.

All of it is a claim: what is no RAM of the VM stops the VM, and a page named twice is taken away once.
Pages of a guest that fills its free memory with a pattern (`poison_val`) are left alone when it reports them,
because they would be zero. Hints of free pages (bit 3), which serve migration, are not offered.

Source: Linux 6.1, drivers/virtio/virtio_balloon.c, for the places of queues that a driver did not ask for:
they are left out, and those behind them move up.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass

from disco.devices.bus import Range, SavedState, claimed_state
from disco.devices.virtio.device import VirtioDevice
from disco.devices.virtio.queue import Chain, Virtqueue

DEVICE_ID = 5
QUEUE_SIZE_MAX = 128
STATISTICS_QUEUE = 2
PAGE_BYTES = 4096  # of the device, whatever the guest's are

FEATURE_STATS = 1 << 1
FEATURE_DEFLATE_ON_OOM = 1 << 2
FEATURE_PAGE_POISON = 1 << 4
FEATURE_REPORTING = 1 << 5

CONFIG = struct.Struct("<IIII")  # num_pages, actual, free_page_hint_cmd_id, poison_val
ACTUAL_AT, POISON_AT = 4, 12

#: Page numbers that one buffer may have; Linux sends 256.
PAGES_MAX = 4096
STATISTIC = struct.Struct("<HQ")  # tag, value
STATISTICS_BYTES_MAX = 64 * STATISTIC.size
#: What the statistics say, by their tags: section 5.5.6.4.
STATISTIC_NAMES = {
    0: "swapped_in_bytes",
    1: "swapped_out_bytes",
    2: "major_faults",
    3: "minor_faults",
    4: "free_bytes",
    5: "total_bytes",
    6: "available_bytes",
    7: "file_cache_bytes",
    8: "huge_pages_allocated",
    9: "huge_pages_failed",
}

STATE_VERSION = 1


@dataclass(frozen=True)
class BalloonState(SavedState):
    """The two numbers of the configuration that change, the pattern, and what has been said and counted."""

    target_pages: int
    actual_pages: int
    poison: int
    statistics: tuple[tuple[str, int], ...]
    counters: tuple[int, ...]


@dataclass
class BalloonCounters:
    """Pages of 4 KiB.

    Attributes:
        reported: that the guest said were free; they may be reported again once they have been used.
        inflated, deflated: that it put into the balloon, and took out of it.
        returned: that the machine got of both; the others were absent already.
    """

    reported: int = 0
    inflated: int = 0
    deflated: int = 0
    returned: int = 0


class VirtioBalloon(VirtioDevice):
    """What gives a VM's memory back.

    Attributes:
        target_pages: pages that should be in the balloon.
        actual_pages: that are in it, as the guest says.
        statistics: what the guest said last of its memory, by name; empty: nothing yet.
        counters: what has happened so far.
    """

    device_id = DEVICE_ID
    queue_sizes_max = (QUEUE_SIZE_MAX,) * 4

    def __init__(self) -> None:
        super().__init__(
            features=FEATURE_STATS
            | FEATURE_DEFLATE_ON_OOM
            | FEATURE_PAGE_POISON
            | FEATURE_REPORTING
        )
        self.counters = BalloonCounters()
        self.reset()

    def reset(self) -> None:
        self.target_pages = 0
        self.actual_pages = 0
        self.statistics: Mapping[str, int] = {}
        self._poison = 0
        self._is_asking = False

    # The host's side.

    @property
    def has_driver(self) -> bool:
        """Whether a guest serves it: the driver says what it knows as soon as it is there."""
        return bool(self.statistics)

    def aim(self, pages: int) -> None:
        """Asks the guest for a balloon of so many pages."""
        if pages != self.target_pages:
            self.target_pages = pages
            self._tell_config_changed()

    def ask(self) -> None:
        """Asks the guest for new statistics."""
        self._is_asking = True
        self._ask_service(STATISTICS_QUEUE)

    # The guest's side.

    def config(self) -> bytes:
        return CONFIG.pack(self.target_pages, self.actual_pages, 0, self._poison)

    def write_config(self, offset: int, size: int, value: int) -> None:
        if (offset, size) == (ACTUAL_AT, 4):
            self.actual_pages = value
        elif (offset, size) == (POISON_AT, 4):
            self._poison = value

    def serve(self, index: int, queue: Virtqueue) -> None:
        servers = self._servers()
        if index < len(servers):
            servers[index](queue)
        elif any(queue.chains()):
            queue.refuse("has no meaning with the features that were agreed on")

    def _servers(self) -> list[Callable[[Virtqueue], None]]:
        """Who serves which queue: those that were not agreed on are left out."""
        features = self.accepted_features
        servers: list[Callable[[Virtqueue], None]] = [self._inflate, self._deflate]
        if features & FEATURE_STATS:
            servers.append(self._take_statistics)
        if features & FEATURE_REPORTING:
            servers.append(self._take_report)
        return servers

    def _inflate(self, queue: Virtqueue) -> None:
        for chain in queue.chains():
            pages = self._page_numbers(queue, chain)
            self.counters.inflated += len(pages)
            self.counters.returned += queue.discard(_ranges(pages))
            queue.complete(chain, 0)

    def _deflate(self, queue: Virtqueue) -> None:
        for chain in queue.chains():
            self.counters.deflated += len(self._page_numbers(queue, chain))
            queue.complete(chain, 0)

    def _take_statistics(self, queue: Virtqueue) -> None:
        for chain in queue.chains():
            self.statistics = self._statistics(queue, chain)
            if not self._is_asking:
                queue.untake(1)
                return
            self._is_asking = False
            queue.complete(chain, 0)

    def _take_report(self, queue: Virtqueue) -> None:
        for chain in queue.chains():
            self.counters.reported += sum(length for _, length in chain.writable) // PAGE_BYTES
            if not self._has_pattern:
                self.counters.returned += queue.discard(chain.writable)
            queue.complete(chain, 0)

    @property
    def _has_pattern(self) -> bool:
        """Whether the guest expects something else than zeros in its free pages."""
        return bool(self.accepted_features & FEATURE_PAGE_POISON and self._poison)

    @staticmethod
    def _page_numbers(queue: Virtqueue, chain: Chain) -> list[int]:
        size = chain.readable_bytes
        if size % 4 or not 0 < size <= 4 * PAGES_MAX:
            queue.refuse(
                f"chain {chain.head} has {size} bytes of page numbers; 1 to {PAGES_MAX} numbers"
                " of 4 bytes are possible"
            )
        return list(struct.unpack(f"<{size // 4}I", queue.gather(chain.readable)))

    @staticmethod
    def _statistics(queue: Virtqueue, chain: Chain) -> dict[str, int]:
        size = chain.readable_bytes
        if size % STATISTIC.size or not 0 < size <= STATISTICS_BYTES_MAX:
            queue.refuse(
                f"chain {chain.head} has {size} bytes of statistics; {STATISTIC.size} each are"
                f" possible, {STATISTICS_BYTES_MAX} in all"
            )
        said = STATISTIC.iter_unpack(queue.gather(chain.readable))
        return {STATISTIC_NAMES[tag]: value for tag, value in said if tag in STATISTIC_NAMES}

    def save(self) -> BalloonState:
        return BalloonState(
            version=STATE_VERSION,
            target_pages=self.target_pages,
            actual_pages=self.actual_pages,
            poison=self._poison,
            statistics=tuple(self.statistics.items()),
            counters=astuple(self.counters),
        )

    def restore(self, state: object) -> None:
        saved = claimed_state(state, BalloonState, version=STATE_VERSION, device="virtio-balloon")
        self.target_pages = saved.target_pages
        self.actual_pages = saved.actual_pages
        self._poison = saved.poison
        self.statistics = dict(saved.statistics)
        self.counters = BalloonCounters(*saved.counters)


def _ranges(pages: list[int]) -> list[Range]:
    """Pages as stretches of memory, neighbours together."""
    ranges: list[Range] = []
    for page in sorted(set(pages)):
        if ranges and sum(ranges[-1]) == page * PAGE_BYTES:
            ranges[-1] = (ranges[-1][0], ranges[-1][1] + PAGE_BYTES)
        else:
            ranges.append((page * PAGE_BYTES, PAGE_BYTES))
    return ranges
