//! IPv6 in the namespace: there at once, without a packet of its own, and no harm where the host has none.

use anyhow::{Result, ensure};
use nsntrace_tests::{Done, HOST_ADDRESS6, Lab, SERVER_ADDRESS, SERVER_ADDRESS6, Web};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    download_is_whole,
    ping_and_udp,
    ends_are_quiet,
    packet_too_big_reaches_the_program,
    no_default_route_is_told_to_the_program,
    no_route_but_the_hosts_own_addresses,
    dual_stack_falls_back,
    firewall_that_takes_and_forwards_nothing,
    named_device_is_used,
    named_device_without_ipv6,
    settings_are_carried_over,
    switched_off_on_the_host,
    no_ip6tables,
    no_nat_in_ipv6,
    settings_cannot_be_written,
    mtu_below_the_least,
];

fn download(lab: &Lab, options: &[&str], web: &Web) -> Result<Done> {
    let words = [options, &["curl", "-s", "-S", "-m", "20", &web.url]].concat();
    let done = lab.nsntrace(words)?.run()?.exited(0)?;
    assert!(done.stdout == web.body);
    Ok(done)
}

pub fn download_is_whole(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let web = lab.web6()?;
    let before = lab.snapshot()?;
    for _ in 0..3 {
        let trace = download(lab, &[], &web)?.trace();
        assert!(trace.http_bodies()?.get("data.bin") == Some(&web.body));
        assert_eq!(trace.count_of("!ipv6")?, 0, "something else than the download is in the trace");
        assert!(web.log()?.starts_with(HOST_ADDRESS6), "asked by {}", web.log()?);
        lab.assert_clean(&before)?;
    }
    Ok(())
}

const UDP: &str = "
import socket, sys
client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
client.settimeout(10)
client.sendto(b'a datagram', (sys.argv[1], 7))
print(client.recv(100).decode())
";

fn ping_and_udp(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let _server = lab.udp_echo6(7)?;
    let ping = lab.nsntrace(["-q", "busybox", "ping", "-6", "-c", "3", SERVER_ADDRESS6])?.run()?.exited(0)?;
    assert_eq!(ping.trace().count_of("icmpv6.type == 129")?, 3);
    let udp = lab.nsntrace(["-q", "python3", "-c", UDP, SERVER_ADDRESS6])?.run()?.exited(0)?;
    assert_eq!(udp.text(), "a datagram\n");
    assert_eq!(udp.trace().count_of("udp && ipv6")?, 2);
    Ok(())
}

/// No neighbour is sought, no router, no group joined; the addresses are usable all the same.
fn ends_are_quiet(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let script = "ip -6 -o address show tentative; ip -6 -o address show scope global; sleep 1";
    let runs = (0..4).map(|_| lab.nsntrace(["sh", "-c", script])?.spawn()).collect::<Result<Vec<_>>>()?;
    for run in runs {
        let done = run.wait()?.exited(0)?;
        assert_eq!(done.captured()?, 0, "{:?}", done.trace().fields("frame", &["_ws.col.Info"]));
        let text = done.text();
        assert!(text.lines().count() == 1 && text.contains(" fd") && text.contains("/127 "), "{text}");
    }
    Ok(())
}

/// Sends datagrams that must not be split until the kernel knows better.
const TOO_BIG: &str = "
import errno, socket, sys, time
client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
client.setsockopt(socket.IPPROTO_IPV6, 23, 2)
client.connect((sys.argv[1], 7))
end = time.monotonic() + 20
while time.monotonic() < end:
    try:
        client.send(bytes(1400))
    except OSError as error:
        if error.errno == errno.EMSGSIZE:
            sys.exit(client.getsockopt(socket.IPPROTO_IPV6, 24) != 1300)
    time.sleep(0.02)
sys.exit(9)
";

/// A narrow link somewhere behind the host.
fn packet_too_big_reaches_the_program(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let script = "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding; ip netns add far; \
                  ip link add far0 mtu 1300 type veth peer name far1 netns far mtu 1300; \
                  ip address add 2001:db8:f::1/64 dev far0 nodad; ip link set far0 up; \
                  ip -n far address add 2001:db8:f::2/64 dev far1 nodad; ip -n far link set far1 up; \
                  ip -n far -6 route add default via 2001:db8:f::1";
    lab.internet(["sh", "-e", "-c", script])?.output()?;
    let done = lab.nsntrace(["-q", "python3", "-c", TOO_BIG, "2001:db8:f::2"])?.run()?.exited(0)?;
    assert!(done.trace().count_of("icmpv6.type == 2")? > 0, "no word of it in the trace");
    Ok(())
}

fn no_default_route_is_told_to_the_program(lab: &Lab) -> Result<()> {
    lab.ipv6_on_the_link()?;
    let before = lab.snapshot()?;
    let url = format!("http://[{SERVER_ADDRESS6}]/");
    let done = lab.nsntrace(["curl", "-s", "-m", "30", &url])?.run()?.exited(7)?;
    assert!(done.trace().count_of("icmpv6.type == 1")? > 0, "it was not told");
    lab.assert_clean(&before)
}

fn no_route_but_the_hosts_own_addresses(lab: &Lab) -> Result<()> {
    lab.ipv6_on_the_link()?;
    let done = lab.nsntrace(["-q", "busybox", "ping", "-6", "-c", "1", HOST_ADDRESS6])?.run()?.exited(0)?;
    assert_eq!(done.trace().count_of("icmpv6.type == 129")?, 1);
    Ok(())
}

/// A name with addresses of both families, on a host that reaches one of them.
fn dual_stack_falls_back(lab: &Lab) -> Result<()> {
    lab.ipv6_on_the_link()?;
    let web = lab.web()?;
    let resolve = format!("both.test:80:[{SERVER_ADDRESS6}],{SERVER_ADDRESS}");
    let words = ["curl", "-s", "-m", "30", "--resolve", &resolve, "http://both.test/data.bin"];
    let done = lab.nsntrace(words)?.run()?.exited(0)?;
    assert!(done.stdout == web.body);
    Ok(())
}

/// The host itself is heard on its cable only: neighbours on the link are not found by asking.
fn firewall_that_takes_and_forwards_nothing(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let web = lab.web6()?;
    lab.sh("ip6tables -P INPUT DROP; ip6tables -A INPUT -i eth1 -j ACCEPT")?;
    lab.sh("ip6tables -P FORWARD DROP; ip6tables -A FORWARD -j DROP")?;
    let before = lab.snapshot()?;
    download(lab, &[], &web)?;
    lab.assert_clean(&before)
}

/// By the one that the host's routing does not choose, and the other.
fn named_device_is_used(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    lab.second_cable()?;
    lab.sh("ip address add 2001:db8:98::1/64 dev eth2 nodad; ip address add fe80::1/64 dev eth2 nodad")?;
    lab.sh("ip -6 route add default via 2001:db8:98::2 dev eth2 metric 4000")?;
    lab.internet(["ip", "address", "add", "2001:db8:98::2/64", "dev", "inet1", "nodad"])?.output()?;
    let web = lab.web6()?;
    for (device, address) in [("eth2", "2001:db8:98::1"), ("eth1", HOST_ADDRESS6)] {
        let before = lab.snapshot()?;
        download(lab, &["-d", device], &web)?;
        let log = web.log()?;
        let last = log.lines().last().unwrap_or_default();
        assert!(last.starts_with(address), "-d {device}: asked by {last}");
        lab.assert_clean(&before)?;
    }
    Ok(())
}

/// Nothing takes the way that the host itself would take.
fn named_device_without_ipv6(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    lab.second_cable()?;
    let web = lab.web6()?;
    let before = lab.snapshot()?;
    lab.nsntrace(["-d", "eth2", "curl", "-s", "-m", "30", &web.url])?.run()?.exited(7)?;
    assert_eq!(web.log()?, "", "it was asked by another way");
    lab.assert_clean(&before)
}

fn settings_are_carried_over(lab: &Lab) -> Result<()> {
    let setting = "/proc/sys/net/ipv6/bindv6only";
    lab.sh(&format!("echo 1 > {setting}"))?;
    assert_eq!(lab.nsntrace(["-q", "cat", setting])?.output()?, "1\n");
    Ok(())
}

/// The trace goes on in IPv4, and one line says that IPv6 is not there.
fn ipv4_only(done: Done, reason: &str) -> Result<()> {
    let told: Vec<_> = done.stderr.lines().filter(|line| line.contains("no IPv6")).collect();
    ensure!(told.len() == 1 && told[0].contains(reason), "{}", done.stderr);
    let done = done.exited(0)?;
    assert_eq!(done.trace().count_of("ipv6")?, 0);
    assert!(done.trace().count_of("http.response")? > 0);
    Ok(())
}

fn switched_off_on_the_host(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let web = lab.web()?;
    lab.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")?;
    let before = lab.snapshot()?;
    let done = download(lab, &[], &web)?;
    ipv4_only(done, "switched off")?;
    lab.assert_clean(&before)
}

fn no_ip6tables(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let mut job = lab.nsntrace(["/usr/bin/curl", "-s", "-m", "20", &web.url])?;
    for name in ["iptables", "iptables-restore"] {
        job = job.tool(name, &format!("exec /usr/sbin/{name} \"$@\""))?;
    }
    let path = job.dir().display().to_string();
    ipv4_only(job.env("PATH", &path).run()?, "ip6tables")?;
    lab.assert_clean(&before)
}

/// A kernel without that table, as iptables-legacy says it.
fn no_nat_in_ipv6(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let job = lab.nsntrace(["curl", "-s", "-m", "20", &web.url])?;
    let fails = "echo \"can't initialize ip6tables table 'nat': Table does not exist\" >&2; exit 3";
    let tool = format!(r#"case "$*" in *nat*) {fails};; esac; exec /usr/sbin/ip6tables "$@""#);
    let restore = format!("grep -q '^.nat' && {{ {fails}; }}; exit 0");
    let job = job.tool("ip6tables", &tool)?.tool("ip6tables-restore", &restore)?;
    ipv4_only(job.run()?, "Table does not exist")?;
    lab.assert_clean(&before)
}

/// As in a container.
fn settings_cannot_be_written(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let web = lab.web()?;
    let folder = "/proc/sys/net/ipv6";
    lab.sh(&format!("mount --bind {folder} {folder} && mount -o remount,bind,ro {folder}"))?;
    let before = lab.snapshot()?;
    let done = download(lab, &[], &web)?;
    assert_eq!(done.stderr.matches("no IPv6").count(), 1, "{}", done.stderr);
    lab.assert_clean(&before)
}

fn mtu_below_the_least(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    lab.sh("ip link set eth1 mtu 1279")?;
    let before = lab.snapshot()?;
    let done = download(lab, &[], &web)?;
    ipv4_only(done, "1279")?;
    lab.assert_clean(&before)
}
