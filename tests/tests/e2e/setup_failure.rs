//! Each step of the set-up fails in turn: it is said in one line, and the host is as it was.
//!
//! The failures come from outside. strace lets the K-th call of a kind fail; a run that is only watched tells which
//! calls there are.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{Done, Job, Lab, Snapshot, Web};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    namespaces,
    run_folder,
    files,
    netlink,
    kernel_side,
    memory,
    processes,
    descriptors,
    settings,
    iptables_fails,
    iptables_fails_at_the_end,
    no_iptables,
];

fn namespaces(lab: &Lab) -> Result<()> {
    Attempt::new(lab)?.each(&["unshare", "setns", "mount", "move_mount", "open_tree"], "EPERM", |_| true)
}

fn run_folder(lab: &Lab) -> Result<()> {
    Attempt::new(lab)?.each(&["flock", "mkdir", "mkdirat", "ftruncate", "fcntl"], "ENOLCK", |_| true)
}

fn files(lab: &Lab) -> Result<()> {
    let matters =
        |call: &str| ["/run/", "/proc/sys/", "cgroup", ".pcap"].iter().any(|path| call.contains(path));
    Attempt::new(lab)?.each(&["openat"], "EACCES", matters)
}

fn netlink(lab: &Lab) -> Result<()> {
    Attempt::new(lab)?.each(&["socket", "bind", "sendto", "sendmsg"], "ENOBUFS", |_| true)
}

fn kernel_side(lab: &Lab) -> Result<()> {
    Attempt::new(lab)?.each(&["bpf"], "EPERM", |_| true)
}

/// Those of the loader and the allocator, without which no line could be written, do not matter.
fn memory(lab: &Lab) -> Result<()> {
    Attempt::new(lab)?.each(&["mmap"], "ENOMEM", |call| call.contains("MAP_SHARED"))
}

fn processes(lab: &Lab) -> Result<()> {
    Attempt::new(lab)?.each(&["clone", "clone3", "fork", "vfork", "pidfd_open", "prctl"], "EAGAIN", |_| true)
}

fn descriptors(lab: &Lab) -> Result<()> {
    let calls =
        ["epoll_create1", "epoll_ctl", "eventfd2", "signalfd4", "timerfd_create", "pipe2", "dup", "dup3"];
    Attempt::new(lab)?.each(&calls, "EMFILE", |_| true)
}

/// Writes to files: the journal, the sysctls, the cgroup, the trace. Not what is said on stderr.
fn settings(lab: &Lab) -> Result<()> {
    Attempt::new(lab)?.each(&["write", "writev", "pwrite64"], "EIO", |call| !call.contains("(2<"))
}

/// A lab in which runs fail, one after the other.
struct Attempt<'a> {
    lab: &'a Lab,
    web: Web,
    before: Snapshot,
}

impl<'a> Attempt<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        Ok(Self { lab, web: lab.web()?, before: lab.snapshot()? })
    }

    /// Lets every call fail that matters, one a run.
    fn each(&self, calls: &[&str], error: &str, matters: fn(&str) -> bool) -> Result<()> {
        let mut tried = 0;
        for call in calls {
            for number in self.numbers(call, matters)? {
                let inject = format!("inject={call}:error={error}:when={number}");
                let done = self.under_strace(&inject)?.run().with_context(|| inject.clone())?;
                self.judge(&done).with_context(|| format!("strace -f -b execve -e {inject} nsntrace …"))?;
                tried += 1;
            }
        }
        ensure!(tried > 0, "not one of the calls {calls:?} is made");
        println!("setup_failure: {tried} calls of {calls:?} failed in turn");
        Ok(())
    }

    /// The numbers, in their threads, of the calls that matter in a run that is left alone.
    fn numbers(&self, call: &str, matters: fn(&str) -> bool) -> Result<BTreeSet<u32>> {
        let done = self.under_strace(&format!("trace=?{call}"))?.run()?.exited(0)?;
        let log = fs::read_to_string(done.dir.join("strace.log"))?;
        let mut counts = HashMap::new();
        let mut numbers = BTreeSet::new();
        for line in log.lines() {
            // "PID call(arguments) = result"
            let Some((pid, what)) = line.split_once(' ') else { continue };
            if what.trim_start().starts_with(&format!("{call}(")) {
                let count = counts.entry(pid.to_owned()).or_insert(0);
                *count += 1;
                if matters(what) {
                    numbers.insert(*count);
                }
            }
        }
        Ok(numbers)
    }

    /// The program and the helpers that are run are not traced: their calls are not nsntrace's.
    fn under_strace(&self, expression: &str) -> Result<Job> {
        let strace = ["strace", "-f", "-y", "-b", "execve", "-o", "strace.log", "-e", expression];
        let job = self.lab.nsntrace_by(strace, ["curl", "-s", "-o", "page", &self.web.url])?;
        Ok(job.limit(Duration::from_secs(20)))
    }

    /// It failed and said so, or all is right; the host is clean either way.
    fn judge(&self, done: &Done) -> Result<()> {
        ensure!(!done.stderr.contains("panicked"), "a panic:\n{}", done.stderr);
        let page = fs::read(done.dir.join("page"));
        if done.status.success() {
            ensure!(page.as_ref().is_ok_and(|page| *page == self.web.body), "no download, and no word of it");
            ensure!(done.trace().count()? == done.captured()?, "the printed count is not the file's");
            ensure!(done.trace().count_of("tcp.flags.syn == 1")? == 2, "a success without a right trace");
        } else {
            ensure!(done.status.code().is_some(), "it ended by {}:\n{}", done.status, done.stderr);
            let said = done.stderr.lines().filter(|line| line.starts_with("nsntrace: ")).count();
            ensure!(said == 1, "{said} lines of nsntrace's:\n{}", done.stderr);
        }
        if page.is_ok() {
            // It was the undoing that failed: the next start mends that.
            self.lab.nsntrace(["true"])?.run()?.exited(0)?;
        }
        self.lab.assert_clean(&self.before).with_context(|| done.stderr.clone())
    }

    /// nsntrace with an `iptables` that fails when the shell's `condition` holds; `$n` is the number of the call.
    fn with_iptables(&self, condition: &str) -> Result<Done> {
        let job = self.lab.nsntrace(["curl", "-s", "-m", "5", "-o", "page", &self.web.url])?;
        let iptables = job.dir().join("iptables");
        let script = format!(
            r#"#!/bin/sh
            cd {}
            echo "$*" >> calls
            n=$(wc -l < calls)
            if {condition}; then echo 'iptables: a failure on purpose' >&2; exit 4; fi
            exec /usr/sbin/iptables "$@"
            "#,
            job.dir().display()
        );
        fs::write(&iptables, script.replace("\n            ", "\n"))?;
        fs::set_permissions(&iptables, fs::Permissions::from_mode(0o755))?;
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", job.dir().display());
        let done = job.env("PATH", &path).run()?;
        ensure!(done.dir.join("calls").exists(), "iptables was not called by its name");
        Ok(done)
    }
}

fn iptables_fails(lab: &Lab) -> Result<()> {
    let attempt = Attempt::new(lab)?;
    let calls = fs::read_to_string(attempt.with_iptables("false")?.exited(0)?.dir.join("calls"))?;
    for number in 1..=calls.lines().count() {
        let done = attempt.with_iptables(&format!("[ $n = {number} ]"))?;
        attempt
            .judge(&done)
            .with_context(|| format!("call {number} of iptables fails; the calls:\n{calls}"))?;
    }
    Ok(())
}

/// Undoing carries on past errors, says what is left, and the next start takes it away.
fn iptables_fails_at_the_end(lab: &Lab) -> Result<()> {
    let attempt = Attempt::new(lab)?;
    let done = attempt.with_iptables("[ -e page ]")?;
    ensure!(done.stderr.lines().any(|line| line.starts_with("nsntrace: ")), "not a word:\n{}", done.stderr);
    let left = attempt.before.diff(&lab.snapshot()?);
    let is_rule = |line: &&str| line.contains("iptables ") || line.contains("file /run/nsntrace/");
    ensure!(left.lines().all(|line| is_rule(&line)), "more is left than the rules and their record:\n{left}");
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    lab.assert_clean(&attempt.before)
}

fn no_iptables(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let done = lab.nsntrace(["/bin/true"])?.env("PATH", "/nowhere").run()?;
    let line = done.complaint()?;
    assert!(line.contains("iptables"), "{line}");
    lab.assert_clean(&before)
}
