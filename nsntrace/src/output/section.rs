//! What a pcapng says of itself and of the interfaces that its packets pass.

use std::borrow::Cow;

use ipnet::IpNet;
use nix::sys::utsname::uname;
use pcap_file::{
    DataLink, Endianness,
    pcapng::blocks::{
        interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption as Described},
        section_header::{SectionHeaderBlock, SectionHeaderOption},
    },
};

use crate::words::as_a_shell_has_it;

/// Where the packets of a trace come from.
#[derive(Clone, Debug)]
pub struct Section {
    /// Bytes that are kept of a packet at most.
    pub snaplen: u32,
    /// The expression that picked the packets.
    pub filter: Option<String>,
    /// The link type of a format that has one for all packets, see [`nsntrace_ebpf::linktype`].
    pub link_type: u16,
    /// The interfaces that are known from the start.
    pub interfaces: Vec<Interface>,
    /// The name of one that comes later, by its number.
    pub name_of: fn(u32) -> Option<String>,
}

/// An interface that packets pass.
#[derive(Clone, Debug, Default)]
pub struct Interface {
    /// Its number among the interfaces of its namespace.
    pub index: u32,
    /// Its packets' link type, see [`nsntrace_ebpf::linktype`].
    pub link_type: u16,
    /// Its name, where that is known.
    pub name: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
}

/// Exponent of the stamps' unit: nanoseconds.
const RESOLUTION: u8 = 9;

/// The first byte of a filter: it is an expression as libpcap has it.
const EXPRESSION: u8 = 0;

impl Section {
    /// The description of one of the section's interfaces.
    pub(super) fn description(&self, interface: &Interface) -> InterfaceDescriptionBlock<'static> {
        let mut options = Vec::new();
        options.extend(interface.name.as_deref().map(|name| Described::IfName(fitting(name))));
        options.extend(interface.addresses.iter().map(address));
        options.push(Described::IfTsResol(RESOLUTION));
        options.extend(self.filter.as_deref().map(expression));
        let linktype = DataLink::from(u32::from(interface.link_type));
        InterfaceDescriptionBlock { linktype, snaplen: self.snaplen, options }
    }
}

/// The header of a section that this process writes.
pub(super) fn header() -> SectionHeaderBlock<'static> {
    SectionHeaderBlock {
        endianness: Endianness::Little,
        options: vec![
            SectionHeaderOption::Comment(fitting(&command_line())),
            SectionHeaderOption::OS(fitting(&system())),
            SectionHeaderOption::UserApplication(concat!("nsntrace ", env!("CARGO_PKG_VERSION")).into()),
        ],
        ..SectionHeaderBlock::default()
    }
}

/// An address with its mask or the length of its prefix. There is an option for IPv6 too, if_IPv6addr, but python-pcapng 2.1.1
/// fails on it and then reads no packet: unpacking one byte of it, it takes a number for bytes.
fn address(address: &IpNet) -> Described<'static> {
    match address {
        IpNet::V4(net) => {
            Described::IfIpv4Addr([net.addr().octets(), net.netmask().octets()].concat().into())
        }
        IpNet::V6(net) => Described::Comment(format!("IPv6 address {net}").into()),
    }
}

fn expression(filter: &str) -> Described<'static> {
    let filter = &filter[..filter.floor_char_boundary(LONGEST - 1)];
    Described::IfFilter([&[EXPRESSION], filter.as_bytes()].concat().into())
}

/// Bytes that fit into an option.
const LONGEST: usize = u16::MAX as usize;

/// The text, as far as an option can hold it.
pub(super) fn fitting(text: &str) -> Cow<'static, str> {
    text[..text.floor_char_boundary(LONGEST)].to_owned().into()
}

/// What this process was called with, as a shell would have it.
fn command_line() -> String {
    as_a_shell_has_it(std::env::args_os().map(|word| word.to_string_lossy().into_owned()))
}

/// The operating system, its version, and what it runs on.
fn system() -> String {
    let Ok(name) = uname() else { return "Linux".into() };
    [name.sysname(), name.release(), name.machine()].map(|part| part.to_string_lossy()).join(" ")
}

#[cfg(test)]
mod tests {
    use nsntrace_ebpf::linktype;

    use super::*;

    #[test]
    fn an_interface_is_described() {
        let link = Interface {
            link_type: linktype::EN10MB,
            name: Some("nscap1".into()),
            addresses: vec!["10.0.0.1/31".parse().expect("valid"), "fd00::1/127".parse().expect("valid")],
            ..Interface::default()
        };
        let section = Section {
            snaplen: 100,
            filter: Some("tcp port 80".into()),
            link_type: linktype::EN10MB,
            interfaces: vec![],
            name_of: |_| None,
        };
        let interface = section.description(&link);
        assert_eq!(interface.snaplen, 100);
        let expected = [
            Described::IfName("nscap1".into()),
            Described::IfIpv4Addr([10, 0, 0, 1, 255, 255, 255, 254][..].into()),
            Described::Comment("IPv6 address fd00::1/127".into()),
            Described::IfTsResol(9),
            Described::IfFilter(b"\0tcp port 80"[..].into()),
        ];
        assert_eq!(interface.options, expected);
    }

    #[test]
    fn what_is_too_long_for_an_option_is_cut_between_characters() {
        assert_eq!(fitting("é"), "é");
        let long = "é".repeat(40_000);
        assert_eq!(fitting(&long).len(), 65_534);
        let filter = expression(&"x".repeat(70_000));
        assert!(matches!(filter, Described::IfFilter(value) if value.len() == 65_535));
    }
}
