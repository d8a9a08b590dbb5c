#!/bin/sh
# The first program of a VM with a Debian root: finds the disk, delivers what the monitor has to say, and hands
# over to Debian's init. Files laid over it:
#   /disco/vm       `name` of this VM, and `nonce`, to mark the exit status of the command as
#                   "disco[NONCE]: exit status N"
#   /disco/command  what to run
#   /disco/ssh      keys for the ssh server
# A command is run once the system is up, in the place of the console's login; then the VM powers off. All of
# that lives in /run, so the root itself is as Debian makes it.
echo 'disco: userland reached'

export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

nonce='' name=''
[ -e /disco/vm ] && . /disco/vm
# Up to here VMs that are alike are equal, random numbers included. From here on each has its own.
echo "$nonce" > /dev/urandom && /disco/reseed

# A VM's clock starts in 1970; a root's, when its packages were made.
read -r epoch < /disco/epoch
[ "$(date +%s)" -ge "$epoch" ] || date -s "@$epoch" > /dev/null

modprobe -a virtio_mmio virtio_blk ext4 crc32c_generic
# systemd's init is a link that is right only inside of the root.
if ! mount -t ext4 -o noatime /dev/vda /mnt || [ ! -e /mnt/sbin/init -a ! -L /mnt/sbin/init ]; then
    echo 'disco: /dev/vda is not a root with an init'
    poweroff -f
fi

# What udev would do, if a device could come later: drivers for all other devices, out of the root's modules.
for device in /sys/bus/virtio/devices/*; do
    [ -e "$device/modalias" ] && [ ! -e "$device/driver" ] || continue
    read -r alias < "$device/modalias"
    chroot /mnt /sbin/modprobe -q "$alias" || true
done
# Shared folders, each under its tag in /mnt.
if grep -qsx 0x0009 /sys/bus/virtio/devices/*/device; then
    chroot /mnt /sbin/modprobe -a 9pnet_virtio 9p # it does not say itself which devices it is for
    for file in /sys/bus/virtio/drivers/9pnet_virtio/*/mount_tag; do
        tag=$(cat "$file")
        mkdir -p "/mnt/mnt/$tag"
        mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 "$tag" "/mnt/mnt/$tag"
    done
fi
ln -s /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${number%:*}" "/dev/${number#*:}"
done

if [ -n "$name" ] && [ "$(cat /mnt/etc/hostname)" != "$name" ]; then
    echo "$name" > /mnt/etc/hostname
    sed -i "s/^127\.0\.1\.1.*/127.0.1.1\t$name/" /mnt/etc/hosts
    # Under its new name it is another host, which has a key of its own.
    rm -f /mnt/etc/ssh/ssh_host_*
fi
key=/etc/ssh/ssh_host_ed25519_key
if [ -x /mnt/usr/bin/ssh-keygen ] && [ ! -e /mnt$key ]; then
    mount --bind /dev /mnt/dev
    chroot /mnt /usr/bin/ssh-keygen -q -t ed25519 -N '' -C "root@$(cat /mnt/etc/hostname)" -f $key
    umount /mnt/dev
fi

mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /mnt/run

# Who may log in and which host key this VM has, beside what the root says of the ssh server.
if [ -d /disco/ssh ] && [ -d /mnt/etc/ssh/sshd_config.d ]; then
    mkdir -p /mnt/run/disco/sshd_config.d
    cp -r /disco/ssh /mnt/run/disco/
    chmod 600 /mnt/run/disco/ssh/*
    cp /mnt/etc/ssh/sshd_config.d/* /mnt/run/disco/sshd_config.d/ 2> /dev/null || true
    cat > /mnt/run/disco/sshd_config.d/disco.conf << END
AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2 /run/disco/ssh/authorized_keys
HostKey /run/disco/ssh/host_key
PermitRootLogin prohibit-password
END
    mount --bind /mnt/run/disco/sshd_config.d /mnt/etc/ssh/sshd_config.d
fi

# sysvinit: the console's login is left out; the line is Debian's with another program.
start_by_sysvinit() {
    sed 's|^\(T0:[0-9]*\):respawn:.*|\1:once:/bin/sh /run/disco/start|' /mnt/etc/inittab > /mnt/run/disco/inittab
    mount --bind /mnt/run/disco/inittab /mnt/etc/inittab
}

# systemd: units in /run are before those of the root; one that leads to /dev/null is left out.
start_by_systemd() {
    units=/mnt/run/systemd/system
    mkdir -p $units/multi-user.target.wants
    ln -s /dev/null $units/serial-getty@ttyS0.service
    cat > $units/disco.service << END
[Unit]
Description=The command of this VM
After=multi-user.target

[Service]
Type=idle
ExecStart=/bin/sh /run/disco/start
END
    ln -s ../disco.service $units/multi-user.target.wants/
}

if [ -e /disco/command ]; then
    mkdir -p /mnt/run/disco
    cp /disco/command /mnt/run/disco/command
    cat > /mnt/run/disco/start << END
#!/bin/sh
# Runs the command on the console and powers off; root's environment, as after a login.
export HOME=/root USER=root LOGNAME=root SHELL=/bin/bash TERM=vt100 LANG=C.UTF-8
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd
setsid --ctty --wait sh /run/disco/command < /dev/ttyS0 > /dev/ttyS0 2>&1
status=\$?
sync
echo "disco[$nonce]: exit status \$status" > /dev/ttyS0
echo u > /proc/sysrq-trigger
poweroff -ff
END
    if [ -e /mnt/etc/inittab ]; then
        start_by_sysvinit
    else
        start_by_systemd
    fi
fi

umount /proc /sys
mount --move /dev /mnt/dev
exec switch_root /mnt /sbin/init
