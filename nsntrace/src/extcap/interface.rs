//! What can be captured from, in the protocol's sentences.

use nsntrace_ebpf::linktype;

use super::form;
use crate::error::{Error, Result};

/// An interface in Wireshark's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// A program in a namespace of its own.
    Program,
    /// What already runs in a cgroup.
    Cgroup,
}

const ALL: [Interface; 2] = [Interface::Program, Interface::Cgroup];

/// Both.
pub fn list() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let head = format!("extcap {{version={version}}}{{display=nsntrace}}\n");
    let sentence = |interface: Interface| {
        format!("interface {{value={}}}{{display={}}}\n", interface.name(), interface.display())
    };
    ALL.into_iter().map(sentence).fold(head, |text, sentence| text + &sentence)
}

impl Interface {
    /// The interface of this name.
    ///
    /// # Errors
    /// Where there is none.
    pub fn find(name: &str) -> Result<Self> {
        ALL.into_iter().find(|interface| interface.name() == name).ok_or_else(|| {
            Error::told(format!(
                "--extcap-interface {name}: there are {} and {}",
                Self::Program.name(),
                Self::Cgroup.name()
            ))
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Program => "nsntrace",
            Self::Cgroup => "nsntrace-cgroup",
        }
    }

    fn display(self) -> &'static str {
        match self {
            Self::Program => "nsntrace: trace a program",
            Self::Cgroup => "nsntrace: trace a cgroup",
        }
    }

    /// What its packets begin with, see [`linktype`].
    pub fn link_type(self) -> u16 {
        match self {
            Self::Program => linktype::EN10MB,
            Self::Cgroup => linktype::RAW,
        }
    }

    /// The same in libpcap's numbers, which are other ones here for packets without a link layer.
    pub fn link_types(self) -> String {
        match self {
            Self::Program => "dlt {number=1}{name=EN10MB}{display=Ethernet}\n",
            Self::Cgroup => "dlt {number=12}{name=RAW}{display=Raw IP}\n",
        }
        .to_owned()
    }

    /// Its options.
    ///
    /// # Errors
    /// Where this host does not say what there is to choose from.
    pub fn form(self) -> Result<String> {
        match self {
            Self::Program => Ok(form::numbered(form::PROGRAM)),
            Self::Cgroup => Ok(form::numbered(form::CGROUP) + &form::cgroups()?),
        }
    }

    /// What there is to choose from for this option, anew.
    ///
    /// # Errors
    /// As [`Interface::form`].
    pub fn values(self, option: &str) -> Result<String> {
        match self {
            Self::Cgroup if option.trim_start_matches('-') == "cgroup" => form::cgroups(),
            _ => Ok(String::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_its_name() {
        for interface in ALL {
            assert_eq!(Interface::find(interface.name()).expect("there"), interface);
        }
        let error = Interface::find("eth0").expect_err("none").to_string();
        assert!(error.contains("eth0") && error.contains("nsntrace-cgroup"), "{error}");
    }

    #[test]
    fn the_list_is_as_the_protocol_has_it() {
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!(
            "extcap {{version={version}}}{{display=nsntrace}}\n\
             interface {{value=nsntrace}}{{display=nsntrace: trace a program}}\n\
             interface {{value=nsntrace-cgroup}}{{display=nsntrace: trace a cgroup}}\n"
        );
        assert_eq!(list(), expected);
    }
}
