//! Translations of programs that mean something more often than not.

use proptest::{collection::vec, prelude::*};

use super::{Hook, classic, sound};

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

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_translation_is_sound(program in vec(instruction(), 0..80), hook in hook()) {
        sound::check(&program, hook);
    }
}
