//! What a trace uses while nothing happens.

use std::{fs, thread::sleep, time::Duration};

use anyhow::{Context, Result};
use nix::unistd::Pid;
use nsntrace_tests::{Lab, SERVER_ADDRESS};

use crate::{
    report::{Row, Who},
    sender::{SHELL, Sender},
    statistics::{estimate, median},
    usage::Usage,
};

/// How long nothing happens.
const NOTHING: Duration = Duration::from_secs(10);

/// What tracer and guardian may use meanwhile, in milliseconds.
const GOAL: f64 = 5.0;

/// Traces at once: nothing of them gets in another's way.
pub fn bench(traces: usize) -> Result<Vec<Row>> {
    let mut running = Vec::new();
    for _ in 0..traces {
        let lab = Lab::new()?;
        lab.ipv6()?;
        let mut sender = Sender::start(lab.nsntrace(SHELL)?, SERVER_ADDRESS)?;
        // The program is there, and so all is that comes before it.
        let inside: i32 = sender.ask("echo $$")?.parse()?;
        running.push((lab, sender, Pid::from_raw(inside)));
    }
    let before = busy(&running)?;
    sleep(NOTHING);
    let after = busy(&running)?;
    let used: Vec<f64> = after.iter().zip(before).map(|(after, before)| (after - before) / 1e6).collect();
    for (_, sender, _) in running {
        sender.end()?;
    }
    let used = estimate(&used, median);
    let work = format!("idle, {} s", NOTHING.as_secs());
    Ok(vec![Row::new(work, "ms of processor").with(Who::Nsntrace, used).at_most("ms", used, GOAL)])
}

/// Nanoseconds that all processes of each trace but the program have used.
fn busy(running: &[(Lab, Sender, Pid)]) -> Result<Vec<f64>> {
    let of_one = |(lab, _, program): &(Lab, Sender, Pid)| {
        let mut sum = 0.0;
        for pid in fs::read_to_string(lab.tracer_cgroup().path().join("cgroup.procs"))?.lines() {
            let pid = Pid::from_raw(pid.parse().context("a process")?);
            if pid != *program {
                sum += Usage::of(pid)?.busy;
            }
        }
        anyhow::Ok(sum)
    };
    running.iter().map(of_one).collect()
}
