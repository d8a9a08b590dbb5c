"""`disco demo`: four Debian VMs on four nodes, some real work in each, and what it cost.

Of each kind one: 64-bit and 32-bit, with one vCPU and with two.
"""

from __future__ import annotations

import json
import sys

from rich.console import Console

from disco.cli import status, vms
from disco.cli.run import exit_status, node_memory_mib
from disco.cli.terminal import Progress, say
from disco.guests import workload
from disco.guests.workload import Workload
from disco.hardware import Machine
from disco.hardware.machine import DEFAULT_ENGINE
from disco.monitor import Monitor, VirtualMachine
from disco.observe.report import report, tables

#: As `disco run` takes them.
_WORDS = (
    "web=debian-mips64el",
    "db=debian-mips64el,vcpus=2",
    "mail=debian-mipsel",
    "make=debian-mipsel,vcpus=2",
)
_NODES = 4
_CPUS = 8
_MEMORY_MIB = 128

_NEXT = """
Three things to try next:
  disco follow                       one TLB miss of a VM through all its steps, with the guest's handler
  disco run --attach                 a shell in a Debian VM; Ctrl-] leaves it
  disco run default,vcpus=4 debian-mipsel --report -- sh -c 'sha256sum /bin/busybox; nproc'
                                     VMs of your own choice: see whose pages are where
"""


def demo(*, seed: int, engine: str | None, offline: bool, as_json: bool) -> int:
    """Does it; 0 if each VM did what the host had worked out."""
    wishes = vms.parse(_WORDS, count=1, vcpus=1, memory_mib=_MEMORY_MIB)
    made = vms.build_images(wishes, offline=offline)
    machine = Machine(
        nodes=_NODES,
        cpus=_CPUS,
        memory_mib_per_node=node_memory_mib(_NODES, len(wishes), _MEMORY_MIB),
        seed=seed,
        engine=engine or DEFAULT_ENGINE,
    )
    work = {wish.name: workload.make(seed + index) for index, wish in enumerate(wishes)}
    say(f"{len(wishes)} VMs of {_MEMORY_MIB} MiB on {machine}")
    outcome = None
    with Monitor(machine, warn=say) as monitor:
        try:
            for wish in wishes:
                say(
                    f"VM '{wish.name}': {wish.image}, {wish.vcpus} vCPU{'s' if wish.vcpus > 1 else ''}"
                )
                monitor.create_vm(
                    wish.name,
                    image=made[wish.image],
                    memory_mib=wish.memory_mib,
                    vcpus=wish.vcpus,
                    command=work[wish.name].command,
                    files=work[wish.name].files,
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
