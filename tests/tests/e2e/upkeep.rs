//! Others change the host's rules and routes during a trace: its packets go on.

use std::fs;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{HOST_DEVICE, Lab, Running, SOON, Web, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    rules_are_flushed,
    rules_are_flushed_while_it_counts,
    whole_ruleset_is_flushed,
    firewall_is_loaded_anew,
    firewall_is_started,
    way_out_moves,
    way_out_comes_back_and_back
];

/// A run that downloads from both servers when it is told to.
pub fn waiting(lab: &Lab, web: &Web, web6: &Web) -> Result<Running> {
    let program = r#"echo ready; read line; curl -s -o page -m 20 "$1" && exec curl -s -o page6 -m 20 "$2""#;
    let mut run = lab.nsntrace(["sh", "-c", program, "sh", &web.url, &web6.url])?.told().spawn()?;
    run.says("ready")?;
    Ok(run)
}

pub fn goes_on(mut run: Running, web: &Web, web6: &Web) -> Result<String> {
    run.stdin_pipe()?.write_all(b"\n")?;
    let done = run.wait()?.exited(0)?;
    ensure!(fs::read(done.dir.join("page"))? == web.body, "the download is not whole");
    ensure!(fs::read(done.dir.join("page6"))? == web6.body, "the download by IPv6 is not whole");
    Ok(done.stderr)
}

/// What a script for a firewall does first. The rules that guard the host's forwarding come back too.
fn survives(lab: &Lab, flush: &str) -> Result<()> {
    lab.ipv6()?;
    let web = lab.web()?;
    let web6 = lab.web6()?;
    let before = lab.snapshot()?;
    let guards = || -> Result<usize> {
        let saved = lab.sh("iptables-save || :; ip6tables-save || :; nft list ruleset")?;
        Ok(saved.matches("nsntrace:guard").count())
    };
    let mut run = waiting(lab, &web, &web6)?;
    let guarded = guards()?;
    ensure!(guarded > 0, "the host is not guarded");
    lab.sh(flush)?;
    run.complains("inserted again")?;
    let told = goes_on(run, &web, &web6)?;
    ensure!(told.matches("inserted again").count() == 1, "{told}");
    lab.assert_clean(&before).context("after the trace")
}

fn rules_are_flushed(lab: &Lab) -> Result<()> {
    survives(lab, "for tool in iptables ip6tables; do $tool -F; $tool -t nat -F; done")
}

/// The count on a terminal is renewed all the time.
fn rules_are_flushed_while_it_counts(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let job = lab.nsntrace(["-v", "sh", "-c", "echo ready; read line"])?;
    let mut terminal = job.spawn_on_terminal()?;
    terminal.shows("ready")?;
    terminal.shows("Got 0")?;
    lab.sh("iptables -F; iptables -t nat -F")?;
    terminal.shows("inserted again")?;
    terminal.types("\n")?;
    terminal.process.wait()?.exited(0)?;
    lab.assert_clean(&before)
}

pub fn whole_ruleset_is_flushed(lab: &Lab) -> Result<()> {
    survives(lab, "nft flush ruleset")
}

/// A firewall that drops what is forwarded is there before and after.
fn firewall_is_loaded_anew(lab: &Lab) -> Result<()> {
    let firewall =
        "add table inet fw; add chain inet fw out { type filter hook forward priority 5; policy drop; }";
    lab.sh(&format!("nft '{firewall}'"))?;
    survives(lab, &format!("nft 'flush ruleset; {firewall}'"))?;
    let rules = lab.host(["nft", "list", "table", "inet", "fw"])?.output()?;
    ensure!(!rules.contains("nsntrace"), "rules are left:\n{rules}");
    Ok(())
}

/// A firewall that was not there before drops what is forwarded, goes again, and comes back by a slow script, which fills its
/// chain some time after it has made it.
fn firewall_is_started(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let web = lab.web()?;
    let web6 = lab.web6()?;
    let before = lab.snapshot()?;
    let run = waiting(lab, &web, &web6)?;
    let rules = || lab.host(["nft", "list", "table", "inet", "fw"])?.output();
    let chain = "add table inet fw; add chain inet fw out { type filter hook forward priority 5; policy";
    for start in [
        format!("nft '{chain} drop; }}'"),
        format!("nft delete table inet fw; nft '{chain} accept; }}'; sleep 2; nft add rule inet fw out drop"),
    ] {
        lab.sh(&start)?;
        until("rules in the new firewall", SOON, || Ok(rules()?.contains("nsntrace:").then_some(())))?;
    }
    let told = goes_on(run, &web, &web6)?;
    ensure!(!told.contains("held back"), "{told}");
    ensure!(!rules()?.contains("nsntrace:"), "rules are left:\n{}", rules()?);
    lab.sh("nft delete table inet fw")?;
    lab.assert_clean(&before)
}

/// As where a cable is pulled, or a VPN comes up.
fn way_out_moves(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    lab.second_cable()?;
    lab.internet(["ip", "address", "add", "2001:db8:98::2/64", "dev", "inet1", "nodad"])?.output()?;
    lab.sh("ip address add 2001:db8:98::1/64 dev eth2 nodad; ip route del default dev eth2")?;
    let web = lab.web()?;
    let web6 = lab.web6()?;
    let before = lab.snapshot()?;
    let mut run = waiting(lab, &web, &web6)?;
    lab.sh("ip route del default; ip route add default via 10.98.0.2 dev eth2")?;
    run.complains("IPv4 forwarding on eth2")?;
    lab.sh("ip -6 route del default; ip -6 route add default via 2001:db8:98::2 dev eth2")?;
    if fs::exists("/proc/sys/net/ipv6/conf/all/force_forwarding")? {
        run.complains("IPv6 forwarding on eth2")?;
    }
    goes_on(run, &web, &web6)?;
    lab.sh(&format!(
        "ip route del default; ip route add default via 10.99.0.2 dev {HOST_DEVICE}
             ip -6 route del default; ip -6 route add default via fe80::2 dev {HOST_DEVICE}"
    ))?;
    lab.assert_clean(&before)
}

/// As a VPN that is connected anew each time: its device forwards nothing then. It is recorded and guarded once.
fn way_out_comes_back_and_back(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let mut run = lab.nsntrace(["sh", "-c", "echo ready; read line"])?.told().spawn()?;
    run.says("ready")?;
    let forwarding = format!("/proc/sys/net/ipv4/conf/{HOST_DEVICE}/forwarding");
    for metric in 1..=3 {
        lab.sh(&format!("echo 0 > {forwarding}; ip route add default via 10.99.0.2 metric {metric}"))?;
        until("forwarding", SOON, || Ok((lab.host(["cat", &forwarding])?.output()? == "1\n").then_some(())))?;
    }
    let record = lab.sh("cat /run/nsntrace/????????")?;
    let recorded = record.matches("\"Forwarding\"").count();
    let guards = lab.host(["iptables-save"])?.output()?.matches("nsntrace:guard").count();
    run.stdin_pipe()?.write_all(b"\n")?;
    run.wait()?.exited(0)?;
    ensure!((recorded, guards) == (1, 1), "recorded {recorded} times, guarded by {guards} rules:\n{record}");
    lab.sh("for metric in 1 2 3; do ip route del default metric $metric; done")?;
    lab.assert_clean(&before)
}
