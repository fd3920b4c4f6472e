//! What holds of every translation, whatever the program.

use super::{Bad, Hook, classic, ebpf::Instruction, translate};

/// Translates a program, if it is one, and looks at what comes out.
pub fn check(program: &[classic::Instruction], hook: Hook) {
    let code = match translate(program, hook) {
        Ok(code) => code,
        Err(Bad::Instruction { at, code }) => return assert_eq!(program[at].code, code),
        Err(Bad::Way(at)) => return assert!(at <= program.len()),
        Err(Bad::Distance(_)) => return,
    };
    let mut reached = vec![false; code.len() + 1];
    let mut found = vec![0];
    while let Some(at) = found.pop() {
        if !std::mem::replace(&mut reached[at], true) && at < code.len() {
            found.extend(ways(&code, at));
        }
    }
    // Nothing leads elsewhere, and the kernel takes nothing that cannot be reached.
    assert!(reached.iter().all(|reached| *reached), "not all of it is reached: {reached:?} {code:?}");
    for instruction in &code {
        let (to, from) = (instruction.registers & 0x0f, instruction.registers >> 4);
        assert!(to <= 10 && from <= 10);
        let on_stack = (is_store(instruction.code) && to == 10) || (is_load(instruction.code) && from == 10);
        assert!(!on_stack || (-512..0).contains(&instruction.offset), "{instruction:?}");
    }
}

/// Where an instruction leads; the place behind the last is the end.
fn ways(code: &[Instruction], at: usize) -> Vec<usize> {
    let Instruction { code: number, offset, .. } = code[at];
    let target = || at.strict_add_signed(isize::from(offset) + 1);
    match number & 0x07 {
        0x05 if number == 0x85 => vec![at + 1],
        0x05 if number == 0x05 => vec![target()],
        0x05 | 0x06 => vec![at + 1, target()],
        _ => vec![at + 1],
    }
}

fn is_store(code: u8) -> bool {
    code & 0x07 == 0x03
}

fn is_load(code: u8) -> bool {
    code & 0x07 == 0x01
}
