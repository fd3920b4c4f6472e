//! The first message of a TLS client, RFC 8446 4.1.2 and RFC 5246 7.4.1.2, which is in the clear.

use super::number;

/// A ClientHello, as far as one segment has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientHello<'a> {
    /// What tells this connection from others in a log of keys.
    pub random: [u8; 32],
    /// Session, ciphers, compressions and extensions.
    rest: &'a [u8],
}

/// `handshake`, of record types.
const HANDSHAKE: u8 = 22;

/// `client_hello`, of handshake types.
const CLIENT_HELLO: u8 = 1;

/// `server_name`, of extensions.
const SERVER_NAME: u16 = 0;

/// `host_name`, of names.
const HOST_NAME: u8 = 0;

impl<'a> ClientHello<'a> {
    /// Reads it where it is the beginning of what a segment carries.
    pub fn read(mut payload: &'a [u8]) -> Option<Self> {
        let [kind, major, _, _, _] = *payload.split_off(..5)?.first_chunk()?;
        let [message, _, _, _] = *payload.split_off(..4)?.first_chunk()?;
        if (kind, major, message) != (HANDSHAKE, 3, CLIENT_HELLO) {
            return None;
        }
        let _version = number(&mut payload)?;
        let random = *payload.split_off(..32)?.first_chunk()?;
        Some(Self { random, rest: payload })
    }

    /// Whether a client's first message may begin so, and there is more to come of it.
    pub fn is_begun(payload: &[u8]) -> bool {
        match *payload {
            [kind, major, _, high, low, ref rest @ ..] => {
                (kind, major) == (HANDSHAKE, 3) && rest.len() < usize::from(u16::from_be_bytes([high, low]))
            }
            [kind, ..] => kind == HANDSHAKE,
            [] => false,
        }
    }

    /// The name of the server that the client wants, unless that is encrypted.
    pub fn server_name(&self) -> Option<&'a str> {
        let mut rest = self.rest;
        let session = *rest.split_off_first()?;
        rest.split_off(..usize::from(session))?;
        let ciphers = number(&mut rest)?;
        rest.split_off(..usize::from(ciphers))?;
        let compressions = *rest.split_off_first()?;
        rest.split_off(..usize::from(compressions))?;
        let _extensions = number(&mut rest)?;
        loop {
            let (extension, length) = (number(&mut rest)?, number(&mut rest)?);
            let body = rest.split_off(..usize::from(length))?;
            if extension == SERVER_NAME {
                return host_name(body);
            }
        }
    }
}

/// The first of a list of names, if it is a host's.
fn host_name(mut list: &[u8]) -> Option<&str> {
    let _length = number(&mut list)?;
    let kind = *list.split_off_first()?;
    let length = number(&mut list)?;
    let name = list.split_off(..usize::from(length))?;
    if kind == HOST_NAME { std::str::from_utf8(name).ok().filter(|name| !name.is_empty()) } else { None }
}

#[cfg(test)]
mod tests {
    use super::{super::frames, *};

    #[test]
    fn a_hello_tells_its_random_and_its_server() {
        let bytes = frames::client_hello([7; 32], "www.example.test");
        let hello = ClientHello::read(&bytes).expect("a hello");
        assert_eq!((hello.random, hello.server_name()), ([7; 32], Some("www.example.test")));
        assert!(!ClientHello::is_begun(&bytes));
        // A long one comes in several segments.
        for length in 0..bytes.len() {
            let hello = ClientHello::read(&bytes[..length]);
            assert_eq!(hello.is_some(), length >= 43);
            assert_eq!(ClientHello::is_begun(&bytes[..length]), length > 0);
            assert_eq!(hello.and_then(|hello| hello.server_name()), None);
        }
    }

    #[test]
    fn other_records_are_none() {
        let mut bytes = frames::client_hello([7; 32], "www.example.test");
        bytes[5] = 2;
        assert_eq!(ClientHello::read(&bytes), None);
        assert_eq!(ClientHello::read(b"GET / HTTP/1.1\r\nHost: www.example.test\r\n\r\n"), None);
    }
}
