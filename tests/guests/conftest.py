"""Fixtures: a cache of the test's own, and an apt that serves an archive made by hand."""

from __future__ import annotations

from pathlib import Path

import fake_debian
import pytest
from fake_debian import FakeDebian

from disco.guests import apt
from disco.guests.cache import Cache


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDebian:
    """The archive; its apt comes first on the PATH, and its sources are the machine's."""
    fake = fake_debian.make(tmp_path)
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "sources.list").write_text("deb http://mirror.example/debian bookworm main\n")
    monkeypatch.setenv("PATH", f"{fake.programs}:/usr/bin:/bin")
    monkeypatch.setattr(apt, "ETC", etc)
    return fake
