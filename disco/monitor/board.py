"""The devices of one VM, wired up as its platform says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from disco.devices.bus import GuestMemory
from disco.devices.power import Power
from disco.devices.uart import Uart
from disco.devices.virtio.balloon import VirtioBalloon
from disco.devices.virtio.block import PageReader, VirtioBlock
from disco.devices.virtio.console import VirtioConsole
from disco.devices.virtio.device import VirtioDevice
from disco.devices.virtio.mmio import Reg, VirtioMmio
from disco.devices.virtio.net import VirtioNet
from disco.devices.virtio.p9 import FilePages, VirtioP9
from disco.devices.virtio.rng import VirtioRng
from disco.guests.platform import UART_LINE, Platform
from disco.monitor.bus import Bus, Host
from disco.monitor.peripheral import Peripheral, Socket, plugged
from disco.storage.disk import Disk
from disco.storage.folder import SharedFolder


class Board:
    """Console port, power registers, peripherals, and a virtio slot for each disk, for entropy, for a second
    console, for the network, for each shared folder and for a balloon.

    Attributes:
        bus: where the devices answer.
        memory: the VM's physical memory as devices see it.
        disks: its block devices.
        shares: its 9p devices.
        balloon: what gives its memory back, if it has one.
        ending: None, or what the guest asked of the power registers: "reset", or an exit status.
    """

    def __init__(self, *, engine: Host, vm: int, platform: Platform, memory: GuestMemory) -> None:
        self.bus = Bus(engine=engine, vm=vm, is_multiprocessor=platform.is_multiprocessor)
        self.memory = memory
        self.ending: str | int | None = None
        self.disks: tuple[VirtioBlock, ...] = ()
        self.shares: tuple[VirtioP9, ...] = ()
        self.balloon: VirtioBalloon | None = None
        self._platform = platform
        self._add_power()

    def _add_power(self) -> None:
        base = self._platform.reset.base
        power = Power(
            wiring=self.bus.open(base),
            on_reset=lambda: self._end("reset"),
            on_power_off=self._end,
        )
        self.bus.attach(base, power)

    def _end(self, ending: str | int) -> None:
        self.ending = ending

    def add_console(self, sink: Callable[[bytes], None]) -> Uart:
        """The console port; `sink` gets what the guest prints."""
        base = self._platform.uart.base
        uart = Uart(line=self.bus.line(UART_LINE), wiring=self.bus.open(base), sink=sink)
        self.bus.attach(base, uart)
        return uart

    def add_peripherals(self, peripherals: Sequence[Peripheral], now: Callable[[], int]) -> None:
        """Makes a device of each and plugs it in; `now` is simulated time in cycles.

        Raises:
            ConfigError: one cannot be made.
        """
        for slot, peripheral in zip(self._platform.peripheral_slots, peripherals, strict=True):
            socket = Socket(
                line=self.bus.line(slot.line),
                wiring=self.bus.open(slot.region.base),
                memory=self.memory,
                now=now,
                clock_hz=self._platform.clock_hz,
            )
            self.bus.attach(slot.region.base, plugged(peripheral, socket))

    def add_virtio(
        self,
        *,
        disks: Sequence[tuple[Disk, PageReader | None]],
        entropy_seed: int | None,
        console_sink: Callable[[bytes], None] | None,
        network_card: VirtioNet | None,
        shares: Sequence[tuple[SharedFolder, FilePages | None]],
        balloon: bool,
    ) -> VirtioConsole | None:
        """A block device for each disk, with whoever is asked first for what is read; then an entropy device if
        there is a seed for one; then a console, which is returned, if somebody takes its output; then the
        network card if there is one; then a 9p device for each shared folder, again with whoever is asked;
        then a balloon."""
        self.disks = tuple(
            VirtioBlock(disk=disk, serial=f"disco-{index}", pages=pages)
            for index, (disk, pages) in enumerate(disks)
        )
        self.shares = tuple(VirtioP9(folder=folder, pages=pages) for folder, pages in shares)
        devices: list[tuple[str, VirtioDevice]] = [
            (f"virtio-blk {index}", disk) for index, disk in enumerate(self.disks)
        ]
        if entropy_seed is not None:
            devices.append(("virtio-rng", VirtioRng(seed=entropy_seed)))
        console = None if console_sink is None else VirtioConsole(sink=console_sink)
        if console is not None:
            devices.append(("virtio-console", console))
        if network_card is not None:
            devices.append(("virtio-net", network_card))
        devices += [(f"virtio-9p {share.tag}", share) for share in self.shares]
        if balloon:
            self.balloon = VirtioBalloon()
            devices.append(("virtio-balloon", self.balloon))
        for slot, (name, device) in zip(self._platform.virtio, devices, strict=True):
            base = slot.region.base
            transport = VirtioMmio(
                name=name,
                device=device,
                memory=self.memory,
                interrupt=self.bus.interrupt(
                    base, status=Reg.INTERRUPT_STATUS, clear=Reg.INTERRUPT_ACK, line=slot.line
                ),
                wiring=self.bus.open(base),
            )
            self.bus.attach(base, transport)
        return console

    def reset(self) -> None:
        """Power-on state of all devices."""
        self.ending = None
        for device in self.bus.devices:
            device.reset()


def seed_of(*, machine_seed: int, vm: str) -> int:
    """The seed of all that is random in one VM; VMs of one machine differ."""
    text = f"{machine_seed} {vm}".encode()
    digest = hashlib.blake2b(text, digest_size=8, person=b"disco vm seed").digest()
    return int.from_bytes(digest, "little")
