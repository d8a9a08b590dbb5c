#!/bin/sh
# The first program of every image made of Debian: sets the scene, runs one command or a shell, and
# powers off. It takes one word on the kernel command line:
#   disco.modules=A,B,...  load these instead of what the devices ask for; "none" loads nothing
# The file /disco/vm says who this VM is: `name`, and `nonce`, with which to mark the exit status of command or
# shell as "disco[NONCE]: exit status N".
echo 'disco: userland reached'

export PATH=/bin HOME=/root TERM=linux PS1='\h:\w\$ '
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

# Up to here VMs that are alike are equal, random numbers included. From here on each has its own.
nonce='' name=''
[ -e /disco/vm ] && . /disco/vm
[ -n "$name" ] && hostname "$name" && echo "$nonce" > /dev/urandom && /disco/reseed

modules=by-device
read -r words < /proc/cmdline
for word in $words; do
    case $word in
        disco.modules=*) modules=${word#*=} ;;
    esac
done

# Loading costs guest instructions, so a VM without virtio slots loads nothing.
load_by_device() {
    set -- /sys/bus/platform/devices/*.virtio
    [ -e "$1" ] || return 0
    modprobe virtio_mmio
    for alias in /sys/bus/virtio/devices/*/modalias; do
        [ -e "$alias" ] && read -r alias < "$alias" && modprobe -q "$alias"
    done
}

case $modules in
    none) ;;
    by-device) load_by_device ;;
    *) modprobe -a $(echo "$modules" | tr , ' ') ;;
esac

for script in /disco/network /disco/share; do
    [ -x $script ] && $script
done

cd "$HOME"
if [ -e /disco/command ]; then
    setsid cttyhack /disco/command
else
    setsid cttyhack sh
fi
status=$?
[ -n "$nonce" ] && echo "disco[$nonce]: exit status $status"
poweroff -f
