//! The trace file: where it goes, and how it is written.

pub mod pcap;
pub mod trace_file;
