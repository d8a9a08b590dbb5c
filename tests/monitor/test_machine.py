"""The machine's description: what cannot be is refused with what could."""

from __future__ import annotations

import pytest

from disco import ConfigError, Machine, flash, uniform


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nodes": 0}, "0 nodes asked; 1 to 256 are possible"),
        ({"cpus": 257}, "257 CPUs asked; 1 to 256 are possible"),
        ({"memory_mib_per_node": 0}, "0 MiB of memory a node asked"),
        ({"clock_mhz": 0}, "0 MHz of clock asked"),
        ({"tlb_entries": 65}, "65 TLB entries asked; 8 to 64 are possible"),
        ({"quantum_cycles": 1}, "1 cycles of quantum asked"),
        ({"l2tlb_entries": 1000}, "a power of two"),
        ({"seed": -1}, "-1 seed asked"),
        ({"costs": {"teleport": 1}}, "'teleport': no such action"),
        ({"costs": {"trap": -1}}, "'trap': -1 cycles asked"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        Machine(**options)


def test_costs_left_out_keep_their_default_and_none_can_be_changed_later():
    machine = Machine(costs={"shootdown": 1})
    assert machine.costs["shootdown"] == 1
    assert machine.costs["trap"] == Machine().costs["trap"] > 0
    with pytest.raises(TypeError):
        machine.costs["trap"] = 0


def test_neighbouring_cpus_are_on_different_nodes():
    assert Machine(nodes=3, cpus=7).node_of_cpu == (0, 1, 2, 0, 1, 2, 0)


def test_nodes_are_near_along_the_ring():
    machine = Machine(nodes=5)
    assert machine.nodes_by_distance(0) == (0, 1, 4, 2, 3)
    assert machine.nodes_by_distance(3) == (3, 2, 4, 0, 1)


def test_presets_have_the_papers_memory():
    assert flash().memory_bytes == uniform().memory_bytes == 256 << 20
    assert (flash().nodes, uniform().nodes) == (8, 1)
