//! iptables-legacy beside an iptables that works on nftables: packets pass the chains of both, and our rules are in one.

use std::{fs, process::Command};

use super::{
    iptables, link,
    nat::Family,
    packet_filter::{self, Carrier},
};
use crate::{
    error::{Context, Error, Result},
    words::one_line,
};

/// Why it may hold packets of a trace back, if it may; `EACCES` without root, who alone can tell.
pub fn obstacle(family: Family) -> Option<Error> {
    match drops_beside(family) {
        Ok(false) => None,
        Ok(true) => Some(advice(family)),
        // There are such rules, and no tool that reads them.
        Err(error) => Some(error),
    }
}

/// Whether the iptables that does not have our rules drops anything of what is forwarded, and does not let our links pass.
fn drops_beside(family: Family) -> Result<bool> {
    if packet_filter::find(family).is_ok_and(|carrier| carrier == Carrier::IptablesLegacy) {
        return Ok(false);
    }
    if !has_table(family, "filter")? {
        return Ok(false);
    }
    let tool = match family {
        Family::V4 => "iptables-legacy-save",
        Family::V6 => "ip6tables-legacy-save",
    };
    let output = Command::new(tool).args(["-t", "filter"]).output().context("run", tool)?;
    if !output.status.success() {
        let fault = one_line(&String::from_utf8_lossy(&output.stderr));
        return Err(Error::told(format!("{tool} says: {fault}")));
    }
    let rules = String::from_utf8_lossy(&output.stdout);
    let lets_pass = |side| rules.contains(&format!("-A FORWARD {side} {}+ -j ACCEPT", link::OUTER));
    Ok(!(lets_pass("-i") && lets_pass("-o")) && rules.lines().any(forwards_not))
}

/// Whether the kernel has such a table for it: it makes one when it is asked for the first time.
///
/// # Errors
/// `EACCES` without root.
pub fn has_table(family: Family, table: &str) -> Result<bool> {
    let tables = match family {
        Family::V4 => "/proc/net/ip_tables_names",
        Family::V6 => "/proc/net/ip6_tables_names",
    };
    match fs::read_to_string(tables) {
        // The kernel has none at all.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        names => Ok(names.context("read", tables)?.lines().any(|name| name == table)),
    }
}

/// What to do about it.
fn advice(family: Family) -> Error {
    let tool = iptables::tool(family);
    let (legacy, link) = (tool.replace("tables", "tables-legacy"), link::OUTER);
    Error::told(format!(
        "the rules of a trace are in nftables beside it: let packets pass with '{legacy} -I FORWARD -i {link}+ -j ACCEPT' and the same with -o"
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
