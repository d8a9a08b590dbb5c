"""Who a VM is: its name, the nonce that marks its exit status, and random numbers of its own.

An image's /init is told by files that are laid over the initramfs, and not on the kernel command line or
in the device tree: from these Linux takes random numbers, which order its slabs. So kernels of VMs that
are alike boot alike, and their pages are equal, until /init reads who it is. Then the nonce goes into the
kernel's entropy pool, and `reseed` has it take new random numbers from there, which it would do by itself
only a second later.

Source: Linux, drivers/char/random.c and arch/mips/kernel/syscalls/syscall_o32.tbl.
"""

from __future__ import annotations

import shlex
from functools import cache

from disco._engine import assemble
from disco.guests import initramfs
from disco.guests.executable import O32

#: Read by /init, which is a shell.
PATH = "disco/vm"
#: Bytes of that file, for every VM: what lies behind it in memory is in the same place.
_SIZE = 128
_BASE = 0x40_0000

_RESEED = """
        .equ    EXIT, 4001
        .equ    OPEN, 4005
        .equ    IOCTL, 4054
        .equ    RNDRESEEDCRNG, 0x20005207

        li      a0, DEVICE
        li      a1, 0                           # O_RDONLY
        li      v0, OPEN
        syscall
        bnez    a3, end
        move    a0, v0
        li      a1, RNDRESEEDCRNG
        li      v0, IOCTL
        syscall
end:    move    a0, a3
        li      v0, EXIT
        syscall
"""


def tree(*, nonce: str, name: str) -> initramfs.Tree:
    """What to lay over an image's initramfs for the VM of that name."""
    text = f"nonce={nonce}\nname={shlex.quote(name)}\n"
    return {
        PATH: initramfs.file(text.encode().ljust(_SIZE, b"\n")),
        "disco/reseed": initramfs.program(_reseed()),
    }


@cache
def _reseed() -> bytes:
    """A program for Linux: its exit status is 0 when the kernel has taken new random numbers."""
    device = b"/dev/urandom".ljust(16, b"\0")
    place = _BASE + O32.code_offset
    entry = place + len(device)
    code = assemble(f".equ DEVICE, {place}\n{_RESEED}", entry)
    return O32.executable(device + code, base=_BASE, entry=entry)
