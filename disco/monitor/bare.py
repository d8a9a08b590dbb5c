"""The bare machine: the same kernel and devices as in a VM, with no monitor in between.

It is the baseline of a comparison: what a workload costs in a VM, over what it costs here, is what Disco costs.
The kernel runs in kernel mode and owns the TLB, and each exception goes where the manual says. Several
CPUs have the interrupt controller and the coherence manager that a VM with as many vCPUs has.

Source: SOSP'97, section 5.2, where IRIX on the machine itself is the baseline.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from disco._engine import BareMachine as BareEngine
from disco._engine import DeviceAccess, PostedWrites
from disco.devices.bus import GuestMemory, GuestMemoryError
from disco.errors import ConfigError
from disco.guests import command as guest_command
from disco.guests.images import Image
from disco.guests.platform import RAM_LOW_SIZE_MAX, VCPU_COUNT_MAX, Platform
from disco.hardware.machine import Machine
from disco.monitor.board import Board
from disco.monitor.console import Console
from disco.monitor.services import ServiceCost, services_of
from disco.monitor.software import Source
from disco.monitor.vm import Status

if TYPE_CHECKING:
    from disco._engine import Event

#: The name by which seeds are made, so that a VM of this name has the same random numbers.
NAME = "vm1"


class BareMachine:
    """CPUs, memory and devices, and a kernel that has all of it.

    Attributes:
        console: what the kernel has printed.
        status: "running" until it powers off ("halted") or asks for a restart ("reset").
        wall_seconds: host time spent in `run`.
    """

    def __init__(
        self,
        machine: Machine | None = None,
        *,
        memory_mib: int = 128,
        image: Image | None = None,
        kernel: Path | None = None,
        initrd: Path | None = None,
        append: str = "",
        command: Sequence[str] | str | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Builds the machine and loads the software.

        CPUs, clock, quantum, seed and engine are those of `machine`, one CPU if there is none; its nodes and
        their memory are not: the bare machine has one memory, as one VM has.

        Raises:
            ConfigError: no such machine can be.
            ImageError: a kernel or initrd cannot be used.
        """
        self.machine = machine or Machine(nodes=1, cpus=1)
        if not 0 < memory_mib << 20 <= RAM_LOW_SIZE_MAX:
            raise ConfigError(
                f"bare machine: {memory_mib} MiB asked; 1 to {RAM_LOW_SIZE_MAX >> 20} are possible"
            )
        if self.machine.cpus > VCPU_COUNT_MAX:
            raise ConfigError(
                f"bare machine: {self.machine.cpus} CPUs asked; Debian's kernel takes 1 to {VCPU_COUNT_MAX}"
            )
        platform = Platform(
            memory_bytes=memory_mib << 20,
            vcpu_count=self.machine.cpus,
            clock_hz=self.machine.clock_hz,
        )
        if image is not None and image.disk is not None:
            raise ConfigError(
                f"bare machine: image {image.name} is on a disk, and a bare machine has none"
            )
        source = Source(
            image=image, kernel=kernel, initrd=initrd, append=append, command=command, files=files
        )
        software = source.read(platform, vm=NAME, seed=self.machine.seed)
        self.console = Console()
        self.status = Status.RUNNING
        self.wall_seconds = 0.0
        self._nonce = software.nonce
        self._engine = BareEngine(
            memory_bytes=platform.memory_bytes,
            cpus=self.machine.cpus,
            engine=self.machine.engine,
        )
        memory = _Memory(self._engine, platform)
        self._board = Board(engine=self._engine, vm=0, platform=platform, memory=memory)
        self._board.add_console(self.console.write)
        registers = software.load(memory, platform)
        self._engine.set_cpu(pc=software.kernel.entry, gpr=registers)

    @property
    def now(self) -> int:
        """Simulated time in cycles."""
        return self._engine.now

    @property
    def seconds(self) -> float:
        """Simulated time in seconds."""
        return self.now / self.machine.clock_hz

    @property
    def counters(self) -> dict[str, int]:
        """Instructions, cycles by mode, exceptions and device accesses of all CPUs, by name."""
        total: Counter[str] = Counter()
        for counters in self.cpus:
            total.update(counters)
        return dict(total)

    @property
    def cpus(self) -> tuple[dict[str, int], ...]:
        """The same of each CPU; the cycles of one are its clock."""
        return tuple(self._engine.counters(cpu) for cpu in range(self.machine.cpus))

    @property
    def exit_status(self) -> int | None:
        """Of the command; 0 if there was none and the machine powered off. None: not in order."""
        if self.status is not Status.HALTED:
            return None
        if self._nonce:
            return guest_command.exit_status(self.console.data, self._nonce)
        return 0

    def record_services(self) -> None:
        """Records from now on what each service of the kernel costs, for `services`; it only looks on."""
        self._engine.record_services()

    @property
    def services(self) -> tuple[ServiceCost, ...]:
        """What has been recorded of each service since `record_services`."""
        return services_of(self._engine.services())

    def digest(self) -> str:
        """SHA-256 over simulated time, end, counters and console, in hexadecimal.

        Two runs of the same configuration and seed have the same digest, on every host, with either engine.
        """
        record = [self.now, self.status, self.exit_status, self.cpus, self.console.digest]
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()

    def run(self, *, seconds: float | None = None) -> Status:
        """Runs until the machine powers off, resets, waits for ever, or the simulated time is over."""
        end = None if seconds is None else self.now + self.machine.cycles(seconds)
        start = time.perf_counter()
        try:
            while self.status is Status.RUNNING and (end is None or self.now < end):
                if not self._run_quantum():
                    break
        finally:
            self.wall_seconds += time.perf_counter() - start
        return self.status

    def _run_quantum(self) -> bool:
        """Runs to the next multiple of a quantum. False: the CPUs wait for what nobody will do."""
        engine, quantum = self._engine, self.machine.quantum_cycles
        target = (engine.now // quantum + 1) * quantum
        while self.status is Status.RUNNING and engine.now < target:
            for event in engine.run(target):
                if self.status is Status.RUNNING:
                    self._handle(event)
        return engine.next_event() is not None

    def _handle(self, event: Event) -> None:
        if isinstance(event, PostedWrites):
            self._board.bus.posted(event.writes)
        elif isinstance(event, DeviceAccess):
            self._access(event)
        else:
            self.status = Status.HALTED

    def _access(self, access: DeviceAccess) -> None:
        value = self._board.bus.access(access)
        if self._board.ending is None:
            self._engine.complete_access(0, access.vcpu, value)
        else:
            self.status = Status.RESET if self._board.ending == "reset" else Status.HALTED


class _Memory(GuestMemory):
    """The machine's memory as a device or loader sees it."""

    def __init__(self, engine: BareEngine, platform: Platform) -> None:
        self._engine = engine
        self._ram = platform.ram[0]

    def read(self, paddr: int, length: int) -> bytes:
        """Returns `length` bytes. Raises `GuestMemoryError`."""
        self._check(paddr, length)
        return self._engine.read_physical(0, paddr, length)

    def write(self, paddr: int, data: bytes) -> None:
        """Stores `data`. Raises `GuestMemoryError`."""
        self._check(paddr, len(data))
        self._engine.write_physical(0, paddr, data)

    def _check(self, paddr: int, length: int) -> None:
        if length < 0 or not self._ram.holds(paddr, length):
            raise GuestMemoryError(paddr=paddr, length=length)
