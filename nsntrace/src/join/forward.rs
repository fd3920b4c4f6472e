//! Forwarding that a trace needs and the host does not have: decided and recorded first, switched on when the rules are in
//! place that keep it to traced programs.

use crate::{
    error::Result,
    host::{
        Changes,
        change::Change,
        device::Device,
        forwarding,
        forwarding6::{self, WholeHost},
        nat::Rule,
    },
    words::Voice,
};

/// A switch that is to be turned on.
pub struct Switch {
    change: Change,
    /// Whether it was turned on before, by this run or another one, and turned off since.
    is_recorded: bool,
}

impl Switch {
    /// The rule that must be there before.
    pub fn guard(&self) -> Option<Rule> {
        self.change.guard()
    }

    /// Whether it makes the whole host a router.
    pub fn is_of_host(&self) -> bool {
        matches!(self.change, Change::Forwarding6(_))
    }

    /// Turns it on, and says so the first time.
    ///
    /// # Errors
    /// Where the setting cannot be written.
    pub fn turn_on(&self, voice: Voice) -> Result<()> {
        let what = match &self.change {
            Change::Forwarding { device, .. } => {
                forwarding::switch_on(device)?;
                format!("IPv4 forwarding on {device}")
            }
            Change::ForceForwarding { device } => {
                forwarding6::force(device)?;
                format!("IPv6 forwarding on {device}")
            }
            Change::Forwarding6(host) => {
                host.switch_on()?;
                "IPv6 forwarding".to_owned()
            }
            _ => return Ok(()),
        };
        if !self.is_recorded {
            voice.forwarding(format_args!("{what}"));
        }
        Ok(())
    }
}

/// What is to be turned on for IPv4 that comes in at these devices.
///
/// # Errors
/// Where a setting cannot be read, or nothing be recorded.
pub fn ipv4(changes: &mut Changes, inlets: &[Device]) -> Result<Vec<Switch>> {
    let on_a_router = forwarding::is_router()?;
    let mut switches = Vec::new();
    for Device { name, .. } in inlets {
        let change = Change::Forwarding { device: name.clone(), on_a_router };
        switches.extend(switch(changes, change, || forwarding::is_on(name))?);
    }
    Ok(switches)
}

/// What is to be turned on for IPv6 between the link and the inlets. Without any nothing is to be forwarded.
///
/// # Errors
/// As [`ipv4`].
pub fn ipv6(changes: &mut Changes, link: &str, inlets: &[Device]) -> Result<Vec<Switch>> {
    let can_force = forwarding6::allow(link);
    let host = Change::Forwarding6(WholeHost::now()?);
    let is_shared = changes.share(&host)?;
    if forwarding6::is_router()? || inlets.is_empty() {
        return Ok(Vec::new());
    }
    if !is_shared && can_force && inlets.iter().all(|device| forwarding6::can_be_forced(&device.name)) {
        let mut switches = Vec::new();
        for Device { name, .. } in inlets {
            let change = Change::ForceForwarding { device: name.clone() };
            switches.extend(switch(changes, change, || forwarding6::is_forced(name))?);
        }
        return Ok(switches);
    }
    switch(changes, host, || Ok(false)).map(Vec::from_iter)
}

/// Records the change, if it is not made already.
fn switch(
    changes: &mut Changes,
    change: Change,
    is_on: impl FnOnce() -> Result<bool>,
) -> Result<Option<Switch>> {
    changes.share(&change)?;
    let recorded = changes.made().iter().find(|made| made.is_shared_with(&change)).cloned();
    if is_on()? {
        return Ok(None);
    }
    let is_recorded = recorded.is_some();
    // What is turned on is what the record says: that is undone.
    let change = recorded.unwrap_or(change);
    if !is_recorded {
        changes.make(change.clone(), || Ok(()))?;
    }
    Ok(Some(Switch { change, is_recorded }))
}
