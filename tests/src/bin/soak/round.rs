//! A few traces beside each other.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use fastrand::Rng;
use nix::sys::signal::Signal;
use nsntrace_tests::{
    Cgroup, Done, Lab, Running, SERVER_ADDRESS, SOON, Server, Snapshot, Victim, Web, beside, until,
};

use crate::{
    choice::{Choice, End, strings},
    findings::Findings,
};

/// How many there are in a round.
const AT_ONCE: usize = 4;

/// Ports of the server in the internet: one that takes datagrams, and one that sends them back.
const SINK: u16 = 9;
pub const ECHO: u16 = 7;

/// The first port that a trace publishes.
const FIRST_PORT: u32 = 20_000;

/// Who does not end is asked again so often.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// What no trace may say.
const NEVER_SAID: [&str; 2] = ["panicked", "left something behind"];

/// The lab with its servers.
pub struct Place<'a> {
    lab: &'a Lab,
    cgroup: Cgroup,
    programs: Vec<Vec<String>>,
    _servers: (Web, [Server; 3], Running),
}

/// What the host and the processes of nsntrace are.
pub type State = (Snapshot, BTreeSet<i32>);

impl<'a> Place<'a> {
    /// A lab whose name server is on the host's loopback, so that traces have a relay.
    pub fn new(lab: &'a Lab) -> Result<Self> {
        fs::set_permissions(lab.dir(), fs::Permissions::from_mode(0o755))?;
        let resolver = "echo nameserver 127.0.0.53 >/etc/resolv.conf";
        lab.host(["sh", "-c", resolver])?.output()?;
        let listen = ["--bind-interfaces", "--listen-address=127.0.0.53"];
        let record = format!("--host-record=www.example.test,{SERVER_ADDRESS}");
        let names = lab.host_name_server("127.0.0.53", &[&listen[..], &[&record]].concat())?;
        let (web, sink, echo) = (lab.web()?, lab.udp_sink(SINK)?, lab.udp_echo(ECHO)?);
        let cgroup = lab.cgroup("traced")?;
        // One process, so that the table of processes does not grow to what it may.
        let talks = format!("while :; do curl -s -o /dev/null '{}?[1-10000000]'; done", web.url);
        let talker = lab.host_in(&cgroup, ["sh", "-c", &talks])?.spawn()?;
        let flood = beside("flood")?;
        let programs = vec![
            strings(&["true"]),
            strings(&["sh", "-c", "for i in $(seq 50); do true & done; wait"]),
            strings(&["curl", "-s", "-m", "50", "-o", "/dev/null", &web.url]),
            strings(&["curl", "-s", "-m", "50", "-o", "/dev/null", "http://www.example.test/data.bin"]),
            strings(&[&flood, &format!("{SERVER_ADDRESS}:{SINK}"), "50000"]),
        ];
        Ok(Self { lab, cgroup, programs, _servers: (web, [names, sink, echo], talker) })
    }

    /// A cgroup in which somebody talks to the server all the time.
    pub fn cgroup(&self) -> String {
        self.cgroup.path().display().to_string()
    }

    /// What it is now.
    pub fn state(&self) -> Result<State> {
        Ok((self.lab.snapshot()?, self.lab.tracer_cgroup().processes()?.into_iter().collect()))
    }

    /// What differs from before, when it had some time to settle.
    pub fn difference(&self, before: &State) -> Result<Option<String>> {
        let mut now = before.clone();
        let same = until("a host as before", SOON, || {
            now = self.state()?;
            Ok((now == *before).then_some(()))
        });
        let processes = now.1.symmetric_difference(&before.1).collect::<Vec<_>>();
        Ok(same.err().map(|_| format!("{}processes: {processes:?}", before.0.diff(&now.0))))
    }

    /// Makes some traces, and waits for their ends. What killed ones have left is then mended by one more.
    pub fn round(&self, random: &mut Rng, findings: &mut Findings) -> Result<()> {
        let mut choice = || {
            let port = FIRST_PORT + findings.traces() % 10_000;
            findings.counts_trace();
            Choice::new(random, &self.programs, &self.cgroup(), port)
        };
        let choices: Vec<_> = (0..AT_ONCE).map(|_| choice()).collect();
        let tried = thread::scope(|scope| {
            let threads: Vec<_> = choices.iter().map(|choice| scope.spawn(|| self.try_one(choice))).collect();
            threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        });
        for (choice, result) in choices.iter().zip(tried) {
            findings.tried(choice, result.map_err(|_| anyhow!("the thread panicked")).flatten());
        }
        let mended = self.lab.nsntrace(["-q", "-o", "/dev/null", "true"])?.run()?.exited(0).and_then(check);
        findings.compare("the start after each round", mended.err().map(|error| format!("{error:#}")));
        Ok(())
    }

    fn try_one(&self, choice: &Choice) -> Result<()> {
        let run = self.lab.nsntrace(&choice.words)?.spawn()?;
        let done = match choice.end {
            End::Itself => run.wait()?.exited(0)?,
            End::Signal(signal, time) => {
                thread::sleep(time);
                run.signal(signal)?;
                ask_to_end(run)?
            }
            End::Kill(victim, time) => {
                thread::sleep(time);
                victim.kill(self.lab, &run)?;
                if victim == Victim::Guardian { ask_to_end(run)? } else { run.wait()? }
            }
        };
        check(done)
    }
}

/// A signal may have ended the program and not what it has started.
fn ask_to_end(mut run: Running) -> Result<Done> {
    let mut asked = Instant::now();
    until("the end of a trace", SOON, || {
        if asked.elapsed() > ASK_EVERY {
            run.signal(Signal::SIGTERM)?;
            asked = Instant::now();
        }
        Ok((!run.is_alive()?).then_some(()))
    })?;
    run.wait()
}

/// Looks at what it has said, and takes away what it has left of files.
fn check(done: Done) -> Result<()> {
    let bad = NEVER_SAID.iter().find(|words| done.stderr.contains(**words));
    ensure!(bad.is_none(), "it said: {}", done.stderr);
    fs::remove_dir_all(&done.dir).context("cannot remove a folder of the lab")?;
    for extension in ["stdout", "stderr"] {
        fs::remove_file(done.dir.with_extension(extension))?;
    }
    Ok(())
}
