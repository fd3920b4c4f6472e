//! The one way back, from a record. What is gone already is a success.

use std::{panic::resume_unwind, thread};

use super::{
    cgroup_leaf,
    change::Change,
    foreign, forwarding, forwarding6, iptables,
    journal::{Journal, Lock, RunDir},
    link, route,
    run_id::RunId,
};
use crate::{
    error::{Error, Result},
    words::say,
};

/// What a sweep has come to, in records.
#[derive(Clone, Copy, Debug, Default)]
pub struct Swept {
    /// Undone, and forgotten.
    pub undone: usize,
    /// Not undone, or not wholly.
    pub failed: usize,
}

/// Undoes what dead runs left. What fails is told, and stays recorded.
///
/// # Errors
/// Where something in the run folder is no record of ours.
pub fn sweep(dir: &RunDir, lock: &Lock) -> Result<Swept> {
    let mut swept = Swept::default();
    for journal in dir.dead()? {
        let errors = undo(dir, journal, Some(lock));
        *if errors.is_empty() { &mut swept.undone } else { &mut swept.failed } += 1;
        for error in errors {
            say!("nsntrace: a run that died left something behind: {error}");
        }
    }
    Ok(swept)
}

/// Undoes a record and forgets it if all went well. It goes on past errors and returns them.
pub fn undo(dir: &RunDir, journal: Journal, lock: Option<&Lock>) -> Vec<Error> {
    let tag = journal.id().tag();
    let (shared, own): (Vec<_>, Vec<_>) =
        journal.changes().iter().rev().partition(|change| change.is_shared());
    // Who lives in the cgroup must not be left with half of a network.
    let (cgroups, own): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|change| matches!(change, Change::Cgroup { .. }));
    let mut errors = at_once(&cgroups, |change| undo_own(&tag, change));
    errors.extend(at_once(&own, |change| undo_own(&tag, change)));

    // What runs share is the last one's to undo, and which is the last must not change meanwhile: the record goes
    // away under the same lock.
    let own_lock = if lock.is_none() { Some(dir.lock(|| None)) } else { None };
    if let Some(Err(error)) = own_lock {
        errors.push(error);
        return errors;
    }
    errors.extend(at_once(&shared, |change| undo_shared(dir, journal.id(), change)));
    if errors.is_empty() {
        errors.extend(dir.forget(journal).err());
    }
    errors
}

/// Undoes them all at the same time, since most of it is waiting for the kernel, and returns what failed.
fn at_once(changes: &[&Change], undo: impl Fn(&Change) -> Result<()> + Sync) -> Vec<Error> {
    let undo = &undo;
    thread::scope(|scope| {
        let threads: Vec<_> = changes
            .iter()
            .map(|change| match thread::Builder::new().spawn_scoped(scope, move || undo(change)) {
                Ok(thread) => Ok(thread),
                Err(_) => Err(undo(change)),
            })
            .collect();
        let results = threads.into_iter().map(|thread| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(done) => done,
        });
        results.filter_map(Result::err).collect()
    })
}

fn undo_own(tag: &str, change: &Change) -> Result<()> {
    match change {
        Change::Link { name } => link::delete(name, tag),
        Change::Nat { rules } => iptables::remove(rules),
        Change::Foreign { chain } => foreign::remove(chain, tag),
        Change::Routing { link, table } => route::remove(link, *table),
        Change::Cgroup { path } => cgroup_leaf::remove(path),
        Change::Origin { .. }
        | Change::Forwarding { .. }
        | Change::ForceForwarding { .. }
        | Change::Forwarding6(_) => Ok(()),
    }
}

fn undo_shared(dir: &RunDir, own: RunId, change: &Change) -> Result<()> {
    if dir.alive_besides(own)?.iter().flatten().any(|other| other.is_shared_with(change)) {
        return Ok(());
    }
    match change {
        Change::Forwarding { device, on_a_router } => forwarding::switch_off(device, *on_a_router),
        Change::ForceForwarding { device } => forwarding6::let_be(device),
        Change::Forwarding6(host) => host.switch_off(),
        _ => Ok(()),
    }
}
