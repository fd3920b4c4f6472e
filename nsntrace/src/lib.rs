//! Trace the network of one program: all of its packets and nobody else's.
//!
//! [`trace::program`] tells the story, and [`trace::running`] that of what runs already; everything else is a part of
//! them.

pub mod capabilities;
pub mod capture;
pub mod cgroup;
pub mod check;
pub mod cli;
pub mod config;
mod descriptors;
pub mod dissect;
pub mod error;
pub mod extcap;
pub mod filter;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod host;
pub mod ipv6;
pub mod join;
pub mod life;
pub mod limits;
mod mount_fd;
pub mod namespace;
mod netlink;
pub mod output;
mod own_thread;
pub mod ownership;
mod page;
mod proc;
pub mod publish;
pub mod recording;
mod search_path;
pub mod signals;
pub mod subnet;
mod sysctl;
pub mod talk;
pub mod tls_keys;
pub mod trace;
pub mod tracee;
pub mod tree;
pub mod user;
pub mod words;
