"""`disco run`: boot VMs, run a command in each, and end as it ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from disco.cli import keys, status
from disco.cli.scheduler import SchedulerWish
from disco.cli.services import bare_sides
from disco.cli.terminal import AttachedConsole, Progress, RemoteConsoles, prefixed, say
from disco.cli.vms import VmWish, build_images
from disco.errors import ConfigError
from disco.guests.images import Image
from disco.hardware import Machine
from disco.hardware.machine import CPUS_MAX, DEFAULT_ENGINE
from disco.monitor import ContentPolicy, InIdleTime, Monitor, Outcome, Status, VirtualMachine
from disco.monitor.services import ServiceCost
from disco.network.nat import Nat, PublishedPort
from disco.observe import services
from disco.storage.choice import DiskChoice, Mode
from disco.storage.disk import Disk
from disco.storage.folder import SharedFolder


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line of `disco run`; see its help."""

    vms: tuple[VmWish, ...]
    attach: bool
    report: str | None
    as_json: bool
    offline: bool
    nodes: int
    cpus: int | None
    host_threads: int | None
    large_pages: bool
    engine: str | None
    scheduler: SchedulerWish
    node_memory_mib: int | None
    overcommit: bool
    share_content: bool
    content_pages: int | None
    seed: int
    kernel: Path | None
    initrd: Path | None
    append: str
    disks: tuple[str, ...]
    disk_cache_mib: int | None
    entropy: bool
    network: bool
    remap_frames: bool
    ssh: bool
    nat: bool
    publish: Mapping[str, tuple[PublishedPort, ...]]
    capture: Path | None
    shares: tuple[str, ...]
    timeout_seconds: float | None
    wall_timeout_seconds: float | None
    command: tuple[str, ...]

    @property
    def is_attached(self) -> bool:
        """Whether standard input and output are the console of the only VM, as for a shell."""
        is_shell = len(self.vms) == 1 and not self.command and not self.kernel and not self.as_json
        return self.attach or is_shell

    @property
    def has_network(self) -> bool:
        """Whether the VMs are on the subnet."""
        asked = (self.network, self.remap_frames, self.ssh, self.nat, self.publish, self.capture)
        return any(asked)

    def nat_of(self, vm: str) -> Nat | None:
        """The way out of a VM, if it is to have one."""
        if not self.nat and not self.publish:
            return None
        return Nat(publish=self.publish.get(vm, ()))


def run(options: Options) -> int:
    """Does it; the exit status."""
    if options.attach and (len(options.vms) > 1 or options.as_json):
        raise ConfigError(
            "--attach: a terminal can be the console of one VM, and not print JSON too"
        )
    made = build_images(options.vms, offline=options.offline)
    scheduler = options.scheduler.policy([wish.name for wish in options.vms])
    choices = [DiskChoice.parse(text) for text in options.disks]
    with (
        ExitStack() as opened,
        Monitor(
            _machine(options),
            scheduler=scheduler,
            overcommit=options.overcommit,
            content_sharing=_content_policy(options),
            disk_cache_mib=options.disk_cache_mib,
            remap_frames=options.remap_frames,
            warn=say,
        ) as monitor,
    ):
        shared = {
            choice: opened.enter_context(choice.open())
            for choice in choices
            if choice.effective_mode is Mode.SHARED
        }
        disks: list[DiskChoice | Disk] = [shared.get(choice, choice) for choice in choices]
        folders = [opened.enter_context(closing(_share(text))) for text in options.shares]
        try:
            if options.capture is not None:
                opened.enter_context(monitor.subnet.capture(options.capture))
            for wish in options.vms:
                vm = _create(monitor, options, wish, made, disks, folders)
                if options.report == "services":
                    vm.record_services()
                vm.boot()
            outcome = _run(monitor, options, made)
        except KeyboardInterrupt:
            outcome = None
    _conclude(monitor, options, made, outcome)
    return exit_status(monitor.vms, outcome)


def _content_policy(options: Options) -> bool | ContentPolicy:
    pages = options.content_pages
    return options.share_content if pages is None else InIdleTime(pages=pages)


def _machine(options: Options) -> Machine:
    wanted = Machine(
        nodes=options.nodes,
        cpus=_cpus(options),
        memory_mib_per_node=options.node_memory_mib
        or node_memory_mib(
            options.nodes, len(options.vms), max(wish.memory_mib for wish in options.vms)
        ),
        large_pages=options.large_pages,
        seed=options.seed,
        engine=options.engine or DEFAULT_ENGINE,
    )
    if options.host_threads is None:
        return wanted
    return replace(wanted, host_threads=options.host_threads)


def _cpus(options: Options) -> int:
    """What the user says, or one a node; vCPUs that wait for each other also get one each, if possible."""
    if options.cpus is not None:
        return options.cpus
    if all(wish.vcpus == 1 for wish in options.vms):
        return options.nodes
    return max(options.nodes, min(sum(wish.vcpus for wish in options.vms), CPUS_MAX))


def node_memory_mib(nodes: int, vms: int, memory_mib: int) -> int:
    """Memory of a node such that all VMs of `memory_mib` fit, and one on a node if there are nodes enough.

    Disco's tables take a 64th of a VM's memory at most, and up to 3 MiB besides.
    """
    each = memory_mib + memory_mib // 64 + 3
    return each * -(-vms // max(nodes, 1)) + 2


def exit_status(vms: list[VirtualMachine], outcome: Outcome | None) -> int:
    """Of the whole run; `outcome` is None after Ctrl-C."""
    if outcome is None:
        return status.INTERRUPTED
    for vm in vms:
        if vm.status is Status.CLOSED:
            return status.TIME_LIMIT if outcome is not Outcome.UNTIL else 0
        if vm.exit_status is None:
            return status.VM_FAILED
        if vm.exit_status:
            return vm.exit_status
    return 0


def _create(
    monitor: Monitor,
    options: Options,
    wish: VmWish,
    made: Mapping[str | None, Image],
    disks: Sequence[DiskChoice | Disk],
    shares: Sequence[SharedFolder],
) -> VirtualMachine:
    return monitor.create_vm(
        wish.name,
        image=made.get(wish.image),
        kernel=options.kernel,
        initrd=options.initrd,
        append=options.append,
        command=options.command or None,
        files=keys.files(wish.name) if options.ssh and wish.image else None,
        memory_mib=wish.memory_mib,
        vcpus=wish.vcpus,
        root=wish.root,
        disks=disks,
        entropy=options.entropy,
        network=options.has_network,
        nat=options.nat_of(wish.name),
        shares=shares,
    )


def _run(monitor: Monitor, options: Options, made: Mapping[str | None, Image]) -> Outcome:
    """Shows the consoles, or progress, while the VMs run."""
    until: Callable[[], bool] | None = None
    with ExitStack() as stack:
        if options.is_attached:
            image = made.get(options.vms[0].image)
            console = AttachedConsole(monitor, monitor.vms[0], ready=image.ready if image else "")
            if sys.stdin.isatty():
                say("attached to the console; Ctrl-] leaves it")
            stack.enter_context(console.raw())
            until = console.poll
        elif options.as_json:
            until = Progress(monitor).tick
        else:
            for shown in prefixed(monitor.vms, sys.stdout):
                stack.callback(shown.finish)
        return monitor.run(
            seconds=options.timeout_seconds,
            wall_seconds=options.wall_timeout_seconds,
            until=_with_remote_consoles(monitor, until, stack, has_tunnels=options.ssh),
        )


def _with_remote_consoles(
    monitor: Monitor, until: Callable[[], bool] | None, stack: ExitStack, *, has_tunnels: bool
) -> Callable[[], bool] | None:
    """`until`, and other terminals can attach to the consoles, and with tunnels to ports of VMs; if that cannot
    be, it is said."""
    try:
        consoles = RemoteConsoles(monitor, until, has_tunnels=has_tunnels)
    except ConfigError as error:
        say(f"{error}; 'disco console' will not find these VMs")
        return until
    stack.callback(consoles.close)
    return consoles.poll


def _conclude(
    monitor: Monitor,
    options: Options,
    made: Mapping[str | None, Image],
    outcome: Outcome | None,
) -> None:
    """The report, and a line on each VM that did not end in order."""
    if outcome is None:
        say(f"interrupted after {monitor.seconds:.2f} s of simulated time")
    elif outcome is Outcome.UNTIL:
        say("left the console; the VM is gone")
    elif outcome is not Outcome.ENDED:
        say(outcome.value)
    for vm in monitor.vms:
        if vm.error is not None:
            say(str(vm.error))
        elif vm.status is Status.RESET:
            say(f"VM '{vm.name}' asked for a restart, as a kernel does that has panicked")
    if not (options.as_json or options.report):
        return
    from rich.console import Console

    from disco.observe.report import report, tables

    result = report(monitor)
    compared = _services(monitor, options, made) if options.report == "services" else {}
    if options.as_json:
        for vm in result["vms"]:
            if vm["name"] in compared:
                vm["services"] = services.as_data(compared[vm["name"]])
        json.dump(result, sys.stdout)
        sys.stdout.write("\n")
        return
    for name, rows in compared.items():
        Console().print(services.tables(rows, title=f"Services of the kernel of VM '{name}'"))
    if options.report == "memory":
        from disco.observe import memory

        Console().print(memory.tables(monitor.fullest or monitor.footprint()))
    elif not compared:
        Console().print(tables(result))


def _has_devices(options: Options) -> bool:
    """Whether the VMs have devices that a bare machine has not."""
    return bool(options.disks or options.entropy or options.has_network or options.shares)


def _share(text: str) -> SharedFolder:
    """A folder of the host as the command line says it: FOLDER[:ro|:rw]."""
    name, colon, mode = text.rpartition(":")
    if not colon or mode not in ("ro", "rw"):
        name, mode = text, "ro"
    return SharedFolder(Path(name), read_only=mode == "ro")


def _services(
    monitor: Monitor, options: Options, made: Mapping[str | None, Image]
) -> dict[str, list[services.Compared]]:
    """What the services cost in each VM, beside the bare machine if the same can be done there."""
    bare: Mapping[str, tuple[ServiceCost, ...]] = {}
    if options.is_attached or _has_devices(options):
        say(
            "no bare side: a bare machine has no terminal, disks, entropy device, network or shares"
        )
    else:
        bare = bare_sides(
            options.vms,
            machine=monitor.machine,
            images=made,
            kernel=options.kernel,
            initrd=options.initrd,
            append=options.append,
            command=options.command,
            timeout_seconds=options.timeout_seconds,
        )
    return {vm.name: services.compare(vm.services, bare.get(vm.name, ())) for vm in monitor.vms}
