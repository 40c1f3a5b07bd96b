//! Who is calling: the one gate that every Kinesis request passes before it is acted on.
//!
//! What it is: a request's head in, a [`Caller`] out. Why: handlers demand a `Caller`, so no operation can be reached
//! around the gate, and verification of signatures is a change of this folder only. It lives for one request.
//!
//! What it does not do: this version reads who a request claims to come from and accepts any signature, or none;
//! therefore it may only stand behind a loopback address.

use http::request::Parts;
use std::fmt;

/// Longest access key id that is kept (AWS: 128 characters).
const ACCESS_KEY_ID_CHARS_MAX: usize = 128;

/// The origin of a request, as far as the gate has established it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The request carries no credentials.
    Unsigned,
    /// The request names this access key id; its signature was not verified.
    Claimed(String),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => f.write_str("unsigned"),
            Self::Claimed(access_key_id) => f.write_str(access_key_id),
        }
    }
}

/// Establishes who is calling, from the `Authorization` header or the query string.
pub(crate) fn identify(parts: &Parts) -> Caller {
    let header = parts.headers.get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let credential =
        header.and_then(header_credential).or_else(|| parts.uri.query().and_then(query_credential));
    // a credential is KEYID/date/region/service/aws4_request
    match credential.and_then(|text| text.split(['/', '%']).next()) {
        Some(id) if is_access_key_id(id) => Caller::Claimed(id.to_owned()),
        _ => Caller::Unsigned,
    }
}

fn is_access_key_id(text: &str) -> bool {
    (1..=ACCESS_KEY_ID_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn header_credential(header: &str) -> Option<&str> {
    let parameters = header.strip_prefix("AWS4-HMAC-SHA256")?;
    parameters.split([',', ' ']).find_map(|parameter| parameter.trim().strip_prefix("Credential="))
}

fn query_credential(query: &str) -> Option<&str> {
    query.split('&').find_map(|pair| pair.strip_prefix("X-Amz-Credential="))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn caller(uri: &str, authorization: Option<&str>) -> Caller {
        let mut request = Request::post(uri);
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        identify(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn the_access_key_id_is_read_from_header_and_query() {
        let claimed = Caller::Claimed("AKIDEXAMPLE".into());
        let scope = "AKIDEXAMPLE/20240102/us-east-1/kinesis/aws4_request";
        let spaced = format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=00");
        let dense = format!("AWS4-HMAC-SHA256 SignedHeaders=host,Credential={scope},Signature=00");
        assert_eq!(caller("/", Some(&spaced)), claimed);
        assert_eq!(caller("/", Some(&dense)), claimed);
        let query = "/?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20240102%2Fus-east-1";
        assert_eq!(caller(query, None), claimed);
    }

    #[test]
    fn what_is_no_credential_counts_as_unsigned() {
        for header in [None, Some(""), Some("Bearer x"), Some("AWS4-HMAC-SHA256 Credential=")] {
            assert_eq!(caller("/", header), Caller::Unsigned, "{header:?}");
        }
    }
}
