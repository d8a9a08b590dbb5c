"""`disco ssh` and `disco cp`: what they say when there is no way in, their keys, and a whole login."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from disco import images
from disco.cli import keys
from disco.cli import ssh as command
from disco.errors import ConfigError

needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs openssh-client")


@pytest.fixture(autouse=True)
def _folders(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def running(tmp_path) -> Path:
    """A VM that runs, by its console's socket."""
    folder = tmp_path / "disco" / "1"
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    (folder / "web.console").touch()
    return folder


@needs_ssh
def test_a_vm_that_does_not_run_is_named_with_those_that_do(running):
    with pytest.raises(ConfigError, match="VM 'db': not running; possible: 1/web"):
        command.ssh("db", (), user="root")


@needs_ssh
def test_a_vm_that_was_started_without_ssh_is_said_to_be(running):
    with pytest.raises(ConfigError, match="VM 'web': runs without ssh; 'disco run --ssh'"):
        command.ssh("web", (), user="root")


@needs_ssh
def test_a_vm_whose_process_takes_no_connections_has_no_server(running, monkeypatch):
    (running / "web.tcp").touch()
    monkeypatch.setattr(command, "WAIT_SECONDS", -1.0)
    with pytest.raises(ConfigError, match="VM 'web': no ssh server answers at port 22"):
        command.ssh("web", (), user="root")


def test_a_host_without_ssh_is_told_which_package_has_it(running, monkeypatch):
    monkeypatch.setattr(keys.shutil, "which", lambda _name: None)
    for start in (
        lambda: command.ssh("web", (), user="root"),
        lambda: command.copy(["a"], "web:", user="root", is_recursive=False),
        keys.user_key,
    ):
        with pytest.raises(ConfigError, match="'apt-get install openssh-client'"):
            start()


@needs_ssh
@pytest.mark.parametrize(
    ("sources", "target"),
    [
        (["a"], "b"),
        (["web:a"], "web:b"),
        (["web:a"], "db:b"),
        (["web:a", "c"], "b"),
        (["web:a", "db:a"], "b"),
        (["./web:a"], "b"),  # a file of this host
    ],
)
def test_a_copy_has_one_side_in_one_vm(running, sources, target):
    with pytest.raises(ConfigError, match=r"VM:PATH to this host,\s+is possible"):
        command.copy(sources, target, user="root", is_recursive=False)


@needs_ssh
def test_keys_are_made_once_each_vm_has_its_own_and_only_its_user_reads_them():
    files = keys.files("web")
    assert keys.files("web") == files
    other = keys.files("db")
    assert other["disco/ssh/authorized_keys"] == files["disco/ssh/authorized_keys"]
    assert other["disco/ssh/host_key"] != files["disco/ssh/host_key"]
    kind, key, _ = files["disco/ssh/host_key.pub"].decode().split()
    assert keys.known_hosts("web").read_text() == f"web {kind} {key}\n"
    for path in (keys.user_key(), keys.host_key("web")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys.user_key().parent.stat().st_mode) == 0o700
    assert not list(keys.user_key().parent.glob(".new-*"))


def _disco(*words: str, **more) -> subprocess.CompletedProcess:
    words = (sys.executable, "-m", "disco.cli", *words)
    return subprocess.run(words, capture_output=True, timeout=240, check=False, **more)


@pytest.mark.slow
@pytest.mark.skipif(
    "DISCO_TEST_ROOTS" not in os.environ, reason="asked for with DISCO_TEST_ROOTS=1"
)
@needs_ssh
def test_files_and_commands_go_into_two_vms_of_a_root_and_back(tmp_path):
    images.load("debian")
    words = ["run", "web=debian", "db=debian", "--memory", "160", "--ssh"]
    with subprocess.Popen(
        [sys.executable, "-m", "disco.cli", *words], stdin=subprocess.DEVNULL
    ) as run:
        try:
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob("disco/*/db.tcp")) and time.monotonic() < deadline:
                time.sleep(0.1)
            there = tmp_path / "file"
            there.write_bytes(bytes(range(256)) * 1000)
            on_disk = set()
            for vm in ("web", "db"):
                assert _disco("cp", str(there), f"{vm}:here").returncode == 0
                told = _disco("ssh", vm, "--", "hostname; md5sum < here; exit 3")
                assert (told.returncode, told.stderr) == (3, b"")
                assert told.stdout.startswith(vm.encode())
                told = _disco("ssh", vm, "--", "cat /etc/ssh/ssh_host_*_key.pub")
                assert told.stdout.startswith(b"ssh-ed25519 ")
                on_disk.add(told.stdout)
                assert _disco("cp", f"{vm}:here", str(tmp_path / vm)).returncode == 0
                assert (tmp_path / vm).read_bytes() == there.read_bytes()
            assert len(on_disk) == 2  # no two VMs of a root have one host key
        finally:
            run.terminate()
