//! The options of a packet that tell its owner.

use std::io::Write;

use crate::{ownership::Owner, words::Plain};

/// The code of a comment, and the head of the option epb_processid_threadid.
const COMMENT: u16 = 1;
const PROCESS: u32 = 8 << 16 | 8;

/// In place of a thread's number, which is not known.
const NO_THREAD: u32 = 0;

/// Makes them, of a packet whose owner is known: its number, and for who reads, a comment too.
pub(super) fn options(out: &mut Vec<u8>, owner: Option<&Owner<'_>>) {
    out.clear();
    let Some(&Owner { pid, name }) = owner else { return };
    // The length stands before the text.
    out.extend_from_slice(&[0; 4]);
    let written = match name {
        "" => write!(out, "pid {pid}"),
        name => write!(out, "pid {pid} {}", Plain(name)),
    };
    written.expect("memory takes it");
    let length = u16::try_from(out.len() - 4).unwrap_or(u16::MAX);
    out[..4].copy_from_slice([COMMENT, length].map(u16::to_le_bytes).as_flattened());
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend_from_slice([PROCESS, pid, NO_THREAD].map(u32::to_le_bytes).as_flattened());
}
