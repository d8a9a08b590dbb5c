"""One command in a guest: the script, and the exit status on the console."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from disco.errors import ConfigError
from disco.guests import command

NONCE = command.nonce(seed=7, vm="web")


@pytest.mark.parametrize(
    ("words", "output"),
    [
        (
            ["printf", "%s|", "a b", "", "'", '"$HOME"', "`ls`", "*", "\n"],
            'a b||\'|"$HOME"|`ls`|*|\n|',
        ),
        (["echo", "-n", "ünï"], "ünï"),
        ("echo a | tr a b; exit 0", "b\n"),  # a string is a script
    ],
)
def test_the_script_hands_over_each_word_as_it_is(
    tmp_path: Path, words: list[str] | str, output: str
) -> None:
    script = tmp_path / "command"
    script.write_bytes(command.tree(words)[command.PATH].content)
    script.chmod(0o755)
    assert subprocess.run([script], capture_output=True, check=True).stdout.decode() == output


@pytest.mark.parametrize("words", [[], "", ["a\0b"], "a\0b"])
def test_what_no_shell_can_be_given_is_refused(words: list[str] | str) -> None:
    with pytest.raises(ConfigError, match="guest command"):
        command.tree(words)


def test_files_go_along() -> None:
    tree = command.tree(["ls"], {"disco/data": b"x"})
    assert tree["disco/data"].content == b"x"


@pytest.mark.parametrize(
    ("console", "status"),
    [
        (b"", None),
        (b"disco[%s]: exit status 4", None),  # more digits may follow
        (b"no newline before disco[%s]: exit status 42\r\n", 42),
        (b"disco[%s]: exit status 0\r\n[ 1.0] reboot: System halted\r\n", 0),
        (b"disco[]: exit status 0\n", None),
        (b"disco[000000000000]: exit status 0\n", None),  # of another run
        (b"exit status 0\n", None),
        (b"disco[%s]: exit status 127\n", 127),
    ],
)
def test_only_the_marked_status_counts(console: bytes, status: int | None) -> None:
    assert command.exit_status(console.replace(b"%s", NONCE.encode()), NONCE) == status


def test_each_vm_and_each_seed_has_its_nonce() -> None:
    nonces = {command.nonce(seed=seed, vm=vm) for seed in (1, 2, 11) for vm in ("1", "a", "b")}
    assert len(nonces) == 9
