//! The trace: what it says, and the file where it goes.

pub mod encoder;
mod file_names;
mod frame;
pub mod invoker;
mod pcap;
pub mod pcapng;
pub mod section;
pub mod series;
pub mod trace_file;
mod write_all;
pub mod writer;
