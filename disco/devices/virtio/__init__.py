"""Virtio devices of version 1.2 (OASIS) over the MMIO transport, as Debian's kernel drives them.

`queue` walks the rings that a guest writes, `mmio` is the register window, `device` what a kind of
device adds to it; `block`, `console`, `net`, `p9` and `rng` are the kinds. Section numbers in this folder are
those of the Virtual I/O Device specification, version 1.2.
"""
