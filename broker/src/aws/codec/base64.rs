//! Blobs in JSON: standard alphabet, padded, and nothing else; with AWS's words for what is wrong with one.

use bytes::Bytes;

/// Decodes straight into the buffer that will hold the record.
pub(crate) fn decode(text: &str) -> Result<Bytes, String> {
    base64_simd::STANDARD.decode_to_vec(text).map(Bytes::from).map_err(|_| reason(text))
}

/// Appends `data` to a reply.
pub(crate) fn encode(data: &[u8], out: &mut Vec<u8>) {
    base64_simd::STANDARD.encode_append(data, out);
}

/// Why `text`, which did not decode, did not.
fn reason(text: &str) -> String {
    let chars = text.chars().count();
    if !chars.is_multiple_of(4) {
        return format!("Base64 encoded length is expected a multiple of 4 bytes but found: {chars}");
    }
    let body = text.strip_suffix("==").or_else(|| text.strip_suffix('=')).unwrap_or(text);
    let stray = body.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '/')));
    match stray {
        Some(stray) => format!("Invalid Base64 character: '{stray}'"),
        None => "Invalid last non-pad Base64 character dectected".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bad_base64_is_named_as_aws_names_it() {
        let length = "Base64 encoded length is expected a multiple of 4 bytes but found: 5";
        assert_eq!(decode("hello").unwrap_err(), length);
        assert_eq!(decode("=d==").unwrap_err(), "Invalid Base64 character: '='");
        assert_eq!(decode("a\u{e9}bc").unwrap_err(), "Invalid Base64 character: '\u{e9}'");
        assert_eq!(decode("+/==").unwrap_err(), "Invalid last non-pad Base64 character dectected");
        assert_eq!(
            decode("YQ").unwrap_err(),
            "Base64 encoded length is expected a multiple of 4 bytes but found: 2"
        );
        assert_eq!(decode("").unwrap(), Bytes::new());
    }

    proptest! {
        #[test]
        fn blobs_decode_as_they_encode(data: Vec<u8>) {
            let mut text = Vec::new();
            encode(&data, &mut text);
            prop_assert_eq!(&decode(std::str::from_utf8(&text).unwrap()).unwrap()[..], &data[..]);
        }

        #[test]
        fn no_text_makes_the_decoder_panic(text: String) {
            let _ = decode(&text);
        }
    }
}
