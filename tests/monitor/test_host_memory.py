"""What a run costs the host: at most the guests' pages, 64 MiB, and 4 MiB a VM.

Each run has a process of its own, since memory that an earlier test has left would count too.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from disco.hardware.machine import DEFAULT_ENGINE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("debian")]

MIB = 1 << 20
FIXED_MIB = 64
MIB_A_VM = 4
MEMORY_MIB = 256

#: Boots Debian in each VM, for so many simulated seconds or to its end; prints the peak once all VMs are
#: made and at the end, and the pages.
RUN = """
import json, sys
from disco import Machine, Monitor, images
from disco.monitor.accounting import host_peak_bytes

asked = json.loads(sys.argv[1])
machine = Machine(
    nodes=asked["vms"],
    cpus=asked["cpus"],
    memory_mib_per_node=asked["memory_mib"] + 16,
    engine=asked["engine"],
)
with Monitor(machine) as monitor:
    for number in range(asked["vms"]):
        monitor.create_vm(
            f"vm{number}",
            image=images.load("default"),
            memory_mib=asked["memory_mib"],
            command=["true"],
        )
    start_bytes = host_peak_bytes()
    for vm in monitor.vms:
        vm.boot()
    monitor.run(seconds=asked["seconds"])
    print(
        json.dumps(
            {
                "start_bytes": start_bytes,
                "peak_bytes": host_peak_bytes(),
                "guest_bytes": sum(vm.usage.pages for vm in monitor.vms) * 4096,
                "exits": [vm.exit_status for vm in monitor.vms],
                "numpy": "numpy" in sys.modules,
            }
        )
    )
"""


@pytest.mark.parametrize(
    ("vms", "cpus", "engine", "seconds"),
    [
        (1, 1, DEFAULT_ENGINE, None),
        (1, 1, "interpreter", 5),
        (1, 4, DEFAULT_ENGINE, 5),
        (4, 4, DEFAULT_ENGINE, None),
        (8, 8, DEFAULT_ENGINE, 3),
    ],
)
def test_a_run_takes_the_guests_pages_and_a_little_more(vms, cpus, engine, seconds):
    asked = {
        "vms": vms,
        "cpus": cpus,
        "engine": engine,
        "seconds": seconds,
        "memory_mib": MEMORY_MIB,
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(asked)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["exits"] == [None if seconds else 0] * vms
    assert not run["numpy"], "only who looks at a table needs it"
    assert run["guest_bytes"] > vms * 16 * MIB, "the kernel at least"
    room = (FIXED_MIB + MIB_A_VM * vms) * MIB
    assert run["start_bytes"] <= room
    assert run["peak_bytes"] <= run["guest_bytes"] + room


def test_the_report_says_what_the_process_has_had(disco):
    done = disco("run", "--json", "--", "true")
    memory = json.loads(done.stdout)["memory"]
    assert memory["virtual_bytes"] < memory["host_peak_bytes"]
    assert memory["host_peak_bytes"] <= memory["virtual_bytes"] + (FIXED_MIB + MIB_A_VM) * MIB
