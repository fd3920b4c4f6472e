//! A classic program, read and checked: what each instruction means, and which of them can be reached.

use thiserror::Error;

use super::classic::{Instruction, Step};

/// Why a program cannot be translated.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Bad {
    /// An instruction that means nothing.
    #[error("instruction {at} ({code:#x}) is unknown")]
    Instruction {
        /// Where it is.
        at: usize,
        /// Its code.
        code: u16,
    },
    /// A way that leads out of the program.
    #[error("instruction {0} leads out of the program")]
    Way(usize),
    /// A jump back over more than a jump can reach, in instructions.
    #[error("a jump leads {0} instructions back, and 32768 is the most")]
    Distance(usize),
}

/// Where an instruction leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nowhere: it returns.
    End,
    /// To one place.
    One(usize),
    /// To the first if its test holds, else to the second.
    Either(usize, usize),
}

impl Next {
    pub(super) fn leads_to(self, at: usize) -> bool {
        match self {
            Self::End => false,
            Self::One(next) => next == at,
            Self::Either(yes, no) => yes == at || no == at,
        }
    }
}

/// One instruction, read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) step: Step,
    pub(super) k: u32,
    pub(super) next: Next,
}

/// The instructions; none where one cannot be reached.
pub(super) fn read(program: &[Instruction]) -> Result<Vec<Option<Read>>, Bad> {
    let mut steps = vec![None; program.len()];
    let mut found = vec![0];
    while let Some(at) = found.pop() {
        let instruction = program.get(at).ok_or(Bad::Way(at))?;
        if steps[at].is_some() {
            continue;
        }
        let read = read_one(program, at, instruction)?;
        match read.next {
            Next::End => {}
            Next::One(next) => found.push(next),
            Next::Either(first, second) => found.extend([first, second]),
        }
        steps[at] = Some(read);
    }
    Ok(steps)
}

fn read_one(program: &[Instruction], at: usize, instruction: &Instruction) -> Result<Read, Bad> {
    let Instruction { code, jt, jf, k } = *instruction;
    let step = instruction.step().ok_or(Bad::Instruction { at, code })?;
    let leads_to = |to: Option<usize>| to.and_then(|to| destination(program, to)).ok_or(Bad::Way(at));
    let next = match step {
        Step::Return(_) => Next::End,
        Step::Jump => Next::One(leads_to(target(at, k))?),
        Step::Branch(..) => {
            Next::Either(leads_to(Some(at + 1 + usize::from(jt)))?, leads_to(Some(at + 1 + usize::from(jf)))?)
        }
        _ => Next::One(leads_to(Some(at + 1))?),
    };
    Ok(Read { step, k, next })
}

/// Where a jump leads. libpcap jumps back with a negative distance, for protochain.
fn target(at: usize, k: u32) -> Option<usize> {
    (at + 1).checked_add_signed(k.cast_signed() as isize)
}

/// Where a way leads in the end: a branch reaches 255 instructions, so libpcap lets it lead to a jump that goes on.
/// None if that is not in the program.
fn destination(program: &[Instruction], mut at: usize) -> Option<usize> {
    loop {
        let instruction = program.get(at)?;
        match target(at, instruction.k) {
            Some(next) if instruction.step() == Some(Step::Jump) && next > at => at = next,
            _ => return Some(at),
        }
    }
}
