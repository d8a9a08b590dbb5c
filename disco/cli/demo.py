"""`disco demo`: four Debian VMs on four nodes, some real work in each, and what it cost."""

from __future__ import annotations

import json
import sys

from rich.console import Console

from disco.cli import status
from disco.cli.run import exit_status, node_memory_mib
from disco.cli.terminal import Progress, say
from disco.guests import images, workload
from disco.guests.workload import Workload
from disco.hardware import Machine
from disco.hardware.machine import DEFAULT_ENGINE
from disco.monitor import Monitor, VirtualMachine
from disco.observe.report import report, tables

_NAMES = ("web", "db", "mail", "make")
_NODES = 4
_MEMORY_MIB = 128

_NEXT = """
Three things to try next:
  disco follow                       one TLB miss of a VM through all its steps, with the guest's handler
  disco run --attach                 a shell in a Debian VM; Ctrl-] leaves it
  disco run --vms 8 --nodes 2 --report -- sh -c 'cat /bin/busybox | sha256sum'
                                     more VMs than nodes: see whose pages are where
"""


def demo(*, seed: int, engine: str | None, offline: bool, as_json: bool) -> int:
    """Does it; 0 if each VM did what the host had worked out."""
    image = images.build("default", offline=offline, progress=say)
    machine = Machine(
        nodes=_NODES,
        cpus=_NODES,
        memory_mib_per_node=node_memory_mib(_NODES, len(_NAMES), _MEMORY_MIB),
        seed=seed,
        engine=engine or DEFAULT_ENGINE,
    )
    work = {name: workload.make(seed + index) for index, name in enumerate(_NAMES)}
    say(f"{len(_NAMES)} VMs of {_MEMORY_MIB} MiB on {machine}")
    outcome = None
    with Monitor(machine, warn=say) as monitor:
        try:
            for name, task in work.items():
                monitor.create_vm(
                    name,
                    image=image,
                    memory_mib=_MEMORY_MIB,
                    command=task.command,
                    files=task.files,
                ).boot()
            progress = Progress(monitor)
            outcome = monitor.run(until=progress.tick)
            progress.show()
        except KeyboardInterrupt:
            say(f"interrupted after {monitor.seconds:.2f} s of simulated time")
    result = report(monitor)
    if as_json:
        json.dump(result, sys.stdout)
        sys.stdout.write("\n")
    else:
        Console().print(tables(result))
    if outcome is None:
        return status.INTERRUPTED
    verdicts = [_verdict(vm, work[vm.name]) for vm in monitor.vms]
    if not as_json:
        Console(highlight=False).print(_NEXT, markup=False, soft_wrap=True)
    failed = exit_status(monitor.vms, outcome)
    return failed or (0 if all(verdicts) else status.VM_FAILED)


def _verdict(vm: VirtualMachine, task: Workload) -> bool:
    """Says how the guest's results compare with the host's."""
    missing = task.missing(vm.console.data)
    count = len(task.expected)
    if vm.error is not None:
        say(str(vm.error))
    if missing:
        say(
            f"VM '{vm.name}': {len(missing)} of {count} results differ from the host's: {missing[0]}"
        )
    else:
        say(f"VM '{vm.name}': all {count} results are the host's")
    return not missing
