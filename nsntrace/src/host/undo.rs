//! The one way back: from a record, the last change first. What is gone already is a success.

use super::{
    cgroup_leaf,
    change::Change,
    forwarding, forwarding6,
    journal::{Journal, Lock, RunDir},
    link, nat, route,
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
    let mut errors: Vec<_> = own.into_iter().filter_map(|change| undo_own(&tag, change).err()).collect();

    // What runs share is the last one's to undo, and which is the last must not change meanwhile: the record goes
    // away under the same lock.
    let own_lock = if lock.is_none() { Some(dir.lock(|| None)) } else { None };
    if let Some(Err(error)) = own_lock {
        errors.push(error);
        return errors;
    }
    errors.extend(shared.into_iter().filter_map(|change| undo_shared(dir, journal.id(), change).err()));
    if errors.is_empty() {
        errors.extend(dir.forget(journal).err());
    }
    errors
}

fn undo_own(tag: &str, change: &Change) -> Result<()> {
    match change {
        Change::Link { name } => link::delete(name, tag),
        Change::Nat { rules } => nat::remove(rules),
        Change::Routing { link, table } => route::remove(link, *table),
        Change::Cgroup { path } => cgroup_leaf::remove(path),
        Change::Origin { .. }
        | Change::Forwarding { .. }
        | Change::ForceForwarding { .. }
        | Change::Forwarding6 { .. } => Ok(()),
    }
}

fn undo_shared(dir: &RunDir, own: RunId, change: &Change) -> Result<()> {
    if dir.alive_besides(own)?.iter().flatten().any(|other| other.is_shared_with(change)) {
        return Ok(());
    }
    match change {
        Change::Forwarding { device, on_a_router } => forwarding::switch_off(device, *on_a_router),
        Change::ForceForwarding { device } => forwarding6::let_be(device),
        Change::Forwarding6 { takes_routers, forwarding } => {
            forwarding6::switch_off(takes_routers, forwarding)
        }
        _ => Ok(()),
    }
}
