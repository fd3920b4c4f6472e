//! The fake host's state as text, to compare before and after.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{Lab, until};

/// All that `nsntrace` might change in a host and leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

/// Prints each part of the state below a heading of its own.
const STATE: &str = r"
heading() { echo; echo \# $1; }
heading link;       ip -o link
heading address;    ip -o address
heading route;      ip -o route show table all
heading route6;     ip -o -6 route show table all
heading rule;       ip rule
heading rule6;      ip -6 rule
heading sysctl;     cd /proc/sys/net; grep . ipv4/ip_forward ipv4/conf/*/forwarding ipv4/conf/*/rp_filter \
                    ipv6/conf/*/forwarding ipv6/conf/*/force_forwarding ipv6/conf/*/accept_ra 2>/dev/null
heading file;       find /run ! -path /run/nsntrace ! -path /run/nsntrace/lock ! -path /run/xtables.lock
heading mount;      cut -d' ' -f5,9- /proc/self/mountinfo
heading resolver;   cat /etc/resolv.conf
heading iptables;   iptables-save
heading ip6tables;  ip6tables-save
heading nft;        nft list tables
";

impl Lab {
    /// The fake host's state now.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let text = self.host(["sh", "-c", STATE])?.output()?;
        let mut lines = comparable(&text)?;
        for folder in self.tracer_cgroup().folders()? {
            lines.insert(format!("cgroup {}", folder.display()));
        }
        Ok(Snapshot(lines))
    }

    /// Waits up to two seconds until the host is what it was, and nothing that `nsntrace` started lives.
    pub fn assert_clean(&self, before: &Snapshot) -> Result<()> {
        self.assert_clean_within(Duration::from_secs(2), before)
    }

    /// The same with another limit, for what many runs have to undo at the same time.
    pub fn assert_clean_within(&self, limit: Duration, before: &Snapshot) -> Result<()> {
        let mut now = before.clone();
        let clean = until("a clean host", limit, || {
            now = self.snapshot()?;
            Ok((now == *before && !self.tracer_cgroup().is_populated()?).then_some(()))
        });
        if clean.is_err() {
            let alive = self.tracer_cgroup().processes()?;
            bail!("the host is not as it was:\n{}processes left: {alive:?}", before.diff(&now));
        }
        Ok(())
    }
}

impl Snapshot {
    /// What is gone, with a `-`, and what is new, with a `+`.
    pub fn diff(&self, now: &Self) -> String {
        let gone = self.0.difference(&now.0).map(|line| format!("- {line}\n"));
        let new = now.0.difference(&self.0).map(|line| format!("+ {line}\n"));
        gone.chain(new).collect()
    }

    /// Whether a line contains all of these words.
    pub fn has(&self, words: &[&str]) -> bool {
        self.0.iter().any(|line| words.iter().all(|word| line.contains(word)))
    }
}

/// Every line with its heading before it, without what may differ on an unchanged host.
fn comparable(text: &str) -> Result<BTreeSet<String>> {
    let mut lines = BTreeSet::new();
    let mut heading = "";
    let mut table = "";
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix("# ").filter(|name| !name.contains(' ')) {
            heading = name;
            continue;
        }
        if let Some(name) = line.strip_prefix('*').filter(|_| heading.ends_with("tables")) {
            table = name;
        }
        let kept = match heading {
            "iptables" | "ip6tables" => rule(line).map(|rule| format!("{heading} {table} {rule}")),
            "nft" => (!is_iptables_nft(line)).then(|| format!("nft {line}")),
            _ => Some(format!("{heading} {line}")),
        };
        lines.extend(kept);
    }
    lines.iter().any(|line| line.starts_with("link ")).then_some(lines).context("no link in the host's state")
}

/// A line of iptables-save that means something: an empty chain that accepts is as good as none, and
/// iptables-nft leaves some behind. Comments are kept: they name whose rule it is.
fn rule(line: &str) -> Option<&str> {
    let chain = line.strip_prefix(':').and_then(|chain| chain.split_once(' '));
    match chain {
        Some((_, policy)) if policy.starts_with("ACCEPT") => None,
        // The counters at the end are not part of the state.
        Some((_, _)) => line.rsplit_once(" [").map(|(line, _)| line),
        None => line.starts_with("-A").then_some(line),
    }
}

/// The tables of iptables-nft; what is in them is listed by iptables-save.
fn is_iptables_nft(line: &str) -> bool {
    let mut words = line.split(' ').skip(1);
    let (family, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    ["ip", "ip6"].contains(&family) && ["filter", "nat", "mangle", "raw", "security"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_chains_are_as_good_as_none() {
        let empty = "# link\n1: lo\n# iptables\n*nat\n:POSTROUTING ACCEPT [3:180]\nCOMMIT\n";
        assert_eq!(comparable(empty).expect("a state"), comparable("# link\n1: lo\n").expect("a state"));
    }

    #[test]
    fn rules_policies_and_chains_count() {
        let rules = ["-A FORWARD -j DROP", ":FORWARD DROP [0:0]", ":own - [0:0]"];
        let kept = rules.map(rule);
        assert_eq!(kept, [Some("-A FORWARD -j DROP"), Some(":FORWARD DROP"), Some(":own -")]);
    }

    #[test]
    fn a_table_of_nft_itself_counts() {
        assert!(is_iptables_nft("table ip nat") && is_iptables_nft("table ip6 filter"));
        assert!(!is_iptables_nft("table inet filter") && !is_iptables_nft("table ip nsntrace"));
    }
}
