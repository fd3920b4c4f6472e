//! Ways out that are not one plain default route, and such as change during a trace.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use nsntrace_tests::ask::{answer, ask, start};
use nsntrace_tests::{HOST_ADDRESS, HOST_DEVICE, Lab, Running, SERVER_ADDRESS6, SOON, Web, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    several_next_hops,
    policy_routing,
    tunnel_of_a_vpn,
    named_tunnel,
    another_network,
    another_network_by_ipv6,
    none_at_all,
    named_device_gets_another_gateway,
    named_device_goes_down_and_comes_back,
    named_device_is_made_anew,
];

/// Downloads, and returns who has asked the server.
fn asked_by(lab: &Lab, web: &Web, options: &[&str]) -> Result<String> {
    let before = lab.snapshot()?;
    let words = [options, &["curl", "-s", "-S", "-m", "20", &web.url]].concat();
    let done = lab.nsntrace(words)?.run()?.exited(0)?;
    ensure!(done.stdout == web.body, "the download is not whole");
    lab.assert_clean(&before)?;
    let log = web.log()?;
    let last = log.lines().last().context("nobody has asked")?;
    Ok(last.split(' ').next().unwrap_or_default().to_owned())
}

/// Each connection goes by one of them; the host forwards what comes in at both.
fn several_next_hops(lab: &Lab) -> Result<()> {
    lab.second_cable()?;
    let hops = "nexthop via 10.99.0.2 dev eth1 nexthop via 10.98.0.2 dev eth2";
    lab.sh(&format!("ip route flush default; ip route add default {hops}"))?;
    // By addresses and ports, not by addresses alone.
    lab.sh("echo 1 > /proc/sys/net/ipv4/fib_multipath_hash_policy")?;
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let program = r#"for n in $(seq 24); do curl -s -o page -m 20 "$1" || exit; done"#;
    lab.nsntrace(["sh", "-c", program, "sh", &web.url])?.run()?.exited(0)?;
    let log = web.log()?;
    for address in ["10.99.0.1 ", "10.98.0.1 "] {
        ensure!(log.lines().any(|line| line.starts_with(address)), "none by {address}:\n{log}");
    }
    lab.assert_clean(&before)
}

/// A rule of the host's leads some of it by another device.
fn policy_routing(lab: &Lab) -> Result<()> {
    lab.second_cable()?;
    lab.sh("ip route del default dev eth2; ip route add default via 10.98.0.2 dev eth2 table 200")?;
    let web = lab.web()?;
    ensure!(asked_by(lab, &web, &[])? == "10.99.0.1", "the table is not to be used yet");
    lab.sh("ip rule add to 203.0.113.0/24 lookup 200 priority 1000")?;
    ensure!(asked_by(lab, &web, &[])? == "10.98.0.1", "the rule is not followed");
    Ok(())
}

/// One end of a tunnel, as a VPN's program has it.
const TUNNEL: &str = "
import fcntl, os, select, socket, struct, sys
name, path, side = sys.argv[1:]
tunnel = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tunnel, 0x400454ca, struct.pack('16sH22x', name.encode(), 0x1001))
other = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if side == 'first':
    other.bind(path)
    other.listen()
    print('listening', flush=True)
    other, _ = other.accept()
else:
    other.connect(path)
    print('listening', flush=True)
while True:
    for ready in select.select([tunnel, other], [], [])[0]:
        if ready is tunnel:
            other.send(os.read(tunnel, 2000))
            continue
        packet = other.recv(2000)
        try:
            os.write(tunnel, packet)
        except OSError:
            pass # It is not up yet.
";

/// A tunnel from 10.8.0.1 on the host to the servers.
fn tunnel(lab: &Lab) -> Result<[Running; 2]> {
    let path = lab.dir().join("tunnel").display().to_string();
    let words = |name, side| ["python3", "-c", TUNNEL, name, &path, side].map(str::to_owned);
    let ends = [start(lab.internet(words("vpn1", "first"))?)?, start(lab.host(words("vpn0", "second"))?)?];
    lab.sh("ip address add 10.8.0.1 peer 10.8.0.2 dev vpn0; ip link set vpn0 mtu 1400 up")?;
    let script = "ip address add 10.8.0.2 peer 10.8.0.1 dev vpn1; ip link set vpn1 mtu 1400 up";
    lab.internet(["sh", "-e", "-c", script])?.output()?;
    Ok(ends)
}

/// Two routes for half of the world each leave the host's own default route in place.
fn tunnel_of_a_vpn(lab: &Lab) -> Result<()> {
    let _tunnel = tunnel(lab)?;
    lab.sh("ip -4 route add 0.0.0.0/1 dev vpn0; ip -4 route add 128.0.0.0/1 dev vpn0")?;
    let web = lab.web()?;
    ensure!(asked_by(lab, &web, &[])? == "10.8.0.1", "it went around the tunnel");
    let done = lab.nsntrace(["ip", "-o", "link", "show", "type", "veth"])?.run()?.exited(0)?;
    ensure!(done.text().contains("mtu 1400"), "{}", done.text());
    done.line_with("on interface vpn0.").map(drop)
}

fn named_tunnel(lab: &Lab) -> Result<()> {
    let _tunnel = tunnel(lab)?;
    let web = lab.web()?;
    ensure!(asked_by(lab, &web, &["-d", "vpn0"])? == "10.8.0.1", "it went around the tunnel");
    ensure!(asked_by(lab, &web, &[])? == "10.99.0.1", "the host's routing is not followed");
    Ok(())
}

/// As behind a VPN for some addresses: answers come in where no default route leads, or there is none at all.
fn another_network(lab: &Lab) -> Result<()> {
    lab.second_cable()?;
    lab.sh("ip route del default dev eth2; ip route add 203.0.113.0/24 via 10.98.0.2 dev eth2")?;
    let web = lab.web()?;
    ensure!(asked_by(lab, &web, &[])? == "10.98.0.1", "the route is not followed");
    lab.sh("ip route del default")?;
    ensure!(asked_by(lab, &web, &[])? == "10.98.0.1", "the route is not followed without a default one");
    Ok(())
}

fn another_network_by_ipv6(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let web = lab.web6()?;
    lab.sh(&format!(
        "way=$(ip -6 route show default); ip -6 route del default; ip -6 route add {SERVER_ADDRESS6} ${{way#default}}"
    ))?;
    asked_by(lab, &web, &[]).map(drop)
}

/// The host's own servers are there.
fn none_at_all(lab: &Lab) -> Result<()> {
    lab.sh("ip route del default")?;
    let _server = start(lab.host(answer("8000", &[HOST_ADDRESS]))?)?;
    let before = lab.snapshot()?;
    for transport in ["tcp", "udp"] {
        let words = ask(transport, HOST_ADDRESS, "8000");
        let told = lab.nsntrace([&["-q"], &words[..]].concat())?.output()?;
        ensure!(told == "172.16.42.255\n", "{transport}: {told}");
    }
    lab.assert_clean(&before)
}

/// A run by eth2 that downloads as often as it is told to.
fn waiting(lab: &Lab, web: &Web) -> Result<Running> {
    let program = r#"echo ready; while read line; do curl -s -o page -m 20 "$1"; echo "curl: $?"; done"#;
    let mut run = lab.nsntrace(["-d", "eth2", "sh", "-c", program, "sh", &web.url])?.told().spawn()?;
    run.says("ready")?;
    Ok(run)
}

fn came_by_eth2(web: &Web) -> Result<()> {
    let log = web.log()?;
    ensure!(log.starts_with("10.98.0.1 "), "it went another way: {log}");
    Ok(())
}

/// Waits until the table of the run has a route with these words, or has none.
fn table_has(lab: &Lab, words: &str, has: bool) -> Result<()> {
    until(&format!("the table with {words:?}: {has}"), SOON, || {
        let rules = lab.sh("ip rule")?;
        let table = rules.lines().find(|line| line.contains("iif nsgw")).context("no rule")?;
        let table = table.split_whitespace().last().context("no table")?;
        let routes = lab.sh(&format!("ip route show table {table}"))?;
        Ok((routes.contains(words) == has).then_some(()))
    })
}

/// As where the lease is renewed.
fn named_device_gets_another_gateway(lab: &Lab) -> Result<()> {
    lab.second_cable()?;
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let mut run = waiting(lab, &web)?;
    let mut stdin = run.stdin_pipe()?;
    lab.internet([
        "sh",
        "-e",
        "-c",
        "ip address del 10.98.0.2/24 dev inet1; ip address add 10.98.0.3/24 dev inet1",
    ])?
    .output()?;
    let moves = "ip route del default dev eth2; ip route add default via 10.98.0.3 dev eth2 metric 1000";
    lab.sh(moves)?;
    table_has(lab, "via 10.98.0.3", true)?;
    table_has(lab, "via 10.98.0.2", false)?;
    stdin.write_all(b"\n")?;
    run.says("curl: 0")?;
    drop(stdin);
    let done = run.wait()?.exited(0)?;
    ensure!(fs::read(done.dir.join("page"))? == web.body, "the download is not whole");
    came_by_eth2(&web)?;
    lab.sh(&moves.replace("10.98.0.3", "10.98.0.2"))?;
    lab.assert_clean(&before)
}

/// Meanwhile nothing takes the way that the host itself would take.
fn named_device_goes_down_and_comes_back(lab: &Lab) -> Result<()> {
    lab.second_cable()?;
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let mut run = waiting(lab, &web)?;
    let mut stdin = run.stdin_pipe()?;
    lab.sh("ip link set eth2 down")?;
    stdin.write_all(b"\n")?;
    // It is told at once that there is no way.
    run.says("curl: 7")?;
    ensure!(web.log()?.is_empty(), "it went another way: {}", web.log()?);
    lab.sh("ip link set eth2 up; ip route add default via 10.98.0.2 dev eth2 metric 1000")?;
    table_has(lab, "via 10.98.0.2", true)?;
    stdin.write_all(b"\n")?;
    run.says("curl: 0")?;
    came_by_eth2(&web)?;
    drop(stdin);
    run.wait()?.exited(0)?;
    lab.assert_clean(&before)
}

/// As where a VPN connects again: the device has another number, and does not forward.
fn named_device_is_made_anew(lab: &Lab) -> Result<()> {
    lab.second_cable()?;
    let web = lab.web()?;
    let mut run = waiting(lab, &web)?;
    let mut stdin = run.stdin_pipe()?;
    lab.sh("ip link del eth2")?;
    stdin.write_all(b"\n")?;
    run.says("curl: 7")?;
    lab.second_cable()?;
    table_has(lab, "via 10.98.0.2", true)?;
    stdin.write_all(b"\n")?;
    run.says("curl: 0")?;
    came_by_eth2(&web)?;
    drop(stdin);
    run.wait()?.exited(0)?;
    ensure!(
        !lab.sh("ip rule; ip route show table all; iptables-save")?.contains("nsntrace:"),
        "rules are left"
    );
    ensure!(
        lab.sh(&format!("cat /proc/sys/net/ipv4/conf/{HOST_DEVICE}/forwarding"))? == "0\n",
        "it forwards"
    );
    Ok(())
}
