//! By which devices packets leave and come.

use std::slice::from_ref;

use super::{
    device::{DEFAULT_MTU, Device},
    route::{self, survey::Survey},
};
use crate::error::Result;

/// By which devices packets leave and come.
pub struct Ways<'a> {
    /// What the user knows the way out by.
    pub out: Option<&'a Device>,
    /// Its MTU in bytes, which is the link's.
    pub mtu: u32,
    /// The device of `-d`, and the table of what leads out by it.
    pub only_by: Option<(&'a Device, u32)>,
    /// The devices at which IPv4 for the program comes in.
    pub inlets: &'a [Device],
    /// The devices at which IPv6 for it comes in, where there is no `-d`.
    inlets6: &'a [Device],
}

impl<'a> Ways<'a> {
    /// Those of a trace on this host, with the device of `-d`, if there is one.
    pub fn of(device: Option<&'a Device>, survey: &'a Survey) -> Self {
        let uplinks = device.map_or(&survey.uplinks[..], from_ref);
        let out = uplinks.first().or(survey.uplinks6.first());
        let table = route::table::FIRST_TABLE + std::process::id();
        Self {
            out,
            mtu: out.map_or(DEFAULT_MTU, |device| device.mtu),
            only_by: device.map(|device| (device, table)),
            // What is behind any of them is reached from the host, and answers come in there.
            inlets: device.map_or(&survey.inlets[..], from_ref),
            inlets6: &survey.inlets6[..],
        }
    }

    /// The devices at which IPv6 for the program comes in.
    ///
    /// # Errors
    /// Where netlink does not answer.
    pub fn inlets6(&self) -> Result<&[Device]> {
        Ok(match self.only_by {
            Some((device, _)) if route::has_ipv6(&device.name)? => from_ref(device),
            Some(_) => &[],
            None => self.inlets6,
        })
    }
}
