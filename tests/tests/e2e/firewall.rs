//! Firewalls that somebody else has set up: packets of a trace pass, and the others' rules stay as they are.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsntrace_tests::ask::{answer, ask, start};
use nsntrace_tests::{Lab, Running, SERVER_ADDRESS, SOON, Snapshot, Web, nsntrace_binary, until};

use crate::dns::{WWW, write_resolv_conf};
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    chain_that_drops_by_policy,
    chain_that_drops_by_a_rule,
    chains_of_one_family,
    chain_for_what_comes_in,
    chains_for_what_arrives,
    chain_that_drops_nothing_is_left_alone,
    tracer_is_killed,
    everybody_is_killed,
    chain_goes_away,
    nft_is_missing,
    nftables_beside_iptables_legacy,
    iptables_legacy_beside_nftables,
    table_of_the_same_name,
];

/// A chain that forwards nothing.
const BY_POLICY: &str = "add table inet fw
    add chain inet fw FWD { type filter hook forward priority $; policy drop; }
    add rule inet fw FWD iifname \"eth9\" accept";

/// One that reaches the drop by a detour.
const BY_RULE: &str = "add table inet fw
    add chain inet fw others
    add rule inet fw others counter reject
    add map inet fw ways { type ifname : verdict; elements = { \"eth9\" : accept, \"eth1\" : jump others }; }
    add chain inet fw FWD { type filter hook forward priority $; policy accept; }
    add rule inet fw FWD oifname vmap @ways
    add rule inet fw FWD counter drop";

/// The tables that are not iptables', which leaves empty ones behind, without what changes by itself.
pub fn ruleset(lab: &Lab) -> Result<String> {
    let script =
        "nft list tables | grep -vE ' ip6? (filter|nat)$' | while read table; do nft -s list $table; done";
    lab.sh(script)
}

fn set_up(lab: &Lab, rules: &str) -> Result<()> {
    lab.host(["nft", "-f", "-"])?.input(rules.as_bytes())?.output().map(drop)
}

/// The host, and the rules in it, before a trace.
pub struct Before<'a> {
    lab: &'a Lab,
    host: Snapshot,
    pub rules: String,
}

impl<'a> Before<'a> {
    pub fn new(lab: &'a Lab) -> Result<Self> {
        Ok(Self { lab, host: lab.snapshot()?, rules: ruleset(lab)? })
    }

    pub fn assert_clean(&self) -> Result<()> {
        self.lab.assert_clean(&self.host)?;
        let now = ruleset(self.lab)?;
        ensure!(now == self.rules, "the rules were\n{}\nand are\n{now}", self.rules);
        Ok(())
    }
}

pub fn downloads_in_both_families(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    downloads(lab, &web)?;
    drop(web);
    downloads(lab, &lab.web6()?).context("IPv6")
}

fn downloads(lab: &Lab, web: &Web) -> Result<()> {
    let done = lab.nsntrace(["curl", "-s", "-m", "20", "-o", "page", &web.url])?.run()?.exited(0)?;
    ensure!(fs::read(done.dir.join("page"))? == web.body, "the download is not whole");
    ensure!(!done.stderr.contains("held back"), "{}", done.stderr);
    Ok(())
}

/// Before iptables' chain, at its place, and after it, in IPv4 and IPv6.
fn passes(rules: &str) -> Result<()> {
    for priority in ["-10", "0", "10"] {
        let lab = Lab::new()?;
        lab.ipv6()?;
        set_up(&lab, &rules.replace('$', priority))?;
        let before = Before::new(&lab)?;
        downloads_in_both_families(&lab).with_context(|| format!("priority {priority}"))?;
        before.assert_clean().with_context(|| format!("priority {priority}"))?;
    }
    Ok(())
}

fn chain_that_drops_by_policy(_: &Lab) -> Result<()> {
    passes(BY_POLICY)
}

fn chain_that_drops_by_a_rule(_: &Lab) -> Result<()> {
    passes(BY_RULE)
}

pub fn chains_of_one_family(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    for family in ["ip", "ip6"] {
        set_up(lab, &BY_POLICY.replace("inet", family).replace('$', "5"))?;
    }
    let before = Before::new(lab)?;
    downloads_in_both_families(lab)?;
    before.assert_clean()
}

/// The relay and the host's loopback are reached, and what is not a trace's is not.
pub fn chain_for_what_comes_in(lab: &Lab) -> Result<()> {
    let input = "add table inet fw
        add chain inet fw in { type filter hook input priority 0; policy drop; }
        add rule inet fw in iifname \"lo\" accept";
    set_up(lab, input)?;
    write_resolv_conf(lab, "nameserver 127.0.0.53\n")?;
    let listen = ["--bind-interfaces", "--listen-address=127.0.0.53", WWW];
    let _server = lab.host_name_server("127.0.0.53", &listen)?;
    let before = Before::new(lab)?;
    let done = lab.nsntrace(["getent", "ahostsv4", "www.example.test"])?.run()?.exited(0)?;
    ensure!(done.text().contains("203.0.113.7"), "{}", done.text());
    before.assert_clean()?;

    let _service = start(lab.host(answer("8000", &["127.0.0.1"]))?)?;
    let ask = ask("tcp", "172.16.42.254", "8000");
    let told = lab.nsntrace([&["-q", "--host-loopback"], &ask[..]].concat())?.output()?;
    assert_eq!(told, "172.16.42.255\n");
    before.assert_clean()
}

/// Docker has such a rule for each container, so that others reach it by its published ports only.
fn chains_for_what_arrives(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    lab.sh(&format!("iptables -t raw -A PREROUTING -d {SERVER_ADDRESS} ! -i eth1 -j DROP"))?;
    let arriving = "add table inet fw
        add chain inet fw arriving { type filter hook prerouting priority 0; policy drop; }
        add rule inet fw arriving iifname { \"lo\", \"eth1\" } accept
        add chain inet fw translated { type nat hook prerouting priority 0; }
        add rule inet fw translated ip saddr 192.0.2.9 drop";
    set_up(lab, arriving)?;
    let before = Before::new(lab)?;
    downloads_in_both_families(lab)?;
    before.assert_clean()
}

fn endless(lab: &Lab) -> Result<Running> {
    let mut run = lab.nsntrace(["sh", "-c", "echo ready; exec sleep 1000"])?.spawn()?;
    run.says("ready")?;
    Ok(run)
}

fn chain_that_drops_nothing_is_left_alone(lab: &Lab) -> Result<()> {
    let counts = "add table inet count
        add chain inet count forward { type filter hook forward priority 5; policy accept; }
        add rule inet count forward counter";
    set_up(lab, counts)?;
    let before = Before::new(lab)?;
    let run = endless(lab)?;
    let table = lab.host(["nft", "list", "table", "inet", "count"])?.output()?;
    ensure!(!table.contains("nsntrace"), "{table}");
    run.signal(Signal::SIGTERM)?;
    run.wait()?;
    before.assert_clean()
}

/// Both chains, and a run that has its rules there.
fn with_rules_in_place(lab: &Lab) -> Result<(Before<'_>, Running)> {
    set_up(lab, &BY_RULE.replace('$', "5"))?;
    set_up(lab, &BY_POLICY.replace("fw", "other").replace('$', "-5"))?;
    let before = Before::new(lab)?;
    let run = endless(lab)?;
    for table in ["fw", "other"] {
        let table = lab.host(["nft", "list", "table", "inet", table])?.output()?;
        ensure!(table.contains("accept comment \"nsntrace:"), "no rules of the run:\n{table}");
    }
    Ok((before, run))
}

fn tracer_is_killed(lab: &Lab) -> Result<()> {
    let (before, run) = with_rules_in_place(lab)?;
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    before.assert_clean()
}

/// The guardian too: the next start takes the rules away.
pub fn everybody_is_killed(lab: &Lab) -> Result<()> {
    let (before, run) = with_rules_in_place(lab)?;
    let binary = nsntrace_binary()?;
    for pid in lab.tracer_cgroup().processes()? {
        if fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary) {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        }
    }
    run.wait()?;
    until("the end of the program after its tracer's", SOON, || {
        Ok((!lab.tracer_cgroup().is_populated()?).then_some(()))
    })?;
    ensure!(ruleset(lab)? != before.rules, "nothing is left to be mended");
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    before.assert_clean()
}

/// With all that is in it, or to come back without it.
fn chain_goes_away(lab: &Lab) -> Result<()> {
    let (_, run) = with_rules_in_place(lab)?;
    set_up(lab, "delete table inet fw\nflush chain inet other FWD")?;
    let rules = ruleset(lab)?;
    run.signal(Signal::SIGTERM)?;
    let done = run.wait()?;
    ensure!(done.lines().iter().all(|line| !line.starts_with("nsntrace: ")), "{}", done.stderr);
    ensure!(!ruleset(lab)?.contains("nsntrace:"), "rules of the run are left of\n{rules}");
    lab.sh("! ls /run/nsntrace/????????").map(drop)
}

/// A folder with these programs of the host under these names, and nothing else.
pub fn programs(at: &Path, programs: &[(&str, &str)]) -> Result<String> {
    let folder = at.join("programs");
    fs::create_dir(&folder)?;
    for (name, program) in programs {
        let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(|folder| Path::new(folder).join(program));
        let found = found.into_iter().find(|path| path.exists());
        symlink(found.with_context(|| format!("{program} is not installed"))?, folder.join(name))?;
    }
    Ok(folder.display().to_string())
}

pub const IPTABLES: [(&str, &str); 4] = [
    ("iptables", "iptables"),
    ("iptables-restore", "iptables-restore"),
    ("ip6tables", "ip6tables"),
    ("ip6tables-restore", "ip6tables-restore"),
];

pub const IPTABLES_LEGACY: [(&str, &str); 4] = [
    ("iptables", "iptables-legacy"),
    ("iptables-restore", "iptables-legacy-restore"),
    ("ip6tables", "ip6tables-legacy"),
    ("ip6tables-restore", "ip6tables-legacy-restore"),
];

/// Who holds the packets back is told, and what to do about it.
fn nft_is_missing(lab: &Lab) -> Result<()> {
    set_up(lab, &BY_POLICY.replace('$', "5"))?;
    let before = Before::new(lab)?;
    let job = lab.nsntrace(["/bin/true"])?;
    let path = programs(job.dir(), &IPTABLES)?;
    let done = job.env("PATH", &path).run()?.exited(0)?;
    let line = done.line_with("held back")?;
    ensure!(line.contains("chain FWD of table inet fw") && line.contains("package nftables"), "{line}");
    ensure!(done.stderr.matches("held back").count() == 1, "{}", done.stderr);
    before.assert_clean()
}

/// The chains of iptables-nft are those of somebody else then.
fn nftables_beside_iptables_legacy(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    lab.host(["sh", "-c", "iptables-nft -P FORWARD DROP && iptables-nft -A FORWARD -i eth9 -j ACCEPT"])?
        .output()?;
    let job = lab.nsntrace(["curl", "-s", "-m", "20", "-o", "page", &web.url])?;
    let path = programs(job.dir(), &[&IPTABLES_LEGACY[..], &[("nft", "nft"), ("curl", "curl")]].concat())?;
    let rules = || lab.host(["nft", "-s", "list", "table", "ip", "filter"])?.output();
    let before = rules()?;
    let done = job.env("PATH", &path).run()?.exited(0)?;
    ensure!(fs::read(done.dir.join("page"))? == web.body, "the download is not whole");
    ensure!(rules()? == before, "the rules were\n{before}\nand are\n{}", rules()?);
    let legacy = lab.sh("iptables-legacy-save; ip6tables-legacy-save")?;
    ensure!(!legacy.contains("nsntrace:"), "rules are left:\n{legacy}");
    lab.sh("! ls /run/nsntrace/????????").map(drop)
}

/// Packets pass both; that the other one drops them is told before and during.
fn iptables_legacy_beside_nftables(lab: &Lab) -> Result<()> {
    lab.host(["iptables-legacy", "-P", "FORWARD", "DROP"])?.output()?;
    for arguments in [&["--check"][..], &["/bin/true"]] {
        let done = lab.nsntrace(arguments)?.run()?.exited(0)?;
        let told = format!("{}{}", done.text(), done.stderr);
        ensure!(told.matches("iptables-legacy's chain FORWARD for IPv4").count() == 1, "{told}");
        ensure!(told.contains("iptables-legacy -I FORWARD -i nsgw+ -j ACCEPT"), "{told}");
        ensure!(!told.contains("FORWARD for IPv6"), "{told}");
    }
    lab.host([
        "sh",
        "-c",
        "iptables-legacy -I FORWARD -i nsgw+ -j ACCEPT; iptables-legacy -I FORWARD -o nsgw+ -j ACCEPT",
    ])?
    .output()?;
    let web = lab.web()?;
    let done = lab.nsntrace(["curl", "-s", "-m", "20", "-o", "page", &web.url])?.run()?.exited(0)?;
    ensure!(fs::read(done.dir.join("page"))? == web.body, "the download is not whole");
    ensure!(!done.stderr.contains("held back"), "{}", done.stderr);
    Ok(())
}

/// Somebody else's is called as ours would be.
fn table_of_the_same_name(lab: &Lab) -> Result<()> {
    lab.host(["nft", "add table inet nsntrace; add chain inet nsntrace theirs"])?.output()?;
    let before = lab.snapshot()?;
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    lab.assert_clean(&before)
}
