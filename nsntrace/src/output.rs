//! The trace: what it says, and the file where it goes.

pub mod encoder;
mod frame;
mod pcap;
pub mod pcapng;
pub mod trace_file;
pub mod writer;
