//! The name servers that the host uses now.

use std::{fs, net::SocketAddr, os::unix::fs::MetadataExt};

use super::{
    RESOLV_CONF, configuration,
    resolv_conf::{NameServer, ResolvConf},
};

/// The host's name servers, followed through every change of its configuration.
///
/// The file is looked at whenever the servers are wanted, as the C library does it: that costs a microsecond, sees a
/// change at any place of a chain of links, and cannot miss one, which watches on files and folders may.
#[derive(Debug)]
pub struct Upstreams {
    seen: Option<Stamp>,
    servers: Vec<NameServer>,
}

/// What differs when the file was replaced or written to. None where there is no file.
type Stamp = [i64; 6];

impl Upstreams {
    /// Those of now.
    pub fn new() -> Self {
        // The stamp comes first: of a change in between the next look tells.
        let seen = stamp();
        let ResolvConf { servers, .. } = configuration();
        Self { seen, servers }
    }

    /// Where to ask, the first one first.
    pub fn now(&mut self) -> Vec<SocketAddr> {
        if self.seen != stamp() {
            *self = Self::new();
        }
        self.servers.iter().filter_map(NameServer::socket_address).collect()
    }
}

fn stamp() -> Option<Stamp> {
    let found = fs::metadata(RESOLV_CONF).ok()?;
    let [device, inode, size] = [found.dev(), found.ino(), found.size()].map(u64::cast_signed);
    // A change that is made within a tick of the clock changes the size, or comes with another file.
    Some([device, inode, size, found.mtime(), found.mtime_nsec(), found.ctime_nsec()])
}
