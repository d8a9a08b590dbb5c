"""What a run costs the host: at most the guests' pages, 64 MiB, and 4 MiB a VM.

Each run has a process of its own, since memory that an earlier test has left would count too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import tiny_guests

from disco.guests import images
from disco.guests.cache import Cache
from disco.guests.platform import Platform
from disco.hardware.machine import DEFAULT_ENGINE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("debian")]

MIB = 1 << 20
FIXED_MIB = 64
MIB_A_VM = 4
MEMORY_MIB = 256

#: Boots a kernel, or Debian, in each VM, for so many simulated seconds or to its end; prints the peak once all
#: VMs are made and at the end, and the pages. Debian's image is built first if packages for it are named.
RUN = """
import json, sys
from pathlib import Path
from disco import Machine, Monitor, images
from disco.guests.apt import Package
from disco.monitor.accounting import host_peak_bytes

asked = json.loads(sys.argv[1])
if asked["kernel"]:
    software = {"kernel": Path(asked["kernel"])}
else:
    packages = [Package(**package) for package in asked["packages"]]
    image = images.build("default", pinned=packages) if packages else images.load("default")
    software = {"image": image, "command": asked["command"]}
machine = Machine(
    nodes=asked["vms"],
    cpus=asked["cpus"],
    memory_mib_per_node=asked["memory_mib"] + 48,
    engine=asked["engine"],
)
with Monitor(machine) as monitor:
    for number in range(asked["vms"]):
        monitor.create_vm(
            f"vm{number}",
            memory_mib=asked["memory_mib"],
            vcpus=asked["vcpus"],
            **software,
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
                "instructions": [
                    [vcpu["instructions"] for vcpu in vm.usage.vcpus] for vm in monitor.vms
                ],
                "numpy": "numpy" in sys.modules,
            }
        )
    )
"""
DEFAULTS = {
    "vms": 1,
    "cpus": 1,
    "vcpus": 1,
    "engine": DEFAULT_ENGINE,
    "seconds": None,
    "memory_mib": MEMORY_MIB,
    "kernel": None,
    "command": ["true"],
    "packages": [],
}


def checked_run(*, cache: Path | None = None, **asked: Any) -> dict[str, Any]:
    """What the run printed, its memory checked."""
    wish = {**DEFAULTS, **asked}
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps(wish)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env=os.environ if cache is None else {**os.environ, "XDG_CACHE_HOME": str(cache)},
    )
    assert done.returncode == 0, done.stderr
    run: dict[str, Any] = json.loads(done.stdout)
    room = (FIXED_MIB + MIB_A_VM * wish["vms"]) * MIB
    assert run["exits"] == [None if wish["seconds"] else 0] * wish["vms"]
    assert run["start_bytes"] <= room
    assert run["peak_bytes"] <= run["guest_bytes"] + room
    assert not run["numpy"], "only who looks at a table needs it"
    return run


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
    run = checked_run(vms=vms, cpus=cpus, engine=engine, seconds=seconds)
    assert run["guest_bytes"] > vms * 16 * MIB, "the kernel at least"


def test_sixteen_vcpus_at_work_take_no_more():
    work = "find / -xdev | sort | sha256sum; head -c 99999 /bin/busybox | gzip | md5sum"
    command = f"for n in $(seq 16); do ({work}) & done; wait"
    run = checked_run(vcpus=16, cpus=16, command=["sh", "-c", command])
    assert min(run["instructions"][0]) > 10_000_000, "each has worked"


def test_pages_by_the_hundred_thousand_take_no_more(tmp_path):
    memory_mib = 1536
    platform = Platform(memory_bytes=memory_mib * MIB, vcpu_count=1, virtio_count=0)
    touched = [(region.base, region.size) for region in platform.ram]
    kernel = tiny_guests.guest(tmp_path, "touch", tiny_guests.touch(touched))
    run = checked_run(kernel=str(kernel), memory_mib=memory_mib)
    assert run["guest_bytes"] == memory_mib * MIB
    rows_bytes = run["peak_bytes"] - run["guest_bytes"] - run["start_bytes"]
    assert rows_bytes < 16 * MIB, "16 bytes a page are 6 MiB, and pages held ready have room"


def test_the_run_that_builds_the_image_takes_no_more(tmp_path):
    (tmp_path / "disco").mkdir()
    (tmp_path / "disco/packages").symlink_to(Cache.of_user().packages)
    packages = [asdict(package) for package in images.load("default").packages]
    checked_run(packages=packages, cache=tmp_path)
    assert list((tmp_path / "disco/images").glob("*/vmlinuz")), "it has built one"


def test_the_report_says_what_the_process_has_had(disco):
    done = disco("run", "--json", "--", "true")
    memory = json.loads(done.stdout)["memory"]
    assert memory["virtual_bytes"] < memory["host_peak_bytes"]
    assert memory["host_peak_bytes"] <= memory["virtual_bytes"] + (FIXED_MIB + MIB_A_VM) * MIB
