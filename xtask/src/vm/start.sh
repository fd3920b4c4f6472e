# The second: makes the host's root file system in the guest a machine, runs the command, notes its status.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

mount --make-rshared /
mkdir -p /dev/pts /dev/shm /dev/net /run/lock
mount -t devpts -o mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir /sys/fs/cgroup/session
mount -t bpf bpf /sys/fs/bpf
ln -s /proc/self/fd /dev/fd
for number in 0:stdin 1:stdout 2:stderr; do ln -s /proc/self/fd/${number%:*} /dev/${number#*:}; done
# Opening it loads the module, as on a machine with udev.
[ -e /dev/net/tun ] || mknod -m 666 /dev/net/tun c 10 200
# The host may have no modprobe. busybox goes by the name that it is called with. Tests hide /run.
ln -s /bin/busybox /usr/local/sbin/modprobe
echo /usr/local/sbin/modprobe > /proc/sys/kernel/modprobe
# A name that is known: sudo complains of others.
echo localhost > /proc/sys/kernel/hostname
ip link set lo up
# As on a host of containers, the packet filter sees what passes a bridge; on one of the kernels it is as elsewhere.
case $(uname -r) in
5.10.*) ;;
*) modprobe br_netfilter ;;
esac

# The first serial line is the kernel's, the second carries nothing but what the command prints.
stty -F /dev/ttyS1 raw -echo
setsid env -i PATH="$PATH" HOME=/root USER=root LOGNAME=root SHELL=/bin/sh LANG=C.UTF-8 TERM=dumb \
    sh -c 'echo $$ > /sys/fs/cgroup/session/cgroup.procs; exec sh /run/vm/command.sh' \
    < /dev/null > /dev/ttyS1 2>&1
echo $? > /run/vm/status.new
mv /run/vm/status.new /run/vm/status
# qemu ends at a reset; not all machines can be switched off.
busybox reboot -f
