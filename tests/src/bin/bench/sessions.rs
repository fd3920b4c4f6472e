//! Contestants that take turns, on new hosts every few rounds: where a host's memory happens to lie makes some nanoseconds too.

use anyhow::{Result, ensure};
use nsntrace_tests::{Lab, Server};

use crate::{
    contestant::{Capture, Contestant, Spent},
    report::Who,
    statistics::{Estimate, estimate, median_of},
};

/// Most rounds on the same hosts.
const ROUNDS: usize = 20;

/// Fewest hosts of a contestant, if there are as many rounds: an interval is over hosts, and of a few says little.
const SESSIONS: usize = 18;

/// More contestants than there are.
const MOST: usize = 8;

/// What the contestants, by their numbers, have taken.
#[derive(Clone, Debug)]
pub struct Results {
    /// The rounds on the same hosts.
    sessions: Vec<Vec<Round>>,
    /// What each of them has captured in all.
    pub spent: Vec<Spent>,
}

/// What each contestant has taken, one soon after the other: what the machine does in such a time meets all alike.
type Round = [f64; MOST];

/// Has all contestants take turns in this many rounds, or a few more, each with `turn`, which measures.
pub fn sessions<'a>(
    rounds: usize,
    contestants: &[(Who, Capture<'a>)],
    serve: fn(&Lab) -> Result<Server>,
    turn: impl Fn(&mut Contestant<'a>) -> Result<f64>,
) -> Result<Results> {
    ensure!(rounds > 1, "a median needs rounds");
    let mut results = Results { sessions: Vec::new(), spent: vec![Spent::default(); contestants.len()] };
    let mut order: Vec<usize> = (0..contestants.len()).collect();
    // So that nobody always comes behind the same one, who may leave the machine in a state.
    let mut random = fastrand::Rng::with_seed(1);
    let rounds_each = rounds.div_ceil(SESSIONS).min(ROUNDS);
    for _ in 0..rounds.div_ceil(rounds_each) {
        let mut hosts = Vec::new();
        for (who, capture) in contestants {
            hosts.push(Contestant::new(*who, *capture, serve)?);
        }
        let mut measured = vec![[0.0; MOST]; rounds_each];
        for round in &mut measured {
            random.shuffle(&mut order);
            for which in &order {
                round[*which] = turn(&mut hosts[*which])?;
            }
        }
        results.sessions.push(measured);
        for (host, spent) in hosts.into_iter().zip(&mut results.spent) {
            *spent += host.end()?;
        }
    }
    Ok(results)
}

impl Results {
    /// What one takes.
    pub fn taken(&self, which: usize) -> Estimate {
        self.estimate(|rounds| median_of(rounds, |round| round[which]))
    }

    /// What one takes more than the first, which does not capture.
    pub fn added(&self, which: usize) -> Estimate {
        self.estimate(|rounds| added(rounds, which))
    }

    /// What one adds, as a part of what another adds.
    pub fn added_ratio(&self, which: usize, other: usize) -> Estimate {
        self.estimate(|rounds| added(rounds, which) / added(rounds, other))
    }

    /// What one takes, as a part of what another takes in the same round.
    pub fn taken_ratio(&self, which: usize, other: usize) -> Estimate {
        self.estimate(|rounds| median_of(rounds, |round| round[which] / round[other]))
    }

    /// A figure of all rounds. How sure it is depends on the hosts: rounds on the same ones have much in common.
    fn estimate(&self, figure: impl Fn(&[Round]) -> f64) -> Estimate {
        let sessions: Vec<_> = self.sessions.iter().map(Vec::as_slice).collect();
        estimate(&sessions, |sessions| figure(&sessions.concat()))
    }
}

/// The median of what one takes more than the first in the same round.
fn added(rounds: &[Round], which: usize) -> f64 {
    median_of(rounds, |round| round[which] - round[0])
}
