//! The block of secrets that open what comes after it.

use super::{Pcapng, word};

/// The type of a block of secrets, and of secrets that are lines of a key log.
const DECRYPTION_SECRETS_BLOCK: u32 = 10;
const TLS_KEY_LOG: u32 = 0x544c_534b;

/// Bytes of such a block around the lines.
const AROUND_SECRETS: usize = 5 * size_of::<u32>();

impl Pcapng {
    /// Appends lines of a key log, if there are any.
    pub(in crate::output) fn secrets(out: &mut Vec<u8>, lines: &str) {
        if lines.is_empty() {
            return;
        }
        let padded = lines.len().next_multiple_of(4);
        let total = word(AROUND_SECRETS + padded);
        let before = [DECRYPTION_SECRETS_BLOCK, total, TLS_KEY_LOG, word(lines.len())];
        out.extend_from_slice(before.map(u32::to_le_bytes).as_flattened());
        out.extend_from_slice(lines.as_bytes());
        out.resize(out.len() + padded - lines.len(), 0);
        out.extend_from_slice(&total.to_le_bytes());
    }
}
