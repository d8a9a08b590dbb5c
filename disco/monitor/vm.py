"""A virtual machine: its vCPUs, physical memory, devices and console, from creation to its end.

    created --boot()--> running --+--> halted    the guest powered off
                                  +--> reset     the guest asked for a restart, and gets none
                                  +--> stopped   it could not go on; `error` says why
                                  +--> closed    it was taken away

When a VM ends, its machine pages go back to the machine at once, so that other VMs can have them. What
it had used by then, its counters and its pmap stay readable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from disco._engine import Engine, Paused
from disco.devices.uart import Uart
from disco.devices.virtio.block import PageReader
from disco.devices.virtio.net import VirtioNet
from disco.devices.virtio.p9 import FilePages
from disco.errors import ConfigError, DiscoError, MemoryExhausted
from disco.guests import command as guest_command
from disco.guests.platform import Platform
from disco.monitor.accounting import Usage, backmap_rows, pmap_rows, usage_of
from disco.monitor.board import Board
from disco.monitor.console import Console
from disco.monitor.memory import VmMemory
from disco.monitor.peripheral import Peripheral
from disco.monitor.services import ServiceCost, services_of
from disco.monitor.software import Software
from disco.network.subnet import Member
from disco.storage.disk import Disk
from disco.storage.folder import SharedFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Status(StrEnum):
    """Where a VM is in its life."""

    CREATED = "created"
    RUNNING = "running"
    HALTED = "halted"
    RESET = "reset"
    STOPPED = "stopped"
    CLOSED = "closed"


#: A VM in one of these still has vCPUs, memory and devices.
LIVING = frozenset({Status.CREATED, Status.RUNNING})


@dataclass(frozen=True)
class Final:
    """What stays of a VM: usage, services, pmap, and CPU and registers of each vCPU when it ended."""

    usage: Usage
    services: tuple[ServiceCost, ...]
    cpus: tuple[int, ...]
    pmap: memoryview
    registers: tuple[dict[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class NetworkPlace:
    """A VM's place on the subnet, and the network card that is plugged in there."""

    member: Member
    card: VirtioNet

    @property
    def counts(self) -> dict[str, int]:
        """Frames and bytes each way, what became of whole pages received, and the frames that went nowhere."""
        return {
            **asdict(self.member.traffic),
            **asdict(self.card.account),
            "frames_dropped": self.card.frames_dropped,
        }


@dataclass(frozen=True, kw_only=True)
class VmConfig:
    """A VM as it was asked for, checked.

    Attributes:
        name: as messages and reports show it.
        platform: what the guest sees.
        nonce: the word that marks the exit status of its command or shell; empty if its software is
            not an image's.
        has_command: whether it runs a command, so that only that has an exit status.
        disks: what its block devices hold.
        entropy: whether it has an entropy device.
        virtio_console: whether it has a virtio console beside the console port.
        network: its place on the subnet, and the card that is plugged in there; None: not on it.
        shares: folders of the host that it can mount.
        balloon: whether it can give memory back.
        peripherals: devices of somebody's own.
        restart_on_reset: whether a guest's reset boots it again, instead of ending the VM.
        seed: of all that is random in this VM's devices.
        resources: closed when the VM ends.
    """

    name: str
    platform: Platform
    nonce: str
    has_command: bool
    disks: Sequence[Disk]
    entropy: bool
    virtio_console: bool
    network: NetworkPlace | None
    shares: Sequence[SharedFolder]
    balloon: bool
    peripherals: Sequence[Peripheral]
    restart_on_reset: bool
    seed: int
    resources: ExitStack


class VirtualMachine:
    """One VM. `Monitor.create_vm` makes it, `boot` starts it, `Monitor.run` runs it.

    Attributes:
        config: what was asked for.
        number: the engine's number, from 0 in the order of creation.
        kernel_end: first physical address behind its kernel.
        kernel_bits: 32 or 64, the width of its kernel's addresses.
        console: what the guest has printed.
        hvc: what it has printed on its virtio console, if it has one.
        status: where the VM is in its life.
        error: why it was stopped, or None.
        paused: where a vCPU of it has paused since the last `run`, or None.
    """

    def __init__(
        self,
        *,
        config: VmConfig,
        software: Software,
        engine: Engine,
        number: int,
        memory: VmMemory,
        pages_of: Callable[[Disk], PageReader | None],
        file_pages: FilePages | None,
    ) -> None:
        """`software` is what it boots; `pages_of` says who is asked first for what is read from a disk, and
        `file_pages` is asked for what is read from shared folders."""
        self.config = config
        self.number = number
        self.kernel_end = software.kernel.image_end
        self.kernel_bits = software.kernel.bits
        self.console = Console()
        self.hvc = Console()
        self.status = Status.CREATED
        self.error: DiscoError | None = None
        self.paused: Paused | None = None
        self._software: Software | None = software
        self._engine = engine
        self._final: Final | None = None
        self.board = Board(engine=engine, vm=number, platform=config.platform, memory=memory)
        self._uart: Uart = self.board.add_console(self.console.write)
        self.board.add_peripherals(config.peripherals, lambda: engine.now)
        self._virtio_console = self.board.add_virtio(
            disks=[(disk, pages_of(disk)) for disk in config.disks],
            entropy_seed=config.seed if config.entropy else None,
            console_sink=self.hvc.write if config.virtio_console else None,
            network_card=config.network.card if config.network else None,
            shares=[(folder, file_pages) for folder in config.shares],
            balloon=config.balloon,
        )

    def __repr__(self) -> str:
        mib = self.config.platform.memory_bytes >> 20
        return f"VirtualMachine('{self.name}', {mib} MiB, {self.vcpu_count} vCPU, {self.status})"

    @property
    def name(self) -> str:
        """As messages and reports show it."""
        return self.config.name

    @property
    def vcpu_count(self) -> int:
        """Virtual CPUs."""
        return self.config.platform.vcpu_count

    @property
    def cpus(self) -> tuple[int, ...]:
        """The CPU of each vCPU, where it is or was last."""
        if self._final is not None:
            return self._final.cpus
        cpus = (self._engine.cpu_of(self.number, vcpu) for vcpu in range(self.vcpu_count))
        return tuple(cpu for cpu in cpus if cpu is not None)

    # -- life -------------------------------------------------------------------------------

    def boot(self) -> None:
        """Loads the software and makes vCPU 0 ready; `Monitor.run` then runs it.

        A machine without enough memory left stops the VM here, as it would later: see `error`.

        Raises:
            ConfigError: the VM has been booted before.
        """
        if self.status is not Status.CREATED:
            raise ConfigError(f"VM '{self.name}': boot asked, but it is {self.status}")
        self._start()

    def restart(self) -> None:
        """Power-on state of memory, devices and vCPUs, then `boot`."""
        self._engine.unmap_all(self.number)
        self.board.reset()
        self._start()

    def _start(self) -> None:
        config, software = self.config, self._software
        assert software is not None, f"VM '{self.name}' is not to boot again"
        try:
            registers = software.load(self.board.memory, config.platform)
        except MemoryExhausted as error:
            self.end(Status.STOPPED, MemoryExhausted(f"VM '{self.name}': {error}"))
            return
        self._engine.set_vcpu(self.number, 0, pc=software.kernel.entry, gpr=registers)
        self.status = Status.RUNNING
        if not config.restart_on_reset:
            self._software = None  # tens of MiB, now in the VM's own memory

    def end(self, status: Status, error: DiscoError | None = None) -> None:
        """Takes vCPUs, memory and devices away; what was used stays readable. Once only."""
        assert self.status in LIVING, f"VM '{self.name}' has ended before: {self.status}"
        self._final = Final(
            usage=self.usage,
            services=self.services,
            cpus=self.cpus,
            pmap=self._engine.pmap(self.number),
            registers=tuple(self.registers(vcpu) for vcpu in range(self.vcpu_count)),
        )
        self.status = status
        self.error = error
        self._engine.destroy_vm(self.number)
        self.config.resources.close()

    # -- what it shows ----------------------------------------------------------------------

    @property
    def network(self) -> NetworkPlace | None:
        """Its place on the subnet, as it is or was; None: it was made without."""
        return self.config.network

    @property
    def is_running(self) -> bool:
        """Whether it has been booted and has not ended."""
        return self.status is Status.RUNNING

    @property
    def has_ended(self) -> bool:
        """Whether only its record is left."""
        return self._final is not None

    @property
    def exit_status(self) -> int | None:
        """Of the guest's command or shell; 0 if it powered off without. None: not in order."""
        if self.status is not Status.HALTED:
            return None
        if self.config.nonce:
            found = guest_command.exit_status(self.console.data, self.config.nonce)
            if found is not None or self.config.has_command:
                return found
        return self.board.ending if isinstance(self.board.ending, int) else 0

    @property
    def usage(self) -> Usage:
        """Counters and pages, now or when it ended."""
        if self._final is not None:
            return self._final.usage
        return usage_of(self._engine, self.number, vcpus=self.vcpu_count)

    def record_services(self) -> None:
        """Records from now on what each service of the guest's kernel costs, for `services`.

        It only looks on; results and digests are the same. An ended VM is left as it is.
        """
        if self._final is None:
            self._engine.record_services(self.number)

    @property
    def services(self) -> tuple[ServiceCost, ...]:
        """What has been recorded of each service since `record_services`, now or when it ended."""
        if self._final is not None:
            return self._final.services
        return services_of(self._engine.services(self.number))

    @property
    def pmap(self) -> NDArray[np.void]:
        """A row a physical page: machine page, state, writable, overflowed.

        The engine's memory; read it between runs. Once the VM has ended it stays as it was then.
        """
        final = self._final
        return pmap_rows(self._engine.pmap(self.number) if final is None else final.pmap)

    @property
    def backmaps(self) -> NDArray[np.void]:
        """A row a physical page that a TLB may hold: the page, and the virtual pages that map it.

        In each of the `count` backmaps of a row, bits 63:12 are the address, bit 8 says that it is global,
        and bits 7:0 are the ASID otherwise. A page whose pmap row is overflowed has no row here. The
        engine's memory; read it between runs. Once the VM has ended there are none.
        """
        return backmap_rows(b"" if self.has_ended else self._engine.backmaps(self.number))

    def registers(self, vcpu: int = 0) -> dict[str, int]:
        """pc, hi, lo, r0 to r31 and the virtual CP0 by the manual's names, now or when it ended."""
        if self._final is not None:
            return self._final.registers[vcpu]
        return self._engine.vcpu_registers(self.number, vcpu)

    def set_breakpoints(self, *addresses: int) -> None:
        """Has a vCPU pause before the instruction at any of these virtual addresses, and at no others.

        `Monitor.run` returns `Outcome.PAUSED` then, `paused` says where, and the next `run` goes on. An
        instruction in a delay slot does not pause.

        Raises:
            ConfigError: one is no address of an instruction.
        """
        for address in addresses:
            if not 0 <= address < 1 << 64 or address % 4:
                raise ConfigError(
                    f"VM '{self.name}': breakpoint {address:#x} asked; multiples of 4 below 2^64 are possible"
                )
        if self._final is None:
            self._engine.set_breakpoints(self.number, addresses)

    def read(self, address: int, length: int, *, vcpu: int = 0) -> bytes:
        """Bytes at a virtual address, as a vCPU sees it now.

        Raises:
            ValueError: the guest has no translation there.
        """
        return self._engine.read_virtual(self.number, vcpu, address, length)

    def has_printed(self, text: str) -> bool:
        """Whether `text` is on the console."""
        return self.console.contains(text)

    def type(self, text: str | bytes) -> None:
        """Types into the console; what the guest has no room for waits."""
        if self.status in LIVING:
            self._uart.feed(text.encode() if isinstance(text, str) else text)

    def type_hvc(self, text: str | bytes) -> None:
        """Types into the virtio console.

        Raises:
            ConfigError: the VM has none.
        """
        if self._virtio_console is None:
            raise ConfigError(
                f"VM '{self.name}': no virtio console; `virtio_console=True` gives it one"
            )
        if self.status in LIVING:
            self._virtio_console.feed(text.encode() if isinstance(text, str) else text)
