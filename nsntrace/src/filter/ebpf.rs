//! Instructions of eBPF, as few as the translation needs.
//!
//! The numbers are those of Linux's linux/bpf.h and of RFC 9669.

use super::classic::Size;

/// One instruction, laid out as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u8,
    /// The registers: destination in the low half, source in the high one.
    pub registers: u8,
    /// Distance of a jump in instructions, or offset of an access in bytes.
    pub offset: i16,
    /// A constant.
    pub constant: i32,
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u8);

/// Results.
pub const R0: Register = Register(0);
/// The first argument of a helper.
pub const R1: Register = Register(1);
/// The second.
pub const R2: Register = Register(2);
/// The third.
pub const R3: Register = Register(3);
/// The fourth.
pub const R4: Register = Register(4);
/// The first of those that helpers leave alone.
pub const R6: Register = Register(6);
/// The second.
pub const R7: Register = Register(7);
/// The third.
pub const R8: Register = Register(8);
/// The end of the stack.
pub const FRAME: Register = Register(10);

/// Calculations, by their number in the code.
pub mod operation {
    #![expect(missing_docs, reason = "the kernel's names")]
    pub const ADD: u8 = 0x00;
    pub const SUB: u8 = 0x10;
    pub const MUL: u8 = 0x20;
    pub const DIV: u8 = 0x30;
    pub const OR: u8 = 0x40;
    pub const AND: u8 = 0x50;
    pub const LSH: u8 = 0x60;
    pub const RSH: u8 = 0x70;
    pub const NEG: u8 = 0x80;
    pub const MOD: u8 = 0x90;
    pub const XOR: u8 = 0xa0;
    pub const MOV: u8 = 0xb0;
}

/// Tests, by their number in the code.
pub mod test {
    #![expect(missing_docs, reason = "the kernel's names")]
    pub const EQ: u8 = 0x10;
    pub const GT: u8 = 0x20;
    pub const GE: u8 = 0x30;
    pub const SET: u8 = 0x40;
    pub const NE: u8 = 0x50;
    pub const LT: u8 = 0xa0;
    pub const LE: u8 = 0xb0;
    pub const SGT: u8 = 0x60;
}

/// Helpers of the kernel, by their number.
pub mod helper {
    #![expect(missing_docs, reason = "the kernel's names")]
    pub const MAP_LOOKUP_ELEM: i32 = 1;
    pub const GET_SMP_PROCESSOR_ID: i32 = 8;
    pub const TAIL_CALL: i32 = 12;
    pub const SKB_LOAD_BYTES: i32 = 26;
}

/// Fields of a packet's context, by their offset in `__sk_buff`.
pub mod context {
    #![expect(missing_docs, reason = "the kernel's names")]
    pub const LEN: i16 = 0;
    pub const VLAN_PRESENT: i16 = 20;
    pub const VLAN_TCI: i16 = 24;
    pub const VLAN_PROTO: i16 = 28;
    pub const IFINDEX: i16 = 40;
    pub const DATA: i16 = 76;
    pub const DATA_END: i16 = 80;
}

const LDX: u8 = 0x61;
const STX: u8 = 0x63;
const DOUBLE: u8 = 0x18;
const ADD_IN_ONE_STEP: u8 = 0xdb;
const ALU: u8 = 0x04;
const ALU64: u8 = 0x07;
const JMP: u8 = 0x05;
const JMP32: u8 = 0x06;
const BY_REGISTER: u8 = 0x08;
const TO_BIG_ENDIAN: u8 = 0xdc;

/// How wide a calculation or a test is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 32 bits; the upper half of a result is 0.
    Bits32,
    /// 64 bits.
    Bits64,
}

/// The other side of a calculation or a test.
#[derive(Clone, Copy, Debug)]
pub enum Operand {
    /// A constant, sign-extended where it meets 64 bits.
    Constant(i32),
    /// A register.
    Register(Register),
}

impl From<i32> for Operand {
    fn from(constant: i32) -> Self {
        Self::Constant(constant)
    }
}

impl From<Register> for Operand {
    fn from(register: Register) -> Self {
        Self::Register(register)
    }
}

impl Instruction {
    const fn new(code: u8, to: Register, from: Register, offset: i16, constant: i32) -> Self {
        Self { code, registers: to.0 | from.0 << 4, offset, constant }
    }

    /// The bytes as the kernel takes them, in the machine's own order.
    pub fn to_bytes(self) -> [u8; 8] {
        let mut bytes = [self.code, self.registers, 0, 0, 0, 0, 0, 0];
        bytes[2..4].copy_from_slice(&self.offset.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.constant.to_ne_bytes());
        if cfg!(target_endian = "big") {
            bytes[1] = bytes[1].rotate_left(4);
        }
        bytes
    }

    /// `to` = `to` and the other, calculated.
    pub fn calculate(width: Width, operation: u8, to: Register, other: impl Into<Operand>) -> Self {
        let class = if width == Width::Bits32 { ALU } else { ALU64 };
        Self::with(class | operation, to, other.into(), 0)
    }

    /// Jumps if the test holds.
    pub fn jump_if(width: Width, test: u8, left: Register, right: impl Into<Operand>) -> Self {
        let class = if width == Width::Bits32 { JMP32 } else { JMP };
        Self::with(class | test, left, right.into(), 0)
    }

    fn with(code: u8, to: Register, other: Operand, offset: i16) -> Self {
        match other {
            Operand::Constant(constant) => Self::new(code, to, R0, offset, constant),
            Operand::Register(from) => Self::new(code | BY_REGISTER, to, from, offset, 0),
        }
    }

    /// Jumps.
    pub fn jump() -> Self {
        Self::new(JMP, R0, R0, 0, 0)
    }

    /// `to` = the bytes at an address, in the machine's order.
    pub fn load(size: Size, to: Register, from: Register, offset: i16) -> Self {
        Self::new(LDX | width(size), to, from, offset, 0)
    }

    /// `to` = eight bytes at an address.
    pub fn load_double(to: Register, from: Register, offset: i16) -> Self {
        Self::new(LDX | DOUBLE, to, from, offset, 0)
    }

    /// The bytes at an address = `from`, in the machine's order.
    pub fn store(size: Size, to: Register, offset: i16, from: Register) -> Self {
        Self::new(STX | width(size), to, from, offset, 0)
    }

    /// Eight bytes at an address = `from`.
    pub fn store_double(to: Register, offset: i16, from: Register) -> Self {
        Self::new(STX | DOUBLE, to, from, offset, 0)
    }

    /// Adds `from` to eight bytes at an address that others may add to meanwhile.
    pub fn add_in_one_step(to: Register, offset: i16, from: Register) -> Self {
        Self::new(ADD_IN_ONE_STEP, to, from, offset, 0)
    }

    /// Puts the register's low bytes from network order into the machine's; those above become 0. A byte has no
    /// order, and the kernel takes none.
    pub fn from_network_order(size: Size, register: Register) -> Self {
        Self::new(TO_BIG_ENDIAN, register, R0, 0, i32::try_from(size.bytes() * 8).unwrap_or_default())
    }

    /// Calls a helper.
    pub fn call(helper: i32) -> Self {
        Self::new(JMP | 0x80, R0, R0, 0, helper)
    }

    /// Ends the program with the result in R0.
    pub fn exit() -> Self {
        Self::new(JMP | 0x90, R0, R0, 0, 0)
    }

    /// `to` = the map behind a descriptor. Two instructions that belong together.
    pub fn map(to: Register, descriptor: i32) -> [Self; 2] {
        const MAP_FD: Register = Register(1);
        [Self::new(DOUBLE, to, MAP_FD, 0, descriptor), Self::new(0, R0, R0, 0, 0)]
    }
}

fn width(size: Size) -> u8 {
    match size {
        Size::Word => 0x00,
        Size::Half => 0x08,
        Size::Byte => 0x10,
    }
}
