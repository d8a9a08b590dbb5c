"""Two QEMUs of a session with a network are joined; a session without has no cards."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import sides
from bench.session import DISCO, QEMU, Boot, Session

BOOT = Boot(kernel=Path("kernel"))


def session(*, has_network: bool) -> Session:
    boots = {QEMU: BOOT, DISCO: BOOT}
    return Session(name="s", rows=(), boots=boots, guests=2, has_network=has_network)


def test_each_qemu_has_a_card_at_its_end_of_the_wire() -> None:
    with sides._wire(session(has_network=True), QEMU) as wire:
        commands = sides._COMMANDS[QEMU](session(has_network=True), BOOT, wire)
    assert len(set(wire)) == 2
    for guest, (command, end) in enumerate(zip(commands, wire, strict=True)):
        assert f"socket,id=wire,fd={end}" in command
        assert any(f"mac=02:d1:5c:00:01:0{guest + 1}" in word for word in command)
        assert "none" not in command[command.index("-netdev") :]


@pytest.mark.parametrize(("has_network", "side"), [(False, QEMU), (True, DISCO)])
def test_nothing_else_needs_a_wire(has_network: bool, side: str) -> None:
    with sides._wire(session(has_network=has_network), side) as wire:
        assert wire == ()


def test_a_qemu_without_a_network_has_no_card() -> None:
    for command in sides._COMMANDS[QEMU](session(has_network=False), BOOT, ()):
        assert command[-2:] == ["-net", "none"]


def test_processes_of_a_session_have_the_ends_of_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    def commands(_session: Session, _boot: Boot, wire: sides.Wire) -> list[list[str]]:
        talks = "import os, sys; end = int(sys.argv[1]); os.write(end, b'x'); os.read(end, 1)"
        return [["python3", "-c", talks, str(end)] for end in wire]

    monkeypatch.setitem(sides._COMMANDS, QEMU, commands)
    assert sides.run(session(has_network=True), QEMU, lambda _line: None).side == QEMU
