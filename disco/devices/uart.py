"""16550A console, as its data sheet (PC16550D) has it and Linux's 8250 driver drives it.

Registers are one byte wide and four bytes apart (`reg-shift = <2>`), in the low byte of each word;
the other three bytes read as zero and ignore writes.

What differs from the chip: the line is infinitely fast. A byte written to THR has left before the
next instruction, so THRE and TEMT are always set and output never blocks; the character timeout of
the receiver is over as soon as a byte has come in. Baud rate, parity and break are stored and mean
nothing. OUT2 does not gate the interrupt, as on every port outside a PC.

What a guest polls is latched and what it prints is posted (see `disco.devices.bus`), each for
exactly as long as that is invisible:

- A read is latched while it has no side effect: IIR unless it would acknowledge THRE, LSR unless it
  would clear an overrun, MSR unless it would clear deltas, RBR while it is empty, all others
  always.
- THR is posted outside loopback, unless its write would raise the THRE interrupt: that is, with
  IER.THRI set and the interrupt already acknowledged. Linux's interrupt handler so traps once in a
  burst of 16 bytes, and its polled console never.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from disco.devices.bus import (
    Declarations,
    Device,
    InterruptLine,
    PostedWrite,
    SavedState,
    Wiring,
    claimed_state,
)


class Reg:
    """Registers by number. LCR bit 7, DLAB, puts the divisor latch in place of the first two."""

    RBR = THR = DLL = 0
    IER = DLM = 1
    IIR = FCR = 2
    LCR = 3
    MCR = 4
    LSR = 5
    MSR = 6
    SCR = 7


REGISTER_COUNT = 8
REGISTER_BYTES = 4
WINDOW_BYTES = REGISTER_COUNT * REGISTER_BYTES

IER_RDI = 0x01  # received data available, character timeout
IER_THRI = 0x02  # transmitter holding register empty
IER_RLSI = 0x04  # receiver line status
IER_MSI = 0x08  # modem status
IER_MASK = 0x0F

IIR_NONE = 0x01
IIR_THRE = 0x02
IIR_RDA = 0x04
IIR_RLS = 0x06
IIR_TIMEOUT = 0x0C
IIR_MSR = 0x00
IIR_FIFO_ENABLED = 0xC0

FCR_ENABLE = 0x01
FCR_CLEAR_RECEIVER = 0x02
FCR_TRIGGER_SHIFT = 6
TRIGGER_LEVELS = (1, 4, 8, 14)

LCR_DLAB = 0x80

MCR_DTR = 0x01
MCR_RTS = 0x02
MCR_OUT1 = 0x04
MCR_OUT2 = 0x08
MCR_LOOP = 0x10
MCR_MASK = 0x1F

LSR_DR = 0x01
LSR_OE = 0x02
LSR_THRE = 0x20
LSR_TEMT = 0x40

MSR_CTS = 0x10
MSR_DSR = 0x20
MSR_RI = 0x40
MSR_DCD = 0x80
MSR_TERI = 0x04  # the delta of RI reports only its falling edge
MSR_LINES_IDLE = MSR_CTS | MSR_DSR | MSR_DCD  # the other end is always ready
MSR_DELTA_SHIFT = 4  # each line's delta bit is four below it
LOOPBACK_LINES = ((MCR_DTR, MSR_DSR), (MCR_RTS, MSR_CTS), (MCR_OUT1, MSR_RI), (MCR_OUT2, MSR_DCD))

FIFO_BYTES = 16
STATE_VERSION = 1


@dataclass(frozen=True)
class UartState(SavedState):
    """Registers as the data sheet names them, and the bytes under way."""

    ier: int
    lcr: int
    mcr: int
    scr: int
    divisor: int
    fifo_enabled: bool
    trigger_bytes: int
    thre_pending: bool
    overrun: bool
    msr_deltas: int
    received: bytes
    backlog: bytes


class Uart(Device):
    """The console port of a VM. `feed` types into it, `sink` gets what the guest prints."""

    window_bytes = WINDOW_BYTES

    def __init__(
        self,
        *,
        line: InterruptLine,
        wiring: Wiring,
        sink: Callable[[bytes], None],
        name: str = "uart",
    ) -> None:
        """`sink` gets each run of output bytes in order and must not block."""
        super().__init__(name=name)
        # Wiring.
        self._line = line
        self._sink = sink
        self._declarations = Declarations(wiring=wiring, size=REGISTER_BYTES)
        self._level = False
        # Host end: what was typed and has not fitted into the receiver yet.
        self._backlog: deque[int] = deque()
        self._power_on()
        self._declare()

    def _power_on(self) -> None:
        """Reset values of the data sheet, table "UART reset configuration"."""
        self._ier = 0
        self._lcr = 0
        self._mcr = 0
        self._scr = 0
        self._divisor = 0
        self._fifo_enabled = False
        self._trigger_bytes = TRIGGER_LEVELS[0]
        self._thre_pending = False  # an interrupt due; only ever set with IER.THRI
        self._overrun = False
        self._msr_deltas = 0
        self._received: deque[int] = deque()

    def feed(self, data: bytes) -> None:
        """Types `data`. What exceeds the receiver's FIFO waits until the guest has made room."""
        self._backlog.extend(data)
        self._settle()

    # Accesses.

    def read(self, offset: int, size: int) -> int:
        register = self._register(offset, size)
        if register is None:
            return 0
        value = self._value(register)
        if self._read_changes_state(register):
            self._acknowledge_read(register)
            self._settle()
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        register = self._register(offset, size)
        if register is None:
            return
        self._store(register, value & 0xFF)
        self._settle()

    def posted(self, writes: Sequence[PostedWrite]) -> None:
        """Takes bytes printed while writing THR had no other effect than printing."""
        assert all(posted.offset == Reg.THR * REGISTER_BYTES for posted in writes), (
            "only THR is posted"
        )
        self._sink(bytes(posted.value & 0xFF for posted in writes))

    def _register(self, offset: int, size: int) -> int | None:
        """Number of the register accessed, None for the unused bytes between registers."""
        if size > REGISTER_BYTES:
            self.refuse(f"access of {size} bytes at offset {offset:#x}; a register takes 1, 2 or 4")
        register, byte = divmod(offset, REGISTER_BYTES)
        if register >= REGISTER_COUNT:
            self.refuse(f"access at offset {offset:#x}; the window has {WINDOW_BYTES} bytes")
        return register if byte == 0 else None

    # Reads.

    def _value(self, register: int) -> int:
        """What a read of `register` returns now; the read itself comes after."""
        match register:
            case Reg.DLL if self._dlab:
                return self._divisor & 0xFF
            case Reg.RBR:
                return self._received[0] if self._received else 0
            case Reg.DLM if self._dlab:
                return self._divisor >> 8
            case Reg.IER:
                return self._ier
            case Reg.IIR:
                return self._interrupt() | (IIR_FIFO_ENABLED if self._fifo_enabled else 0)
            case Reg.LCR:
                return self._lcr
            case Reg.MCR:
                return self._mcr
            case Reg.LSR:
                ready = LSR_DR if self._received else 0
                return LSR_THRE | LSR_TEMT | ready | (LSR_OE if self._overrun else 0)
            case Reg.MSR:
                return self._modem_lines() | self._msr_deltas
            case _:
                return self._scr

    def _read_changes_state(self, register: int) -> bool:
        match register:
            case Reg.RBR:
                return bool(self._received) and not self._dlab
            case Reg.IIR:
                return self._interrupt() == IIR_THRE
            case Reg.LSR:
                return self._overrun
            case Reg.MSR:
                return self._msr_deltas != 0
            case _:
                return False

    def _acknowledge_read(self, register: int) -> None:
        match register:
            case Reg.RBR:
                self._received.popleft()
            case Reg.IIR:
                self._thre_pending = False
            case Reg.LSR:
                self._overrun = False
            case Reg.MSR:
                self._msr_deltas = 0

    # Writes.

    def _store(self, register: int, value: int) -> None:
        match register:
            case Reg.DLL if self._dlab:
                self._divisor = (self._divisor & 0xFF00) | value
            case Reg.THR:
                self._transmit(value)
            case Reg.DLM if self._dlab:
                self._divisor = (self._divisor & 0xFF) | value << 8
            case Reg.IER:
                self._store_ier(value & IER_MASK)
            case Reg.FCR:
                self._store_fcr(value)
            case Reg.LCR:
                self._lcr = value
            case Reg.MCR:
                self._store_mcr(value & MCR_MASK)
            case Reg.SCR:
                self._scr = value
            # LSR and MSR: factory test only; ignored.

    def _transmit(self, byte: int) -> None:
        """The byte leaves at once, so THR is empty again: the THRE interrupt is due."""
        if self._mcr & MCR_LOOP:
            self._receive_looped(byte)
        else:
            self._sink(bytes((byte,)))
        self._thre_pending = bool(self._ier & IER_THRI)

    def _receive_looped(self, byte: int) -> None:
        """With FIFOs an overrun loses the new byte, without them the old one."""
        if len(self._received) == self._receiver_bytes:
            self._overrun = True
            if self._fifo_enabled:
                return
            self._received.clear()
        self._received.append(byte)

    def _store_ier(self, value: int) -> None:
        """Enabling THRI with THR empty raises the interrupt at once; Linux tests for that."""
        if not value & IER_THRI:
            self._thre_pending = False
        elif not self._ier & IER_THRI:
            self._thre_pending = True
        self._ier = value

    def _store_fcr(self, value: int) -> None:
        """Switching the FIFOs on or off empties them. Other bits count only with FCR_ENABLE."""
        enabled = bool(value & FCR_ENABLE)
        if enabled != self._fifo_enabled or (enabled and value & FCR_CLEAR_RECEIVER):
            self._received.clear()
        self._fifo_enabled = enabled
        if enabled:
            self._trigger_bytes = TRIGGER_LEVELS[value >> FCR_TRIGGER_SHIFT]

    def _store_mcr(self, value: int) -> None:
        before = self._modem_lines()
        self._mcr = value
        after = self._modem_lines()
        changed = (before ^ after) & ~MSR_RI
        self._msr_deltas |= changed >> MSR_DELTA_SHIFT
        if before & ~after & MSR_RI:
            self._msr_deltas |= MSR_TERI

    # What follows from the registers.

    @property
    def _dlab(self) -> bool:
        return bool(self._lcr & LCR_DLAB)

    @property
    def _receiver_bytes(self) -> int:
        return FIFO_BYTES if self._fifo_enabled else 1

    def _modem_lines(self) -> int:
        if not self._mcr & MCR_LOOP:
            return MSR_LINES_IDLE
        return sum(line for output, line in LOOPBACK_LINES if self._mcr & output)

    def _interrupt(self) -> int:
        """The pending interrupt of highest priority, as IIR bits 3:0 name it."""
        if self._ier & IER_RLSI and self._overrun:
            return IIR_RLS
        if self._ier & IER_RDI and self._received:
            full = not self._fifo_enabled or len(self._received) >= self._trigger_bytes
            return IIR_RDA if full else IIR_TIMEOUT
        if self._thre_pending:
            return IIR_THRE
        if self._ier & IER_MSI and self._msr_deltas:
            return IIR_MSR
        return IIR_NONE

    def _settle(self) -> None:
        """Brings everything that depends on the registers up to date after one changed."""
        if not self._mcr & MCR_LOOP:
            while self._backlog and len(self._received) < self._receiver_bytes:
                self._received.append(self._backlog.popleft())
        self._declare()
        level = self._interrupt() != IIR_NONE
        if level != self._level:
            self._level = level
            self._line.set(level)

    def _declare(self) -> None:
        for register in range(REGISTER_COUNT):
            silent = not self._read_changes_state(register)
            self._declarations.declare(
                register * REGISTER_BYTES,
                latched=self._value(register) if silent else None,
                posted=register == Reg.THR and self._is_printing_silent(),
            )

    def _is_printing_silent(self) -> bool:
        """Whether a write to offset 0 prints a byte and changes nothing that the guest can see."""
        raises_interrupt = self._ier & IER_THRI and not self._thre_pending
        return not (self._dlab or self._mcr & MCR_LOOP or raises_interrupt)

    # Life.

    def reset(self) -> None:
        self._power_on()
        self._settle()

    def save(self) -> UartState:
        return UartState(
            version=STATE_VERSION,
            ier=self._ier,
            lcr=self._lcr,
            mcr=self._mcr,
            scr=self._scr,
            divisor=self._divisor,
            fifo_enabled=self._fifo_enabled,
            trigger_bytes=self._trigger_bytes,
            thre_pending=self._thre_pending,
            overrun=self._overrun,
            msr_deltas=self._msr_deltas,
            received=bytes(self._received),
            backlog=bytes(self._backlog),
        )

    def restore(self, state: object) -> None:
        saved = claimed_state(state, UartState, version=STATE_VERSION, device=self.name)
        self._ier = saved.ier
        self._lcr = saved.lcr
        self._mcr = saved.mcr
        self._scr = saved.scr
        self._divisor = saved.divisor
        self._fifo_enabled = saved.fifo_enabled
        self._trigger_bytes = saved.trigger_bytes
        self._thre_pending = saved.thre_pending
        self._overrun = saved.overrun
        self._msr_deltas = saved.msr_deltas
        self._received = deque(saved.received)
        self._backlog = deque(saved.backlog)
        self._settle()
        self._line.set(self._level)  # the line may be a new one
