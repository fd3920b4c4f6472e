//! Traces that go on all the time.

use std::{fs, path::Path, thread, time::Duration};

use anyhow::{Context, Result};
use nix::{sys::signal::Signal, unistd::Pid};
use nsntrace_tests::{Lab, Running, SERVER_ADDRESS};

use crate::round::ECHO;

/// Asks the name server, and sends datagrams to a server that sends them back.
const PROGRAM: &str = "
import socket, sys, time
echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
echo.settimeout(5)
echo.connect((sys.argv[1], int(sys.argv[2])))
print('ready', flush=True)
while True:
    socket.getaddrinfo('www.example.test', 80)
    for _ in range(100):
        echo.send(b'x' * 1000)
        try:
            echo.recv(2000)
        except TimeoutError:
            pass
    time.sleep(0.01)
";

/// One of a program and one of a cgroup.
pub struct Long {
    program: Running,
    guardian: Pid,
    cgroup: Running,
}

/// What a process takes.
#[derive(Clone, Debug)]
pub struct Usage {
    /// Who it is.
    pub who: &'static str,
    /// Its own memory, in KiB.
    pub memory: u64,
    /// Its open descriptors.
    pub descriptors: usize,
    /// Its threads.
    pub threads: usize,
}

impl Long {
    /// Starts them.
    pub fn start(lab: &Lab, cgroup: String) -> Result<Self> {
        let program = ["python3", "-c", PROGRAM, SERVER_ADDRESS, &ECHO.to_string()];
        let options = ["-q", "-o", "x.pcapng", "-C", "1", "-W", "2"];
        let mut program = lab.nsntrace([&options[..], &program].concat())?.spawn()?;
        program.says("ready")?;
        let guardian = lab.guardian_of(&program)?.context("no guardian")?;
        let mut cgroup = lab
            .nsntrace([&["-o", "x.pcapng", "-C", "1", "-W", "2", "--cgroup"], &[&cgroup[..]][..]].concat())?
            .spawn()?;
        cgroup.complains("Starting")?;
        Ok(Self { program, guardian, cgroup })
    }

    /// What they take now.
    pub fn usage(&self) -> Result<Vec<Usage>> {
        let processes = [
            ("the tracer of a program", self.program.pid()),
            ("its guardian", self.guardian),
            ("the tracer of a cgroup", self.cgroup.pid()),
        ];
        processes.into_iter().map(|(who, pid)| usage(who, pid)).collect()
    }

    /// Ends them.
    pub fn end(self) -> Result<()> {
        for run in [self.program, self.cgroup] {
            run.signal(Signal::SIGTERM)?;
            run.wait()?;
        }
        Ok(())
    }
}

/// How often a count is looked at, and the time between.
const LOOKS: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn usage(who: &'static str, pid: Pid) -> Result<Usage> {
    let process = Path::new("/proc").join(pid.to_string());
    let status = fs::read_to_string(process.join("status")).with_context(|| format!("{who} has ended"))?;
    let memory = status.lines().find_map(|line| line.strip_prefix("RssAnon:")?.trim().strip_suffix(" kB"));
    let memory = memory.context("no RssAnon in its status")?.parse()?;
    // It may be about something just now, or change one for another while they are counted: what it keeps is what is there most of
    // the time.
    let usual = |folder| -> Result<usize> {
        let mut counts = Vec::new();
        for _ in 0..LOOKS {
            counts.push(fs::read_dir(process.join(folder))?.count());
            thread::sleep(LOOK_EVERY);
        }
        counts.sort_unstable();
        Ok(counts[counts.len() / 2])
    };
    Ok(Usage { who, memory, descriptors: usual("fd")?, threads: usual("task")? })
}
