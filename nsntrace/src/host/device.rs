//! A network device of the host.

use rtnetlink::{Handle, packet_route::link::LinkMessage};

use crate::{error::Result, netlink};

/// Ethernet's MTU, for a host without an uplink.
pub const DEFAULT_MTU: u32 = 1500;

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// The largest packet that it takes, in bytes.
    pub mtu: u32,
}

impl Device {
    /// The device that the kernel describes so: it may have been asked for by another of its names.
    pub(super) fn new(name: &str, link: &LinkMessage) -> Self {
        Self {
            name: netlink::name(link).unwrap_or(name).to_owned(),
            mtu: netlink::mtu(link).unwrap_or(DEFAULT_MTU),
        }
    }
}

/// The device of that name.
///
/// # Errors
/// `ENODEV` where there is none.
pub fn find(name: &str) -> Result<Device> {
    netlink::with(async |handle: &Handle| Ok(Device::new(name, &netlink::link(handle, name).await?)))
}

/// Whether there is a device of that name.
///
/// # Errors
/// Where netlink does not answer.
pub fn exists(name: &str) -> Result<bool> {
    match find(name) {
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(false),
        found => found.map(|_| true),
    }
}
