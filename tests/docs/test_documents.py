"""The documents say what is so: links lead somewhere, paths exist, commands parse, examples run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from disco import Machine
from disco.cli.app import app, spelled_out

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

#: Paths that a document names although they are not there, with the reason.
PATHS_NOT_THERE = {
    "disco/devices/rtc.py": "made in a walk of CONTRIBUTING.md",
    "tests/devices/test_rtc.py": "made in a walk of CONTRIBUTING.md",
}

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"(?:engine|disco|tests|docs|bench|guests|scripts|\.ci)/[\w./-]*")
#: "`name` in `file`"
PLACE = re.compile(r"`(?:\w+(?:::|\.))*(\w+)` in\s+`([\w./-]+\.(?:rs|py))`")
#: What a shell takes away: a comment, and where standard input comes from.
SHELL_ONLY = re.compile(r"\s{2,}#.*$|\s+<\s+\S+$")

every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def prose(document: Path) -> str:
    return BLOCK.sub("", document.read_text())


def inline_code(document: Path) -> Iterator[str]:
    for code in INLINE.findall(prose(document)):
        yield " ".join(code.split())


def blocks(document: Path, language: str) -> list[str]:
    return [text for name, text in BLOCK.findall(document.read_text()) if name == language]


def commands(document: Path, program: str) -> list[str]:
    """The command lines that start with `program`: those in shell blocks, and those in the text."""
    lines = [line for text in blocks(document, "sh") for line in text.splitlines()]
    lines += [
        line[2:] for text in blocks(document, "") for line in text.splitlines() if line[:2] == "$ "
    ]
    lines += inline_code(document)
    bare = (SHELL_ONLY.sub("", line).strip() for line in lines)
    return [line for line in bare if line.startswith(program + " ")]


def anchor(heading: str) -> str:
    """What a heading is called in a link."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(document: Path) -> set[str]:
    return {anchor(line.lstrip("#")) for line in prose(document).splitlines() if line[:1] == "#"}


def test_there_are_documents():
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "architecture.md"} <= {
        path.name for path in DOCUMENTS
    }


@every_document
def test_every_link_leads_somewhere(document):
    for target in LINK.findall(prose(document)):
        if target.startswith("https://"):
            continue
        name, _, heading = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        assert not heading or heading in anchors(path), target


@every_document
def test_every_path_exists(document):
    for code in inline_code(document):
        if PATH.fullmatch(code) and code not in PATHS_NOT_THERE:
            assert (ROOT / code).exists(), code


@every_document
def test_what_is_said_to_be_in_a_file_is_in_it(document):
    for name, file in PLACE.findall(prose(document)):
        if (ROOT / file).exists():
            assert re.search(rf"\b{name}\b", (ROOT / file).read_text()), f"{name} in {file}"


@every_document
def test_every_command_of_ours_parses(document):
    for line in commands(document, "disco"):
        words = shlex.split(line)[1:]
        parse(words[: words.index("--")] if "--" in words else words, line)


def parse(words: list[str], line: str) -> None:
    """Parses as `disco` would, without running anything."""
    command = get_command(app)
    while hasattr(command, "commands"):  # a group
        if not words or words[0] == "--help":
            return  # it shows its help
        assert words[0] in command.commands, line
        command, words = command.commands[words[0]], words[1:]
    if "--help" not in words:
        context = command.make_context(line, spelled_out(words), obj=[])
        assert context.args == [], line


@every_document
def test_every_make_target_exists(document):
    makefile = (ROOT / "Makefile").read_text()
    for line in commands(document, "make"):
        target = line.split()[1]
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), line


@every_document
def test_every_machine_in_the_text_can_be_built(document):
    for code in inline_code(document):
        if code.startswith("Machine(") and '"name"' not in code:
            assert isinstance(eval(code, {"Machine": Machine}), Machine), code


def test_the_cycles_of_each_story_add_up():
    stories = [
        text for text in blocks(ROOT / "docs/life-of-a-tlb-miss.md", "") if "Together" in text
    ]
    assert len(stories) == 4
    for story in stories:
        steps = [int(cycles) for cycles in re.findall(r" {3}(\d+) cycles?$", story, re.MULTILINE)]
        (together,) = re.findall(r"^Together (\d+) cycles", story, re.MULTILINE)
        assert sum(steps) == int(together)


@pytest.mark.slow
@pytest.mark.usefixtures("debian")
def test_the_example_of_the_readme_runs_as_written():
    example, _ = blocks(ROOT / "README.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [["web", "0"], ["db", "0"]]
    for line in lines:
        even, odd = (int(count) for count in re.findall(r"\((\d+), (\d+)\)", line)[0])
        assert even > 0 and abs(even - odd) < 50, line  # half of the pages on each node


@pytest.mark.slow
@pytest.mark.usefixtures("debian")
def test_the_device_of_the_how_to_page_runs_as_written_and_says_what_the_page_says():
    page = ROOT / "docs/how-to/add-a-device.md"
    (example,) = blocks(page, "python")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    for line in "".join(blocks(page, "")).splitlines():
        assert line in done.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("debian")
def test_the_policy_of_the_scheduling_page_runs_as_written():
    (example,) = blocks(ROOT / "docs/scheduling.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", example], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    lines = [re.findall(r"\w+", line) for line in done.stdout.splitlines()]
    # Name, exit status, CPU, pages on node 0 and 1, moves.
    assert [line[:3] for line in lines] == [["web", "0", "0"], ["db", "0", "1"], ["mail", "0", "0"]]
    assert [line[-1] for line in lines] == ["0", "0", "0"]
    assert [int(line[3]) > 0 for line in lines] == [True, False, True]
