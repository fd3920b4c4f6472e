//! /run/nsntrace is read as root: what only root cannot have made is refused, and nothing is followed.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nsntrace_tests::{Done, Lab, Snapshot};

use crate::{Case, cases};

pub const CASES: &[Case] = cases![
    is_a_symlink,
    is_of_another_user,
    is_writable_by_others,
    lock_is_not_a_file,
    records_are_not_files,
    records_are_garbage,
    record_is_huge,
    records_lie,
    original_was_killed,
];

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

fn is_a_symlink(lab: &Lab) -> Result<()> {
    let hostile = Hostile::new(lab)?;
    hostile.withstands(r#"ln -s "$1" /run/nsntrace"#)?.complaint()?;
    hostile.withstands("ln -s /run/nowhere /run/nsntrace")?.complaint()?;
    assert!(!Path::new("/run/nowhere").exists());
    Ok(())
}

fn is_of_another_user(lab: &Lab) -> Result<()> {
    let hostile = Hostile::new(lab)?;
    hostile.withstands("mkdir -m 700 /run/nsntrace; chown 65534 /run/nsntrace")?.complaint()?;
    hostile.withstands("touch /run/nsntrace")?.complaint()?;
    Ok(())
}

fn is_writable_by_others(lab: &Lab) -> Result<()> {
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

/// A hundred megabytes are not read.
fn record_is_huge(lab: &Lab) -> Result<()> {
    let hostile = Hostile::new(lab)?;
    for name in NAMES {
        let record = format!("/run/nsntrace/{name}");
        let make = format!("mkdir -m 700 /run/nsntrace; truncate -s 100M {record}; chmod 600 {record}");
        hostile.withstands(&make)?.complaint()?;
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

/// The original nsntrace leaves a folder there, named after its process.
fn original_was_killed(lab: &Lab) -> Result<()> {
    let hostile = Hostile::new(lab)?;
    hostile.withstands("mkdir -p /run/nsntrace/19602")?.exited(0).map(drop)
}
