//! The namespace joined to the host: a link, a way out, and nothing of the host that is not undone.

use std::os::fd::AsFd;

use ipnet::IpNet;

use crate::{
    check::Host,
    config::Config,
    error::{Context, Error, Result},
    host::{
        Changes,
        cgroup_leaf::Leaf,
        change::Change,
        forwarding,
        link::{self, Names},
        nat::{self, Rule},
        resolver::{self, relay::Relay},
        route::{self, DEFAULT_MTU, Survey},
        run_id::RunId,
    },
    namespace::{inside, netns::Netns, sysctls},
    signals::Signals,
    subnet::{self, Subnet},
    sysctl,
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
    /// The program's name look-ups.
    pub lookups: Lookups,
}

/// How the program looks names up.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Its resolv.conf, where that is not the host's.
    pub resolv_conf: Option<String>,
    /// Answers it for the host's name servers, where it cannot ask them itself.
    _relay: Option<Relay>,
}

/// Joins the namespace to the host: link, forwarding, routing, NAT, and a cgroup for who lives in it.
///
/// # Errors
/// Where one of it fails; what was changed is undone then.
pub fn join(config: &Config, host: &Host, netns: &Netns, signals: &Signals) -> Result<(Changes, Joined)> {
    let voice = Voice::new(config.words);
    let (mut changes, lock) = Changes::begin(|| signals.pending_end())?;
    let id = changes.id();
    let survey = route::survey()?;
    let subnet = free_subnet(&survey)?;
    let names = Names::of_this_process();
    let uplinks = host.device.as_ref().map_or(&survey.uplinks[..], std::slice::from_ref);
    let mtu = uplinks.first().map_or(DEFAULT_MTU, |uplink| uplink.mtu);
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
    drop(lock);

    if let Some(device) = &host.device {
        let table = route::FIRST_TABLE + std::process::id();
        let change = Change::Routing { link: names.outer.clone(), table };
        let leads_out = changes.make(change, || route::only_by(&device.name, &names.outer, table))?;
        if !leads_out {
            voice.no_way_out(&device.name);
        }
    }
    let mut rules = nat::plan(&names.outer, &subnet, id);
    let lookups = look_up(config, netns, &names, &subnet, id, &mut rules)?;
    changes.make(Change::Nat { rules: rules.clone() }, || nat::insert(&rules))?;
    changes.make(Change::Cgroup { path: leaf.path().to_owned() }, || leaf.create())?;

    let interface =
        uplinks.first().or(survey.uplink6.as_ref()).map_or("any", |uplink| &uplink.name).to_owned();
    Ok((changes, Joined { names, subnet, interface, leaf, lookups }))
}

/// Addresses that nothing on this host knows.
fn free_subnet(survey: &Survey) -> Result<Subnet> {
    let mut taken = survey.taken.clone();
    taken.extend(resolver::configuration().servers.iter().map(|server| IpNet::from(server.address)));
    subnet::free(&taken, |below| fastrand::u32(..below)).ok_or_else(|| {
        Error::told("no private IPv4 addresses are left for the namespace: the host's routes cover them all")
    })
}

/// Lets the host forward what comes in at an uplink, if it does not.
fn forward(changes: &mut Changes, uplink: &str, voice: Voice) -> Result<()> {
    let change = Change::Forwarding { device: uplink.to_owned(), on_a_router: forwarding::is_router()? };
    // Another run has switched it on: it must stay on until the last of us has ended.
    if let Some(same) = changes.others()?.into_iter().flatten().find(|other| other.is_shared_with(&change)) {
        return changes.make(same, || Ok(()));
    }
    if forwarding::is_on(uplink)? {
        return Ok(());
    }
    changes.make(change, || forwarding::switch_on(uplink))?;
    voice.forwarding(uplink);
    Ok(())
}

/// Readies a way to name servers. `rules` are extended by what it needs in the host.
fn look_up(
    config: &Config,
    netns: &Netns,
    names: &Names,
    subnet: &Subnet,
    id: RunId,
    rules: &mut Vec<Rule>,
) -> Result<Lookups> {
    let configuration = resolver::configuration();
    let mut relay = None;
    let servers = if config.use_public_dns {
        &resolver::PUBLIC[..]
    } else if resolver::needs_relay(&configuration, subnet::has_family) {
        let started = relay.insert(Relay::start(&names.outer, subnet)?);
        rules.extend(nat::relayed(&names.outer, subnet.gateway, started.ports(), id));
        &[subnet.gateway]
    } else {
        return Ok(Lookups::default());
    };
    // Nothing can be mounted over a name that is not there.
    if !resolver::has_file() {
        netns.run(|| {
            sysctl::set(&format!("ipv4/conf/{}/route_localnet", names.inner), "1")
                .context("set", "route_localnet")?;
            nat::insert(&nat::in_place_of_loopback(servers[0], id))
        })?;
    }
    Ok(Lookups { resolv_conf: Some(configuration.with_servers(servers)), _relay: relay })
}
