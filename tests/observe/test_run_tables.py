"""The tables at the end of a run, of a guest of a few instructions."""

from __future__ import annotations

import io

import tiny_guests
from rich.console import Console

from disco import Machine, Monitor
from disco.observe.report import report, tables


def test_a_heading_stands_over_figures_only(tmp_path):
    kernel = tiny_guests.guest(tmp_path, "ok", tiny_guests.PRINT_OK)
    with Monitor(Machine(nodes=1, cpus=1, memory_mib_per_node=16)) as monitor:
        monitor.create_vm("vm", kernel=kernel, memory_mib=4).boot()
        monitor.run(seconds=1)
        shown = io.StringIO()
        Console(file=shown, width=80).print(tables(report(monitor)))
    lines = [line.rstrip() for line in shown.getvalue().splitlines()]
    assert lines[lines.index("Pages and devices") + 1].startswith("  ")
    assert "Subnet" not in lines, "it has no network card"
