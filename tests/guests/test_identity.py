"""Who a VM is: what its first program reads."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from disco.guests import identity

NONCE = "0123456789ab"


@pytest.mark.parametrize("name", ["web", "a b", "it's", "$(reboot)", "x" * 200])
def test_a_shell_reads_from_its_file_who_a_vm_is(tmp_path: Path, name: str) -> None:
    path = tmp_path / "vm"
    path.write_bytes(identity.tree(nonce=NONCE, name=name)[identity.PATH].content)
    script = f'. {path}; printf "%s|" "$nonce" "$name"'
    output = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout
    assert output.decode() == f"{NONCE}|{name}|"


def test_files_of_names_of_any_length_have_one_size() -> None:
    contents = [
        identity.tree(nonce=NONCE, name=name)[identity.PATH].content
        for name in ("a", "a-longer-name", "it's " * 9)
    ]
    assert len({len(content) for content in contents}) == 1
