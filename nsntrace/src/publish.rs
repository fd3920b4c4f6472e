//! Ports of the program that are reached at the host's: what `-p` says.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use crate::error::{Error, Result};

/// A port of the program that is reached at the same port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish {
    /// The host's address, an unspecified one for all of its family; without one all addresses of both families.
    pub host: Option<IpAddr>,
    /// The port, which is not 0.
    pub port: u16,
    /// What is spoken there.
    pub transport: Transport,
}

/// What a port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Publish {
    /// The addresses of the host at which it is reached: the unspecified one stands for all of its family.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let all = || vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        self.host.map_or_else(all, |host| vec![host])
    }

    /// Whether the two are in each other's way.
    fn overlaps(&self, other: &Self) -> bool {
        let meet = |one: &IpAddr, two: &IpAddr| {
            one.is_ipv4() == two.is_ipv4() && (one == two || one.is_unspecified() || two.is_unspecified())
        };
        self.port == other.port
            && self.transport == other.transport
            && self.addresses().iter().any(|one| other.addresses().iter().any(|two| meet(one, two)))
    }
}

/// Reads all that was asked for.
///
/// # Errors
/// Where one cannot be read, or two are in each other's way.
pub fn parse(texts: &[String]) -> Result<Vec<Publish>> {
    let mut all: Vec<Publish> = Vec::new();
    for text in texts {
        let publish: Publish = text.parse()?;
        if let Some(other) = all.iter().find(|other| other.overlaps(&publish)) {
            return Err(Error::told(format!("-p {publish}: it is published already, by -p {other}")));
        }
        all.push(publish);
    }
    Ok(all)
}

/// Whether each can be reached.
///
/// # Errors
/// Which one cannot, as there is no IPv6.
pub fn can_be_reached(published: &[Publish], has_ipv6: bool) -> Result<()> {
    match published.iter().find(|publish| publish.host.is_some_and(|host| host.is_ipv6())) {
        Some(publish) if !has_ipv6 => {
            Err(Error::told(format!("-p {publish}: there is no IPv6 in this trace")))
        }
        _ => Ok(()),
    }
}

impl FromStr for Publish {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::told(format!("-p {text}: {why}; it is [HOST:]PORT[/udp]"));
        let (place, transport) = match text.split_once('/') {
            None => (text, Transport::Tcp),
            Some((place, "udp")) => (place, Transport::Udp),
            Some(_) => return Err(wrong("after the / there can only be udp")),
        };
        let (host, port) = match place.rsplit_once(':') {
            None => (None, place),
            Some((host, port)) => (Some(host), port),
        };
        let bare = |host: &str| host.strip_prefix('[')?.strip_suffix(']').map(str::to_owned);
        let host = match host {
            None => None,
            Some(host) => {
                let address = match bare(host) {
                    Some(address) => address.parse().ok().map(IpAddr::V6),
                    None => host.parse().ok().map(IpAddr::V4),
                };
                Some(
                    address
                        .ok_or_else(|| wrong("HOST is an address of this host, an IPv6 one in brackets"))?,
                )
            }
        };
        let is_number = port.bytes().all(|digit| digit.is_ascii_digit());
        match port.parse() {
            Ok(port) if port > 0 && is_number => Ok(Self { host, port, transport }),
            _ => Err(wrong("PORT is a number from 1 to 65535, the same for the host and the program")),
        }
    }
}

impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host {
            Some(IpAddr::V4(host)) => write!(f, "{host}:")?,
            Some(IpAddr::V6(host)) => write!(f, "[{host}]:")?,
            None => {}
        }
        write!(f, "{}", self.port)?;
        if self.transport == Transport::Udp { f.write_str("/udp") } else { Ok(()) }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(texts: &[&str]) -> Result<Vec<Publish>> {
        parse(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn what_can_be_said() {
        for text in ["80", "65535/udp", "127.0.0.1:8000", "0.0.0.0:53/udp", "[::1]:80", "[::]:53/udp"] {
            assert_eq!(all(&[text]).expect(text)[0].to_string(), text);
        }
    }

    #[test]
    fn what_cannot() {
        for text in [
            "",
            "0",
            "65536",
            "-1",
            "+80",
            "x",
            "80/tcp",
            "80/",
            "80:80",
            ":80",
            "localhost:80",
            "::1:80",
            "[::1]80",
            "[127.0.0.1]:80",
            "[::1:80",
            "1.2.3:80",
            "80/udp/udp",
            "8000-8010",
        ] {
            let error = all(&[text]).expect_err(text).to_string();
            assert!(error.contains("[HOST:]PORT[/udp]") && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn two_at_one_place() {
        for pair in [
            ["80", "80"],
            ["80", "[::1]:80"],
            ["127.0.0.1:80", "0.0.0.0:80"],
            ["[::1]:80/udp", "[::]:80/udp"],
        ] {
            assert!(all(&pair).is_err(), "{pair:?}");
        }
        for pair in
            [["80", "81"], ["80", "80/udp"], ["127.0.0.1:80", "127.0.0.2:80"], ["0.0.0.0:80", "[::]:80"]]
        {
            assert!(all(&pair).is_ok(), "{pair:?}");
        }
    }
}
