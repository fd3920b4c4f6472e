//! Frames that pass a bridge of the host are not forwarded by it. Where its packet filter sees them all the same, a trace
//! lets them be, and yet forwards for nobody else.

use anyhow::{Result, ensure};
use nsntrace_tests::Lab;

use crate::{
    Case, cases,
    firewall::{IPTABLES, programs},
    forwarding6::each_way,
};

pub const CASES: &[Case] =
    cases![frames_pass, frames_pass_in_ipv6, frames_pass_with_iptables_legacy, frames_pass_with_nft,];

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

/// Whether the first guest gets an answer from there.
const REACHES: &str = "ip netns exec guest2 busybox ping -c 1 -W 2";

fn set_up(lab: &Lab) -> Result<()> {
    lab.host(["sh", "-e", "-c", BRIDGE])?.output().map(drop)
}

/// A trace with these tools alone, in the course of which the guests talk.
fn guests_talk(lab: &Lab, tools: &[(&str, &str)], reached: &[&str], not_reached: &[&str]) -> Result<()> {
    let before = lab.snapshot()?;
    let mut script = "set -e\n".to_owned();
    for address in reached {
        script.push_str(&format!("{REACHES} {address} >&2\n"));
    }
    for address in not_reached {
        script.push_str(&format!("if {REACHES} {address} >&2; then exit 9; fi\n"));
    }
    let job = lab.nsntrace(["sh", "-c", "echo ready; read line; exit 0"])?.told();
    let path = programs(job.dir(), &[tools, &[("sh", "sh")]].concat())?;
    let mut run = job.env("PATH", &path).spawn()?;
    run.says("ready")?;
    let rules = "iptables-save; ip6tables-save; iptables-legacy-save; nft list ruleset";
    let guarded = lab.host(["sh", "-c", rules])?.output()?;
    ensure!(guarded.contains("nsntrace:guard-"), "the host is not guarded");
    lab.host(["sh", "-c", &script])?.output()?;
    drop(run.stdin_pipe()?);
    run.wait()?.exited(0)?;
    lab.assert_clean(&before)
}

fn frames_pass(lab: &Lab) -> Result<()> {
    set_up(lab)?;
    guests_talk(lab, &IPTABLES, &["10.77.0.3"], &["10.77.0.4"])
}

fn frames_pass_in_ipv6(_: &Lab) -> Result<()> {
    each_way(|lab, _| {
        lab.ipv6()?;
        set_up(lab)?;
        guests_talk(lab, &IPTABLES, &["fd77::3"], &["fd77::4"])
    })
}

fn frames_pass_with_iptables_legacy(lab: &Lab) -> Result<()> {
    set_up(lab)?;
    let tools = IPTABLES.map(|(name, _)| (name, name.replace("tables", "tables-legacy")));
    let tools: Vec<_> = tools.iter().map(|(name, program)| (*name, program.as_str())).collect();
    guests_talk(lab, &tools, &["10.77.0.3"], &["10.77.0.4"])
}

/// It cannot tell the two apart.
fn frames_pass_with_nft(_: &Lab) -> Result<()> {
    each_way(|lab, _| {
        lab.ipv6()?;
        set_up(lab)?;
        guests_talk(lab, &[("nft", "nft")], &["10.77.0.3", "fd77::3"], &[])
    })
}
