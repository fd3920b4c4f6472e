//! What holds of every translation, whatever the program.

use proptest::{collection::vec, prelude::*};

use super::{Bad, Hook, classic, ebpf::Instruction, translate};

/// An instruction that means something more often than not.
fn instruction() -> impl Strategy<Value = classic::Instruction> {
    let codes = prop_oneof![
        1 => any::<u16>(),
        9 => prop::sample::select(&[
            0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0c, 0x14, 0x15, 0x1d, 0x20, 0x24, 0x25, 0x28, 0x2c, 0x30,
            0x34, 0x35, 0x3c, 0x40, 0x44, 0x45, 0x48, 0x4d, 0x50, 0x54, 0x5c, 0x60, 0x61, 0x64, 0x6c, 0x7c, 0x80, 0x81,
            0x84, 0x87, 0x94, 0x9c, 0xa4, 0xb1,
        ][..]),
    ];
    let k = prop_oneof![3 => 0_u32..40, 1 => any::<u32>(), 1 => 0xffff_f000_u32.., 1 => (-40_i32..0).prop_map(i32::cast_unsigned)];
    (codes, 0_u8..8, 0_u8..8, k).prop_map(|(code, jt, jf, k)| classic::Instruction { code, jt, jf, k })
}

fn hook() -> impl Strategy<Value = Hook> {
    any::<(bool, bool, bool)>().prop_map(|(outgoing, tags, direct)| Hook { outgoing, tags, direct })
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_translation_is_sound(program in vec(instruction(), 0..80), hook in hook()) {
        let code = match translate(&program, hook) {
            Ok(code) => code,
            Err(Bad::Instruction { at, code }) => {
                prop_assert_eq!(program[at].code, code);
                return Ok(());
            }
            Err(Bad::Way(at)) => {
                prop_assert!(at <= program.len());
                return Ok(());
            }
            Err(Bad::Distance(_)) => return Ok(()),
        };
        let mut reached = vec![false; code.len() + 1];
        let mut found = vec![0];
        while let Some(at) = found.pop() {
            if !std::mem::replace(&mut reached[at], true) && at < code.len() {
                found.extend(ways(&code, at));
            }
        }
        // Nothing leads elsewhere, and the kernel takes nothing that cannot be reached.
        prop_assert!(reached.iter().all(|reached| *reached), "not all of it is reached: {:?} {:?}", reached, code);
        for instruction in &code {
            let (to, from) = (instruction.registers & 0x0f, instruction.registers >> 4);
            prop_assert!(to <= 10 && from <= 10);
            let on_stack = (is_store(instruction.code) && to == 10) || (is_load(instruction.code) && from == 10);
            prop_assert!(!on_stack || (-512..0).contains(&instruction.offset), "{:?}", instruction);
        }
    }
}
