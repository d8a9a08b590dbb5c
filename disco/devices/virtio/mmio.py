"""The virtio-mmio transport, version 2 (section 4.2): registers in front of a virtio device.

    offset  name                access   offset  name                access
    0x000   MagicValue          R        0x060   InterruptStatus     R
    0x004   Version             R        0x064   InterruptACK        W
    0x008   DeviceID            R        0x070   Status              RW
    0x00c   VendorID            R        0x080   QueueDescLow/High   W
    0x010   DeviceFeatures      R        0x090   QueueDriverLow/High W
    0x014   DeviceFeaturesSel   W        0x0a0   QueueDeviceLow/High W
    0x020   DriverFeatures      W        0x0ac   SHMSel              W   no shared memory here:
    0x024   DriverFeaturesSel   W        0x0b0   SHMLen, SHMBase     R   length and base are -1
    0x030   QueueSel            W        0x0fc   ConfigGeneration    R
    0x034   QueueNumMax         R        0x100   configuration space R
    0x038   QueueNum            W
    0x044   QueueReady          RW       all others read 0 and ignore writes
    0x050   QueueNotify         W

No read has a side effect, so every register above is latched. QueueNotify is posted: a guest's
requests are served at the end of the round, where disks, networks and other VMs may be touched in a
fixed order. InterruptStatus and InterruptACK are the engine's. So a request costs one crossing: the log.

VIRTIO_F_ACCESS_PLATFORM is not offered: addresses in rings are physical addresses of the VM.

What section 2 and 4.2 forbid a driver stops the VM with a `DeviceError`, with two exceptions that
they leave room for: notifications before DRIVER_OK wait until then, and writes to read-only or
unknown registers are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from disco.devices.bus import (
    Declarations,
    Device,
    GuestMemory,
    Interrupt,
    PostedWrite,
    SavedState,
    Wiring,
    claimed_state,
)
from disco.devices.virtio.device import VirtioDevice
from disco.devices.virtio.queue import QueueState, Virtqueue

WINDOW_BYTES = 0x200
REGISTER_BYTES = 4


class Reg:
    """Register offsets, section 4.2.2."""

    MAGIC_VALUE = 0x000
    VERSION = 0x004
    DEVICE_ID = 0x008
    VENDOR_ID = 0x00C
    DEVICE_FEATURES = 0x010
    DEVICE_FEATURES_SEL = 0x014
    DRIVER_FEATURES = 0x020
    DRIVER_FEATURES_SEL = 0x024
    QUEUE_SEL = 0x030
    QUEUE_NUM_MAX = 0x034
    QUEUE_NUM = 0x038
    QUEUE_READY = 0x044
    QUEUE_NOTIFY = 0x050
    INTERRUPT_STATUS = 0x060
    INTERRUPT_ACK = 0x064
    STATUS = 0x070
    QUEUE_DESC_LOW = 0x080
    QUEUE_DESC_HIGH = 0x084
    QUEUE_DRIVER_LOW = 0x090
    QUEUE_DRIVER_HIGH = 0x094
    QUEUE_DEVICE_LOW = 0x0A0
    QUEUE_DEVICE_HIGH = 0x0A4
    SHM_LEN_LOW = 0x0B0
    SHM_LEN_HIGH = 0x0B4
    SHM_BASE_LOW = 0x0B8
    SHM_BASE_HIGH = 0x0BC
    CONFIG_GENERATION = 0x0FC
    CONFIG = 0x100


MAGIC = int.from_bytes(b"virt", "little")
VERSION = 2
VENDOR = int.from_bytes(b"DSCO", "little")
ALL_ONES = 0xFFFF_FFFF

INTERRUPT_USED_BUFFER = 1
INTERRUPT_CONFIG_CHANGE = 2

STATUS_ACKNOWLEDGE = 1
STATUS_DRIVER = 2
STATUS_DRIVER_OK = 4
STATUS_FEATURES_OK = 8
STATUS_DEVICE_NEEDS_RESET = 64
STATUS_FAILED = 128

FEATURE_INDIRECT_DESC = 1 << 28
FEATURE_VERSION_1 = 1 << 32
TRANSPORT_FEATURES = FEATURE_INDIRECT_DESC | FEATURE_VERSION_1

AREA_OF_REGISTER = {
    Reg.QUEUE_DESC_LOW: ("descriptor_area", 0),
    Reg.QUEUE_DESC_HIGH: ("descriptor_area", 32),
    Reg.QUEUE_DRIVER_LOW: ("driver_area", 0),
    Reg.QUEUE_DRIVER_HIGH: ("driver_area", 32),
    Reg.QUEUE_DEVICE_LOW: ("device_area", 0),
    Reg.QUEUE_DEVICE_HIGH: ("device_area", 32),
}

STATE_VERSION = 1


@dataclass(frozen=True)
class MmioState(SavedState):
    """Registers by their names, the queues, and what the device behind added."""

    status: int
    interrupt_status: int
    device_features_sel: int
    driver_features_sel: int
    driver_features: int
    queue_sel: int
    config_generation: int
    queues: tuple[QueueState, ...]
    device: object


class VirtioMmio(Device):
    """One virtio device on the bus."""

    window_bytes = WINDOW_BYTES

    def __init__(
        self,
        *,
        name: str,
        device: VirtioDevice,
        memory: GuestMemory,
        interrupt: Interrupt,
        wiring: Wiring,
    ) -> None:
        """Puts `device` behind a window; from here on the transport calls it."""
        super().__init__(name=name)
        self._device = device
        self._interrupt = interrupt
        self._declarations = Declarations(wiring=wiring, size=REGISTER_BYTES)
        self._queues = [
            Virtqueue(device=name, index=index, size_max=size_max, memory=memory)
            for index, size_max in enumerate(device.queue_sizes_max)
        ]
        self._writers: dict[int, Callable[[int], None]] = {
            Reg.DEVICE_FEATURES_SEL: self._write_device_features_sel,
            Reg.DRIVER_FEATURES: self._write_driver_features,
            Reg.DRIVER_FEATURES_SEL: self._write_driver_features_sel,
            Reg.QUEUE_SEL: self._write_queue_sel,
            Reg.QUEUE_NUM: self._write_queue_num,
            Reg.QUEUE_READY: self._write_queue_ready,
            Reg.QUEUE_NOTIFY: self._write_queue_notify,
            Reg.INTERRUPT_ACK: self._write_interrupt_ack,
            Reg.STATUS: self._write_status,
        }
        self._config_generation = 0
        self._power_on()
        device.connect(ask_service=self._serve_if_running, tell_config_changed=self._config_changed)
        self._declarations.declare(Reg.QUEUE_NOTIFY, posted=True)
        self._latch()

    def _power_on(self) -> None:
        """What a write of 0 to Status rebuilds; ConfigGeneration only ever goes on."""
        self._status = 0
        self._interrupt.update(cleared=ALL_ONES)
        self._device_features_sel = 0
        self._driver_features_sel = 0
        self._driver_features = 0
        self._queue_sel = 0
        self._device.accepted_features = 0
        for queue in self._queues:
            queue.reset()

    # Accesses.

    def read(self, offset: int, size: int) -> int:
        value = 0
        for word in range(offset & -REGISTER_BYTES, offset + size, REGISTER_BYTES):
            value |= self._word(word) << (8 * (word - (offset & -REGISTER_BYTES)))
        return (value >> (8 * (offset % REGISTER_BYTES))) & ((1 << (8 * size)) - 1)

    def write(self, offset: int, size: int, value: int) -> None:
        if offset >= Reg.CONFIG:
            self._device.write_config(offset - Reg.CONFIG, size, value)
            self._latch()
            return
        if size != REGISTER_BYTES or offset % REGISTER_BYTES:
            self.refuse(f"write of {size} bytes at offset {offset:#x}; registers take 4, aligned")
        if offset in AREA_OF_REGISTER:
            self._write_queue_area(offset, value)
        elif offset in self._writers:
            self._writers[offset](value)
        else:
            return
        if offset not in (Reg.INTERRUPT_ACK, Reg.QUEUE_NOTIFY):
            self._latch()

    def posted(self, writes: Sequence[PostedWrite]) -> None:
        """Serves each notified queue once; several notifications say no more than one."""
        cycles: dict[tuple[int, int, int], int] = {}
        for cycle, *write in writes:
            cycles.setdefault((write[0], write[1], write[2]), cycle)
        for (offset, size, value), cycle in cycles.items():
            self._device.notified_cycle = cycle
            self.write(offset, size, value)

    def _word(self, offset: int) -> int:
        if offset >= Reg.CONFIG:
            at = offset - Reg.CONFIG
            return int.from_bytes(self._device.config()[at : at + REGISTER_BYTES], "little")
        if offset == Reg.INTERRUPT_STATUS:
            return self._interrupt.update()
        return self._registers().get(offset, 0)

    def _registers(self) -> dict[int, int]:
        """Every register that reads as anything but zero, but for InterruptStatus."""
        queue = self._selected_queue()
        return {
            Reg.MAGIC_VALUE: MAGIC,
            Reg.VERSION: VERSION,
            Reg.DEVICE_ID: self._device.device_id,
            Reg.VENDOR_ID: VENDOR,
            Reg.DEVICE_FEATURES: _half(self._offered_features, self._device_features_sel),
            Reg.QUEUE_NUM_MAX: queue.size_max if queue else 0,
            Reg.QUEUE_READY: int(queue.is_ready) if queue else 0,
            Reg.STATUS: self._status,
            Reg.SHM_LEN_LOW: ALL_ONES,
            Reg.SHM_LEN_HIGH: ALL_ONES,
            Reg.SHM_BASE_LOW: ALL_ONES,
            Reg.SHM_BASE_HIGH: ALL_ONES,
            Reg.CONFIG_GENERATION: self._config_generation,
        }

    # Features, section 2.2.

    @property
    def _offered_features(self) -> int:
        return self._device.features | TRANSPORT_FEATURES

    def _write_device_features_sel(self, value: int) -> None:
        self._device_features_sel = value

    def _write_driver_features_sel(self, value: int) -> None:
        self._driver_features_sel = value

    def _write_driver_features(self, value: int) -> None:
        if self._status & STATUS_FEATURES_OK:
            self.refuse("DriverFeatures written after FEATURES_OK")
        if self._driver_features_sel > 1:
            if value:
                self.refuse(f"DriverFeatures {value:#x} in word {self._driver_features_sel}")
            return
        shift = 32 * self._driver_features_sel
        self._driver_features &= ~(ALL_ONES << shift)
        self._driver_features |= value << shift

    def _agree_on_features(self) -> bool:
        """Whether the driver took VERSION_1 and nothing that was not offered."""
        foreign = self._driver_features & ~self._offered_features
        return not foreign and bool(self._driver_features & FEATURE_VERSION_1)

    def _apply_features(self) -> None:
        self._device.accepted_features = self._driver_features
        for queue in self._queues:
            queue.is_indirect_allowed = bool(self._driver_features & FEATURE_INDIRECT_DESC)

    # Status, section 2.1.

    def _write_status(self, value: int) -> None:
        if value == 0:
            self.reset()
            return
        value &= 0xFF & ~STATUS_DEVICE_NEEDS_RESET
        cleared = self._status & ~value
        if cleared:
            self.refuse(f"Status bits {cleared:#x} cleared without a reset")
        added = value & ~self._status
        if added & STATUS_FEATURES_OK and not self._agree_on_features():
            value &= ~STATUS_FEATURES_OK  # the driver reads back that it was refused
        elif added & STATUS_FEATURES_OK:
            self._apply_features()
        if added & STATUS_DRIVER_OK and not value & STATUS_FEATURES_OK:
            self.refuse("DRIVER_OK without FEATURES_OK")
        self._status = value
        if added & STATUS_DRIVER_OK:
            for index in range(len(self._queues)):
                self._serve_if_running(index)

    # Queues, section 4.2.3.2.

    def _selected_queue(self) -> Virtqueue | None:
        return self._queues[self._queue_sel] if self._queue_sel < len(self._queues) else None

    def _write_queue_sel(self, value: int) -> None:
        self._queue_sel = value

    def _queue_in_set_up(self, what: str) -> Virtqueue:
        """The selected queue, which must exist and be out of service while `what` is written."""
        queue = self._selected_queue()
        if queue is None:
            self.refuse(f"{what} written for queue {self._queue_sel} of {len(self._queues)}")
        if queue.is_ready:
            self.refuse(f"{what} written while queue {self._queue_sel} is ready")
        return queue

    def _write_queue_num(self, value: int) -> None:
        self._queue_in_set_up("QueueNum").size = value

    def _write_queue_area(self, offset: int, value: int) -> None:
        area, shift = AREA_OF_REGISTER[offset]
        queue = self._queue_in_set_up(area)
        paddr: int = getattr(queue, area) or 0
        setattr(queue, area, paddr & ~(ALL_ONES << shift) | value << shift)

    def _write_queue_ready(self, value: int) -> None:
        """Zero for a queue that does not exist is what Linux writes after a failed probe."""
        queue = self._selected_queue()
        if not value & 1:
            if queue is not None:
                queue.is_ready = False
            return
        if not self._status & STATUS_FEATURES_OK:
            self.refuse(f"queue {self._queue_sel} made ready before FEATURES_OK")
        self._queue_in_set_up("QueueReady").make_ready()

    def _write_queue_notify(self, index: int) -> None:
        if index >= len(self._queues):
            self.refuse(f"queue {index} notified, there are {len(self._queues)}")
        if self._is_running and not self._queues[index].is_ready:
            self.refuse(f"queue {index} notified, which is not ready")
        self._serve_if_running(index)

    @property
    def _is_running(self) -> bool:
        return bool(self._status & STATUS_DRIVER_OK) and not self._status & STATUS_FAILED

    def _serve_if_running(self, index: int) -> None:
        queue = self._queues[index]
        if not (self._is_running and queue.is_ready):
            return
        self._device.serve(index, queue)
        if queue.publish() and queue.is_interrupt_wanted:
            self._interrupt.update(raised=INTERRUPT_USED_BUFFER)

    # Interrupts and configuration changes.

    def _write_interrupt_ack(self, value: int) -> None:
        self._interrupt.update(cleared=value)

    def _config_changed(self) -> None:
        """A driver that reads two fields sees from the generation that they belong together."""
        self._config_generation = (self._config_generation + 1) & ALL_ONES
        self._latch()
        if self._is_running:
            self._interrupt.update(raised=INTERRUPT_CONFIG_CHANGE)

    def _latch(self) -> None:
        for offset, value in self._registers().items():
            self._declarations.declare(offset, latched=value)
        for offset in range(Reg.CONFIG, Reg.CONFIG + len(self._device.config()), REGISTER_BYTES):
            self._declarations.declare(offset, latched=self._word(offset))

    # Life.

    def reset(self) -> None:
        self._device.reset()
        self._power_on()
        self._latch()

    def save(self) -> MmioState:
        return MmioState(
            version=STATE_VERSION,
            status=self._status,
            interrupt_status=self._interrupt.update(),
            device_features_sel=self._device_features_sel,
            driver_features_sel=self._driver_features_sel,
            driver_features=self._driver_features,
            queue_sel=self._queue_sel,
            config_generation=self._config_generation,
            queues=tuple(queue.save() for queue in self._queues),
            device=self._device.save(),
        )

    def restore(self, state: object) -> None:
        saved = claimed_state(state, MmioState, version=STATE_VERSION, device=self.name)
        self._device.restore(saved.device)
        self._power_on()
        self._status = saved.status
        self._interrupt.update(raised=saved.interrupt_status)
        self._device_features_sel = saved.device_features_sel
        self._driver_features_sel = saved.driver_features_sel
        self._driver_features = saved.driver_features
        self._queue_sel = saved.queue_sel
        self._config_generation = saved.config_generation
        if self._status & STATUS_FEATURES_OK:
            self._apply_features()
        for queue, queue_state in zip(self._queues, saved.queues, strict=True):
            queue.restore(queue_state)
        self._latch()


def _half(value: int, word: int) -> int:
    """32-bit `word` of a feature set; words past the second are zero."""
    return value >> (32 * word) & ALL_ONES if word < 2 else 0
