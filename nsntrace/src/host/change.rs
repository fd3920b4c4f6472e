//! What a run changes in the host, as plain data.

use std::{fs::metadata, os::unix::fs::MetadataExt, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    base_chains::Place,
    cgroup_leaf, forwarding,
    forwarding6::{self, WholeHost},
    link,
    nat::Rule,
    route,
};
use crate::error::{Context, Result};

/// One change in the host. Whoever undoes it has only this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// None, but the first line of each record: the network namespace in which the run makes its changes, by the
    /// numbers of its file. Names of links and rules mean something there only.
    Origin {
        /// Device of the file.
        device: u64,
        /// Its inode.
        inode: u64,
    },
    /// A veth pair, by the name of its end in the host.
    Link {
        /// The name.
        name: String,
    },
    /// IPv4 forwarding on a device, switched on from off, with the rule that guards it. Runs share it: the last one
    /// alive undoes it.
    Forwarding {
        /// The device.
        device: String,
        /// Whether the host forwarded in general then.
        on_a_router: bool,
    },
    /// IPv6 forwarding forced on a device, with the rule that guards it. Shared, as [`Change::Forwarding`] is.
    ForceForwarding {
        /// The device.
        device: String,
    },
    /// IPv6 forwarding of the whole host, switched on from off, with the rule that guards it. Shared.
    Forwarding6(WholeHost),
    /// Rules of this run in the packet filter.
    Nat {
        /// In the order in which they are inserted.
        rules: Vec<Rule>,
    },
    /// Rules of this run on top of a chain that belongs to somebody else. Their comments tell them from its own.
    Foreign {
        /// The chain.
        chain: Place,
    },
    /// Policy rules for what comes in at `link`, in IPv4 and IPv6, and the routing table that they name.
    Routing {
        /// Name of the link's end in the host.
        link: String,
        /// Number of the table.
        table: u32,
    },
    /// A cgroup for the program's tree.
    Cgroup {
        /// Its absolute path.
        path: PathBuf,
        /// Whether that is from the root of a cgroup2 that is mounted nowhere.
        #[serde(default)]
        is_hidden: bool,
    },
}

/// A last line without its end is of a change that was never made: the line comes first.
pub(crate) fn parse(text: &str) -> Option<Vec<Change>> {
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(|line| serde_json::from_str::<Change>(line).ok().filter(Change::is_ours)).collect()
}

impl Change {
    /// The network namespace of the calling thread.
    ///
    /// # Errors
    /// Where /proc does not show it.
    pub fn origin() -> Result<Self> {
        let path = "/proc/thread-self/ns/net";
        let found = metadata(path).context("look at", path)?;
        Ok(Self::Origin { device: found.dev(), inode: found.ino() })
    }

    /// Whether other runs may have recorded the same change, which is made once.
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::Forwarding { .. } | Self::ForceForwarding { .. } | Self::Forwarding6(_))
    }

    /// Whether the two are one change, recorded by two runs.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Forwarding { device, .. }, Self::Forwarding { device: other, .. }) => device == other,
            (Self::ForceForwarding { device }, Self::ForceForwarding { device: other }) => device == other,
            (Self::Forwarding6(_), Self::Forwarding6(_)) => true,
            _ => false,
        }
    }

    /// Whether somebody else has made the host forward since: what it forwards then is not ours to say.
    ///
    /// Where we have made all of it forward, nobody can tell.
    pub fn is_overtaken(&self) -> bool {
        match self {
            Self::Forwarding { on_a_router: false, .. } => forwarding::is_router().unwrap_or(false),
            Self::ForceForwarding { .. } => forwarding6::is_router().unwrap_or(false),
            _ => false,
        }
    }

    /// The rule that is there before it, until it is undone or [overtaken](Self::is_overtaken).
    pub fn guard(&self) -> Option<Rule> {
        match self {
            Self::Forwarding { device, .. } => Some(forwarding::guard(device)),
            Self::ForceForwarding { device } => Some(forwarding6::guard(device)),
            Self::Forwarding6(_) => Some(forwarding6::guard_of_whole_host()),
            _ => None,
        }
    }

    /// Whether it is a change that a run makes: a record is no way to have something else undone.
    fn is_ours(&self) -> bool {
        match self {
            // Of the chain only what carries the run's name is ever taken away.
            Self::Origin { .. } | Self::Foreign { .. } => true,
            Self::Link { name } => name.starts_with(link::OUTER),
            Self::Forwarding { device, .. } | Self::ForceForwarding { device } => is_device(device),
            Self::Forwarding6(host) => host.devices().all(|device| is_device(device)),
            Self::Nat { rules } => rules.iter().all(Rule::is_ours),
            Self::Routing { link, table } => {
                link.starts_with(link::OUTER) && *table >= route::table::FIRST_TABLE
            }
            Self::Cgroup { path, .. } => {
                let name = path.file_name().and_then(|name| name.to_str());
                path.is_absolute() && name.is_some_and(|name| name.starts_with(cgroup_leaf::PREFIX))
            }
        }
    }
}

/// A name that stays one component of a path below /proc/sys.
fn is_device(name: &str) -> bool {
    !name.is_empty() && name.len() < libc::IFNAMSIZ && !name.contains('/') && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_was_never_done() {
        assert_eq!(
            parse("{\"Link\":{\"name\":\"nsgw1\"}}\n{\"Link\":{\"na"),
            Some(vec![Change::Link { name: "nsgw1".into() }])
        );
        assert_eq!(parse("{\"Li"), Some(vec![]));
        assert_eq!(parse("garbage\n"), None);
    }

    #[test]
    fn a_record_cannot_name_what_no_run_makes() {
        for line in [
            r#"{"Link":{"name":"eth0"}}"#,
            r#"{"Forwarding":{"device":"../../../kernel","on_a_router":false}}"#,
            r#"{"ForceForwarding":{"device":".."}}"#,
            r#"{"Forwarding6":{"takes_routers":["eth0","../../ipv4"],"forwarding":[]}}"#,
            r#"{"Routing":{"link":"nsgw1","table":254}}"#,
            r#"{"Cgroup":{"path":"/sys/fs/cgroup/system.slice"}}"#,
            r#"{"Cgroup":{"path":"nsntrace-1"}}"#,
            r#"{"Nat":{"rules":[{"family":"V4","table":"filter","chain":"INPUT","spec":"-j DROP"}]}}"#,
            r#"{"Nat":{"rules":[{"family":"V4","table":"filter","chain":"INPUT","spec":"-i nsntrace:1 -j DROP"}]}}"#,
            r#"{"Nat":{"rules":[{"family":"V4","table":"nat","chain":"OUTPUT","spec":"--comment nsntrace:1\n-F"}]}}"#,
        ] {
            assert_eq!(parse(&format!("{line}\n")), None, "{line}");
        }
    }
}
