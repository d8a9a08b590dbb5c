"""The other half of `disco run --report services`: the same work on the bare machine, to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from disco.cli.terminal import say
from disco.cli.vms import VmWish
from disco.errors import ConfigError
from disco.guests.images import Image
from disco.hardware import Machine
from disco.monitor.bare import BareMachine
from disco.monitor.services import ServiceCost


def bare_sides(
    wishes: Sequence[VmWish],
    *,
    machine: Machine,
    images: Mapping[str | None, Image],
    kernel: Path | None,
    initrd: Path | None,
    append: str,
    command: Sequence[str],
    timeout_seconds: float | None,
) -> dict[str, tuple[ServiceCost, ...]]:
    """What the services cost on a bare machine like each VM, by the VM's name; like VMs share a run.

    A VM that no bare machine can be like (of more memory, say) has no entry, and it is said why.
    """
    made: dict[tuple[str | None, int, int], tuple[ServiceCost, ...]] = {}
    sides: dict[str, tuple[ServiceCost, ...]] = {}
    for wish in wishes:
        kind = (wish.image, wish.vcpus, wish.memory_mib)
        if kind not in made:
            say(f"the same work as of VM '{wish.name}' on the bare machine, to compare with")
            try:
                bare = BareMachine(
                    Machine(nodes=1, cpus=wish.vcpus, seed=machine.seed, engine=machine.engine),
                    memory_mib=wish.memory_mib,
                    image=images.get(wish.image),
                    kernel=kernel,
                    initrd=initrd,
                    append=append,
                    command=command or None,
                )
            except ConfigError as error:
                say(f"no bare side for VM '{wish.name}': {error}")
                continue
            bare.record_services()
            bare.run(seconds=timeout_seconds)
            made[kind] = bare.services
        sides[wish.name] = made[kind]
    return sides
