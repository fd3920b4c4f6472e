//! Loops, which eBPF must have counted.

use std::collections::BTreeSet;

use super::{
    assembler::Label,
    ebpf::{FRAME, Instruction, R1, Width::Bits64, operation, test},
    steps::{Bad, Next, Read},
    translate::{A, ROUNDS, Translation, X},
};

/// How many rounds a loop has. libpcap makes one to skip the headers before the one that `protochain` asks for; a packet
/// with more of them does not match. The kernel follows each round when it checks a program.
const MOST_ROUNDS: i32 = 64;

impl Translation<'_> {
    /// Where something jumps back to.
    pub(super) fn loops(&self) -> BTreeSet<usize> {
        let back = |(at, read): (usize, &Option<Read>)| match read.as_ref()?.next {
            Next::One(next) if next <= at => Some(next),
            _ => None,
        };
        self.steps.iter().enumerate().filter_map(back).collect()
    }

    /// From here on rounds are counted: the label is where the next one begins.
    pub(super) fn begin_loop(&mut self, at: usize) -> Label {
        if self.steps[..at].iter().flatten().any(|before| before.next.leads_to(at)) {
            self.count_from_0();
        }
        let round = self.code.label();
        self.code.bind(round);
        round
    }

    pub(super) fn count_from_0(&mut self) {
        self.set(R1, 0);
        self.code.push(Instruction::store_double(FRAME, ROUNDS, R1));
    }

    /// A way back is taken so often and no more.
    ///
    /// All ways through a round must look alike to the verifier, or it follows each of them through all rounds to come.
    pub(super) fn repeat(&mut self, round: Label) -> Result<(), Bad> {
        self.forget(A);
        self.forget(X);
        self.code.push(Instruction::load_double(R1, FRAME, ROUNDS));
        self.code.push(Instruction::calculate(Bits64, operation::ADD, R1, 1));
        self.code.push(Instruction::store_double(FRAME, ROUNDS, R1));
        self.demand(Instruction::jump_if(Bits64, test::LT, R1, MOST_ROUNDS))?;
        self.code.jump(Instruction::jump(), round)
    }
}
