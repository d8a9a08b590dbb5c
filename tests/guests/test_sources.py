"""Which of a machine's sources of packages are Debian's, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from disco.errors import ImageError
from disco.guests import sources
from disco.guests.sources import Source

HERE = "http://mirror.example/debian"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        # A machine with another release than the guest's: same address, the guest's suites.
        ("sources.list", f"deb {HERE} trixie-updates main\n", [(HERE, "bookworm-updates")]),
        ("sources.list", f"deb {HERE} stable main\n", [(HERE, "bookworm")]),
        ("sources.list", f"deb {HERE} buster/updates main\n", [(HERE, "bookworm-security")]),
        (
            "sources.list",
            f"deb [arch=amd64 signed-by=/k.gpg] {HERE} bookworm contrib main # words\n",
            [(HERE, "bookworm")],
        ),
        ("sources.list.d/a.list", f"deb {HERE} bookworm main\n", [(HERE, "bookworm")]),
        (
            "sources.list.d/a.sources",
            f"# words\nTypes: deb deb-src\nURIs: {HERE}\n  {HERE}2\nSuites: bookworm\n"
            "# more words\nComponents: main non-free\n",
            [(HERE, "bookworm"), (f"{HERE}2", "bookworm")],
        ),
        (
            "sources.list.d/a.sources",
            f"Types: deb-src\nURIs: {HERE}\nSuites: bookworm\nComponents: main\n\n \n"
            f"types: deb\nuris: {HERE}3\nsuites: sid\ncomponents: main\n",
            [(f"{HERE}3", "bookworm")],
        ),
    ],
)
def test_debians_sources_are_turned_to_the_guests_release(
    tmp_path: Path, name: str, text: str, expected: list[tuple[str, str]]
) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text)
    found = sources.of_machine(tmp_path, release="bookworm")
    assert found == tuple(Source(uri, suite) for uri, suite in expected)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list", ""),
        ("sources.list", f"# deb {HERE} bookworm main\n"),
        ("sources.list", f"deb-src {HERE} bookworm main\n"),
        ("sources.list", f"deb {HERE} bookworm contrib\n"),
        ("sources.list", f"deb {HERE} bookworm-backports main\n"),  # newer than the release
        ("sources.list", "deb http://tool.example/apt ./\n"),  # flat, no suite
        ("sources.list", "deb http://tool.example/apt nodistro main\n"),
        ("sources.list", "deb http://ubuntu.example noble main\n"),
        ("sources.list.d/a.list.disabled", f"deb {HERE} bookworm main\n"),
        (
            "sources.list.d/a.sources",
            f"Enabled: no\nTypes: deb\nURIs: {HERE}\nSuites: bookworm\nComponents: main\n",
        ),
    ],
)
def test_other_sources_are_left_alone(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / name).write_text(text)
    with pytest.raises(ImageError, match=r"no source of Debian's in .*; name a mirror"):
        sources.of_machine(tmp_path, release="bookworm")


def test_only_debians_signature_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    keyring = tmp_path / "keyring.gpg"
    monkeypatch.setattr(sources, "_KEYRINGS", (keyring,))
    with pytest.raises(ImageError, match=r"cannot be verified without .*keyring\.gpg"):
        sources.listing([Source(HERE, "bookworm")])
    keyring.touch()
    assert f"Signed-By: {keyring}" in sources.listing([Source(HERE, "bookworm")])
