"""Disco: several VMs on one machine.

The engine runs until something has to be decided and returns that as events. Here is what Disco decides:

    PageFault       a page is needed: the placement policy says on which node; zeroed, then the vCPU retries
    DeviceAccess    a register was read or written: the device of that VM answers
    PostedWrites    registers whose writes can wait were written
    VcpuStopped     a vCPU cannot go on: an orderly power-off, or the end of that VM with a report
    Paused          a vCPU that somebody debugs has paused
    Followed        a miss that somebody wanted to see, complete

A VM that asks for the impossible ends alone; nothing that a guest does raises an error out of `run`.

Source: Bugnion, Devine, Rosenblum: Disco (SOSP'97), section 4.
"""

from __future__ import annotations

import hashlib
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from disco._engine import (
    DeviceAccess,
    Engine,
    Followed,
    PageFault,
    Paused,
    PostedWrites,
    VcpuStopped,
)
from disco.closing import Closing
from disco.devices.virtio.net import VirtioNet
from disco.errors import ConfigError, DiscoError, GuestStopped, MemoryExhausted
from disco.guests.images import Image
from disco.guests.platform import PAGE_SIZE, Platform
from disco.hardware.machine import Machine
from disco.monitor.accounting import Clock, Pace, memmap_rows, pages_by_owner
from disco.monitor.board import seed_of
from disco.monitor.content import ContentPolicy, ContentSharing, InIdleTime
from disco.monitor.diskcache import DiskCache, MappedReads
from disco.monitor.foldercache import FolderCache, FolderReads
from disco.monitor.footprint import Footprint, footprint_of
from disco.monitor.memory import Pages, VmMemory
from disco.monitor.overcommit import IdleFirst, Overcommit, OvercommitPolicy
from disco.monitor.peripheral import Peripheral
from disco.monitor.placement import Fault, FirstTouch, PlacementPolicy
from disco.monitor.pools import SLICE_ROUNDS, Pools
from disco.monitor.scheduling import SchedulingPolicy, TimeSharing
from disco.monitor.software import Software, Source
from disco.monitor.vm import NetworkPlace, Status, VirtualMachine, VmConfig
from disco.network.frame import Frame
from disco.network.nat import Nat
from disco.network.subnet import Subnet
from disco.storage.choice import DiskChoice, Mode
from disco.storage.disk import CacheableDisk, Disk
from disco.storage.folder import SharedFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from disco._engine import Event

logger = logging.getLogger(__name__)


class Outcome(Enum):
    """Why `Monitor.run` returned."""

    ENDED = "every VM has ended"
    UNTIL = "what was waited for has happened"
    SIMULATED_TIME = "the simulated time is over"
    WALL_TIME = "the wall time is over"
    IDLE = "every VM waits for something that nobody will do"
    PAUSED = "a vCPU has paused at a breakpoint or after its steps"


class Monitor(Closing):
    """Disco on a machine. A context manager: leaving it ends all VMs.

    Attributes:
        machine: the machine's description.
        vms: all VMs in the order of creation, ended ones too.
        clock: host time spent.
        subnet: the virtual subnet, for VMs that are made with `network=True`.
        disk_cache: blocks of disks, and of files in shared folders, in machine memory.
        fullest: what memory was used for when VMs had most of it, of the moments just before one ended.
    """

    def __init__(
        self,
        machine: Machine | None = None,
        *,
        placement: PlacementPolicy | None = None,
        scheduler: SchedulingPolicy | None = None,
        overcommit: bool | OvercommitPolicy = False,
        content_sharing: bool | ContentPolicy = False,
        disk_cache_mib: int | None = None,
        remap_frames: bool = False,
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        """Builds the machine.

        Args:
            machine: what to simulate; None: the default one.
            placement: where pages go; None: `FirstTouch`.
            scheduler: which vCPUs share which CPUs; None: `TimeSharing`.
            overcommit: allow VMs with more memory together than the machine has, give each a balloon, and
                let this policy say who gives memory back; True: `IdleFirst`.
            content_sharing: merge pages of VMs that are equal, looking for them as this policy says;
                True: `InIdleTime`.
            disk_cache_mib: how much of the machine's memory the disk cache may have, in MiB, mapped by
                VMs or not; 0: there is none; None: half of the machine.
            remap_frames: map whole pages that one VM sends to another into both, rather than copy them.
            warn: gets what a user should know though the run goes on.

        Raises:
            ConfigError: the host cannot give the machine its memory, or a policy cannot be.
        """
        self.machine = machine or Machine()
        self.vms: list[VirtualMachine] = []
        self.clock = Clock()
        self._overcommit: Overcommit | None = None
        self._content: ContentSharing | None = None
        self._remap_frames = remap_frames
        self._engine = _build(self.machine)
        self._pages = Pages(self._engine, self.machine, placement or FirstTouch(), warn)
        self.disk_cache = DiskCache(
            self._engine, self.machine, capacity_pages=_cache_pages(self.machine, disk_cache_mib)
        )
        has_cache = self.disk_cache.capacity_pages > 0
        self._folders = FolderCache(self.disk_cache) if has_cache else None
        self._pages.reclaim = self.disk_cache.reclaim
        if overcommit:
            self._overcommit = Overcommit(
                self._engine,
                self.machine,
                IdleFirst() if overcommit is True else overcommit,
                warn=warn,
                reclaim=self.disk_cache.reclaim,
            )
        if content_sharing:
            self._content = ContentSharing(
                self._engine,
                self.machine,
                InIdleTime() if content_sharing is True else content_sharing,
                warn=warn,
            )
        self._pools = Pools(self._engine, self.machine, scheduler or TimeSharing(), warn)
        self.subnet = Subnet(
            clock_hz=self.machine.clock_hz, now=lambda: self._engine.now, warn=warn
        )
        self._pace = Pace()
        self.fullest: Footprint | None = None
        self._living: dict[int, VirtualMachine] = {}
        self._followed: list[Followed] = []
        self._handlers: Mapping[type[Event], Callable[[VirtualMachine, Any], None]] = {
            PageFault: self._page_fault,
            DeviceAccess: self._device_access,
            PostedWrites: self._posted_writes,
            VcpuStopped: self._vcpu_stopped,
            Followed: self._was_followed,
            Paused: self._was_paused,
        }

    def close(self) -> None:
        """Ends every VM that has not ended. Twice is fine."""
        for vm in tuple(self._living.values()):
            self._end(vm, Status.CLOSED)

    # -- virtual machines -------------------------------------------------------------------

    def create_vm(
        self,
        name: str,
        *,
        image: Image | None = None,
        kernel: Path | None = None,
        initrd: Path | None = None,
        append: str = "",
        command: Sequence[str] | str | None = None,
        files: Mapping[str, bytes] | None = None,
        memory_mib: int = 128,
        vcpus: int = 1,
        root: Path | DiskChoice | None = None,
        disks: Sequence[Path | DiskChoice | Disk] = (),
        entropy: bool = False,
        virtio_console: bool = False,
        network: bool = False,
        nat: Nat | None = None,
        shares: Sequence[SharedFolder] = (),
        peripherals: Sequence[Peripheral] = (),
        restart_on_reset: bool = False,
    ) -> VirtualMachine:
        """Makes a VM, ready to `boot`.

        Args:
            name: unique on this machine.
            image, kernel, initrd, append, command, files: what it boots, see `Source`.
            memory_mib: physical memory in MiB.
            vcpus: virtual CPUs, 1 to 16; the machine may have fewer CPUs.
            root: the disk of a root, such as a Disco disk on the image's, in the place of a
                copy-on-write disk that is lost with the VM.
            disks: paths, each opened as `DiskChoice` opens it if no mode is said; choices; or open
                disks; /dev/vda is the first, or the one behind the image's own.
            entropy: give it a virtio entropy device, seeded by the machine's seed.
            network: put it on the subnet: a virtio network card, an address by DHCP, its name in DNS.
            nat: give it a way out to the host's network, and so put it on the subnet. Then no run is like
                another.
            shares: folders of the host that it can mount by their tags; whoever opened them closes them
                after the run.
            peripherals: devices of your own, see docs/how-to/add-a-device.md.
            virtio_console: give it a second console, /dev/hvc0 in the guest, `vm.hvc` here.
            restart_on_reset: boot it again when the guest asks for a restart.

        Raises:
            ConfigError: no such VM can be, or not beside those that are.
            ImageError: a kernel, initrd or disk cannot be used.
        """
        if any(vm.name == name for vm in self.vms) or not name:
            raise ConfigError(f"VM '{name}': a name that no other VM has is possible")
        has_network = network or nat is not None
        has_balloon = self._overcommit is not None
        disks = [*_root(name, image, root), *disks]
        platform = Platform(
            memory_bytes=memory_mib << 20,
            vcpu_count=vcpus,
            virtio_count=len(disks)
            + entropy
            + virtio_console
            + has_network
            + len(shares)
            + has_balloon,
            peripherals=tuple(one.compatible for one in peripherals),
            clock_hz=self.machine.clock_hz,
        )
        source = Source(
            image=image,
            kernel=kernel,
            initrd=initrd,
            append=append,
            command=command,
            files=files,
            network=has_network,
            shares=bool(shares),
            balloon=has_balloon,
        )
        software = source.read(platform, vm=name, seed=self.machine.seed)
        with ExitStack() as opened:
            config = VmConfig(
                name=name,
                platform=platform,
                nonce=software.nonce,
                has_command=command is not None,
                disks=[_open(disk, opened) for disk in disks],
                entropy=entropy,
                virtio_console=virtio_console,
                network=self._plug_in(name, nat, opened) if has_network else None,
                shares=_distinct(shares, name),
                balloon=has_balloon,
                peripherals=tuple(peripherals),
                restart_on_reset=restart_on_reset,
                seed=seed_of(machine_seed=self.machine.seed, vm=name),
                resources=opened.pop_all(),
            )
        try:
            return self._add(config, software)
        except ConfigError:
            config.resources.close()
            raise

    def _plug_in(self, name: str, nat: Nat | None, opened: ExitStack) -> NetworkPlace:
        """A place on the subnet until `opened` is closed, with a network card in it."""

        def send(frame: Frame, cycle: int) -> None:
            self.subnet.send(member, frame, cycle=cycle)

        def deliver(frame: Frame) -> None:
            # What the guest has put into its rings comes to light here, and is its fault alone.
            with self._stopping(next(vm for vm in self._living.values() if vm.name == name)):
                card.deliver(frame)

        member = self.subnet.join(name, deliver, nat=nat)
        opened.callback(self.subnet.leave, member)
        card = VirtioNet(link=member.link, send=send, remap=self._remap_frames)
        return NetworkPlace(member=member, card=card)

    def _add(self, config: VmConfig, software: Software) -> VirtualMachine:
        engine, platform = self._engine, config.platform
        try:
            number = engine.create_vm(
                ram=[(region.base, region.size) for region in platform.ram],
                vcpus=platform.vcpu_count,
            )
        except ValueError as error:
            raise ConfigError(f"VM '{config.name}': {error}") from error
        try:
            self._check_commitment(config)
            self._pools.add(config.name, number, platform.vcpu_count)
        except ConfigError:
            engine.destroy_vm(number)
            raise
        first_cpu = engine.cpu_of(number, 0)
        assert first_cpu is not None, "a plan has every vCPU"
        memory = VmMemory(
            engine=engine,
            pages=self._pages,
            vm=number,
            node=self.machine.node_of_cpu[first_cpu],
        )
        try:
            vm = VirtualMachine(
                config=config,
                software=software,
                engine=engine,
                number=number,
                memory=memory,
                pages_of=lambda disk: self._reads_of(disk, memory),
                file_pages=FolderReads(self._folders, memory)
                if self._folders is not None
                else None,
            )
        except ConfigError:
            self._pools.remove(number)
            engine.destroy_vm(number)
            raise
        self.vms.append(vm)
        self._living[number] = vm
        return vm

    def _reads_of(self, disk: Disk, memory: VmMemory) -> MappedReads | None:
        """Who reads a VM's disk through the cache, if it can be."""
        if not self.disk_cache.capacity_pages or not isinstance(disk, CacheableDisk):
            return None
        return MappedReads(cache=self.disk_cache, disk=disk, memory=memory)

    def _check_commitment(self, config: VmConfig) -> None:
        """Whether all living VMs and a new one could use all of their memory at once."""
        owners = pages_by_owner(self._engine, self.machine.nodes)
        pages = sum(sum(owners[owner]) for owner in ("free", "guest", "cache"))
        possible = pages * PAGE_SIZE
        promised = sum(vm.config.platform.memory_bytes for vm in self._living.values())
        asked = config.platform.memory_bytes
        if promised + asked > possible and self._overcommit is None:
            raise ConfigError(
                f"VM '{config.name}': {asked >> 20} MiB asked, {max(0, possible - promised) >> 20}"
                f" MiB possible: the machine has {self.machine.memory_bytes >> 20} MiB, of which"
                f" other VMs have {promised >> 20} MiB and Disco the rest"
            )

    # -- running ----------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """Simulated time in cycles."""
        return self._engine.now

    @property
    def translation_seconds(self) -> float:
        """Host time, in seconds, that the translators of all CPUs have spent so far."""
        return self._engine.translation_seconds

    @property
    def seconds(self) -> float:
        """Simulated time in seconds."""
        return self._engine.now / self.machine.clock_hz

    def run(
        self,
        *,
        seconds: float | None = None,
        wall_seconds: float | None = None,
        until: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Runs all booted VMs until each has ended, one pauses, or a limit is reached. Who has paused goes on.

        Args:
            seconds: limit of simulated time from now, to the end of a round.
            wall_seconds: limit of host time; where it falls differs from run to run.
            until: asked every few rounds, at the same simulated times in each run.

        Raises:
            KeyboardInterrupt: Ctrl-C; the monitor is whole and `run` can be called again.
        """
        end = None if seconds is None else self.now + self.machine.cycles(seconds)
        start = time.perf_counter()
        self._let_go_on()
        try:
            with _deferred_interrupt() as raise_if_interrupted:
                while any(vm.is_running for vm in self._living.values()):
                    raise_if_interrupted()
                    self._pools.tick()
                    self._tell_balloons()
                    if self._content is not None:
                        self._content.tick(tuple(self._living.values()))
                    if until is not None and until():
                        return Outcome.UNTIL
                    if end is not None and self.now >= end:
                        return Outcome.SIMULATED_TIME
                    if wall_seconds is not None and time.perf_counter() - start >= wall_seconds:
                        return Outcome.WALL_TIME
                    if not self._run_slice(end):
                        return Outcome.IDLE
                    if self._has_paused:
                        return Outcome.PAUSED
            return Outcome.ENDED
        finally:
            self.clock.wall_seconds += time.perf_counter() - start

    def _run_slice(self, end: int | None) -> bool:
        """Runs to the next multiple of a slice, or to `end`. False: no vCPU will ever be ready."""
        engine, slice_cycles = self._engine, SLICE_ROUNDS * self.machine.quantum_cycles
        target = (engine.now // slice_cycles + 1) * slice_cycles
        if end is not None:
            target = min(target, end)
        while engine.now < target and self._living:
            if self.subnet.has_way_out:
                self.subnet.take_from_outside(wait_seconds=self._pace.ahead_seconds(self.seconds))
            is_by_round = self.subnet.has_waiting or self.subnet.has_way_out
            until = min(target, self._end_of_round()) if is_by_round else target
            start = time.perf_counter()
            events = engine.run(until)
            self.clock.engine_seconds += time.perf_counter() - start
            if not events and engine.now < until:
                return engine.next_event() is not None
            self._handle(events)
            self._deliver_frames()
            if self._has_paused:
                break
        return True

    @property
    def _has_paused(self) -> bool:
        return any(vm.paused is not None for vm in self._living.values())

    def _let_go_on(self) -> None:
        for vm in self._living.values():
            if vm.paused is not None:
                vm.paused = None
                self._engine.go_on(vm.number)

    def _tell_balloons(self) -> None:
        """What the overcommit policy wants of the VMs, if it is its turn."""
        if self._overcommit is None:
            return
        for vm, pages in self._overcommit.tick(tuple(self._living.values())):
            balloon = vm.board.balloon
            assert balloon is not None, "who is told has a balloon"
            with self._stopping(vm):
                if pages is not None:
                    balloon.aim(pages)
                balloon.ask()

    def _end_of_round(self) -> int:
        """When the round ends that the engine is in or about to begin, in cycles."""
        quantum = self.machine.quantum_cycles
        return (self._engine.now // quantum + 1) * quantum

    def _deliver_frames(self) -> None:
        """At the end of a round: frames go to the VMs that they are for."""
        self.subnet.deliver(now=self._engine.now)

    def _handle(self, events: Sequence[Event]) -> None:
        living, handlers = self._living, self._handlers
        for event in events:
            vm = living.get(event.vm)
            if vm is None:
                continue  # it ended by an earlier event of the same round
            vcpu = event.vcpu if isinstance(event, DeviceAccess) else 0
            with self._stopping(vm, vcpu=vcpu):
                handlers[type(event)](vm, event)

    @contextmanager
    def _stopping(self, vm: VirtualMachine, *, vcpu: int = 0) -> Iterator[None]:
        """What goes wrong in here stops that VM, with a report, and nothing else."""
        try:
            yield
        except MemoryExhausted as error:
            self._end(vm, Status.STOPPED, MemoryExhausted(f"VM '{vm.name}': {error}"))
        except DiscoError as error:
            self._stop(vm, vcpu=vcpu, cause=str(error))

    # -- what Disco decides -----------------------------------------------------------------

    def _page_fault(self, vm: VirtualMachine, fault: PageFault) -> None:
        if not fault.protected:
            self._give_page(vm, fault, self._pages.answer)
        elif self._engine.is_shared(fault.vm, fault.ppn):
            self._give_page(vm, fault, self._pages.unshare)
        else:
            self._engine.protect_page(fault.vm, fault.ppn, True)

    def _give_page(
        self, vm: VirtualMachine, fault: PageFault, give: Callable[[Fault], None]
    ) -> None:
        """At once, or when an overcommitted machine has one again."""
        overcommit = self._overcommit
        if overcommit is None:
            give(fault)
        elif overcommit.has_room(vm):
            give(fault)
            overcommit.served(vm.number)
        else:
            overcommit.postpone(vm, fault, tuple(self._living.values()))

    def _device_access(self, vm: VirtualMachine, access: DeviceAccess) -> None:
        value = vm.board.bus.access(access)
        if vm.board.ending is None:
            self._engine.complete_access(access.vm, access.vcpu, value)
        else:
            self._power(vm)

    def _posted_writes(self, vm: VirtualMachine, event: PostedWrites) -> None:
        vm.board.bus.posted(event.writes)

    def _power(self, vm: VirtualMachine) -> None:
        """The guest wrote the power registers: the access never ends, the VM does."""
        if vm.board.ending != "reset":
            self._end(vm, Status.HALTED)
        elif vm.config.restart_on_reset:
            self.subnet.settle()
            vm.restart()
        else:
            self._end(vm, Status.RESET)

    def _vcpu_stopped(self, vm: VirtualMachine, event: VcpuStopped) -> None:
        if event.cause == "halted":
            self._end(vm, Status.HALTED)
        else:
            self._stop(vm, vcpu=event.vcpu, cause=f"{event.cause}: {event.detail}")

    def _was_paused(self, vm: VirtualMachine, event: Paused) -> None:
        vm.paused = vm.paused or event

    def _was_followed(self, vm: VirtualMachine, event: Followed) -> None:
        self._followed.append(event)

    def _stop(self, vm: VirtualMachine, *, vcpu: int, cause: str) -> None:
        pc = vm.registers(vcpu)["pc"]
        self._end(vm, Status.STOPPED, GuestStopped(vm=vm.name, vcpu=vcpu, pc=pc, cause=cause))

    def _end(self, vm: VirtualMachine, status: Status, error: DiscoError | None = None) -> None:
        self.subnet.settle()
        now = self.footprint()
        if self.fullest is None or _size(now) > _size(self.fullest):
            self.fullest = now
        del self._living[vm.number]
        vm.end(status, error)
        self._pools.remove(vm.number)
        if self._overcommit is not None:
            self._overcommit.served(vm.number)
        if self._content is not None:
            self._content.forget(vm.number)

    # -- looking ----------------------------------------------------------------------------

    @property
    def memmap(self) -> NDArray[np.void]:
        """A row a machine page: owner, number of users, and the first user's VM and physical page.

        The engine's memory; read it between runs. `users` has all users of a page.
        """
        return memmap_rows(self._engine.memmap())

    def users(self, machine_page: int) -> list[tuple[int, int]]:
        """The (VM number, physical page) pairs that use a guests' machine page, in order.

        Raises:
            ConfigError: the machine has no such page.
        """
        try:
            return self._engine.users(machine_page)
        except (ValueError, OverflowError) as error:
            raise ConfigError(str(error)) from None

    def cpu_counters(self, cpu: int) -> dict[str, int]:
        """A CPU's instructions, its clock as `now`, and where its time went.

        `cycles_user`, `cycles_kernel`, `cycles_monitor` and `cycles_idle` together are `now`; the
        `cycles_monitor_*` together are `cycles_monitor`.

        Raises:
            ConfigError: the machine has no such CPU.
        """
        if not 0 <= cpu < self.machine.cpus:
            raise ConfigError(
                f"CPU {cpu} asked; 0 to {self.machine.cpus - 1} are possible on this machine"
            )
        return self._engine.cpu_counters(cpu)

    def node_of(self, machine_page: int) -> int:
        """The node whose memory the page is.

        Raises:
            ConfigError: the machine has no such page.
        """
        try:
            return self._engine.node_of(machine_page)
        except (ValueError, OverflowError) as error:
            raise ConfigError(str(error)) from None

    def pages_by_owner(self) -> dict[str, tuple[int, ...]]:
        """Machine pages now: "free", "guest", "monitor" and "cache", each by node."""
        return pages_by_owner(self._engine, self.machine.nodes)

    def footprint(self) -> Footprint:
        """What the memory of the living VMs is used for, and who shares it."""
        return footprint_of(self._engine, tuple(self._living.values()))

    @property
    def content_counts(self) -> dict[str, int]:
        """What sharing by content has come to so far, in pages: those looked at ("scanned"), "hashed", found
        unchanged ("candidates"), "compared", "merged", of these full of zeros ("merged_zero"), and of
        the merged ones those that were written to later ("broken")."""
        return self._engine.content_counts()

    def step(self, vm: VirtualMachine, count: int = 1, *, vcpu: int = 0) -> Paused | None:
        """Runs until a vCPU has executed so many instructions more, or pauses before that at a breakpoint.

        Other vCPUs and VMs run meanwhile, as they would anyway. A branch and its delay slot count as two and
        are not parted. An interrupt that is due is taken first.

        Returns:
            Where it has paused, or None if the VM ended or waits for ever before that.

        Raises:
            ConfigError: less than one instruction, or a vCPU that the VM does not have.
        """
        if count < 1 or not 0 <= vcpu < vm.vcpu_count:
            raise ConfigError(
                f"VM '{vm.name}': {count} steps of vCPU {vcpu} asked;"
                f" 1 or more are possible, of vCPU 0 to {vm.vcpu_count - 1}"
            )
        if not vm.is_running:
            return None
        vm.paused = None
        self._engine.go_on(vm.number, vcpu=vcpu, steps=count)
        self.run()
        return vm.paused

    def follow(self, vm: VirtualMachine, kind: str = "any") -> Followed | None:
        """Runs until the VM's next miss of this kind is through all its steps.

        Args:
            kind: "any", "l2tlb", "forwarded", "kernel" or "page fault".

        Returns:
            The miss, or None if the VM ended or waits for ever before it had one.
        """
        self._followed.clear()
        self._engine.follow(vm.number, kind)
        self.run(until=lambda: bool(self._followed) or not vm.is_running)
        return self._followed[0] if self._followed else None

    def digest(self) -> str:
        """SHA-256 over simulated time, and every VM's end, counters, console and traffic, in hexadecimal.

        Two runs of the same configuration and seed have the same digest, on every host.
        """
        record: dict[str, object] = {
            "now": self.now,
            "vms": [
                [vm.name, vm.status, vm.exit_status, vm.usage.vcpus, vm.console.digest]
                for vm in self.vms
            ],
        }
        networks = {vm.name: vm.network.counts for vm in self.vms if vm.network is not None}
        if networks:
            record["networks"] = networks
        return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _build(machine: Machine) -> Engine:
    try:
        return Engine(
            node_of_cpu=machine.node_of_cpu,
            nodes=machine.nodes,
            memory_bytes_per_node=machine.memory_bytes_per_node,
            quantum_cycles=machine.quantum_cycles,
            tlb_entries=machine.tlb_entries,
            l2tlb_entries=machine.l2tlb_entries,
            large_pages=machine.large_pages,
            host_threads=machine.host_threads,
            costs=dict(machine.costs),
            engine=machine.engine,
        )
    except ValueError as error:
        raise ConfigError(f"machine: {error}") from error


def _root(
    vm: str, image: Image | None, wish: Path | DiskChoice | None
) -> list[Path | DiskChoice | Disk]:
    """The disk that an image's root is on, if it is on one.

    Raises:
        ConfigError: a disk is asked for, and the image has no use for it.
    """
    if image is None or image.disk is None:
        if wish is not None:
            raise ConfigError(f"VM '{vm}': a disk for its root asked, but its image is in memory")
        return []
    return [DiskChoice(image.disk, Mode.COW) if wish is None else wish]


def _size(footprint: Footprint) -> int:
    return sum(footprint.virtual_by_use.values())


def _cache_pages(machine: Machine, mib: int | None) -> int:
    if mib is not None and mib < 0:
        raise ConfigError(f"disk cache: {mib} MiB asked; 0 or more are possible")
    return (machine.memory_bytes // 2 if mib is None else mib << 20) // PAGE_SIZE


def _open(disk: Path | DiskChoice | Disk, opened: ExitStack) -> Disk:
    choice = DiskChoice(disk) if isinstance(disk, Path) else disk
    return opened.enter_context(choice.open()) if isinstance(choice, DiskChoice) else choice


def _distinct(shares: Sequence[SharedFolder], vm: str) -> Sequence[SharedFolder]:
    tags = [folder.tag for folder in shares]
    twice = next((tag for tag in tags if tags.count(tag) > 1), None)
    if twice is not None:
        raise ConfigError(f"VM '{vm}': two shared folders with the tag '{twice}'; one is possible")
    return shares


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], None]]:
    """Ctrl-C waits until the function that this gives is called; a second one does not wait.

    An interrupt between the engine's events and their answers would leave vCPUs that nobody answers.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    is_pending = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_pending
        if is_pending:
            raise KeyboardInterrupt
        is_pending = True

    def raise_if_pending() -> None:
        if is_pending:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, note)
    try:
        yield raise_if_pending
    finally:
        signal.signal(signal.SIGINT, before)
