//! Each step of the set-up fails in turn: it is said in one line, and the host is as it was.
//!
//! The failures come from outside. strace lets the K-th call of a kind fail; a run that is only watched tells which
//! calls there are.

use std::collections::{BTreeSet, HashMap};
use std::env;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{Done, Job, Lab, Snapshot, Web};

use crate::{Case, cases};

/// strace's own file.
const LOG: &str = "strace.log";

pub const CASES: &[Case] =
    cases![namespaces, run_folder, files, netlink, kernel_side, ring_buffer, processes, descriptors, writes,];

/// Calls that are to fail.
#[derive(Clone, Copy)]
struct Calls {
    names: &'static [&'static str],
    /// How they fail.
    error: &'static str,
    /// Which of them are tried.
    wanted: fn(&str) -> bool,
    /// Which of them must not fail.
    unwanted: fn(&str) -> bool,
    /// Options of strace that choose among them too.
    options: &'static [&'static str],
}

const ALL: Calls = Calls { names: &[], error: "EPERM", wanted: |_| true, unwanted: |_| false, options: &[] };

fn namespaces(_: &Lab) -> Result<()> {
    each(Calls { names: &["unshare", "setns", "mount", "move_mount", "open_tree"], ..ALL })
}

/// Nix panics where an unlock fails, which does not happen.
fn run_folder(_: &Lab) -> Result<()> {
    let unwanted = |call: &str| call.contains("LOCK_UN");
    each(Calls {
        names: &["flock", "mkdir", "mkdirat", "ftruncate", "fcntl"],
        error: "ENOLCK",
        unwanted,
        ..ALL
    })
}

fn files(_: &Lab) -> Result<()> {
    let wanted =
        |call: &str| ["/run/", "/proc/sys/", "cgroup", ".pcap"].iter().any(|path| call.contains(path));
    // Without the libraries there is nobody to say anything.
    let unwanted = |call: &str| call.contains(".so");
    each(Calls { names: &["openat"], error: "EACCES", wanted, unwanted, ..ALL })
}

fn netlink(_: &Lab) -> Result<()> {
    each(Calls { names: &["socket", "bind", "sendto", "sendmsg"], ..ALL })
}

fn kernel_side(_: &Lab) -> Result<()> {
    each(Calls { names: &["bpf"], ..ALL })
}

fn ring_buffer(_: &Lab) -> Result<()> {
    each(Calls { names: &["mmap"], error: "ENOMEM", options: &["-P", "anon_inode:bpf-map"], ..ALL })
}

fn processes(_: &Lab) -> Result<()> {
    let names = &["clone", "clone3", "fork", "vfork", "pidfd_open", "prctl"];
    each(Calls { names, error: "EAGAIN", ..ALL })
}

fn descriptors(_: &Lab) -> Result<()> {
    let names =
        &["epoll_create1", "epoll_ctl", "eventfd2", "signalfd4", "timerfd_create", "pipe2", "dup", "dup3"];
    each(Calls { names, error: "EMFILE", ..ALL })
}

/// Writes to files: the journal, the sysctls, the cgroup, the trace. One to an eventfd does not fail.
fn writes(_: &Lab) -> Result<()> {
    let wanted = |call: &str| !is_word(call);
    let unwanted = |call: &str| call.contains("eventfd");
    each(Calls { names: &["write", "writev", "pwrite64"], error: "EIO", wanted, unwanted, ..ALL })
}

/// A call that writes to stderr.
fn is_word(call: &str) -> bool {
    call.contains("write(2<")
}

/// Lets the calls fail, one a run. strace counts the calls of each thread by itself, and lets the K-th one of all
/// of them fail: that is not done where an unwanted one is among them.
fn each(calls: Calls) -> Result<()> {
    let mut attempt = Attempt::new()?;
    let mut tried = 0;
    let mut failures = Vec::new();
    for name in calls.names {
        for number in sample(attempt.numbers(name, calls)?) {
            tried += 1;
            let inject = format!("inject={name}:error={}:when={number}", calls.error);
            let job = attempt.under_strace(&inject, calls.options)?;
            if let Err(failure) = job.run().and_then(|done| attempt.judge(&done)) {
                failures.push(format!("strace -f -b execve -e {inject} nsntrace …: {failure:#}\n"));
                attempt = Attempt::new()?;
            }
        }
    }
    ensure!(tried > 0, "not one of the calls {:?} is made", calls.names);
    ensure!(failures.is_empty(), "{} of {tried} failures:\n{}", failures.len(), failures.concat());
    println!("setup_failure: {tried} calls of {:?} failed in turn", calls.names);
    Ok(())
}

/// A dozen of the numbers, from the first to the last; all of them if the environment says `THOROUGH`.
fn sample(numbers: BTreeSet<u32>) -> Vec<u32> {
    const SOME: usize = 12;
    let numbers: Vec<_> = numbers.into_iter().collect();
    if numbers.len() <= SOME || env::var_os("THOROUGH").is_some() {
        return numbers;
    }
    (0..SOME).map(|index| numbers[index * (numbers.len() - 1) / (SOME - 1)]).collect()
}

/// A lab in which runs fail, one after the other; after one that was not right there has to be a new one.
pub struct Attempt {
    pub lab: Lab,
    pub web: Web,
    pub before: Snapshot,
}

impl Attempt {
    pub fn new() -> Result<Self> {
        let lab = Lab::new()?;
        Ok(Self { web: lab.web()?, before: lab.snapshot()?, lab })
    }

    /// The numbers, in their threads, of the calls in a run that is left alone.
    fn numbers(&self, call: &str, calls: Calls) -> Result<BTreeSet<u32>> {
        let done = self.under_strace(&format!("trace=?{call}"), calls.options)?.run()?.exited(0)?;
        let mut counts = HashMap::new();
        let mut numbers = BTreeSet::new();
        let mut spared = BTreeSet::new();
        for line in fs::read_to_string(done.dir.join(LOG))?.lines() {
            // "PID call(arguments) = result"
            let Some((pid, what)) = line.split_once(' ') else { continue };
            if !what.trim_start().starts_with(&format!("{call}(")) {
                continue;
            }
            let count = counts.entry(pid.to_owned()).or_insert(0);
            *count += 1;
            if (calls.wanted)(what) {
                numbers.insert(*count);
            }
            if (calls.unwanted)(what) {
                spared.insert(*count);
            }
        }
        Ok(&numbers - &spared)
    }

    /// The program and the helpers that are run are not traced: their calls are not nsntrace's.
    fn under_strace(&self, expression: &str, options: &[&str]) -> Result<Job> {
        let strace = ["strace", "-f", "-y", "-b", "execve", "-o", LOG, "-e", expression];
        let strace = strace.iter().chain(options);
        let job = self.lab.nsntrace_by(strace, ["curl", "-s", "-o", "page", &self.web.url])?;
        Ok(job.limit(Duration::from_secs(20)))
    }

    /// It failed and said so, or all is right; the host is clean either way.
    pub fn judge(&self, done: &Done) -> Result<()> {
        ensure!(!done.stderr.contains("panicked"), "a panic:\n{}", done.stderr);
        // Where the call that failed was to say it, it could not.
        let log = fs::read_to_string(done.dir.join(LOG)).unwrap_or_default();
        let is_mute = log.lines().any(|line| is_word(line) && line.contains("INJECTED"));
        let said = done.stderr.lines().filter(|line| line.starts_with("nsntrace: ")).count();
        ensure!(said <= 1, "{said} lines of nsntrace's:\n{}", done.stderr);
        let page = fs::read(done.dir.join("page"));
        if !done.status.success() {
            ensure!(done.status.code().is_some(), "it ended by {}:\n{}", done.status, done.stderr);
            ensure!(said == 1 || is_mute, "it failed without a word:\n{}", done.stderr);
        } else if said == 0 {
            ensure!(page.as_ref().is_ok_and(|page| *page == self.web.body), "no download, and no word of it");
            let count = done.trace().count()?;
            ensure!(count > 20, "{count} packets, and no word of it:\n{}", done.stderr);
            ensure!(is_mute || count == done.captured()?, "{count} in the file:\n{}", done.stderr);
        }
        if page.is_ok() {
            // It was the undoing that failed: the next start mends that.
            self.lab.nsntrace(["true"])?.run()?.exited(0)?;
        }
        self.lab.assert_clean(&self.before).with_context(|| done.stderr.clone())
    }
}
