//! Network settings of the host that a new namespace does not take over by itself.
//!
//! A program must not behave differently because it is traced: an unprivileged ping, the range of local ports or a
//! tuned TCP come along.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{error::Result, namespace::netns::Netns};

/// Where settings are, seen from the namespace of the thread that looks, and which of them are the program's business;
/// in ipv4 all that begin with `tcp_` or `udp_` are too, for both families.
const FOLDERS: [(&str, &[&str]); 2] = [
    (
        "/proc/sys/net/ipv4",
        &[
            "ping_group_range",
            "ip_local_port_range",
            "ip_local_reserved_ports",
            "ip_unprivileged_port_start",
            "ip_default_ttl",
            "ip_no_pmtu_disc",
            "fwmark_reflect",
        ],
    ),
    (
        "/proc/sys/net/ipv6",
        &["bindv6only", "auto_flowlabels", "flowlabel_consistency", "flowlabel_reflect", "fwmark_reflect"],
    ),
];

/// Gives the namespace the host's values where they differ. A setting that one of the two does not have, or that
/// cannot be written, stays as it is.
///
/// # Errors
/// Where the namespace cannot be entered.
pub fn carry_over(netns: &Netns) -> Result<()> {
    let host: Vec<_> =
        FOLDERS.iter().flat_map(|(folder, names)| settings(Path::new(folder), names)).collect();
    netns.run(|| {
        let mut refused = Vec::new();
        for (path, value) in &host {
            let differs = fs::read_to_string(path).is_ok_and(|own| own != *value);
            if differs && fs::write(path, value).is_err() {
                refused.push((path, value));
            }
        }
        // The range of ports may begin below those for root only when these have been written.
        for (path, value) in refused {
            let _ = fs::write(path, value);
        }
        Ok(())
    })
}

fn settings(folder: &Path, names: &[&str]) -> Vec<(PathBuf, String)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let wanted =
                name.starts_with("tcp_") || name.starts_with("udp_") || names.contains(&name.as_str());
            let value = wanted.then(|| fs::read_to_string(entry.path()).ok())??;
            Some((entry.path(), value))
        })
        .collect()
}
