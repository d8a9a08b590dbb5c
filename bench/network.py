"""TCP between two guests: iperf3 on Disco's subnet, beside two QEMUs with a socket between them.

Both sides have the card that is best for them: virtio-net, by virtio-mmio on Disco and by PCI on QEMU's board,
each as the unmodified kernel sets it up. On QEMU frames have up to 1500 bytes, as is usual for its socket
networks; on Disco up to 15 pages of data.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from bench import qemu
from bench.debian import Debian
from bench.session import NETWORK, PREFIX, QEMU, Row, Session
from disco.guests import initramfs

_NAME = "iperf3"
_MIB = 1 << 20
_MEMORY_MIB = 256
_SERVER = "10.98.0.1"


def names() -> tuple[str, ...]:
    """The names of all rows."""
    return (_NAME,)


def sessions(debian: Debian, *, is_quick: bool, wanted: Container[str]) -> list[Session]:
    """Two guests that talk to each other, if that is wanted.

    Raises:
        ImageError: packages cannot be had.
    """
    if _NAME not in wanted:
        return []
    mib = 64 if is_quick else 512
    boots = debian.boots(
        _NAME,
        script=_script(mib),
        packages=[_NAME],
        files={"disco/network": initramfs.file(b"")},  # addresses are the script's
    )
    userland = debian.programs.userland
    for side, boot in boots.items():
        drivers = debian.image.network
        if side == QEMU:
            drivers = qemu.drivers(debian.image, cache=userland.cache, progress=userland.progress)
        path = debian.folder / f"{_NAME}-{side}.cpio"
        assert drivers is not None and boot.initrd is not None, "the image has a network"
        path.write_bytes(drivers.read_bytes() + boot.initrd.read_bytes())
        boots[side] = replace(boot, initrd=path)
    row = Row(
        name=_NAME,
        group="network",
        title=f"TCP between two VMs, {mib} MiB",
        begin=f"{PREFIX}begin {_NAME}",
        end=f"{PREFIX}end {_NAME}",
        checks=(f"{PREFIX}result {_NAME} {mib} MiB",),
        speedup_min=0.5,
        amount=mib * _MIB / 1e6,
    )
    return [
        Session(
            name=NETWORK,
            rows=(row,),
            boots=boots,
            guests=2,
            has_network=True,
            memory_mib=_MEMORY_MIB,
        )
    ]


def _script(mib: int) -> str:
    """What both guests run; the last byte of the card's address says which of the two one is.

    The server's link comes up when it listens, so a client that has an answer to its ping can begin. At the end
    some data are still on their way, which iperf3 does not wait for.
    """
    bytes_sent = r"""sed -n '/"sum_sent"/,/}/s/.*"bytes":[^0-9]*\([0-9]*\).*/\1/p' told"""
    received = bytes_sent.replace("sum_sent", "sum_received")
    return f"""
export PATH=/usr/bin:/bin
mkdir -p /tmp
cd /tmp
modprobe -a virtio_pci virtio_net 2> /dev/null
ip link set lo up
read -r address < /sys/class/net/eth0/address
me=${{address##*:0}}
ip addr add 10.98.0.$me/24 dev eth0
if [ $me = 1 ]; then
    iperf3 --server --one-off --json > told &
    until grep -q :1451 /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done
    ip link set eth0 up
    wait
    [ $({received}) -ge {mib * _MIB * 9 // 10} ] || exit
else
    ip link set eth0 up
    until ping -c 1 -W 1 {_SERVER} > /dev/null; do :; done
    echo '{PREFIX}begin {_NAME}'
    iperf3 --client {_SERVER} --bytes {mib}M --json > told
    echo '{PREFIX}end {_NAME}'
    [ $({bytes_sent}) = {mib * _MIB} ] || exit
fi
echo '{PREFIX}result {_NAME} {mib} MiB'
reboot -f
"""
