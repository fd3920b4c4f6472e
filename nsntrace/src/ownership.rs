//! Whose packet it is: what the kernel side needs to know for it, and what it tells of processes.

pub mod layout;
pub mod news;
pub mod present;
mod process;
pub mod processes;
pub mod words;

use nsntrace_ebpf::ownership::NAME;

use crate::error::{Error, Result};

/// What is wanted of the owners of packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// Only packets of processes with these names are wanted; without any, all.
    pub only: Vec<Name>,
    /// Whether the trace tells of processes.
    pub told: bool,
}

/// A packet's owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// The process's number.
    pub pid: u32,
    /// Its name; empty where it is not known.
    pub name: &'a str,
}

/// A process's name as the kernel keeps it: its first 15 bytes, and zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(pub [u8; NAME]);

impl Name {
    /// The name as it was given.
    ///
    /// # Errors
    /// Where it is a path, or nothing that a process can be called.
    pub fn new(text: &str) -> Result<Self> {
        if text.is_empty() || text.starts_with('/') || text.contains('\0') {
            return Err(Error::told(format!(
                "--process '{text}': the name of a process is wanted, as ps -o comm shows it, such as curl"
            )));
        }
        let mut name = [0; NAME];
        let length = text.len().min(NAME - 1);
        name[..length].copy_from_slice(&text.as_bytes()[..length]);
        Ok(Self(name))
    }
}
