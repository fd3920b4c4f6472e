//! The namespace joined to the host: a link, a way out, and nothing of the host that is not undone.

mod elsewhere;
mod forward;
mod ipv6;
mod lookups;
pub mod upkeep;

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
        guardian::Guardian,
        link::{self, Names},
        localnet,
        nat::{self, Family, Rule},
        own_rules, packet_filter, published, resolver,
        route::{self, survey::Survey},
        run_id::RunId,
        ways::Ways,
    },
    namespace::{inside, netns::Netns, sysctls},
    publish,
    signals::Signals,
    subnet::{self, Subnet},
    words::Voice,
};
use elsewhere::Elsewhere;
use forward::Switch;

pub use ipv6::settle;
pub use lookups::Lookups;

/// What the namespace is joined to the host by.
pub struct Joined {
    /// The link's ends.
    pub names: Names,
    /// Its addresses.
    pub subnet: Subnet,
    /// Those of IPv6, where it has some.
    pub ipv6: Option<Subnet>,
    /// What the user knows the way out by.
    pub interface: String,
    /// The cgroup for who lives in it.
    pub leaf: Leaf,
    /// The program's name look-ups.
    pub lookups: Lookups,
    /// Its rules in the packet filter, in the order in which they are inserted.
    pub rules: Vec<Rule>,
    /// How many rules of this run nftables had when they were inserted; those of iptables-legacy are none.
    there: Option<usize>,
    /// What other firewalls there are.
    elsewhere: Elsewhere,
}

/// Joins the namespace to the host: link, forwarding, routing, NAT, and a cgroup for who lives in it. `are_there` is told
/// when link and cgroup are as they will be, but for [`settle`], and the rest goes on.
///
/// # Errors
/// Where one of it fails; what was changed is undone then. Where only IPv6 cannot be had, that is said.
pub fn join(
    config: &Config,
    host: &Host,
    netns: &Netns,
    guardian: Guardian,
    signals: &Signals,
    are_there: impl FnOnce(&Names, &Leaf),
) -> Result<(Changes, Joined)> {
    let voice = Voice::new(config.words);
    let (mut changes, lock) = Changes::begin(guardian, || signals.pending_end())?;
    let id = changes.id();
    let mut survey = Survey::take()?;
    let resolv_conf = resolver::configuration();
    survey.taken.extend(resolv_conf.servers.iter().map(|server| IpNet::from(server.address)));
    let subnet = free_subnet(&survey)?;
    let names = Names::of_this_process();
    let ways = Ways::of(host.device.as_ref(), &survey);
    let leaf = Leaf::of(id, &host.cgroup);

    changes.make(Change::Link { name: names.outer.clone() }, || {
        link::create(&names, netns.as_fd(), &subnet, ways.mtu, id)
    })?;
    changes.make(leaf.change(), || leaf.create())?;
    inside::configure(netns, &names.inner, &subnet)?;
    // It goes away with the link.
    forwarding::switch_on(&names.outer)?;
    let switches = forward::ipv4(&mut changes, ways.inlets)?;
    let mut leads_out = true;
    if let Some((device, table)) = ways.only_by {
        let change = Change::Routing { link: names.outer.clone(), table };
        leads_out = changes
            .make(change, || route::table::only_by(AddressFamily::Inet, &device.name, &names.outer, table))?;
    }
    let ipv6 = ipv6::join(&mut changes, netns, &names, &ways, &survey.taken)
        .inspect_err(|error| ipv6::do_without(netns, &names, error, voice))
        .ok();
    are_there(&names, &leaf);
    sysctls::carry_over(netns)?;

    let (ipv6, switches6) = ipv6.unzip();
    let subnets = [Some(subnet), ipv6.map(|ipv6| ipv6.subnet)];
    let (mut lookups, relayed) =
        Lookups::ready(config, &resolv_conf, netns, &names, &subnet, ipv6.is_some(), id)?;
    let rules = subnets.iter().flatten().flat_map(|subnet| rules(config, &names.outer, subnet, id));
    let mut rules: Vec<_> = rules.chain(relayed).collect();
    let switches6 = switches6.unwrap_or_default();
    let passed6 = let_pass(&mut changes, &mut rules, &switches, &switches6, voice)?
        .and_then(|()| ipv6::turn_on(netns, &names, &switches6, voice));
    drop(lock);
    let ipv6 = match passed6 {
        Ok(()) => ipv6,
        Err(error) => {
            ipv6::do_without(netns, &names, &error, voice);
            if !lookups.is_changed() {
                let (again, more) = Lookups::ready(config, &resolv_conf, netns, &names, &subnet, false, id)?;
                changes.make(Change::Nat { rules: more.clone() }, || packet_filter::insert(&more).0)?;
                lookups = again;
                rules.extend(more);
            }
            None
        }
    };
    let mut elsewhere = Elsewhere::default();
    // What fails here is tried again by the upkeep, which says it.
    let passed = elsewhere.pass(&mut changes, &rules, voice);
    let there = passed.and_then(|_| own_rules::count(&id.tag())).ok();
    elsewhere::look_at_legacy(&rules, voice);
    open(config, &names.outer, ipv6.is_some())?;

    leads_out |= ipv6.is_some_and(|ipv6| ipv6.leads_out);
    if let Some((device, _)) = ways.only_by.filter(|_| !leads_out) {
        voice.no_way_out(&device.name);
    }
    let interface = ways.out.map_or("any", |device| &device.name).to_owned();
    let ipv6 = ipv6.map(|ipv6| ipv6.subnet);
    Ok((changes, Joined { names, subnet, ipv6, interface, leaf, lookups, rules, there, elsewhere }))
}

/// Addresses that nothing on this host knows.
fn free_subnet(survey: &Survey) -> Result<Subnet> {
    subnet::free(&survey.taken, |below| fastrand::u32(..below)).ok_or_else(|| {
        Error::told("no private IPv4 addresses are left for the namespace: the host's routes cover them all")
    })
}

/// Inserts the rules, those that guard the host's forwarding below them, and switches that of IPv4 on. What is for IPv6 may
/// fail alone: that is the inner result, and `rules` are those that are there.
fn let_pass(
    changes: &mut Changes,
    rules: &mut Vec<Rule>,
    switches: &[Switch],
    switches6: &[Switch],
    voice: Voice,
) -> Result<Result<()>> {
    let guards = switches.iter().chain(switches6).filter_map(Switch::guard);
    let all: Vec<_> = guards.chain(rules.iter().cloned()).collect();
    let (v4, v6) = changes.make(Change::Nat { rules: rules.clone() }, || Ok(packet_filter::insert(&all)))?;
    v4?;
    if v6.is_err() {
        rules.retain(|rule| rule.family() == Family::V4);
    }
    switches.iter().try_for_each(|switch| switch.turn_on(voice))?;
    Ok(v6)
}

/// The rules for one of the link's subnets. The last of a chain comes first.
fn rules(config: &Config, link: &str, subnet: &Subnet, id: RunId) -> Vec<Rule> {
    let mut rules = nat::plan(link, subnet, id);
    if wants_loopback(config) {
        rules.extend(localnet::plan(link, subnet, id, config.host_loopback));
    }
    rules.extend(published::plan(link, subnet, id, &config.published));
    rules
}

/// Opens the link to the host's loopback, if that is to be reached from the program, or the program from there.
fn open(config: &Config, link: &str, has_ipv6: bool) -> Result<()> {
    publish::can_be_reached(&config.published, has_ipv6)?;
    if !wants_loopback(config) {
        return Ok(());
    }
    localnet::open(link, Family::V4)?;
    if has_ipv6 { localnet::open(link, Family::V6) } else { Ok(()) }
}

fn wants_loopback(config: &Config) -> bool {
    config.host_loopback || !config.published.is_empty()
}
