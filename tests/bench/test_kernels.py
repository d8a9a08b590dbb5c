"""Our small kernels: their results are what the host works out, with Disco and by a naive model."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import debian, kernels
from bench.session import DISCO
from disco import Machine, Monitor, Status, _engine

needs_engine = pytest.mark.skipif(
    not hasattr(_engine, "assemble") or _engine.__version__ == "fake",
    reason="the engine is not built",
)


def test_xorshift_by_squaring_is_xorshift_step_by_step() -> None:
    state = 1
    for steps in range(100):
        assert kernels.xorshift(steps) == state
        state ^= (state << 13) & (1 << 64) - 1
        state ^= state >> 7
        state ^= (state << 17) & (1 << 64) - 1


def test_the_chase_comes_through_every_line_before_it_comes_back() -> None:
    lines = {kernels.chase(0)}
    line = 0
    for _ in range((1 << 20) - 1):
        line = (660_741 * line + 362_437) % (1 << 20)
        lines.add(0x0400_0000 + 64 * line)
    assert len(lines) == 1 << 20
    assert kernels.chase((1 << 20) + 3) == kernels.chase(3)


def test_the_series_adds_in_order() -> None:
    total = 0.0
    for k in range(1, 1001):
        total += 1.0 / (float(k) * k + k)
    assert kernels.series(1000) == struct.unpack("<Q", struct.pack("<d", total))[0]


def test_no_two_rows_have_one_name() -> None:
    names = (*kernels.names(), *debian.names())
    assert len(set(names)) == len(names)


@needs_engine
@pytest.mark.parametrize(
    ("name", "steps", "result"),
    [
        ("loop", 1000, kernels.xorshift),
        ("float", 1000, kernels.series),
        ("chase", 1000, kernels.chase),
        ("syscall", 1000, int),
    ],
)
def test_a_kernel_ends_with_what_the_host_works_out(
    name: str, steps: int, result: Callable[[int], int], tmp_path: Path
) -> None:
    kernel = kernels.Kernel(name=name, title=name, steps=steps, result=result)
    path = tmp_path / name
    path.write_bytes(kernels.build(kernel, kernels.BOARDS[DISCO]))
    with Monitor(Machine(nodes=1, cpus=1, memory_mib_per_node=160)) as monitor:
        vm = monitor.create_vm(name, kernel=path, memory_mib=kernels.MEMORY_MIB)
        vm.boot()
        monitor.run()
    assert vm.status is Status.RESET
    assert vm.console.text == f"bench: begin {name}\nbench: end {name} {result(steps):016x}\n"


@needs_engine
def test_misses_of_the_chase_are_forwarded_to_the_kernels_own_handler(tmp_path: Path) -> None:
    kernel = kernels.Kernel(name="chase", title="", steps=20_000, result=kernels.chase)
    path = tmp_path / "chase"
    path.write_bytes(kernels.build(kernel, kernels.BOARDS[DISCO]))
    with Monitor(Machine(nodes=1, cpus=1, memory_mib_per_node=160, l2tlb_entries=0)) as monitor:
        vm = monitor.create_vm("chase", kernel=path, memory_mib=kernels.MEMORY_MIB)
        vm.boot()
        monitor.run()
    # Building the cycle takes one miss a pair of pages, each step of the chase nearly always one.
    assert vm.usage.counters["tlb_forwarded"] > 20_000 * 0.98
