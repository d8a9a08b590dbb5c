"""The virtual subnet: a switch between the VMs of a machine, and Disco's own services on it.

`subnet` puts together `switch`, `gateway` (ARP, ping, DHCP, DNS) and `capture`; `frame` is what travels,
with the work that its sender left to the hardware; `packets` reads and writes the headers.

Source: SOSP'97, section 4.1: a virtual subnet with a link-level address a VM and no limit on the MTU.
"""
