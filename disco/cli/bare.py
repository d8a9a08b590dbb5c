"""`disco bare`: the same kernel without the monitor, and what the monitor costs beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console as Terminal
from rich.table import Table

from disco.cli import status
from disco.cli.terminal import say
from disco.errors import ConfigError
from disco.guests import images
from disco.guests.images import Image
from disco.hardware import Machine
from disco.hardware.machine import DEFAULT_ENGINE
from disco.monitor import Monitor, Status
from disco.monitor.bare import NAME, BareMachine
from disco.monitor.services import ServiceCost
from disco.observe import services

#: Rows of the comparison: a counter of both sides, and what it is called.
_ROWS = (
    ("instructions", "instructions"),
    ("cycles_user", "cycles: user"),
    ("cycles_kernel", "cycles: kernel"),
    ("cycles_monitor", "cycles: Disco"),
    ("cycles_idle", "cycles: idle"),
)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line of `disco bare`; see its help."""

    image: str
    memory_mib: int
    cpus: int
    engine: str | None
    seed: int
    timeout_seconds: float | None
    compare: bool
    report: str | None
    as_json: bool
    offline: bool
    command: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two runs.

    Attributes:
        cycles: simulated time from power on to power off.
        digest: of the run.
        counters: what was counted, by name.
        cpus: the same of each CPU or vCPU.
        console: what was printed.
        exit_status: of the command; None if the machine did not power off in order.
        services: what those of the kernel cost, if they were recorded.
    """

    cycles: int
    digest: str
    counters: dict[str, int]
    cpus: tuple[Mapping[str, int], ...]
    console: str
    exit_status: int | None
    is_over: bool
    services: tuple[ServiceCost, ...]


def bare(options: Options) -> int:
    """Does it; the exit status is the bare machine's command's."""
    if not options.command:
        raise ConfigError("disco bare: no command asked; 'disco bare -- nproc' is possible")
    image = images.build(options.image, offline=options.offline, progress=say)
    machine = Machine(
        nodes=1,
        cpus=options.cpus,
        memory_mib_per_node=options.memory_mib * 2 + 8,
        seed=options.seed,
        engine=options.engine or DEFAULT_ENGINE,
    )
    alone = _alone(machine, options, image)
    in_vm = _in_vm(machine, options, image) if options.compare else None
    if options.as_json:
        json.dump(as_data(alone, in_vm), sys.stdout, indent=2)
        sys.stdout.write("\n")
    else:
        _show(alone, in_vm)
    if not alone.is_over:
        return status.TIME_LIMIT
    return status.VM_FAILED if alone.exit_status is None else alone.exit_status


def _alone(machine: Machine, options: Options, image: Image) -> Side:
    cpus = "one CPU" if machine.cpus == 1 else f"{machine.cpus} CPUs"
    say(f"booting on the bare machine: {cpus} at {machine.clock_hz // 1_000_000} MHz")
    bare_machine = BareMachine(
        machine, memory_mib=options.memory_mib, image=image, command=options.command
    )
    if options.report == "services":
        bare_machine.record_services()
    bare_machine.run(seconds=options.timeout_seconds)
    return Side(
        cycles=bare_machine.now,
        digest=bare_machine.digest(),
        counters=bare_machine.counters,
        cpus=bare_machine.cpus,
        console=bare_machine.console.text,
        exit_status=bare_machine.exit_status,
        is_over=bare_machine.status is not Status.RUNNING,
        services=bare_machine.services,
    )


def _in_vm(machine: Machine, options: Options, image: Image) -> Side:
    say("booting the same in a VM under Disco")
    with Monitor(machine, warn=say) as monitor:
        vm = monitor.create_vm(
            NAME,
            image=image,
            memory_mib=options.memory_mib,
            vcpus=machine.cpus,
            command=options.command,
        )
        if options.report == "services":
            vm.record_services()
        vm.boot()
        monitor.run(seconds=options.timeout_seconds)
    counters = dict(vm.usage.counters)
    names = [name for name, _ in _ROWS if name.startswith("cycles")]
    return Side(
        # The first vCPU has its CPU to itself, so its time is the VM's.
        cycles=sum(vm.usage.vcpus[0][name] for name in names),
        digest=monitor.digest(),
        counters=counters,
        cpus=vm.usage.vcpus,
        console=vm.console.text,
        exit_status=vm.exit_status,
        is_over=vm.status is not Status.CLOSED,
        services=vm.services,
    )


def as_data(alone: Side, in_vm: Side | None) -> dict[str, Any]:
    """What `--json` prints."""
    data: dict[str, Any] = {"bare": _side_data(alone)}
    if in_vm is not None:
        data["disco"] = _side_data(in_vm)
        data["ratio"] = {"cycles": in_vm.cycles / alone.cycles}
    if alone.services:
        data["services"] = services.as_data(_compared(alone, in_vm))
    return data


def _compared(alone: Side, in_vm: Side | None) -> list[services.Compared]:
    return services.compare(in_vm.services if in_vm else (), alone.services)


def _side_data(side: Side) -> dict[str, Any]:
    return {
        "cycles": side.cycles,
        "digest": side.digest,
        "exit_status": side.exit_status,
        "counters": side.counters,
        "cpus": list(side.cpus),
        "console": side.console,
    }


def _show(alone: Side, in_vm: Side | None) -> None:
    sys.stdout.write(alone.console)
    if not alone.console.endswith("\n"):
        sys.stdout.write("\n")
    title = "From power on to power off; all CPUs together, but for the time"
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("")
    table.add_column("bare machine", justify="right")
    if in_vm is not None:
        table.add_column("VM under Disco", justify="right")
        table.add_column("ratio", justify="right")
    table.add_row("time in cycles", *_cells(alone.cycles, in_vm.cycles if in_vm else None))
    for name, title in _ROWS:
        vm_value = in_vm.counters.get(name) if in_vm else None
        table.add_row(title, *_cells(alone.counters.get(name), vm_value))
    Terminal().print(table)
    if alone.services:
        rows = _compared(alone, in_vm)
        Terminal().print(services.tables(rows, title="Services of the kernel"))


def _cells(alone: int | None, in_vm: int | None) -> list[str]:
    cells = [_millions(alone)]
    if in_vm is not None:
        cells += [_millions(in_vm), f"{in_vm / alone:.2f}" if alone else "-"]
    return cells


def _millions(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.1f} M"
