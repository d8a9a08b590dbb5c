"""The report of a run: a dictionary that is JSON as it is, and the same as tables for people.

    digest    of the whole run
    machine   its description
    cpus      per CPU: where its time went; the parts are all of it
    vms       per VM: kernel, end, instructions, cycles, traps, TLB misses, page faults, memory, disks, console,
              what it gave back by its balloon, its address on the subnet and its traffic there;
              per vCPU: CPU, where its time went, turns and moves
    memory    what the VMs together have, what the machine spends on it, the most that this process
              has had of the host's, pages by node and owner; and what it was used for when the VMs had most
    disk_cache  what became of the pages that VMs read from disks, and what the cache has
    time      simulated and host time, the share of the latter that was spent in Python, and the host
              time that all threads together spent on translating guest code

The engine's counters are grouped by the first word of their names, so a new counter of a known group
shows up by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from disco.guests.platform import PAGE_SIZE
from disco.monitor.accounting import host_peak_bytes
from disco.monitor.monitor import Monitor
from disco.monitor.vm import VirtualMachine

Report = dict[str, Any]

#: Groups of counters, by prefix, as the report names them.
_GROUPS = {
    "monitor_cycles": "cycles_monitor_",
    "cycles": "cycles_",
    "traps": "traps_",
    "tlb": "tlb_",
    "emulated": "emulated_",
    "page_faults": "page_faults_",
    "devices": "device_",
    "scheduling": "vcpu_",
}


def report(monitor: Monitor) -> Report:
    """Everything that is known of a run, now or after its end."""
    vms = [_vm(vm) for vm in monitor.vms]
    nodes = range(monitor.machine.nodes)
    clock = monitor.clock
    return {
        "digest": monitor.digest(),
        "machine": {
            "nodes": monitor.machine.nodes,
            "cpus": monitor.machine.cpus,
            "memory_bytes": monitor.machine.memory_bytes,
            "clock_hz": monitor.machine.clock_hz,
            "seed": monitor.machine.seed,
        },
        "cpus": [_cpu(monitor, cpu) for cpu in range(monitor.machine.cpus)],
        "vms": vms,
        "memory": {
            "virtual_bytes": sum(vm["memory"]["virtual_bytes"] for vm in vms),
            "machine_bytes": sum(vm["memory"]["machine_bytes"] for vm in vms),
            "host_peak_bytes": host_peak_bytes(),
            "footprint": (monitor.fullest or monitor.footprint()).as_data(),
            "nodes": [
                {
                    "node": node,
                    "bytes": monitor.machine.memory_bytes_per_node,
                    "vms": {vm["name"]: vm["memory"]["bytes_by_node"][node] for vm in vms},
                    "monitor": _monitor_pages(monitor, node) * PAGE_SIZE,
                }
                for node in nodes
            ],
        },
        "disk_cache": {
            **asdict(monitor.disk_cache.counters),
            "bytes": monitor.disk_cache.pages * PAGE_SIZE,
        },
        "content_sharing": monitor.content_counts,
        "time": {
            "cycles": monitor.now,
            "seconds": monitor.seconds,
            "wall_seconds": clock.wall_seconds,
            "python_share": clock.python_share,
            "translation_seconds": monitor.translation_seconds,
        },
    }


def _vm(vm: VirtualMachine) -> dict[str, Any]:
    usage = vm.usage
    counters = usage.counters
    return {
        "name": vm.name,
        "kernel_bits": vm.kernel_bits,
        "status": vm.status.value,
        "error": str(vm.error) if vm.error else None,
        "exit_status": vm.exit_status,
        "instructions": counters["instructions"],
        **_grouped(counters),
        "interrupts": counters["interrupts"],
        "vcpus": [_vcpu(cpu, counts) for cpu, counts in zip(vm.cpus, usage.vcpus, strict=True)],
        "memory": {
            "physical_bytes": vm.config.platform.memory_bytes,
            "virtual_bytes": usage.pages * PAGE_SIZE,
            "machine_bytes": (usage.pages + sum(usage.monitor_pages_by_node)) * PAGE_SIZE,
            "bytes_by_node": [pages * PAGE_SIZE for pages in usage.pages_by_node],
            "monitor_bytes_by_node": [pages * PAGE_SIZE for pages in usage.monitor_pages_by_node],
        },
        "network": _network(vm),
        "disks": [asdict(disk.counters) for disk in vm.board.disks],
        "shares": {share.tag: asdict(share.counters) for share in vm.board.shares},
        "balloon": _balloon(vm),
        "console": vm.console.text,
    }


def _balloon(vm: VirtualMachine) -> dict[str, Any] | None:
    """What a VM has given back, and what its kernel says of its memory; None if it has no balloon."""
    balloon = vm.board.balloon
    if balloon is None:
        return None
    return {
        "target_bytes": balloon.target_pages * PAGE_SIZE,
        "actual_bytes": balloon.actual_pages * PAGE_SIZE,
        **{f"{name}_bytes": pages * PAGE_SIZE for name, pages in asdict(balloon.counters).items()},
        "guest": dict(balloon.statistics),
    }


def _network(vm: VirtualMachine) -> dict[str, Any] | None:
    """Addresses and traffic of a VM on the subnet; None if it is not on it."""
    if vm.network is None:
        return None
    member = vm.network.member
    return {
        "address": str(member.address),
        "link_address": member.link.hex(":"),
        **vm.network.counts,
    }


def _vcpu(cpu: int, counters: Mapping[str, int]) -> dict[str, Any]:
    """Where the time of a vCPU went, and the CPU that it is on or was on last."""
    groups = _grouped(counters)
    return {
        "cpu": cpu,
        "instructions": counters["instructions"],
        "cycles": groups["cycles"],
        "scheduling": groups["scheduling"],
    }


def _cpu(monitor: Monitor, cpu: int) -> dict[str, Any]:
    counters = monitor.cpu_counters(cpu)
    groups = _grouped(counters)
    return {
        "cpu": cpu,
        "node": monitor.machine.node_of_cpu[cpu],
        "instructions": counters["instructions"],
        "cycles": groups["cycles"],
        "monitor_cycles": groups["monitor_cycles"],
    }


def _grouped(counters: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Counters by group, without the prefix. Each is in the first group whose prefix it has."""
    groups: dict[str, dict[str, int]] = {group: {} for group in _GROUPS}
    for name, count in counters.items():
        for group, prefix in _GROUPS.items():
            if name.startswith(prefix):
                groups[group][name.removeprefix(prefix)] = count
                break
    return groups


def _monitor_pages(monitor: Monitor, node: int) -> int:
    """Disco's own pages on a node; an ended VM's tables count as they were when it ended."""
    ended = (vm for vm in monitor.vms if vm.has_ended)
    now = monitor.pages_by_owner()["monitor"][node]
    return now + sum(vm.usage.monitor_pages_by_node[node] for vm in ended)


@dataclass(frozen=True)
class _Row:
    """A row of the table of VMs: where its number is in a VM's part of the report."""

    label: str
    path: tuple[str, ...]
    show: Callable[[int], str] = "{:,}".format

    def value(self, vm: dict[str, Any]) -> int:
        found: Any = vm
        for key in self.path:
            found = found[key] if found is not None else 0
        return int(found)


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M"


_SECTIONS: tuple[tuple[str, tuple[_Row, ...]], ...] = (
    (
        "",
        (
            _Row("guest instructions", ("instructions",), _millions),
            _Row("cycles: guest user", ("cycles", "user"), _millions),
            _Row("cycles: guest kernel", ("cycles", "kernel"), _millions),
            _Row("cycles: Disco", ("cycles", "monitor"), _millions),
            _Row("cycles: idle", ("cycles", "idle"), _millions),
            _Row("cycles: no CPU free", ("cycles", "waiting"), _millions),
        ),
    ),
    (
        "Cycles in Disco by cause",
        (
            _Row("TLB misses of users", ("monitor_cycles", "tlb_miss"), _millions),
            _Row("TLB misses of kernels", ("monitor_cycles", "kernel_tlb_miss"), _millions),
            _Row("TLB writes", ("monitor_cycles", "tlb_write"), _millions),
            _Row("other privileged", ("monitor_cycles", "privileged"), _millions),
            _Row("exceptions forwarded", ("monitor_cycles", "forward"), _millions),
            _Row("page faults", ("monitor_cycles", "page_fault"), _millions),
            _Row("shootdowns", ("monitor_cycles", "shootdown"), _millions),
            _Row("interrupts", ("monitor_cycles", "interrupt"), _millions),
            _Row("device accesses", ("monitor_cycles", "device"), _millions),
            _Row("vCPU switches", ("monitor_cycles", "switch"), _millions),
            _Row("looking for equal pages", ("monitor_cycles", "content"), _millions),
        ),
    ),
    (
        "Traps into Disco",
        (
            _Row("TLB refill", ("traps", "tlb_refill")),
            _Row("TLB invalid", ("traps", "tlb_invalid")),
            _Row("TLB modified", ("traps", "tlb_modified")),
            _Row("TLB inhibit", ("traps", "tlb_inhibit")),
            _Row("privileged instruction", ("traps", "privileged")),
            _Row("system call", ("traps", "syscall")),
            _Row("coprocessor", ("traps", "coprocessor")),
            _Row("address error", ("traps", "address_error")),
            _Row("other", ("traps", "other")),
        ),
    ),
    (
        "TLB misses",
        (
            _Row("second-level TLB hit", ("tlb", "l2tlb_hits")),
            _Row("virtual TLB hit", ("tlb", "virtual_hits")),
            _Row("kernel segment", ("tlb", "kernel_segment")),
            _Row("  large pages mapped", ("tlb", "large")),
            _Row("forwarded to the guest", ("tlb", "forwarded")),
        ),
    ),
    (
        "Pages and devices",
        (
            _Row("page faults", ("page_faults", "absent")),
            _Row("interrupts", ("interrupts",)),
            _Row("device accesses", ("devices", "accesses")),
            _Row("turns on a CPU", ("scheduling", "switches")),
            _Row("moves to another CPU", ("scheduling", "moves")),
            _Row("memory used", ("memory", "virtual_bytes"), _mib),
            _Row("memory of the VM", ("memory", "physical_bytes"), _mib),
        ),
    ),
    (
        "Subnet",
        (
            _Row("frames sent", ("network", "frames_sent")),
            _Row("frames received", ("network", "frames_received")),
            _Row("frames lost", ("network", "frames_dropped")),
            _Row("pages remapped", ("network", "pages_remapped")),
            _Row("pages copied by choice", ("network", "pages_copied_by_choice")),
            _Row("pages copied, unaligned", ("network", "pages_copied_unaligned")),
            _Row("pages copied, late", ("network", "pages_copied_late")),
            _Row("sent", ("network", "bytes_sent"), _mib),
            _Row("received", ("network", "bytes_received"), _mib),
        ),
    ),
)


def tables(run: Report) -> RenderableType:
    """The report as tables."""
    parts: list[RenderableType] = [
        _vm_table(run["vms"]),
        _cpu_table(run["cpus"]),
        _node_table(run),
        _time_line(run),
    ]
    return Group(*(part for table in parts for part in ("", table)))


def _table(title: str) -> Table:
    """An empty table in the style of all; five columns of counts fit into 80 characters."""
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        padding=(0, 0, 0, 2),
    )
    table.add_column("", no_wrap=True)
    return table


def _vm_table(vms: list[dict[str, Any]]) -> Table:
    table = _table("Virtual machines")
    for vm in vms:
        table.add_column(vm["name"], justify="right", style="cyan", header_style="bold cyan")
    if len(vms) > 1:
        table.add_column("all", justify="right", header_style="bold")
    table.add_row("kernel", *(f"{vm['kernel_bits']}-bit" for vm in vms))
    table.add_row("vCPUs", *(str(len(vm["vcpus"])) for vm in vms))
    table.add_row("end", *(_end(vm) for vm in vms))
    for title, rows in _SECTIONS:
        lines = list(_cells(rows, vms))
        if title and lines:
            table.add_section()
            table.add_row(Text(title, style="bold"))
        for label, cells in lines:
            table.add_row(Text("  " * bool(title) + label), *cells)
    return table


def _end(vm: dict[str, Any]) -> Text:
    is_good = vm["exit_status"] == 0
    words = vm["status"] if vm["exit_status"] is None else f"exit {vm['exit_status']}"
    return Text(words, style="green" if is_good else "yellow")


def _cells(rows: tuple[_Row, ...], vms: list[dict[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Label and cells of each row that has anything but zeros."""
    for row in rows:
        values = [row.value(vm) for vm in vms]
        if any(values):
            shown = [*values, sum(values)] if len(vms) > 1 else values
            yield row.label, [row.show(value) for value in shown]


def _cpu_table(cpus: list[dict[str, Any]]) -> Table:
    """Where the time of each CPU went, in percent."""
    table = _table("Time of each CPU")
    modes = {"guest user": "user", "guest kernel": "kernel", "Disco": "monitor", "idle": "idle"}
    for title in modes:
        table.add_column(title, justify="right")
    for row in cpus:
        cycles = [row["cycles"][mode] for mode in modes.values()]
        shares = (f"{count / max(sum(cycles), 1):.1%}" for count in cycles)
        table.add_row(f"CPU {row['cpu']}, node {row['node']}", *shares)
    return table


def _node_table(run: Report) -> Table:
    """Pages by node and owner; what a VM has on its best node stands out."""
    names = [vm["name"] for vm in run["vms"]]
    table = _table("Machine memory by node and owner")
    for name in names:
        table.add_column(name, justify="right", style="cyan", header_style="bold cyan")
    table.add_column("Disco", justify="right", header_style="bold")
    table.add_column("of", justify="right", header_style="bold")
    for row in run["memory"]["nodes"]:
        cells = [Text(_mib(row["vms"][name]) if row["vms"][name] else "-") for name in names]
        table.add_row(f"node {row['node']}", *cells, _mib(row["monitor"]), _mib(row["bytes"]))
    return table


def _time_line(run: Report) -> Text:
    time = run["time"]
    instructions = sum(vm["instructions"] for vm in run["vms"])
    wall = time["wall_seconds"]
    speed = instructions / wall / 1e6 if wall else 0.0
    memory = run["memory"]
    besides = memory["host_peak_bytes"] - memory["virtual_bytes"]
    return Text.assemble(
        (f"{time['seconds']:.2f} s", "bold"),
        " of simulated time in ",
        (f"{wall:.2f} s", "bold"),
        f": {speed:,.0f} million guest instructions a second,"
        f" {time['python_share']:.1%} of it in Python,"
        f" {time['translation_seconds']:.2f} s for translating\n",
        f"{_mib(memory['host_peak_bytes'])} of host memory at most,"
        f" {_mib(besides)} besides the VMs' pages\n",
        (f"digest {run['digest']}", "dim"),
    )
