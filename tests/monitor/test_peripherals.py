"""Devices of somebody's own: plugged in, asked, and kept from doing harm."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_guests import LATE_OK, PRINT_OK, guest

from disco import (
    ConfigError,
    Device,
    DeviceError,
    GuestStopped,
    Machine,
    Monitor,
    Peripheral,
    Socket,
    Status,
)
from disco.guests.platform import UART_LINE, Platform
from disco.monitor.vm import VirtualMachine

#: The first peripheral's page, in KSEG1.
AT = "        lui   s2, 0xbe10\n"

#: Prints what the device answers at offset 0.
READ = f"""{AT}
        lw    a0, 0(s2)
        bal   print
        nop
{PRINT_OK}"""

#: Prints whether the line is high, as Cause.IP says.
PRINT_LINE = """
        mfc0  a0, c0_cause
        srl   a0, a0, 10
        andi  a0, a0, 1
        addiu a0, a0, 0x30
        bal   print
        nop
"""

#: A store has the device raise its line, which the guest waits for and another store lowers.
INTERRUPT = f"""{AT}
        mfc0  t0, c0_status
        li    t1, 0x0401                        # IM2, and no IE
        or    t0, t0, t1
        xori  t0, t0, 1
        mtc0  t0, c0_status
        sw    s2, 4(s2)
        ehb
        wait
{PRINT_LINE}
        sw    zero, 4(s2)
{PRINT_LINE}
{PRINT_OK}"""


class Bell(Device):
    """Reads as "!"; a store of another value than 0 raises the line, one of 0 lowers it."""

    window_bytes = 8

    def __init__(self, socket: Socket) -> None:
        super().__init__(name="bell")
        self._line = socket.line
        self.seconds: list[float] = []
        self._socket = socket

    def read(self, offset: int, size: int) -> int:
        self.seconds.append(self._socket.seconds)
        return ord("!")

    def write(self, offset: int, size: int, value: int) -> None:
        self._line.set(value != 0)

    def reset(self) -> None:
        self._line.set(False)

    def save(self) -> object:
        return None

    def restore(self, state: object) -> None:
        pass


class Raising(Bell):
    def read(self, offset: int, size: int) -> int:
        return [1, 2][offset + 7]


class Verbose(Bell):
    def read(self, offset: int, size: int) -> int:
        return 1 << 32


class Endless(Bell):
    window_bytes = 0x1001


def _boot(
    monitor: Monitor, folder: Path, source: str, *peripherals: Peripheral, name: str = "vm"
) -> VirtualMachine:
    kernel = guest(folder, name, source)
    vm = monitor.create_vm(name, kernel=kernel, memory_mib=4, peripherals=peripherals)
    vm.boot()
    return vm


@pytest.fixture
def monitor() -> Monitor:
    return Monitor(Machine(nodes=2, cpus=2, memory_mib_per_node=8))


@pytest.mark.parametrize(("source", "text"), [(READ, "!ok"), (INTERRUPT, "10ok")])
def test_a_guest_reaches_a_device_and_is_interrupted_by_it(monitor, tmp_path, source, text):
    vm = _boot(monitor, tmp_path, source, Peripheral("disco,bell", Bell))
    monitor.run(seconds=1)
    assert (vm.console.text, vm.status) == (text, Status.HALTED)


def test_each_vm_has_a_device_of_its_own_and_simulated_time(monitor, tmp_path):
    bells: list[Bell] = []

    def make(socket: Socket) -> Bell:
        bells.append(Bell(socket))
        return bells[-1]

    for name in ("a", "b"):
        _boot(monitor, tmp_path, READ, Peripheral("disco,bell", make), name=name)
    monitor.run(seconds=1)
    assert [len(bell.seconds) for bell in bells] == [1, 1]
    assert 0 <= bells[0].seconds[0] < 0.1


@pytest.mark.parametrize(
    ("device", "cause"),
    [
        (Raising, "bell: read raised IndexError: list index out of range"),
        (Verbose, "bell: read of 4 bytes at offset 0x0 answered 4294967296"),
    ],
)
def test_a_device_that_fails_stops_its_vm_alone(monitor, tmp_path, device, cause):
    other = _boot(monitor, tmp_path, LATE_OK, name="other")
    vm = _boot(monitor, tmp_path, READ, Peripheral("disco,bell", device))
    monitor.run(seconds=1)
    assert isinstance(vm.error, GuestStopped)
    assert cause in str(vm.error)
    assert (other.status, other.console.text) == (Status.HALTED, "ok")


class Nameless(Bell):
    def __init__(self, socket: Socket) -> None:
        pass


def _fail(socket: Socket) -> Device:
    raise DeviceError(device="bell", cause="out of order")


def _refuse(socket: Socket) -> Device:
    raise KeyError("no such bell")


@pytest.mark.parametrize(
    ("peripherals", "message"),
    [
        ([Peripheral("", Bell)], "printable ASCII is possible"),
        ([Peripheral("disco,bell\0", Bell)], "printable ASCII is possible"),
        (9 * [Peripheral("disco,bell", Bell)], "9 asked; up to 8 are possible"),
        ([Peripheral("disco,bell", Endless)], "window_bytes 4097 asked; 1 to 4096"),
        ([Peripheral("disco,bell", _refuse)], "disco,bell: raised KeyError when made"),
        ([Peripheral("disco,bell", _fail)], "disco,bell: raised DeviceError when made"),
        ([Peripheral("disco,bell", Nameless)], "disco,bell: no name"),
        ([Peripheral("disco,bell", lambda socket: 7)], "int made, and a Device is possible"),
    ],
)
def test_what_cannot_be_plugged_in_is_refused_and_nothing_has_changed(
    monitor, tmp_path, peripherals, message
):
    free = monitor.pages_by_owner()
    with pytest.raises(ConfigError, match=message):
        _boot(monitor, tmp_path, READ, *peripherals)
    assert monitor.pages_by_owner() == free
    assert _boot(monitor, tmp_path, PRINT_OK).status is Status.RUNNING


def test_peripherals_share_no_line_with_virtio_and_have_sources_of_their_own():
    def lines(**options: object) -> list[int]:
        platform = Platform(memory_bytes=1 << 22, peripherals=("a,b",) * 3, **options)
        return [slot.line for slot in platform.peripheral_slots]

    assert lines() == [2, 3, 5]
    assert lines(virtio_count=3) == [6, 6, 6]
    assert lines(virtio_count=4) == [UART_LINE] * 3
    assert lines(vcpu_count=2, virtio_count=9) == [16, 17, 18]
