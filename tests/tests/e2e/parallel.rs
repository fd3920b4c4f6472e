//! Runs at the same time do not disturb each other.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nsntrace_tests::Lab;
use nsntrace_tests::ask::{answer, ask, ask_in_vain, start};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![five_at_once, eight_begin_at_the_same_moment, they_do_not_reach_each_other];

pub fn five_at_once(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let program = r#"echo ready; read line; curl -s -o page "$1" && exit "$2""#;
    let mut runs = Vec::new();
    for status in 1..=5 {
        let words = ["sh", "-c", program, "sh", &web.url, &status.to_string()];
        runs.push(lab.nsntrace(words)?.told().spawn()?);
    }
    for run in &mut runs {
        run.says("ready")?;
    }
    // They have the same moment for it.
    let stdins = runs.iter_mut().map(|run| run.stdin_pipe()).collect::<Result<Vec<_>>>()?;
    let mut stdins = stdins.into_iter();
    let mut addresses = BTreeSet::new();
    for (run, status) in runs.into_iter().zip(1..) {
        // The host forwards until the last one ends.
        assert!(
            lab.snapshot()?.has(&["sysctl ipv4/conf/eth1/forwarding:1"]),
            "run {status} has no forwarding"
        );
        drop(stdins.next());
        let done = run.wait()?.exited(status)?;
        assert!(fs::read(done.dir.join("page"))? == web.body);
        let trace = done.trace();
        assert!(trace.http_bodies()?.get("data.bin") == Some(&web.body));
        assert_eq!(done.captured()?, trace.count()?);
        let address = done.address()?.to_owned();
        assert_eq!(trace.count_of(&format!("!arp && !(ip.addr == {address})"))?, 0);
        assert!(addresses.insert(address.clone()), "{address} was given twice");
    }
    lab.assert_clean(&before)
}

/// Whoever began first: the rules of the later one stand above those of the other.
fn they_do_not_reach_each_other(lab: &Lab) -> Result<()> {
    let server = start(lab.nsntrace(answer("7000", &["0.0.0.0", "::"]))?)?;
    let said = server.stderr()?;
    let address = said.lines().find_map(|line| line.strip_prefix("Your IP address in this trace is "));
    let address = address.map(|address| address.trim_end_matches('.')).context("no address is said")?;
    for transport in ["tcp", "udp"] {
        let asked = lab.nsntrace(ask_in_vain(transport, address, "7000"))?.run()?.exited(0)?;
        assert_eq!(asked.text(), "TimeoutError\n", "{transport}");
    }
    // The host does reach it.
    assert!(!lab.host(ask("tcp", address, "7000"))?.output()?.contains("Error"));
    server.signal(Signal::SIGTERM)
}

fn eight_begin_at_the_same_moment(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let runs = (0..8).map(|_| lab.nsntrace(["sh", "-c", "echo ready; read line"])?.told().spawn());
    let mut runs = runs.collect::<Result<Vec<_>>>()?;
    for run in &mut runs {
        run.says("ready")?;
    }
    let mut addresses = BTreeSet::new();
    let stdins = runs.iter_mut().map(|run| run.stdin_pipe()).collect::<Result<Vec<_>>>()?;
    drop(stdins);
    for run in runs {
        // `read` has seen the end of its input.
        let done = run.wait()?.exited(1)?;
        let address = done.address()?.to_owned();
        assert!(addresses.insert(address.clone()), "{address} was given twice");
    }
    lab.assert_clean(&before)
}
