"""What memory is used for adds up, and names who shares it."""

from __future__ import annotations

import io
import json

import pytest
import tiny_guests
from rich.console import Console

from disco import Machine, Monitor
from disco.monitor.footprint import USES
from disco.observe.memory import tables
from disco.storage.choice import DiskChoice, Mode

PAGE = 4096
DATA_AT = 2 << 20


@pytest.fixture
def monitor(tmp_path):
    """Three VMs: two have read eight pages of a disk, one of these has written one of them."""
    image = tmp_path / "base.img"
    image.write_bytes(bytes(range(256)) * 16 * 16)
    with Monitor(Machine(nodes=2, cpus=3, memory_mib_per_node=16)) as made:
        for name in ("web", "db", "mail"):
            vm = made.create_vm(
                name,
                kernel=tiny_guests.guest(tmp_path, name, tiny_guests.PRINT_OK),
                memory_mib=4,
                disks=[DiskChoice(image, Mode.COW)],
            )
            vm.boot()
        for vm in made.vms[:2]:
            reads = made._reads_of(vm.config.disks[0], vm.board.memory)
            assert reads is not None
            assert reads.read(0, [(DATA_AT, 8 * PAGE)]) == []
        made.vms[0].board.memory.write(DATA_AT, b"mine")
        yield made


def test_the_parts_add_up_to_the_tables(monitor):
    footprint = monitor.footprint()
    owners = {owner: sum(pages) * PAGE for owner, pages in monitor.pages_by_owner().items()}
    machine = sum(footprint.machine_bytes.values())
    assert machine == owners["guest"] + owners["cache"] + owners["monitor"]
    for vm in monitor.vms:
        parts = footprint.vms[vm.name]
        assert tuple(parts) == USES
        guest = sum(parts[use].virtual_bytes for use in USES[:-1])
        assert guest == vm.usage.pages * PAGE
        assert parts["monitor"].virtual_bytes == sum(vm.usage.monitor_pages_by_node) * PAGE
    assert footprint.machine_bytes["buffer_cache"] == 8 * PAGE
    assert footprint.virtual_by_use["buffer_cache"] == 15 * PAGE
    assert footprint.unused_cache_bytes == 0
    assert footprint.ratio == machine / (machine + 7 * PAGE)


def test_who_shares_is_named_and_each_has_its_part(monitor):
    footprint = monitor.footprint()
    assert footprint.common_bytes == {("web", "db"): 7 * PAGE}
    web, db = (footprint.vms[name]["buffer_cache"] for name in ("web", "db"))
    assert (web.virtual_bytes, web.shared_bytes, web.machine_bytes) == (
        7 * PAGE,
        7 * PAGE,
        7 * PAGE // 2,
    )
    assert (db.virtual_bytes, db.shared_bytes) == (8 * PAGE, 7 * PAGE)
    assert db.machine_bytes == PAGE + 7 * PAGE // 2
    assert footprint.vms["mail"]["buffer_cache"].virtual_bytes == 0


def test_code_of_the_kernel_that_has_run_is_its_text(monitor):
    assert monitor.footprint().machine_bytes["kernel_text"] == 0
    monitor.run()
    assert monitor.fullest is not None
    text = [
        monitor.fullest.vms[name]["kernel_text"].virtual_bytes for name in ("web", "db", "mail")
    ]
    assert all(PAGE <= size <= 4 * PAGE for size in text)


def test_the_fullest_moment_outlives_the_vms(monitor):
    before = monitor.footprint()
    monitor.run()
    fullest = monitor.fullest
    assert fullest is not None
    assert list(fullest.vms) == ["web", "db", "mail"]
    assert fullest.virtual_by_use["buffer_cache"] == before.virtual_by_use["buffer_cache"]
    assert monitor.footprint().vms == {}
    data = json.loads(json.dumps(fullest.as_data()))
    assert data["common"] == [{"vms": ["web", "db"], "bytes": 7 * PAGE}]
    assert 0 < data["ratio"] < 1


def test_the_table_has_all_uses_and_who_shares(monitor):
    out = Console(file=io.StringIO(), width=120)
    out.print(tables(monitor.footprint()))
    text = out.file.getvalue()
    for word in (
        "kernel text",
        "buffer cache",
        "anonymous",
        "Disco",
        "its part",
        "machine / virtual: 0.",
        "in common",
    ):
        assert word in text
