"""The bare machine: the same kernel and devices as in a VM, with no monitor in between.

It is the baseline of a comparison: what a workload costs in a VM, over what it costs here, is what Disco costs.
One CPU; the kernel runs in kernel mode and owns the TLB, and each exception goes where the manual says.

Source: SOSP'97, section 5.2, where IRIX on the machine itself is the baseline.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from disco._engine import BareMachine as BareEngine
from disco._engine import DeviceAccess, PostedWrites
from disco.devices.bus import GuestMemoryError
from disco.errors import ConfigError
from disco.guests import command as guest_command
from disco.guests.images import Image
from disco.guests.platform import RAM_LOW_SIZE_MAX, Platform
from disco.hardware.machine import Machine
from disco.monitor.board import Board, seed_of
from disco.monitor.console import Console
from disco.monitor.software import Source
from disco.monitor.vm import Status

#: The name by which seeds are made, so that a VM of this name has the same random numbers.
NAME = "vm1"


class BareMachine:
    """One CPU, its memory and devices, and a kernel that has all of it.

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
        """Builds the machine and loads the software; clock, quantum and seed are those of `machine`.

        Raises:
            ConfigError: no such machine can be.
            ImageError: a kernel or initrd cannot be used.
        """
        self.machine = machine or Machine()
        if not 0 < memory_mib << 20 <= RAM_LOW_SIZE_MAX:
            raise ConfigError(
                f"bare machine: {memory_mib} MiB asked; 1 to {RAM_LOW_SIZE_MAX >> 20} are possible"
            )
        platform = Platform(memory_bytes=memory_mib << 20, clock_hz=self.machine.clock_hz)
        seed = self.machine.seed
        source = Source(
            image=image, kernel=kernel, initrd=initrd, append=append, command=command, files=files
        )
        software = source.read(platform, vm=NAME, seed=seed)
        self.console = Console()
        self.status = Status.RUNNING
        self.wall_seconds = 0.0
        self._nonce = software.nonce
        self._engine = BareEngine(memory_bytes=platform.memory_bytes)
        memory = _Memory(self._engine, platform)
        self._board = Board(engine=self._engine, vm=0, platform=platform, memory=memory)
        self._board.add_console(self.console.write)
        registers = software.load(memory, platform, seed=seed_of(machine_seed=seed, vm=NAME))
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
        """Instructions, cycles by mode, exceptions and device accesses, by name."""
        return self._engine.counters()

    @property
    def exit_status(self) -> int | None:
        """Of the command; 0 if there was none and the machine powered off. None: not in order."""
        if self.status is not Status.HALTED:
            return None
        if self._nonce:
            return guest_command.exit_status(self.console.data, self._nonce)
        return 0

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
        """Runs to the next multiple of a quantum. False: the CPU waits for what nobody will do."""
        engine, quantum = self._engine, self.machine.quantum_cycles
        target = (engine.now // quantum + 1) * quantum
        while self.status is Status.RUNNING and engine.now < target:
            for event in engine.run(target):
                if isinstance(event, PostedWrites):
                    self._board.bus.posted(event.writes)
                elif isinstance(event, DeviceAccess):
                    self._access(event)
                else:
                    self.status = Status.HALTED
        return engine.next_event() is not None

    def _access(self, access: DeviceAccess) -> None:
        value = self._board.bus.access(access)
        if self._board.ending is None:
            self._engine.complete_access(0, 0, value)
        else:
            self.status = Status.RESET if self._board.ending == "reset" else Status.HALTED


class _Memory:
    """The machine's memory as a device or loader sees it: a `GuestMemory`."""

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
