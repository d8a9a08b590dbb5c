"""What the services of a guest's kernel cost: system calls, faults and refills, call by call.

The engine follows the guest's own exceptions, from the one with which a program asks for a service to the
ERET that leads back to it; the rules are in `engine/machine/src/services.rs`. It only looks on: a run that is
recorded is the same run, if slower on the host.

Source: SOSP'97, table 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from disco.guests.syscalls import name_of

#: How the engine names the monitor's cycles by cause.
_PREFIX = "cycles_monitor_"


@dataclass(frozen=True, kw_only=True)
class ServiceCost:
    """All calls of one service.

    Attributes:
        service: what it is, such as "demand-zero fault" or "system call".
        number: of a system call, or None.
        count: calls that the sums are of.
        switched: calls left out, because the kernel switched to another thread in them.
        interrupted: of `count`, those from which the time of an interrupt was taken out.
        cycles: simulated cycles of all calls together, Disco's included.
        median_cycles: of one call.
        instructions: of all calls together.
        monitor_cycles: of `cycles`, Disco's, by cause; empty on the bare machine.
    """

    service: str
    number: int | None
    count: int
    switched: int
    interrupted: int
    cycles: int
    median_cycles: int
    instructions: int
    monitor_cycles: Mapping[str, int]

    @property
    def name(self) -> str:
        """The system call's name, or the service's."""
        return self.service if self.number is None else name_of(self.number)

    @property
    def mean_cycles(self) -> float:
        """Cycles of a call on average; 0 if there is none."""
        return self.cycles / self.count if self.count else 0.0

    @property
    def mean_instructions(self) -> float:
        """Instructions of a call on average; 0 if there is none."""
        return self.instructions / self.count if self.count else 0.0

    @property
    def is_call(self) -> bool:
        """Whether it is a system call."""
        return self.number is not None

    def as_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "service": self.service,
            "number": self.number,
            "count": self.count,
            "switched": self.switched,
            "interrupted": self.interrupted,
            "cycles": self.cycles,
            "mean_cycles": self.mean_cycles,
            "median_cycles": self.median_cycles,
            "instructions": self.instructions,
            "monitor_cycles": dict(self.monitor_cycles),
        }


def services_of(rows: Sequence[Mapping[str, Any]]) -> tuple[ServiceCost, ...]:
    """The engine's rows, faults before system calls, by number."""
    return tuple(
        ServiceCost(
            **{key: value for key, value in row.items() if key != "monitor"},
            monitor_cycles={
                name.removeprefix(_PREFIX): cycles for name, cycles in row["monitor"].items()
            },
        )
        for row in rows
    )
