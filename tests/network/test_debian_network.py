"""Two Debian VMs, one of 64 and one of 32 bits, work together over the subnet."""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, TCP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader

from disco.guests.images import Image
from disco.network.frame import FRAME_BYTES_MAX

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("debian")]

#: web serves a file; db waits for it, fetches it by name, says what it is, and serves its word.
SCRIPT = """
    mkdir /www
    if [ $(hostname) = web ]; then
        cp /bin/busybox /www/file; httpd -h /www; until ping -c 1 -W 1 db > /tmp/ping; do :; done
        grep transmitted /tmp/ping
        nc -l -p 99
    else
        httpd -h /www
        until wget -q -O /tmp/file http://web/file; do sleep 0.2; done; md5sum < /tmp/file
        until echo over and out | nc web 99; do sleep 0.2; done
    fi
    ip -o addr show eth0 | grep -o 'inet [0-9./]*'; nslookup disco.disco.internal | grep 97.0.1$"""

ENGINES = [("translator", 1), ("translator", 2), ("translator", 4), ("interpreter", 2)]


def _run(disco, *words: str):
    vms = ("web=default", "db=debian-mipsel")
    return disco("run", *vms, *words, "--json", "--", "sh", "-c", SCRIPT, timeout=600)


@pytest.fixture(scope="module")
def capture(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("capture") / "net.pcapng"


@pytest.fixture(scope="module")
def run(disco, capture):
    done = _run(disco, "--capture", str(capture), "--host-threads", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def _shown(vm: dict) -> str:
    return vm["console"].partition("userland reached")[2]


def test_vms_find_each_other_by_name_and_data_arrive_whole(run, debian: Image):
    web, db = run["vms"]
    assert "1 packets transmitted, 1 packets received" in _shown(web)
    assert "over and out" in _shown(web)
    assert f"{_md5_of_busybox(debian)}  -" in _shown(db)
    for vm, address in ((web, "10.97.1.1"), (db, "10.97.1.2")):
        assert f"inet {address}/16" in _shown(vm)
        assert _shown(vm).count("10.97.0.1") >= 1
        assert vm["network"]["address"] == address
        assert vm["network"]["frames_malformed"] == 0


def _md5_of_busybox(image: Image) -> str:
    archive = image.initrd.read_bytes()
    at = archive.index(b"bin/busybox\0")
    size = int(archive[at - 110 + 54 : at - 110 + 62], 16)  # c_filesize of the newc header in front
    start = (at + len(b"bin/busybox\0") + 3) & ~3
    return hashlib.md5(archive[start : start + size]).hexdigest()


def test_a_large_transfer_is_not_cut_into_small_frames(run):
    web, _ = run["vms"]
    assert web["network"]["bytes_sent"] > 2_000_000
    assert web["network"]["bytes_sent"] / web["network"]["frames_sent"] > 10_000


def test_the_capture_shows_what_went_over_the_subnet_with_right_sums(run, capture):
    frames = [(Ether(data), about) for data, about in RawPcapNgReader(str(capture))]
    assert len(frames) >= sum(vm["network"]["frames_sent"] for vm in run["vms"])
    assert {about.ifname for _, about in frames} == {b"web", b"db", b"disco"}
    times = [about.tshigh << 32 | about.tslow for _, about in frames]
    assert times == sorted(times)
    assert times[-1] < run["time"]["seconds"] * 1e9
    assert sum(ICMP in frame for frame, _ in frames) >= 2
    assert max(len(frame) for frame, _ in frames) <= FRAME_BYTES_MAX
    segments = [frame for frame, _ in frames if TCP in frame]
    assert max(len(frame) for frame in segments) > 30_000
    for frame in segments[:20]:
        given = frame[TCP].chksum
        del frame[TCP].chksum
        assert Ether(bytes(frame))[TCP].chksum == given


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the translator makes x86-64 code")
@pytest.mark.parametrize(("engine", "threads"), ENGINES[1:])
def test_a_run_with_a_network_has_one_digest_with_any_threads_and_engine(
    run, disco, engine, threads
):
    done = _run(disco, "--network", "--engine", engine, "--host-threads", str(threads))
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["digest"] == run["digest"]


def test_a_run_that_remaps_pages_has_one_digest_and_data_arrive_whole(disco, debian: Image):
    runs = [_run(disco, "--remap-frames", "--host-threads", str(threads)) for threads in (1, 4)]
    one, other = (json.loads(done.stdout) for done in runs)
    assert one["digest"] == other["digest"]
    assert f"{_md5_of_busybox(debian)}  -" in _shown(one["vms"][1])
    assert one["vms"][1]["network"]["pages_remapped"] > 50
