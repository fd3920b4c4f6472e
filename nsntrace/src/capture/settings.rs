//! How a capture is to be.

use super::Hook;
use crate::{
    config::{Config, Format, Words},
    filter::{Compiled, classic},
    ownership::Owners,
};

/// How a capture is to be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where packets are got hold of.
    pub hook: Hook,
    /// Bytes to keep of a packet.
    pub snaplen: u32,
    /// Size of the ring buffer in bytes, a power of two.
    pub ring_bytes: u32,
    /// Whether messages of the kernel side are wanted. Without them its code for messages is not loaded.
    pub messages: bool,
    /// What is to be captured; without one, everything.
    pub filter: Option<Vec<classic::Instruction>>,
    /// What is wanted of the owners of packets; without it, they are not looked for, and that costs nothing.
    pub owners: Option<Owners>,
}

impl Settings {
    /// How that of a trace is to be, at this hook and with this filter.
    pub fn of(config: &Config, hook: Hook, filter: Option<&Compiled>) -> Self {
        Self {
            hook,
            snaplen: config.snaplen,
            ring_bytes: config.ring_bytes,
            messages: config.words == Words::Verbose,
            filter: filter.map(|filter| filter.program.clone()),
            owners: owners(config),
        }
    }
}

/// What is wanted of the owners of packets. A pcap has no place for them.
fn owners(config: &Config) -> Option<Owners> {
    let told = config.format == Format::Pcapng || config.summary.is_some();
    let only = config.processes.clone();
    (told || !only.is_empty()).then_some(Owners { only, told })
}
