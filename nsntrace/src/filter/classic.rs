//! Programs for the classic packet filter, as libpcap makes them.
//!
//! The machine has an accumulator A, an index register X and 16 words of memory; all of them have 32 bits. The numbers
//! are those of <https://www.tcpdump.org/papers/bpf-usenix93.pdf> and of Linux's linux/bpf_common.h.

/// One instruction, laid out as libpcap has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip if a test holds.
    pub jt: u8,
    /// How many to skip if it does not.
    pub jf: u8,
    /// A constant, offset or distance.
    pub k: u32,
}

/// Words of memory.
pub const MEMORY: u32 = 16;

/// Offsets from here on are no offsets: what the kernel knows of a packet stands there.
pub const ANCILLARY: u32 = 0xffff_f000;

/// Whether the packet comes or goes, see [`OUTGOING`].
pub const PACKET_TYPE: u32 = ANCILLARY + 4;

/// The number of the interface.
pub const INTERFACE: u32 = ANCILLARY + 8;

/// Type of a packet that goes out; that of one that comes in is 0.
pub const OUTGOING: u32 = 4;

/// What an instruction means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A = the packet's bytes at `k`.
    Absolute(Size),
    /// A = the packet's bytes at X + `k`.
    Indirect(Size),
    /// X = 4 times the low half of the packet's byte at `k`: the length of an IPv4 header.
    HeaderLength,
    /// A register = `k`.
    Constant(Register),
    /// A register = the length of the packet on the wire.
    Length(Register),
    /// A register = a word of memory.
    Fetch(Register),
    /// A word of memory = a register.
    Store(Register),
    /// A = A and another, calculated.
    Calculate(Operation, Operand),
    /// A = -A.
    Negate,
    /// Go on elsewhere.
    Jump,
    /// Go on here or there.
    Branch(Test, Operand),
    /// The end: 0 is no match.
    Return(Value),
    /// One register = the other.
    Copy {
        /// Which of them changes.
        to: Register,
    },
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// The accumulator.
    A,
    /// The index.
    X,
}

/// How many bytes are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// One.
    Byte,
    /// Two.
    Half,
    /// Four.
    Word,
}

/// The other side of a calculation or a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// `k`
    K,
    /// X
    X,
}

/// What a program returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// `k`
    K,
    /// A
    A,
}

/// A calculation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Or,
    And,
    Xor,
    ShiftLeft,
    ShiftRight,
}

/// A test of A.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Test {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBitOf,
}

impl Size {
    /// In bytes.
    pub fn bytes(self) -> u32 {
        match self {
            Self::Byte => 1,
            Self::Half => 2,
            Self::Word => 4,
        }
    }
}

impl Instruction {
    /// What it means; none if it means nothing.
    pub fn step(&self) -> Option<Step> {
        match self.code & 0x07 {
            0x00 => self.load(),
            0x01 => self.load_index(),
            0x02 if self.is_memory(0x02) => Some(Step::Store(Register::A)),
            0x03 if self.is_memory(0x03) => Some(Step::Store(Register::X)),
            0x04 => self.calculation(),
            0x05 => self.jump(),
            0x06 => match self.code {
                0x06 => Some(Step::Return(Value::K)),
                0x16 => Some(Step::Return(Value::A)),
                _ => None,
            },
            0x07 => match self.code {
                0x07 => Some(Step::Copy { to: Register::X }),
                0x87 => Some(Step::Copy { to: Register::A }),
                _ => None,
            },
            _ => None,
        }
    }

    fn load(&self) -> Option<Step> {
        let size = match self.code & 0x18 {
            0x00 => Size::Word,
            0x08 => Size::Half,
            0x10 => Size::Byte,
            _ => return None,
        };
        match (self.code & !0x1f, size) {
            (0x20, _) => Some(Step::Absolute(size)),
            (0x40, _) => Some(Step::Indirect(size)),
            (0x00, Size::Word) => Some(Step::Constant(Register::A)),
            (0x60, Size::Word) if self.k < MEMORY => Some(Step::Fetch(Register::A)),
            (0x80, Size::Word) => Some(Step::Length(Register::A)),
            _ => None,
        }
    }

    fn load_index(&self) -> Option<Step> {
        match self.code {
            0x01 => Some(Step::Constant(Register::X)),
            0x61 if self.k < MEMORY => Some(Step::Fetch(Register::X)),
            0x81 => Some(Step::Length(Register::X)),
            0xb1 => Some(Step::HeaderLength),
            _ => None,
        }
    }

    fn is_memory(&self, code: u16) -> bool {
        self.code == code && self.k < MEMORY
    }

    fn calculation(&self) -> Option<Step> {
        let operation = match self.code & !0x0f {
            0x00 => Operation::Add,
            0x10 => Operation::Subtract,
            0x20 => Operation::Multiply,
            0x30 => Operation::Divide,
            0x40 => Operation::Or,
            0x50 => Operation::And,
            0x60 => Operation::ShiftLeft,
            0x70 => Operation::ShiftRight,
            0x80 => return (self.code == 0x84).then_some(Step::Negate),
            0x90 => Operation::Modulo,
            0xa0 => Operation::Xor,
            _ => return None,
        };
        Some(Step::Calculate(operation, self.operand()))
    }

    fn jump(&self) -> Option<Step> {
        let test = match self.code & !0x0f {
            0x00 => return (self.code == 0x05).then_some(Step::Jump),
            0x10 => Test::Equal,
            0x20 => Test::Greater,
            0x30 => Test::GreaterOrEqual,
            0x40 => Test::AnyBitOf,
            _ => return None,
        };
        Some(Step::Branch(test, self.operand()))
    }

    fn operand(&self) -> Operand {
        if self.code & 0x08 == 0 { Operand::K } else { Operand::X }
    }
}
