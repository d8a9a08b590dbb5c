"""Guests: kernels, initial RAM filesystems, device trees and the platform they are told about.

    platform     where RAM and devices are in a VM's physical memory: one truth for tree and devices
    devicetree   that platform in the flattened form that a kernel reads
    kernel       any ELF kernel, and where kernel, device tree and initrd go in memory
    initramfs    the cpio archive that a kernel unpacks as its first root
    command      one command run in a guest, and its exit status read from the console
    identity     who a VM is: what its first program is told
    executable   the shell of an ELF executable around assembled code
    workload     a demonstration whose results the host can check
    images       recipes: from Debian's packages to a kernel and an initrd
      recipe     what goes into the image `debian-busybox`
      apt        Debian's packages through the machine's own apt; `sources` chooses where from
      deb        what is inside a package
      cache      the folder that all of it is kept in

Nothing here runs a guest. Errors are `ImageError`: what was asked, and what is possible.
"""
