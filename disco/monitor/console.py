"""What a VM has printed: the last part of it, a digest of all of it, and who listens.

A guest can print for ever, so only the tail is kept; the digest covers every byte.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

#: How much output is kept. A boot of Debian prints about 20 KB.
KEPT_BYTES_MAX = 1 << 20


class Console:
    """The output of one VM's console.

    Attributes:
        byte_count: bytes printed since the VM was made.
        listeners: each is called with every piece of output as it comes.
    """

    def __init__(self) -> None:
        self.byte_count = 0
        self.listeners: list[Callable[[bytes], None]] = []
        self._kept = bytearray()
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        """Takes what the guest prints."""
        self.byte_count += len(data)
        self._sha256.update(data)
        self._kept += data
        if len(self._kept) > 2 * KEPT_BYTES_MAX:
            del self._kept[:-KEPT_BYTES_MAX]
        for listener in self.listeners:
            listener(data)

    @property
    def data(self) -> bytes:
        """The last `KEPT_BYTES_MAX` bytes or more."""
        return bytes(self._kept)

    @property
    def text(self) -> str:
        """`data` as text with plain line ends; bytes that are no UTF-8 show as U+FFFD."""
        return self._kept.decode(errors="replace").replace("\r\n", "\n")

    @property
    def last_line(self) -> str:
        """The last line that is not empty."""
        tail = self._kept[-1024:].decode(errors="replace")
        return next((line for line in reversed(tail.splitlines()) if line.strip()), "")

    def contains(self, text: str) -> bool:
        """Whether `text` is in what is kept."""
        return text.encode() in self._kept

    @property
    def digest(self) -> str:
        """SHA-256 of everything printed, in hexadecimal."""
        return self._sha256.hexdigest()
