//! Signals that are sent to it alone.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsntrace_tests::{Lab, Running, SERVER_ADDRESS, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    each_signal_ends_all,
    signal_is_passed_on_as_it_is,
    program_may_outlive_a_signal,
    deaf_program_is_killed,
    second_signal_kills_at_once,
    signal_during_set_up,
    child_left_behind_is_named_and_ended,
    child_left_behind_by_a_signal_is_told,
    signal_while_another_run_holds_the_lock,
    signal_while_nobody_reads,
    stop_during_set_up_is_held_off,
];

/// The time from a signal to the end of a program that heeds it: far below the five seconds of one that does not.
const PROMPTLY: Duration = Duration::from_secs(4);

/// `nsntrace sh -c SCRIPT`, running, and past the point where the script says ready.
fn ready(lab: &Lab, script: &str) -> Result<Running> {
    let mut run = lab.nsntrace(["sh", "-c", script])?.limit(Duration::from_secs(20)).spawn()?;
    run.says("ready")?;
    Ok(run)
}

fn each_signal_ends_all(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    use Signal::{SIGABRT, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGTERM] {
        let run = ready(lab, "ulimit -c 0; echo ready; exec sleep 1000")?;
        let began = Instant::now();
        run.signal(signal)?;
        let done = run.wait()?.exited(128 + signal as i32)?;
        ensure!(began.elapsed() < PROMPTLY, "{signal}: it took {:?}", began.elapsed());
        lab.assert_clean(&before)?;
        assert_eq!(done.captured()?, done.trace().count()?, "{signal}");
    }
    Ok(())
}

fn signal_is_passed_on_as_it_is(lab: &Lab) -> Result<()> {
    for (signal, name) in [(Signal::SIGTERM, "TERM"), (Signal::SIGINT, "INT"), (Signal::SIGHUP, "HUP")] {
        let script = format!("trap 'echo got it; exit 9' {name}; echo ready; while :; do sleep 0.05; done");
        let run = ready(lab, &script)?;
        run.signal(signal)?;
        assert!(run.wait()?.exited(9)?.text().contains("got it"), "{signal}");
    }
    Ok(())
}

/// A program that handles INT goes on: it is its own affair.
fn program_may_outlive_a_signal(lab: &Lab) -> Result<()> {
    let script = "trap 'echo once' INT; echo ready; until read line; do :; done; exit 3";
    let mut run = lab.nsntrace(["sh", "-c", script])?.told().spawn()?;
    run.says("ready")?;
    run.signal(Signal::SIGINT)?;
    run.says("once")?;
    std::io::Write::write_all(&mut run.stdin_pipe()?, b"go\n")?;
    run.wait()?.exited(3)?;
    Ok(())
}

const DEAF: &str = "trap '' TERM HUP; echo ready; while :; do sleep 0.1; done";

fn deaf_program_is_killed(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = ready(lab, DEAF)?;
    let began = Instant::now();
    run.signal(Signal::SIGTERM)?;
    run.wait()?.exited(128 + Signal::SIGKILL as i32)?;
    ensure!(began.elapsed() > Duration::from_secs(4), "it was given {:?} only", began.elapsed());
    lab.assert_clean(&before)
}

/// Two at the same moment may count as one, so it asks until it is heard; once would take five seconds.
fn second_signal_kills_at_once(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let mut run = ready(lab, DEAF)?;
    until("the end after more than one signal", PROMPTLY, || {
        if !run.is_alive()? {
            return Ok(Some(()));
        }
        run.signal(Signal::SIGTERM)?;
        Ok(None)
    })?;
    run.wait()?.exited(128 + Signal::SIGKILL as i32)?;
    lab.assert_clean(&before)
}

/// At whatever point of the set-up it comes: the host is clean, and soon.
fn signal_during_set_up(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    for step in 0..12 {
        let run = lab.nsntrace(["sleep", "1000"])?.limit(Duration::from_secs(20)).spawn()?;
        // Not a wait for something: the moment of the signal is what is varied.
        std::thread::sleep(Duration::from_millis(step * 8));
        run.signal(Signal::SIGTERM)?;
        let done = run.wait()?;
        ensure!(!done.status.success(), "a program that was ended is no success");
        lab.assert_clean(&before)?;
    }
    Ok(())
}

pub fn child_left_behind_is_named_and_ended(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let script = "setsid sleep 1000 & echo ready; exit 4";
    let mut run = ready(lab, script)?;
    run.complains("sleep")?;
    run.signal(Signal::SIGTERM)?;
    run.wait()?.exited(4)?;
    lab.assert_clean(&before)
}

/// The program goes at once, its child has something to finish first.
fn child_left_behind_by_a_signal_is_told(lab: &Lab) -> Result<()> {
    let child = "trap 'echo told; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let script = format!("setsid sh -c \"{child}\" & trap 'exit 4' TERM; while :; do sleep 0.05; done");
    let run = ready(lab, &script)?;
    let began = Instant::now();
    run.signal(Signal::SIGTERM)?;
    let done = run.wait()?.exited(4)?;
    ensure!(done.text().contains("told"), "the child was not told: {:?}", done.text());
    ensure!(began.elapsed() < PROMPTLY, "it took {:?}", began.elapsed());
    Ok(())
}

fn signal_while_another_run_holds_the_lock(lab: &Lab) -> Result<()> {
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    let before = lab.snapshot()?;
    let hold = ["flock", "/run/nsntrace/lock", "sh", "-c", "echo held; exec sleep 1000"];
    let mut holder = lab.host(hold)?.spawn()?;
    holder.says("held")?;
    let mut run = lab.nsntrace(["true"])?.spawn()?;
    run.complains("waiting for another run")?;
    run.signal(Signal::SIGTERM)?;
    run.wait()?.exited(128 + Signal::SIGTERM as i32)?;
    drop(holder);
    lab.assert_clean(&before)
}

/// The trace goes to a pipe that is full, and its time is up.
fn signal_while_nobody_reads(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let flood = env!("CARGO_BIN_EXE_flood");
    let script = format!("{flood} {SERVER_ADDRESS}:9 20000 >&2; echo ready >&2; exec sleep 1000");
    let words = ["-o", "-", "--duration", "2", "sh", "-c", &script];
    let mut run = lab.nsntrace(words)?.piped().limit(Duration::from_secs(20)).spawn()?;
    let _unread = run.stdout_pipe()?;
    run.complains("ready")?;
    run.signal(Signal::SIGTERM)?;
    // The program has ended, tracer and guardian are left: there are packets to be written, and nobody takes them.
    until("the program's end", PROMPTLY, || Ok((lab.tracer_cgroup().processes()?.len() == 2).then_some(())))?;
    // One that comes while the tracer is just about to notice that is for the program, too.
    until("the trace's end", PROMPTLY, || {
        run.signal(Signal::SIGTERM)?;
        Ok((!run.is_alive()?).then_some(()))
    })?;
    run.wait()?.exited(128 + Signal::SIGTERM as i32)?;
    lab.assert_clean(&before)
}

/// A shell's job, as far as Ctrl-Z knows: a process group with somebody to continue it.
const JOB: &str = "
import os, subprocess, sys
job = subprocess.Popen(sys.argv[1:], preexec_fn=lambda: os.setpgid(0, 0))
print('job', job.pid, 'runs', flush=True)
sys.exit(job.wait())
";

/// Ctrl-Z comes while the lock is waited for: it has its way, but not while others wait in turn.
fn stop_during_set_up_is_held_off(lab: &Lab) -> Result<()> {
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    let hold = ["flock", "/run/nsntrace/lock", "sh", "-c", "echo held; read line"];
    let mut holder = lab.host(hold)?.told().spawn()?;
    holder.says("held")?;
    let mut run =
        lab.nsntrace_by(["python3", "-c", JOB], ["sh", "-c", "echo ready; exec sleep 1000"])?.spawn()?;
    let said = run.says("runs")?;
    let pid = said.split(' ').nth(1).context("no pid")?.parse().map(Pid::from_raw)?;
    run.complains("waiting for another run")?;
    kill(pid, Signal::SIGTSTP)?;
    drop(holder.stdin_pipe()?);
    run.says("ready")?;
    let state = format!("/proc/{pid}/stat");
    until("a stopped tracer", PROMPTLY, || Ok(fs::read_to_string(&state)?.contains(") T ").then_some(())))?;
    // It holds nothing that others wait for.
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    kill(pid, Signal::SIGCONT)?;
    kill(pid, Signal::SIGTERM)?;
    run.wait()?.exited(128 + Signal::SIGTERM as i32)?;
    Ok(())
}
