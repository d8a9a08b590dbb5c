"""The process that is Disco's side: runs VMs and prints what happens, a JSON object a line.

    {"guest": 0, "text": "bench: begin sort", "counters": {...}}    a line of a console
    {"facts": {...}, "counters": [...]}                             at the end

Its argument is the JSON form of what to run: the arguments of `run`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from disco import Machine, Monitor, Status, VirtualMachine
from disco.guests.platform import PAGE_SIZE
from disco.monitor.accounting import host_peak_bytes
from disco.storage.choice import DiskChoice, Mode

#: Disco's own share of a node, beside the rows of its tables.
_ROOM_MIB = 16
#: Lines that are worth reading the counters for.
_MARK = "bench: "
_USERLAND = "disco: userland reached"


class Lines:
    """Prints a VM's console as it comes, whole lines only."""

    def __init__(self, vm: VirtualMachine, guest: int) -> None:
        self._vm = vm
        self._guest = guest
        self._rest = b""
        vm.console.listeners.append(self.take)

    def take(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace").rstrip("\r")
            is_mark = text.startswith(_MARK) or text == _USERLAND
            _say(
                guest=self._guest,
                text=text,
                counters=self._vm.usage.counters if is_mark else {},
            )


def run(
    *,
    kernel: str,
    initrd: str | None,
    append: str,
    disk: str | None,
    ready: str,
    guests: int,
    has_network: bool,
    vcpus: int,
    memory_mib: int,
    cpus: int | None,
    host_threads: int | None,
) -> int:
    """Runs the VMs until all have ended or, if consoles are to show `ready`, until they do; 1 if one did
    something else."""
    cpus = cpus or guests * vcpus
    nodes = min(guests, cpus)
    guests_per_node = -(-guests // nodes)
    machine = Machine(
        nodes=nodes,
        cpus=cpus,
        memory_mib_per_node=guests_per_node * (memory_mib + memory_mib // 32 + _ROOM_MIB),
        **({} if host_threads is None else {"host_threads": host_threads}),
    )
    with Monitor(machine) as monitor:
        for guest in range(guests):
            vm = monitor.create_vm(
                f"vm{guest + 1}",
                kernel=Path(kernel),
                initrd=Path(initrd) if initrd else None,
                append=append,
                memory_mib=memory_mib,
                vcpus=vcpus,
                network=has_network,
                disks=[DiskChoice(Path(disk), Mode.COW)] if disk else [],
            )
            Lines(vm, guest)
        for vm in monitor.vms:
            vm.boot()

        def are_ready() -> bool:
            return all(vm.console.contains(ready) for vm in monitor.vms)

        monitor.run(until=are_ready if ready else None)
        facts = {
            "python_share": monitor.clock.python_share,
            "translation_share": monitor.translation_seconds / monitor.clock.wall_seconds,
            "guest_bytes": sum(vm.usage.pages for vm in monitor.vms) * PAGE_SIZE,
            "peak_bytes": host_peak_bytes(),
        }
        _say(facts=facts, counters=[vm.usage.counters for vm in monitor.vms])
        for vm in monitor.vms:
            if vm.error is not None:
                sys.stderr.write(f"{vm.error}\n")
        if ready:
            return int(not are_ready())
        return int(any(vm.status not in (Status.RESET, Status.HALTED) for vm in monitor.vms))


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(run(**json.loads(sys.argv[1])))
