"""The workload: the host's answers against those of the host's own tools."""

from __future__ import annotations

import gzip
import hashlib
import subprocess
from pathlib import Path

import pytest

from disco.guests import deflate, workload


@pytest.mark.parametrize("seed", [0, 1, 2**63, -1])
def test_real_tools_print_what_is_expected(tmp_path: Path, seed: int) -> None:
    made = workload.make(seed)
    for path, content in made.files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(content)
    (tmp_path / "tmp").mkdir()
    script = made.command.replace(" /disco/", f" {tmp_path}/disco/")
    script = script.replace("cd /tmp", f"cd {tmp_path}/tmp")
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    shown = subprocess.run(
        ["sh", "-c", script], capture_output=True, check=True, env=environment
    ).stdout
    assert shown.decode().splitlines() == made.expected
    assert made.missing(shown.replace(b"\n", b"\r\n")) == []


def test_another_seed_gives_other_answers() -> None:
    assert not set(workload.make(1).expected[:-1]) & set(workload.make(2).expected)


def test_a_wrong_line_is_missing() -> None:
    made = workload.make(1)
    console = "\n".join(made.expected).replace("words 12000", "words 11999").encode()
    assert made.missing(console) == ["workload: words 12000"]


def test_the_same_seed_gives_the_same_bytes_on_every_host() -> None:
    # The bytes decide the guest's instruction count: a change here changes every digest of a run.
    archive = workload.make(7).files["disco/workload.tar.gz"]
    assert (
        hashlib.sha256(archive).hexdigest()
        == "e9501c656480750afd11889b6e9bd00c1c77eddc5a9abf5b217eb3a4e23c63b3"
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a",
        bytes(range(256)) * 3,  # literals of eight and of nine bits
        b"ab " * 40_000,
        b"far" + b"." * 32_765 + b"far far",  # a match at the largest distance
        b"far" + b"." * 32_766 + b"far far",  # and one too far
        b"".join(b"x" * size + b" " for size in range(1, 300)) * 2,  # every length of a match
    ],
)
def test_zlib_reads_what_our_deflate_writes(data: bytes) -> None:
    assert gzip.decompress(deflate.gzip(data)) == data


def test_text_gets_smaller() -> None:
    assert len(deflate.gzip(b"the same words again and again " * 1000)) < 31_000 // 2
