"""The machine's description: what cannot be is refused with what could."""

from __future__ import annotations

import pytest

from disco import ConfigError, Machine, Monitor, flash, uniform


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"nodes": 0}, "0 nodes asked; 1 to 64 are possible"),
        ({"cpus": 129}, "129 CPUs asked; 1 to 128 are possible"),
        ({"memory_mib_per_node": 0}, "0 MiB of memory a node asked"),
        ({"clock_mhz": 0}, "0 MHz of clock asked"),
        ({"tlb_entries": 65}, "65 TLB entries asked; 8 to 64 are possible"),
        ({"quantum_cycles": 1}, "1 cycles of quantum asked"),
        (
            {"l2tlb_entries": 1},
            "1 second-level TLB entries asked; 0 \\(off\\) or a power of two from 4",
        ),
        ({"l2tlb_entries": 2}, "a power of two from 4"),
        ({"l2tlb_entries": 1000}, "a power of two"),
        ({"l2tlb_entries": 1 << 21}, "a power of two from 4 to 1048576"),
        ({"l2tlb_entries": -4}, "a power of two"),
        ({"host_threads": 0}, "0 host threads asked; 1 to 256 are possible"),
        ({"seed": -1}, "-1 seed asked"),
        ({"costs": {"teleport": 1}}, "'teleport': no such action"),
        ({"costs": {"trap": -1}}, "'trap': -1 cycles asked"),
    ],
)
def test_a_machine_that_cannot_be_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        Machine(**options)


@pytest.mark.parametrize(
    "machine",
    [
        Machine(cpus=128),
        Machine(nodes=64, memory_mib_per_node=1),
        Machine(tlb_entries=8, l2tlb_entries=4, quantum_cycles=2000, host_threads=256),
        Machine(l2tlb_entries=0),
    ],
)
def test_the_engine_takes_what_the_description_allows(machine):
    with Monitor(machine) as monitor:
        assert monitor.now == 0


def test_host_threads_are_no_part_of_what_a_machine_is():
    assert Machine(host_threads=1) == Machine(host_threads=2)
    assert 1 <= Machine().host_threads <= 256


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
