"""A real root, built and booted through the command line. The build takes some ten minutes of a host CPU, so
this runs when it is asked for:

    DISCO_TEST_ROOTS=1 .venv/bin/python -m pytest tests/cli/test_debian_roots.py
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from disco import Machine, Monitor, images
from disco.guests.images import Image

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "DISCO_TEST_ROOTS" not in os.environ, reason="asked for with DISCO_TEST_ROOTS=1"
    ),
]

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"
#: As a shell script in the guest; each line is true of a Debian that dpkg has configured.
WHOLE = """
set -e
[ -z "$(dpkg --audit)" ]
[ "$(dpkg-query -W -f '${db:Status-Status}\\n' | sort -u)" = installed ]
[ "$(stat -c %U:%a /usr/bin/passwd)" = root:4755 ]
[ "$(stat -c %G /var/mail)" = mail ]
[ "$(cat /proc/1/comm)" = init ]
[ "$(hostname)" = web ]
touch /written
python3 -c 'print(6 * 7)'
exit 3
"""


@pytest.fixture(scope="module")
def root(disco) -> Image:
    done = disco("image", "build", "debian", timeout=7200)
    assert done.returncode == 0, done.stderr
    return images.load("debian")


def test_a_command_runs_in_a_whole_debian_and_its_status_is_the_runs(disco, root: Image) -> None:
    done = disco("run", "web=debian", "--json", "--", "sh", "-c", WHOLE)
    assert done.returncode == 3, done.stderr
    (vm,) = json.loads(done.stdout)["vms"]
    assert "\n42\r\n" in vm["console"] or "\n42\n" in vm["console"]
    assert root.disk is not None
    assert root.disk.stat().st_mtime_ns == images.load("debian").disk.stat().st_mtime_ns  # type: ignore[union-attr]


def test_a_root_boots_to_a_login_that_lets_root_in(root: Image) -> None:
    with Monitor(Machine(nodes=1, cpus=1, memory_mib_per_node=160)) as monitor:
        vm = monitor.create_vm("web", image=root)
        vm.boot()
        monitor.run(seconds=120, until=lambda: vm.has_printed("web login: "))
        vm.type("root\n")
        monitor.run(seconds=60, until=lambda: vm.has_printed("root@web:~# "))
        vm.type("id -un; tty\n")
        monitor.run(seconds=60, until=lambda: vm.has_printed("/dev/ttyS0"))
        assert "root\n/dev/ttyS0\n" in vm.console.text


def test_what_is_written_to_a_disk_that_lasts_is_there_the_next_time(
    disco, root: Image, tmp_path
) -> None:
    disk = tmp_path / "web.disk"
    assert disco("disk", "create", str(disk), "--base", "debian").returncode == 0
    word = f"web=debian,root={disk}"
    done = disco("run", word, "--", "sh", "-c", "echo kept > /root/note")
    assert done.returncode == 0, done.stdout
    done = disco("run", word, "--", "grep", "-qx", "kept", "/root/note")
    assert done.returncode == 0, done.stdout
    assert disco("run", "web=debian", "--", "test", "!", "-e", "/root/note").returncode == 0


def test_two_vms_share_files_by_debians_own_nfs(disco, tmp_path) -> None:
    (script,) = re.findall(
        r"^cat > box/nfs\.sh <<'END'\n(.*?)^END$",
        (HOW_TO / "network-two-vms.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    box = tmp_path / "box"
    box.mkdir()
    (box / "nfs.sh").write_text(script)
    packages = "nfs-kernel-server,nfs-common"
    done = disco("image", "build", "nfs", "--packages", packages, timeout=7200)
    assert done.returncode == 0, done.stderr
    both = ("server=nfs", "client=nfs", "--network", "--share", str(box))
    done = disco("run", *both, "--json", "--", "sh", "/mnt/box/nfs.sh", timeout=600)
    assert done.returncode == 0, done.stderr
    server, client = json.loads(done.stdout)["vms"]
    assert "data: OK" in server["console"]
    assert "server:/srv/files /media nfs" in client["console"]


def test_systemd_boots_to_a_login_and_runs_a_command(disco) -> None:
    done = disco("image", "build", "services", "--packages", "systemd-sysv", timeout=7200)
    assert done.returncode == 0, done.stderr
    done = disco("run", "web=services", "--", "sh", "-c", "systemctl is-system-running && exit 3")
    assert done.returncode == 3, done.stdout
    with Monitor(Machine(nodes=1, cpus=1, memory_mib_per_node=160)) as monitor:
        vm = monitor.create_vm("web", image=images.load("services"))
        vm.boot()
        monitor.run(seconds=300, until=lambda: vm.has_printed("web login: "))
        vm.type("root\n")
        monitor.run(seconds=60, until=lambda: vm.has_printed("root@web:~# "))


def test_a_root_that_is_built_again_has_the_same_bytes(disco) -> None:
    sums = []
    for _ in range(2):
        done = disco("image", "build", "bare", "--packages", "dash", timeout=7200)
        assert done.returncode == 0, done.stderr
        sums.append(images.manifest("bare")["sha256"])
        assert disco("image", "remove", "bare").returncode == 0
    assert sums[0] == sums[1]
