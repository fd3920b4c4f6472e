//! The lab: a fake host and a fake internet, made of namespaces, in which `nsntrace` is tried.
//!
//! ```text
//!   fake host                                fake internet
//!   eth1 10.99.0.1/24 ───────────────────── inet0 10.99.0.2/24
//!   default via 10.99.0.2                    lo 203.0.113.7/32, where the servers are
//! ```
//!
//! Each test makes a [`Lab`] of its own, so tests run in parallel. Both sides have their own network and mount
//! namespaces; what runs in them runs in a cgroup of the lab. Nothing of the real host is changed except for
//! that cgroup, and dropping the lab ends every process in it.

pub mod ask;
mod cgroup;
pub mod filter;
mod job;
mod lab;
mod pcapng;
mod running;
mod server;
mod snapshot;
mod space;
mod summary;
mod terminal;
mod tls;
mod trace;
mod victim;
mod wait;
mod words;

pub use cgroup::{Cgroup, own_cgroup};
pub use job::Job;
pub use lab::{
    HOST_ADDRESS, HOST_ADDRESS6, HOST_DEVICE, INTERNET_DEVICE, Lab, SERVER_ADDRESS, SERVER_ADDRESS6, beside,
    nsntrace_binary, why_no_lab,
};
pub use pcapng::{Passed, Pcapng, Source, Statistics};
pub use running::{Done, Running};
pub use server::{Server, Web};
pub use snapshot::Snapshot;
pub use summary::Summary;
pub use terminal::Terminal;
pub use tls::{Tls, TlsVersions};
pub use trace::{Packet, Trace};
pub use victim::Victim;
pub use wait::{SOON, until};
pub use words::number_before;
