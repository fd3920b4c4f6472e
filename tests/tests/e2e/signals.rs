//! Signals, from the keyboard and from elsewhere.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use nsntrace_tests::{Job, Lab, Running, Terminal};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    each_signal_ends_all,
    signal_is_passed_on_as_it_is,
    program_may_outlive_a_signal,
    deaf_program_is_killed,
    second_signal_kills_at_once,
    signal_during_set_up,
    child_left_behind_is_named_and_ended,
    ctrl_c_reaches_the_program_once,
    ctrl_c_never_escalates,
    ctrl_z_and_fg,
    shell_on_the_terminal,
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

fn second_signal_kills_at_once(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let script = "trap 'echo heard' TERM; echo ready; while :; do sleep 0.05; done";
    let mut run = ready(lab, script)?;
    let began = Instant::now();
    run.signal(Signal::SIGTERM)?;
    run.says("heard")?;
    run.signal(Signal::SIGTERM)?;
    run.wait()?.exited(128 + Signal::SIGKILL as i32)?;
    ensure!(began.elapsed() < PROMPTLY, "it took {:?}", began.elapsed());
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

fn child_left_behind_is_named_and_ended(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let script = "setsid sleep 1000 & echo ready; exit 4";
    let mut run = ready(lab, script)?;
    run.complains("sleep")?;
    run.signal(Signal::SIGTERM)?;
    run.wait()?.exited(4)?;
    lab.assert_clean(&before)
}

/// Exits with 10 and the number of INTs. It waits a while for one too many.
const COUNT_INTERRUPTS: &str = "
import signal, sys, time
count = 0
def interrupted(signal, frame):
    global count
    count += 1
signal.signal(signal.SIGINT, interrupted)
print('ready', flush=True)
signal.pause()
end = time.monotonic() + 0.7
while time.monotonic() < end:
    time.sleep(0.05)
sys.exit(10 + count)
";

fn on_terminal(job: Job) -> Result<Terminal> {
    let mut terminal = job.spawn_on_terminal()?;
    terminal.shows("ready")?;
    Ok(terminal)
}

fn ctrl_c_reaches_the_program_once(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let mut terminal = on_terminal(lab.nsntrace(["python3", "-c", COUNT_INTERRUPTS])?)?;
    terminal.types(Terminal::CTRL_C)?;
    terminal.shows("Finished capturing 0 packets.")?;
    terminal.process.wait()?.exited(11)?;
    lab.assert_clean(&before)
}

fn ctrl_c_never_escalates(lab: &Lab) -> Result<()> {
    let script = "trap 'echo caught' INT; echo ready; until read line; do :; done; exit 3";
    let mut terminal = on_terminal(lab.nsntrace(["sh", "-c", script])?)?;
    for _ in 0..4 {
        terminal.types(Terminal::CTRL_C)?;
        terminal.shows("caught")?;
    }
    terminal.types("go\n")?;
    terminal.process.wait()?.exited(3)?;
    Ok(())
}

/// A shell with job control, in the folder of the job, with `$nsntrace` in it.
fn shell(lab: &Lab) -> Result<Terminal> {
    let binary = nsntrace_tests::nsntrace_binary()?.display().to_string();
    let shell = lab.tracer(["bash", "--norc", "--noprofile", "-i"])?;
    let mut terminal = shell.env("PS1", "[prompt]").env("nsntrace", &binary).spawn_on_terminal()?;
    terminal.shows("[prompt]")?;
    Ok(terminal)
}

fn ctrl_z_and_fg(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let mut terminal = shell(lab)?;
    terminal.types("$nsntrace sh -c 'echo rea\"\"dy; read line; echo got $line; exit 8'\n")?;
    terminal.shows("ready")?;
    terminal.types(Terminal::CTRL_Z)?;
    terminal.shows("Stopped")?;
    terminal.shows("[prompt]")?;
    // The shell has the terminal, and the program goes on only when it is told to.
    terminal.types("echo in the sh''ell\n")?;
    terminal.shows("in the shell")?;
    terminal.types("fg\n")?;
    terminal.shows("$nsntrace sh -c")?;
    terminal.types("word\n")?;
    terminal.shows("got word")?;
    terminal.shows("Finished capturing 0 packets.")?;
    terminal.shows("[prompt]")?;
    terminal.types("echo status $?; exit\n")?;
    terminal.shows("status 8")?;
    terminal.process.wait()?;
    lab.assert_clean(&before)
}

/// `nsntrace bash`: the shell in the trace has job control of its own.
fn shell_on_the_terminal(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let words = ["bash", "--norc", "--noprofile", "-i"];
    let mut terminal = lab.nsntrace(words)?.env("PS1", "[prompt]").spawn_on_terminal()?;
    terminal.shows("[prompt]")?;
    terminal.types("sh -c 'echo rea\"\"dy; exec sleep 1000'\n")?;
    terminal.shows("ready")?;
    terminal.types(Terminal::CTRL_Z)?;
    terminal.shows("Stopped")?;
    terminal.shows("[prompt]")?;
    terminal.types("fg\n")?;
    terminal.shows("sleep 1000")?;
    terminal.types(Terminal::CTRL_C)?;
    terminal.shows("[prompt]")?;
    terminal.types("echo status $?; exit 12\n")?;
    terminal.shows("status 130")?;
    terminal.shows("Finished capturing 0 packets.")?;
    terminal.process.wait()?.exited(12)?;
    lab.assert_clean(&before)
}
