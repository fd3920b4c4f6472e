//! Where root is not all of root, or the host shows less than elsewhere: what is missing is said in one line, or it is done
//! without.

use std::fs;

use anyhow::{Result, ensure};
use nsntrace_tests::Lab;

use crate::{Case, cases, check, ownership, signals, tracee, undo};

pub const CASES: &[Case] = cases![
    rootless,
    rootless_in_a_network_of_its_own,
    without_the_rights_for_another_user,
    what_is_not_needed,
    no_cgroup2,
    no_cgroup2_and_a_daemon,
    no_cgroup2_and_who_is_left,
    no_cgroup2_and_owners,
    no_cgroup2_and_the_tracer_is_killed,
    no_cgroup2_and_all_are_killed,
];

fn rootless(lab: &Lab) -> Result<()> {
    let text = check::is_as_in_a_trace(lab, &["unshare", "--map-root-user"], &[], "root")?;
    ensure!(text.contains("user namespace") && text.contains("rootless"), "{text}");
    Ok(())
}

/// There it may do anything but load BPF programs.
fn rootless_in_a_network_of_its_own(lab: &Lab) -> Result<()> {
    let starter = ["unshare", "--map-root-user", "--net", "--mount"];
    check::is_as_in_a_trace(lab, &starter, &[], "root").map(drop)
}

fn without_the_rights_for_another_user(lab: &Lab) -> Result<()> {
    let starter = ["setpriv", "--bounding-set", "-setuid,-setgid"];
    let text = check::is_as_in_a_trace(lab, &starter, &["-u", "nobody"], "root")?;
    ensure!(text.contains("CAP_SETGID and CAP_SETUID"), "{text}");
    lab.nsntrace_by(starter, ["true"])?.run()?.exited(0).map(drop)
}

/// All rights but those that are told of where they are missing.
fn what_is_not_needed(lab: &Lab) -> Result<()> {
    let web = lab.web()?;
    let before = lab.snapshot()?;
    let told = lab.nsntrace_by(["setpriv", "--bounding-set", "-all"], ["--check"])?.run()?.exited(1)?.text();
    let (_, text) = check::line(&told, "root")?;
    let mut bounds = "-all".to_owned();
    for name in text.split_whitespace().filter_map(|word| word.strip_prefix("CAP_")) {
        bounds += &format!(",+{}", name.to_lowercase());
    }
    ensure!(bounds.starts_with("-all,+dac_override,+net_admin,+sys_admin"), "{text}");
    let words = ["curl", "-s", "-m", "20", "-o", "page", &web.url];
    let done = lab.nsntrace_by(["setpriv", "--bounding-set", &bounds], words)?.run()?.exited(0)?;
    ensure!(fs::read(done.dir.join("page"))? == web.body, "the download is not whole");
    lab.assert_clean(&before)
}

/// A test of other hosts, on one that has cgroup2 in its kernel and nowhere else.
fn as_with_cgroup2(lab: &Lab, test: fn(&Lab) -> Result<()>) -> Result<()> {
    let script = r#"grep ' - cgroup2 ' /proc/self/mountinfo | cut -d' ' -f5 | while read at; do umount -l "$at"; done
        ! grep ' - cgroup2 ' /proc/self/mountinfo"#;
    lab.sh(script)?;
    test(lab)
}

fn no_cgroup2(lab: &Lab) -> Result<()> {
    as_with_cgroup2(lab, |lab| {
        let told = check::check(lab, &[], &[])?.exited(0)?.text();
        let (state, text) = check::line(&told, "cgroup")?;
        ensure!(state == "found" && text.starts_with("no cgroup2 is mounted"), "{told}");
        undo::normal_end(lab)
    })
}

fn no_cgroup2_and_a_daemon(lab: &Lab) -> Result<()> {
    as_with_cgroup2(lab, tracee::daemon_is_traced_to_its_end)
}

fn no_cgroup2_and_who_is_left(lab: &Lab) -> Result<()> {
    as_with_cgroup2(lab, signals::child_left_behind_is_named_and_ended)
}

fn no_cgroup2_and_owners(lab: &Lab) -> Result<()> {
    as_with_cgroup2(lab, ownership::daemon)
}

fn no_cgroup2_and_the_tracer_is_killed(lab: &Lab) -> Result<()> {
    as_with_cgroup2(lab, undo::tracer_is_killed)
}

fn no_cgroup2_and_all_are_killed(lab: &Lab) -> Result<()> {
    as_with_cgroup2(lab, undo::tracer_and_guardian_are_killed)
}
