"""Network cards of several VMs of one monitor, driven from here as their guests would drive them."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
from tiny_guests import LOOP_WITH_INTERRUPTS_OFF, guest
from virtio_driver import Driver

from disco import ConfigError, Machine, Monitor, Status, VirtualMachine
from disco.devices.bus import PostedWrite
from disco.devices.virtio.net import HEADER

PLAIN = bytes(HEADER.size)
RINGS = 0x40_0000
BUFFERS = 0x50_0000


class GuestDriver(Driver):
    """A driver of a VM's network card whose RAM is the VM's."""

    def __init__(self, vm: VirtualMachine) -> None:
        self.vm = vm
        self.rng = random.Random(vm.name)
        memory = vm.board.memory
        self.ram = SimpleNamespace(read=memory.read, write=memory.write, base=RINGS)
        self.mmio = vm.board.bus.devices[-1]
        self.bus = SimpleNamespace(
            read=lambda offset: self.mmio.read(offset, 4),
            write=lambda offset, value: self.mmio.write(offset, 4, value),
        )
        self.device = vm.network.card
        self.rings = []
        self.start(size=16)
        self.receive, self.transmit = self.rings
        for slot in range(8):
            self.receive.submit([], [(BUFFERS + 0x1000 * slot, 0x1000)])

    def send(self, data: bytes, *, cycle: int) -> None:
        """Announces a frame, as a store of the guest at that cycle would."""
        self.ram.write(BUFFERS + 0x10_0000, PLAIN + data)
        self.transmit.submit([(BUFFERS + 0x10_0000, len(PLAIN + data))], [])
        self.mmio.posted([PostedWrite(cycle, 0x50, 4, 1)])
        self.transmit.collect()

    def received(self) -> list[bytes]:
        return [self.ram.read(BUFFERS, count) for count in self.receive.collect().values()]


@pytest.fixture
def monitor(tmp_path):
    with Monitor(Machine(nodes=1, cpus=2, memory_mib_per_node=64)) as monitor:
        kernel = guest(tmp_path, "loop", LOOP_WITH_INTERRUPTS_OFF)
        for name in ("a", "b", "c"):
            monitor.create_vm(name, kernel=kernel, memory_mib=8, network=True).boot()
        yield monitor


def broadcast(vm: VirtualMachine, word: bytes) -> bytes:
    return b"\xff" * 6 + vm.network.member.link + b"\x12\x34" + word


def test_a_frame_is_delivered_at_the_end_of_its_round_and_not_before(monitor):
    sender, receiver = (GuestDriver(vm) for vm in monitor.vms[:2])
    quantum = monitor.machine.quantum_cycles
    sender.send(broadcast(sender.vm, b"hello"), cycle=quantum // 2)
    assert receiver.receive.collect() == {}
    monitor.run(seconds=quantum / monitor.machine.clock_hz)
    (data,) = receiver.received()
    assert data == HEADER.pack(0, 0, 0, 0, 0, 0, 1) + broadcast(sender.vm, b"hello")
    counts = receiver.vm.network.counts
    assert (counts["frames_received"], counts["frames_dropped"]) == (1, 0)


def test_a_vm_whose_rings_are_spoilt_is_stopped_by_the_next_frame_and_no_other(monitor):
    sender, victim, bystander = (GuestDriver(vm) for vm in monitor.vms)
    victim.ram.write(victim.receive.avail + 2, (999).to_bytes(2, "little"))
    sender.send(broadcast(sender.vm, b"hello"), cycle=0)
    monitor.run(seconds=0.01)
    assert [vm.status for vm in monitor.vms] == [Status.RUNNING, Status.STOPPED, Status.RUNNING]
    assert "virtio-net: queue 0: avail idx jumped from 0 to 999" in str(victim.vm.error)
    assert len(bystander.received()) == 1
    assert len(monitor.subnet.members) == 2
    sender.send(broadcast(sender.vm, b"again"), cycle=monitor.now)
    monitor.run(seconds=0.01)
    assert bystander.vm.network.counts["frames_received"] == 2


def test_what_a_vm_sent_last_arrives_though_it_has_ended(monitor):
    sender, receiver = (GuestDriver(vm) for vm in monitor.vms[:2])
    sender.send(broadcast(sender.vm, b"farewell"), cycle=0)
    monitor._end(sender.vm, Status.CLOSED)
    monitor.run(seconds=0.01)
    assert receiver.received()[0].endswith(b"farewell")


PAGES = 0x70_0000  # where a sender has whole pages


@pytest.fixture(params=[False, True], ids=["copied", "remapped"])
def pair(request, tmp_path):
    """A monitor, the drivers of its two VMs, and whether it remaps pages."""
    machine = Machine(nodes=2, cpus=2, memory_mib_per_node=32)
    with Monitor(machine, remap_frames=request.param) as monitor:
        kernel = guest(tmp_path, "loop", LOOP_WITH_INTERRUPTS_OFF)
        for name in ("a", "b"):
            monitor.create_vm(name, kernel=kernel, memory_mib=8, network=True).boot()
        yield monitor, *(GuestDriver(vm) for vm in monitor.vms), request.param


def _send_pages(sender: GuestDriver, link: bytes, data: bytes) -> bytes:
    """Announces a frame whose data lie in whole pages, behind a header in a buffer of its own; the header."""
    head = (link + sender.vm.network.member.link).ljust(66, b"h")
    sender.ram.write(BUFFERS + 0x10_0000, PLAIN + head)
    sender.ram.write(PAGES, data)
    sender.transmit.submit([(BUFFERS + 0x10_0000, len(PLAIN + head)), (PAGES, len(data))], [])
    sender.mmio.posted([PostedWrite(0, 0x50, 4, 1)])
    sender.transmit.collect()
    return head


def _received(driver: GuestDriver) -> tuple[bytes, list[int]]:
    """The bytes of the one frame that came, and where each of its buffers is."""
    heads = driver.receive.collect()
    places = [BUFFERS + 0x1000 * slot for slot in range(len(heads))]
    parts = [driver.ram.read(at, size) for at, size in zip(places, heads.values(), strict=True)]
    return b"".join(parts)[HEADER.size :], places


def test_pages_of_a_frame_are_mapped_or_copied_and_writes_of_one_end_do_not_reach_the_other(pair):
    monitor, sender, receiver, is_remapped = pair
    data = random.Random(5).randbytes(3 * 4096)
    head = _send_pages(sender, receiver.vm.network.member.link, data)
    monitor.run(seconds=0.001)
    got, places = _received(receiver)
    assert got == head + data
    account = receiver.vm.network.card.account
    assert (account.pages_remapped, account.pages_copied_by_choice) == (
        (3, 0) if is_remapped else (0, 3)
    )
    ours, theirs = (vm.pmap["mpn"] for vm in (sender.vm, receiver.vm))
    same = [ours[PAGES // 4096 + n] == theirs[places[1 + n] // 4096] for n in range(3)]
    assert same == [is_remapped] * 3
    sender.ram.write(PAGES, b"sender")
    receiver.ram.write(places[2] + 8, b"receiver")
    assert receiver.ram.read(places[1], 4096) == data[:4096]
    assert sender.ram.read(PAGES + 4096, 4096) == data[4096:8192]
    assert sender.ram.read(PAGES, 6) == b"sender"
    assert receiver.ram.read(places[2] + 8, 8) == b"receiver"


def test_pages_that_a_vm_sent_last_arrive_though_it_has_ended(pair):
    monitor, sender, receiver, _ = pair
    data = random.Random(6).randbytes(2 * 4096)
    head = _send_pages(sender, receiver.vm.network.member.link, data)
    monitor._end(sender.vm, Status.CLOSED)
    monitor.run(seconds=0.001)
    assert _received(receiver)[0] == head + data
    assert receiver.vm.network.card.account.pages_copied_late == 2


def test_two_vms_whose_names_differ_in_case_only_cannot_both_be_on_the_subnet(monitor, tmp_path):
    kernel = guest(tmp_path, "loop", LOOP_WITH_INTERRUPTS_OFF)
    with pytest.raises(ConfigError, match="VM 'A': on the subnet"):
        monitor.create_vm("A", kernel=kernel, memory_mib=8, network=True)
    assert len(monitor.vms) == 3
    monitor.create_vm("A", kernel=kernel, memory_mib=8)


def test_a_vm_without_a_network_has_no_place_and_no_counts(monitor, tmp_path):
    kernel = guest(tmp_path, "loop", LOOP_WITH_INTERRUPTS_OFF)
    vm = monitor.create_vm("d", kernel=kernel, memory_mib=8)
    assert vm.network is None
    assert len(monitor.subnet.members) == 3
