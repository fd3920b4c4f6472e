//! Code with jumps to places that come later.
//!
//! A jump reaches 32,767 instructions. Before one that is open gets out of reach, an island is built in the code: a
//! jump that goes on to the same place.

use std::collections::BTreeMap;

use super::{ebpf::Instruction, steps::Bad};

/// How far a jump reaches, in instructions.
const REACH: usize = i16::MAX as usize;

/// A place in the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Label(usize);

/// Code that grows.
#[derive(Debug, Default)]
pub struct Assembler {
    code: Vec<Instruction>,
    labels: Vec<Known>,
    /// Jumps to labels that have no place yet, the oldest first.
    open: BTreeMap<usize, Label>,
}

/// What is known of a label.
#[derive(Debug, Default)]
struct Known {
    place: Option<usize>,
    /// Jumps that are to lead there.
    jumps: Vec<usize>,
}

impl Assembler {
    /// A label without a place.
    pub fn label(&mut self) -> Label {
        self.labels.push(Known::default());
        Label(self.labels.len() - 1)
    }

    /// Gives the label its place: what comes next.
    pub fn bind(&mut self, label: Label) {
        self.labels[label.0].place = Some(self.code.len());
        self.close(label);
    }

    /// Whether something that is there already jumps to a label without a place.
    pub fn is_wanted(&self, label: Label) -> bool {
        !self.labels[label.0].jumps.is_empty()
    }

    /// Appends an instruction.
    pub fn push(&mut self, instruction: Instruction) {
        self.build_island(1);
        self.code.push(instruction);
    }

    /// Appends instructions that stay together.
    pub fn push_all(&mut self, instructions: &[Instruction]) {
        self.build_island(instructions.len());
        self.code.extend(instructions);
    }

    /// Appends a jump of any kind to a label.
    ///
    /// # Errors
    /// [`Bad::Distance`] where that lies too far behind.
    pub fn jump(&mut self, jump: Instruction, label: Label) -> Result<(), Bad> {
        self.build_island(1);
        let at = self.code.len();
        self.code.push(jump);
        match self.labels[label.0].place {
            None => self.leave_open(at, label),
            Some(place) => self.code[at].offset = distance(at, place).ok_or(Bad::Distance(at - place))?,
        }
        Ok(())
    }

    /// The code. Every label that was jumped to has its place.
    pub fn finish(self) -> Vec<Instruction> {
        debug_assert!(self.open.is_empty(), "jumps lead nowhere: {:?}", self.open);
        self.code
    }

    fn leave_open(&mut self, at: usize, label: Label) {
        self.open.insert(at, label);
        self.labels[label.0].jumps.push(at);
    }

    /// Lets the open jumps to a label lead here.
    fn close(&mut self, label: Label) {
        let here = self.code.len();
        for at in std::mem::take(&mut self.labels[label.0].jumps) {
            self.open.remove(&at);
            self.code[at].offset = distance(at, here).expect("islands keep it in reach");
        }
    }

    /// Where an open jump would not reach beyond the `coming` instructions, and an island behind them.
    fn build_island(&mut self, coming: usize) {
        let Some((oldest, _)) = self.open.first_key_value() else { return };
        if self.code.len() + coming + self.open.len() + 1 < oldest + REACH {
            return;
        }
        let beyond = self.label();
        let mut labels: Vec<_> = self.open.values().copied().collect();
        labels.sort_unstable();
        labels.dedup();
        let way_around = self.code.len();
        self.code.push(Instruction::jump());
        for label in labels {
            self.close(label);
            self.leave_open(self.code.len(), label);
            self.code.push(Instruction::jump());
        }
        self.leave_open(way_around, beyond);
        self.bind(beyond);
    }
}

/// The offset of a jump from one place to another.
fn distance(from: usize, to: usize) -> Option<i16> {
    let difference = to.checked_signed_diff(from)? - 1;
    i16::try_from(difference).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::ebpf::{R0, R1, Width, operation, test};

    fn filler() -> Instruction {
        Instruction::calculate(Width::Bits32, operation::MOV, R0, R1)
    }

    /// Where a jump at `at` ends, over any number of islands.
    fn target(code: &[Instruction], at: usize) -> usize {
        let next = at.strict_add_signed(isize::from(code[at].offset) + 1);
        if code.get(next).is_some_and(|found| found.code == Instruction::jump().code) {
            target(code, next)
        } else {
            next
        }
    }

    #[test]
    fn near_jumps_lead_to_their_labels() {
        let mut code = Assembler::default();
        let (here, there) = (code.label(), code.label());
        code.bind(here);
        code.jump(Instruction::jump_if(Width::Bits32, test::EQ, R0, 1), there).expect("near");
        code.push(filler());
        code.jump(Instruction::jump_if(Width::Bits32, test::NE, R0, 1), here).expect("near");
        code.bind(there);
        let code = code.finish();
        assert_eq!((code.len(), code[0].offset, code[2].offset), (3, 2, -3));
    }

    #[test]
    fn far_jumps_go_by_islands() {
        let mut code = Assembler::default();
        let ends = [code.label(), code.label(), code.label()];
        let mut jumps = Vec::new();
        for number in 0..200_000 {
            if number % 1000 == 0 {
                // An island may come first.
                code.push(filler());
                jumps.push((code.code.len(), ends[number / 1000 % 3]));
                let jump = Instruction::jump_if(Width::Bits32, test::EQ, R0, 1);
                code.jump(jump, ends[number / 1000 % 3]).expect("forward");
            }
            code.push(filler());
        }
        let places = ends.map(|end| {
            code.bind(end);
            code.push(filler());
            code.code.len() - 1
        });
        let code = code.finish();
        for (at, label) in jumps {
            let at = (at..).find(|at| code[*at].code == 0x16).expect("a jump");
            assert_eq!(target(&code, at), places[label.0]);
        }
    }

    #[test]
    fn too_far_back_is_told() {
        let mut code = Assembler::default();
        let start = code.label();
        code.bind(start);
        for _ in 0..40_000 {
            code.push(filler());
        }
        assert_eq!(code.jump(Instruction::jump(), start), Err(Bad::Distance(40_000)));
    }
}
