"""Captures, as scapy reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapNgReader

from disco.errors import ConfigError
from disco.network import packets
from disco.network.frame import Frame, Offload
from disco.network.subnet import Subnet

CLOCK_HZ = 200_000_000


def subnet(warnings: list[str]) -> Subnet:
    return Subnet(clock_hz=CLOCK_HZ, now=lambda: 0, warn=warnings.append)


def test_each_frame_is_there_with_its_simulated_time_and_who_sent_it(tmp_path):
    net = subnet([])
    web, db = (net.join(name, lambda _frame: None) for name in ("web", "db"))
    sent = [
        (db, Frame(web.link + db.link + b"\x08\x00" + bytes(47)), 3),
        (web, Frame(b"\xff" * 6 + web.link + b"\x12\x34odd"), 7 * CLOCK_HZ + 1),
        (db, Frame(web.link + db.link + bytes(60_000)), 2**40),
    ]
    path = tmp_path / "net.pcapng"
    with net.capture(path):
        for member, frame, cycle in sent:
            net.send(member, frame, cycle=cycle)
        net.deliver(now=2**41)
    read = list(RawPcapNgReader(str(path)))
    assert [data for data, _ in read] == [frame.data for _, frame, _ in sent]
    for (_, about), (member, _, cycle) in zip(read, sent, strict=True):
        assert about.tsresol == 10**9
        assert (about.tshigh << 32 | about.tslow) == cycle * 10**9 // CLOCK_HZ
        assert about.ifname == member.name.encode()
    assert read[0][1].linktype == 1


def test_checksums_that_were_left_to_do_are_right_in_the_file(tmp_path):
    net = subnet([])
    web = net.join("web", lambda _frame: None)
    whole = bytes(Ether(src=web.link.hex(":"), dst="02:00:00:00:00:09") / IP() / UDP() / b"data")
    pseudo = packets.pseudo_header(whole[14:34], packets.PROTOCOL_UDP, len(whole) - 34)
    field = (0xFFFF - packets.checksum(pseudo)).to_bytes(2, "big")
    with net.capture(tmp_path / "net.pcapng"):
        net.send(web, Frame(whole[:40] + field + whole[42:], Offload(True, 34, 6)), cycle=0)
        net.deliver(now=1)
    ((data, _),) = RawPcapNgReader(str(tmp_path / "net.pcapng"))
    assert data == whole


def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"no/such/folder.*: cannot be written: No such file"):
        subnet([]).capture(tmp_path / "no/such/folder")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_host_without_room_ends_the_capture_and_nothing_else():
    warnings: list[str] = []
    net = subnet(warnings)
    got: list[Frame] = []
    web = net.join("web", lambda _frame: None)
    net.join("db", got.append)
    net.capture(Path("/dev/full"))
    for cycle in range(3):
        net.send(web, Frame(b"\xff" * 6 + web.link + bytes(60_000)), cycle=cycle)
    net.deliver(now=10)
    assert len(got) == 3
    assert len(warnings) == 1
    assert "No space left on device; the run goes on without it" in warnings[0]
