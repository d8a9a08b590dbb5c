"""Debian's own drivers on the virtio devices that a command line does not show."""

from __future__ import annotations

import pytest

from disco import Machine, Monitor
from disco.guests.images import Image

pytestmark = pytest.mark.slow

SCRIPT = """
while [ ! -e /dev/hvc0 ]; do sleep 0.1; done
exec 3<>/dev/hvc0  # open all the time, or the terminal's settings are lost
stty raw -echo <&3
echo ready >&3
read line <&3
echo "heard $line" >&3
head -c 32 /dev/hwrng | sha256sum
"""


def _run(debian: Image, seed: int) -> tuple[str, str]:
    with Monitor(Machine(nodes=1, cpus=1, memory_mib_per_node=160, seed=seed)) as monitor:
        vm = monitor.create_vm(
            "devices", image=debian, command=SCRIPT, entropy=True, virtio_console=True
        )
        vm.boot()
        monitor.run(seconds=60, until=lambda: vm.hvc.contains("ready"))
        vm.type_hvc("through the wire\n")
        monitor.run(seconds=60)
        assert vm.exit_status == 0, vm.console.text[-2000:]
    hashes = [line for line in vm.console.text.splitlines() if line.endswith("  -")]
    return vm.hvc.text.replace("\r", ""), hashes[-1]


def test_the_virtio_console_carries_lines_both_ways_and_entropy_is_the_seeds(debian: Image) -> None:
    text, first = _run(debian, seed=1)
    assert text == "ready\nheard through the wire\n"
    assert _run(debian, seed=1) == (text, first)
    assert _run(debian, seed=2)[1] != first
