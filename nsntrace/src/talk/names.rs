//! Names of addresses, as answers to the program had them.

use std::{mem, net::IpAddr};

use super::bounded::Bounded;

/// Addresses whose names are kept: up to twice as many.
const MOST: usize = 1024;

/// Bytes of names that a file begins with, at most.
const MOST_RECENT: usize = 64 << 10;

/// The latest name of each address.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: Bounded<IpAddr, String, MOST>,
    news: Vec<(IpAddr, String)>,
}

impl Names {
    /// Takes a name that an answer had.
    pub(super) fn learn(&mut self, address: IpAddr, name: &str) {
        if self.names.get_mut(&address).is_some_and(|known| known == name) {
            return;
        }
        self.names.insert(address, name.to_owned());
        self.news.push((address, name.to_owned()));
    }

    /// The name of an address.
    pub(super) fn of(&self, address: IpAddr) -> Option<&str> {
        self.names.get(&address).map(String::as_str)
    }

    /// What was learned since the last call.
    pub(super) fn news(&mut self) -> Vec<(IpAddr, String)> {
        mem::take(&mut self.news)
    }

    /// What was learned or used lately.
    pub(super) fn recent(&self) -> Vec<(IpAddr, String)> {
        let mut room = MOST_RECENT;
        let fits = |(_, name): &(&IpAddr, &String)| {
            room = room.saturating_sub(name.len());
            room > 0
        };
        self.names.iter().take_while(fits).map(|(address, name)| (*address, name.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_is_news_once() {
        let mut names = Names::default();
        let address = IpAddr::from([10, 0, 0, 1]);
        for name in ["a", "a", "b", "a"] {
            names.learn(address, name);
        }
        let news = ["a", "b", "a"].map(|name| (address, name.to_owned()));
        assert_eq!((names.news(), names.news()), (news.to_vec(), vec![]));
        assert_eq!((names.of(address), names.of([10, 0, 0, 2].into())), (Some("a"), None));
        assert_eq!(names.recent(), [(address, "a".to_owned())]);
    }

    #[test]
    fn a_flood_of_names_is_bounded() {
        let mut names = Names::default();
        let long = "x".repeat(250);
        for number in 0..20_000_u32 {
            names.learn(number.to_be_bytes().into(), &long);
            names.news();
        }
        assert!(names.names.iter().count() <= 3 * MOST);
        let bytes: usize = names.recent().iter().map(|(_, name)| name.len()).sum();
        assert!((MOST_RECENT / 2..=MOST_RECENT).contains(&bytes), "{bytes}");
    }
}
