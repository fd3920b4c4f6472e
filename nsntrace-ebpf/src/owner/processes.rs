//! The processes that are followed.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{HashMap, LruHashMap},
};
use nsntrace_ebpf::ownership::{
    MOST_NAMES, NAME,
    process::{ALIVE, FOLLOWED, WANTED as IS_WANTED},
};

/// What is known of each, by their numbers.
#[map]
static PROCESSES: HashMap<u32, u32> = HashMap::with_max_entries(16384, 0);

/// The same of those that have ended, for packets of theirs may come yet, and of those for which there was no room. Of too
/// many the first are forgotten.
#[map]
static OTHERS: LruHashMap<u32, u32> = LruHashMap::with_max_entries(16384, 0);

/// The names of `--process`.
#[map]
static WANTED: HashMap<[u8; NAME], u8> = HashMap::with_max_entries(MOST_NAMES as u32, 0);

#[unsafe(no_mangle)]
static IS_PICKY: Global<u32> = Global::new(0);

/// What is known of a process; 0 where none of that number was ever followed.
#[inline(always)]
pub fn get(pid: u32) -> u32 {
    // SAFETY: a word is read in one step.
    unsafe { PROCESSES.get(pid).or_else(|| OTHERS.get(pid)) }.copied().unwrap_or(0)
}

/// Whether a process is followed and has not ended.
#[inline(always)]
pub fn is_alive(pid: u32) -> bool {
    get(pid) & ALIVE != 0
}

/// Follows a process that has this name.
#[inline(always)]
pub fn follow(pid: u32, name: &[u8; NAME]) -> u32 {
    // SAFETY: nothing is read.
    let is_wanted = IS_PICKY.load() != 0 && unsafe { WANTED.get(name) }.is_some();
    let known = ALIVE | FOLLOWED | if is_wanted { IS_WANTED } else { 0 };
    set(pid, known);
    known
}

/// Notes what is known of a process.
#[inline(always)]
pub fn set(pid: u32, known: u32) {
    if PROCESSES.insert(pid, known, 0).is_err() {
        // It fails only where there is no memory left; then packets have no owner.
        let _ = OTHERS.insert(pid, known, 0);
    }
}

/// Notes a process's end; false if it was not followed, or its end is noted.
#[inline(always)]
pub fn end(pid: u32) -> bool {
    let known = get(pid);
    if known & ALIVE == 0 {
        return false;
    }
    // First there, then not here: it is known at any moment.
    let _ = OTHERS.insert(pid, known & !ALIVE, 0);
    // It fails where there was no room.
    let _ = PROCESSES.remove(pid);
    true
}

/// Whether packets of this process are to be captured.
#[inline(always)]
pub fn is_wanted(owner: u32) -> bool {
    IS_PICKY.load() == 0 || get(owner) & IS_WANTED != 0
}
