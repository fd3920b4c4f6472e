//! The head of an HTTP/1 request, RFC 9112, which is in the clear.

/// The longest name of a host, RFC 1035, and a port's digits.
const LONGEST_HOST: usize = 255 + 6;

/// The longest method that is looked for.
const LONGEST_METHOD: usize = 16;

/// Whether a request may begin so, and there is more to come of its head.
pub fn is_begun(payload: &[u8]) -> bool {
    let is_complete = || payload.windows(2).any(|pair| pair == b"\n\n" || pair == b"\n\r");
    is_request(payload) && line(payload).is_none_or(|(first, _)| names_version(first)) && !is_complete()
}

/// The first line, without its end, and what follows; none where it is not whole.
fn line(text: &[u8]) -> Option<(&[u8], &[u8])> {
    split_once(text, b'\n').map(|(line, rest)| (line.trim_ascii_end(), rest))
}

/// The last word of a request's first line.
fn names_version(line: &[u8]) -> bool {
    line.rsplit(|byte| *byte == b' ').next().is_some_and(|word| word.starts_with(b"HTTP/1."))
}

/// A method in capitals, and a space where it is over.
fn is_request(payload: &[u8]) -> bool {
    let method = payload.iter().take(LONGEST_METHOD).take_while(|byte| byte.is_ascii_uppercase()).count();
    method >= 3 && payload.get(method).is_none_or(|byte| *byte == b' ')
}

/// The host that a request is for, without its port, where the segment begins with the request and has that line whole.
pub fn host(payload: &[u8]) -> Option<&str> {
    // Most of what a client sends is none, and long.
    if !is_request(payload) {
        return None;
    }
    let (_, mut rest) = line(payload).filter(|(first, _)| names_version(first))?;
    let next = || {
        let (field, behind) = line(rest)?;
        rest = behind;
        Some(field).filter(|field| !field.is_empty())
    };
    let mut fields = std::iter::from_fn(next).filter_map(|field| split_once(field, b':'));
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

/// What is before the first such byte, and behind it.
fn split_once(text: &[u8], byte: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|other| *other == byte)?;
    Some((&text[..at], &text[at + 1..]))
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
        assert!(is_begun(b"MAIL FROM") && !is_begun(b"MAIL FROM:<a@b.test>\r\n"));
        assert!(is_request(b"GET") && is_request(b"OPTIONS * HTTP/1.1"));
        assert!(!is_request(b"GETT\xff") && !is_request(b"HTTP/1.1 200 OK") && !is_request(b""));
    }
}
