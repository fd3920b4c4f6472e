#!/bin/busybox sh
# The first program in the guest: goes from the initramfs to the host's root file system, with a tmpfs above it.

/bin/busybox mkdir -p /proc /sys /dev /host /upper /root
/bin/busybox --install -s /bin
export PATH=/bin

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in virtio_pci virtiofs overlay; do modprobe $module; done

mount -t virtiofs host /host || exit
mount -t tmpfs upper /upper
mkdir /upper/data /upper/work
mount -t overlay -o lowerdir=/host/root,upperdir=/upper/data,workdir=/upper/work root /root || exit

mkdir -p /root/lib/modules/"$(uname -r)" /root/exchange
mount -o bind,ro /host/modules /root/lib/modules/"$(uname -r)"
mount -o bind /host/exchange /root/exchange
mount -t tmpfs -o mode=755 run /root/run
mkdir /root/run/vm
mount -o bind /host/control /root/run/vm
for folder in proc sys dev; do mount -o move /$folder /root/$folder; done

# Not busybox: its shell takes its own ip for everyone's.
exec switch_root /root /bin/sh /run/vm/start.sh
