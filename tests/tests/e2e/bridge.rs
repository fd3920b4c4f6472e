//! Frames that pass a bridge of the host are not forwarded by it. Where its packet filter sees them all the same, a trace
//! lets them be, and yet forwards for nobody else.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use nsntrace_tests::{Lab, Running};

use crate::{
    Case, cases,
    firewall::{IPTABLES, IPTABLES_LEGACY, programs},
    forwarding6::each_way,
    network::ended,
};

pub const CASES: &[Case] = cases![
    frames_pass,
    frames_pass_in_ipv6,
    frames_pass_with_iptables_legacy,
    frames_pass_with_nft,
    no_match_and_no_bridge,
];

/// Why they cannot be tried here.
pub fn why_not() -> Option<String> {
    let is_there = Path::new("/proc/sys/net/bridge").exists();
    (!is_there).then(|| "the packet filter does not see what passes a bridge: modprobe br_netfilter".into())
}

/// A bridge that is a way out of the host, with two guests at its ports. `.4` is a second address of the second guest, which
/// the first one believes to be behind the host.
const BRIDGE: &str = "
    ip link add br0 type bridge
    ip link set br0 addrgenmode none
    ip link set br0 up
    ip address add 10.77.0.1/24 dev br0
    ip address add fd77::1/64 dev br0 nodad
    ip route add default via 10.77.0.2 metric 2000
    ip route add default via fd77::2 metric 2000
    for guest in 2 3; do
        ip netns add guest$guest
        ip link add port$guest type veth peer name eth0 netns guest$guest
        ip link set port$guest addrgenmode none master br0
        ip link set port$guest up
        ip -n guest$guest link set eth0 addrgenmode none
        ip -n guest$guest link set eth0 up
        ip -n guest$guest address add 10.77.0.$guest/24 dev eth0
        ip -n guest$guest address add fd77::$guest/64 dev eth0 nodad
    done
    ip -n guest3 address add 10.77.0.4/24 dev eth0
    ip -n guest3 address add fd77::4/64 dev eth0 nodad
    ip -n guest2 route add 10.77.0.4/32 via 10.77.0.1
    ip -n guest2 route add fd77::4/128 via fd77::1
";

fn set_up(lab: &Lab) -> Result<()> {
    lab.sh(BRIDGE).map(drop)
}

/// Whether the first guest gets an answer from there.
fn is_reached(lab: &Lab, address: &str) -> Result<bool> {
    let ping = ["ip", "netns", "exec", "guest2", "busybox", "ping", "-c", "1", "-W", "2", address];
    Ok(lab.host(ping)?.run()?.status.success())
}

/// A trace with these tools alone, in which forwarding from the bridge is guarded.
fn traced(lab: &Lab, tools: &[(&str, &str)]) -> Result<Running> {
    let job = lab.nsntrace(["sh", "-c", "echo ready; read line; exit 0"])?.told();
    let path = programs(job.dir(), &[tools, &[("sh", "sh")]].concat())?;
    let mut run = job.env("PATH", &path).spawn()?;
    run.says("ready")?;
    let rules = "iptables-save; ip6tables-save; iptables-legacy-save; nft list ruleset";
    let guarded = lab.sh(rules)?;
    let is_guarded = ["br0", "*"].iter().any(|place| guarded.contains(&format!("nsntrace:guard-{place}")));
    ensure!(is_guarded, "the host is not guarded");
    Ok(run)
}

/// In a trace with these tools frames pass to the one address, and nothing is routed to the other.
fn only_frames_pass(lab: &Lab, tools: &[(&str, &str)], [neighbour, routed]: [&str; 2]) -> Result<Running> {
    let run = traced(lab, tools)?;
    ensure!(is_reached(lab, neighbour)?, "frames do not pass");
    ensure!(!is_reached(lab, routed)?, "the host forwards");
    Ok(run)
}

fn frames_pass(lab: &Lab) -> Result<()> {
    set_up(lab)?;
    let before = lab.snapshot()?;
    ended(only_frames_pass(lab, &IPTABLES, ["10.77.0.3", "10.77.0.4"])?)?;
    lab.assert_clean(&before)
}

fn frames_pass_in_ipv6(_: &Lab) -> Result<()> {
    each_way(|lab, _| {
        lab.ipv6()?;
        set_up(lab)?;
        let before = lab.snapshot()?;
        ended(only_frames_pass(lab, &IPTABLES, ["fd77::3", "fd77::4"])?)?;
        lab.assert_clean(&before)
    })
}

/// The guard goes away in every form, and as often as it is there.
fn frames_pass_with_iptables_legacy(lab: &Lab) -> Result<()> {
    set_up(lab)?;
    let before = lab.snapshot()?;
    let run = only_frames_pass(lab, &IPTABLES_LEGACY, ["10.77.0.3", "10.77.0.4"])?;
    let guard = "-A FORWARD -i br0 ! -o nsgw+ -m comment --comment nsntrace:guard-br0 -j DROP";
    lab.sh(&format!("iptables-legacy {guard}; iptables-legacy {guard}"))?;
    ended(run)?;
    lab.assert_clean(&before)
}

/// It cannot tell what is routed out of the bridge again from that.
fn frames_pass_with_nft(_: &Lab) -> Result<()> {
    each_way(|lab, _| {
        lab.ipv6()?;
        set_up(lab)?;
        let before = lab.snapshot()?;
        let run = traced(lab, &[("nft", "nft")])?;
        for address in ["10.77.0.3", "fd77::3", "10.77.0.4"] {
            ensure!(is_reached(lab, address)?, "frames do not pass to {address}");
        }
        ended(run)?;
        lab.assert_clean(&before)
    })
}

/// A kernel whose iptables cannot tell the two apart is no obstacle where nobody needs it.
fn no_match_and_no_bridge(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let restore = "cd \"$(dirname \"$0\")\"
        rules=$(cat)
        case $rules in *physdev*) echo missing kernel module >&2; echo refused > refused; exit 2 ;; esac
        echo \"$rules\" | exec /usr/sbin/iptables-restore \"$@\"";
    let job = lab.nsntrace(["curl", "-s", "-m", "20", "-o", "page", &web.url])?;
    let done = job.tool("iptables-restore", restore)?.run()?.exited(0)?;
    ensure!(fs::read(done.dir.join("page"))? == web.body, "the download is not whole");
    ensure!(done.dir.join("refused").exists(), "the match was not asked for");
    lab.assert_clean(&before)
}
