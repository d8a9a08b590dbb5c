#!/bin/sh
# Laid over an image for a VM with a network card: brings the card up, with an address by DHCP. Run by
# /init, and by udhcpc with the name of an event and what it has learned in variables.
if [ $# = 0 ]; then
    ip link set lo up
    udhcpc -i eth0 -s "$0" -n -q -t 5 -T 1 > /dev/null 2>&1 || echo 'disco: no address by DHCP'
elif [ "$1" = bound ]; then
    ip addr add "$ip/$mask" broadcast "$broadcast" dev "$interface"
    [ -z "$router" ] || ip route add default via "$router"
    {
        [ -z "$domain" ] || echo "search $domain"
        for server in $dns; do
            echo "nameserver $server"
        done
    } > /etc/resolv.conf
elif [ "$1" = deconfig ]; then
    ip link set "$interface" up
fi
