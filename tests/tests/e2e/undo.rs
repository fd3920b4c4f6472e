//! The host is as it was, however a run ended.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsntrace_tests::{Lab, Running, SOON, nsntrace_binary, until};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    normal_end,
    many_signals_at_the_end,
    tracer_is_killed,
    tracer_crashes,
    tracer_is_killed_at_any_moment,
    guardian_is_killed,
    guardian_is_stopped,
    helper_outlives_the_tracer,
    other_namespaces_record_is_left_alone,
    tracer_and_guardian_are_killed,
    tracer_and_guardian_are_killed_at_any_moment,
    dead_runs_are_mended_among_live_ones,
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

/// Nobody starts another run: the guardian mends it.
fn tracer_is_killed(lab: &Lab) -> Result<()> {
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

/// Moments of a run, in milliseconds: half of them before the program runs, and some when it has ended.
const MOMENTS: [u64; 20] =
    [1, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70, 80, 100, 120, 140, 160, 180, 200];

/// A run that takes about as long, so that its end is among the moments.
fn short(lab: &Lab) -> Result<Running> {
    lab.nsntrace(["sleep", "0.05"])?.spawn()
}

fn tracer_is_killed_at_any_moment(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    for moment in MOMENTS {
        let mut run = short(lab)?;
        std::thread::sleep(Duration::from_millis(moment));
        if run.is_alive()? {
            run.signal(Signal::SIGKILL)?;
        }
        run.wait()?;
        lab.assert_clean(&before).with_context(|| format!("killed after {moment} ms"))?;
    }
    Ok(())
}

/// The run does not need it.
fn guardian_is_killed(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = endless(lab)?;
    for pid in of_the_binary(lab)?.into_iter().filter(|pid| *pid != run.pid()) {
        kill(pid, Signal::SIGKILL)?;
    }
    run.signal(Signal::SIGTERM)?;
    run.wait()?.exited(128 + Signal::SIGTERM as i32)?;
    lab.assert_clean(&before)
}

/// The processes of the binary under test: tracer and guardian. Their program is none.
fn of_the_binary(lab: &Lab) -> Result<Vec<Pid>> {
    let binary = nsntrace_binary()?;
    let is_ours = |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary);
    Ok(lab.tracer_cgroup().processes()?.into_iter().filter(is_ours).map(Pid::from_raw).collect())
}

/// Kills them all. One that has just ended needs no signal.
fn kill_every_nsntrace(lab: &Lab) -> Result<()> {
    for pid in of_the_binary(lab)? {
        match kill(pid, Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn tracer_and_guardian_are_killed_at_any_moment(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    for moment in MOMENTS {
        let run = short(lab)?;
        std::thread::sleep(Duration::from_millis(moment));
        kill_every_nsntrace(lab)?;
        run.wait()?;
        no_program_is_left(lab)?;
        lab.nsntrace(["true"])?.run()?.exited(0)?;
        lab.assert_clean(&before).with_context(|| format!("killed after {moment} ms"))?;
    }
    Ok(())
}

/// Somebody has stopped both, and only the tracer is continued.
fn guardian_is_stopped(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = endless(lab)?;
    for pid in of_the_binary(lab)?.into_iter().filter(|pid| *pid != run.pid()) {
        kill(pid, Signal::SIGSTOP)?;
    }
    run.signal(Signal::SIGTERM)?;
    run.wait()?.exited(128 + Signal::SIGTERM as i32)?;
    lab.assert_clean(&before)
}

/// The tracer is killed while its helper waits to add the rules, and another run starts: the rules come later, and
/// nobody is to forget them.
fn helper_outlives_the_tracer(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let job = lab.nsntrace(["sleep", "1000"])?;
    let slow = "#!/bin/sh\ntouch called\nuntil [ -e go ]; do sleep 0.01; done\nexec /usr/sbin/iptables-restore \"$@\"\n";
    let helper = job.dir().join("iptables-restore");
    fs::write(&helper, slow)?;
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", job.dir().display());
    let run = job.env("PATH", &path).spawn()?;
    let dir = run.dir().to_owned();
    until("a helper", SOON, || Ok(dir.join("called").exists().then_some(())))?;
    run.signal(Signal::SIGKILL)?;
    run.wait()?;
    // The tracer held the lock of the folder while it switched forwarding on; it is free now.
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    fs::write(dir.join("go"), "")?;
    lab.assert_clean(&before)
}

/// What a run has left on the host is not to be looked for in another network namespace, and forgotten.
fn other_namespaces_record_is_left_alone(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let run = endless(lab)?;
    kill_every_nsntrace(lab)?;
    run.wait()?;
    no_program_is_left(lab)?;
    lab.nsntrace_by(["unshare", "--net"], ["true"])?.run()?.exited(0)?;
    assert_ne!(lab.snapshot()?, before, "nothing is left to be mended");
    lab.nsntrace(["true"])?.run()?.exited(0)?;
    lab.assert_clean(&before)
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
