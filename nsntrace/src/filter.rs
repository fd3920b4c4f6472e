//! The `-f` expression, from its text to instructions for the kernel.
//!
//! libpcap knows the language and makes a program for the classic packet filter of it; that is translated to eBPF. It
//! ends there: loading and attaching is the capture's part.

pub mod assembler;
mod calculate;
pub mod classic;
pub mod ebpf;
mod expression;
pub mod libpcap;
mod packet;
mod process;
#[cfg(test)]
mod properties;
mod rounds;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod sound;
mod steps;
mod tag;
mod translate;

pub use expression::{Compiled, check, compile};
pub use steps::Bad;
pub use translate::{Hook, translate};
