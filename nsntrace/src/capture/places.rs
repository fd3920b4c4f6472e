//! Places at interfaces, taken while the capture's programs are still being loaded.
//!
//! For each program that comes to an interface the kernel waits until all processors have seen it, and lets nobody change a
//! link of the host meanwhile. To put another program in its place needs no such wait.

use std::os::fd::{AsFd, OwnedFd};

use nix::net::if_::if_nametoindex;

use super::{Direction, tcx};
use crate::{
    error::{Context, Result},
    namespace::netns::Netns,
};

/// Places at the interfaces of a namespace. Nothing happens there before a capture is attached.
pub struct Places {
    pub(super) netns: Netns,
    pub(super) interfaces: Vec<Place>,
}

/// A place at an interface.
pub(super) struct Place {
    pub(super) interface: String,
    pub(super) directions: Vec<Direction>,
    /// What holds the programs of these directions; nothing where the kernel has no such links.
    pub(super) links: Vec<OwnedFd>,
}

impl Places {
    /// Takes places for these directions of interfaces.
    ///
    /// # Errors
    /// Where the kernel refuses it, or there is no such interface; where it has no links nothing is looked at yet.
    pub fn take(netns: Netns, wanted: &[(&str, &[Direction])]) -> Result<Self> {
        let take =
            || wanted.iter().map(|(interface, directions)| Place::take(interface, directions)).collect();
        let interfaces = netns.run(take)?;
        Ok(Self { netns, interfaces })
    }
}

impl Place {
    fn take(interface: &str, directions: &[Direction]) -> Result<Self> {
        let mut links = Vec::new();
        if tcx::is_there() {
            let index = if_nametoindex(interface).context("find", interface)?;
            let idle = tcx::idle().context("load", "a program that does nothing")?;
            for direction in directions {
                let link = tcx::attach(idle.as_fd(), index, *direction);
                links.push(link.context("attach the capture to", interface)?);
            }
        }
        Ok(Self { interface: interface.to_owned(), directions: directions.to_vec(), links })
    }
}
