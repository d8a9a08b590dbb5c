"""The scheduling policy of a run, from the words of the command line.

--scheduler gang --weights web=2,db=1
--pin web=0,1 --pin db=2
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from disco.errors import ConfigError
from disco.monitor.scheduling import TIME_SLICE_MS, Gang, Pinned, SchedulingPolicy, TimeSharing

NAMES = ("time-sharing", "gang", "pinned")


@dataclass(frozen=True, kw_only=True)
class SchedulerWish:
    """What the command line says.

    Attributes:
        name: one of `NAMES`, or None: "pinned" if there are pins, else "time-sharing".
        weights: "VM=WEIGHT,...", or empty.
        pins: "VM=CPU,..." each.
        time_slice_ms: simulated milliseconds, or None.
    """

    name: str | None = None
    weights: str = ""
    pins: tuple[str, ...] = ()
    time_slice_ms: float | None = None

    def policy(self, vms: Collection[str]) -> SchedulingPolicy:
        """The policy for VMs of these names.

        Raises:
            ConfigError: it cannot be.
        """
        name = self.name or ("pinned" if self.pins else NAMES[0])
        if name not in NAMES:
            raise ConfigError(f"--scheduler: '{name}' asked; {', '.join(NAMES)} are possible")
        if self.pins and name != "pinned":
            raise ConfigError(f"--pin: only the scheduler 'pinned' pins, and '{name}' was asked")
        weights = {
            vm: _numbers("--weights", text, [value])[0]
            for text in filter(None, self.weights.split(","))
            for vm, value in [_pair("--weights", text, vms)]
        }
        slice_ms = TIME_SLICE_MS if self.time_slice_ms is None else self.time_slice_ms
        if name == "gang":
            return Gang(weights=weights, time_slice_ms=slice_ms)
        if name == "pinned":
            cpus = {
                vm: _numbers("--pin", text, value.split(","))
                for text in self.pins
                for vm, value in [_pair("--pin", text, vms)]
            }
            return Pinned(cpus, weights=weights, time_slice_ms=slice_ms)
        return TimeSharing(weights=weights, time_slice_ms=slice_ms)


def _pair(option: str, text: str, vms: Collection[str]) -> tuple[str, str]:
    vm, equals, value = text.partition("=")
    if not equals or vm not in vms:
        raise ConfigError(f"{option}: '{text}' asked; VM=NUMBER of {', '.join(vms)} is possible")
    return vm, value


def _numbers(option: str, text: str, values: Sequence[str]) -> list[int]:
    if not all(value.isascii() and value.isdigit() for value in values):
        raise ConfigError(f"{option}: '{text}' asked; whole numbers are possible")
    return [int(value) for value in values]
