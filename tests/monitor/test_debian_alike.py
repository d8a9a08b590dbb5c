"""VMs that are alike: equal until each learns who it is, and cheap as long as they wait."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from disco import Machine, Monitor
from disco.guests.images import Image
from disco.monitor.content import InIdleTime
from disco.monitor.vm import VirtualMachine

pytestmark = pytest.mark.slow

#: In the middle of the kernel's boot, and long after it.
BOOTING_SECONDS = 13
WAITING_SECONDS = 40


def _boot(monitor: Monitor, image: Image, count: int, command: str) -> Sequence[VirtualMachine]:
    names = [f"vm{number}" for number in range(1, count + 1)]
    vms = [monitor.create_vm(name, image=image, memory_mib=96, command=command) for name in names]
    for vm in vms:
        vm.boot()
    return vms


def test_equal_vms_boot_alike_and_then_have_names_and_random_numbers_of_their_own(
    debian: Image,
) -> None:
    with Monitor(Machine(nodes=3, cpus=3, memory_mib_per_node=160)) as monitor:
        vms = _boot(monitor, debian, 3, "hostname; head -c 16 /dev/urandom | od -x | head -1")
        monitor.run(seconds=BOOTING_SECONDS)
        assert vms[0].usage.counters["traps_tlb_refill"] > 0
        assert [vm.usage.counters for vm in vms[1:]] == 2 * [vms[0].usage.counters]
        monitor.run()
        consoles = [vm.console.text.replace("\r", "").splitlines() for vm in vms]
    said = [console[console.index("disco: userland reached") + 1 :][:2] for console in consoles]
    assert [name for name, _ in said] == ["vm1", "vm2", "vm3"]
    assert len({numbers for _, numbers in said}) == 3


@pytest.mark.parametrize(("cpus", "fewer", "more"), [(4, 2, 4), (4, 4, 8)])
def test_a_further_vm_that_waits_takes_less_than_eight_mib(
    debian: Image, cpus: int, fewer: int, more: int
) -> None:
    """Also where two VMs have a CPU in turns, so that they do not boot alike."""
    mib = {}
    for count in (fewer, more):
        machine = Machine(nodes=cpus, cpus=cpus, memory_mib_per_node=256)
        with Monitor(machine, content_sharing=InIdleTime()) as monitor:
            _boot(monitor, debian, count, "sleep 1000")
            monitor.run(seconds=WAITING_SECONDS)
            mib[count] = sum(monitor.footprint().machine_bytes.values()) / (1 << 20)
    assert (mib[more] - mib[fewer]) / (more - fewer) < 8
