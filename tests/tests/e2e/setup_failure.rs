//! Each step of the set-up fails in turn: it is said in one line, and the host is as it was.
//!
//! The failures come from outside: the crate's program `fail` lets the K-th call of a kind fail. A run that is only
//! watched tells which calls there are.

use std::env;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nsntrace_tests::{Done, Job, Lab, Snapshot, Web};

use crate::{Case, cases};

/// The file that `fail` writes.
const LOG: &str = "calls.log";

pub const CASES: &[Case] =
    cases![namespaces, run_folder, files, netlink, kernel_side, ring_buffer, processes, descriptors, writes,];

/// Calls that are to fail.
#[derive(Clone, Copy)]
struct Calls {
    names: &'static [&'static str],
    /// How they fail.
    error: Errno,
    /// A word in the name of the file that each of them is about.
    word: &'static str,
    /// Which of these, by that name.
    wanted: fn(&str) -> bool,
}

const ALL: Calls = Calls { names: &[], error: Errno::EPERM, word: "", wanted: |_| true };

fn namespaces(_: &Lab) -> Result<()> {
    each(Calls { names: &["unshare", "setns", "mount", "move_mount", "open_tree"], ..ALL })
}

/// An unlock does not fail.
fn run_folder(_: &Lab) -> Result<()> {
    let names = &["flock", "mkdir", "mkdirat", "ftruncate", "fcntl"];
    each(Calls { names, error: Errno::ENOLCK, wanted: |file| !file.starts_with("unlock"), ..ALL })
}

fn files(_: &Lab) -> Result<()> {
    let wanted =
        |file: &str| ["/run/", "/proc/sys/", "cgroup", ".pcap"].iter().any(|path| file.contains(path));
    each(Calls { names: &["openat"], error: Errno::EACCES, wanted, ..ALL })
}

fn netlink(_: &Lab) -> Result<()> {
    each(Calls { names: &["socket", "bind", "sendto", "sendmsg"], ..ALL })
}

fn kernel_side(_: &Lab) -> Result<()> {
    each(Calls { names: &["bpf"], ..ALL })
}

fn ring_buffer(_: &Lab) -> Result<()> {
    each(Calls { names: &["mmap"], error: Errno::ENOMEM, word: "bpf-map", ..ALL })
}

fn processes(_: &Lab) -> Result<()> {
    let names = &["clone", "clone3", "vfork", "pidfd_open", "prctl"];
    each(Calls { names, error: Errno::EAGAIN, ..ALL })
}

fn descriptors(_: &Lab) -> Result<()> {
    let names =
        &["epoll_create1", "epoll_ctl", "eventfd2", "signalfd4", "timerfd_create", "pipe2", "dup", "dup3"];
    each(Calls { names, error: Errno::EMFILE, ..ALL })
}

/// Writes to files: the journal, the sysctls, the cgroup, the trace. One to stderr or to an eventfd does not fail.
fn writes(_: &Lab) -> Result<()> {
    let wanted = |file: &str| !file.starts_with("2 ") && !file.contains("eventfd");
    each(Calls { names: &["write", "writev"], error: Errno::EIO, wanted, ..ALL })
}

/// Lets the calls fail, one a run.
fn each(calls: Calls) -> Result<()> {
    let mut attempt = Attempt::new()?;
    let mut tried = 0;
    let mut failures = Vec::new();
    for name in calls.names {
        for (number, file) in sample(attempt.calls(name, calls)?) {
            let run = attempt.with_failing(name, number, calls)?.run();
            // The calls of threads come in another order now and then: then it was another one.
            if run.as_ref().is_ok_and(|done| !nth_call(done, number).is_ok_and(|file| (calls.wanted)(&file)))
            {
                continue;
            }
            tried += 1;
            if let Err(failure) = run.and_then(|done| attempt.judge(&done)) {
                failures.push(format!("{:?} of {name} {number}, {file:?}: {failure:#}\n", calls.error));
                attempt = Attempt::new()?;
            }
        }
    }
    ensure!(tried > 0, "not one of the calls {:?} is made", calls.names);
    ensure!(failures.is_empty(), "{} of {tried} failures:\n{}", failures.len(), failures.concat());
    println!("setup_failure: {tried} calls of {:?} failed in turn", calls.names);
    Ok(())
}

/// The file that the call with this number was about.
fn nth_call(done: &Done, number: usize) -> Result<String> {
    let log = fs::read_to_string(done.dir.join(LOG))?;
    log.lines().nth(number - 1).map(String::from).context("there was no such call")
}

/// A dozen of them, from the first to the last; all of them if the environment says `THOROUGH`.
fn sample<T: Clone>(calls: Vec<T>) -> Vec<T> {
    const SOME: usize = 12;
    if calls.len() <= SOME || env::var_os("THOROUGH").is_some() {
        return calls;
    }
    (0..SOME).map(|index| calls[index * (calls.len() - 1) / (SOME - 1)].clone()).collect()
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

    /// The wanted calls of a run that is left alone: their numbers, and the files they are about.
    fn calls(&self, name: &str, calls: Calls) -> Result<Vec<(usize, String)>> {
        let done = self.with_failing(name, 0, calls)?.run()?.exited(0)?;
        let log = fs::read_to_string(done.dir.join(LOG))?;
        let numbered = (1..).zip(log.lines().map(String::from));
        Ok(numbered.filter(|(_, file)| (calls.wanted)(file)).collect())
    }

    /// nsntrace, of whose calls of this name one fails.
    fn with_failing(&self, name: &str, number: usize, calls: Calls) -> Result<Job> {
        let (number, error) = (number.to_string(), (calls.error as i32).to_string());
        let fail = [env!("CARGO_BIN_EXE_fail"), name, calls.word, &number, &error, LOG];
        let job = self.lab.nsntrace_by(fail, ["curl", "-s", "-m", "5", "-o", "page", &self.web.url])?;
        Ok(job.limit(Duration::from_secs(20)))
    }

    /// It failed and said so, or all is right; the host is clean either way.
    pub fn judge(&self, done: &Done) -> Result<()> {
        ensure!(!done.stderr.contains("panicked"), "a panic:\n{}", done.stderr);
        let said = done.stderr.lines().filter(|line| line.starts_with("nsntrace: ")).count();
        ensure!(said <= 1, "{said} lines of nsntrace's:\n{}", done.stderr);
        let page = fs::read(done.dir.join("page"));
        if !done.status.success() {
            ensure!(done.status.code().is_some(), "it ended by {}:\n{}", done.status, done.stderr);
            ensure!(said == 1, "it failed without a word:\n{}", done.stderr);
        } else if said == 0 {
            ensure!(page.as_ref().is_ok_and(|page| *page == self.web.body), "no download, and no word of it");
            let count = done.trace().count()?;
            ensure!(count > 20, "{count} packets, and no word of it:\n{}", done.stderr);
            ensure!(count == done.captured()?, "{count} in the file:\n{}", done.stderr);
        }
        if page.is_ok() {
            // It was the undoing that failed: the next start mends that.
            self.lab.nsntrace(["true"])?.run()?.exited(0)?;
        }
        self.lab.assert_clean(&self.before).with_context(|| done.stderr.clone())
    }
}
