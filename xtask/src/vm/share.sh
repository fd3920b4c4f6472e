# Serves one tree to the guest: root read-only, modules, exchange and control. It is put together in a mount namespace
# of its own, so it goes away with the server. The listening socket is the standard input.
set -e
server=$1 tree=$2 modules=$3 exchange=$4 control=$5

mount -t tmpfs tree "$tree"
mkdir "$tree/root" "$tree/modules" "$tree/exchange" "$tree/control"
mount --rbind / "$tree/root"
mount -o remount,bind,ro "$tree/root"
mount --bind "$modules" "$tree/modules"
mount --bind "$exchange" "$tree/exchange"
mount --bind "$control" "$tree/control"
exec "$server" --fd=0 -o source="$tree" -o cache=always -o xattr
