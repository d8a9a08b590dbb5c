"""`disco image`: what guests are booted from."""

from __future__ import annotations

import json
import sys

from disco.cli.terminal import say
from disco.guests import images


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


def build(name: str, *, offline: bool, refresh: bool, mirror: str | None) -> None:
    """Makes it, or finds it made."""
    image = images.build(name, offline=offline, refresh=refresh, mirror=mirror, progress=say)
    _print(f"{image.name} {image.key}")


def show(name: str) -> None:
    """Its record."""
    _print(json.dumps(images.manifest(name), indent=2))


def remove(name: str, *, packages: bool) -> None:
    """Takes it out of the cache."""
    images.remove(name, packages=packages)
    say(f"image {images.find_recipe(name).name} removed")
