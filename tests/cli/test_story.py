"""A followed miss in words, from a record made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from disco.observe.follow import Surroundings, as_data, chapters, render, segment_of

AROUND = Surroundings(
    vm="web", disassemble=lambda word, pc: f"insn {word:#x}", node_of_page=lambda page: page >> 8
)


def step(kind: str, cycles: int = 0, **values: Any) -> dict[str, Any]:
    return {"kind": kind, "cycle": 0, "cycles": cycles, **values}


def miss(vaddr: int, access: str = "load") -> dict[str, Any]:
    return step(
        "miss",
        24,
        vaddr=vaddr,
        access=access,
        pc=0x1000,
        in_delay_slot=False,
        word=7,
        asid=3,
        mode="user",
        cpu=1,
        node=1,
    )


def insert(**values: Any) -> dict[str, Any]:
    entry = {"index": 5, "vpn2": 0x2000, "asid": 3, "lo0": 0x87, "lo1": 0} | values
    return step("insert", **{"global": False}, **entry)


def test_a_miss_of_the_handler_itself_is_one_chapter():
    steps = [miss(0x2000), step("l2tlb", 8, hit=False)]
    steps += [miss(0x9800_0000_0000_1000), step("l2tlb", 14, hit=True, lo0=6, lo1=0), insert()]
    story = chapters(steps, AROUND)
    assert len(story) == 3
    assert story[2].title == "On the way, a load misses too; the second-level TLB has the entry"
    assert "XKPHYS" in story[2].lines[0]


def test_guest_instructions_in_a_row_are_one_chapter_and_their_cycles_the_guests():
    steps = [step("instruction", 1, pc=4 * n, word=n) for n in range(3)]
    text = render(chapters([miss(0x2000), *steps], AROUND)).plain
    assert "The guest executes 3 instructions   3 cycles" in text
    assert text.endswith("Together 27 cycles: 24 of Disco, 3 of the guest.")


def test_a_page_is_told_with_its_machine_page_and_node():
    row = step("pmap", ppn=0x42, state="private", mpn=0x2FF, writable=True)
    (chapter,) = chapters([row], AROUND)
    assert chapter.lines == (
        "physical page 0x42: private",
        "machine page 0x2ff on node 2, writable",
    )


def test_entry_lo_is_shown_by_the_manuals_letters():
    (chapter,) = chapters([insert()], AROUND)
    assert chapter.lines[1:] == ("even page 0x2000: frame 0x2 D V G", "odd page  0x3000: not valid")


@pytest.mark.parametrize(
    ("vpn2", "shown"),
    [
        (0xC000_00FF_8000_0000, 0xFFFF_FFFF_8000_0000),  # KSEG0
        (0xC000_00FF_FFFF_E000, 0xFFFF_FFFF_FFFF_E000),  # the last pair of KSEG3
        (0xC000_00FF_7FFF_E000, 0xC000_00FF_7FFF_E000),  # the last pair of XKSEG
        (0x8000_00FF_8000_0000, 0x8000_00FF_8000_0000),  # XKPHYS
        (0x0000_00FF_8000_0000, 0x0000_00FF_8000_0000),  # XUSEG
    ],
)
def test_an_entry_shows_the_address_that_the_guest_uses(vpn2, shown):
    (chapter,) = chapters([insert(vpn2=vpn2)], AROUND)
    assert chapter.lines[1].startswith(f"even page {shown:#x}: ")


def test_a_step_that_is_not_known_is_shown_as_it_is():
    (chapter,) = chapters([step("comet", 9, tail=16)], AROUND)
    assert (chapter.title, chapter.lines, chapter.cycles) == ("comet", ("tail = 0x10",), 9)


def test_segments_have_the_manuals_names():
    addresses = (0, 0x9800_0000_0000_0000, 0xC000_0000_0000_0000, 2**64 - 2**31, 2**64 - 1)
    names = ["XUSEG", "XKPHYS", "XKSEG", "KSEG0", "KSEG3"]
    assert [segment_of(vaddr) for vaddr in addresses] == names
    names[0] = "USEG"
    assert [segment_of(vaddr, kernel_bits=32) for vaddr in addresses] == names


def test_data_has_every_step_with_its_instruction_in_words():
    data = as_data([miss(0x2000), step("l2tlb", 8, hit=False)], AROUND)
    assert data["cycles"] == 32
    assert data["steps"][0]["text"] == "insn 0x7"
    assert data["steps"][1] == step("l2tlb", 8, hit=False)
