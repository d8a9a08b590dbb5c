#!/bin/sh
# Sets up a root whose packages are configured; runs in it, once. The only word is its host name.
set -e
echo "$1" > /etc/hostname
printf '127.0.0.1\tlocalhost\n127.0.1.1\t%s\n::1\tlocalhost ip6-localhost ip6-loopback\n' "$1" > /etc/hosts
echo '/dev/vda / ext4 noatime,errors=remount-ro 0 0' > /etc/fstab
ln -sf ../proc/self/mounts /etc/mtab
# The console asks for a name and no password. ssh takes no empty passwords.
passwd -q -d root
cat > /etc/network/interfaces <<'END'
auto lo
iface lo inet loopback
allow-hotplug eth0
iface eth0 inet dhcp
END
# A network card without a server for it delays a boot, but not for ever.
sed -i 's/^#*timeout .*/timeout 10;/' /etc/dhcp/dhclient.conf
# What tells one machine from another is made when it boots first: systemd wants an empty machine-id for that.
rm -f /etc/ssh/ssh_host_* /etc/machine-id /var/lib/dbus/machine-id /var/lib/systemd/random-seed
if [ -e /etc/inittab ]; then
    sed -i 's/^[1-6]:.*getty.*/#&/; s/^#*T0:.*/T0:2345:respawn:\/sbin\/getty -L ttyS0 115200 vt100/' /etc/inittab
else
    : > /etc/machine-id # systemd, which shows a login on the kernel's console by itself
fi
rm -rf /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/cache/apt/*.bin /var/log/dpkg.log /var/log/alternatives.log
