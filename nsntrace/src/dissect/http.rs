//! The head of an HTTP/1 request, RFC 9112, which is in the clear.

/// The longest name of a host, RFC 1035, and a port's digits.
const LONGEST_HOST: usize = 255 + 6;

/// The longest method that is looked for.
const LONGEST_METHOD: usize = 16;

/// Whether a request may begin so, and there is more to come of its head.
pub fn is_begun(payload: &[u8]) -> bool {
    is_request(payload) && !payload.windows(2).any(|pair| pair == b"\n\n" || pair == b"\n\r")
}

/// A method in capitals, and a space where it is over.
fn is_request(payload: &[u8]) -> bool {
    let method = payload.iter().take(LONGEST_METHOD).take_while(|byte| byte.is_ascii_uppercase()).count();
    method >= 3 && payload.get(method).is_none_or(|byte| *byte == b' ')
}

/// The host that a request is for, without its port, where the segment begins with the request and has that line whole.
pub fn host(payload: &[u8]) -> Option<&str> {
    let mut lines = payload.split_inclusive(|byte| *byte == b'\n').map_while(|line| line.strip_suffix(b"\n"));
    let first = lines.next()?.trim_ascii_end();
    if !is_request(first) || !first.rsplit(|byte| *byte == b' ').next()?.starts_with(b"HTTP/1.") {
        return None;
    }
    let lines = lines.map(<[u8]>::trim_ascii_end).take_while(|line| !line.is_empty());
    let mut fields = lines.filter_map(|line| line.split_once_at(b':'));
    let (_, value) = fields.find(|(name, _)| name.eq_ignore_ascii_case(b"host"))?;
    let value = value.trim_ascii();
    let is_name = value.len() <= LONGEST_HOST && value.iter().all(u8::is_ascii_graphic);
    let host = std::str::from_utf8(value).ok().filter(|_| is_name)?;
    Some(without_port(host)).filter(|host| !host.is_empty())
}

/// A port follows the last colon, unless that is within the brackets of an IPv6 address.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

trait SplitOnce {
    /// What is before the first such byte, and behind it.
    fn split_once_at(&self, byte: u8) -> Option<(&[u8], &[u8])>;
}

impl SplitOnce for [u8] {
    fn split_once_at(&self, byte: u8) -> Option<(&[u8], &[u8])> {
        let at = self.iter().position(|other| *other == byte)?;
        Some((&self[..at], &self[at + 1..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_found() {
        let request =
            |host: &str| format!("GET / HTTP/1.1\r\nAccept: */*\r\nhOSt:{host}\r\nHost: other\r\n\r\n");
        for (written, host) in [
            ("  www.example.test", "www.example.test"),
            ("www.example.test:8080 ", "www.example.test"),
            ("[fd00::1]:80", "[fd00::1]"),
            ("[fd00::1]", "[fd00::1]"),
        ] {
            assert_eq!(super::host(request(written).as_bytes()), Some(host));
        }
        for bad in ["", ":80", "a b", "a\x1b[1m", "ü", &"x".repeat(300)] {
            assert_eq!(host(request(bad).as_bytes()), None, "{bad}");
        }
        assert_eq!(host(b"POST /x HTTP/1.0\nHost: a\n"), Some("a"));
    }

    #[test]
    fn what_is_no_request_has_none() {
        for payload in [
            "",
            "GET",
            "GET / HTTP/1.1\r\nHost: a",
            "GET / HTTP/2.0\r\nHost: a\r\n",
            "get / HTTP/1.1\r\nHost: a\r\n",
            "GET / HTTP/1.1\r\n\r\nHost: a\r\n",
            "HTTP/1.1 200 OK\r\nHost: a\r\n",
        ] {
            assert_eq!(host(payload.as_bytes()), None, "{payload}");
        }
        assert!(is_begun(b"GET / HTTP/1.1\r\nHos") && !is_begun(b"GET / HTTP/1.1\r\n\r\n"));
        assert!(is_request(b"GET") && is_request(b"OPTIONS * HTTP/1.1"));
        assert!(!is_request(b"GETT\xff") && !is_request(b"HTTP/1.1 200 OK") && !is_request(b""));
    }
}
