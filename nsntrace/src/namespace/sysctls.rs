//! Network settings of the host that a new namespace does not take over by itself.
//!
//! A program must not behave differently because it is traced: an unprivileged ping, the range of local ports or a
//! tuned TCP come along.

use std::{fs, path::Path};

use crate::{error::Result, namespace::netns::Netns};

/// Where the settings are, seen from the namespace of the thread that looks.
const IPV4: &str = "/proc/sys/net/ipv4";

/// Settings that are the program's business; all that begin with `tcp_` or `udp_` are too.
const NAMES: [&str; 7] = [
    "ping_group_range",
    "ip_local_port_range",
    "ip_local_reserved_ports",
    "ip_unprivileged_port_start",
    "ip_default_ttl",
    "ip_no_pmtu_disc",
    "fwmark_reflect",
];

/// Gives the namespace the host's values where they differ. A setting that one of the two does not have, or that
/// cannot be written, stays as it is.
///
/// # Errors
/// Where the namespace cannot be entered.
pub fn carry_over(netns: &Netns) -> Result<()> {
    let host = settings();
    netns.run(|| {
        for (name, value) in &host {
            let path = Path::new(IPV4).join(name);
            if fs::read_to_string(&path).is_ok_and(|own| own != *value) {
                let _ = fs::write(&path, value);
            }
        }
        Ok(())
    })
}

fn settings() -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(IPV4) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let wanted =
                name.starts_with("tcp_") || name.starts_with("udp_") || NAMES.contains(&name.as_str());
            let value = wanted.then(|| fs::read_to_string(Path::new(IPV4).join(&name)).ok())??;
            Some((name, value))
        })
        .collect()
}
