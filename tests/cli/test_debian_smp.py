"""Debian on several vCPUs: they come up, go and come under load, and what stress-ng computes is right."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from bench.userland import Userland
from disco import Machine, Monitor
from disco.guests.cache import Cache, silent

pytestmark = pytest.mark.slow

#: Three workers check the same sum again and again while vCPUs 1 to 3 are switched off and on.
HOTPLUG = """
work() {
    while [ ! -e /tmp/stop ]; do head -c 100000 /bin/busybox | gzip | md5sum >> /tmp/sums.$1; done
}
work a & work b & work c &
for round in 1 2 3 4 5; do
    for cpu in 1 2 3; do echo 0 > /sys/devices/system/cpu/cpu$cpu/online || exit 1; done
    echo alone $(nproc)
    for cpu in 3 1 2; do echo 1 > /sys/devices/system/cpu/cpu$cpu/online || exit 2; done
    echo together $(nproc)
done
touch /tmp/stop
wait
echo different sums: $(cat /tmp/sums.* | sort -u | wc -l)
echo turns: $(cat /tmp/sums.* | wc -l)
if dmesg | grep -E 'BUG|WARNING|Oops|stall'; then exit 3; fi
"""

#: Classes CPU, VM, futex (of the class OS) and scheduler; on 200 MHz not much is done in a second.
STRESS = """
export PATH=/usr/bin:/bin
stress-ng --verify --metrics-brief --timeout 1 --cpu 2 --cpu-method int64 &&
stress-ng --verify --metrics-brief --timeout 1 --cpu 2 --cpu-method float64 &&
stress-ng --verify --metrics-brief --timeout 3 --vm 2 --vm-bytes 4m --futex 2 --switch 2 --affinity 2
"""


def test_eight_vcpus_come_up_and_each_has_a_timer(disco, debian):
    done = disco("run", "--vcpus", "8", "--", "sh", "-c", "nproc; grep timer /proc/interrupts")
    assert done.returncode == 0, done.stderr
    assert "vm1 | 8" in done.stdout.splitlines()
    (line,) = (line for line in done.stdout.splitlines() if "MIPS   7  timer" in line)
    ticks = [int(word) for word in line.partition(":")[2].split()[:8]]
    assert min(ticks) > 10, ticks


def test_vcpus_go_and_come_under_load(disco, debian):
    done = disco("run", "--vcpus", "4", "--", "sh", "-c", HOTPLUG)
    assert done.returncode == 0, done.stdout[-2000:]
    lines = [line.removeprefix("vm1 | ") for line in done.stdout.splitlines()]
    assert [line for line in lines if line.startswith(("alone", "together"))] == [
        "alone 1",
        "together 4",
    ] * 5
    assert "different sums: 1" in lines
    (turns,) = (int(line.split()[1]) for line in lines if line.startswith("turns: "))
    assert turns >= 3, "each worker once at least"


def test_what_stress_ng_verifies_is_right(debian, tmp_path):
    packages = Userland(cache=Cache.of_user(), progress=silent)
    initrd = tmp_path / "stress.cpio"
    # libmd0 is among what the benchmark's programs do not need.
    initrd.write_bytes(packages.over(debian, ["stress-ng", "libmd0"], {}))
    image = replace(debian, initrd=initrd)
    with Monitor(Machine(nodes=2, cpus=2, memory_mib_per_node=160)) as monitor:
        vm = monitor.create_vm("vm", image=image, memory_mib=256, vcpus=2, command=STRESS)
        vm.boot()
        monitor.run(seconds=120)
    text = vm.console.text
    assert vm.exit_status == 0, text[-3000:]
    assert text.count("successful run completed") == 3
    assert "fail:" not in text
    done = dict(re.findall(r"stress-ng: metrc: \[\d+\] (\w+) +(\d+) ", text))
    assert set(done) >= {"cpu", "vm", "futex", "switch", "affinity"}
    assert all(int(count) > 0 for count in done.values()), done
