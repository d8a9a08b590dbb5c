"""What each action of the monitor costs, in simulated cycles.

The names and defaults are the engine's: it does the work and charges for it; where the defaults come from is in
docs/costs.md. A caller changes single
rows and keeps the rest, so that an experiment reads as its difference: `Machine(costs={"shootdown": 400})`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from disco import _engine
from disco.errors import ConfigError

#: Largest cost of one action: a simulated second of a fast clock.
COST_CYCLES_MAX = 1_000_000_000


def default_costs() -> dict[str, int]:
    """Cycles by action, as the engine charges them if nobody says otherwise. A copy."""
    return dict(_engine.default_costs)


def meanings() -> dict[str, str]:
    """What each action is, in a sentence, by action."""
    return dict(_engine.cost_meanings)


def complete(changes: Mapping[str, int]) -> Mapping[str, int]:
    """The default table with `changes` in it, read-only.

    Raises:
        ConfigError: an action that does not exist, or a cost that is no number of cycles.
    """
    table = default_costs()
    for action, cycles in changes.items():
        if action not in table:
            raise ConfigError(
                f"cost of '{action}': no such action; {', '.join(sorted(table))} are possible"
            )
        if not 0 <= cycles <= COST_CYCLES_MAX:
            raise ConfigError(
                f"cost of '{action}': {cycles} cycles asked; 0 to {COST_CYCLES_MAX} are possible"
            )
        table[action] = cycles
    return MappingProxyType(table)
