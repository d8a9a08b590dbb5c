"""The machine, described: nodes, CPUs, memory, TLB, clock and what the monitor's work costs.

A `Machine` is a value: it says what to simulate and simulates nothing. `disco.monitor` builds the
engine from it. May import `disco.errors` and the engine's table of default costs.
"""

from disco.hardware.machine import Machine
from disco.hardware.presets import flash, uniform

__all__ = ["Machine", "flash", "uniform"]
