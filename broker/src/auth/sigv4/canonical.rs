//! A request in the one form that signer and verifier hash: method, path, query, signed headers, hash of the body.

use http::Version;
use http::header::{HOST, HeaderName};
use http::request::Parts;

/// What some clients sign over HTTP/2 in the place of `host`.
pub(super) const AUTHORITY: &str = ":authority";

/// The canonical request, or the name of a signed header that the request does not have.
pub(super) fn request<'a>(
    parts: &Parts,
    without_signature: bool,
    signed_headers: &'a str,
    body_hash: &str,
) -> Result<Vec<u8>, &'a str> {
    let mut text = Vec::with_capacity(512);
    let mut line = |parts: &[&[u8]]| {
        parts.iter().for_each(|part| text.extend_from_slice(part));
        text.push(b'\n');
    };
    line(&[parts.method.as_str().as_bytes()]);
    line(&[path(parts.uri.path()).as_bytes()]);
    line(&[query(parts.uri.query().unwrap_or_default(), without_signature).as_bytes()]);
    for name in signed_headers.split(';') {
        line(&[name.as_bytes(), b":", &header(parts, name).ok_or(name)?]);
    }
    line(&[]);
    line(&[signed_headers.as_bytes()]);
    text.extend_from_slice(body_hash.as_bytes());
    Ok(text)
}

/// Values of a header joined by commas, their white space folded.
fn header(parts: &Parts, name: &str) -> Option<Vec<u8>> {
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let mut values: Vec<&[u8]> = match HeaderName::from_bytes(name.as_bytes()) {
        // HTTP/2 carries the host beside the headers
        Ok(HOST) if parts.version == Version::HTTP_2 && authority.is_some() => Vec::new(),
        Ok(name) => parts.headers.get_all(name).iter().map(|value| value.as_bytes()).collect(),
        Err(_) => Vec::new(),
    };
    let is_authority = name == AUTHORITY && parts.version == Version::HTTP_2;
    if values.is_empty() && (name == HOST.as_str() || is_authority) {
        values.extend(authority);
    }
    if values.is_empty() {
        return None;
    }
    let mut text = Vec::with_capacity(values.iter().map(|value| value.len() + 1).sum());
    for (i, value) in values.into_iter().enumerate() {
        if i > 0 {
            text.push(b',');
        }
        fold(value, &mut text);
    }
    Some(text)
}

fn fold(value: &[u8], text: &mut Vec<u8>) {
    let words = value.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
    for (i, word) in words.enumerate() {
        if i > 0 {
            text.push(b' ');
        }
        text.extend_from_slice(word);
    }
}

/// The path without empty and dot segments, as it stands on the wire, encoded once more.
fn path(wire: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in wire.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let mut text = String::with_capacity(wire.len() + 2);
    for segment in &segments {
        text.push('/');
        encode(segment.as_bytes(), &mut text);
    }
    if segments.is_empty() || wire.ends_with('/') {
        text.push('/');
    }
    text
}

/// The pairs of a query, encoded alike and sorted.
fn query(wire: &str, without_signature: bool) -> String {
    let mut pairs: Vec<(String, String)> = wire
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (encoded(&decode(name)), encoded(&decode(value))))
        .filter(|(name, _)| !(without_signature && name == "X-Amz-Signature"))
        .collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Percent-decoded; what is no escape stands for itself.
pub(super) fn decode(text: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        match rest {
            [] => return bytes,
            [b'%', high, low, tail @ ..] if digit(high).is_some() && digit(low).is_some() => {
                bytes.extend(digit(high).zip(digit(low)).map(|(high, low)| high << 4 | low));
                rest = tail;
            }
            [byte, tail @ ..] => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
}

fn encoded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    encode(bytes, &mut text);
    text
}

/// Everything but the unreserved characters of RFC 3986 becomes an escape.
fn encode(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_empty_and_dot_segments_and_are_encoded_once_more() {
        for (wire, canonical) in [
            ("/", "/"),
            ("", "/"),
            ("//", "/"),
            ("/./", "/"),
            ("/./example", "/example"),
            ("/example/..", "/"),
            ("/example1/example2/../..", "/"),
            ("/../a", "/a"),
            ("//example//", "/example/"),
            ("/a%20b", "/a%2520b"),
            ("/a b*~", "/a%20b%2A~"),
            ("/\u{1234}", "/%E1%88%B4"),
        ] {
            assert_eq!(path(wire), canonical, "{wire}");
        }
    }

    #[test]
    fn queries_are_encoded_alike_and_sorted_by_name_then_value() {
        for (wire, canonical) in [
            ("", ""),
            ("&", ""),
            ("Param2=value2&Param1=value1", "Param1=value1&Param2=value2"),
            ("Param1=value2&Param1=Value1", "Param1=Value1&Param1=value2"),
            ("b&a=1", "a=1&b="),
            ("a=b=c", "a=b%3Dc"),
            ("a=%2f%7E%zz%4", "a=%2F~%25zz%254"),
            ("X-Amz-Signature=1&a=+", "X-Amz-Signature=1&a=%2B"),
        ] {
            assert_eq!(query(wire, false), canonical, "{wire}");
        }
        assert_eq!(query("X-Amz-Signature=1&a=1", true), "a=1");
    }
}
