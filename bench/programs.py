"""Our own programs for guests and for the host: programs/*.c and *.S, and how they are built.

C for guests is compiled by Debian's own gcc for the guest's architecture, in a VM of Disco, so no cross
compiler is needed. That is done once for a source and a compiler; the programs stay in the cache. The same
C, compiled by the host's compiler, tells what a guest has to print.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import sides
from bench.session import DISCO, PREFIX, BenchError, Boot, Session
from bench.sources import source_of
from bench.userland import Userland
from disco._engine import assemble
from disco.guests import command, initramfs
from disco.guests.executable import N64
from disco.guests.images import Image

FOLDER = Path(__file__).absolute().parent / "programs"
#: What compiles C in a guest.
COMPILER = ("gcc", "libc6-dev")
#: What its programs need.
LIBRARIES = ("libc6",)
#: For both compilers: -ffp-contract=off because a fused multiply-add rounds once where C says twice.
FLAGS = ("-O2", "-ffp-contract=off")
#: Where static programs in assembly are linked to.
_BASE = 0x1_2000_0000
#: Characters a line: what the guest's shell can take.
_LINE = 3000
MEMORY_MIB = 1024


@dataclass
class Programs:
    """Builds programs of C, for guests in `folder` by way of a VM, and for the host."""

    userland: Userland
    image: Image
    folder: Path
    _on_host: dict[str, Path] = field(default_factory=dict)

    def for_guests(self, names: Sequence[str]) -> Mapping[str, bytes]:
        """The programs as the guest runs them.

        Raises:
            BenchError: a source cannot be compiled.
            ImageError: no compiler can be had.
        """
        paths = {name: self.userland.folder / f"{name}-{self._key(name)}" for name in names}
        missing = [name for name, path in paths.items() if not path.exists()]
        if missing:
            self.userland.progress(f"compiling {', '.join(missing)} with Debian's gcc in a VM")
            for name, content in self._compile(missing).items():
                self.userland.keep(paths[name].name, content)
        return {name: path.read_bytes() for name, path in paths.items()}

    def on_host(self, name: str, *words: object) -> str:
        """What a program prints when the host runs it.

        Raises:
            BenchError: it cannot be compiled.
        """
        if name not in self._on_host:
            self._on_host[name] = compile_on_host(
                FOLDER / f"{name}.c", self.folder / f"host-{name}"
            )
        return output_of([str(self._on_host[name]), *map(str, words)])

    def _key(self, name: str) -> str:
        packages = (package.sha256 for package in self.userland.packages(COMPILER))
        parts = [(FOLDER / f"{name}.c").read_text(), *FLAGS, *packages]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def _compile(self, names: Sequence[str]) -> dict[str, bytes]:
        files = {
            f"bench/{name}.c": initramfs.file((FOLDER / f"{name}.c").read_bytes()) for name in names
        }
        flags = " ".join(FLAGS)
        script = "export PATH=/usr/bin:/bin\n" + "".join(
            f"gcc {flags} -s -o /tmp/{name} /bench/{name}.c -lm"
            f" && base64 -w {_LINE} /tmp/{name} | sed 's/^/{PREFIX}program {name} /'\n"
            for name in names
        )
        path = self.folder / "compile.cpio"
        path.write_bytes(
            self.userland.over(
                self.image, COMPILER, {**files, **command.tree(script + "reboot -f\n")}
            )
        )
        boot = Boot(kernel=self.image.kernel, initrd=path, append=self.image.command_line)
        session = Session(name="compile", rows=(), boots={DISCO: boot}, memory_mib=MEMORY_MIB)
        said: list[str] = []
        run = sides.run(session, DISCO, said.append)
        path.unlink()
        programs = {}
        for name in names:
            begin = f"{PREFIX}program {name} "
            lines = [m.text.removeprefix(begin) for m in run.marks if m.text.startswith(begin)]
            if not lines:
                raise BenchError(f"{name}.c cannot be compiled in a VM:\n" + "\n".join(said[-12:]))
            programs[name] = base64.b64decode("".join(lines))
        return programs


def assembled(name: str, symbols: Mapping[str, int]) -> bytes:
    """One of guests/*.S that is a program for Linux, with these symbols."""
    entry = _BASE + N64.code_offset
    return N64.executable(assemble(source_of(f"{name}.S", symbols), entry), base=_BASE, entry=entry)


def compile_on_host(source: Path, target: Path, flags: Sequence[str] = FLAGS) -> Path:
    """Compiles C for the host.

    Raises:
        BenchError: its compiler refuses it.
    """
    output_of(["cc", *flags, "-w", "-o", str(target), str(source), "-lm"])
    return target


def output_of(words: Sequence[str], given: str = "") -> str:
    """What a program of the host prints, without the last line's end.

    Raises:
        BenchError: it is not there, or ends with an error.
    """
    try:
        done = subprocess.run(words, input=given, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise BenchError(f"{words[0]} is not on this machine") from None
    except subprocess.CalledProcessError as error:
        raise BenchError(f"{' '.join(words)}: status {error.returncode}: {error.stderr}") from None
    return done.stdout.rstrip("\n")
