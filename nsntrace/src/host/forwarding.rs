//! IPv4 forwarding, per device: the global switch is left alone, since turning it back would wipe the device's own.

use super::nat::{Family, Rule};
use crate::{
    error::{Context, Result},
    sysctl,
};

/// Whether the host forwards what comes in at the device.
///
/// # Errors
/// Where there is no such device.
pub fn is_on(device: &str) -> Result<bool> {
    sysctl::is_on(&setting(device))
}

/// Whether the host forwards in general, as Docker or libvirt have it.
///
/// # Errors
/// Where the kernel does not say.
pub fn is_router() -> Result<bool> {
    sysctl::is_on("ipv4/ip_forward")
}

/// Switches forwarding on where it was off. A host that did not forward does so now for what goes to traced programs,
/// and for nothing else, by the rule of [`guard`], which is there before.
///
/// # Errors
/// Where the setting cannot be written.
pub fn switch_on(device: &str) -> Result<()> {
    set(device, true)
}

/// Undoes [`switch_on`]; the guard goes away after it. Not where somebody has made the host a router since, or switched
/// the device off, or it is gone. `on_a_router` is what [`is_router`] said then.
///
/// # Errors
/// Where the setting cannot be changed.
pub fn switch_off(device: &str, on_a_router: bool) -> Result<()> {
    let is_wanted = is_router()? && !on_a_router;
    if sysctl::is_there(&setting(device)) && !is_wanted && is_on(device)? {
        set(device, false)?;
    }
    Ok(())
}

/// One rule for all runs: every link of ours passes, so that no run's rule stands in an older run's way.
pub fn guard(device: &str) -> Rule {
    Rule::guard(Family::V4, &format!("-i {device} ! -o {}+", super::link::OUTER), device)
}

fn setting(device: &str) -> String {
    format!("ipv4/conf/{device}/forwarding")
}

fn set(device: &str, on: bool) -> Result<()> {
    sysctl::set(&setting(device), if on { "1" } else { "0" })
        .context("set", format_args!("IPv4 forwarding on {device}"))
}
