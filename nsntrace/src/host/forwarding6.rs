//! IPv6 forwarding, where a device's own `forwarding` decides nothing, and writing it costs the host the default route
//! that it was announced: it is only written to restore it, while such routes are safe.
//!
//! Linux 6.17 and newer have `force_forwarding` for a device. Before, the host as a whole has to forward; what takes
//! announcements then goes on to, if `accept_ra` says so first.

use std::{fs, path::Path};

use nix::unistd::{AccessFlags, eaccess};
use serde::{Deserialize, Serialize};

use super::{
    link::OUTER,
    nat::{Family, Rule},
};
use crate::{
    error::{Context, Result},
    sysctl,
};

/// Where the settings of devices are.
const DEVICES: &str = "/proc/sys/net/ipv6/conf";

/// The switch of the whole host.
const WHOLE_HOST: &str = "ipv6/conf/all/forwarding";

/// A host that does not forward as a whole, with what that changes in its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeHost {
    /// Devices that take what routers announce, and are to go on to.
    takes_routers: Vec<String>,
    /// Devices whose own switch is on; when the host's is turned off it turns theirs off too.
    forwarding: Vec<String>,
}

/// Whether the host forwards as a whole.
///
/// # Errors
/// Where the kernel does not say.
pub fn is_router() -> Result<bool> {
    sysctl::is_on(WHOLE_HOST)
}

/// How a host that does not forward could be made to: by the switch of a device, or by its own.
///
/// # Errors
/// Where neither can be written.
pub fn way() -> Result<&'static str> {
    if is_writable(&forced("default")).is_ok() {
        return Ok("force_forwarding");
    }
    is_writable(WHOLE_HOST).context("write", format_args!("the setting {WHOLE_HOST}"))?;
    Ok("all.forwarding, with accept_ra=2 where routers announce themselves")
}

/// Lets what comes in at the link pass, if the kernel has a setting for that, which goes away with the link. Returns
/// whether it has.
pub fn allow(link: &str) -> bool {
    sysctl::set(&forced(link), "1").is_ok()
}

/// Whether the kernel forwards what comes in at the device although the host does not forward.
///
/// # Errors
/// Where there is no such device, or no such setting.
pub fn is_forced(device: &str) -> Result<bool> {
    sysctl::is_on(&forced(device))
}

/// Whether that can be switched on for a device.
pub fn can_be_forced(device: &str) -> bool {
    is_writable(&forced(device)).is_ok()
}

/// Switches that on for a device. The rule of [`guard`], which is there before, sees to it that nothing but what goes to
/// traced programs is forwarded.
///
/// # Errors
/// Where the setting cannot be written.
pub fn force(device: &str) -> Result<()> {
    set(&forced(device), "1")
}

/// Undoes [`force`], unless the device is gone. The guard goes away after it.
///
/// # Errors
/// Where the setting cannot be changed.
pub fn let_be(device: &str) -> Result<()> {
    if sysctl::is_there(&forced(device)) && is_forced(device)? {
        set(&forced(device), "0")?;
    }
    Ok(())
}

/// For all runs, as in IPv4.
pub fn guard(device: &str) -> Rule {
    Rule::guard(Family::V6, &format!("-i {device} ! -o {OUTER}+"), device)
}

/// The same for [`WholeHost::switch_on`].
pub fn guard_of_whole_host() -> Rule {
    Rule::guard(Family::V6, &format!("! -i {OUTER}+ ! -o {OUTER}+"), "*")
}

impl WholeHost {
    /// What there is now.
    ///
    /// # Errors
    /// Where the devices' settings cannot be read.
    pub fn now() -> Result<Self> {
        let mut host = Self { takes_routers: Vec::new(), forwarding: Vec::new() };
        for entry in fs::read_dir(DEVICES).context("read", DEVICES)? {
            let name = entry.context("read", DEVICES)?.file_name().to_string_lossy().into_owned();
            if name == "all" || name == "lo" || name.starts_with(OUTER) {
                continue;
            }
            // One that goes away meanwhile has nothing to be restored.
            if sysctl::is_on(&own(&name)).unwrap_or(false) {
                host.forwarding.push(name);
            } else if name != "default" && sysctl::get(&accept_ra(&name)).is_ok_and(|value| value == "1") {
                host.takes_routers.push(name);
            }
        }
        Ok(host)
    }

    /// Makes the host forward, under the rule that guards it and is there before.
    ///
    /// # Errors
    /// Where a setting cannot be written.
    pub fn switch_on(&self) -> Result<()> {
        for device in self.takes_routers.iter().filter(|device| sysctl::is_there(&accept_ra(device))) {
            set(&accept_ra(device), "2")?;
        }
        set(WHOLE_HOST, "1")
    }

    /// Undoes [`WholeHost::switch_on`]; the guard goes away after it.
    ///
    /// # Errors
    /// Where a setting cannot be changed.
    pub fn switch_off(&self) -> Result<()> {
        if is_router()? {
            set(WHOLE_HOST, "0")?;
            // Before announcements are forgotten again: it takes their routes away.
            let own = self.forwarding.iter().map(|device| own(device));
            own.filter(|setting| sysctl::is_there(setting)).try_for_each(|setting| set(&setting, "1"))?;
        }
        for setting in self.takes_routers.iter().map(|device| accept_ra(device)) {
            if sysctl::get(&setting).is_ok_and(|value| value == "2") {
                set(&setting, "1")?;
            }
        }
        Ok(())
    }

    /// The devices that it names.
    pub fn devices(&self) -> impl Iterator<Item = &String> {
        self.takes_routers.iter().chain(&self.forwarding)
    }
}

fn own(device: &str) -> String {
    format!("ipv6/conf/{device}/forwarding")
}

fn forced(device: &str) -> String {
    format!("ipv6/conf/{device}/force_forwarding")
}

fn accept_ra(device: &str) -> String {
    format!("ipv6/conf/{device}/accept_ra")
}

fn is_writable(setting: &str) -> nix::Result<()> {
    eaccess(&Path::new("/proc/sys/net").join(setting), AccessFlags::W_OK)
}

fn set(setting: &str, value: &str) -> Result<()> {
    sysctl::set(setting, value).context("write", format_args!("the setting {setting}"))
}
