"""virtio-console (section 5.3) with its one port: a byte stream each way and the terminal's size.

Queue 0 takes input to the guest, queue 1 output from it. Input waits at the host's end until the
guest has offered buffers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from disco.devices.bus import SavedState, claimed_state
from disco.devices.virtio.device import VirtioDevice
from disco.devices.virtio.queue import Virtqueue
from disco.errors import ConfigError

DEVICE_ID = 3
RECEIVE_QUEUE = 0
TRANSMIT_QUEUE = 1
QUEUE_SIZE_MAX = 64

FEATURE_SIZE = 1 << 0
CONFIG = struct.Struct("<HHII")  # columns, rows, max_nr_ports and emerg_wr (not offered)

# Linux writes at most 32 KiB at once. The bound keeps one hostile chain from holding us up.
OUTPUT_BYTES_MAX = 1 << 20

STATE_VERSION = 1


@dataclass(frozen=True)
class ConsoleState(SavedState):
    """The terminal's size in characters, and input that the guest has not taken yet."""

    columns: int
    rows: int
    backlog: bytes


class VirtioConsole(VirtioDevice):
    """A console port. `feed` types into it, `sink` gets what the guest prints."""

    device_id = DEVICE_ID
    queue_sizes_max = (QUEUE_SIZE_MAX, QUEUE_SIZE_MAX)

    def __init__(self, *, sink: Callable[[bytes], None], columns: int = 80, rows: int = 24) -> None:
        """`sink` gets each run of output bytes in order and must not block."""
        super().__init__(features=FEATURE_SIZE)
        self._sink = sink
        self._backlog = bytearray()
        self._set_size(columns, rows)

    def feed(self, data: bytes) -> None:
        """Types `data`; what the guest has no buffers for waits."""
        self._backlog += data
        self._ask_service(RECEIVE_QUEUE)

    def resize(self, *, columns: int, rows: int) -> None:
        """Tells the guest that the terminal has changed.

        Raises:
            ConfigError: a side is not 1 to 65535 characters; nothing has changed.
        """
        self._set_size(columns, rows)
        self._tell_config_changed()

    def _set_size(self, columns: int, rows: int) -> None:
        if not (0 < columns < 1 << 16 and 0 < rows < 1 << 16):
            raise ConfigError(f"terminal of {columns} x {rows} characters; 1 to 65535 are possible")
        self._columns = columns
        self._rows = rows

    def config(self) -> bytes:
        return CONFIG.pack(self._columns, self._rows, 0, 0)

    def serve(self, index: int, queue: Virtqueue) -> None:
        if index == RECEIVE_QUEUE:
            self._serve_input(queue)
        else:
            self._serve_output(queue)

    def _serve_input(self, queue: Virtqueue) -> None:
        if not self._backlog:
            return
        for chain in queue.chains():
            if not chain.writable:
                queue.refuse(f"chain {chain.head} has no writable buffer for input")
            data = bytes(self._backlog[: chain.writable_bytes])
            queue.scatter(chain.writable, data)
            queue.complete(chain, len(data))
            del self._backlog[: len(data)]
            if not self._backlog:
                break

    def _serve_output(self, queue: Virtqueue) -> None:
        for chain in queue.chains():
            if not 0 < chain.readable_bytes <= OUTPUT_BYTES_MAX:
                queue.refuse(
                    f"chain {chain.head} has {chain.readable_bytes} bytes of output; "
                    f"1 to {OUTPUT_BYTES_MAX} are possible"
                )
            self._sink(queue.gather(chain.readable))
            queue.complete(chain, 0)

    def save(self) -> ConsoleState:
        return ConsoleState(
            version=STATE_VERSION,
            columns=self._columns,
            rows=self._rows,
            backlog=bytes(self._backlog),
        )

    def restore(self, state: object) -> None:
        saved = claimed_state(state, ConsoleState, version=STATE_VERSION, device="virtio-console")
        self._columns = saved.columns
        self._rows = saved.rows
        self._backlog = bytearray(saved.backlog)
