//! Random classic programs: of everything that the machine can do, and that libpcap's interpreter defines.

use fastrand::Rng;
use nsntrace::filter::classic::{Instruction, MEMORY};

/// A program that a seed stands for. Each ends, and reads no memory that it has not written.
pub fn program(seed: u64) -> Vec<Instruction> {
    let mut random = Rng::with_seed(seed);
    let mut program = Vec::new();
    for word in 0..MEMORY {
        program.push(plain(0x00, random.u32(..)));
        program.push(plain(0x02, word));
    }
    let length = random.usize(1..60);
    for at in 0..length {
        program.push(instruction(&mut random, length - at));
    }
    program.push(plain(0x06, random.u32(..2)));
    program
}

fn plain(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

/// One of a program of which so many are left to jump over.
fn instruction(random: &mut Rng, left: usize) -> Instruction {
    match random.u8(..20) {
        0..=4 => plain(0x20 | size(random), offset(random)),
        5..=6 => plain(0x40 | size(random), offset(random)),
        7 => plain(0xb1, offset(random)),
        8 => plain(random.choice([0x00, 0x01]).unwrap_or(0), number(random)),
        9 => plain(random.choice([0x80, 0x81]).unwrap_or(0x80), 0),
        10 => plain(random.choice([0x60, 0x61, 0x02, 0x03]).unwrap_or(0x60), random.u32(..MEMORY)),
        11..=14 => calculation(random),
        15..=17 => branch(random, left),
        18 => plain(random.choice([0x07, 0x87]).unwrap_or(0x07), 0),
        _ => ending(random, left),
    }
}

fn size(random: &mut Rng) -> u16 {
    random.choice([0x00, 0x08, 0x10]).unwrap_or(0)
}

/// Mostly in the headers, now and then far behind, or such that a sum wraps around.
fn offset(random: &mut Rng) -> u32 {
    match random.u8(..20) {
        0 => random.u32(..70_000),
        1 => u32::MAX - random.u32(0x1000..0x2000),
        2 => i32::MAX.cast_unsigned() - random.u32(..4),
        3..=6 => random.u32(..300),
        _ => random.u32(..40),
    }
}

fn number(random: &mut Rng) -> u32 {
    match random.u8(..8) {
        0 => random.u32(..),
        1 => 1 << random.u32(..32),
        2 => u32::MAX - random.u32(..3),
        3 => random.u32(..0x1_0000),
        _ => random.u32(..64),
    }
}

fn calculation(random: &mut Rng) -> Instruction {
    let operation = random.u16(..11) << 4;
    if operation == 0x80 {
        return plain(0x84, 0);
    }
    let by_x = random.bool();
    // By a constant 0 libpcap's interpreter would divide, and what it shifts by 32 is not defined.
    let k = match operation {
        0x30 | 0x90 => number(random).max(1),
        0x60 | 0x70 => random.u32(..32),
        _ => number(random),
    };
    plain(0x04 | operation | u16::from(by_x) << 3, k)
}

fn branch(random: &mut Rng, left: usize) -> Instruction {
    let most = u8::try_from(left.saturating_sub(1)).unwrap_or(u8::MAX);
    let by_x = u16::from(random.u8(..4) == 0) << 3;
    Instruction {
        code: 0x05 | (random.u16(1..5) << 4) | by_x,
        jt: random.u8(..=most.min(12)),
        jf: random.u8(..=most.min(12)),
        k: number(random),
    }
}

fn ending(random: &mut Rng, left: usize) -> Instruction {
    match random.u8(..4) {
        0 => plain(0x16, 0),
        1 => plain(0x06, random.u32(..2)),
        _ => plain(0x05, random.u32(..u32::try_from(left).unwrap_or(1))),
    }
}
