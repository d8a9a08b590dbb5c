"""Machines with a name.

Source: SOSP'97, section 5.3 and figure 8: eight processors and 256 MB, once as ccNUMA (FLASH), once
with one memory that is equally far from every processor.
"""

from __future__ import annotations

from disco.hardware.machine import Machine

_CPUS = 8
_MEMORY_MIB = 256


def flash(*, cpus: int = _CPUS, memory_mib: int = _MEMORY_MIB, seed: int = 0) -> Machine:
    """The paper's machine: a CPU and an equal share of `memory_mib` on each node."""
    return Machine(nodes=cpus, cpus=cpus, memory_mib_per_node=memory_mib // cpus, seed=seed)


def uniform(*, cpus: int = _CPUS, memory_mib: int = _MEMORY_MIB, seed: int = 0) -> Machine:
    """The paper's machine for comparison: all CPUs on one node with all memory."""
    return Machine(nodes=1, cpus=cpus, memory_mib_per_node=memory_mib, seed=seed)
