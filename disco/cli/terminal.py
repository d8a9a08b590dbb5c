"""What the user sees while VMs run: consoles, one line a VM about its state, and steps of preparation."""

from __future__ import annotations

import os
import re
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO

from disco.monitor import Monitor, VirtualMachine
from disco.monitor.attach import ConsoleServer
from disco.monitor.tunnels import TunnelServer

#: ANSI colours for names of VMs, in turn.
_COLOURS = (36, 33, 35, 32, 34, 31)
#: Terminal control sequences, and control characters other than tab: a guest's lines stay lines.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b.?|[\x00-\x08\x0a-\x1f\x7f]")

LEAVE = b"\x1d"  # Ctrl-]
_END_OF_INPUT = b"\x04"  # Ctrl-D
#: Longest time that an attached, idle VM sleeps without a look at the keyboard.
_NAP_SECONDS = 0.05


def say(text: str) -> None:
    """One line of progress or warning."""
    print(f"disco: {text}", file=sys.stderr, flush=True)  # noqa: T201


class PrefixedConsole:
    """Shows a VM's output line by line, with its name in front."""

    def __init__(self, vm: VirtualMachine, *, width: int, output: TextIO) -> None:
        """`width` is that of the longest name."""
        self._output = output
        self._prefix = f"{vm.name:>{width}} | "
        if output.isatty() and "NO_COLOR" not in os.environ:
            colour = _COLOURS[vm.number % len(_COLOURS)]
            self._prefix = f"\x1b[{colour}m{self._prefix}\x1b[0m"
        self._partial = b""
        vm.console.listeners.append(self._take)

    def _take(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._show(line)

    def _show(self, line: bytes) -> None:
        text = _CONTROL.sub("", line.decode(errors="replace"))
        self._output.write(f"{self._prefix}{text}\n")
        self._output.flush()

    def finish(self) -> None:
        """Shows what has no line end."""
        if self._partial:
            self._show(self._partial)
            self._partial = b""


@contextmanager
def raw_terminal(keyboard: int) -> Iterator[None]:
    """Every key comes as it is while this lasts, Ctrl-C too; nothing changes if it is no terminal."""
    if not os.isatty(keyboard):
        yield
        return
    before = termios.tcgetattr(keyboard)
    try:
        tty.setraw(keyboard)
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


class Pacer:
    """Keeps simulated time to the wall clock, as far as the host is fast enough."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._epoch = time.monotonic() - monitor.seconds

    def nap_seconds(self) -> float:
        """How long to sleep now so that simulated time does not run ahead."""
        lead = self._monitor.seconds - (time.monotonic() - self._epoch)
        if lead < 0:
            self._epoch -= lead
        return min(max(0.0, lead), _NAP_SECONDS)

    def start(self) -> None:
        """From now on, whatever was before."""
        self._epoch = time.monotonic() - self._monitor.seconds


class AttachedConsole:
    """Standard input and output as the console of a VM; what the guest prints comes out as it is.

    On a terminal, simulated time keeps to the wall clock as far as the host is fast enough, so that a
    guest that waits for a key does not count through its timers meanwhile. Input that is no terminal
    comes as fast as the guest takes it, from when the guest has printed `ready`: what comes earlier is
    lost when the kernel opens the port or the shell changes its mode.
    """

    def __init__(self, monitor: Monitor, vm: VirtualMachine, *, ready: str) -> None:
        self.is_left = False
        self._vm = vm
        self._input = sys.stdin.fileno()
        self._is_terminal = os.isatty(self._input)
        self._ready = ready
        self._is_open = True
        self._pacer = Pacer(monitor)
        vm.console.listeners.append(self._show)

    @staticmethod
    def _show(data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def raw(self) -> AbstractContextManager[None]:
        """Every key goes to the guest while this lasts, Ctrl-C too."""
        return raw_terminal(self._input)

    def poll(self) -> bool:
        """Takes what was typed and keeps time; whether the user has left."""
        nap = self._pacer.nap_seconds() if self._is_terminal else 0.0
        is_taken = self._is_open and (self._is_terminal or self._vm.has_printed(self._ready))
        if is_taken and select.select([self._input], [], [], nap)[0]:
            self._type(os.read(self._input, 1024))
        return self.is_left

    def _type(self, keys: bytes) -> None:
        if not keys:
            self._is_open = False
            keys = _END_OF_INPUT
        if LEAVE in keys:
            self.is_left = True
        else:
            self._vm.type(keys)


class Progress:
    """A line a VM on standard error: redrawn in place on a terminal, else written now and then.

    `tick` is made to be `Monitor.run`'s `until`: called often, it acts rarely.
    """

    _REDRAW_SECONDS = 0.25
    _REPEAT_SECONDS = 5.0

    def __init__(self, monitor: Monitor, *, stop: Callable[[], bool] | None = None) -> None:
        self._monitor = monitor
        self._stop = stop
        self._is_terminal = sys.stderr.isatty()
        self._seconds = self._REDRAW_SECONDS if self._is_terminal else self._REPEAT_SECONDS
        self._start = time.monotonic()
        self._next = self._start + self._seconds
        self._rows_drawn = 0
        self._before: dict[str, tuple[float, int]] = {}

    def tick(self) -> bool:
        """Shows the state if it is time to; whether the run is to stop."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + self._seconds
            self.show()
        return self._stop is not None and self._stop()

    def show(self) -> None:
        """Shows the state."""
        rows = [self._row(vm) for vm in self._monitor.vms]
        if not self._is_terminal:
            for row in rows:
                say(" ".join(row.split()))
            return
        columns = os.get_terminal_size(sys.stderr.fileno()).columns
        up = f"\x1b[{self._rows_drawn}A" if self._rows_drawn else ""
        lines = "".join(f"\x1b[2K{row[: columns - 1]}\n" for row in rows)
        sys.stderr.write(up + lines)
        sys.stderr.flush()
        self._rows_drawn = len(rows)

    def _row(self, vm: VirtualMachine) -> str:
        now = time.monotonic()
        count = vm.usage.counters["instructions"]
        then, before = self._before.get(vm.name, (self._start, 0))
        self._before[vm.name] = (now, count)
        speed = (count - before) / (now - then) / 1e6 if now > then else 0.0
        last = _CONTROL.sub("", vm.console.last_line)
        return (
            f"{vm.name:>8}  {vm.status:<8} {self._monitor.seconds:7.2f} s simulated"
            f" {count / 1e6:8.0f} M instr {speed:6.1f} MIPS  {last}"
        )


class RemoteConsoles:
    """The VMs' consoles for `disco console` in other terminals, and perhaps connections for `disco ssh`, around
    what a run does when it is polled.

    While somebody is attached, simulated time keeps to the wall clock.
    """

    def __init__(
        self, monitor: Monitor, inner: Callable[[], bool] | None, *, has_tunnels: bool = False
    ) -> None:
        self._tunnels = TunnelServer(monitor) if has_tunnels else None
        self._server = ConsoleServer(monitor)
        self._pacer = Pacer(monitor)
        self._inner = inner
        self._was_attached = False

    def poll(self) -> bool:
        """Does its work; what `inner` says."""
        self._server.poll()
        is_attached = self._server.is_attached
        if self._tunnels is not None:
            self._tunnels.poll()
            is_attached = is_attached or self._tunnels.is_attached
        if is_attached and not self._was_attached:
            self._pacer.start()
        if is_attached:
            time.sleep(self._pacer.nap_seconds())
        self._was_attached = is_attached
        return self._inner is not None and self._inner()

    def close(self) -> None:
        """Cuts everybody off."""
        if self._tunnels is not None:
            self._tunnels.close()
        self._server.close()


def prefixed(vms: Sequence[VirtualMachine], output: TextIO) -> list[PrefixedConsole]:
    """Shows the consoles of all these VMs."""
    width = max(len(vm.name) for vm in vms)
    return [PrefixedConsole(vm, width=width, output=output) for vm in vms]
