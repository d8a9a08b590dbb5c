"""Disco itself: VMs on a machine, where their pages go, what their devices answer, what is counted.

    monitor     the event loop: what the engine asks, and what Disco decides
    vm          one virtual machine, from creation to its end
    software    what a VM boots
    board, bus  its devices, and how they reach the engine
    peripheral  devices of somebody's own
    bare        the machine without Disco: the baseline
    memory      finding machine pages; a VM's memory as devices see it
    placement   on which node a page goes: the policies
    scheduling  which vCPUs share which CPUs: the policies
    pools       how their plans reach the engine
    console     what a VM has printed
    accounting  counters, pages by node and owner, time

May import `disco.hardware`, `disco.devices`, `disco.storage`, `disco.guests` and the engine.
"""

from disco.monitor.content import ContentPolicy, InIdleTime
from disco.monitor.monitor import Monitor, Outcome
from disco.monitor.overcommit import IdleFirst, OvercommitPolicy
from disco.monitor.peripheral import Peripheral, Socket
from disco.monitor.placement import FirstTouch, Fixed, PlacementPolicy, RoundRobin
from disco.monitor.scheduling import (
    Gang,
    Load,
    Pinned,
    Pool,
    SchedulingPolicy,
    TimeSharing,
    Vcpu,
)
from disco.monitor.vm import Status, VirtualMachine

__all__ = [
    "ContentPolicy",
    "FirstTouch",
    "Fixed",
    "Gang",
    "IdleFirst",
    "InIdleTime",
    "Load",
    "Monitor",
    "Outcome",
    "OvercommitPolicy",
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
]
