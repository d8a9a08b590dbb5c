"""A learning switch: who gets a frame, and in which order.

Frames wait from the store that announced them until the end of that round, and are then delivered in the
order of (cycle of that store, number of the port). So what a VM receives, and when, does not depend on
which host thread ran which VM.

The address that Disco gave a port is that port's for good: another VM that sends under it is not believed.
Any other source address is learned, a few for each port, so that a guest can have bridges and containers,
and cannot fill the table of all by inventing addresses. A frame for an address that nobody is known to
have goes to every port but the sender's.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from disco.network.frame import Frame
from disco.network.packets import ETHERNET_BYTES

#: Addresses that are learned for a port; the oldest one makes way.
LEARNED_MAX = 64


@dataclass
class Traffic:
    """What has gone through a port; frames that carry several TCP segments count once.

    Attributes:
        frames_sent, bytes_sent: by the VM, and taken by the switch.
        frames_received, bytes_received: handed to the VM's network card.
        frames_malformed: sent by the VM, and no Ethernet frame.
    """

    frames_sent: int = 0
    bytes_sent: int = 0
    frames_received: int = 0
    bytes_received: int = 0
    frames_malformed: int = 0


@dataclass(eq=False)
class Port:
    """A place at the switch.

    Attributes:
        number: of the port, in the order in which they were opened.
        name: of whoever is there.
        link: its own link-level address, 6 bytes.
        deliver: takes a frame that is for it.
        traffic: counts.
        learned: further addresses that it has sent under, the oldest first.
        is_open: whether somebody is still there.
    """

    number: int
    name: str
    link: bytes
    deliver: Callable[[Frame], None]
    traffic: Traffic = field(default_factory=Traffic)
    learned: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    is_open: bool = True


class _Waiting(NamedTuple):
    cycle: int
    sender: Port
    frame: Frame
    only: Port | None

    @property
    def order(self) -> tuple[int, int]:
        return self.cycle, self.sender.number


class Switch:
    """Ports, and the frames between them."""

    def __init__(self, *, watch: Callable[[Port, Frame, int], None] | None = None) -> None:
        """`watch` sees each frame that a port has sent, and its cycle, in the order of delivery."""
        self.watch = watch
        self._ports: list[Port] = []
        self._opened = 0
        self._owners: dict[bytes, Port] = {}
        self._learned: dict[bytes, Port] = {}
        self._waiting: list[_Waiting] = []
        self._leaving: deque[_Waiting] = deque()

    @property
    def has_waiting(self) -> bool:
        """Whether a frame waits for the end of its round."""
        return bool(self._waiting)

    def open(self, name: str, link: bytes, deliver: Callable[[Frame], None]) -> Port:
        """A new port, whose own address is `link`."""
        assert link not in self._owners, f"address {link.hex(':')} given twice"
        port = Port(self._opened, name, link, deliver)
        self._opened += 1
        self._ports.append(port)
        self._owners[link] = port
        self._forget(link)
        return port

    def close(self, port: Port) -> None:
        """Takes a port away. What it has sent still arrives."""
        port.is_open = False
        self._ports.remove(port)
        del self._owners[port.link]
        for link in tuple(port.learned):
            self._forget(link)

    def send(self, port: Port, frame: Frame, *, cycle: int, only: Port | None = None) -> None:
        """Takes a frame from a port; `only`: it goes nowhere else, whatever address it bears."""
        if frame.length < ETHERNET_BYTES or frame.source[0] & 1:
            port.traffic.frames_malformed += 1
            return
        self._waiting.append(_Waiting(cycle, port, frame, only))

    def deliver(self, *, before: int) -> None:
        """Delivers every frame that was sent before that cycle."""
        ready = [one for one in self._waiting if one.cycle < before]
        self._waiting = [one for one in self._waiting if one.cycle >= before]
        self._leaving.extend(sorted(ready, key=lambda one: one.order))
        while self._leaving:
            self._forward(self._leaving.popleft())
        self.settle()

    def settle(self) -> None:
        """What waits is copied: VMs are about to run, or a sender's memory goes away."""
        for one in (*self._leaving, *self._waiting):
            one.frame.settle()

    def _forward(self, one: _Waiting) -> None:
        sender, frame = one.sender, one.frame
        sender.traffic.frames_sent += 1
        sender.traffic.bytes_sent += frame.length
        if self.watch is not None:
            self.watch(sender, frame, one.cycle)
        self._learn(sender, frame.source)
        for port in self._receivers(one):
            port.traffic.frames_received += 1
            port.traffic.bytes_received += frame.length
            port.deliver(frame)

    def _receivers(self, one: _Waiting) -> list[Port]:
        if one.only is not None:
            return [one.only] if one.only.is_open else []
        link = one.frame.destination
        known = self._owners.get(link) or self._learned.get(link)
        if known is not None:
            return [known] if known is not one.sender else []
        return [port for port in self._ports if port is not one.sender]

    def _learn(self, port: Port, link: bytes) -> None:
        if not port.is_open or link in self._owners or self._learned.get(link) is port:
            return
        self._forget(link)
        if len(port.learned) >= LEARNED_MAX:
            self._forget(next(iter(port.learned)))
        port.learned[link] = None
        self._learned[link] = port

    def _forget(self, link: bytes) -> None:
        port = self._learned.pop(link, None)
        if port is not None:
            del port.learned[link]
