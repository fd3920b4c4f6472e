//! What processes and threads may still do when a trace is set up: what SECURITY.md says, and no more.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, chown},
};

use anyhow::{Context, Result, ensure};
use caps::Capability;
use nix::{sys::signal::Signal, unistd::Pid};
use nsntrace_tests::{Lab, Running, SOON, until};

use crate::{Case, cases, dns};

pub const CASES: &[Case] = cases![
    of_a_trace,
    of_a_trace_for_who_called_sudo,
    of_a_trace_in_files_of_roots,
    of_a_trace_of_a_cgroup,
    of_a_guardian_without_cgroup2,
    of_the_filter,
    of_helpers,
    program_keeps_what_it_would_have,
];

const DOCUMENT: &str = include_str!("../../../SECURITY.md");

/// A user with no rights here.
const NOBODY: u32 = 65_534;

/// What a process or thread may do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rights {
    effective: u64,
    permitted: u64,
    inheritable: u64,
    no_new: bool,
    /// The user with whose rights it opens files.
    user: u32,
}

impl Rights {
    /// Root's, with these capabilities.
    fn root(capabilities: u64) -> Self {
        let (effective, permitted) = (capabilities, capabilities);
        Self { effective, permitted, inheritable: 0, no_new: true, user: 0 }
    }

    fn read(status: &str) -> Option<Self> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let mask = |name| u64::from_str_radix(field(name)?, 16).ok();
        Some(Self {
            effective: mask("CapEff:")?,
            permitted: mask("CapPrm:")?,
            inheritable: mask("CapInh:")?,
            no_new: field("NoNewPrivs:")? == "1",
            user: field("Uid:")?.split_whitespace().nth(3)?.parse().ok()?,
        })
    }
}

/// The capabilities in the document's row that begins with this.
fn documented(who: &str) -> Result<u64> {
    let row = DOCUMENT.lines().find_map(|line| line.strip_prefix(&format!("| {who} | ")));
    let (kept, _) =
        row.and_then(|row| row.split_once(" | ")).with_context(|| format!("{who} is not told"))?;
    let names = kept.split(", ").filter(|name| *name != "none");
    names.map(|name| Ok(name.parse::<Capability>()?.bitmask())).sum()
}

/// Of each thread of a process, by its name.
fn threads(pid: Pid) -> Result<BTreeMap<String, Rights>> {
    let mut found = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let name = read("comm").trim_end().to_owned();
        // None where it has just ended.
        if let Some(rights) = Rights::read(&read("status")) {
            found.insert(name, rights);
        }
    }
    Ok(found)
}

/// Waits until the threads of a process are these, with these rights. A trace is set up step by step.
fn has(pid: Pid, expected: &[(&str, Rights)]) -> Result<()> {
    let expected = expected.iter().map(|(name, rights)| ((*name).to_owned(), rights.clone())).collect();
    let mut found = BTreeMap::new();
    let waited = until("the threads that are told of", SOON, || {
        found = threads(pid)?;
        Ok((found == expected).then_some(()))
    });
    waited.with_context(|| format!("{found:#x?}, not {expected:#x?}"))
}

fn guardian_has(lab: &Lab, run: &Running, kept: u64) -> Result<()> {
    has(lab.guardian_of(run)?.context("no guardian")?, &[("netns-guardian", Rights::root(kept))])
}

fn end(run: Running) -> Result<()> {
    run.signal(Signal::SIGTERM)?;
    run.wait().map(drop)
}

/// A trace with a relay.
fn of_a_trace(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    dns::write_resolv_conf(lab, "nameserver 127.0.0.53\n")?;
    let mut run = lab.nsntrace(["--summary", "sh", "-c", "echo ready; exec sleep 1000"])?.spawn()?;
    run.says("ready")?;
    let tracer = Rights::root(documented("tracer of a program")?);
    let none = Rights::root(documented("thread that writes the trace")?);
    let relay = Rights::root(documented("thread that relays name look-ups")?);
    has(run.pid(), &[("nsntrace", tracer), ("drain", none), ("dns-relay", relay)])?;
    guardian_has(lab, &run, documented("guardian")?)?;
    end(run)?;
    dns::write_resolv_conf(lab, "nameserver 203.0.113.7\n")?;
    lab.assert_clean(&before)
}

/// With files to come, for which the thread needs no rights of root's.
fn of_a_trace_for_who_called_sudo(lab: &Lab) -> Result<()> {
    let program = ["sh", "-c", "echo ready; exec sleep 1000"];
    let job = lab.nsntrace([&["-G", "1", "-o", "%s.pcapng", "--tls-keys"], &program[..]].concat())?;
    chown(job.dir(), Some(NOBODY), Some(NOBODY))?;
    fs::set_permissions(job.dir(), fs::Permissions::from_mode(0o700))?;
    let job = job.env("SUDO_UID", &NOBODY.to_string()).env("SUDO_GID", &NOBODY.to_string());
    let mut run = job.spawn()?;
    run.says("ready")?;
    let tracer = Rights::root(documented("tracer of a program")?);
    let drain = Rights { user: NOBODY, ..Rights::root(documented("thread that writes the trace")?) };
    has(run.pid(), &[("nsntrace", tracer), ("drain", drain)])?;
    until("a third file", SOON, || Ok((fs::read_dir(run.dir())?.count() >= 3).then_some(())))?;
    end(run)
}

fn of_a_trace_in_files_of_roots(lab: &Lab) -> Result<()> {
    for options in [&["-C", "1"][..], &["--tls-keys", "--format", "pcapng"]] {
        let job = lab.nsntrace([options, &["sh", "-c", "echo ready; exec sleep 1000"]].concat())?;
        let mut run = job.spawn()?;
        run.says("ready")?;
        let tracer = Rights::root(documented("tracer of a program")?);
        let drain = Rights::root(documented("the same, for root, with `-C`, `-G` or `--tls-keys`")?);
        has(run.pid(), &[("nsntrace", tracer), ("drain", drain)])?;
        end(run)?;
    }
    Ok(())
}

fn of_a_trace_of_a_cgroup(lab: &Lab) -> Result<()> {
    let cgroup = lab.cgroup("traced")?;
    let path = cgroup.path().display().to_string();
    let mut run = lab.nsntrace(["-o", "x.pcapng", "--cgroup", &path])?.spawn()?;
    run.complains("Starting")?;
    let tracer = Rights::root(documented("tracer of a cgroup")?);
    let drain = Rights::root(documented("thread that writes the trace")?);
    has(run.pid(), &[("nsntrace", tracer), ("drain", drain)])?;
    end(run)
}

fn of_a_guardian_without_cgroup2(lab: &Lab) -> Result<()> {
    let script = "grep ' - cgroup2 ' /proc/self/mountinfo | cut -d' ' -f5 | xargs -n 1 umount -l";
    lab.sh(script)?;
    let mut run = lab.nsntrace(["sh", "-c", "echo ready; exec sleep 1000"])?.spawn()?;
    run.says("ready")?;
    guardian_has(lab, &run, documented("the same, where no cgroup2 is mounted")?)?;
    end(run)
}

/// The process in which libpcap works on what takes it long.
fn of_the_filter(lab: &Lab) -> Result<()> {
    let hosts = (0..800).map(|n| format!("host 10.{}.{}.1 or ", n / 200, n % 200)).collect::<String>();
    let run = lab.nsntrace(["-f", &format!("{hosts}host 10.9.9.9"), "true"])?.spawn()?;
    let children = format!("/proc/{0}/task/{0}/children", run.pid());
    let expected =
        Rights { user: NOBODY, ..Rights::root(documented("process in which libpcap compiles the filter")?) };
    let mut found = None;
    let waited = until("a filter process", SOON, || {
        let child = fs::read_to_string(&children)?;
        let status = fs::read_to_string(format!("/proc/{}/status", child.trim())).unwrap_or_default();
        found = Rights::read(&status);
        Ok((found.as_ref() == Some(&expected)).then_some(()))
    });
    waited.with_context(|| format!("{found:x?}"))?;
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    until("the end of the filter process", SOON, || Ok((!lab.tracer_cgroup().is_populated()?).then_some(())))
}

/// What inserts rules again is root's, and gets nothing by that.
fn of_helpers(lab: &Lab) -> Result<()> {
    let logs = "cat /proc/self/status >>log\nexec /usr/sbin/iptables-restore \"$@\"";
    let job = lab.nsntrace(["sh", "-c", "echo ready; exec sleep 1000"])?;
    let mut run = job.tool("iptables-restore", logs)?.spawn()?;
    run.says("ready")?;
    let log = run.dir().join("log");
    fs::write(&log, "")?;
    lab.host(["iptables", "-t", "nat", "-F"])?.output()?;
    run.complains("inserted again")?;
    let found = Rights::read(&fs::read_to_string(log)?).context("no helper was there")?;
    ensure!(found == Rights::root(documented("tracer of a program")?), "{found:x?}");
    end(run)
}

/// Root has all of its rights, another user none, and both may become somebody else.
fn program_keeps_what_it_would_have(lab: &Lab) -> Result<()> {
    let status = ["grep", "-E", "^(Uid|Cap|NoNewPrivs|Seccomp)", "/proc/self/status"];
    let plain = lab.host(status)?.output()?;
    ensure!(plain.contains("NoNewPrivs:\t0"), "this test runs with less than root has: {plain}");
    let traced = lab.nsntrace(status)?.output()?;
    ensure!(traced == plain, "{traced} is not {plain}");
    let as_nobody =
        [&["setpriv", "--reuid=nobody", "--regid=nogroup", "--init-groups"], &status[..]].concat();
    let plain = lab.host(as_nobody)?.output()?;
    let traced = lab.nsntrace([&["-u", "nobody"], &status[..]].concat())?.output()?;
    ensure!(traced == plain, "{traced} is not {plain}");
    Ok(())
}
