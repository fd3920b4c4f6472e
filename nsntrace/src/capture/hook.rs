//! The hooks of the kernel at which packets are got hold of, and what tells their programs apart.

use aya::programs::{Program, ProgramError};
use nsntrace_ebpf::names;

use super::realtime;

/// TC_ACT_UNSPEC: the packet's fate is left to others.
const NO_SAY: i32 = -1;

/// A cgroup's packet passes, unless somebody else is against it.
const PASS: i32 = 1;

/// A kind of hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// TC, at interfaces: frames with their link-layer headers.
    Interface,
    /// At the sockets of a cgroup: packets without.
    Cgroup,
}

impl Hook {
    /// The capture programs for what comes in and for what goes out, seen from who is traced.
    pub(super) fn programs(self) -> [&'static str; 2] {
        match self {
            Self::Interface => [names::TC_INGRESS, names::TC_EGRESS],
            Self::Cgroup => [names::CGROUP_INGRESS, names::CGROUP_EGRESS],
        }
    }

    /// The section of an object file that holds such programs. A cgroup's are not bound to a direction: what leads from
    /// one to the other must be of one kind.
    pub(super) fn section(self) -> &'static str {
        match self {
            Self::Interface => "classifier",
            Self::Cgroup => "cgroup/skb",
        }
    }

    /// What a program returns that only looks.
    pub(super) fn verdict(self) -> i32 {
        match self {
            Self::Interface => NO_SAY,
            Self::Cgroup => PASS,
        }
    }

    /// Whether the kernel may have taken a VLAN tag out of a packet.
    pub(super) fn has_tags(self) -> bool {
        self == Self::Interface
    }

    /// Whether programs on one CPU interrupt each other, so that each counts in one step.
    pub(super) fn is_interrupted(self) -> bool {
        self == Self::Cgroup || realtime::is_here()
    }
}

/// Brings a program for one of the hooks into the kernel.
pub(super) fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}
