"""One TLB miss as a story: what the engine recorded, told in the order in which it happened.

The engine records steps (kind, cycle, cycles, values). A chapter is a step in words; guest instructions
that follow each other are one chapter. A kind of step that is not known here is shown as it is, so
nothing that the engine records is left out.

Source: SOSP'97, section 4.2.2; the steps are those of docs/life-of-a-tlb-miss.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from rich.text import Text

Step = Mapping[str, Any]

#: Cause.ExcCode by the manual's mnemonics.
_EXCEPTIONS = {
    1: "Mod: a store to a page without the D bit",
    2: "TLBL: a load or fetch without translation",
    3: "TLBS: a store without translation",
    4: "AdEL: a wrong address",
    5: "AdES: a wrong address",
    7: "DBE: nothing at that physical address",
    19: "TLBRI: the page must not be read",
    20: "TLBXI: the page must not be executed",
}

#: Lowest address of each segment of a 64-bit kernel, highest first. Under a 32-bit one XUSEG is USEG.
_SEGMENTS = (
    (0xFFFF_FFFF_E000_0000, "KSEG3"),
    (0xFFFF_FFFF_C000_0000, "KSEG2"),
    (0xFFFF_FFFF_A000_0000, "KSEG1"),
    (0xFFFF_FFFF_8000_0000, "KSEG0"),
    (0xC000_0000_0000_0000, "XKSEG"),
    (0x8000_0000_0000_0000, "XKPHYS"),
    (0x4000_0000_0000_0000, "XSSEG"),
    (0, "XUSEG"),
)

#: Bits that a TLB entry of KSEG0 to KSEG3 has set, and those above its 40 bits that it does not keep.
_COMPATIBILITY = 0xC000_00FF_8000_0000
_SIGN = 0x3FFF_FF00_0000_0000

_PAGE_BYTES = 4096
_PFN_SHIFT = 6
_PFN_MASK = (1 << 30) - 1
_ENTRY_LO_BITS = ((2, "D"), (1, "V"), (0, "G"), (63, "RI"), (62, "XI"))


@dataclass(frozen=True)
class Surroundings:
    """What a story needs to know besides the steps.

    Attributes:
        vm: name of the VM.
        disassemble: the text of an instruction word at an address.
        node_of_page: the node of a machine page.
        kernel_bits: 32 or 64, the width of the guest kernel's addresses.
    """

    vm: str
    disassemble: Callable[[int, int], str]
    node_of_page: Callable[[int], int]
    kernel_bits: int = 64


@dataclass(frozen=True)
class Chapter:
    """One step in words.

    Attributes:
        title: what happened.
        lines: with which values.
        cycles: what it cost.
        is_guest: whether the guest did it, not Disco.
    """

    title: str
    lines: tuple[str, ...] = field(default=())
    cycles: int = 0
    is_guest: bool = False


def chapters(steps: Sequence[Step], around: Surroundings) -> list[Chapter]:
    """The story of a miss."""
    return list(_tell(steps, around))


def _tell(steps: Sequence[Step], around: Surroundings) -> Iterator[Chapter]:
    index = 0
    while index < len(steps):
        length = 1
        if steps[index]["kind"] == "instruction":
            length = sum(1 for _ in takewhile(_is_instruction, steps[index:]))
            yield _instructions(steps[index : index + length], around)
        elif index and _is_short(steps[index : index + 3]):
            length = 3
            yield _short_miss(steps[index : index + 3], around)
        else:
            teller = _TELLERS.get(steps[index]["kind"], _unknown)
            yield teller(steps[index], around)
        index += length


def _is_instruction(step: Step) -> bool:
    return bool(step["kind"] == "instruction")


def _is_short(steps: Sequence[Step]) -> bool:
    """Whether these are a whole miss that the second-level TLB answers."""
    return [step["kind"] for step in steps] == ["miss", "l2tlb", "insert"]


def segment_of(vaddr: int, *, kernel_bits: int = 64) -> str:
    """The manual's name of the segment that a 64-bit virtual address lies in."""
    name = next(name for base, name in _SEGMENTS if vaddr >= base)
    return "USEG" if name == "XUSEG" and kernel_bits == 32 else name


def _address(vaddr: int, around: Surroundings) -> str:
    return f"{vaddr:#018x} ({segment_of(vaddr, kernel_bits=around.kernel_bits)})"


def _entry_lo(value: int) -> str:
    flags = " ".join(name for bit, name in _ENTRY_LO_BITS if value >> bit & 1)
    return f"frame {value >> _PFN_SHIFT & _PFN_MASK:#x} {flags}" if value else "not valid"


def vaddr_of_entry(vpn2: int) -> int:
    """The lowest virtual address of the pair that a TLB entry translates.

    EntryHi keeps bits 63:62 and 39:13 of an address. Under 0xC00000FF80000000 lies XKSEG; an entry from
    there on can only be of the 32-bit compatibility segments, whose addresses are sign-extended.
    """
    is_compatible = vpn2 & _COMPATIBILITY == _COMPATIBILITY
    return vpn2 | _SIGN if is_compatible else vpn2


def _entry(step: Step) -> tuple[str, ...]:
    owner = "every ASID (global)" if step["global"] else f"ASID {step['asid']}"
    even = vaddr_of_entry(step["vpn2"])
    page_bytes = step.get("page_bytes", _PAGE_BYTES)
    size = "" if page_bytes == _PAGE_BYTES else f", pages of {_size(page_bytes)}"
    return (
        f"slot {step['index']}, {owner}{size}",
        f"even page {even:#x}: {_entry_lo(step['lo0'])}",
        f"odd page  {even + page_bytes:#x}: {_entry_lo(step['lo1'])}",
    )


def _size(page_bytes: int) -> str:
    kib = page_bytes >> 10
    return f"{kib} KiB" if kib < 1 << 10 else f"{kib >> 10} MiB"


def _instruction(step: Step, around: Surroundings) -> str:
    pc = step["pc"] + 4 * step.get("in_delay_slot", False)
    return f"{pc:#018x}  {around.disassemble(step['word'], pc)}"


def _instructions(steps: Sequence[Step], around: Surroundings) -> Chapter:
    count = len(steps)
    return Chapter(
        f"The guest executes {count} instruction{'s' if count > 1 else ''}",
        tuple(_instruction(step, around) for step in steps),
        sum(step["cycles"] for step in steps),
        is_guest=True,
    )


def _miss(step: Step, around: Surroundings) -> Chapter:
    is_fetch = step["access"] == "fetch"  # then there is no instruction to show yet
    where = f"{step['pc']:#018x}" if is_fetch else _instruction(step, around)
    slot = ", in a delay slot" if step["in_delay_slot"] else ""
    return Chapter(
        f"A {step['access']} finds no usable entry in the hardware TLB: trap into Disco",
        (
            f"virtual address {_address(step['vaddr'], around)}, ASID {step['asid']}",
            f"VM '{around.vm}' in {step['mode']} mode, on CPU {step['cpu']} of node {step['node']}",
            f"instruction at {where}{slot}",
        ),
        step["cycles"],
    )


def _short_miss(steps: Sequence[Step], around: Surroundings) -> Chapter:
    """A miss on the way, of the guest's handler itself: real hardware would not have it."""
    miss, _, insert = steps
    return Chapter(
        f"On the way, a {miss['access']} misses too; the second-level TLB has the entry",
        (f"{_address(miss['vaddr'], around)} into slot {insert['index']}",),
        sum(step["cycles"] for step in steps),
    )


def _l2tlb(step: Step, _around: Surroundings) -> Chapter:
    if not step["hit"]:
        return Chapter("Second-level TLB: no entry", cycles=step["cycles"])
    return Chapter(
        "Second-level TLB: hit; the guest never learns of this miss",
        (f"even page: {_entry_lo(step['lo0'])}", f"odd page:  {_entry_lo(step['lo1'])}"),
        step["cycles"],
    )


def _virtual_tlb(step: Step, _around: Surroundings) -> Chapter:
    if not step["hit"]:
        return Chapter(
            "Virtual TLB: no entry; a real CPU would have missed here too", cycles=step["cycles"]
        )
    return Chapter(
        f"Virtual TLB: the guest has an entry, slot {step['index']}", cycles=step["cycles"]
    )


def _kernel_segment(step: Step, _around: Surroundings) -> Chapter:
    return Chapter(
        "Real hardware would not map this segment: the guest has nothing to do with it",
        (f"physical address {step['paddr']:#x} follows from the virtual one",),
        step["cycles"],
    )


def _forward(step: Step, _around: Surroundings) -> Chapter:
    code = step["code"]
    return Chapter(
        "Disco forwards the exception: sets the virtual CP0, enters the guest's handler",
        (
            f"exception {_EXCEPTIONS.get(code, f'code {code}')}",
            f"EPC {step['epc']:#018x}, handler at {step['vector']:#018x}",
        ),
        step["cycles"],
    )


def _privileged(step: Step, around: Surroundings) -> Chapter:
    return Chapter(
        "A privileged instruction traps; Disco emulates it on the virtual CP0",
        (_instruction(step, around),),
        step["cycles"],
    )


def _tlb_write(step: Step, _around: Surroundings) -> Chapter:
    how = "TLBWR" if step["random"] else "TLBWI"
    return Chapter(
        f"{how}: the guest's new entry goes into its virtual TLB (frames are physical pages)",
        _entry(step),
        step["cycles"],
    )


def _pmap(step: Step, around: Surroundings) -> Chapter:
    lines = [f"physical page {step['ppn']:#x}: {step['state']}"]
    if step["state"] in ("private", "shared"):
        permission = "writable" if step["writable"] else "read-only"
        lines.append(
            f"machine page {step['mpn']:#x} on node {around.node_of_page(step['mpn'])}, {permission}"
        )
    return Chapter("pmap: the row of the physical page", tuple(lines), step["cycles"])


def _run(step: Step, around: Surroundings) -> Chapter:
    permission = "all writable" if step["writable"] else "all read-only"
    return Chapter(
        f"pmap: {_size(step['pages'] * _PAGE_BYTES)} that the guest maps at once lie in one piece",
        (
            f"physical pages from {step['ppn']:#x} on: machine pages from {step['mpn']:#x} on, on node"
            f" {around.node_of_page(step['mpn'])}, {permission}",
        ),
        step["cycles"],
    )


def _page_fault(step: Step, _around: Surroundings) -> Chapter:
    why = "may not be written" if step["protected"] else "is absent"
    return Chapter(
        f"Page fault: physical page {step['ppn']:#x} {why}; the placement policy decides",
        ("a zeroed machine page is put into the pmap, and the instruction is retried",),
        step["cycles"],
    )


def _insert(step: Step, _around: Surroundings) -> Chapter:
    return Chapter(
        "The merged entry goes into the hardware TLB (frames are machine pages)",
        _entry(step),
        step["cycles"],
    )


def _unknown(step: Step, _around: Surroundings) -> Chapter:
    values = (
        f"{name} = {value:#x}" if type(value) is int else f"{name} = {value}"
        for name, value in step.items()
        if name not in ("kind", "cycle", "cycles")
    )
    return Chapter(step["kind"], tuple(values), step["cycles"])


_TELLERS: Mapping[str, Callable[[Step, Surroundings], Chapter]] = {
    "miss": _miss,
    "l2tlb": _l2tlb,
    "virtual tlb": _virtual_tlb,
    "kernel segment": _kernel_segment,
    "forward": _forward,
    "privileged": _privileged,
    "tlb write": _tlb_write,
    "pmap": _pmap,
    "run": _run,
    "page fault": _page_fault,
    "insert": _insert,
}


def render(story: Sequence[Chapter]) -> Text:
    """The story for a terminal: numbered steps with their cycles, the guest's in another colour."""
    text = Text()
    for number, chapter in enumerate(story, 1):
        text.append(f"{number:3}. ", "dim")
        text.append(chapter.title, "cyan" if chapter.is_guest else "bold")
        if chapter.cycles:
            text.append(f"   {chapter.cycles} cycle{'s' if chapter.cycles > 1 else ''}", "yellow")
        text.append("".join(f"\n        {line}" for line in chapter.lines) + "\n")
    guest = sum(chapter.cycles for chapter in story if chapter.is_guest)
    total = sum(chapter.cycles for chapter in story)
    text.append(f"Together {total} cycles: {total - guest} of Disco, {guest} of the guest.", "bold")
    return text


def as_data(steps: Sequence[Step], around: Surroundings) -> dict[str, Any]:
    """The same for programs: the engine's steps, with instructions disassembled."""
    return {
        "vm": around.vm,
        "cycles": sum(step["cycles"] for step in steps),
        "steps": [
            {**step, "text": around.disassemble(step["word"], step["pc"])}
            if "word" in step
            else dict(step)
            for step in steps
        ],
    }
