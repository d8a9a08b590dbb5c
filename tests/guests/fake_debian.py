"""A Debian archive and an apt for tests: packages written by hand, and three shell scripts.

The scripts do what the real programs do as far as Disco asks, and misbehave on demand, by files in
the folder that they serve: `down` (no source answers), `slow` (a download takes for ever).
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import struct
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

KERNEL_RELEASE = "6.1.0-1-test"
#: The flavour of the kernel for each architecture.
FLAVOURS = {"mips64el": "mips64r2el", "mipsel": "mips32r2el"}
APPLETS = ("[", "[[", "busybox", "cttyhack", "modprobe", "mount", "poweroff", "setsid", "sh")

_APT_GET = """#!/bin/sh
state=${APT_CONFIG%/*}
case $1 in
    update)
        [ -e ARCHIVE/down ] && { echo 'E: Could not resolve the mirror' >&2; exit 100; }
        : > "$state/lists/test_Packages" ;;
    indextargets) ls "$state"/lists/*_Packages 2> /dev/null || true ;;
    download)
        shift 2
        for name; do
            echo "$name" >> ARCHIVE/downloads
            [ -e ARCHIVE/slow ] && exec sleep 60
            cp "ARCHIVE/${name%%=*}_ARCHITECTURE.deb" . || exit 100
        done ;;
    install) # --simulate --quiet --no-install-recommends NAME...
        shift 4
        names= planned=
        for name; do
            [ "$name" = '?essential' ] && name=$(cat ARCHIVE/essential)
            names="$names $name"
        done
        for name in $names; do
            control="ARCHIVE/${name}_ARCHITECTURE.control"
            [ -e "$control" ] || { echo "E: Unable to locate package $name" >&2; exit 100; }
            for needed in $(sed -n 's/^Depends: //p' "$control" | tr -d ,) $name; do
                case " $planned " in *" $needed "*) continue ;; esac
                planned="$planned $needed"
                echo "Inst $needed (1:2.0-1 Debian:12/stable [ARCHITECTURE]) []"
            done
        done
        for name in $planned; do
            echo "Conf $name (1:2.0-1 Debian:12/stable [ARCHITECTURE])"
        done ;;
esac
"""
_APT_CACHE = """#!/bin/sh
shift 2
found=
for name; do
    cat "ARCHIVE/${name%%=*}_ARCHITECTURE.control" 2> /dev/null && found=1 && echo
done
[ -n "$found" ] && exit 0
echo 'E: No packages found' >&2
exit 100
"""
#: In the scripts, what apt takes for the native architecture.
_ARCHITECTURE = """$(sed -n 's/^APT::Architecture "\\(.*\\)";/\\1/p' "$APT_CONFIG")"""
_APT_CONFIG = """#!/bin/sh
echo 'Acquire::http::Proxy "http://proxy.example:3128";'
echo 'Acquire::Languages "de";'
echo 'APT::Update::Post-Invoke:: "rm -rf /";'
"""


@dataclass(frozen=True)
class FakeDebian:
    """The archive in `folder` and the programs in `programs`, which belong on the PATH."""

    folder: Path
    programs: Path

    def path(self, name: str, suffix: str, *, architecture: str = "mips64el") -> Path:
        """A package's file: `deb`, or `control`, its paragraph in the index."""
        return self.folder / f"{name}_{architecture}.{suffix}"

    def add(
        self,
        name: str,
        files: Mapping[str, bytes],
        *,
        depends: str = "",
        architecture: str = "mips64el",
    ) -> None:
        """Puts a package into the archive."""
        content = deb(files)
        self.path(name, "deb", architecture=architecture).write_bytes(content)
        self.path(name, "control", architecture=architecture).write_text(
            f"Package: {name}\nVersion: 1:2.0-1\nArchitecture: {architecture}\nDepends: {depends}\n"
            f"Size: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
            "Description: one line\n and another\n\nPackage: older\nVersion: 0\n"
        )

    def misbehave(self, how: str) -> None:
        """From now on; `how` as in the head of this file."""
        (self.folder / how).touch()

    def behave(self, how: str) -> None:
        """No longer."""
        (self.folder / how).unlink()

    def downloads(self) -> list[str]:
        """What was downloaded so far."""
        log = self.folder / "downloads"
        return log.read_text().splitlines() if log.exists() else []


def make(folder: Path) -> FakeDebian:
    """An archive with the packages that our recipes ask for."""
    fake = FakeDebian(folder / "archive", folder / "programs")
    fake.folder.mkdir()
    fake.programs.mkdir()
    for name, text in (
        ("apt-get", _APT_GET),
        ("apt-cache", _APT_CACHE),
        ("apt-config", _APT_CONFIG),
    ):
        text = text.replace("ARCHITECTURE", _ARCHITECTURE).replace("ARCHIVE", str(fake.folder))
        (fake.programs / name).write_text(text)
        (fake.programs / name).chmod(0o755)
    for architecture, flavour in FLAVOURS.items():
        kernel = f"linux-image-{KERNEL_RELEASE}"
        packages = (
            (f"linux-image-{flavour}", {}, f"{kernel} (= 1:2.0-1)"),
            (kernel, kernel_files(), "kmod, linux-base (>= 4.3~), initramfs-tools | dracut"),
            ("busybox-static", {"bin/busybox": busybox(architecture)}, ""),
        )
        for name, files, depends in packages:
            fake.add(name, files, depends=depends, architecture=architecture)
    return fake


def busybox(architecture: str = "mips64el") -> bytes:
    """Something with the table of names that a busybox has."""
    code = f"\x7fELF {architecture}\0\0".encode()
    return code + b"".join(name.encode() + b"\0" for name in APPLETS) + b"\0data"


def module(name: str, *, needs: str = "", alias: str = "") -> bytes:
    """Something with the `.modinfo` that a kernel module has."""
    rows = [f"depends={needs}", f"name={name}", *([f"alias={alias}"] if alias else [])]
    return b"\x7fELF\0" + b"".join(row.encode() + b"\0" for row in rows)


def kernel_files() -> dict[str, bytes]:
    """The files of a kernel package, with modules in a chain and one that nobody needs."""
    base = f"lib/modules/{KERNEL_RELEASE}"
    drivers = f"{base}/kernel/drivers"
    return {
        f"boot/vmlinuz-{KERNEL_RELEASE}": b"\x7fELF kernel",
        f"boot/config-{KERNEL_RELEASE}": b"CONFIG_MIPS=y\n",
        f"{base}/modules.builtin": b"kernel/drivers/char/hw_random/rng-core.ko\n",
        f"{drivers}/virtio/virtio.ko": module("virtio"),
        f"{drivers}/virtio/virtio_ring.ko": module("virtio_ring"),
        f"{drivers}/virtio/virtio_mmio.ko": module("virtio_mmio", needs="virtio,virtio_ring"),
        f"{drivers}/virtio/virtio_balloon.ko": module("virtio_balloon", needs="virtio"),
        f"{drivers}/block/virtio_blk.ko": module(
            "virtio_blk", needs="virtio,virtio_ring", alias="virtio:d00000002v*"
        ),
        f"{drivers}/net/virtio_net.ko": module(
            "virtio_net", needs="virtio,net_failover", alias="virtio:d00000001v*"
        ),
        f"{drivers}/net/net_failover.ko": module("net_failover"),
        f"{drivers}/9p/9p.ko": module("9p", needs="9pnet", alias="fs-9p"),
        f"{drivers}/9p/9pnet.ko": module("9pnet"),
        f"{drivers}/9p/9pnet_virtio.ko": module("9pnet_virtio", needs="9pnet,virtio"),
        f"{drivers}/char/virtio_console.ko": module("virtio_console", needs="virtio"),
        f"{drivers}/char/hw_random/virtio-rng.ko": module("virtio_rng", needs="rng-core,virtio"),
        f"{base}/kernel/fs/ext4/ext4.ko": module("ext4", needs="jbd2,mbcache", alias="fs-ext4"),
        f"{base}/kernel/fs/jbd2/jbd2.ko": module("jbd2"),
        f"{base}/kernel/fs/mbcache.ko": module("mbcache"),
        f"{base}/kernel/crypto/crc32c_generic.ko": module("crc32c_generic"),
        f"{base}/kernel/net/unused.ko": module("unused"),
    }


def deb(files: Mapping[str, bytes], *, compression: str = "xz") -> bytes:
    """A package file."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(f"./{path}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",  # of odd size, so that a byte of padding follows
        f"data.tar.{compression}".rstrip("."): _COMPRESS[compression](data.getvalue()),
    }
    return b"!<arch>\n" + b"".join(_ar_member(name, content) for name, content in members.items())


_COMPRESS: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "xz": lzma.compress,
    "gz": gzip.compress,
    "bz2": bz2.compress,
}


def _ar_member(name: str, content: bytes) -> bytes:
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
    return header + content + b"\n" * (len(content) % 2)


@dataclass(frozen=True, kw_only=True)
class ElfPart:
    """One program header for `elf`, with what it loads."""

    vaddr: int
    data: bytes
    size: int
    kind: int = 1


def elf(
    parts: list[ElfPart],
    *,
    entry: int,
    bits: int = 64,
    order: str = "<",
    kind: int = 2,
    machine: int = 8,
) -> bytes:
    """An ELF file: header, program headers, contents."""
    word = "Q" if bits == 64 else "I"
    header_size, row_size = (64, 56) if bits == 64 else (52, 32)
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    header = ident + struct.pack(
        f"{order}HHI{word}{word}{word}IHHHHHH",
        *(kind, machine, 1, entry, header_size, 0, 0, header_size, row_size, len(parts), 0, 0, 0),
    )
    offset = header_size + row_size * len(parts)
    rows, contents = b"", b""
    for part in parts:
        vaddr = part.vaddr % (1 << bits)
        place = (offset + len(contents), vaddr, vaddr, len(part.data), part.size)
        if bits == 64:
            rows += struct.pack(f"{order}II6Q", part.kind, 7, *place, 4096)
        else:
            rows += struct.pack(f"{order}8I", part.kind, *place, 7, 4096)
        contents += part.data
    return header + rows + contents
