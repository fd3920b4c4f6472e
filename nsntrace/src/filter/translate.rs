//! Classic instructions in, eBPF instructions out.
//!
//! A lives in R0 and X in R7, as 32-bit numbers; memory is on the stack. What the classic machine does with bytes that
//! are not there, and with a division by zero, it does here too: the packet does not match.

use super::{
    assembler::{Assembler, Label},
    classic::{self, ANCILLARY, INTERFACE, MEMORY, OUTGOING, Operand, PACKET_TYPE, Size, Step, Test, Value},
    ebpf::{
        FRAME, Instruction, R0, R1, R6, R7, Register,
        Width::{Bits32, Bits64},
        context, operation, test,
    },
    packet::{Access, Head},
    steps::{Bad, Next, Read, read},
};

/// The accumulator, by the classic machine's name for it.
pub(super) const A: Register = R0;
/// The index.
pub(super) const X: Register = R7;
/// The packet's context.
pub(super) const PACKET: Register = R6;

/// Places on the stack, as distances from its end.
const WORDS: i16 = -64;
const SAVED: i16 = -72;
pub(super) const ROUNDS: i16 = -80;
/// From here on it is for [`packet`](super::packet).
pub(super) const FREE: i16 = ROUNDS;

/// Where a filter is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Whether packets leave here, seen from the traced program.
    pub outgoing: bool,
    /// Whether they are frames of a link whose VLAN tag the kernel may have taken out.
    pub tags: bool,
    /// Whether a program may read packets where they lie.
    pub direct: bool,
}

/// Translates a program. What comes out takes the packet's context in R1, and has R0 = 1 at its end if the packet
/// matches, else 0; R6 is the context then.
///
/// # Errors
/// Where the program is none that libpcap makes.
pub fn translate(program: &[classic::Instruction], hook: Hook) -> Result<Vec<Instruction>, Bad> {
    let steps = read(program)?;
    let mut code = Assembler::default();
    let (matched, no_match) = (code.label(), code.label());
    let head = Head::of(&steps, hook);
    let mut translation =
        Translation { steps: &steps, hook, head, code, matched, no_match, access: Access::Copied };
    translation.begin();
    if hook.direct {
        let copied = translation.code.label();
        translation.reach(copied)?;
        translation.access = Access::Direct;
        translation.body()?;
        if !translation.code.is_wanted(copied) {
            return translation.end();
        }
        translation.code.bind(copied);
        translation.access = Access::Copied;
    }
    translation.copy()?;
    translation.body()?;
    translation.end()
}

/// A translation on its way.
pub(super) struct Translation<'a> {
    pub(super) steps: &'a [Option<Read>],
    pub(super) hook: Hook,
    pub(super) head: Head,
    pub(super) code: Assembler,
    matched: Label,
    pub(super) no_match: Label,
    pub(super) access: Access,
}

impl Translation<'_> {
    fn begin(&mut self) {
        self.code.push(Instruction::calculate(Bits64, operation::MOV, PACKET, R1));
        self.set(X, 0);
        for word in 0..MEMORY {
            if self.steps.iter().flatten().any(|read| matches!(read.step, Step::Fetch(_)) && read.k == word) {
                self.code.push(Instruction::store(Size::Word, FRAME, slot(word), X));
            }
        }
    }

    /// The whole program once.
    fn body(&mut self) -> Result<(), Bad> {
        self.set(A, 0);
        let labels: Vec<_> = self.steps.iter().map(|_| self.code.label()).collect();
        let mut rounds = labels.clone();
        let loops = self.loops();
        if !loops.is_empty() {
            self.count_from_0();
        }
        for (at, read) in self.steps.iter().enumerate() {
            let Some(read) = read else { continue };
            self.code.bind(labels[at]);
            if loops.contains(&at) {
                rounds[at] = self.begin_loop(at);
            }
            self.step(read)?;
            match read.next {
                Next::End => {}
                Next::One(next) if next == at + 1 => {}
                Next::One(next) if next <= at => self.repeat(rounds[next])?,
                Next::One(next) => self.code.jump(Instruction::jump(), labels[next])?,
                Next::Either(yes, no) => self.branch(read, at + 1, [yes, no], &labels)?,
            }
        }
        Ok(())
    }

    fn end(mut self) -> Result<Vec<Instruction>, Bad> {
        let end = self.code.label();
        // The verifier refuses what cannot be reached.
        let has_no_match = self.code.is_wanted(self.no_match);
        if self.code.is_wanted(self.matched) {
            self.code.bind(self.matched);
            self.set(R0, 1);
            if has_no_match {
                self.code.jump(Instruction::jump(), end)?;
            }
        }
        if has_no_match {
            self.code.bind(self.no_match);
            self.set(R0, 0);
        }
        self.code.bind(end);
        Ok(self.code.finish())
    }

    /// Goes on if the test holds; else the packet does not match.
    ///
    /// The verifier follows what comes behind a jump first and keeps the other way in mind, and it keeps no more than
    /// 8192: so what comes behind is the way that ends.
    pub(super) fn demand(&mut self, demand: Instruction) -> Result<(), Bad> {
        let holds = self.code.label();
        self.code.jump(demand, holds)?;
        self.code.jump(Instruction::jump(), self.no_match)?;
        self.code.bind(holds);
        Ok(())
    }

    fn step(&mut self, read: &Read) -> Result<(), Bad> {
        let k = read.k;
        match read.step {
            Step::Absolute(_) if k >= ANCILLARY => self.ancillary(k)?,
            Step::Absolute(size) => self.load(size, k)?,
            Step::Indirect(size) => self.load_indirect(size, k)?,
            Step::HeaderLength => self.header_length(k)?,
            Step::Constant(register) => self.set(home(register), k),
            Step::Length(register) => self.length(home(register)),
            Step::Fetch(to) => self.code.push(Instruction::load(Size::Word, home(to), FRAME, slot(k))),
            Step::Store(from) => {
                self.code.push(Instruction::store(Size::Word, FRAME, slot(k), home(from)));
            }
            Step::Calculate(operation, operand) => self.calculate(operation, operand, k)?,
            Step::Negate => self.code.push(Instruction::calculate(Bits32, operation::NEG, A, 0)),
            Step::Jump | Step::Branch(..) => {}
            Step::Return(value) => self.give_back(value, k)?,
            Step::Copy { to } => {
                let from = if to == classic::Register::A { X } else { A };
                self.code.push(Instruction::calculate(Bits32, operation::MOV, home(to), from));
            }
        }
        Ok(())
    }

    fn give_back(&mut self, value: Value, k: u32) -> Result<(), Bad> {
        if value == Value::A {
            self.demand(Instruction::jump_if(Bits32, test::NE, A, 0))?;
        }
        let is_no_match = value == Value::K && k == 0;
        self.code.jump(Instruction::jump(), if is_no_match { self.no_match } else { self.matched })
    }

    pub(super) fn set(&mut self, register: Register, value: u32) {
        self.code.push(Instruction::calculate(Bits32, operation::MOV, register, value.cast_signed()));
    }

    /// What is not there is out of range, as it is for who reads a file.
    fn ancillary(&mut self, k: u32) -> Result<(), Bad> {
        match k {
            PACKET_TYPE => self.set(A, if self.hook.outgoing { OUTGOING } else { 0 }),
            INTERFACE => self.code.push(Instruction::load(Size::Word, A, PACKET, context::IFINDEX)),
            _ => return self.never(),
        }
        Ok(())
    }

    /// No match. The verifier wants a way to what follows.
    pub(super) fn never(&mut self) -> Result<(), Bad> {
        self.demand(Instruction::jump_if(Bits32, test::LT, A, 0))
    }

    fn header_length(&mut self, k: u32) -> Result<(), Bad> {
        self.code.push(Instruction::store_double(FRAME, SAVED, A));
        self.load(Size::Byte, k)?;
        self.code.push(Instruction::calculate(Bits32, operation::AND, A, 0xf));
        self.code.push(Instruction::calculate(Bits32, operation::LSH, A, 2));
        self.code.push(Instruction::calculate(Bits32, operation::MOV, X, A));
        self.code.push(Instruction::load_double(A, FRAME, SAVED));
        Ok(())
    }

    /// To one of two places; `following` is the one that needs no jump. A way that ends is again what comes first.
    fn branch(
        &mut self,
        read: &Read,
        following: usize,
        [yes, no]: [usize; 2],
        labels: &[Label],
    ) -> Result<(), Bad> {
        let Step::Branch(asked, operand) = read.step else { return Ok(()) };
        let (code, opposite) = match asked {
            Test::Equal => (test::EQ, Some(test::NE)),
            Test::Greater => (test::GT, Some(test::LE)),
            Test::GreaterOrEqual => (test::GE, Some(test::LT)),
            Test::AnyBitOf => (test::SET, None),
        };
        let jump_if = |code| match operand {
            Operand::K => Instruction::jump_if(Bits32, code, A, read.k.cast_signed()),
            Operand::X => Instruction::jump_if(Bits32, code, A, X),
        };
        let (first, second, code) = match opposite {
            Some(opposite) if self.is_end(yes) || (yes == following && !self.is_end(no)) => {
                (yes, no, opposite)
            }
            _ => (no, yes, code),
        };
        if first != second {
            self.code.jump(jump_if(code), labels[second])?;
        }
        if first == following {
            return Ok(());
        }
        self.code.jump(Instruction::jump(), labels[first])
    }

    fn is_end(&self, at: usize) -> bool {
        self.steps[at].is_some_and(|read| matches!(read.step, Step::Return(_)))
    }
}

fn home(register: classic::Register) -> Register {
    match register {
        classic::Register::A => A,
        classic::Register::X => X,
    }
}

/// Where a word of memory is on the stack.
fn slot(word: u32) -> i16 {
    WORDS + 4 * i16::try_from(word).unwrap_or_default()
}
