//! The one way back: from a record, the last change first. What is gone already is a success.

use super::{
    cgroup_leaf, forwarding,
    journal::{Change, Journal, Lock, RunDir, RunId},
    link, nat, route,
};
use crate::{
    error::{Error, Result},
    words::say,
};

/// Undoes what dead runs left. What fails is told, and stays recorded.
///
/// # Errors
/// Where something in the run folder is no record of ours.
pub fn sweep(dir: &RunDir, lock: &Lock) -> Result<()> {
    for journal in dir.dead()? {
        for error in undo(dir, journal, Some(lock)) {
            say!("nsntrace: a run that died left something behind: {error}");
        }
    }
    Ok(())
}

/// Undoes a record and forgets it if all went well. It goes on past errors and returns them.
pub fn undo(dir: &RunDir, journal: Journal, lock: Option<&Lock>) -> Vec<Error> {
    let id = journal.id();
    let mut errors: Vec<_> =
        journal.changes().iter().rev().filter_map(|change| undo_one(dir, id, change, lock).err()).collect();
    if errors.is_empty() {
        errors.extend(dir.forget(journal).err());
    }
    errors
}

fn undo_one(dir: &RunDir, id: RunId, change: &Change, lock: Option<&Lock>) -> Result<()> {
    match change {
        Change::Link { name } => link::delete(name, &id.tag()),
        Change::Nat { rules } => nat::remove(rules),
        Change::Routing { link, table } => route::remove(link, *table),
        Change::Cgroup { path } => cgroup_leaf::remove(path),
        Change::Forwarding { device } => {
            let _lock = if lock.is_none() { Some(dir.lock()?) } else { None };
            let shared = dir.alive_besides(id)?.iter().any(|changes| changes.contains(change));
            if shared { Ok(()) } else { forwarding::switch_off(device) }
        }
    }
}
