//! The block that tells names of addresses.

use std::net::IpAddr;

use pcap_file::pcapng::blocks::name_resolution::{Ipv4Record, Ipv6Record, NameResolutionBlock, Record};

/// The block of these names; none where there are none.
pub(super) fn block(names: &[(IpAddr, String)]) -> Option<NameResolutionBlock<'_>> {
    let records: Vec<_> = names.iter().map(|(address, name)| record(*address, name)).collect();
    (!records.is_empty()).then_some(NameResolutionBlock { records, options: Vec::new() })
}

fn record(address: IpAddr, name: &str) -> Record<'_> {
    let names = vec![name.into()];
    match address {
        IpAddr::V4(address) => Record::Ipv4(Ipv4Record { ip_addr: address.octets().to_vec().into(), names }),
        IpAddr::V6(address) => Record::Ipv6(Ipv6Record { ip_addr: address.octets().to_vec().into(), names }),
    }
}
