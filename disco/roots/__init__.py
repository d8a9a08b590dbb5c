"""Roots: whole Debian systems on a disk, put together by Debian's own tools in a VM of ours.

    recipe     which packages a root has
    packing    the disk from which the VM reads them
    builder    the VM that unpacks and configures them (build.sh, finish.sh)
    store      roots in the cache

`disco.images` has them beside the images in memory of `disco.guests.images`. Errors are `ImageError`.
"""
