# Traces a download with nsntrace, whose path is $1. What there is to judge is left in /exchange.
set -e
nsntrace=$1
cd /exchange

host_state() {
    ip -o link
    ip -o addr
    ip -4 route show table all
    ip -6 route show table all
    ip rule
    ip -6 rule
    # Empty base tables may stay behind: what counts is rules, policies, and tables under other names.
    { iptables-save; ip6tables-save; } | grep -E '^-A|^:.* DROP' || true
    nft list tables | grep -vE ' (filter|nat|mangle|raw)$' || true
    grep . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv[46]/conf/*/*forwarding
    find /sys/fs/cgroup -type d
    ls -A /run/nsntrace 2> /dev/null | grep -v lock || true
    grep -s nsntrace /proc/[0-9]*/comm || true
}

# Waits for a command to succeed: at most 20 s.
wait_for() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 200 ] || { echo "still failing after $tries tries: $*"; exit 1; }
        sleep 0.1
    done
}

no_tentative_address() { [ -z "$(ip -6 -o addr show tentative; ip -n server -6 -o addr show tentative)" ]; }
file_is_served() { curl --silent --fail --max-time 2 --output /dev/null http://10.77.0.2/ready; }

mkdir www
head -c 3145728 /dev/urandom > www/file
echo yes > www/ready

ip netns add server
ip link add eth1 type veth peer name eth0 netns server
ip addr add 10.77.0.1/24 dev eth1
ip link set eth1 up
ip route add default via 10.77.0.2 dev eth1
ip -n server addr add 10.77.0.2/24 dev eth0
ip -n server link set eth0 up
ip -n server link set lo up
ip netns exec server busybox httpd -f -p 10.77.0.2:80 -h /exchange/www &
wait_for file_is_served
wait_for no_tentative_address

host_state > before.txt
status=0
"$nsntrace" -o trace.pcap curl --silent --output got http://10.77.0.2/file 2> stderr || status=$?
echo $status > status
# The wall clock is this machine's own, so it can be set: an hour forward, and back. A trace looks at it once a second.
# The first packets come before that.
cat > clock.sh << 'EOF'
ping='busybox ping -c 3 10.77.0.2'
$ping && date -s "@$(($(date +%s) + 3600))" && $ping && date -s "@$(($(date +%s) - 3600))" && $ping && exit 7
EOF
status=0
"$nsntrace" -o clock.pcap sh clock.sh > clock.txt 2>&1 || status=$?
echo $status > clock.status
# What nsntrace leaves to others to end may take a moment.
for try in 1 2 3 4 5 6 7 8 9 10; do
    host_state > after.txt
    cmp -s before.txt after.txt && break
    sleep 0.1
done
