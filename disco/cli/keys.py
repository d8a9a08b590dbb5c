"""The keys with which `disco ssh` reaches VMs: one pair of this user's, and a host key for each name of a VM.

    <config>/disco/ssh/user                     this user's key, for all VMs
    <config>/disco/ssh/hosts/<vm>               the host key of VMs of that name
    <config>/disco/ssh/hosts/<vm>.known_hosts   what a client has to know of it

They are made once, by the host's ssh-keygen. A VM gets its own when it starts, over its initramfs, and keeps
them in memory: neither the image nor the VM's disk has them. So a client knows the key of each VM beforehand,
and no two VMs of an image have one key.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from disco.errors import ConfigError

PACKAGE = "openssh-client"
#: Where a root's first program looks, without a leading slash.
_IN_GUEST = "disco/ssh"


def program(name: str) -> str:
    """The path of one of the host's ssh programs.

    Raises:
        ConfigError: it is not there.
    """
    found = shutil.which(name)
    if found is None:
        raise ConfigError(f"{name} is not on this host; 'apt-get install {PACKAGE}' installs it")
    return found


def files(vm: str) -> Mapping[str, bytes]:
    """What to lay over the initramfs of a VM so that this user can log in to it.

    Raises:
        ConfigError: keys can neither be read nor made.
    """
    host, user = host_key(vm), user_key()
    return {
        f"{_IN_GUEST}/authorized_keys": user.with_suffix(".pub").read_bytes(),
        f"{_IN_GUEST}/host_key": host.read_bytes(),
        f"{_IN_GUEST}/host_key.pub": host.with_suffix(".pub").read_bytes(),
    }


def user_key() -> Path:
    """This user's private key; the public one is beside it, with `.pub`.

    Raises:
        ConfigError: it can neither be read nor made.
    """
    return _key(_folder() / "user", "disco")


def host_key(vm: str) -> Path:
    """The private host key of VMs of that name; see `known_hosts`.

    Raises:
        ConfigError: it can neither be read nor made.
    """
    return _key(_folder() / "hosts" / vm, vm)


def known_hosts(vm: str) -> Path:
    """A file that says to ssh which key the host `vm` has.

    Raises:
        ConfigError: it cannot be written.
    """
    kind, key, *_ = host_key(vm).with_suffix(".pub").read_text().split()
    path = _folder() / "hosts" / f"{vm}.known_hosts"
    line = f"{vm} {kind} {key}\n"
    if not path.exists() or path.read_text() != line:
        path.write_text(line)
    return path


def _folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME", "")
    parent = Path(base) if os.path.isabs(base) else Path.home() / ".config"
    folder = parent / "disco" / "ssh"
    try:
        (folder / "hosts").mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise ConfigError(f"keys: {folder} cannot be made: {error.strerror}") from error
    return folder


def _key(path: Path, comment: str) -> Path:
    """A pair of keys at `path`, whole or not at all."""
    if path.exists() and path.with_suffix(".pub").exists():
        return path
    maker = program("ssh-keygen")
    with (path.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists() and path.with_suffix(".pub").exists():
            return path
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
            made = Path(folder) / "key"
            words = ["-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(made)]
            done = subprocess.run([maker, *words], capture_output=True, text=True, check=False)
            if done.returncode:
                raise ConfigError(f"keys: ssh-keygen: {done.stderr.strip() or done.returncode}")
            made.with_suffix(".pub").rename(path.with_suffix(".pub"))
            made.rename(path)
    return path
