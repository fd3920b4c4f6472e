//! iptables fails at each of its calls in turn, or is not there.

use std::fs;

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{Done, Lab};

use crate::setup_failure::Attempt;
use crate::{Case, cases};

pub const CASES: &[Case] = cases![fails, fails_at_the_end, is_missing];

/// nsntrace with an `iptables` and an `iptables-restore` that fail when the shell's `condition` holds; `$n` is the number
/// of the call. Else they are those of that kind.
fn with_iptables(attempt: &Attempt, kind: &str, condition: &str) -> Result<Done> {
    let mut job = attempt.lab.nsntrace(["curl", "-s", "-m", "20", "-o", "page", &attempt.web.url])?;
    let script = format!(
        r#"cd {}
        name=$(basename "$0")
        echo "$name $*" >> calls
        n=$(wc -l < calls)
        if {condition}; then echo 'iptables: a failure on purpose' >&2; exit 4; fi
        exec /usr/sbin/"$(echo "$name" | sed s/iptables/{kind}/)" "$@"
        "#,
        job.dir().display()
    );
    for name in ["iptables", "iptables-restore"] {
        job = job.tool(name, &script)?;
    }
    let done = job.run()?;
    ensure!(done.dir.join("calls").exists(), "iptables was not called by its name");
    Ok(done)
}

fn fails(_: &Lab) -> Result<()> {
    let attempt = Attempt::new()?;
    let calls =
        fs::read_to_string(with_iptables(&attempt, "iptables", "false")?.exited(0)?.dir.join("calls"))?;
    for number in 1..=calls.lines().count() {
        let done = with_iptables(&attempt, "iptables", &format!("[ $n = {number} ]"))?;
        attempt
            .judge(&done)
            .with_context(|| format!("call {number} of iptables fails; the calls:\n{calls}"))?;
    }
    Ok(())
}

/// Undoing carries on past errors, says what is left, and the next start takes it away. Only iptables-legacy is needed at
/// the end.
fn fails_at_the_end(_: &Lab) -> Result<()> {
    let attempt = Attempt::new()?;
    let lab = &attempt.lab;
    let legacy = || lab.host(["iptables-legacy-save"])?.output();
    let done = with_iptables(&attempt, "iptables-legacy", "[ -e page ]")?;
    ensure!(done.stderr.lines().any(|line| line.starts_with("nsntrace: ")), "not a word:\n{}", done.stderr);
    let left = attempt.before.diff(&lab.snapshot()?);
    ensure!(left.lines().all(|line| line.contains("file /run/nsntrace/")), "more is left:\n{left}");
    ensure!(legacy()?.contains("nsntrace:"), "no rule is left, and its record is");
    with_iptables(&attempt, "iptables-legacy", "false")?.exited(0)?;
    ensure!(!legacy()?.contains("nsntrace:"), "{}", legacy()?);
    lab.assert_clean(&attempt.before)
}

fn is_missing(lab: &Lab) -> Result<()> {
    let before = lab.snapshot()?;
    let done = lab.nsntrace(["/bin/true"])?.env("PATH", "/nowhere").run()?;
    let line = done.complaint()?;
    assert!(line.contains("iptables"), "{line}");
    lab.assert_clean(&before)
}
