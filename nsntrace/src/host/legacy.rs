//! iptables-legacy beside an iptables that works on nftables: packets pass the chains of both, and our rules are in one.

use std::{fs, process::Command};

use super::{iptables, link, nat::Family};
use crate::error::{Context, Error, Result};

/// Whether the other iptables drops anything of what is forwarded, and does not let our links pass.
///
/// # Errors
/// Where there are such rules, and no tool to read them; `EACCES` without root.
pub fn drops(family: Family) -> Result<bool> {
    let (tables, tool) = match family {
        Family::V4 => ("/proc/net/ip_tables_names", "iptables-legacy-save"),
        Family::V6 => ("/proc/net/ip6_tables_names", "ip6tables-legacy-save"),
    };
    // The kernel makes a table when it is asked for the first time. The file is not there where it has none at all.
    let has_filter = match fs::read_to_string(tables) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        names => names.context("read", tables)?.lines().any(|table| table == "filter"),
    };
    if !has_filter {
        return Ok(false);
    }
    let output = Command::new(tool).args(["-t", "filter"]).output().context("run", tool)?;
    let rules = String::from_utf8_lossy(&output.stdout);
    let is_settled = rules.contains(&format!("-A FORWARD -i {}+ -j ACCEPT", link::OUTER));
    Ok(!is_settled && rules.lines().any(forwards_not))
}

/// What to do about it.
pub fn advice(family: Family) -> Error {
    let tool = iptables::tool(family);
    let (legacy, link) = (tool.replace("tables", "tables-legacy"), link::OUTER);
    Error::told(format!(
        "{tool} works on nftables beside it: let packets pass with '{legacy} -I FORWARD -i {link}+ -j ACCEPT' and the same with -o"
    ))
}

fn forwards_not(line: &str) -> bool {
    let is_rule = line.starts_with("-A FORWARD ");
    line.starts_with(":FORWARD DROP") || is_rule && (line.contains("-j DROP") || line.contains("-j REJECT"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_forwarded_counts() {
        assert!(forwards_not(":FORWARD DROP [0:0]"));
        assert!(forwards_not("-A FORWARD -i eth1 -j REJECT --reject-with icmp-port-unreachable"));
        assert!(!forwards_not("-A INPUT -j DROP") && !forwards_not(":FORWARD ACCEPT [0:0]"));
    }
}
