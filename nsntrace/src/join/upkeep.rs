//! What was joined stays joined, whatever others do to the host's rules and routes meanwhile.

use std::time::Duration;

use rtnetlink::packet_route::AddressFamily;
use tokio::time::{Instant, sleep_until};

use super::{
    Joined,
    elsewhere::{self, Elsewhere},
    forward::{self, Switch},
};
use crate::{
    check::Host,
    config::Config,
    error::{Error, Result},
    host::{
        Changes,
        change::Change,
        device,
        events::Events,
        own_rules, packet_filter,
        route::{self, survey::Survey},
        ways::Ways,
    },
    words::{Voice, plain, say},
};

/// How long until it is tried again what has failed; twice as long each time, and so long at most.
const AGAIN: Duration = Duration::from_secs(1);
const AT_LAST: Duration = Duration::from_secs(60);

/// Follows the host during a trace.
pub struct Upkeep<'a> {
    changes: &'a mut Changes,
    config: &'a Config,
    host: &'a Host,
    joined: &'a Joined,
    events: Events,
    /// Rules of this run that nftables has, once they have been counted; those of iptables-legacy are none.
    rules: Option<usize>,
    elsewhere: Elsewhere,
    /// So many guards have been taken away.
    lifted: usize,
    failure: Option<Failure>,
}

/// Something has failed, and is tried again.
struct Failure {
    /// What was said of it.
    said: String,
    /// When, and how long until then.
    next: Instant,
    pause: Duration,
}

impl<'a> Upkeep<'a> {
    /// Begins, in an event loop, when everything is in place.
    pub fn new(changes: &'a mut Changes, config: &'a Config, host: &'a Host, joined: &'a Joined) -> Self {
        let events = Events::listen();
        let (rules, elsewhere) = (joined.there, joined.elsewhere.clone());
        let mut upkeep =
            Self { changes, config, host, joined, events, rules, elsewhere, lifted: 0, failure: None };
        // Rules that were removed before anybody listened, or could not be looked at.
        let there = || own_rules::count(&upkeep.changes.id().tag());
        if rules.is_none_or(|rules| there().is_ok_and(|there| there < rules)) {
            upkeep.mend(true);
        }
        upkeep
    }

    /// Waits until others have changed something, or it is time to look at a firewall again after that, or to try again what
    /// has failed. It may be given up and begun again. Says whether there are rules to be mended.
    pub async fn changed(&mut self) -> bool {
        // What has failed may be the look.
        let look = || self.elsewhere.due().map(Instant::from_std);
        let due = self.failure.as_ref().map(|failure| failure.next).or_else(look);
        tokio::select! {
            changed = self.events.changed() => changed,
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => true,
        }
    }

    /// Forwards at new ways out, and guards nothing on a host that has become a router; with rules, inserts those again that
    /// others have removed, and lets packets pass in a firewall that is new. What fails is said, and tried again.
    pub fn mend(&mut self, rules: bool) {
        let rules = rules || self.failure.is_some();
        // Who changes rules may have switched forwarding off as well.
        let routes = self.follow_routes().and(self.lift_guards());
        let rules = if rules { self.mend_rules() } else { Ok(()) };
        match routes.and(rules) {
            Ok(()) => self.failure = None,
            Err(error) => self.failed(&error),
        }
    }

    fn mend_rules(&mut self) -> Result<()> {
        let voice = Voice::new(self.config.words);
        let restored = self.restore_rules();
        let passed = self.elsewhere.pass(self.changes, &self.joined.rules, voice);
        // They are not counted anew: what is lost meanwhile is to be missed.
        if let (Some(rules), Ok(passed)) = (&mut self.rules, &passed) {
            *rules += passed;
        }
        if restored? {
            voice.restored();
        }
        passed.map(drop)
    }

    /// Says it, once, and has it tried again: another run may have held the lock.
    fn failed(&mut self, error: &Error) {
        let said = error.to_string();
        let before = self.failure.take();
        if before.as_ref().is_none_or(|before| before.said != said) {
            say!("nsntrace: the host's network was changed: {}", plain(&said));
        }
        let pause = before.map_or(AGAIN, |before| (2 * before.pause).min(AT_LAST));
        self.failure = Some(Failure { said, next: Instant::now() + pause, pause });
    }

    /// Takes guards away where somebody has made the host a router: what comes in for others passes then, as they want it.
    fn lift_guards(&mut self) -> Result<()> {
        let overtaken = self.changes.made().iter().filter(|change| change.is_overtaken());
        let guards: Vec<_> = overtaken.filter_map(Change::guard).collect();
        if guards.len() > self.lifted {
            let _lock = self.changes.lock()?;
            packet_filter::remove(&guards, None)?;
        }
        self.lifted = guards.len();
        Ok(())
    }

    fn follow_routes(&mut self) -> Result<()> {
        let voice = Voice::new(self.config.words);
        let _lock = self.changes.lock()?;
        let survey = Survey::take()?;
        let ways = Ways::of(self.host.device.as_ref(), &survey);
        if let Some((device, _)) = ways.only_by {
            // Until it comes back.
            if !device::exists(&device.name)? {
                return Ok(());
            }
        }
        let mut switches = forward::ipv4(self.changes, ways.inlets)?;
        if self.joined.ipv6.is_some() {
            let inlets = ways.inlets6()?;
            switches.extend(forward::ipv6(self.changes, &self.joined.names.outer, inlets)?);
        }
        let guards = own_rules::missing(switches.iter().filter_map(Switch::guard).collect())?;
        let (v4, v6) = packet_filter::insert(&guards);
        v4.and(v6)?;
        switches.iter().try_for_each(|switch| switch.turn_on(voice))?;
        let Some((device, table)) = ways.only_by else { return Ok(()) };
        route::table::renew(AddressFamily::Inet, &device.name, table)?;
        match self.joined.ipv6 {
            Some(_) => route::table::renew(AddressFamily::Inet6, &device.name, table),
            None => Ok(()),
        }
    }

    /// True if there were some to be restored.
    fn restore_rules(&mut self) -> Result<bool> {
        let tag = self.changes.id().tag();
        let there = own_rules::count(&tag)?;
        if there >= *self.rules.get_or_insert(there) {
            return Ok(false);
        }
        let lock = self.changes.lock()?;
        let made = self.changes.made().iter().filter(|change| !change.is_overtaken());
        let guards = made.filter_map(Change::guard).collect();
        // One that is there stays: the host forwards meanwhile.
        let mut rules = own_rules::missing(guards)?;
        rules.extend(self.joined.rules.iter().cloned());
        // Those that are still there would be there twice.
        packet_filter::remove(&self.joined.rules, Some(&tag))?;
        self.elsewhere.forget();
        let (v4, v6) = packet_filter::insert(&rules);
        v4.and(v6)?;
        self.rules = Some(own_rules::count(&tag)?);
        drop(lock);
        elsewhere::look_at_legacy(&self.joined.rules, Voice::new(self.config.words));
        Ok(true)
    }
}
