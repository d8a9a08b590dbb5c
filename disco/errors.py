"""The errors that Disco raises on purpose.

    DiscoError
      ConfigError     a machine, VM or option that cannot exist was asked for
      ImageError      a kernel, initrd, disk or package is not what it claims to be, or cannot be had
      MemoryExhausted the simulated machine has no free page left for a VM
      GuestStopped    a guest ended in a way nobody asked for (VM, vCPU, pc, cause)
      DeviceError     a guest drove a device in a way its specification forbids

Each message names the object, what was asked and what is possible. A failed call has changed nothing.
"""

from __future__ import annotations


class DiscoError(Exception):
    """Base of every error that a caller can expect from Disco."""


class ConfigError(DiscoError):
    """A machine, VM or option that cannot exist was asked for."""


class ImageError(DiscoError):
    """A kernel, initrd, disk or package is not what it claims to be, or cannot be had."""


class MemoryExhausted(DiscoError):
    """The simulated machine has no free page left for a VM."""


class GuestStopped(DiscoError):
    """A guest ended in a way nobody asked for.

    Attributes:
        vm: name of the VM.
        vcpu: index of the virtual CPU, from 0.
        pc: virtual address of the instruction it stopped at.
        cause: what happened, in words.
    """

    def __init__(self, *, vm: str, vcpu: int, pc: int, cause: str) -> None:
        super().__init__(f"VM '{vm}' stopped: {cause} (vCPU {vcpu}, pc {pc:#018x})")
        self.vm = vm
        self.vcpu = vcpu
        self.pc = pc
        self.cause = cause


class DeviceError(DiscoError):
    """A guest drove a device in a way that the device's specification forbids.

    The monitor turns it into a `GuestStopped` for that VM; other VMs go on.

    Attributes:
        device: name of the device, such as "virtio-blk 0".
        cause: which claim of the guest was wrong, with the values.
    """

    def __init__(self, *, device: str, cause: str) -> None:
        super().__init__(f"{device}: {cause}")
        self.device = device
        self.cause = cause
