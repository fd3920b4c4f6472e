//! The namespace joined to the host: a link, a way out, and nothing of the host that is not undone.

mod ipv6;

use std::os::fd::AsFd;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;

use crate::{
    check::Host,
    config::Config,
    error::{Error, Result},
    host::{
        Changes,
        cgroup_leaf::Leaf,
        change::Change,
        forwarding,
        link::{self, Names},
        nat, resolver,
        route::{self, DEFAULT_MTU, Survey},
    },
    namespace::{inside, netns::Netns, sysctls},
    signals::Signals,
    subnet::{self, Subnet},
    words::Voice,
};

/// What the namespace is joined to the host by.
pub struct Joined {
    /// The link's ends.
    pub names: Names,
    /// Its addresses.
    pub subnet: Subnet,
    /// What the user knows the way out by.
    pub interface: String,
    /// The cgroup for who lives in it.
    pub leaf: Leaf,
}

/// Joins the namespace to the host: link, forwarding, routing, NAT, and a cgroup for who lives in it.
///
/// # Errors
/// Where one of it fails; what was changed is undone then. Where only IPv6 cannot be had, that is said.
pub fn join(config: &Config, host: &Host, netns: &Netns, signals: &Signals) -> Result<(Changes, Joined)> {
    let voice = Voice::new(config.words);
    let (mut changes, lock) = Changes::begin(|| signals.pending_end())?;
    let id = changes.id();
    let mut survey = route::survey()?;
    survey.taken.extend(resolver::name_servers().into_iter().map(IpNet::from));
    let subnet = free_subnet(&survey)?;
    let names = Names::of_this_process();
    let uplinks = host.device.as_ref().map_or(&survey.uplinks[..], std::slice::from_ref);
    let way_out = uplinks.first().or(survey.uplinks6.first());
    let mtu = way_out.map_or(DEFAULT_MTU, |uplink| uplink.mtu);
    let only_by = host.device.as_ref().map(|device| (device, route::FIRST_TABLE + std::process::id()));
    let leaf = Leaf::of(id, &host.cgroup);

    changes.make(Change::Link { name: names.outer.clone() }, || {
        link::create(&names, netns.as_fd(), &subnet, mtu, id)
    })?;
    inside::configure(netns, &names.inner, &subnet)?;
    sysctls::carry_over(netns)?;
    forwarding::allow(&names.outer)?;
    for uplink in uplinks {
        forward(&mut changes, &uplink.name, voice)?;
    }
    let mut leads_out = true;
    if let Some((device, table)) = only_by {
        let change = Change::Routing { link: names.outer.clone(), table };
        leads_out = changes
            .make(change, || route::only_by(AddressFamily::Inet, &device.name, &names.outer, table))?;
    }
    let wanted = ipv6::Wanted { only_by, uplinks: &survey.uplinks6, taken: &survey.taken, mtu };
    let mut ipv6 = ipv6::join(&mut changes, netns, &names, &wanted, voice);
    drop(lock);

    let plan = |subnet| nat::plan(&names.outer, subnet, id);
    let rules =
        [Some(subnet), ipv6.map(|ipv6| ipv6.subnet)].iter().flatten().flat_map(plan).collect::<Vec<_>>();
    let (inserted, inserted6) =
        changes.make(Change::Nat { rules: rules.clone() }, || Ok(nat::insert(&rules)))?;
    inserted?;
    if let Err(error) = inserted6 {
        ipv6::do_without(netns, &names, &error, voice);
        ipv6 = None;
    }
    changes.make(Change::Cgroup { path: leaf.path().to_owned() }, || leaf.create())?;

    if let Some((device, _)) = only_by.filter(|_| !leads_out && !ipv6.is_some_and(|ipv6| ipv6.leads_out)) {
        voice.no_way_out(&device.name);
    }
    let interface = way_out.map_or("any", |uplink| &uplink.name).to_owned();
    Ok((changes, Joined { names, subnet, interface, leaf }))
}

/// Addresses that nothing on this host knows.
fn free_subnet(survey: &Survey) -> Result<Subnet> {
    subnet::free(&survey.taken, |below| fastrand::u32(..below)).ok_or_else(|| {
        Error::told("no private IPv4 addresses are left for the namespace: the host's routes cover them all")
    })
}

/// Lets the host forward what comes in at an uplink, if it does not.
fn forward(changes: &mut Changes, uplink: &str, voice: Voice) -> Result<()> {
    let change = Change::Forwarding { device: uplink.to_owned(), on_a_router: forwarding::is_router()? };
    if changes.share(&change)? || forwarding::is_on(uplink)? {
        return Ok(());
    }
    changes.make(change, || forwarding::switch_on(uplink))?;
    voice.forwarding(format_args!("IPv4 forwarding on {uplink}"));
    Ok(())
}
