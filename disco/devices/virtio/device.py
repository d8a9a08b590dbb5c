"""What a kind of virtio device adds to the transport: features, configuration, service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from disco.devices.virtio.queue import Virtqueue


class VirtioDevice(ABC):
    """The part behind the transport.

    Attributes:
        device_id: section 5, "Device Types".
        features: bits 0 to 23 that this device offers; the transport adds its own.
        queue_sizes_max: largest size of each queue; a power of two.
        accepted_features: what guest and device agreed on; set by the transport.
        notified_cycle: simulated time of the store that announced what is being served; set by the
            transport.
    """

    device_id: int
    queue_sizes_max: tuple[int, ...]

    def __init__(self, *, features: int) -> None:
        self.features = features
        self.accepted_features = 0
        self.notified_cycle = 0
        self._ask_service: Callable[[int], None] = lambda _queue_index: None
        self._tell_config_changed: Callable[[], None] = lambda: None

    def connect(
        self, *, ask_service: Callable[[int], None], tell_config_changed: Callable[[], None]
    ) -> None:
        """Gives the device its way to the transport, for what begins at the host's end."""
        self._ask_service = ask_service
        self._tell_config_changed = tell_config_changed

    def reset(self) -> None:  # noqa: B027  most devices have nothing to forget
        """The driver begins anew; what the host's end has for the guest may stay or go."""

    @abstractmethod
    def config(self) -> bytes:
        """The configuration space as it is now; what lies past it reads as zero."""

    def write_config(self, offset: int, size: int, value: int) -> None:  # noqa: B027
        """Takes a write to the configuration space; of most devices every field is read-only."""

    @abstractmethod
    def serve(self, index: int, queue: Virtqueue) -> None:
        """Takes what it can from queue `index` and completes it; the transport publishes.

        Raises:
            DeviceError: a chain is not a request of this device.
        """

    @abstractmethod
    def save(self) -> object:
        """State beyond the transport's, as a frozen dataclass."""

    @abstractmethod
    def restore(self, state: object) -> None:
        """Goes on from `save`; raises `ImageError` for another device's state or version."""
