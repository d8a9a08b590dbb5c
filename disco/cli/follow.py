"""`disco follow`: one TLB miss of a running Debian VM, through all its steps."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from rich.console import Console

from disco import _engine
from disco._engine import Followed
from disco.cli import status
from disco.cli.run import node_memory_mib
from disco.cli.terminal import Progress, say
from disco.errors import ConfigError
from disco.guests import command, images, workload
from disco.hardware import Machine
from disco.monitor import Monitor, VirtualMachine
from disco.observe.follow import Surroundings, as_data, chapters, render

#: What users type, and what the engine calls it.
_KINDS = {
    "any": "any",
    "l2tlb": "l2tlb",
    "forwarded": "forwarded",
    "kernel": "kernel",
    "page-fault": "page fault",
}
#: Misses to look at before a long one is good enough.
_TRIES_MAX = 1000
_NODES = 4
_MEMORY_MIB = 128


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line of `disco follow`; see its help."""

    image: str
    vm: int
    vms: int
    kind: str
    after_seconds: float | None
    seed: int
    offline: bool
    as_json: bool


def follow(options: Options) -> int:
    """Does it; the exit status."""
    _check(options)
    image = images.build(options.image, offline=options.offline, progress=say)
    machine = Machine(
        nodes=_NODES,
        cpus=_NODES,
        memory_mib_per_node=node_memory_mib(_NODES, options.vms, _MEMORY_MIB),
        seed=options.seed,
    )
    with Monitor(machine, warn=say) as monitor:
        for index in range(options.vms):
            task = workload.make(options.seed + index)
            vm = monitor.create_vm(
                f"vm{index + 1}",
                image=image,
                memory_mib=_MEMORY_MIB,
                command=task.command,
                files=task.files,
            )
            vm.boot()
        try:
            return _show(monitor, monitor.vms[options.vm - 1], options)
        except KeyboardInterrupt:
            say(f"interrupted after {monitor.seconds:.2f} s of simulated time")
            return status.INTERRUPTED


def _check(options: Options) -> None:
    if options.kind not in _KINDS:
        raise ConfigError(f"--kind: '{options.kind}' asked; {', '.join(_KINDS)} are possible")
    if options.vm > options.vms:
        raise ConfigError(f"--vm: VM {options.vm} asked; 1 to {options.vms} are possible")


def _show(monitor: Monitor, vm: VirtualMachine, options: Options) -> int:
    _warm_up(monitor, vm, options)
    miss = _follow_plain(monitor, vm, _KINDS[options.kind])
    if miss is None:
        say(f"VM '{vm.name}' has ended ({vm.status}) before a miss of kind '{options.kind}'")
        return status.VM_FAILED
    around = Surroundings(
        vm=vm.name,
        disassemble=_engine.disassemble,
        node_of_page=monitor.node_of,
        kernel_bits=vm.kernel_bits,
    )
    if options.as_json:
        json.dump(as_data(miss.steps, around), sys.stdout)
        sys.stdout.write("\n")
    else:
        Console(soft_wrap=True, highlight=False).print(render(chapters(miss.steps, around)))
    return 0


def _follow_plain(monitor: Monitor, vm: VirtualMachine, kind: str) -> Followed | None:
    """The next miss of that kind that the guest's refill handler settles.

    One that goes on into the guest's own page fault handler takes ten thousand steps, and most of
    them have nothing to do with TLBs. Only "any" takes whatever comes.
    """
    for _ in range(_TRIES_MAX):
        miss = monitor.follow(vm, kind)
        if miss is None or kind == "any":
            return miss
        if sum(step["kind"] == "forward" for step in miss.steps) <= 1:
            return miss
    return miss


def _warm_up(monitor: Monitor, vm: VirtualMachine, options: Options) -> None:
    """Runs until the guest is at work, or as long as the user says."""
    marker = command.USERLAND_REACHED.decode()
    if options.after_seconds is not None:
        say(f"running for {options.after_seconds} s of simulated time")
        monitor.run(seconds=options.after_seconds, until=Progress(monitor).tick)
        return
    say(f"booting until '{marker}'")
    reached = Progress(monitor, stop=lambda: vm.has_printed(marker) or not vm.is_running)
    monitor.run(until=reached.tick)
