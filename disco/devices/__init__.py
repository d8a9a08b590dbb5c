"""What a guest can find on its bus besides memory: console, virtio devices, power.

A device knows its registers and its host end, nothing else: memory, interrupt line and the engine
are reached through the small protocols of `disco.devices.bus`. May import `disco.errors` and
`disco.storage`.
"""
