"""`disco costs`: the table of what the monitor's actions cost."""

from __future__ import annotations

import json
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from disco.hardware.costs import default_costs, meanings


def show(*, as_json: bool) -> None:
    """Prints every action with its cost and what it is."""
    costs, sentences = default_costs(), meanings()
    if as_json:
        rows = {
            action: {"cycles": cycles, "meaning": sentences[action]}
            for action, cycles in costs.items()
        }
        json.dump(rows, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("action")
    table.add_column("cycles", justify="right")
    table.add_column("what it is")
    for action, cycles in costs.items():
        table.add_row(action, f"{cycles:,}", sentences[action])
    Console().print(table)
