//! The host is as it was, however a run ended.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nsntrace_tests::{Lab, Running, SOON, Victim, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    normal_end,
    many_signals_at_the_end,
    tracer_is_killed,
    tracer_crashes,
    guardian_is_killed,
    guardian_is_stopped,
    container_is_left_no_zombie,
    helper_outlives_the_tracer,
    other_namespaces_record_is_left_alone,
    tracer_and_guardian_are_killed,
    dead_runs_are_mended_among_live_ones,
];

/// A run whose program waits for ever.
fn endless(lab: &Lab) -> Result<Running> {
    let mut run = lab.nsntrace(["sh", "-c", "echo ready; exec sleep 1000"])?.spawn()?;
    run.says("ready")?;
    Ok(run)
}

pub fn normal_end(lab: &Lab) -> Result<()> {
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

/// Nobody starts another run: the guardian mends it.
pub fn tracer_is_killed(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = endless(lab)?;
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    lab.assert_clean(&before)
}

fn tracer_crashes(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let mut run = endless(lab)?;
    // The first is taken for a fault that would come again by itself.
    until("a crash", SOON, || {
        run.signal(Signal::SIGSEGV)?;
        Ok((!run.is_alive()?).then_some(()))
    })?;
    run.wait()?;
    lab.assert_clean(&before)
}

/// The run does not need it.
fn guardian_is_killed(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = endless(lab)?;
    Victim::Guardian.kill(lab, &run)?;
    run.signal(Signal::SIGTERM)?;
    run.wait()?.exited(128 + Signal::SIGTERM as i32)?;
    lab.assert_clean(&before)
}

/// The first process of a container, which looks after no orphan.
const INIT: &str = "
import os, subprocess, sys
status = subprocess.call(sys.argv[1:])
for process in filter(str.isdigit, os.listdir('/proc')):
    print('process', process, open(f'/proc/{process}/comm').read(), end='')
sys.exit(status)
";

fn container_is_left_no_zombie(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let init = ["unshare", "--pid", "--fork", "--mount-proc", "python3", "-c", INIT];
    let text = lab.nsntrace_by(init, ["true"])?.run()?.exited(0)?.text();
    let left: Vec<_> = text.lines().filter(|line| line.starts_with("process")).collect();
    ensure!(left == ["process 1 python3"], "{text}");
    lab.assert_clean(&before)
}

/// Somebody has stopped both, and only the tracer is continued.
fn guardian_is_stopped(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = endless(lab)?;
    kill(lab.guardian_of(&run)?.context("no guardian")?, Signal::SIGSTOP)?;
    run.signal(Signal::SIGTERM)?;
    run.wait()?.exited(128 + Signal::SIGTERM as i32)?;
    lab.assert_clean(&before)
}

/// The tracer is killed while its helper waits to add the rules, and another run starts: the rules come later, and
/// nobody is to forget them.
fn helper_outlives_the_tracer(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let slow = "touch called\nuntil [ -e go ]; do sleep 0.01; done\nexec /usr/sbin/iptables-restore \"$@\"";
    let run = lab.nsntrace(["sleep", "1000"])?.tool("iptables-restore", slow)?.spawn()?;
    let dir = run.dir().to_owned();
    until("a helper", SOON, || Ok(dir.join("called").exists().then_some(())))?;
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    // The tracer held the lock of the folder while it switched forwarding on; it is free now. The other run does it all
    // itself, and the rule of the first comes beside that of the second.
    lab.nsntrace(["curl", "-s", "-m", "20", "-o", "page", &web.url])?.run()?.exited(0)?;
    fs::write(dir.join("go"), "")?;
    lab.assert_clean(&before)
}

/// What a run has left on the host is not to be looked for in another network namespace, and forgotten.
fn other_namespaces_record_is_left_alone(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = endless(lab)?;
    Victim::Both.kill(lab, &run)?;
    run.wait()?;
    no_program_is_left(lab)?;
    lab.nsntrace_by(["unshare", "--net"], ["true"])?.run()?.exited(0)?;
    assert_ne!(lab.snapshot()?, before, "nothing is left to be mended");
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    lab.assert_clean(&before)
}

pub fn tracer_and_guardian_are_killed(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let run = endless(lab)?;
    Victim::Both.kill(lab, &run)?;
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
    Victim::Both.kill(lab, &dead)?;
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
