//! How the program looks names up.

use crate::{
    config::Config,
    error::{Context, Result},
    host::{
        link::Names,
        nat::{self, Rule},
        packet_filter,
        resolver::{self, relay::Relay, resolv_conf::ResolvConf},
        run_id::RunId,
    },
    namespace::netns::Netns,
    subnet::Subnet,
    sysctl,
};

/// How the program looks names up.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Its resolv.conf, where that is not the host's.
    pub resolv_conf: Option<String>,
    /// Answers it for the host's name servers, where it cannot ask them itself.
    _relay: Option<Relay>,
}

impl Lookups {
    /// Readies a way to name servers. Returns the rules that it needs in the host.
    ///
    /// # Errors
    /// Where no relay can be started, or the namespace not be readied for one.
    pub fn ready(
        config: &Config,
        resolv_conf: &ResolvConf,
        netns: &Netns,
        names: &Names,
        subnet: &Subnet,
        has_ipv6: bool,
        id: RunId,
    ) -> Result<(Self, Vec<Rule>)> {
        let mut relay = None;
        let mut rules = Vec::new();
        let servers = if config.use_public_dns {
            &resolver::PUBLIC[..]
        } else if resolver::needs_relay(resolv_conf, |address| address.is_ipv4() || has_ipv6) {
            let started = relay.insert(Relay::start(&names.outer, subnet)?);
            rules = nat::relayed(&names.outer, subnet.gateway, started.ports(), id);
            &[subnet.gateway]
        } else {
            return Ok((Self::default(), rules));
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
        Ok((Self { resolv_conf, _relay: relay }, rules))
    }

    /// Whether they are others than the host's.
    pub fn is_changed(&self) -> bool {
        self.resolv_conf.is_some()
    }
}
