"""The building of a root: plan, package disk, and a VM in which Debian's own dpkg does the rest.

    <folder>/plan.json      packages in apt's order, and what dpkg is to do with them
    <folder>/packages.raw   the package disk, while it is needed
    <folder>/disk.raw       the root
    <folder>/log            what the VM printed
    <folder>/done           that the root is finished, and the time of its newest file

A build that is cut off, by Ctrl-C, SIGKILL or a failure, leaves its folder; the next one goes on from there:
with the same packages, and with the steps that `build.sh` has not done. dpkg flushes its database after each
package, the guest's file system keeps its journal, and what the guest flushes is flushed to the host's disk.

What runs in the VM is in `build.sh`; nothing of the guest's runs on the host.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

from disco.errors import ImageError
from disco.guests import apt, deb, initramfs
from disco.guests import recipe as kernels
from disco.guests.apt import Package, Plan
from disco.guests.cache import Cache, Progress
from disco.guests.images import Image
from disco.hardware import Machine
from disco.monitor import Monitor, VirtualMachine
from disco.roots import recipe
from disco.roots.packing import PackageDisk, archive
from disco.roots.recipe import RootRecipe
from disco.storage.disk import DiskError, RawDisk

#: How much one call of dpkg unpacks; the guest holds the packages of a call in memory.
_BATCH_BYTES = 64 << 20
_MEMORY_MIB = 384
_PROGRESS_SECONDS = 2.0
_LOG_LINES_SHOWN = 30
_DPKG = re.compile(rb"^(Unpacking|Setting up) ([^ :]+)")
_WORDS = {b"Unpacking": "unpacking", b"Setting up": "configuring"}
_FAILED = re.compile(r"disco-build: failed: (.*)")


@dataclass(frozen=True)
class Construction:
    """A root under construction.

    Attributes:
        recipe: what it is to be.
        base: the image whose kernel it boots, and in whose VM it is configured.
        plan: the packages and apt's order for them.
        essential: names of the packages that dpkg itself needs to run.
        folder: where it is built.
    """

    recipe: RootRecipe
    base: Image
    plan: Plan
    essential: tuple[str, ...]
    folder: Path

    @property
    def disk(self) -> Path:
        """The root's disk."""
        return self.folder / "disk.raw"

    @property
    def kernel_package(self) -> Package:
        """The package of the kernel, which the root's modules come from."""
        return next(one for one in self.base.packages if one.name.startswith("linux-image-"))

    @property
    def packages(self) -> tuple[Package, ...]:
        """All that the root is made of."""
        return (self.kernel_package, *self.plan.packages)


def save(build: Construction) -> None:
    """Writes the plan down, so that a build that is cut off can go on with it."""
    data = {
        "recipe": recipe.key_of(build.recipe),
        "kernel": build.kernel_package.sha256,
        "packages": [asdict(package) for package in build.plan.packages],
        "steps": build.plan.steps,
        "essential": build.essential,
    }
    part = build.folder / "plan.part"
    part.write_text(json.dumps(data))
    part.rename(build.folder / "plan.json")


def unfinished(chosen: RootRecipe, base: Image, folder: Path) -> Construction | None:
    """The build in the folder, if it is one of this recipe and kernel."""
    try:
        data = json.loads((folder / "plan.json").read_text())
        packages = tuple(
            Package(**{**one, "depends": tuple(one["depends"])}) for one in data["packages"]
        )
        steps = tuple((kind, tuple(names)) for kind, names in data["steps"])
        found = Construction(chosen, base, Plan(packages, steps), tuple(data["essential"]), folder)
        is_same = (
            data["recipe"] == recipe.key_of(chosen)
            and data["kernel"] == found.kernel_package.sha256
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if is_same else None


def construct(build: Construction, *, cache: Cache, progress: Progress) -> int:
    """Makes the root's disk out of packages that are in the cache; returns the time its clock starts at.

    Raises:
        ImageError: a package is damaged, a maintainer script failed, or the host's disk is full.
        KeyboardInterrupt: Ctrl-C; the next call goes on.
    """
    done = build.folder / "done"
    if done.exists():
        return int(done.read_text())
    packages = PackageDisk(build.folder / "packages.raw")
    packages.path.unlink(missing_ok=True)
    _pack(build, packages, cache, progress)
    if not build.disk.exists():
        with build.disk.open("wb") as file:
            file.truncate(build.recipe.disk_mib << 20)
    files = {
        "disco/build": _script("build.sh"),
        "disco/finish": _script("finish.sh"),
        "disco/index": packages.index,
        "disco/settings": _settings(build, packages.epoch),
        "disco/steps": "".join(f"{line}\n" for line in _steps(build, packages.sizes)).encode(),
    }
    _run(build, packages, files, progress)
    packages.path.unlink()
    done.write_text(f"{packages.epoch}\n")
    return packages.epoch


def _script(name: str) -> bytes:
    return resources.files(__package__).joinpath(name).read_bytes()


def _pack(build: Construction, target: PackageDisk, cache: Cache, progress: Progress) -> None:
    progress(f"image {build.recipe.name}: unpacking {len(build.plan.packages)} packages")
    as_files = {*build.essential, *recipe.FILESYSTEM_TOOLS}
    for package in build.plan.packages:
        path = cache.package(package.sha256)
        apt.check_hash(path, package)
        target.add_package(package.name, path, with_files=package.name in as_files)
    path = cache.package(build.kernel_package.sha256)
    with deb.unpacked(path, kernels.kernel_file_wanted, folder=cache.folder) as files:
        tables = {name: files[name] for name in files if _is_module_table(name)}
        modules = kernels.modules(files, build.recipe.modules)
    target.add("modules.tar", archive(modules, tables))


def _is_module_table(path: str) -> bool:
    return Path(path).name in ("modules.order", "modules.builtin", "modules.builtin.modinfo")


def _settings(build: Construction, epoch: int) -> bytes:
    lines = {
        "epoch": str(epoch),
        "uuid": recipe.uuid_of(build.recipe),
        "name": build.recipe.name,
        "filesystem_tools": f"'{' '.join(recipe.FILESYSTEM_TOOLS)}'",
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items()).encode()


def _steps(build: Construction, sizes: Mapping[str, int]) -> list[str]:
    """What `build.sh` is to do: apt's steps, but for the essential packages, which are installed at once."""
    essential = set(build.essential)
    steps = [f"base {' '.join(build.essential)}"]
    for kind, names in build.plan.steps:
        rest = [name for name in names if name not in essential]
        batches = _batches(rest, sizes) if kind == "unpack" else [rest]
        steps += [f"{kind} {' '.join(batch)}" for batch in batches if batch]
    release = build.kernel_package.name.removeprefix("linux-image-")
    return [*steps, f"modules modules {release}", "finish"]


def _batches(names: Sequence[str], sizes: Mapping[str, int]) -> list[list[str]]:
    """The names in order, as many together as a call of dpkg may have."""
    batches: list[list[str]] = [[]]
    size = 0
    for name in names:
        if size + sizes[f"{name}.deb"] > _BATCH_BYTES and batches[-1]:
            batches.append([])
            size = 0
        batches[-1].append(name)
        size += sizes[f"{name}.deb"]
    return batches


class _ToldDisk(RawDisk):
    """A disk that remembers what the host refused, which the guest only sees as an I/O error."""

    error: DiskError | None = None

    def write(self, sector: int, data: bytes) -> None:
        try:
            super().write(sector, data)
        except DiskError as error:
            self.error = error
            raise


class _Watch:
    """Follows a building VM: writes its log, and tells how far dpkg is."""

    def __init__(self, build: Construction, progress: Progress) -> None:
        self.lines: list[str] = []
        self._log = (build.folder / "log").open("ab", buffering=0)
        self._progress = progress
        self._name = build.recipe.name
        self._total = len(build.plan.packages)
        self._seen: dict[str, set[bytes]] = {word: set() for word in _WORDS.values()}
        self._partial = b""
        self._next = 0.0

    def take(self, data: bytes) -> None:
        """What the VM prints."""
        self._log.write(data)
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._take_line(line.rstrip(b"\r"))

    def _take_line(self, line: bytes) -> None:
        self.lines.append(line.decode(errors="replace"))
        found = _DPKG.match(line)
        if found is None:
            if line.startswith(b"disco-build: ") and b"failed" not in line:
                self._progress(f"image {self._name}: {line[13:].decode(errors='replace')}")
            return
        word = _WORDS[found[1]]
        self._seen[word].add(found[2])
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PROGRESS_SECONDS
            count = len(self._seen[word])
            self._progress(
                f"image {self._name}: {word} {count} of {self._total}: {found[2].decode()}"
            )

    def close(self) -> None:
        """Ends the log."""
        self._log.close()


def _run(
    build: Construction, packages: PackageDisk, files: dict[str, bytes], progress: Progress
) -> None:
    largest = max(size for name, size in packages.sizes.items() if name.endswith(".deb"))
    memory_mib = _MEMORY_MIB + (2 * max(_BATCH_BYTES, largest) >> 20)
    machine = Machine(nodes=1, cpus=1, memory_mib_per_node=memory_mib + memory_mib // 64 + 8)
    watch = _Watch(build, progress)
    try:
        with (
            _ToldDisk(build.disk) as disk,
            RawDisk(packages.path, read_only=True) as source,
            Monitor(machine, warn=progress) as monitor,
        ):
            vm = monitor.create_vm(
                "build",
                image=build.base,
                command=["sh", "/disco/build"],
                files=files,
                append="quiet",
                memory_mib=memory_mib,
                disks=[disk, source],
            )
            vm.console.listeners.append(watch.take)
            vm.boot()
            monitor.run()
            disk.flush()
            _check(build, vm, disk.error, watch.lines)
    finally:
        watch.close()


def _check(
    build: Construction, vm: VirtualMachine, refused: DiskError | None, lines: Sequence[str]
) -> None:
    """Raises ImageError unless the VM did all steps."""
    if vm.exit_status == 0 and refused is None:
        return
    name, log = build.recipe.name, build.folder / "log"
    again = f"the log is {log}; 'disco image build {name}' goes on from here"
    if refused is not None:
        raise ImageError(f"image {name}: {refused}; {again}")
    if vm.error is not None or vm.exit_status is None:
        raise ImageError(f"image {name}: its VM ended: {vm.error or vm.status}; {again}")
    failed = [found[1] for line in lines if (found := _FAILED.match(line))]
    shown = "\n".join(f"    {line}" for line in _tail(lines))
    step = failed[-1] if failed else f"exit status {vm.exit_status}"
    raise ImageError(f"image {name}: {step[:200]}; its last words:\n{shown}\n{again}")


def _tail(lines: Sequence[str]) -> list[str]:
    """The last lines of the work, without those that tell of its end."""
    end = next((i for i, line in enumerate(lines) if _FAILED.match(line)), len(lines))
    return list(lines[max(0, end - _LOG_LINES_SHOWN) : end])


def initrd(base: Image, epoch: int) -> bytes:
    """What mounts a root and hands over to its init: the base image's initramfs with another /init."""
    tree = {
        "init": initramfs.program(recipe.init_script()),
        "disco/epoch": initramfs.file(f"{epoch}\n".encode()),
    }
    return initramfs.append(base.initrd.read_bytes(), tree)
