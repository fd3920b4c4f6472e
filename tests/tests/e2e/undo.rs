//! The host is as it was, however a run ended, and whatever was in the run folder.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsntrace_tests::{Done, Lab, Running, SOON, Snapshot, nsntrace_binary, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    normal_end,
    many_signals_at_the_end,
    tracer_is_killed,
    tracer_and_guardian_are_killed,
    dead_runs_are_mended_among_live_ones,
    run_folder_is_a_symlink,
    run_folder_is_of_another_user,
    run_folder_is_writable_by_others,
    lock_is_not_a_file,
    records_are_not_files,
    records_are_garbage,
    records_lie,
];

/// A run whose program waits for ever.
fn endless(lab: &Lab) -> Result<Running> {
    let mut run = lab.nsntrace(["sh", "-c", "echo ready; exec sleep 1000"])?.spawn()?;
    run.says("ready")?;
    Ok(run)
}

fn normal_end(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let run = endless(lab)?;
    let during = lab.snapshot()?;
    assert_ne!(before, during, "the snapshot does not show a run: it can prove nothing");
    run.signal(Signal::SIGTERM)?;
    run.wait()?;
    lab.assert_clean(&before)?;
    for _ in 0..3 {
        lab.nsntrace(["curl", "-s", "-o", "page", &web.url])?.run()?.exited(0)?;
        lab.assert_clean(&before)?;
    }
    Ok(())
}

/// None of them interrupts the undoing.
fn many_signals_at_the_end(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let mut run = endless(lab)?;
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
    for signal in signals.into_iter().cycle().take(200) {
        if !run.is_alive()? {
            break;
        }
        run.signal(signal)?;
        std::thread::yield_now();
    }
    run.wait()?;
    lab.assert_clean(&before)
}

fn no_program_is_left(lab: &Lab) -> Result<()> {
    until("the end of the program after its tracer's", SOON, || {
        Ok((!lab.tracer_cgroup().is_populated()?).then_some(()))
    })
}

fn tracer_is_killed(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = endless(lab)?;
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    no_program_is_left(lab)?;
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    lab.assert_clean(&before)
}

/// Kills all processes of the binary at once; their program is none.
fn kill_every_nsntrace(lab: &Lab) -> Result<()> {
    let binary = nsntrace_binary()?;
    let is_ours = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary);
    for pid in lab.tracer_cgroup().processes()?.into_iter().filter(is_ours) {
        kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    }
    Ok(())
}

fn tracer_and_guardian_are_killed(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let run = endless(lab)?;
    kill_every_nsntrace(lab)?;
    run.wait()?;
    assert_ne!(lab.snapshot()?, before, "nothing is left to be mended");
    lab.nsntrace(["curl", "-s", "-o", "page", &web.url])?.run()?.exited(0)?;
    lab.assert_clean(&before)
}

/// The sweep takes away what the dead run left, and nothing of the one that lives.
fn dead_runs_are_mended_among_live_ones(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let dead = endless(lab)?;
    kill_every_nsntrace(lab)?;
    dead.wait()?;
    let program = r#"echo ready; read line; curl -s -o page "$1""#;
    let mut live = lab.nsntrace(["sh", "-c", program, "sh", &web.url])?.told().spawn()?;
    live.says("ready")?;
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    drop(live.stdin_pipe()?);
    let live = live.wait()?.exited(0)?;
    assert!(fs::read(live.dir.join("page"))? == web.body);
    lab.assert_clean(&before)
}

/// What a run makes of a run folder that is not as it should be: it works or it refuses, and touches nothing.
struct Hostile<'a> {
    lab: &'a Lab,
    before: Snapshot,
    elsewhere: String,
}

impl<'a> Hostile<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        let elsewhere = lab.dir().join("elsewhere");
        fs::create_dir(&elsewhere)?;
        fs::create_dir(elsewhere.join("empty"))?;
        fs::write(elsewhere.join("precious"), "precious")?;
        let before = lab.snapshot()?;
        Ok(Self { lab, before, elsewhere: elsewhere.display().to_string() })
    }

    /// Runs `script` to prepare /run/nsntrace, then nsntrace; `$1` is a folder with a file of others.
    fn withstands(&self, script: &str) -> Result<Done> {
        let prepare = format!("rm -rf /run/nsntrace; {script}");
        self.lab.host(["sh", "-c", &prepare, "sh", &self.elsewhere])?.output()?;
        let listing = self.listing()?;
        let done = self.lab.nsntrace(["true"])?.limit(Duration::from_secs(15)).run();
        let done = done.with_context(|| format!("after: {script}"))?;
        if !done.status.success() {
            let line = done.complaint().with_context(|| format!("after: {script}"))?;
            assert!(line.contains("/run/nsntrace"), "{line}");
        }
        assert_eq!(self.listing()?, listing, "something was followed, after: {script}");
        // Mended by hand, as the line says.
        self.lab.host(["rm", "-rf", "/run/nsntrace"])?.output()?;
        self.lab.assert_clean(&self.before).with_context(|| format!("after: {script}"))?;
        Ok(done)
    }

    fn listing(&self) -> Result<String> {
        let list = r#"ls -lRin "$1"; cat "$1"/*"#;
        let done = self.lab.host(["sh", "-c", list, "sh", &self.elsewhere])?.run()?;
        Ok(done.text())
    }
}

fn run_folder_is_a_symlink(lab: &Lab) -> Result<()> {
    let hostile = Hostile::new(lab)?;
    hostile.withstands(r#"ln -s "$1" /run/nsntrace"#)?.complaint()?;
    hostile.withstands("ln -s /run/nowhere /run/nsntrace")?.complaint()?;
    assert!(!Path::new("/run/nowhere").exists());
    Ok(())
}

fn run_folder_is_of_another_user(lab: &Lab) -> Result<()> {
    let hostile = Hostile::new(lab)?;
    hostile.withstands("mkdir -m 700 /run/nsntrace; chown 65534 /run/nsntrace")?.complaint()?;
    hostile.withstands("touch /run/nsntrace")?.complaint()?;
    Ok(())
}

fn run_folder_is_writable_by_others(lab: &Lab) -> Result<()> {
    let hostile = Hostile::new(lab)?;
    hostile.withstands("mkdir -m 777 /run/nsntrace")?.complaint()?;
    hostile.withstands("mkdir -m 775 /run/nsntrace; chgrp 65534 /run/nsntrace")?.complaint()?;
    Ok(())
}

fn lock_is_not_a_file(lab: &Lab) -> Result<()> {
    let hostile = Hostile::new(lab)?;
    for lock in [r#"ln -s "$1"/precious"#, r#"ln -s "$1"/new"#, "mkfifo", "mkdir"] {
        hostile.withstands(&format!("mkdir -m 700 /run/nsntrace; {lock} /run/nsntrace/lock"))?;
    }
    Ok(())
}

/// Names as records have them, and others.
const NAMES: [&str; 3] = ["cafebabe", "1234", "x.json"];

fn records_are_not_files(lab: &Lab) -> Result<()> {
    let hostile = Hostile::new(lab)?;
    for name in NAMES {
        for record in [r#"ln -s "$1"/precious"#, r#"ln -s "$1"/new"#, "mkfifo", "mkdir"] {
            hostile.withstands(&format!("mkdir -m 700 /run/nsntrace; {record} /run/nsntrace/{name}"))?;
        }
    }
    Ok(())
}

fn records_are_garbage(lab: &Lab) -> Result<()> {
    let hostile = Hostile::new(lab)?;
    for name in NAMES {
        for content in
            ["printf ''", "echo garbage", "echo '{'", "head -c 100000 /dev/zero", "head -c 999 /dev/urandom"]
        {
            let record = format!("/run/nsntrace/{name}");
            hostile.withstands(&format!(
                "mkdir -m 700 /run/nsntrace; {content} > {record}; chmod 600 {record}"
            ))?;
            hostile.withstands(&format!(
                "mkdir -m 700 /run/nsntrace; {content} > {record}; chown 65534 {record}"
            ))?;
        }
    }
    Ok(())
}

/// Well-formed records that name what was never nsntrace's: it stays.
fn records_lie(lab: &Lab) -> Result<()> {
    let hostile = Hostile::new(lab)?;
    let lies = [
        r#"{"Link":{"name":"eth1"}}"#.to_owned(),
        r#"{"Link":{"name":"lo"}}"#.to_owned(),
        r#"{"Forwarding":{"device":"../../../core"}}"#.to_owned(),
        format!(r#"{{"Cgroup":{{"path":"{}/empty"}}}}"#, hostile.elsewhere),
        r#"{"Routing":{"link":"eth1","table":254}}"#.to_owned(),
    ];
    for lie in lies {
        let record = format!("echo '{lie}' > /run/nsntrace/cafebabe; chmod 600 /run/nsntrace/cafebabe");
        hostile.withstands(&format!("mkdir -m 700 /run/nsntrace; {record}"))?;
    }
    Ok(())
}
