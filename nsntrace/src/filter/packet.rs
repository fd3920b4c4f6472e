//! The packet's bytes.
//!
//! Most loads are of headers, near the start of the packet: its head. Where the head lies in one piece, it is read where
//! it lies. Else it is copied to the stack: a packet may be shorter, or lie in pieces, or lack its [tag](super::tag). What
//! is behind the head, or at an offset that is calculated, is read where it lies too if it is in the packet's first
//! piece; else a helper fetches it.

use super::{
    assembler::Label,
    classic::{ANCILLARY, Size, Step},
    ebpf::{
        FRAME, Instruction, R0, R1, R2, R3, R4, R8, Register,
        Width::{Bits32, Bits64},
        context, helper, operation, test,
    },
    steps::{Bad, Read},
    tag::{TAG, TAG_END, WINDOWS_END},
    translate::{A, FREE, Hook, PACKET, Translation, X},
};

/// How the head is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Where it lies.
    Direct,
    /// On the stack.
    Copied,
}

/// Where the packet lies, for direct access.
const DATA: Register = R8;
/// Bytes of tag that the packet lacks: 4 or 0. For copied access.
pub(super) const MISSING: Register = R8;

/// Places on the stack.
const SCRATCH: i16 = FREE - 8;
/// See [`tag`](super::tag).
pub(super) const WINDOW: i16 = FREE - 16;
/// See [`tag`](super::tag).
pub(super) const NEXT_WINDOW: i16 = FREE - 24;
/// The copied head begins here: two bytes behind a multiple of eight, so that the addresses of IPv4 in an Ethernet
/// frame can be read as words.
pub(super) const HEAD: i16 = FREE - 24 - 264 + 2;

/// The longest head in bytes.
const MOST: u32 = 256;

/// The kernel takes no offset above.
const LAST_OFFSET: i32 = i32::MAX;
/// The verifier lets nothing be read where it lies that is farther from the packet's start: 16 bits.
const LAST_DIRECT: i32 = 0x7fff;

/// The head, as one program needs it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    /// Its length in bytes.
    pub(super) length: u32,
    /// Whether windows are needed.
    pub(super) windows: bool,
}

impl Head {
    pub(super) fn of(steps: &[Option<Read>], hook: Hook) -> Self {
        let end = |read: &Read| match read.step {
            Step::Absolute(size) if read.k < ANCILLARY => Some(read.k.saturating_add(size.bytes())),
            Step::HeaderLength => Some(read.k.saturating_add(1)),
            _ => None,
        };
        let steps = || steps.iter().flatten();
        let length = steps().filter_map(end).filter(|end| *end <= MOST).max().unwrap_or(0);
        let windows = hook.tags && steps().any(|read| matches!(read.step, Step::Indirect(_)));
        Self { length: if windows { length.max(WINDOWS_END) } else { length }, windows }
    }

    fn holds(self, size: Size, offset: u32) -> bool {
        offset.saturating_add(size.bytes()) <= self.length
    }
}

impl Translation<'_> {
    /// For direct access: to `copied` if the head does not lie in one piece.
    pub(super) fn reach(&mut self, copied: Label) -> Result<(), Bad> {
        if self.hook.tags {
            self.code.push(Instruction::load(Size::Word, R1, PACKET, context::VLAN_PRESENT));
            self.code.jump(Instruction::jump_if(Bits32, test::NE, R1, 0), copied)?;
        }
        self.code.push(Instruction::load(Size::Word, DATA, PACKET, context::DATA));
        if self.head.length > 0 {
            self.code.push(Instruction::load(Size::Word, R2, PACKET, context::DATA_END));
            self.code.push(Instruction::calculate(Bits64, operation::MOV, R1, DATA));
            self.add(R1, self.head.length);
            self.code.jump(Instruction::jump_if(Bits64, test::GT, R1, R2), copied)?;
        }
        Ok(())
    }

    /// For copied access: copies the head, as far as the packet has it.
    pub(super) fn copy(&mut self) -> Result<(), Bad> {
        self.set(MISSING, 0);
        let length = self.head.length;
        self.set(R1, 0);
        for at in (HEAD - 2..HEAD + to_i16(length)).step_by(8) {
            self.code.push(Instruction::store_double(FRAME, at, R1));
        }
        if !self.hook.tags {
            return self.copy_bytes(0, 0, length);
        }
        let (tagged, done) = (self.code.label(), self.code.label());
        self.code.push(Instruction::load(Size::Word, R1, PACKET, context::VLAN_PRESENT));
        self.code.jump(Instruction::jump_if(Bits32, test::NE, R1, 0), tagged)?;
        self.copy_bytes(0, 0, length)?;
        self.code.jump(Instruction::jump(), done)?;
        self.code.bind(tagged);
        self.copy_bytes(0, 0, length.min(TAG))?;
        self.copy_bytes(TAG, TAG_END, length.saturating_sub(TAG_END))?;
        self.put_tag_back();
        self.code.bind(done);
        self.forget(MISSING);
        Ok(())
    }

    /// Copies up to `most` bytes of the packet from an offset on to an offset in the head, as far as it has them.
    fn copy_bytes(&mut self, from: u32, to: u32, most: u32) -> Result<(), Bad> {
        if most == 0 {
            return Ok(());
        }
        let (enough, copy, done) = (self.code.label(), self.code.label(), self.code.label());
        self.code.push(Instruction::load(Size::Word, R4, PACKET, context::LEN));
        self.code.push(Instruction::calculate(Bits64, operation::SUB, R4, from.cast_signed()));
        self.code.jump(Instruction::jump_if(Bits64, test::SGT, R4, most.cast_signed() - 1), enough)?;
        self.code.jump(Instruction::jump_if(Bits64, test::SGT, R4, 0), copy)?;
        self.code.jump(Instruction::jump(), done)?;
        self.code.bind(enough);
        self.set(R4, most);
        self.code.bind(copy);
        self.set(R2, from);
        self.fetch(HEAD + to_i16(to));
        self.code.bind(done);
        Ok(())
    }

    /// A register = the packet's length, with its tag.
    ///
    /// It is asked for each time: of a register that holds it the verifier would know more after each comparison, and
    /// would follow what comes for each state of that knowledge.
    pub(super) fn length(&mut self, register: Register) {
        self.code.push(Instruction::load(Size::Word, register, PACKET, context::LEN));
        if self.hook.tags && self.access == Access::Copied {
            self.code.push(Instruction::calculate(Bits64, operation::ADD, register, MISSING));
        }
    }

    /// A = bytes at an offset.
    pub(super) fn load(&mut self, size: Size, offset: u32) -> Result<(), Bad> {
        if !self.head.holds(size, offset) {
            // Where the packet lacks its tag: such an offset is behind it.
            self.set(R2, offset);
            return self.load_at_r2(size);
        }
        match self.access {
            Access::Direct => {
                self.code.push(Instruction::load(size, A, DATA, to_i16(offset)));
                self.in_own_order(size, A);
            }
            Access::Copied => {
                let end = offset + size.bytes();
                self.length(R1);
                self.demand(Instruction::jump_if(Bits64, test::GE, R1, end.cast_signed()))?;
                self.read_copied(size, offset);
            }
        }
        Ok(())
    }

    /// A = bytes at an offset behind X.
    pub(super) fn load_indirect(&mut self, size: Size, offset: u32) -> Result<(), Bad> {
        self.code.push(Instruction::calculate(Bits32, operation::MOV, R2, X));
        self.set(R1, offset);
        self.code.push(Instruction::calculate(Bits64, operation::ADD, R2, R1));
        self.load_at_r2(size)
    }

    /// A = bytes at the offset in R2, of 64 bits.
    fn load_at_r2(&mut self, size: Size) -> Result<(), Bad> {
        let done = self.code.label();
        match self.access {
            Access::Direct => self.load_in_place(size, done)?,
            Access::Copied if self.hook.tags => self.load_around_tag(size, done)?,
            Access::Copied => {}
        }
        self.demand(Instruction::jump_if(Bits64, test::LE, R2, LAST_OFFSET))?;
        self.set(R4, size.bytes());
        self.fetch(SCRATCH);
        self.demand(Instruction::jump_if(Bits64, test::EQ, R0, 0))?;
        self.code.push(Instruction::load(size, A, FRAME, SCRATCH));
        self.in_own_order(size, A);
        self.code.bind(done);
        Ok(())
    }

    /// A = bytes at the offset in R2, and then to `done`, if they are in the packet's first piece.
    fn load_in_place(&mut self, size: Size, done: Label) -> Result<(), Bad> {
        let elsewhere = self.code.label();
        // Of X nothing shall be known by what is found here.
        self.forget(R2);
        self.code.jump(Instruction::jump_if(Bits64, test::GT, R2, LAST_DIRECT), elsewhere)?;
        self.code.push(Instruction::calculate(Bits64, operation::MOV, R1, DATA));
        self.code.push(Instruction::calculate(Bits64, operation::ADD, R1, R2));
        self.code.push(Instruction::calculate(Bits64, operation::MOV, R3, R1));
        self.add(R3, size.bytes());
        self.code.push(Instruction::load(Size::Word, R4, PACKET, context::DATA_END));
        self.code.jump(Instruction::jump_if(Bits64, test::GT, R3, R4), elsewhere)?;
        self.code.push(Instruction::load(size, A, R1, 0));
        self.in_own_order(size, A);
        self.code.jump(Instruction::jump(), done)?;
        self.code.bind(elsewhere);
        Ok(())
    }

    /// A = bytes of the copied head, in pieces as large as the kernel lets them be read from the stack.
    pub(super) fn read_copied(&mut self, size: Size, offset: u32) {
        let at = HEAD + to_i16(offset);
        let piece = [size, Size::Half, Size::Byte]
            .into_iter()
            .find(|piece| piece.bytes() <= size.bytes() && i32::from(at) % piece.bytes().cast_signed() == 0)
            .unwrap_or(Size::Byte);
        for (number, offset) in (0..to_i16(size.bytes())).step_by(piece.bytes() as usize).enumerate() {
            let register = if number == 0 { A } else { R1 };
            self.code.push(Instruction::load(piece, register, FRAME, at + offset));
            self.in_own_order(piece, register);
            if number > 0 {
                let bits = (8 * piece.bytes()).cast_signed();
                self.code.push(Instruction::calculate(Bits64, operation::LSH, A, bits));
                self.code.push(Instruction::calculate(Bits64, operation::OR, A, R1));
            }
        }
    }

    /// Copies as many bytes as R4 says from the offset in R2 to the stack. R0 is not 0 then if they are not there.
    fn fetch(&mut self, to: i16) {
        self.code.push(Instruction::calculate(Bits64, operation::MOV, R1, PACKET));
        self.code.push(Instruction::calculate(Bits64, operation::MOV, R3, FRAME));
        self.code.push(Instruction::calculate(Bits64, operation::ADD, R3, i32::from(to)));
        self.code.push(Instruction::call(helper::SKB_LOAD_BYTES));
    }

    /// Lets the verifier forget what it knows of a register's number, so that it takes several ways here for one. It
    /// knows nothing of the packet's length, and so nothing of what is turned over by that twice.
    pub(super) fn forget(&mut self, register: Register) {
        self.code.push(Instruction::load(Size::Word, R1, PACKET, context::LEN));
        for _ in 0..2 {
            self.code.push(Instruction::calculate(Bits64, operation::XOR, register, R1));
        }
    }

    pub(super) fn add(&mut self, register: Register, number: u32) {
        self.code.push(Instruction::calculate(Bits64, operation::ADD, register, number.cast_signed()));
    }

    fn in_own_order(&mut self, size: Size, register: Register) {
        if size != Size::Byte {
            self.code.push(Instruction::from_network_order(size, register));
        }
    }
}

/// Of a number that is at most [`MOST`].
#[expect(clippy::cast_possible_truncation, reason = "small numbers")]
pub(super) fn to_i16(number: u32) -> i16 {
    debug_assert!(number <= MOST);
    number as i16
}
