"""docs/costs.md: the handlers assemble, and each is as long as the table of costs says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from disco import _engine
from disco.hardware.costs import default_costs, meanings

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "costs.md").read_text()
_, *_PARTS = re.split(r"^## (.+)\n", TEXT, flags=re.MULTILINE)
SECTIONS = dict(zip(_PARTS[::2], _PARTS[1::2], strict=True))
BLOCK = re.compile(r"^```mips\n(?:# times (\d+)\n)?(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Branches lead out of a sketch to places that it does not show.
BRANCH = re.compile(
    r"^(?:\w+:)?\s+(?:b|beq|bne|bltz|bgez)\s+(?:\w+, ){0,2}([a-z]+)\b", re.MULTILINE
)


def length(code: str) -> int:
    """Instructions of a sketch. Fields of the vCPU's record are given places; what is not shown follows."""
    shown = set(re.findall(r"^(\w+):", code, re.MULTILINE))
    fields = sorted(set(re.findall(r"\bV_\w+", code)))
    before = "".join(f".equ {field}, {8 * place}\n" for place, field in enumerate(fields))
    after = "".join(f"{target}:\n" for target in sorted(set(BRANCH.findall(code)) - shown))
    return len(_engine.assemble(before + code + after, 0xFFFF_FFFF_8000_0000)) // 4


@pytest.mark.parametrize("action", default_costs())
def test_a_handler_is_as_long_as_its_row_says(action):
    section = SECTIONS[action]
    cycles = sum(int(times or 1) * length(code) for times, code in BLOCK.findall(section))
    cycles += sum(default_costs()[row] for row in re.findall(r"\(and `(\w+)`\)", section))
    assert cycles == default_costs()[action]


def test_every_section_with_a_handler_is_a_row():
    assert {name for name, text in SECTIONS.items() if BLOCK.search(text)} == set(default_costs())


def test_a_handler_that_does_not_assemble_is_noticed():
    with pytest.raises(ValueError, match="line"):
        length("        addd t0, t1, t2\n")


def test_the_command_prints_every_row_with_its_meaning(disco):
    shown = disco("costs").stdout
    data = json.loads(disco("costs", "--json").stdout)
    assert list(data) == list(default_costs()) == list(meanings())
    for action, cycles in default_costs().items():
        assert re.search(rf"^ *{action} +{cycles:,} ", shown, re.MULTILINE)
        assert data[action]["cycles"] == cycles
        assert data[action]["meaning"].endswith(".")
