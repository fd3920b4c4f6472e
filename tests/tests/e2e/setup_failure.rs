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
    /// Words of which one is in the name of the file that a call is about.
    files: &'static [&'static str],
}

/// An empty word is in all names.
const ALL: Calls = Calls { names: &[], error: Errno::EPERM, files: &[""] };

fn namespaces(_: &Lab) -> Result<()> {
    let names = &["unshare", "setns", "mount", "fsopen", "fsconfig", "fsmount", "move_mount", "open_tree"];
    each(Calls { names, ..ALL })
}

fn run_folder(_: &Lab) -> Result<()> {
    each(Calls { names: &["flock", "mkdir", "mkdirat", "ftruncate", "fcntl"], error: Errno::ENOLCK, ..ALL })
}

fn files(_: &Lab) -> Result<()> {
    let files = &["/run/nsntrace", "/proc/sys/", "cgroup", ".pcap"];
    each(Calls { names: &["openat"], error: Errno::EACCES, files })
}

fn netlink(_: &Lab) -> Result<()> {
    each(Calls { names: &["socket", "setsockopt", "bind", "sendto", "sendmsg"], ..ALL })
}

fn kernel_side(_: &Lab) -> Result<()> {
    each(Calls { names: &["bpf"], ..ALL })
}

fn ring_buffer(_: &Lab) -> Result<()> {
    each(Calls { names: &["mmap"], error: Errno::ENOMEM, files: &["bpf-map"] })
}

fn processes(_: &Lab) -> Result<()> {
    let names = &["clone", "clone3", "vfork", "pidfd_open", "prctl"];
    each(Calls { names, error: Errno::EAGAIN, ..ALL })
}

fn descriptors(_: &Lab) -> Result<()> {
    let names = &[
        "epoll_create1",
        "epoll_ctl",
        "eventfd2",
        "signalfd4",
        "timerfd_create",
        "inotify_init1",
        "pipe2",
        "dup",
        "dup3",
    ];
    each(Calls { names, error: Errno::EMFILE, ..ALL })
}

fn writes(_: &Lab) -> Result<()> {
    let files = &["/run/nsntrace", "/proc/sys/", "cgroup", ".pcap"];
    each(Calls { names: &["write", "writev"], error: Errno::EIO, files })
}

/// Lets the calls fail, one a run.
fn each(calls: Calls) -> Result<()> {
    let mut attempt = Attempt::new()?;
    let mut tried = 0;
    let mut failures = Vec::new();
    for name in calls.names {
        for file in calls.files {
            for number in sample(attempt.count(name, file)?) {
                tried += 1;
                let run = attempt.with_failing(name, file, number, calls.error)?.run();
                if let Err(failure) = run.and_then(|done| attempt.judge(&done)) {
                    failures.push(format!("{:?} of {name} {file:?} {number}: {failure:#}\n", calls.error));
                    attempt = Attempt::new()?;
                }
            }
        }
    }
    ensure!(tried > 0, "not one of the calls {:?} is made", calls.names);
    ensure!(failures.is_empty(), "{} of {tried} failures:\n{}", failures.len(), failures.concat());
    println!("setup_failure: {tried} calls of {:?} failed in turn", calls.names);
    Ok(())
}

/// A dozen of the numbers up to `count`, the first and the last included; all of them if the environment says
/// `THOROUGH`.
fn sample(count: usize) -> Vec<usize> {
    const SOME: usize = 12;
    if count <= SOME || env::var_os("THOROUGH").is_some() {
        return (1..=count).collect();
    }
    (0..SOME).map(|index| 1 + index * (count - 1) / (SOME - 1)).collect()
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
        // A name server on a loopback address, so that there is a relay too.
        lab.sh("echo nameserver 127.0.0.53 > /etc/resolv.conf")?;
        Ok(Self { web: lab.web()?, before: lab.snapshot()?, lab })
    }

    /// How many such calls a run makes that is left alone.
    fn count(&self, name: &str, file: &str) -> Result<usize> {
        let done = self.with_failing(name, file, 0, Errno::EPERM)?.run()?.exited(0)?;
        Ok(fs::read_to_string(done.dir.join(LOG))?.lines().count())
    }

    /// nsntrace, of whose calls of this name, about such a file, one fails.
    fn with_failing(&self, name: &str, file: &str, number: usize, error: Errno) -> Result<Job> {
        let (number, error) = (number.to_string(), (error as i32).to_string());
        let fail = [env!("CARGO_BIN_EXE_fail"), name, file, &number, &error, LOG];
        let job = self.lab.nsntrace_by(fail, ["curl", "-s", "-m", "20", "-o", "page", &self.web.url])?;
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
