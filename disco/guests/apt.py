"""Debian's packages for a foreign architecture, through the machine's own apt.

apt already knows mirrors, proxies, credentials and signatures, so it fetches and verifies; we only
give it a state folder of its own, in which the guest's architecture is the native one. It needs no
root, and neither the machine's package database nor its configuration files are written. Of the
machine's settings it keeps those under `Acquire` (proxies, certificates, limits); hooks, which
could touch the machine, are left out.

Source: apt.conf(5), apt-get(8), apt-cache(8), deb-control(5).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from disco.errors import ImageError
from disco.guests import sources
from disco.guests.cache import Cache, Progress, sha256_of, silent

ETC = Path("/etc/apt")

#: `Acquire` settings that would change what is fetched or in which form it is kept.
_NOT_KEPT = re.compile(
    r"Acquire::(IndexTargets|Languages|GzipIndexes|CompressionTypes|Changelogs)\b"
)
#: Lines of `apt-get --simulate`.
_TO_INSTALL = re.compile(r"Inst (?P<name>\S+) \((?P<version>\S+) ")
_TO_CONFIGURE = re.compile(r"Conf (?P<name>\S+) \(")
#: How many packages one call of apt fetches; what it has fetched is kept if the next call is cut off.
_FETCH_COUNT = 16
_SETTING = re.compile(r"(?P<name>Acquire::\S+) (?P<value>\".*\");")


@dataclass(frozen=True, order=True)
class Package:
    """One package, as the signed index of a Debian archive describes it.

    Attributes:
        name, version, architecture: which package.
        sha256: of the package file, as hexadecimal digits.
        size: of the package file, in bytes.
        depends: names of packages it needs; alternatives and versions left out.
    """

    name: str
    version: str
    architecture: str
    sha256: str
    size: int
    depends: tuple[str, ...] = field(default=(), compare=False)

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.architecture})"


@dataclass(frozen=True)
class Plan:
    """How apt would install packages on an empty system.

    Attributes:
        packages: all of them, in the order in which they are unpacked.
        steps: "unpack" or "configure", and the names of packages.
    """

    packages: tuple[Package, ...]
    steps: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass
class Apt:
    """apt with a state of its own in `folder`, for one `architecture` of one Debian `release`.

    Attributes:
        etc: configuration folder of the machine's apt.
        mirror: address of the one mirror to use; None: those of the machine's apt.
        progress: told of each step.
    """

    folder: Path
    architecture: str
    release: str
    etc: Path
    mirror: str | None = None
    progress: Progress = silent

    def update(self) -> None:
        """Brings the index of packages up to date.

        A source that does not answer is reported and left out, as long as another does; whether
        what is left suffices shows when a package is asked for.

        Raises:
            ImageError: no apt, no source of Debian's, or none of them answers.
        """
        self._configure()
        self.progress(f"updating Debian's list of {self.architecture} packages")
        result = self._run("apt-get", "update", "--quiet")
        if not self.has_index():
            raise ImageError(
                f"Debian packages: no source gave a list for {self.architecture} of"
                f" {self.release}: {_reason(result)}; name another mirror, or work offline with"
                " what is in the cache"
            )
        if result.returncode or "W:" in result.stderr:
            self.progress(f"some sources of packages are left out: {_reason(result)}")

    def has_index(self) -> bool:
        """Whether the state folder has an index of the sources in use."""
        if not (self.folder / "apt.conf").exists():
            return False
        result = self._run(
            "apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages"
        )
        return any(Path(line).exists() for line in result.stdout.splitlines())

    def find(self, name: str, *, version: str | None = None) -> Package:
        """The package of that name in the index: the wanted version, else the newest.

        Raises:
            ImageError: the index has no such package.
        """
        wanted = name if version is None else f"{name}={version}"
        result = self._run("apt-cache", "show", "--no-all-versions", wanted)
        fields = _control_fields(result.stdout)
        if result.returncode or "sha256" not in fields:
            raise ImageError(
                f"package {wanted}: Debian {self.release} for {self.architecture} does not have it"
                f" at the sources in use: {_reason(result)}"
            )
        return _package(fields)

    def closure(self, names: Sequence[str]) -> tuple[Package, ...]:
        """The newest packages of these names and all that they depend on, recommendations left out.

        Raises:
            ImageError: the index lacks one, or they exclude each other.
        """
        return self.plan(names).packages

    def plan(self, names: Sequence[str]) -> Plan:
        """How to install these packages, and all that they depend on, where nothing is installed yet.

        Raises:
            ImageError: the index lacks one, or they exclude each other.
        """
        words = ("apt-get", "install", "--simulate", "--quiet", "--no-install-recommends")
        result = self._run(*words, *names)
        if result.returncode:
            raise ImageError(
                f"packages {', '.join(names)}: Debian {self.release} for {self.architecture} cannot"
                f" install them together: {_reason(result)}"
            )
        versions: dict[str, str] = {}
        steps: list[tuple[str, tuple[str, ...]]] = []
        for line in result.stdout.splitlines():
            if found := _TO_INSTALL.match(line):
                versions[found["name"]] = found["version"]
                _extend(steps, "unpack", found["name"])
            elif found := _TO_CONFIGURE.match(line):
                _extend(steps, "configure", found["name"])
        return Plan(self._find_all(versions), tuple(steps))

    def _find_all(self, versions: Mapping[str, str]) -> tuple[Package, ...]:
        """The packages of these names and versions, in that order."""
        if not versions:
            return ()
        wanted = [f"{name}={version}" for name, version in versions.items()]
        result = self._run("apt-cache", "show", "--no-all-versions", *wanted)
        found: dict[tuple[str, str], Package] = {}
        for stanza in result.stdout.split("\n\n"):
            fields = _control_fields(stanza)
            if "sha256" in fields:
                found.setdefault((fields["package"], fields["version"]), _package(fields))
        lacking = [f"{name} {v}" for name, v in versions.items() if (name, v) not in found]
        if lacking:
            raise ImageError(
                f"package {lacking[0]}: Debian {self.release} for {self.architecture} does not"
                f" describe it at the sources in use: {_reason(result)}"
            )
        return tuple(found[item] for item in versions.items())

    def download(self, package: Package, target: Path) -> None:
        """Fetches a package to the file `target`, verified by apt and once more by its hash.

        Raises:
            ImageError: it cannot be had, or it is not what the index says.
        """
        self.progress(f"fetching {package} ({-(-package.size // 1024)} KiB)")
        folder = target.parent / f"{package.name}.download"
        folder.mkdir()
        wanted = f"{package.name}={package.version}"
        result = self._run("apt-get", "download", "--quiet", wanted, cwd=folder)
        files = list(folder.glob("*.deb"))
        if result.returncode or len(files) != 1:
            raise ImageError(f"package {package}: cannot be fetched: {_reason(result)}")
        check_hash(files[0], package)
        files[0].rename(target)

    def download_all(self, packages: Sequence[Package], cache: Cache) -> None:
        """Fetches packages into the cache, some at a time, each verified by apt and once more by its hash.

        Raises:
            ImageError: one cannot be had, or is not what the index says; those before it are kept.
        """
        total = sum(package.size for package in packages)
        fetched = 0
        for start in range(0, len(packages), _FETCH_COUNT):
            part = packages[start : start + _FETCH_COUNT]
            self.progress(
                f"fetching {len(packages)} packages: {fetched >> 20} of {-(-total >> 20)} MiB"
            )
            cache.check_room(sum(package.size for package in part), what="packages")
            cache.packages.mkdir(exist_ok=True)
            with cache.temporary() as folder:
                wanted = [f"{package.name}={package.version}" for package in part]
                result = self._run("apt-get", "download", "--quiet", *wanted, cwd=folder)
                found = {sha256_of(path): path for path in folder.glob("*.deb")}
                for package in part:
                    self._keep(package, found, cache, result)
            fetched += sum(package.size for package in part)

    def _keep(
        self,
        package: Package,
        found: Mapping[str, Path],
        cache: Cache,
        result: subprocess.CompletedProcess[str],
    ) -> None:
        path = found.get(package.sha256)
        if path is not None:
            path.rename(cache.package(package.sha256))
            return
        for other in found.values():
            if other.name.startswith(f"{package.name}_"):
                check_hash(other, package)
        raise ImageError(f"package {package}: cannot be fetched: {_reason(result)}")

    def _configure(self) -> None:
        """Writes apt's configuration; done before each update, because the machine's may change."""
        for name in ("lists/partial", "archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if self.mirror is None:
            chosen = sources.of_machine(self.etc, release=self.release)
        else:
            chosen = sources.of_mirror(self.mirror, release=self.release)
        (self.folder / "debian.sources").write_text(sources.listing(chosen))
        (self.folder / "status").write_text("")
        (self.folder / "apt.conf").write_text(self._settings())

    def _settings(self) -> str:
        path = self.folder
        ours = {
            "Dir::State": path,
            "Dir::State::status": path / "status",
            "Dir::Cache": path,
            "Dir::Etc::sourcelist": path / "debian.sources",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "APT::Architecture": self.architecture,
            # The user `_apt`, to which a root's apt would switch, may not enter the cache.
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        lines = [f'{name} "{value}";' for name, value in ours.items()]
        lines.append(f'APT::Architectures {{ "{self.architecture}"; }};')
        return "\n".join([*lines, *self._settings_of_machine(), ""])

    def _settings_of_machine(self) -> list[str]:
        dump = _call(["apt-config", "dump"], cwd=None, environment=None)
        matches = (_SETTING.fullmatch(line) for line in dump.stdout.splitlines())
        return [m[0] for m in matches if m and not _NOT_KEPT.match(m["name"])]

    def _run(self, *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"APT_CONFIG": str(self.folder / "apt.conf"), "LC_ALL": "C"}
        return _call(command, cwd=cwd, environment=environment)


def check_hash(path: Path, package: Package) -> None:
    """Makes sure that a file is that package.

    Raises:
        ImageError: it is not.
    """
    found = sha256_of(path)
    if found != package.sha256:
        raise ImageError(
            f"package {package}: wrong hash: SHA-256 {package.sha256} asked, {path} has {found}"
        )


def _call(
    command: Sequence[str], *, cwd: Path | None, environment: dict[str, str] | None
) -> subprocess.CompletedProcess[str]:
    program = shutil.which(command[0])
    if program is None:
        raise ImageError(
            f"{command[0]}: not on this machine. Guest images are put together from Debian's"
            " packages by apt; without apt, boot with --kernel and --initrd, or copy the cache"
            " from a machine that has it"
        )
    return subprocess.run(
        [program, *command[1:]],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    """What apt said went wrong, in one line."""
    lines = [line for line in result.stderr.splitlines() if line.startswith(("E:", "W:"))]
    return "; ".join(dict.fromkeys(lines)) or f"exit status {result.returncode} without a reason"


def _control_fields(text: str) -> dict[str, str]:
    stanza = re.sub(r"\n[ \t]+", " ", text.split("\n\n")[0])
    rows = (line.partition(":") for line in stanza.splitlines())
    return {name.lower(): value.strip() for name, colon, value in rows if colon}


def _package(fields: Mapping[str, str]) -> Package:
    return Package(
        name=fields["package"],
        version=fields["version"],
        architecture=fields["architecture"],
        sha256=fields["sha256"],
        size=int(fields["size"]),
        depends=_names(fields.get("depends", "")),
    )


def _extend(steps: list[tuple[str, tuple[str, ...]]], kind: str, name: str) -> None:
    """Adds a name to the last step if that is of its kind, else a step."""
    if steps and steps[-1][0] == kind:
        steps[-1] = (kind, (*steps[-1][1], name))
    else:
        steps.append((kind, (name,)))


def _names(depends: str) -> tuple[str, ...]:
    alternatives = (group.split("|")[0] for group in depends.split(",") if group.strip())
    return tuple(re.split(r"[\s(:]", one.strip())[0] for one in alternatives)
