//! The namespace joined to the host: a link, a way out, and nothing of the host that is not undone.

mod forward;
mod ipv6;
pub mod upkeep;

use std::os::fd::AsFd;

use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;

use crate::{
    check::Host,
    config::Config,
    error::{Context, Error, Result},
    host::{
        Changes,
        cgroup_leaf::Leaf,
        change::Change,
        foreign, forwarding, legacy,
        link::{self, Names},
        localnet,
        nat::{self, Family, Rule},
        packet_filter, published,
        resolver::{self, relay::Relay, resolv_conf::ResolvConf},
        route::{self, DEFAULT_MTU, Device, Survey},
        run_id::RunId,
    },
    namespace::{inside, netns::Netns, sysctls},
    signals::Signals,
    subnet::{self, Subnet},
    sysctl,
    words::Voice,
};
use forward::Switch;

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
}

/// How the program looks names up.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Its resolv.conf, where that is not the host's.
    pub resolv_conf: Option<String>,
    /// Answers it for the host's name servers, where it cannot ask them itself.
    _relay: Option<Relay>,
}

impl Lookups {
    /// Whether they are others than the host's.
    fn is_changed(&self) -> bool {
        self.resolv_conf.is_some()
    }
}

/// Joins the namespace to the host: link, forwarding, routing, NAT, and a cgroup for who lives in it. `are_there` is told
/// when link and cgroup are as they will be, and the rest goes on.
///
/// # Errors
/// Where one of it fails; what was changed is undone then. Where only IPv6 cannot be had, that is said.
pub fn join(
    config: &Config,
    host: &Host,
    netns: &Netns,
    signals: &Signals,
    are_there: impl FnOnce(&Names, &Leaf),
) -> Result<(Changes, Joined)> {
    let voice = Voice::new(config.words);
    let (mut changes, lock) = Changes::begin(|| signals.pending_end())?;
    let id = changes.id();
    let mut survey = route::survey()?;
    let resolv_conf = resolver::configuration();
    survey.taken.extend(resolv_conf.servers.iter().map(|server| IpNet::from(server.address)));
    let subnet = free_subnet(&survey)?;
    let names = Names::of_this_process();
    let ways = Ways::of(config, host, &survey);
    let leaf = Leaf::of(id, &host.cgroup);

    changes.make(Change::Link { name: names.outer.clone() }, || {
        link::create(&names, netns.as_fd(), &subnet, ways.mtu, id)
    })?;
    changes.make(leaf.change(), || leaf.create())?;
    inside::configure(netns, &names.inner, &subnet)?;
    sysctls::carry_over(netns)?;
    forwarding::allow(&names.outer)?;
    let switches = forward::ipv4(&mut changes, ways.inlets)?;
    let mut leads_out = true;
    if let Some((device, table)) = ways.only_by {
        let change = Change::Routing { link: names.outer.clone(), table };
        leads_out = changes
            .make(change, || route::only_by(AddressFamily::Inet, &device.name, &names.outer, table))?;
    }
    let ipv6 = ipv6::join(&mut changes, netns, &names, &ways, &survey.taken)
        .inspect_err(|error| ipv6::do_without(netns, &names, error, voice))
        .ok();
    are_there(&names, &leaf);

    let (ipv6, switches6) = ipv6.unzip();
    let subnets = [Some(subnet), ipv6.map(|ipv6| ipv6.subnet)];
    let (mut lookups, relayed) = look_up(config, &resolv_conf, netns, &names, &subnet, ipv6.is_some(), id)?;
    let rules = subnets.iter().flatten().flat_map(|subnet| rules(config, &names.outer, subnet, id));
    let mut rules: Vec<_> = rules.chain(relayed).collect();
    let passed6 = let_pass(&mut changes, &mut rules, &switches, &switches6.unwrap_or_default(), voice)?;
    drop(lock);
    pass_elsewhere(&mut changes, &rules, voice);
    let ipv6 = match passed6 {
        Ok(()) => ipv6,
        Err(error) => {
            ipv6::do_without(netns, &names, &error, voice);
            if !lookups.is_changed() {
                let (again, more) = look_up(config, &resolv_conf, netns, &names, &subnet, false, id)?;
                changes.make(Change::Nat { rules: more.clone() }, || packet_filter::insert(&more).0)?;
                lookups = again;
                rules.extend(more);
            }
            None
        }
    };
    open(config, &names.outer, ipv6.is_some())?;

    leads_out |= ipv6.is_some_and(|ipv6| ipv6.leads_out);
    if let Some((device, _)) = ways.only_by.filter(|_| !leads_out) {
        voice.no_way_out(&device.name);
    }
    let interface = ways.out.map_or("any", |device| &device.name).to_owned();
    let ipv6 = ipv6.map(|ipv6| ipv6.subnet);
    Ok((changes, Joined { names, subnet, ipv6, interface, leaf, lookups, rules }))
}

/// By which devices packets leave and come.
struct Ways<'a> {
    /// What the user knows the way out by.
    out: Option<&'a Device>,
    /// Its MTU in bytes, which is the link's.
    mtu: u32,
    /// The device of `-d`, and the table of what leads out by it.
    only_by: Option<(&'a Device, u32)>,
    /// The devices at which IPv4 for the program comes in.
    inlets: &'a [Device],
    /// The devices at which IPv6 for it comes in, where there is no `-d`.
    inlets6: &'a [Device],
}

impl<'a> Ways<'a> {
    fn of(config: &Config, host: &'a Host, survey: &'a Survey) -> Self {
        let uplinks = host.device.as_ref().map_or(&survey.uplinks[..], std::slice::from_ref);
        let out = uplinks.first().or(survey.uplinks6.first());
        // Connections to a published port come in by other devices too.
        let (inlets, inlets6) = if host.device.is_none() && !config.published.is_empty() {
            (&survey.inlets[..], &survey.inlets6[..])
        } else {
            (uplinks, &survey.uplinks6[..])
        };
        let table = route::FIRST_TABLE + std::process::id();
        Self {
            out,
            mtu: out.map_or(DEFAULT_MTU, |device| device.mtu),
            only_by: host.device.as_ref().map(|device| (device, table)),
            inlets,
            inlets6,
        }
    }
}

impl Ways<'_> {
    /// The devices at which IPv6 for the program comes in.
    fn inlets6(&self) -> Result<&[Device]> {
        Ok(match self.only_by {
            Some((device, _)) if route::has_ipv6(&device.name)? => std::slice::from_ref(device),
            Some(_) => &[],
            None => self.inlets6,
        })
    }
}

/// Addresses that nothing on this host knows.
fn free_subnet(survey: &Survey) -> Result<Subnet> {
    subnet::free(&survey.taken, |below| fastrand::u32(..below)).ok_or_else(|| {
        Error::told("no private IPv4 addresses are left for the namespace: the host's routes cover them all")
    })
}

/// Inserts the rules, those that guard the host's forwarding below them, and switches that on. What is for IPv6 may fail
/// alone: that is the inner result, and `rules` are those that are there.
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
    Ok(v6.and_then(|()| switches6.iter().try_for_each(|switch| switch.turn_on(voice))))
}

/// Lets the same packets pass in chains of other firewalls. Where that cannot be done, says which chain it is.
fn pass_elsewhere(changes: &mut Changes, rules: &[Rule], voice: Voice) {
    let chains = match foreign::chains() {
        Ok(chains) => chains,
        Err(error) => return voice.detail(format_args!("{error}")),
    };
    for chain in chains {
        let rules = foreign::concerned(&chain, rules);
        if rules.is_empty() {
            continue;
        }
        let passed = foreign::drops(&chain).and_then(|drops| {
            let insert = |changes: &mut Changes| {
                let tag = changes.id().tag();
                let change = Change::Foreign { chain: chain.place.clone() };
                let insert = || foreign::insert(&chain.place, &rules, &tag);
                if changes.made().contains(&change) { insert() } else { changes.make(change, insert) }
            };
            if drops { insert(changes) } else { Ok(()) }
        });
        if let Err(error) = passed {
            voice.held_back(&chain.place, &foreign::advice(&chain.place, error));
        }
    }
    look_at_legacy(rules, voice);
}

/// Says where the chains of the other iptables, in which we have no rules, may hold packets back.
fn look_at_legacy(rules: &[Rule], voice: Voice) {
    for family in [Family::V4, Family::V6] {
        let error = match legacy::drops_beside(family) {
            Ok(false) => continue,
            Ok(true) => legacy::advice(family),
            Err(error) => error,
        };
        if rules.iter().any(|rule| rule.family() == family) {
            voice.held_back(format_args!("iptables-legacy's chain FORWARD for {family}"), &error);
        }
    }
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
    if let Some(publish) = config.published.iter().find(|publish| publish.is_ipv6())
        && !has_ipv6
    {
        return Err(Error::told(format!("-p {publish}: there is no IPv6 in this trace")));
    }
    if !wants_loopback(config) {
        return Ok(());
    }
    localnet::open(link, Family::V4)?;
    if has_ipv6 { localnet::open(link, Family::V6) } else { Ok(()) }
}

fn wants_loopback(config: &Config) -> bool {
    config.host_loopback || !config.published.is_empty()
}

/// Readies a way to name servers. Returns the rules that it needs in the host.
fn look_up(
    config: &Config,
    resolv_conf: &ResolvConf,
    netns: &Netns,
    names: &Names,
    subnet: &Subnet,
    has_ipv6: bool,
    id: RunId,
) -> Result<(Lookups, Vec<Rule>)> {
    let mut relay = None;
    let mut rules = Vec::new();
    let servers = if config.use_public_dns {
        &resolver::PUBLIC[..]
    } else if resolver::needs_relay(resolv_conf, |address| address.is_ipv4() || has_ipv6) {
        let started = relay.insert(Relay::start(&names.outer, subnet)?);
        rules = nat::relayed(&names.outer, subnet.gateway, started.ports(), id);
        &[subnet.gateway]
    } else {
        return Ok((Lookups::default(), rules));
    };
    // Nothing can be mounted over a name that is not there.
    if !resolver::has_file() {
        netns.run(|| {
            sysctl::set(&format!("ipv4/conf/{}/route_localnet", names.inner), "1")
                .context("set", "route_localnet")?;
            packet_filter::insert(&nat::in_place_of_loopback(servers[0], id)).0
        })?;
    }
    let resolv_conf = Some(resolv_conf.with_servers(servers));
    Ok((Lookups { resolv_conf, _relay: relay }, rules))
}
