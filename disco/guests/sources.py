"""Sources: where Debian's packages come from, taken from what the machine's own apt uses.

The machine may run another release of Debian than the guest, and may have sources that are not
Debian's. So only the addresses are taken, of entries that offer the component `main` of a suite
that Debian has, and entries of our own are written for the guest's release. Each names Debian's
archive keyring as the only one whose signature counts: apt itself drops a source that only looked
like Debian's.

Source: sources.list(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from disco.errors import ImageError

_CODENAMES = "buster|bullseye|bookworm|trixie|forky|duke|sid"
_CLASSES = "oldoldstable|oldstable|stable|testing|unstable"
_SUITE = re.compile(rf"(?:{_CODENAMES}|{_CLASSES})(|-updates|-security|/updates)")
_ONE_LINE = re.compile(
    r"deb\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)"
)

_KEYRINGS = tuple(
    Path("/usr/share/keyrings") / f"debian-archive-keyring.{suffix}" for suffix in ("gpg", "pgp")
)


@dataclass(frozen=True, order=True)
class Source:
    """One suite at one address, such as ("<mirror>/debian", "bookworm-updates")."""

    uri: str
    suite: str


def of_machine(etc: Path, *, release: str) -> tuple[Source, ...]:
    """Debian's sources among those of the apt configured in `etc`, turned to `release`.

    Raises:
        ImageError: there is none.
    """
    found = {
        Source(uri, release + match[1].replace("/updates", "-security"))
        for uri, suite in _entries(etc)
        if (match := _SUITE.fullmatch(suite))
    }
    if not found:
        raise ImageError(
            f"Debian packages: no source of Debian's in {etc}; name a mirror of Debian {release}"
        )
    return tuple(sorted(found))


def of_mirror(uri: str, *, release: str) -> tuple[Source, ...]:
    """The sources of a mirror that the user names."""
    return (Source(uri, release),)


def listing(sources: Iterable[Source]) -> str:
    """The sources as text for apt, believed only with Debian's signature.

    Raises:
        ImageError: Debian's archive keyring is not on this machine.
    """
    keyring = next((path for path in _KEYRINGS if path.exists()), None)
    if keyring is None:
        raise ImageError(
            f"Debian packages: cannot be verified without {_KEYRINGS[0]};"
            " the package debian-archive-keyring brings it"
        )
    return "\n".join(
        f"Types: deb\nURIs: {source.uri}\nSuites: {source.suite}\nComponents: main\n"
        f"Signed-By: {keyring}\n"
        for source in sources
    )


def _entries(etc: Path) -> Iterator[tuple[str, str]]:
    """Address and suite of each entry that offers binary packages of `main`."""
    parts = etc / "sources.list.d"
    for path in (etc / "sources.list", *sorted(parts.glob("*.list"))):
        if path.is_file():
            yield from _one_line_entries(path.read_text(errors="replace"))
    for path in sorted(parts.glob("*.sources")):
        yield from _stanza_entries(path.read_text(errors="replace"))


def _one_line_entries(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        match = _ONE_LINE.fullmatch(line.split("#")[0].strip())
        if match and "main" in match["components"].split():
            yield match["uri"], match["suite"]


def _stanza_entries(text: str) -> Iterator[tuple[str, str]]:
    uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", uncommented):
        unfolded = re.sub(r"\n[ \t]+", " ", stanza)
        fields = {
            name.strip().lower(): value.split()
            for name, colon, value in (line.partition(":") for line in unfolded.splitlines())
            if colon
        }
        if (
            "deb" in fields.get("types", ())
            and "main" in fields.get("components", ())
            and fields.get("enabled", ["yes"])[:1] not in (["no"], ["false"], ["0"])
        ):
            for uri in fields.get("uris", ()):
                for suite in fields.get("suites", ()):
                    yield uri, suite
