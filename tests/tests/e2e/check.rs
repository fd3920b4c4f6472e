//! `--check` says what a trace would find, and changes nothing.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsntrace_tests::{Done, HOST_DEVICE, Lab, SOON, until};

use crate::firewall::ruleset;
use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    host_has_it_all,
    says_what_a_trace_says,
    what_the_command_line_names,
    what_needs_ipv6,
    what_runs_already,
    without_root,
    without_a_capability,
    read_only_settings,
    read_only_cgroups,
    iptables_is_missing,
    records_of_dead_runs,
    run_folder_of_somebody_else,
    chain_that_drops,
    name_server_that_only_the_host_reaches,
];

/// The line about `what`: its state, and the rest.
pub fn line<'a>(told: &'a str, what: &str) -> Result<(&'a str, &'a str)> {
    let mut lines = told.lines().filter_map(|line| line.strip_prefix(what)).map(str::trim_start);
    let rest = lines.next().with_context(|| format!("no line about {what}:\n{told}"))?;
    rest.split_once(' ').map(|(state, text)| (state, text.trim_start())).context("a line without a text")
}

/// Runs the check, which changes nothing, and returns it.
pub fn check(lab: &Lab, starter: &[&str], arguments: &[&str]) -> Result<Done> {
    let before = (lab.snapshot()?, ruleset(lab)?);
    let done = lab.nsntrace_by(starter, [&["--check"], arguments].concat())?.run()?;
    ensure!(done.stderr.is_empty(), "{}", done.stderr);
    ensure!((lab.snapshot()?, ruleset(lab)?) == before, "it has changed the host");
    ensure!(!done.dir.join("nsntrace.pcap").exists(), "it has made a file");
    Ok(done)
}

fn host_has_it_all(lab: &Lab) -> Result<()> {
    lab.ipv6()?;
    let told = check(lab, &[], &[])?.exited(0)?.text();
    for what in
        ["kernel", "root", "cgroup", "settings", "records", "iptables", "ip6tables", "libpcap", "BPF", "-o"]
    {
        ensure!(line(&told, what)?.0 == "found", "{told}");
    }
    for what in ["uplinks IPv4", "uplinks IPv6"] {
        ensure!(line(&told, what)? == ("found", HOST_DEVICE), "{told}");
    }
    ensure!(line(&told, "name servers")?.1 == "203.0.113.7, asked by the program itself", "{told}");
    let texts: Vec<_> = told.lines().map(|line| line.char_indices().nth(26)).collect();
    ensure!(texts.iter().all(|text| text.is_some_and(|(_, sign)| sign != ' ')), "not aligned:\n{told}");
    // Nothing of it is there yet.
    lab.host(["test", "!", "-e", "/run/nsntrace"])?.output().map(drop)
}

/// For a cgroup nothing of the host's network counts.
fn what_runs_already(lab: &Lab) -> Result<()> {
    let server = lab.host(["sleep", "1000"])?.spawn()?;
    let pid = server.pid().to_string();
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let cgroup = cgroup.lines().find_map(|line| line.strip_prefix("0::")).context("no cgroup2")?.to_owned();
    let told = check(lab, &[], &["-f", "tcp port 80", "--cgroup", &cgroup])?.exited(0)?.text();
    let (state, path) = line(&told, "traced cgroup")?;
    ensure!(state == "found" && path.ends_with(&cgroup), "{told}");
    ensure!(line(&told, "BPF")?.0 == "found" && line(&told, "-f")?.0 == "found", "{told}");
    ensure!(!told.contains("iptables"), "{told}");

    let told = check(lab, &[], &["--cgroup", "nothing.service"])?.exited(1)?.text();
    ensure!(line(&told, "traced cgroup")?.0 == "missing", "{told}");
    Ok(())
}

/// The check calls missing what stops a trace, in the same words.
pub fn is_as_in_a_trace(lab: &Lab, starter: &[&str], arguments: &[&str], what: &str) -> Result<String> {
    let told = check(lab, starter, arguments)?.exited(1)?.text();
    let (state, text) = line(&told, what)?;
    ensure!(state == "missing", "{told}");
    let done = lab.nsntrace_by(starter, [arguments, &["/bin/true"]].concat())?.run()?;
    ensure!(done.complaint()? == format!("nsntrace: {text}"), "{text}, and in a trace: {}", done.stderr);
    Ok(text.to_owned())
}

fn says_what_a_trace_says(lab: &Lab) -> Result<()> {
    is_as_in_a_trace(lab, &[], &["-d", "eth9"], "-d")?;
    is_as_in_a_trace(lab, &[], &["-u", "nobody-at-all"], "-u")?;
    is_as_in_a_trace(lab, &[], &["-f", "tcp port"], "-f").map(drop)
}

fn what_the_command_line_names(lab: &Lab) -> Result<()> {
    let arguments =
        ["-d", HOST_DEVICE, "-u", "nobody", "-o", "/tmp", "-f", "tcp", "-p", "8080", "no-such-program"];
    let told = check(lab, &[], &arguments)?.exited(1)?.text();
    for (what, state) in [
        ("-d", "found"),
        ("-u", "found"),
        ("-f", "found"),
        ("-p", "found"),
        ("-o", "missing"),
        ("program", "missing"),
    ] {
        ensure!(line(&told, what)?.0 == state, "{what}:\n{told}");
    }
    let told = check(lab, &[], &["-C", "1", "-o", "/dev/null"])?.exited(1)?.text();
    let (state, why) = line(&told, "-o")?;
    ensure!(state == "missing" && why.contains("no regular file"), "{told}");
    Ok(())
}

fn what_needs_ipv6(lab: &Lab) -> Result<()> {
    let arguments = ["-p", "[::]:8080"];
    check(lab, &[], &arguments)?.exited(0)?;
    lab.sh("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6")?;
    let told = check(lab, &[], &arguments)?.exited(1)?.text();
    let (state, text) = line(&told, "-p")?;
    ensure!(state == "missing" && text.contains("no IPv6 in this trace"), "{told}");
    let done = lab.nsntrace([&arguments[..], &["true"]].concat())?.run()?.exited(1)?;
    ensure!(done.lines().last() == Some(&&*format!("nsntrace: {text}")), "{}", done.stderr);
    Ok(())
}

/// It says what it sees, and of the rest that root would see it.
fn without_root(lab: &Lab) -> Result<()> {
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let told = check(lab, &nobody, &["-o", "/tmp/nsntrace-check.pcap"])?.exited(1)?.text();
    ensure!(line(&told, "root")?.0 == "missing" && line(&told, "root")?.1.contains("sudo"), "{told}");
    for what in ["kernel", "iptables", "uplinks IPv4", "name servers", "-o"] {
        ensure!(line(&told, what)?.0 == "found", "{what}:\n{told}");
    }
    for what in ["settings", "records", "BPF", "other firewalls"] {
        ensure!(line(&told, what)? == ("unknown", "needs root to tell"), "{what}:\n{told}");
    }
    Ok(())
}

fn without_a_capability(lab: &Lab) -> Result<()> {
    let starter = ["setpriv", "--bounding-set", "-net_admin"];
    let text = is_as_in_a_trace(lab, &starter, &[], "root")?;
    ensure!(text.contains("CAP_NET_ADMIN") && !text.contains("CAP_SYS_ADMIN"), "{text}");
    Ok(())
}

fn read_only_settings(lab: &Lab) -> Result<()> {
    lab.sh("mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys")?;
    let text = is_as_in_a_trace(lab, &[], &[], "settings")?;
    ensure!(text.contains("/proc/sys"), "{text}");
    Ok(())
}

fn read_only_cgroups(lab: &Lab) -> Result<()> {
    let script = r#"cgroup=$(grep ' - cgroup2 ' /proc/self/mountinfo | head -1 | cut -d' ' -f5)
        mount --bind $cgroup $cgroup && mount -o remount,bind,ro $cgroup"#;
    lab.sh(script)?;
    let text = is_as_in_a_trace(lab, &[], &[], "cgroup")?;
    ensure!(text.contains("ead-only"), "{text}");
    Ok(())
}

fn iptables_is_missing(lab: &Lab) -> Result<()> {
    let done = lab.nsntrace(["--check"])?.env("PATH", "/nowhere").run()?.exited(1)?;
    let told = done.text();
    let (state, text) = line(&told, "iptables")?;
    ensure!(state == "missing" && text.contains("install the package iptables, or nftables"), "{told}");
    // A trace can do without this one.
    ensure!(line(&told, "ip6tables")?.0 == "none", "{told}");
    Ok(())
}

fn records_of_dead_runs(lab: &Lab) -> Result<()> {
    let mut run = lab.nsntrace(["sh", "-c", "echo ready; exec sleep 1000"])?.spawn()?;
    run.says("ready")?;
    ensure!(
        line(&check(lab, &[], &[])?.exited(0)?.text(), "records")?.1.contains("nothing"),
        "one that lives"
    );
    for pid in lab.tracer_cgroup().processes()? {
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    run.wait()?;
    until("the end of all, and of their link", SOON, || {
        let is_there = lab.host(["ip", "-o", "link"])?.output()?.contains("nsgw");
        Ok((!is_there && !lab.tracer_cgroup().is_populated()?).then_some(()))
    })?;
    let told = check(lab, &[], &[])?.exited(0)?.text();
    ensure!(line(&told, "records")?.1.contains("1 dead run"), "{told}");
    Ok(())
}

fn run_folder_of_somebody_else(lab: &Lab) -> Result<()> {
    lab.sh("mkdir -m 700 /run/nsntrace; chown 65534 /run/nsntrace")?;
    is_as_in_a_trace(lab, &[], &[], "records").map(drop)
}

fn chain_that_drops(lab: &Lab) -> Result<()> {
    let told = check(lab, &[], &[])?.exited(0)?.text();
    ensure!(line(&told, "other firewalls")?.1 == "no chain that drops packets", "{told}");
    let rules =
        "add table inet fw\nadd chain inet fw out { type filter hook forward priority 5; policy drop; }";
    lab.host(["nft", "-f", "-"])?.input(rules.as_bytes())?.output()?;
    let told = check(lab, &[], &[])?.exited(0)?.text();
    ensure!(
        line(&told, "other firewalls")?.1.starts_with("chain out of table inet fw drops packets"),
        "{told}"
    );
    Ok(())
}

fn name_server_that_only_the_host_reaches(lab: &Lab) -> Result<()> {
    lab.sh("echo nameserver 127.0.0.53 > /etc/resolv.conf")?;
    let told = check(lab, &[], &[])?.exited(0)?.text();
    ensure!(line(&told, "name servers")?.1 == "127.0.0.53, asked by a relay in the host", "{told}");
    let told = check(lab, &[], &["--use-public-dns"])?.exited(0)?.text();
    ensure!(line(&told, "name servers")?.1.starts_with("9.9.9.9, 1.1.1.1"), "{told}");
    Ok(())
}
