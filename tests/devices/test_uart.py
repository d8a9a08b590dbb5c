"""The console port: what Linux's 8250 driver asks of it; latching and posting stay unseen."""

from __future__ import annotations

import random

import pytest
from model_bus import Line, ModelBus

from disco.devices.bus import PostedWrite
from disco.devices.power import PowerState
from disco.devices.uart import Uart
from disco.errors import DeviceError, ImageError

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7


class Port:
    """A UART on a model bus, accessed by register number."""

    def __init__(self, *, posting: bool = True) -> None:
        self.bus = ModelBus(posting=posting)
        self.line = Line()
        self.output = bytearray()
        self.uart = Uart(line=self.line, wiring=self.bus, sink=self.output.extend)
        self.bus.attach(self.uart)

    def read(self, register: int, size: int = 1) -> int:
        return self.bus.read(4 * register, size)

    def write(self, register: int, value: int, size: int = 1) -> None:
        self.bus.write(4 * register, value, size)

    def read_all(self) -> bytes:
        received = bytearray()
        while self.read(LSR) & 1:
            received.append(self.read(RBR))
        return bytes(received)


@pytest.fixture(params=[True, False], ids=["posting", "trapping"])
def port(request):
    return Port(posting=request.param)


# Each row: write (register, value), or read (register, mask, expected).
AUTOCONFIG = [
    # IER holds its four bits and nothing more: no sleep mode, no XScale UUE bit.
    ("w", IER, 0x00),
    ("r", IER, 0x0F, 0x00),
    ("w", IER, 0x0F),
    ("r", IER, 0x0F, 0x0F),
    ("w", IER, 0x40),
    ("r", IER, 0xFF, 0x00),
    # Loopback: RTS and OUT2 come back as CTS and DCD.
    ("w", MCR, 0x1A),
    ("r", MSR, 0xF0, 0x90),
    ("w", MCR, 0x00),
    ("r", MSR, 0xF0, 0xB0),
    # The EFR of a 16650 would answer under LCR = 0xbf; ours writes FCR, which stays off.
    ("w", LCR, 0xBF),
    ("w", FCR, 0x00),
    ("w", LCR, 0x00),
    ("w", FCR, 0x01),
    ("r", IIR, 0xC0, 0xC0),  # a 16550A
    ("w", LCR, 0x80),
    ("r", IIR, 0xFF, 0xC1),  # not zero, so no EFR here
    # National's Super I/O would show MCR at register 2 under LCR = 0xe0.
    ("w", LCR, 0xE0),
    ("r", IIR, 0x10, 0x00),
    ("w", LCR, 0x00),
    ("w", MCR, 0x10),
    ("w", LCR, 0xE0),
    ("r", IIR, 0x10, 0x00),
    ("w", LCR, 0x00),
    ("w", MCR, 0x00),
    # A 16750 would show its 64-byte FIFO in IIR bit 5.
    ("w", FCR, 0x21),
    ("r", IIR, 0xE0, 0xC0),
    ("w", LCR, 0x80),
    ("w", FCR, 0x21),
    ("r", IIR, 0xE0, 0xC0),
    ("w", LCR, 0x00),
    # The divisor latch keeps both halves and hides RBR and IER only while DLAB is set.
    ("w", LCR, 0x83),
    ("w", DLL, 0x34),
    ("w", DLM, 0x12),
    ("r", DLL, 0xFF, 0x34),
    ("r", DLM, 0xFF, 0x12),
    ("w", LCR, 0x03),
    ("r", IER, 0xFF, 0x00),
    ("r", RBR, 0xFF, 0x00),
    ("w", MCR, 0xEF),
    ("r", MCR, 0xFF, 0x0F),  # no automatic flow control, no prescaler
    ("w", MCR, 0x00),
    ("w", SCR, 0xA5),
    ("r", SCR, 0xFF, 0xA5),
    ("r", LSR, 0xFF, 0x60),  # 0xff would mean: no UART
]


def test_linux_autoconfig_finds_a_16550a(port):
    for step, row in enumerate(AUTOCONFIG):
        if row[0] == "w":
            port.write(row[1], row[2])
        else:
            assert port.read(row[1]) & row[2] == row[3], f"step {step}: {row}"
    assert not port.output


def test_linux_measures_a_fifo_of_16_bytes(port):
    port.write(FCR, 0x07)
    port.write(MCR, 0x10)
    for byte in range(256):
        port.write(THR, byte)
    assert port.read_all() == bytes(range(16))
    port.write(MCR, 0)
    assert not port.output  # loopback prints nothing


def test_linux_thre_test_sees_the_interrupt_each_time_it_is_enabled(port):
    for _ in range(2):
        port.write(IER, 0x02)
        assert port.line.level
        assert port.read(IIR) & 0x0F == 0x02
        assert not port.line.level  # reading IIR acknowledged it
        assert port.read(IIR) & 0x0F == 0x01
        port.write(IER, 0x00)


def test_writing_ier_again_does_not_raise_thre_again(port):
    port.write(IER, 0x02)
    port.read(IIR)
    port.write(IER, 0x03)
    assert port.read(IIR) & 0x0F == 0x01


def test_a_byte_written_after_the_acknowledgement_raises_thre_at_once(port):
    port.write(IER, 0x02)
    port.read(IIR)
    port.write(THR, ord("x"))
    assert port.line.level
    assert port.read(IIR) & 0x0F == 0x02


def test_disabling_thri_drops_the_line(port):
    port.write(IER, 0x02)
    port.write(IER, 0x00)
    assert not port.line.level
    assert port.read(IIR) & 0x0F == 0x01


def test_an_iir_read_that_reports_input_does_not_acknowledge_thre(port):
    port.write(FCR, 0x01)
    port.write(IER, 0x03)
    port.uart.feed(b"a")
    assert port.read(IIR) & 0x0F == 0x04
    assert port.read(RBR) == ord("a")
    assert port.read(IIR) & 0x0F == 0x02
    assert not port.line.level


@pytest.mark.parametrize(
    ("fcr", "count", "iir"),
    [
        (0xC1, 13, 0x0C),  # below the trigger level: character timeout
        (0xC1, 14, 0x04),
        (0x81, 7, 0x0C),
        (0x81, 8, 0x04),
        (0x41, 4, 0x04),
        (0x01, 1, 0x04),
        (0x00, 1, 0x04),  # no FIFO, no timeout
    ],
)
def test_received_bytes_interrupt_by_trigger_level(port, fcr, count, iir):
    port.write(FCR, fcr)
    port.write(IER, 0x01)
    port.uart.feed(bytes(count))
    assert port.line.level
    assert port.read(IIR) & 0x0F == iir
    port.read_all()
    assert not port.line.level


def test_input_beyond_the_fifo_waits_and_arrives_in_order(port):
    port.write(FCR, 0x01)
    typed = bytes(random.Random(1).randbytes(1000))
    port.uart.feed(typed[:600])
    port.uart.feed(typed[600:])
    assert port.read_all() == typed


def test_clearing_the_receiver_loses_only_what_the_fifo_held(port):
    port.write(FCR, 0x01)
    port.uart.feed(bytes(range(40)))
    port.write(FCR, 0x03)
    assert port.read_all() == bytes(range(16, 40))


@pytest.mark.parametrize(("before", "after"), [(0x00, 0x01), (0x01, 0x00)])
def test_switching_the_fifos_empties_the_receiver(port, before, after):
    port.write(FCR, before)
    port.uart.feed(b"x")
    port.write(FCR, after)
    assert port.read_all() == b""


def test_input_does_not_arrive_in_loopback(port):
    port.write(MCR, 0x10)
    port.uart.feed(b"a")
    assert not port.read(LSR) & 0x01
    port.write(MCR, 0x00)
    assert port.read_all() == b"a"


def test_an_overrun_is_reported_once_and_by_interrupt(port):
    port.write(MCR, 0x10)
    port.write(IER, 0x04)
    port.write(THR, 1)
    port.write(THR, 2)
    assert port.read(IIR) & 0x0F == 0x06
    assert port.read(LSR) == 0x63
    assert port.read(LSR) == 0x61
    assert port.read(RBR) == 2  # without FIFOs the new byte replaces the old
    assert not port.line.level


def test_modem_deltas_are_cleared_by_reading_them(port):
    port.write(IER, 0x08)
    port.write(MCR, 0x10)  # all lines fall: CTS, DSR, DCD changed
    assert port.line.level
    assert port.read(IIR) & 0x0F == 0x00
    assert port.read(MSR) == 0x0B
    assert port.read(MSR) == 0x00
    port.write(MCR, 0x14)
    assert port.read(MSR) == 0x40  # a rising RI is no event
    port.write(MCR, 0x10)
    assert port.read(MSR) == 0x04  # a falling one is
    assert not port.line.level


@pytest.mark.parametrize("size", [1, 2, 4])
def test_registers_take_accesses_of_1_2_and_4_bytes(port, size):
    port.write(SCR, 0x5A, size)
    port.write(THR, ord("x"), size)
    assert port.read(SCR, size) == 0x5A
    port.bus.end_round()
    assert port.output == b"x"


def test_the_bytes_between_registers_read_zero_and_ignore_writes(port):
    port.bus.write(4 * SCR + 1, 0xFF, 1)
    port.bus.write(1, 0x41, 1)
    assert port.bus.read(4 * SCR + 1, 1) == 0
    assert port.read(SCR) == 0
    assert not port.output


@pytest.mark.parametrize(("offset", "size"), [(0, 8), (24, 8), (32, 1)])
def test_an_access_no_register_takes_is_a_device_error(port, offset, size):
    with pytest.raises(DeviceError, match=r"uart: access of 8 bytes|uart: access at offset 0x20"):
        port.uart.read(offset, size)
    with pytest.raises(DeviceError):
        port.uart.write(offset, size, 0)


def test_a_polled_console_does_not_trap():
    port = Port()
    port.write(FCR, 0x01)
    trapped = port.bus.trapped_count
    for byte in b"Linux version 6.1.0" * 50:
        assert port.read(LSR) & 0x60 == 0x60
        port.write(THR, byte)
    port.bus.end_round()
    assert port.bus.trapped_count == trapped
    assert port.output == b"Linux version 6.1.0" * 50


def test_a_burst_of_the_interrupt_handler_traps_once():
    port = Port()
    port.write(FCR, 0x01)
    port.write(IER, 0x03)
    port.read(IIR)
    trapped = port.bus.trapped_count
    for byte in b"sixteen bytes...":
        port.write(THR, byte)
    assert port.bus.trapped_count == trapped + 1
    port.bus.end_round()
    assert port.output == b"sixteen bytes..."


def random_access(rng: random.Random) -> tuple[str, int, int]:
    kind = rng.choice(["read", "write", "write", "print", "print", "feed", "round"])
    register = rng.randrange(8)
    value = rng.choice([0, 1, 2, 3, 5, 7, 0x0F, 0x10, 0x1F, 0x80, 0xC1, rng.randrange(256)])
    return kind, register, value


@pytest.mark.parametrize("seed", range(20))
def test_the_guest_cannot_tell_posting_from_trapping(seed):
    """Two ports, one of which uses latches and posts: same answers, line and output."""
    rng = random.Random(seed)
    quick, plain = Port(posting=True), Port(posting=False)
    for step in range(3000):
        kind, register, value = random_access(rng)
        answers = []
        for port in (quick, plain):
            if kind == "read":
                answers.append(port.read(register))
            elif kind == "write":
                port.write(register, value)
            elif kind == "print":
                port.write(THR, value)
            elif kind == "feed":
                port.bus.end_round()  # the host acts between rounds
                port.uart.feed(bytes([value] * (value % 20)))
            else:
                port.bus.end_round()
        assert len(set(answers)) < 2, f"seed {seed} step {step}: {kind} {register} gave {answers}"
        assert quick.line.level == plain.line.level, f"seed {seed} step {step}"
    quick.bus.end_round()
    assert quick.output == plain.output
    assert quick.uart.save() == plain.uart.save()


@pytest.mark.parametrize("seed", range(10))
def test_a_restored_port_goes_on_like_the_original(seed):
    rng = random.Random(seed)
    original = Port()
    for cut in range(400):
        if cut % 40 == 0:
            original.bus.end_round()
            twin = Port()
            twin.uart.restore(original.uart.save())
            assert twin.line.levels[-1:] == [original.line.level]
            assert (twin.bus.latched, twin.bus.posting_sizes) == (
                original.bus.latched,
                original.bus.posting_sizes,
            )
        kind, register, value = random_access(rng)
        for port in (original, twin):
            if kind == "write":
                port.write(register, value)
            elif kind == "feed":
                port.bus.end_round()
                port.uart.feed(bytes([value] * 3))
        if kind == "read":
            assert original.read(register) == twin.read(register)
    assert original.uart.save() == twin.uart.save()


def test_reset_keeps_input_not_yet_received_and_drops_the_rest(port):
    port.write(FCR, 0x01)
    port.write(IER, 0x01)
    port.uart.feed(bytes(range(20)))
    port.uart.reset()
    assert not port.line.level
    assert port.read(IIR) == 0x01
    assert port.read_all() == bytes(range(16, 20))


def test_state_of_another_device_or_version_is_refused(port):
    with pytest.raises(ImageError, match="PowerState, needs UartState"):
        port.uart.restore(PowerState(version=1))
    saved = port.uart.save()
    object.__setattr__(saved, "version", 9)
    with pytest.raises(ImageError, match="version 9, needs 1"):
        port.uart.restore(saved)


def test_a_log_with_another_register_is_our_bug(port):
    with pytest.raises(AssertionError, match="only THR"):
        port.uart.posted([PostedWrite(0, 4, 1, 0)])
