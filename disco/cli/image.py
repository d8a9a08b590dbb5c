"""`disco image`: what guests are booted from."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from disco import images
from disco.cli.terminal import say


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def show_list(*, as_json: bool) -> None:
    """All images that can be built."""
    offers = images.available()
    if as_json:
        rows = [
            {
                "name": offer.name,
                "aliases": offer.aliases,
                "description": offer.description,
                "is_built": offer.is_built,
            }
            for offer in offers
        ]
        _print(json.dumps(rows))
        return
    for offer in offers:
        state = "built" if offer.is_built else "not built"
        names = " or ".join((offer.name, *offer.aliases))
        _print(f"{names}: {offer.description} ({state})")


def build(
    name: str,
    *,
    packages: Sequence[str],
    architecture: str,
    disk_mib: int | None,
    offline: bool,
    refresh: bool,
    mirror: str | None,
) -> None:
    """Makes it, or finds it made."""
    try:
        image = images.build(
            name,
            packages=packages or None,
            architecture=architecture,
            disk_mib=disk_mib,
            offline=offline,
            refresh=refresh,
            mirror=mirror,
            progress=say,
        )
    except KeyboardInterrupt:
        say(f"image {name}: interrupted; 'disco image build {name}' goes on from here")
        raise
    _print(f"{image.name} {image.key}")


def show(name: str) -> None:
    """Its record."""
    _print(json.dumps(images.manifest(name), indent=2))


def remove(name: str, *, packages: bool) -> None:
    """Takes it out of the cache."""
    kept_name = images.canonical_name(name)
    images.remove(name, packages=packages)
    say(f"image {kept_name} removed")


def export(name: str, target: Path) -> None:
    """Writes its files into a new folder."""
    images.export(name, target)
    say(f"image {name} written to {target}")
