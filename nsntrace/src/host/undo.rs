//! The one way back, from a record. What is gone already is a success.

use std::{panic::resume_unwind, thread};

use super::{
    cgroup_leaf, change::Change, forwarding, forwarding6, journal::Journal, link, lock::Lock, nat::Rule,
    netfilter::Afterwards, own_table, packet_filter, route, run_dir::RunDir, run_id::RunId,
};
use crate::{
    error::{Error, Result},
    words::{plain, say},
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
        let errors = undo(dir, journal, Some(lock), || {}, link::delete);
        *if errors.is_empty() { &mut swept.undone } else { &mut swept.failed } += 1;
        for error in errors {
            say!("nsntrace: a run that died left something behind: {}", plain(&error.to_string()));
        }
    }
    Ok(swept)
}

/// Undoes a record and forgets it if all went well. It goes on past errors and returns them. `before_the_network` comes
/// before anything of that is undone; a link, by its name and alias, is deleted by `delete_link`.
pub fn undo(
    dir: &RunDir,
    journal: Journal,
    lock: Option<&Lock>,
    before_the_network: impl FnOnce(),
    delete_link: impl Fn(&str, &str) -> Result<()> + Sync,
) -> Vec<Error> {
    let (shared, own): (Vec<_>, Vec<_>) =
        journal.changes().iter().rev().partition(|change| change.is_shared());
    // Who lives in the cgroup must not be left with half of a network.
    let (cgroups, own): (Vec<_>, Vec<_>) =
        own.into_iter().partition(|change| matches!(change, Change::Cgroup { .. }));
    let tag = &journal.id().tag();
    let undo_own = |change: &Change| undo_own(change, |name| delete_link(name, tag));
    let mut errors = failures(at_once(&cgroups, undo_own));

    // What runs share is the last one's to undo, and which is the last must not change until the record is gone.
    let lock_here = || if lock.is_none() { dir.lock(|| None).map(Some) } else { Ok(None) };
    let held = if shared.is_empty() { Ok(None) } else { lock_here() };
    let mut lasts = Vec::new();
    if held.is_ok() {
        match lasts_of(dir, journal.id(), shared) {
            Ok(found) => lasts = found,
            Err(error) => errors.push(error),
        }
    }
    before_the_network();
    let switched_off = at_once(&lasts, switch_off);
    // What is still forwarded is still guarded.
    let mut is_off = switched_off.iter().map(Result::is_ok);
    lasts.retain(|_| is_off.next().unwrap_or(false));
    errors.extend(failures(switched_off));

    let steps: Vec<_> = own.iter().map(|change| Some(*change)).chain([None]).collect();
    let undo_step = |step: Option<&Change>| match step {
        Some(change) => undo_own(change).map(|()| None),
        None => remove_rules(tag, &own, &lasts),
    };
    // What the packet filter still has to do goes on meanwhile.
    errors.extend(failures(at_once(&steps, undo_step)));

    match if matches!(held, Ok(None)) { lock_here() } else { held } {
        Ok(_lock) => {
            errors.extend(remove_table(dir, journal.id()).err());
            if errors.is_empty() {
                errors.extend(dir.forget(journal).err());
            }
        }
        Err(error) => errors.push(error),
    }
    errors
}

/// Does it for all of them at the same time, since most of it is waiting for the kernel.
fn at_once<T: Copy + Send, D: Send>(items: &[T], undo: impl Fn(T) -> Result<D> + Sync) -> Vec<Result<D>> {
    let undo = &undo;
    thread::scope(|scope| {
        let threads: Vec<_> = items
            .iter()
            .map(|item| {
                let item = *item;
                match thread::Builder::new().spawn_scoped(scope, move || undo(item)) {
                    Ok(thread) => Ok(thread),
                    Err(_) => Err(undo(item)),
                }
            })
            .collect();
        let results = threads.into_iter().map(|thread| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(done) => done,
        });
        results.collect()
    })
}

fn failures<D>(results: Vec<Result<D>>) -> Vec<Error> {
    results.into_iter().filter_map(Result::err).collect()
}

fn undo_own(change: &Change, delete_link: impl Fn(&str) -> Result<()>) -> Result<()> {
    match change {
        Change::Link { name } => delete_link(name),
        Change::Routing { link, table } => route::table::remove(link, *table),
        Change::Cgroup { path, is_hidden } => cgroup_leaf::remove(path, *is_hidden),
        // Rules go together.
        Change::Nat { .. } | Change::Foreign { .. } | Change::Origin { .. } => Ok(()),
        Change::Forwarding { .. } | Change::ForceForwarding { .. } | Change::Forwarding6(_) => Ok(()),
    }
}

/// Removes the rules of the run, wherever they are, and those that guard what it was the last one to need.
fn remove_rules(tag: &str, own: &[&Change], lasts: &[&Change]) -> Result<Option<Afterwards>> {
    let mut rules: Vec<Rule> = lasts.iter().filter_map(|change| change.guard()).collect();
    let mut has_foreign = false;
    for change in own {
        match change {
            Change::Nat { rules: own } => rules.extend(own.iter().cloned()),
            Change::Foreign { .. } => has_foreign = true,
            _ => {}
        }
    }
    let is_none = rules.is_empty() && !has_foreign;
    if is_none { Ok(None) } else { packet_filter::remove(&rules, Some(tag)).map(Some) }
}

/// Removes the table of all runs, if there is one and nobody else needs it.
fn remove_table(dir: &RunDir, own: RunId) -> Result<()> {
    if dir.alive_besides(own)?.is_empty() { own_table::remove() } else { Ok(()) }
}

/// Those of the shared changes that no other run needs.
fn lasts_of<'a>(dir: &RunDir, own: RunId, shared: Vec<&'a Change>) -> Result<Vec<&'a Change>> {
    if shared.is_empty() {
        return Ok(shared);
    }
    let others = dir.alive_besides(own)?;
    let is_needed = |change: &Change| others.iter().flatten().any(|other| other.is_shared_with(change));
    Ok(shared.into_iter().filter(|change| !is_needed(change)).collect())
}

fn switch_off(change: &Change) -> Result<()> {
    match change {
        Change::Forwarding { device, on_a_router } => forwarding::switch_off(device, *on_a_router),
        Change::ForceForwarding { device } => forwarding6::let_be(device),
        Change::Forwarding6(host) => host.switch_off(),
        _ => Ok(()),
    }
}
