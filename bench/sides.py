"""Who runs a session: Disco in a process of its own, or a QEMU for each guest.

Both are processes that print; the clock is the same for both: this process's, from the moment before
the first of them is started, so that starting up counts. The host's processor time is taken from
the kernel at each mark, because other work on the host lengthens wall time more than that.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import qemu
from bench.session import (
    DISCO,
    END,
    PREFIX,
    QEMU,
    START,
    USERLAND,
    BenchError,
    Boot,
    Mark,
    Run,
    Session,
)

#: A session that takes longer has gone wrong.
SECONDS_MAX = 1200.0
_TAIL_LINES = 12

#: Called with each line of a console.
Watch = Callable[[str], None]
#: Descriptors of the ends of a cable between guests, one a guest; none without a cable.
Wire = Sequence[int]
#: From a command to one that runs it.
Wrap = Callable[[list[str]], list[str]]


@dataclass(frozen=True)
class _Line:
    """What a process printed, when, and what all had used by then; None: it prints no more."""

    process: int
    text: str | None
    time: float
    cpu_seconds: float


class _Processes:
    """Processes whose output is read as it comes. A context manager: leaving it ends them."""

    def __init__(self, commands: Sequence[Sequence[str]], wire: Wire) -> None:
        self._commands = commands
        self._wire = wire
        self._lines: queue.Queue[_Line] = queue.Queue()
        self._processes: list[subprocess.Popen[bytes]] = []
        self.start = 0.0

    def __enter__(self) -> _Processes:
        self.start = time.perf_counter()
        try:
            with _uninterrupted():
                for command in self._commands:
                    self._processes.append(_started(command, self._wire))
        except BaseException:
            self._end()
            raise
        for index in range(len(self._processes)):
            threading.Thread(target=self._read, args=(index,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def _end(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
                process.wait()

    def next(self) -> _Line:
        """The next line.

        Raises:
            BenchError: nothing came until the time limit.
        """
        left = self.start + SECONDS_MAX - time.perf_counter()
        try:
            return self._lines.get(timeout=max(0.0, left))
        except queue.Empty:
            raise BenchError(f"no end after {SECONDS_MAX:.0f} s") from None

    def wait(self) -> float:
        """Host processor seconds of all of them, which have to end well.

        Raises:
            BenchError: one ended with an error.
        """
        seconds = 0.0
        for process in self._processes:
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds += usage.ru_utime + usage.ru_stime
        failed = [one.returncode for one in self._processes if one.returncode]
        if failed:
            raise BenchError(f"ended with status {failed[0]}")
        return seconds

    def _read(self, index: int) -> None:
        stream = self._processes[index].stdout
        assert stream is not None, "every process was started with a pipe"
        for line in stream:
            self._put(index, line.decode(errors="replace").rstrip("\r\n"))
        self._put(index, None)

    def _put(self, index: int, text: str | None) -> None:
        now = time.perf_counter()
        used = sum(_cpu_seconds(process.pid) for process in self._processes) if text else 0.0
        self._lines.put(_Line(index, text, now, used))


@contextmanager
def _wire(session: Session, side: str) -> Iterator[Wire]:
    """What joins the cards of a session's two QEMUs."""
    if not session.has_network or side != QEMU:
        yield ()
        return
    one, other = socket.socketpair()
    with one, other:
        yield one.fileno(), other.fileno()


def _started(command: Sequence[str], wire: Wire) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        pass_fds=wire,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Puts off Ctrl-C to the end, so that no process is started whom nobody knows.

    Raises:
        KeyboardInterrupt: at the end, if somebody asked.
    """
    asked: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {one: signal.signal(one, lambda number, _: asked.append(number)) for one in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt


def run(session: Session, side: str, watch: Watch, wrap: Wrap | None = None) -> Run:
    """Runs a session to its end.

    Args:
        session, side: what is run by whom.
        watch: called with each line of a console.
        wrap: makes each command another one, which runs it.

    Raises:
        BenchError: it did not come to one; the message has the last lines that were printed.
    """
    with _wire(session, side) as wire:
        return _run(session, side, watch, wrap, wire)


def _run(session: Session, side: str, watch: Watch, wrap: Wrap | None, wire: Wire) -> Run:
    commands = _COMMANDS[side](session, session.boots[side], wire)
    if wrap is not None:
        commands = [wrap(command) for command in commands]
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    marks = [Mark(guest=0, text=START, seconds=0.0, cpu_seconds=0.0, counters={})]
    facts: dict[str, float] = {}
    end_counters: list[Mapping[str, int]] = [{}]
    open_count = len(commands)
    try:
        with _Processes(commands, wire) as processes:
            while open_count:
                line = processes.next()
                if line.text is None:
                    open_count -= 1
                    continue
                said = _READERS[side](line)
                if "facts" in said:
                    facts, end_counters = said["facts"], said["counters"]
                    continue
                tail.append(said["text"])
                watch(said["text"])
                if _is_mark(said["text"]):
                    seconds = line.time - processes.start
                    marks.append(Mark(**said, seconds=seconds, cpu_seconds=line.cpu_seconds))
            wall_seconds = time.perf_counter() - processes.start
            cpu_seconds = processes.wait()
    except BenchError as error:
        shown = "\n    ".join(tail)
        raise BenchError(f"{session.name} on {side}: {error}\n    {shown}") from None
    marks += [
        Mark(
            guest=guest,
            text=END,
            seconds=wall_seconds,
            cpu_seconds=cpu_seconds,
            counters=counters,
        )
        for guest, counters in enumerate(end_counters)
    ]
    return Run(side=side, marks=tuple(marks), facts=facts, start=processes.start)


def _cpu_seconds(pid: int) -> float:
    """Processor time of a process that may have ended; until it is waited for, its figures stay.

    Source: proc_pid_stat(5), utime and stime, behind the name, which is in parentheses.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _is_mark(text: str) -> bool:
    return text.startswith(PREFIX) or text == USERLAND


def _disco_commands(session: Session, boot: Boot, _wire: Wire) -> list[list[str]]:
    """One process for all guests."""
    asked = {
        "kernel": str(boot.kernel),
        "initrd": str(boot.initrd) if boot.initrd else None,
        "append": boot.append,
        "disk": str(boot.disk) if boot.disk else None,
        "ready": boot.ready,
        "guests": session.guests,
        "has_network": session.has_network,
        "vcpus": session.vcpus,
        "memory_mib": session.memory_mib,
        "cpus": session.cpus,
        "host_threads": session.host_threads,
    }
    return [[sys.executable, str(Path(__file__).with_name("guest.py")), json.dumps(asked)]]


def _qemu_commands(session: Session, boot: Boot, wire: Wire) -> list[list[str]]:
    """A process for each guest."""
    cards = [qemu.card(end, guest) for guest, end in enumerate(wire)]
    command = qemu.command(boot, memory_mib=session.memory_mib, console=session.console)
    return [command + card for card in cards or [["-net", "none"]] * session.guests]


def _disco_said(line: _Line) -> dict[str, Any]:
    text = line.text or ""
    if text.startswith("{"):
        said: dict[str, Any] = json.loads(text)
        return said
    return {"guest": 0, "text": text, "counters": {}}  # an error message


def _qemu_said(line: _Line) -> dict[str, Any]:
    return {"guest": line.process, "text": line.text, "counters": {}}


_COMMANDS = {DISCO: _disco_commands, QEMU: _qemu_commands}
_READERS = {DISCO: _disco_said, QEMU: _qemu_said}
