"""The commands, their options and their help."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from disco.cli import status
from disco.errors import ConfigError, DiscoError

app = typer.Typer(
    name="disco",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help needs half the time of coloured help
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="""
    Disco (SOSP'97): unmodified Debian machines on a simulated ccNUMA multiprocessor.

    \b
    Try in this order:
      disco demo                                 four VMs do some work; see what it cost
      disco run -- uname -a                      one command in one VM
      disco run --attach                         a shell in a VM; Ctrl-] leaves it
      disco follow                               one TLB miss, through all its steps
      disco run --vms 4 --json -- md5sum /init   the same as data
    """,
)
image_app = typer.Typer(
    no_args_is_help=True, help="Guest images: made from Debian's packages, kept in a cache."
)
app.add_typer(image_app, name="image")
disk_app = typer.Typer(no_args_is_help=True, help="Disks that keep what VMs write to them.")
app.add_typer(disk_app, name="disk")

#: What can be reported; the first if nothing is said.
REPORTS = ("tables", "services", "memory")
#: Those of a machine without Disco.
BARE_REPORTS = REPORTS[:2]

ImageName = Annotated[
    str, typer.Argument(help="Image to boot; see 'disco image list'.", show_default=True)
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
EngineName = Annotated[
    str | None,
    typer.Option(
        help="What executes guest code: interpreter or translator; by default the faster one that"
        " this host has. Never changes a result.",
        metavar="NAME",
        show_default=False,
    ),
]
ReportKind = Annotated[
    str | None,
    typer.Option(
        help="Print tables at the end: of the run if there is no KIND, or 'services', what each service"
        " of the guest's kernel costs under Disco beside the bare machine, or 'memory', what it was used for.",
        metavar="[KIND]",
        show_default=False,
    ),
]
Append = Annotated[str, typer.Option(help="More words for the kernel command line.")]
ShareContent = Annotated[
    bool,
    typer.Option(
        "--share-content",
        help="Find pages of VMs that are equal, and keep one of each until somebody writes to it.",
    ),
]
ContentPages = Annotated[
    int | None,
    typer.Option(
        help="The same, looking at so many pages of a VM in 20 ms of simulated time if it waits, and at fewer"
        " the more it works; 256 by default.",
        metavar="PAGES",
        min=1,
        show_default=False,
    ),
]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is in the cache.")]


def main() -> None:
    """Entry point: words behind `--` are the guest's, errors are one line."""
    words = sys.argv[1:]
    command: list[str] = []
    if "--" in words:
        split = words.index("--")
        words, command = words[:split], words[split + 1 :]
    try:
        app(args=spelled_out(words), obj=command)
    except DiscoError as error:
        print(f"disco: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(status.BAD_REQUEST)


def spelled_out(words: Sequence[str]) -> list[str]:
    """The words with the kind of each `--report` joined to it: the parser knows no option whose value may be
    left out."""
    spelled: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--report":
            word += f"={rest.pop(0) if rest and rest[0] in REPORTS else REPORTS[0]}"
        spelled.append(word)
    return spelled


def _check_report(kind: str | None, possible: Sequence[str] = REPORTS) -> None:
    if kind is not None and kind not in possible:
        raise ConfigError(f"--report: '{kind}' asked; possible are {', '.join(possible)}")


@app.command()
def run(
    context: typer.Context,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="VMs to boot, a word each: [NAME=]IMAGE[,vcpus=N][,memory=MIB][,root=DISK]; see 'disco image"
            " list'.  [default: default]",
            metavar="IMAGE",
            show_default=False,
        ),
    ] = None,
    vms: Annotated[
        int, typer.Option(help="How many VMs, of each IMAGE as many.", min=1, max=256)
    ] = 1,
    memory: Annotated[int, typer.Option(help="Memory of a VM in MiB.", metavar="MIB")] = 128,
    vcpus: Annotated[int, typer.Option(help="Virtual CPUs of a VM, 1 to 16.")] = 1,
    attach: Annotated[
        bool, typer.Option("--attach", help="This terminal is the VM's console; Ctrl-] leaves it.")
    ] = False,
    report: ReportKind = None,
    as_json: Json = False,
    offline: Offline = False,
    nodes: Annotated[int, typer.Option(help="Nodes.")] = 4,
    cpus: Annotated[
        int | None,
        typer.Option(
            help="CPUs of the machine; by default one a node, and one a vCPU if VMs have several."
        ),
    ] = None,
    host_threads: Annotated[
        int | None,
        typer.Option(help="Threads of the host; by default one a core. Never changes a result."),
    ] = None,
    large_pages: Annotated[
        bool,
        typer.Option(
            "--large-pages/--no-large-pages",
            help="Map what lies in one piece by TLB entries of 64 KiB and 1 MiB; without, by pairs of 4 KiB"
            " pages only, as the system of 1997 did.",
        ),
    ] = True,
    engine: EngineName = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="How vCPUs share CPUs: time-sharing (the default); gang, all vCPUs of a VM together; pinned,"
            " each stays on one CPU.",
            metavar="NAME",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str,
        typer.Option(
            help="Shares of VMs that want more CPUs than there are; 1 unless named.",
            metavar="VM=N,...",
        ),
    ] = "",
    pin: Annotated[
        list[str] | None,
        typer.Option(
            help="CPUs of the vCPUs of a VM, for the scheduler pinned.", metavar="VM=CPU,..."
        ),
    ] = None,
    time_slice: Annotated[
        float | None,
        typer.Option(
            help="Turn of a vCPU that shares its CPU, in simulated milliseconds; 2 by default.",
            metavar="MS",
            show_default=False,
        ),
    ] = None,
    node_memory: Annotated[
        int | None,
        typer.Option(
            help="Memory of a node in MiB; enough for all VMs by default.",
            metavar="MIB",
        ),
    ] = None,
    overcommit: Annotated[
        bool,
        typer.Option(
            "--overcommit",
            help="Allow VMs more memory than the machine has; their kernels give back what they do not use.",
        ),
    ] = False,
    share_content: ShareContent = False,
    content_pages: ContentPages = None,
    seed: Annotated[int, typer.Option(help="Of everything random. Same seed, same run.")] = 0,
    kernel: Annotated[
        Path | None, typer.Option(help="Any ELF kernel, instead of the image.")
    ] = None,
    initrd: Annotated[Path | None, typer.Option(help="Its initramfs.")] = None,
    append: Append = "",
    disk: Annotated[
        list[str] | None,
        typer.Option(
            help="Disk for /dev/vda, vdb, ...: a raw image, or one of 'disco disk create'. MODE is ro; cow,"
            " copy-on-write in memory, lost at power-off; shared, one such for all VMs; or persistent, written"
            " for good by one VM. Without it, raw images are cow, Disco disks persistent.",
            metavar="FILE[:MODE]",
        ),
    ] = None,
    disk_cache: Annotated[
        int | None,
        typer.Option(
            help="Machine memory for blocks of disks, which VMs share, in MiB; by default half of it; 0: none.",
            metavar="MIB",
            show_default=False,
        ),
    ] = None,
    entropy: Annotated[
        bool, typer.Option("--entropy", help="A virtio entropy device, seeded by --seed.")
    ] = False,
    network: Annotated[
        bool,
        typer.Option(
            "--network",
            help="A virtual subnet: each VM has a network card, an address by DHCP, and reaches the"
            " others by their names.",
        ),
    ] = False,
    remap_frames: Annotated[
        bool,
        typer.Option(
            "--remap-frames",
            help="Map whole pages that VMs send each other into both, copied when one of them writes, rather"
            " than copy them at once; implies --network.",
        ),
    ] = False,
    ssh: Annotated[
        bool,
        typer.Option(
            "--ssh",
            help="Let 'disco ssh' and 'disco cp' in: each VM gets your public key and a host key of its own;"
            " implies --network. Its root needs openssh-server, as 'debian' has it.",
        ),
    ] = False,
    nat: Annotated[
        bool,
        typer.Option(
            "--nat",
            help="A way out of the subnet to the host's network, by passt; implies --network. Simulated time"
            " then keeps to the wall clock, and no run is like another.",
        ),
    ] = False,
    publish: Annotated[
        list[str] | None,
        typer.Option(
            help="Open TCP port GUEST of a VM as port HOST of this host's loopback; implies --nat.",
            metavar="[VM:]HOST:GUEST",
        ),
    ] = None,
    capture: Annotated[
        Path | None,
        typer.Option(
            help="Write what goes over the subnet to a pcapng FILE for tcpdump or Wireshark, with"
            " simulated times; implies --network.",
            metavar="FILE",
        ),
    ] = None,
    share: Annotated[
        list[str] | None,
        typer.Option(
            help="A folder of the host, in each VM under its last name in /mnt; read-only unless rw.",
            metavar="FOLDER[:ro|:rw]",
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Simulated seconds.", metavar="SECONDS"),
    ] = None,
    wall_timeout: Annotated[
        float | None,
        typer.Option(help="Seconds of the host.", metavar="SECONDS"),
    ] = None,
) -> None:
    """
    Boot VMs, and run a command in each.

    Each IMAGE is a VM; 32-bit and 64-bit ones, with one vCPU or several, run side by side.

    Words behind '--' are the command; the exit status is the command's. Without one, a VM boots to a
    shell, and a single VM is attached to the terminal; the exit status is the shell's.

    \b
    Examples:
      disco run -- cat /proc/cpuinfo
      disco run --vms 4 --report -- sh -c 'cat /bin/busybox | sha256sum'
      disco run --report services -- sh -c 'ls -lR /bin | md5sum'
      disco run web=default,vcpus=2 old=debian-mipsel,memory=96 -- uname -a
      disco run web=default db=default --cpus 1 --weights web=2,db=1 --report -- md5sum /init
      disco run web=default db=default --network -- ping -c 3 db
      disco run --kernel vmlinux --initrd root.cpio --append 'console=ttyS0' --disk disk.img
      disco run --vms 8 --disk root.img:cow
    """
    from disco.cli import run as command

    _check_report(report)
    from disco.cli import vms as wishes
    from disco.cli.scheduler import SchedulerWish

    if kernel is None:
        wanted = wishes.parse(images or ["default"], count=vms, vcpus=vcpus, memory_mib=memory)
    elif not images:
        wanted = wishes.without_image(count=vms, vcpus=vcpus, memory_mib=memory)
    else:
        raise ConfigError(
            f"--kernel: boots {kernel} instead of an image; {' '.join(images)} asked, too"
        )
    options = command.Options(
        vms=wanted,
        attach=attach,
        report=report,
        as_json=as_json,
        offline=offline,
        nodes=nodes,
        cpus=cpus,
        host_threads=host_threads,
        large_pages=large_pages,
        engine=engine,
        scheduler=SchedulerWish(
            name=scheduler,
            weights=weights,
            pins=tuple(pin or ()),
            time_slice_ms=time_slice,
        ),
        node_memory_mib=node_memory,
        overcommit=overcommit,
        share_content=share_content or content_pages is not None,
        content_pages=content_pages,
        seed=seed,
        kernel=kernel,
        initrd=initrd,
        append=append,
        disks=tuple(disk or ()),
        disk_cache_mib=disk_cache,
        entropy=entropy,
        network=network,
        remap_frames=remap_frames,
        ssh=ssh,
        nat=nat,
        publish=wishes.published(publish or (), wanted),
        capture=capture,
        shares=tuple(share or ()),
        timeout_seconds=timeout,
        wall_timeout_seconds=wall_timeout,
        command=tuple(context.obj),
    )
    raise typer.Exit(command.run(options))


@app.command("memory")
def show_memory(
    context: typer.Context,
    images: Annotated[
        list[str] | None,
        typer.Argument(help="VMs to boot, as for 'disco run'.", metavar="IMAGE"),
    ] = None,
    vms: Annotated[
        int, typer.Option(help="How many VMs, of each IMAGE as many.", min=1, max=256)
    ] = 1,
    memory: Annotated[int, typer.Option(help="Memory of a VM in MiB.", metavar="MIB")] = 128,
    nodes: Annotated[int, typer.Option(help="Nodes.")] = 4,
    disk: Annotated[
        list[str] | None,
        typer.Option(help="Disk for all of them, as for 'disco run'.", metavar="FILE[:MODE]"),
    ] = None,
    disk_cache: Annotated[
        int | None,
        typer.Option(
            help="Machine memory for blocks of disks, in MiB.", metavar="MIB", show_default=False
        ),
    ] = None,
    share_content: ShareContent = False,
    content_pages: ContentPages = None,
    append: Append = "",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """
    Run VMs, and show what their memory was used for and which of it they shared.

    'disco run --report memory' with fewer options: virtual against machine memory by use, as in the paper's
    Figure 6, at the moment when the VMs had most of it, before the first one ended. With --json, all that is
    known of the run; the same is in 'memory', 'footprint'.

    \b
    Examples:
      disco memory --vms 8 --disk root.img -- sh -c 'mount /dev/vda /mnt; cat /mnt/* | md5sum; sleep 5'
      disco memory --vms 8 --share-content -- sleep 20
    """
    run(
        context,
        images=images,
        vms=vms,
        memory=memory,
        nodes=nodes,
        disk=disk,
        disk_cache=disk_cache,
        share_content=share_content,
        content_pages=content_pages,
        append=append,
        seed=seed,
        offline=offline,
        as_json=as_json,
        report="memory",
    )


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    engine: EngineName = None,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """
    Boot four Debian VMs on a machine of four nodes, let each work, and show what it cost.

    Two run the 64-bit kernel, two the 32-bit one; of each pair one has two vCPUs. Each VM unpacks, hashes
    and sorts its own data; the results are compared with what the host worked out beforehand. Exit status
    0 means that every line was right.
    """
    from disco.cli import demo as command

    raise typer.Exit(command.demo(seed=seed, engine=engine, offline=offline, as_json=as_json))


@app.command()
def bare(
    context: typer.Context,
    image: ImageName = "default",
    memory: Annotated[int, typer.Option(help="Memory in MiB, up to 256.", metavar="MIB")] = 128,
    cpus: Annotated[int, typer.Option(help="CPUs of the machine, 1 to 16.")] = 1,
    engine: EngineName = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Run the same in a VM too, and show both.")
    ] = False,
    report: ReportKind = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Simulated seconds.", metavar="SECONDS"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """
    Boot the same kernel on the machine itself, without Disco, and run a command.

    The baseline of every comparison: the same devices, the kernel in kernel mode. With --compare the table
    shows what the monitor costs, in simulated cycles; the VM has as many vCPUs as the machine has CPUs.

    \b
    Examples:
      disco bare -- uname -a
      disco bare --cpus 8 -- nproc
      disco bare --compare -- sh -c 'sha256sum /bin/busybox'
      disco bare --compare --report services -- ls -lR /bin
    """
    from disco.cli import bare as command

    _check_report(report, BARE_REPORTS)

    options = command.Options(
        image=image,
        memory_mib=memory,
        cpus=cpus,
        engine=engine,
        seed=seed,
        timeout_seconds=timeout,
        compare=compare,
        report=report,
        as_json=as_json,
        offline=offline,
        command=tuple(context.obj),
    )
    raise typer.Exit(command.bare(options))


@app.command()
def follow(
    image: ImageName = "default",
    vm: Annotated[int, typer.Option(help="Which VM to follow, from 1.", min=1)] = 1,
    vms: Annotated[int, typer.Option(help="How many VMs run.", min=1, max=64)] = 1,
    kind: Annotated[
        str,
        typer.Option(
            help="Which miss: any; l2tlb (the second-level TLB has it); forwarded (to the guest's handler);"
            " kernel (a segment that the guest does not map); page-fault (Disco has to find a page)."
        ),
    ] = "forwarded",
    after: Annotated[
        float | None,
        typer.Option(
            help="Simulated seconds to wait first; by default until the guest's userland works.",
            metavar="SECONDS",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """
    Follow one TLB miss of a running Debian VM through all its steps.

    Shows the virtual address, the verdicts of second-level and virtual TLB, the guest's own handler
    with its instructions, the traps, the pmap row, the machine page and the entry inserted, and the
    cycles of each.

    \b
    Examples:
      disco follow --kind kernel
      disco follow --vms 2 --vm 2 --kind page-fault --json
    """
    from disco.cli import follow as command

    options = command.Options(
        image=image,
        vm=vm,
        vms=vms,
        kind=kind,
        after_seconds=after,
        seed=seed,
        offline=offline,
        as_json=as_json,
    )
    raise typer.Exit(command.follow(options))


@image_app.command("list")
def image_list(as_json: Json = False) -> None:
    """Images that can be built, and which of them are."""
    from disco.cli import image as command

    command.show_list(as_json=as_json)


@image_app.command("build")
def image_build(
    name: ImageName = "default",
    packages: Annotated[
        str,
        typer.Option(
            help="Make a root of one's own: a Debian system on a disk, with these packages.",
            metavar="NAME,...",
        ),
    ] = "",
    architecture: Annotated[
        str, typer.Option(help="Of such a root: mips64el or mipsel.", metavar="NAME")
    ] = "mips64el",
    disk_mib: Annotated[
        int | None,
        typer.Option(
            help="Size of its disk in MiB; 4096 by default. What is not written takes no room.",
            metavar="MIB",
            min=256,
            max=1 << 20,
            show_default=False,
        ),
    ] = None,
    offline: Offline = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Make it of the newest packages, even if it is there.")
    ] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            help="Mirror of Debian; by default those of this machine's apt.", metavar="URL"
        ),
    ] = None,
) -> None:
    """
    Fetch packages and put an image together.

    Roots (debian, debian-dev, and those made with --packages) are configured by Debian's dpkg in a VM, which
    takes some minutes. A build that was cut off goes on where it was. Packages that are only recommended are
    left out: a compiler of C wants libc6-dev beside it. systemd-sysv among the packages takes the place of
    sysvinit.

    \b
    Examples:
      disco image build debian
      disco image build lab --packages gcc,libc6-dev,make
      disco image build services --packages systemd-sysv,openssh-server
      disco image build small32 --packages dash --architecture mipsel
    """
    from disco.cli import image as command

    command.build(
        name,
        packages=[word for word in packages.replace(",", " ").split() if word],
        architecture=architecture,
        disk_mib=disk_mib,
        offline=offline,
        refresh=refresh,
        mirror=mirror,
    )


@image_app.command("show")
def image_show(name: ImageName = "default") -> None:
    """The packages and files of a built image with their hashes, as JSON."""
    from disco.cli import image as command

    command.show(name)


@image_app.command("remove")
def image_remove(
    name: ImageName = "default",
    packages: Annotated[
        bool, typer.Option("--packages", help="Also the packages it was made from.")
    ] = False,
) -> None:
    """Take an image out of the cache."""
    from disco.cli import image as command

    command.remove(name, packages=packages)


DiskPath = Annotated[Path, typer.Argument(help="The file of the disk.", metavar="DISK")]


@disk_app.command("create")
def disk_create(
    disk: Annotated[Path, typer.Argument(help="The file to make.", metavar="DISK")],
    base: Annotated[
        Path | None,
        typer.Option(
            help="What it has at first: a raw image, another disk, or a root by its name; never written.",
            metavar="IMAGE",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(help="An empty disk of that size, such as 512M or 4G.", metavar="SIZE"),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Make a raw image of an image in qcow2 or another format of qemu-img's.",
            metavar="IMAGE",
        ),
    ] = None,
) -> None:
    """
    Make a disk.

    It holds what is written to it, crash-safe, and only that; one VM at a time can have it.

    \b
    Examples:
      disco disk create web.disk --base root.img
      disco disk create data.disk --size 4G
      disco disk create cloud.img --from cloud.qcow2
    """
    from disco.cli import disk as command

    command.create(disk, base=base, size=size, source=source)


@disk_app.command("info")
def disk_info(disk: DiskPath, as_json: Json = False) -> None:
    """Format, size, base, and how much it has of its own."""
    from disco.cli import disk as command

    command.info(disk, as_json=as_json)


@disk_app.command("diff")
def disk_diff(disk: DiskPath, as_json: Json = False) -> None:
    """The sectors that were written, in runs, as FIRST+COUNT."""
    from disco.cli import disk as command

    command.diff(disk, as_json=as_json)


@disk_app.command("commit")
def disk_commit(
    disk: DiskPath,
    target: Annotated[
        Path | None,
        typer.Option("--to", help="A new raw image, instead; disk and base stay.", metavar="IMAGE"),
    ] = None,
) -> None:
    """Write what is in the disk to its base; other disks on that base cannot be used any more."""
    from disco.cli import disk as command

    command.commit(disk, target=target)


@disk_app.command("check")
def disk_check(disk: DiskPath) -> None:
    """Read everything, compare all checksums, and say what is wrong; exit status 1 if anything is."""
    from disco.cli import disk as command

    if not command.check(disk):
        raise typer.Exit(1)


@image_app.command("export")
def image_export(
    name: Annotated[str, typer.Argument(help="A built image.")],
    target: Annotated[Path, typer.Argument(help="The folder to make.", metavar="FOLDER")],
) -> None:
    """Write kernel, initrd, disk and record of a built image into a new folder."""
    from disco.cli import image as command

    command.export(name, target)


@app.command()
def console(
    vm: Annotated[
        str | None,
        typer.Argument(
            help="Name of a running VM, or PROCESS/NAME; without it, they are listed.", metavar="VM"
        ),
    ] = None,
) -> None:
    """
    Attach this terminal to the console of a VM that another 'disco run' runs.

    Ctrl-] leaves it, and the VM goes on. The VM's time keeps to the wall clock while somebody is attached.
    """
    from disco.cli import console as command

    if vm is None:
        command.show_list()
    else:
        raise typer.Exit(command.console(vm))


GuestUser = Annotated[str, typer.Option("--user", "-l", help="Who to be in the VM.")]


@app.command()
def ssh(
    context: typer.Context,
    vm: Annotated[str, typer.Argument(help="Name of a running VM, or PROCESS/NAME.", metavar="VM")],
    user: GuestUser = "root",
) -> None:
    """
    Log in to a VM that another 'disco run --ssh' runs, or run a command in it.

    This host's own ssh does it, through the run's virtual subnet; no way out and no published port is needed.
    It waits for a VM that still boots. Keys are made and known by themselves.

    \b
    Examples:
      disco run web=debian --ssh          in one terminal
      disco ssh web                       in another
      disco ssh web -- uname -a
    """
    from disco.cli import ssh as command

    raise typer.Exit(command.ssh(vm, context.obj, user=user))


@app.command()
def cp(
    places: Annotated[
        list[str],
        typer.Argument(
            help="Files of this host or VM:PATH; the last one is where to.", metavar="SRC... DST"
        ),
    ],
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Copy folders too.")] = False,
    user: GuestUser = "root",
) -> None:
    """
    Copy files to or from a VM that another 'disco run --ssh' runs, with this host's own scp.

    Paths in the VM begin in the user's home. A file of this host with a colon in its name is ./NAME.

    \b
    Examples:
      disco cp notes.txt web:              into /root
      disco cp -r web:/var/log ./logs
    """
    from disco.cli import ssh as command

    if len(places) < 2:
        raise ConfigError("cp: two places or more are needed, SRC... DST")
    *sources, target = places
    raise typer.Exit(command.copy(sources, target, user=user, is_recursive=recursive))


@app.command(hidden=True)
def tunnel(path: Path, port: int) -> None:
    """Standard input and output as a TCP connection into a VM: what ssh calls."""
    from disco.cli import ssh as command

    raise typer.Exit(command.tunnel(path, port))


@app.command()
def costs(as_json: Json = False) -> None:
    """
    What each action of the monitor costs, in simulated cycles.

    'Machine(costs={"shootdown": 400})' changes a row in Python. docs/costs.md has the handler behind
    each default, instruction by instruction.
    """
    from disco.cli import costs as command

    command.show(as_json=as_json)


@app.command()
def version() -> None:
    """Versions of Disco and of what it was built with."""
    import platform

    from disco import __version__, _engine

    typer.echo(f"disco {__version__}")
    typer.echo(f"engine {_engine.__version__} ({_engine.build_profile} build)")
    typer.echo(f"Python {platform.python_version()} on {platform.machine()}")
