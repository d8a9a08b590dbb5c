#!/bin/sh
# Makes a Debian root on /dev/vda out of the packages on /dev/vdb. Runs in a VM, over the busybox image, with
#   /disco/settings     what the host decided: epoch=SECONDS uuid=UUID name=HOSTNAME
#   /disco/index        what is on /dev/vdb: NAME BLOCK BYTES, in blocks of 64 KiB
#   /disco/steps        what dpkg is to do, in apt's order: `base NAME...`, `unpack NAME...`, `configure NAME...`
#   /disco/finish       a script for the finished root, run in it
# The number of steps done is kept on the disk, so a build that was cut off goes on from there.
set -e
. /disco/settings
root=/target
state=$root/.disco-build
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true LC_ALL=C HOME=/root
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

say() {
    echo "disco-build: $*"
}

fail() {
    say "failed: $*"
    exit 1
}

# The part NAME of the package disk, and zeros behind it.
part() {
    set -- $(grep "^$1 " /disco/index)
    [ -n "$3" ] || fail "the package disk has no $1"
    dd if=/dev/vdb bs=65536 skip="$2" count=$((($3 + 65535) / 65536)) 2> /dev/null
}

# Files of packages straight into a folder, without dpkg: for what dpkg itself needs to run.
extract() {
    folder=$1
    shift
    for package; do
        part "$package.tar" | tar -xf - -C "$folder" || fail "$package cannot be unpacked"
    done
}

# Debian 12 has one place for programs and libraries; packages still name the other.
merge_usr() {
    for folder in bin sbin lib lib32 lib64 libo32; do
        mkdir -p "$1/usr/$folder"
        [ -L "$1/$folder" ] || ln -s "usr/$folder" "$1/$folder"
    done
}

make_filesystem() {
    say "making the filesystem"
    mkdir -p /tools
    mount -t tmpfs tmpfs /tools
    merge_usr /tools
    mkdir /tools/dev
    extract /tools $filesystem_tools
    mount --bind /dev /tools/dev
    E2FSPROGS_FAKE_TIME=$epoch chroot /tools /sbin/mkfs.ext4 -q -F -b 4096 -U "$uuid" -L debian \
        -E "hash_seed=$uuid,nodiscard,root_owner=0:0,assume_storage_prezeroed=1" \
        -J size=16 -m 1 /dev/vda || fail "mkfs.ext4"
    umount /tools/dev /tools
}

# Without delayed allocation all that was written before an fsync of dpkg's is durable with it.
mount_root() {
    mkdir -p $root
    mount -t ext4 -o nodelalloc,noatime /dev/vda $root 2> /dev/null
}

in_root() {
    chroot $root "$@"
}

dpkg_in_root() {
    in_root /usr/bin/dpkg --force-unsafe-io --force-confold "$@"
}

mount_inside() {
    mkdir -p $root/proc $root/sys $root/dev $root/mnt $root/run
    mount -t proc proc $root/proc
    mount -t sysfs sysfs $root/sys
    mount --bind /dev $root/dev
    mkdir -p $root/dev/pts
    mount -t devpts devpts $root/dev/pts
    mount -t tmpfs -o size=90% tmpfs $root/mnt
    mount -t tmpfs tmpfs $root/run
}

# What dpkg needs: the essential packages' files, and an empty database.
lay_base() {
    merge_usr $root
    extract $root "$@"
    printf '#!/bin/sh\nexit 101\n' > $root/usr/sbin/policy-rc.d
    chmod 755 $root/usr/sbin/policy-rc.d
    : > $root/etc/fstab
    in_root /sbin/ldconfig || return 1
    sync
    : > $root/var/lib/dpkg/status
}

# Package files of these names, laid where the root sees them.
fetch() {
    rm -f $root/mnt/*
    files=
    for package; do
        part "$package.deb" > "$root/mnt/$package.deb"
        truncate -s "$(sed -n "s/^$package\.deb [0-9]* //p" /disco/index)" "$root/mnt/$package.deb"
        files="$files /mnt/$package.deb"
    done
}

do_base() {
    [ -e $root/var/lib/dpkg/status ] || lay_base "$@" || return 1
    for package in base-passwd base-files; do
        fetch $package
        dpkg_in_root --force-depends --skip-same-version --install $files || return 1
    done
    fetch "$@"
    dpkg_in_root --force-depends --skip-same-version --install $files
}

do_unpack() {
    fetch "$@"
    dpkg_in_root --skip-same-version --unpack $files
}

do_configure() {
    names=$(in_root /usr/bin/dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" | sed -n '/^installed /!s/.* //p')
    [ -z "$names" ] || dpkg_in_root --configure $names
}

do_modules() {
    part "$1.tar" | tar -xf - -C $root/usr &&
        in_root /sbin/depmod "$2"
}

do_finish() {
    cp /disco/finish $root/mnt/finish
    in_root /bin/sh /mnt/finish "$name" || return 1
    rm $root/usr/sbin/policy-rc.d
    in_root /usr/bin/dpkg --audit
    [ -z "$(in_root /usr/bin/dpkg --audit)" ]
}

date -s "@$epoch" > /dev/null
mkdir -p /tmp
if ! mount_root || ! [ -e $state ]; then
    umount $root 2> /dev/null || true
    make_filesystem
    mount_root
    echo 0 > $state
fi
mount_inside
done_count=$(cat $state)
total=$(wc -l < /disco/steps)
[ "$done_count" = 0 ] || say "going on after step $done_count of $total"
number=0
while read -r what names; do
    number=$((number + 1))
    [ $number -gt "$done_count" ] || continue
    say "step $number of $total: $what"
    "do_$what" $names < /dev/null || fail "step $number: $what $names"
    sync
    echo $number > $state
    sync
done < /disco/steps

umount $root/run $root/mnt $root/dev/pts $root/dev $root/sys $root/proc
rm $state
umount $root
say "done"
