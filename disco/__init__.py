"""Disco: commodity operating systems on a simulated ccNUMA multiprocessor, after the SOSP'97 monitor.

from disco import Machine, Monitor, images

with Monitor(Machine(nodes=4)) as monitor:
    web = monitor.create_vm("web", image=images.build("default"), command=["uname", "-a"])
    web.boot()
    monitor.run()
    print(web.console.text)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from disco.errors import (
    ConfigError,
    DeviceError,
    DiscoError,
    GuestStopped,
    ImageError,
    MemoryExhausted,
)

if TYPE_CHECKING:
    from disco import images
    from disco.devices.bus import Device
    from disco.hardware import Machine, flash, uniform
    from disco.monitor import (
        FirstTouch,
        Fixed,
        Gang,
        IdleFirst,
        InIdleTime,
        Load,
        Monitor,
        Outcome,
        Peripheral,
        Pinned,
        PlacementPolicy,
        Pool,
        RoundRobin,
        SchedulingPolicy,
        Socket,
        Status,
        TimeSharing,
        Vcpu,
        VirtualMachine,
    )

__version__ = "0.1.0"

#: Where each public name lives. They are imported at first use: `disco --help` needs none of them.
_HOMES = {
    "Device": "disco.devices.bus",
    "Machine": "disco.hardware",
    "flash": "disco.hardware",
    "uniform": "disco.hardware",
    "FirstTouch": "disco.monitor",
    "IdleFirst": "disco.monitor",
    "InIdleTime": "disco.monitor",
    "Fixed": "disco.monitor",
    "Gang": "disco.monitor",
    "Load": "disco.monitor",
    "Monitor": "disco.monitor",
    "Outcome": "disco.monitor",
    "Pinned": "disco.monitor",
    "Peripheral": "disco.monitor",
    "PlacementPolicy": "disco.monitor",
    "Pool": "disco.monitor",
    "RoundRobin": "disco.monitor",
    "SchedulingPolicy": "disco.monitor",
    "Socket": "disco.monitor",
    "Status": "disco.monitor",
    "TimeSharing": "disco.monitor",
    "Vcpu": "disco.monitor",
    "VirtualMachine": "disco.monitor",
}

__all__ = [
    "ConfigError",
    "Device",
    "DeviceError",
    "DiscoError",
    "FirstTouch",
    "Fixed",
    "Gang",
    "GuestStopped",
    "IdleFirst",
    "ImageError",
    "InIdleTime",
    "Load",
    "Machine",
    "MemoryExhausted",
    "Monitor",
    "Outcome",
    "Peripheral",
    "Pinned",
    "PlacementPolicy",
    "Pool",
    "RoundRobin",
    "SchedulingPolicy",
    "Socket",
    "Status",
    "TimeSharing",
    "Vcpu",
    "VirtualMachine",
    "flash",
    "images",
    "uniform",
]


def __getattr__(name: str) -> Any:
    if name == "images":
        return import_module("disco.images")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'disco' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
