"""A run's VMs as words: what a word leaves open, and what VMs are called."""

from __future__ import annotations

import pytest

from disco.cli import vms


@pytest.mark.parametrize(
    ("words", "count", "expected"),
    [
        # Numbers of VMs without a name count all VMs, so that no two are the same.
        (["a=x", "y", "b=x", "y"], 1, [("a", "x"), ("vm2", "y"), ("b", "x"), ("vm4", "y")]),
        (["a=x", "y"], 2, [("a1", "x"), ("a2", "x"), ("vm3", "y"), ("vm4", "y")]),
        (["x"], 3, [("vm1", "x"), ("vm2", "x"), ("vm3", "x")]),
        (["x", "x"], 1, [("vm1", "x"), ("vm2", "x")]),
    ],
)
def test_vms_have_their_own_names_or_numbers(
    words: list[str], count: int, expected: list[tuple[str, str]]
) -> None:
    wishes = vms.parse(words, count=count, vcpus=1, memory_mib=128)
    assert [(wish.name, wish.image) for wish in wishes] == expected


def test_a_word_says_what_differs_from_the_options() -> None:
    words = ["x", "x,vcpus=2", "x,memory=64", "x,memory=32,vcpus=4", "x,vcpus=2,vcpus=8"]
    wishes = vms.parse(words, count=1, vcpus=3, memory_mib=128)
    found = [(wish.vcpus, wish.memory_mib) for wish in wishes]
    assert found == [(3, 128), (2, 128), (3, 64), (4, 32), (8, 128)]
