//! What there is of BPF in the kernel, whoever has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use nsntrace_tests::{Lab, SOON, until};
use serde_json::Value;

const KINDS: [&str; 3] = ["prog", "map", "link"];

/// Kind and number.
type Id = (&'static str, u64);

/// Programs, maps and links, as bpftool tells of them.
pub struct Objects(BTreeMap<Id, Value>);

impl Objects {
    /// Those of now.
    pub fn now() -> Result<Self> {
        let mut objects = BTreeMap::new();
        for kind in KINDS {
            let output = Command::new("bpftool").args(["-j", kind]).output().context("cannot run bpftool")?;
            ensure!(output.status.success(), "bpftool failed: {}", String::from_utf8_lossy(&output.stdout));
            let told: Vec<Value> = serde_json::from_slice(&output.stdout)?;
            objects.extend(told.into_iter().filter_map(|one| Some(((kind, one["id"].as_u64()?), one))));
        }
        Ok(Self(objects))
    }

    /// What is new since then and goes away for some time not, but for what processes outside of the lab hold.
    pub fn left(&self, lab: &Lab) -> Result<Option<String>> {
        let own: BTreeSet<_> = lab.tracer_cgroup().processes()?.into_iter().map(i64::from).collect();
        let is_of_others = |object: &Value| {
            let holders =
                object["pids"].as_array().into_iter().flatten().filter_map(|one| one["pid"].as_i64());
            holders.clone().count() > 0 && holders.into_iter().all(|pid| !own.contains(&pid))
        };
        let new = |now: Self| {
            let new =
                now.0.into_iter().filter(|(id, object)| !self.0.contains_key(id) && !is_of_others(object));
            new.collect::<BTreeMap<_, _>>()
        };
        let mut left = new(Self::now()?);
        let gone = until("the end of BPF objects", SOON, || {
            let now = new(Self::now()?);
            left.retain(|id, _| now.contains_key(id));
            Ok(left.is_empty().then_some(()))
        });
        Ok(gone.err().map(|_| left.values().map(|one| format!("{one}\n")).collect()))
    }
}
