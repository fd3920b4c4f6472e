//! Packets whose VLAN tag the kernel has taken out.
//!
//! In the trace the tag is back, after the two addresses, and so it is for the filter: it sees 12 bytes, 4 of tag, and the
//! rest. In a copied head it is put back. Of what meets it at an offset that is calculated there are two windows of 8
//! bytes, at the offsets 8 and 12 of the frame with its tag.

use super::{
    assembler::Label,
    classic::Size,
    ebpf::{
        FRAME, Instruction, R1, R2, R3,
        Width::{Bits32, Bits64},
        context, operation, test,
    },
    packet::{HEAD, MISSING, NEXT_WINDOW, WINDOW, to_i16},
    steps::Bad,
    translate::{A, PACKET, Translation},
};

/// Where the tag is, and where it ends.
pub(super) const TAG: u32 = 12;
const TAG_BYTES: u32 = 4;
pub(super) const TAG_END: u32 = TAG + TAG_BYTES;

/// Where the windows begin, how long they are, and up to where they reach.
const FIRST: u32 = 8;
const SECOND: u32 = 12;
const WINDOW_BYTES: u32 = 8;
pub(super) const WINDOWS_END: u32 = SECOND + WINDOW_BYTES;

impl Translation<'_> {
    pub(super) fn put_tag_back(&mut self) {
        self.set(MISSING, TAG_BYTES);
        if self.head.length <= TAG {
            return;
        }
        let tag = HEAD + to_i16(TAG);
        self.code.push(Instruction::load(Size::Word, R1, PACKET, context::VLAN_PROTO));
        self.code.push(Instruction::store(Size::Half, FRAME, tag, R1));
        self.code.push(Instruction::load(Size::Word, R1, PACKET, context::VLAN_TCI));
        self.code.push(Instruction::from_network_order(Size::Half, R1));
        self.code.push(Instruction::store(Size::Half, FRAME, tag + 2, R1));
        if self.head.windows {
            self.open_windows();
        }
    }

    /// Fills the windows, as numbers in the machine's order.
    fn open_windows(&mut self) {
        for (window, start) in [(WINDOW, FIRST), (NEXT_WINDOW, SECOND)] {
            self.read_copied(Size::Word, start);
            self.code.push(Instruction::calculate(Bits64, operation::MOV, R2, A));
            self.code.push(Instruction::calculate(Bits64, operation::LSH, R2, 32));
            self.read_copied(Size::Word, start + 4);
            self.code.push(Instruction::calculate(Bits64, operation::OR, A, R2));
            self.code.push(Instruction::store_double(FRAME, window, A));
        }
    }

    /// Where the packet lacks its tag: from the window that holds the bytes at the offset in R2, and then to `done`; or
    /// the offset becomes that in the packet as it is.
    pub(super) fn load_around_tag(&mut self, size: Size, done: Label) -> Result<(), Bad> {
        let (as_it_is, behind, second, found) =
            (self.code.label(), self.code.label(), self.code.label(), self.code.label());
        let jump_if = |test, offset: u32| Instruction::jump_if(Bits64, test, R2, offset.cast_signed());
        self.code.jump(Instruction::jump_if(Bits64, test::EQ, MISSING, 0), as_it_is)?;
        self.code.jump(jump_if(test::GE, TAG_END), behind)?;
        self.code.jump(jump_if(test::LE, TAG - size.bytes()), as_it_is)?;

        self.code.push(Instruction::calculate(Bits64, operation::MOV, R3, R2));
        self.add(R3, size.bytes());
        self.length(R1);
        self.demand(Instruction::jump_if(Bits64, test::GE, R1, R3))?;
        self.code.jump(jump_if(test::GE, SECOND), second)?;
        self.window(WINDOW, FIRST, size);
        self.code.jump(Instruction::jump(), found)?;
        self.code.bind(second);
        self.window(NEXT_WINDOW, SECOND, size);
        self.code.bind(found);
        self.code.push(Instruction::calculate(Bits64, operation::RSH, A, R1));
        self.keep_low_bytes(size);
        self.code.jump(Instruction::jump(), done)?;

        self.code.bind(behind);
        self.code.push(Instruction::calculate(Bits64, operation::SUB, R2, TAG_BYTES.cast_signed()));
        self.code.bind(as_it_is);
        Ok(())
    }

    /// A = a window, R1 = how many bits of it are behind those at the offset in R2.
    fn window(&mut self, window: i16, start: u32, size: Size) {
        self.code.push(Instruction::load_double(A, FRAME, window));
        self.set(R1, start + WINDOW_BYTES - size.bytes());
        self.code.push(Instruction::calculate(Bits64, operation::SUB, R1, R2));
        self.code.push(Instruction::calculate(Bits64, operation::LSH, R1, 3));
    }

    fn keep_low_bytes(&mut self, size: Size) {
        match size {
            Size::Byte => self.code.push(Instruction::calculate(Bits32, operation::AND, A, 0xff)),
            Size::Half => self.code.push(Instruction::calculate(Bits32, operation::AND, A, 0xffff)),
            Size::Word => self.code.push(Instruction::calculate(Bits32, operation::MOV, A, A)),
        }
    }
}
