//! A host without iptables: nft carries the same rules, and all is as it is elsewhere.

use std::io::Write;

use anyhow::{Result, ensure};
use nsntrace_tests::{Done, Lab, Running};

use crate::{
    Case, cases, check, dns, firewall, host_services, ipv6, parallel, publish, resolv_conf, undo, upkeep,
};

pub const CASES: &[Case] = cases![
    check_says_who_carries_rules,
    rules_are_in_a_table_of_their_own,
    table_of_the_same_name,
    download_in_ipv6,
    name_look_ups_are_relayed,
    no_resolv_conf,
    published_ports,
    host_loopback,
    five_at_once,
    chains_of_others,
    chains_that_iptables_has_left,
    ruleset_is_flushed,
    tracer_is_killed,
    tracer_and_guardian_are_killed,
    rules_are_left_by_all,
    ip6tables_alone_is_missing,
    neither_of_them,
];

/// Hides tools of the host's, and all that are links to the same files.
fn hide(lab: &Lab, tools: &[&str]) -> Result<()> {
    let script = r#"for tool; do mount --bind /dev/null "$(readlink -f "$(command -v "$tool")")"; done"#;
    lab.host([&["sh", "-e", "-c", script, "sh"], tools].concat())?.output().map(drop)
}

/// A test of other hosts, on one without iptables.
fn as_with_iptables(lab: &Lab, test: fn(&Lab) -> Result<()>) -> Result<()> {
    hide(lab, &["iptables-nft", "iptables-legacy"])?;
    test(lab)
}

fn check_says_who_carries_rules(lab: &Lab) -> Result<()> {
    hide(lab, &["iptables-nft", "iptables-legacy"])?;
    let told = check::check(lab, &[], &[])?.exited(0)?.text();
    for tool in ["iptables", "ip6tables"] {
        let (state, text) = check::line(&told, tool)?;
        ensure!(state == "found" && text.starts_with("nftables v") && text.ends_with(tool), "{told}");
    }
    Ok(())
}

fn waiting(lab: &Lab) -> Result<Running> {
    let web = lab.web()?;
    let program = r#"curl -s -m 20 -o page "$1" && echo ready; read line"#;
    let mut run = lab.nsntrace(["sh", "-c", program, "sh", &web.url])?.told().spawn()?;
    run.says("ready")?;
    Ok(run)
}

fn goes_on(mut run: Running) -> Result<Done> {
    run.stdin_pipe()?.write_all(b"\n")?;
    run.wait()?.exited(0)
}

fn rules_are_in_a_table_of_their_own(lab: &Lab) -> Result<()> {
    hide(lab, &["iptables-nft", "iptables-legacy"])?;
    lab.ipv6()?;
    let before = lab.snapshot()?;
    let run = waiting(lab)?;
    let tables = || lab.host(["nft", "list", "tables"])?.output();
    let mut during: Vec<_> = tables()?.lines().map(str::to_owned).collect();
    during.sort_unstable();
    ensure!(during == ["table ip nsntrace", "table ip6 nsntrace"], "{during:?}");
    goes_on(run)?;
    ensure!(tables()?.is_empty(), "{}", tables()?);
    lab.assert_clean(&before)
}

/// What others have in it stays as it is.
fn table_of_the_same_name(lab: &Lab) -> Result<()> {
    hide(lab, &["iptables-nft", "iptables-legacy"])?;
    lab.ipv6()?;
    let theirs = "
        table ip nsntrace {
            chain theirs { counter; }
            chain filter_FORWARD { type filter hook forward priority filter; oifname \"eth9\" accept; }
        }
        table ip6 nsntrace {
            set theirs { type ipv6_addr; }
        }";
    lab.host(["nft", "-f", "-"])?.input(theirs.as_bytes())?.output()?;
    let before = firewall::Before::new(lab)?;
    goes_on(waiting(lab)?)?;
    before.assert_clean()
}

fn download_in_ipv6(lab: &Lab) -> Result<()> {
    as_with_iptables(lab, ipv6::download_is_whole)
}

fn name_look_ups_are_relayed(lab: &Lab) -> Result<()> {
    as_with_iptables(lab, dns::server_on_loopback)
}

fn no_resolv_conf(lab: &Lab) -> Result<()> {
    as_with_iptables(lab, resolv_conf::file_is_missing)
}

fn published_ports(lab: &Lab) -> Result<()> {
    as_with_iptables(lab, publish::reached_from_everywhere)
}

fn host_loopback(lab: &Lab) -> Result<()> {
    host_services::take_nothing(lab)?;
    as_with_iptables(lab, host_services::is_reached)
}

fn five_at_once(lab: &Lab) -> Result<()> {
    as_with_iptables(lab, parallel::five_at_once)
}

fn chains_of_others(lab: &Lab) -> Result<()> {
    as_with_iptables(lab, firewall::chain_for_what_comes_in)
}

/// Then they are those of others.
fn chains_that_iptables_has_left(lab: &Lab) -> Result<()> {
    lab.sh("iptables-nft -P FORWARD DROP && ip6tables-nft -P FORWARD DROP")?;
    as_with_iptables(lab, firewall::chains_of_one_family)
}

fn ruleset_is_flushed(lab: &Lab) -> Result<()> {
    as_with_iptables(lab, upkeep::whole_ruleset_is_flushed)
}

fn tracer_is_killed(lab: &Lab) -> Result<()> {
    as_with_iptables(lab, undo::tracer_is_killed)
}

fn tracer_and_guardian_are_killed(lab: &Lab) -> Result<()> {
    as_with_iptables(lab, undo::tracer_and_guardian_are_killed)
}

/// In chains of others as well.
fn rules_are_left_by_all(lab: &Lab) -> Result<()> {
    as_with_iptables(lab, firewall::everybody_is_killed)
}

/// Each family has its own carrier.
fn ip6tables_alone_is_missing(lab: &Lab) -> Result<()> {
    let job = lab.nsntrace(["sh", "-c", "ip -6 -o address show scope global; exec nft list ruleset"])?;
    let tools =
        [("iptables", "iptables"), ("iptables-restore", "iptables-restore"), ("nft", "nft"), ("sh", "sh")];
    let path = firewall::programs(job.dir(), &[&tools[..], &[("ip", "ip")]].concat())?;
    let before = lab.snapshot()?;
    let done = job.env("PATH", &path).run()?.exited(0)?;
    ensure!(done.text().contains(" fd"), "no IPv6: {}", done.stderr);
    lab.assert_clean(&before)
}

fn neither_of_them(lab: &Lab) -> Result<()> {
    hide(lab, &["iptables-nft", "iptables-legacy", "nft"])?;
    let before = lab.host(["ip", "-o", "link"])?.output()?;
    let done = lab.nsntrace(["touch", "ran"])?.run()?;
    let line = done.complaint()?;
    ensure!(line.contains("neither iptables nor nft") && line.contains("install the package"), "{line}");
    ensure!(!done.dir.join("ran").exists(), "the program has run");
    ensure!(lab.host(["ip", "-o", "link"])?.output()? == before, "the host is changed");
    let told = lab.nsntrace(["--check"])?.run()?.exited(1)?.text();
    let (state, text) = check::line(&told, "iptables")?;
    ensure!(state == "missing" && line.ends_with(text), "{told}");
    Ok(())
}
