//! Frames of the event stream that SubscribeToShard answers with (`application/vnd.amazon.eventstream`).
//!
//! ```text
//!  total length u32 | headers length u32 | CRC-32 of these 8 bytes | headers | payload | CRC-32 of all before
//!  header: name length u8, name, 7 (a text), value length u16, value            integers big-endian
//! ```
//!
//! What it does not do: read frames, or write headers of other kinds than text. The broker only sends, and sends no
//! others.

/// The content type of a stream of such frames.
pub(crate) const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";

const PRELUDE_BYTES: usize = 12;
const CRC_BYTES: usize = 4;
/// The kind byte of header values that are texts.
const TEXT: u8 = 7;

/// An event of this type with a JSON payload.
pub(crate) fn event(event_type: &str, payload: &[u8]) -> Vec<u8> {
    message("event", ":event-type", event_type, payload)
}

/// The exception that ends a stream, with a JSON payload.
pub(crate) fn exception(exception_type: &str, payload: &[u8]) -> Vec<u8> {
    message("exception", ":exception-type", exception_type, payload)
}

fn message(message_type: &str, type_header: &str, type_name: &str, payload: &[u8]) -> Vec<u8> {
    frame(
        &[(":message-type", message_type), (type_header, type_name), (":content-type", "application/json")],
        payload,
    )
}

/// Names and values are constants of this front end: short.
fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let of_header = |(name, value): &(&str, &str)| 1 + name.len() + 1 + 2 + value.len();
    let headers_bytes: usize = headers.iter().map(of_header).sum();
    let total = PRELUDE_BYTES + headers_bytes + payload.len() + CRC_BYTES;
    let length = |bytes: usize| u32::try_from(bytes).expect("an event is far below 4 GiB").to_be_bytes();
    let mut out = Vec::with_capacity(total);
    out.extend_from_slice(&length(total));
    out.extend_from_slice(&length(headers_bytes));
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    for (name, value) in headers {
        out.push(u8::try_from(name.len()).expect("names are short"));
        out.extend_from_slice(name.as_bytes());
        out.push(TEXT);
        out.extend_from_slice(&u16::try_from(value.len()).expect("values are short").to_be_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(payload);
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_smithy_eventstream::frame::read_message_from;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn frames_are_those_of_the_vectors() {
        assert_eq!(hex(&frame(&[], b"")), "000000100000000005c248eb7d98c8ff");
        let initial = "00000068000000564e6817240d3a6d6573736167652d747970650700056576656e740b3a6576656e742d747970\
                       65070010696e697469616c2d726573706f6e73650d3a636f6e74656e742d747970650700106170706c69636174\
                       696f6e2f6a736f6e7b7dfe942c1d";
        assert_eq!(hex(&event("initial-response", b"{}")), initial);
        let in_use = "0000008300000064d9bbb06a0d3a6d6573736167652d74797065070009657863657074696f6e0f3a657863657074\
                      696f6e2d747970650700165265736f75726365496e557365457863657074696f6e0d3a636f6e74656e742d747970\
                      650700106170706c69636174696f6e2f6a736f6e7b226d657373616765223a2278227de1ecdf10";
        assert_eq!(hex(&exception("ResourceInUseException", br#"{"message":"x"}"#)), in_use);
    }

    proptest! {
        #[test]
        fn frames_are_read_by_the_decoder_of_the_sdk(payload: Vec<u8>) {
            let bytes = event("SubscribeToShardEvent", &payload);
            let message = read_message_from(&mut &bytes[..]).unwrap();
            prop_assert_eq!(&message.payload()[..], &payload[..]);
            let header = |name: &str| {
                let found = message.headers().iter().find(|header| header.name().as_str() == name).unwrap();
                found.value().as_string().unwrap().as_str().to_owned()
            };
            prop_assert_eq!(header(":message-type"), "event");
            prop_assert_eq!(header(":event-type"), "SubscribeToShardEvent");
            prop_assert_eq!(header(":content-type"), "application/json");
        }
    }
}
