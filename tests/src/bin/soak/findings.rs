//! What was tried, and what was found.

use std::{collections::BTreeMap, fmt};

use anyhow::Result;

use crate::{
    choice::{Choice, End},
    long::Usage,
};

/// What a process may have more of memory at the end, in KiB: an allocator keeps a little.
const SLACK: u64 = 1024;

/// All of it.
#[derive(Debug, Default)]
pub struct Findings {
    traces: u32,
    ends: BTreeMap<String, u32>,
    /// How often each comparison was made, and failed.
    compared: BTreeMap<&'static str, (u32, u32)>,
    usage: Vec<String>,
    are_some: bool,
}

impl Findings {
    /// Whether all was as it should be.
    pub fn are_none(&self) -> bool {
        !self.are_some
    }

    /// How many traces were made.
    pub fn traces(&self) -> u32 {
        self.traces
    }

    /// One more.
    pub fn counts_trace(&mut self) {
        self.traces += 1;
    }

    /// Takes what came of a trace.
    pub fn tried(&mut self, choice: &Choice, result: Result<()>) {
        let end = match choice.end {
            End::Itself => "by itself".to_owned(),
            End::Signal(signal, _) => format!("by {signal}"),
            End::Kill(victim, _) => format!("by SIGKILL of {victim:?}"),
        };
        *self.ends.entry(end).or_default() += 1;
        let told = |error| format!("{choice:?}: {error:#}");
        self.compare("each trace", result.err().map(told));
    }

    /// Takes what differs, if something does, and tells it at once.
    pub fn compare(&mut self, what: &'static str, difference: Option<String>) {
        let (made, failed) = self.compared.entry(what).or_default();
        *made += 1;
        if let Some(difference) = difference {
            *failed += 1;
            self.are_some = true;
            println!("{what}: {difference}");
        }
    }

    /// Takes what processes took at first and at last.
    pub fn compare_usage(&mut self, first: &[Usage], last: &[Usage]) {
        for (first, last) in first.iter().zip(last) {
            let is_more = last.memory > first.memory + SLACK
                || last.descriptors > first.descriptors
                || last.threads > first.threads;
            self.are_some |= is_more;
            self.usage.push(format!(
                "{:<28} {:>7} {:>7} KiB {:>4} {:>4} fds {:>3} {:>3} threads  {}",
                last.who,
                first.memory,
                last.memory,
                first.descriptors,
                last.descriptors,
                first.threads,
                last.threads,
                if is_more { "MORE" } else { "no more" }
            ));
        }
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} traces ended", self.traces)?;
        for (end, count) in &self.ends {
            writeln!(f, "    {end:<36} {count:>6}")?;
        }
        for (what, (made, failed)) in &self.compared {
            let verdict = if *failed == 0 { "as it should be".into() } else { format!("{failed} NOT so") };
            writeln!(f, "{what:<40} {made:>6}  {verdict}")?;
        }
        self.usage.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
