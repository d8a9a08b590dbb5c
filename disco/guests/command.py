"""One command in a guest: how it gets in, and how its exit status gets out.

In: a small archive laid over the image's initramfs, with the command as a script in the file
`/disco/command`. The image itself stays as it is, so it is made once and shared by all.

Out: the image's /init prints the exit status on the console behind a word, the nonce (`identity.py`). It
follows from the run's seed and the VM's name, so that a program that happens to print the words "exit
status" is not taken for the end, and the run can be repeated. A guest that wants to lie about its own
status can; it only fools whoever started it.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence

from disco.errors import ConfigError
from disco.guests import initramfs

#: First line of the image's userland.
USERLAND_REACHED = b"disco: userland reached"

PATH = "disco/command"


def tree(command: Sequence[str] | str, files: Mapping[str, bytes] | None = None) -> initramfs.Tree:
    """What to append to an initramfs so that its /init runs `command`.

    Args:
        command: words of one command, each handed over as it is; or one string, a shell script.
        files: further files by path without a leading slash.

    Raises:
        ConfigError: no shell can be given that command.
    """
    script = command if isinstance(command, str) else f"exec {shlex.join(command)}"
    if not command or "\0" in script:
        raise ConfigError(
            f"guest command {command!r}: one word or more, none with a zero byte, is possible"
        )
    laid = {path: initramfs.file(content) for path, content in (files or {}).items()}
    return laid | {PATH: initramfs.program(b"#!/bin/sh\n" + script.encode() + b"\n")}


def nonce(*, seed: int, vm: str) -> str:
    """The word that marks the exit status on the console of this VM in this run."""
    text = f"{seed} {vm}".encode()
    return hashlib.blake2b(text, digest_size=6, person=b"disco nonce").hexdigest()


def exit_status(console: bytes, nonce: str) -> int | None:
    """The exit status that the console shows, or None while the command runs.

    Not bound to the start of a line: the command's own output need not end one.
    """
    found = re.search(rb"disco\[%s\]: exit status (\d+)\r?\n" % nonce.encode(), console)
    return int(found[1]) if found else None
