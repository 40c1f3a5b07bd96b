//! The regular expressions of the model, each matched by hand.

/// A regular expression of the model, matched by hand. It must match the whole text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pattern {
    Name,
    HashKey,
    SequenceNumber,
    StreamArn,
    ConsumerArn,
    ResourceArn,
    StreamId,
}

impl Pattern {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Name => "[a-zA-Z0-9_.-]+",
            Self::HashKey => r"0|([1-9]\d{0,38})",
            Self::SequenceNumber => r"0|([1-9]\d{0,128})",
            Self::StreamArn => r"arn:aws.*:kinesis:.*:\d{12}:stream/\S+",
            Self::ConsumerArn => {
                r"^(arn):aws.*:kinesis:.*:\d{12}:.*stream\/[a-zA-Z0-9_.-]+\/consumer\/[a-zA-Z0-9_.-]+:[0-9]+"
            }
            Self::ResourceArn => r"arn:aws.*:kinesis:.*:\d{12}:.*(stream|channel|queue)/\S+",
            Self::StreamId => "[a-z0-9]{20}-[a-z0-9]{3}",
        }
    }

    pub(super) fn matches(self, text: &str) -> bool {
        let canonical = |digits_max: usize| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text == "0" || (digits && !text.starts_with('0') && (1..=digits_max).contains(&text.len()))
        };
        match self {
            Self::Name => {
                let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
                !text.is_empty() && text.bytes().all(allowed)
            }
            Self::HashKey => canonical(39),
            Self::SequenceNumber => canonical(129),
            Self::StreamArn => is_arn(text, ":stream/", is_resource),
            Self::ConsumerArn => is_arn(text, "stream/", is_consumer),
            Self::ResourceArn => {
                ["stream/", "channel/", "queue/"].iter().any(|kind| is_arn(text, kind, is_resource))
            }
            Self::StreamId => {
                let dash = |(place, b): (usize, u8)| match place {
                    20 => b == b'-',
                    _ => b.is_ascii_lowercase() || b.is_ascii_digit(),
                };
                text.len() == 24 && text.bytes().enumerate().all(dash)
            }
        }
    }
}

fn is_name(text: &str) -> bool {
    Pattern::Name.matches(text)
}

fn is_resource(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

/// `STREAM/consumer/NAME:SECONDS`.
fn is_consumer(text: &str) -> bool {
    let parts =
        text.split_once("/consumer/").and_then(|(stream, rest)| Some((stream, rest.split_once(':')?)));
    parts.is_some_and(|(stream, (name, seconds))| {
        let digits = !seconds.is_empty() && seconds.bytes().all(|b| b.is_ascii_digit());
        is_name(stream) && is_name(name) && digits
    })
}

/// `arn:aws.*:kinesis:.*:\d{12}:`, then anything if `kind` does not begin with the colon, `kind` and a tail that fits.
fn is_arn(text: &str, kind: &str, tail_fits: impl Fn(&str) -> bool) -> bool {
    let Some(rest) = text.strip_prefix("arn:aws") else { return false };
    let is_account = |part: &str| part.len() == 12 && part.bytes().all(|b| b.is_ascii_digit());
    rest.match_indices(kind).any(|(at, found)| {
        let (head, tail) = (&rest[..at], &rest[at + found.len()..]);
        let Some(service) = head.find(":kinesis:") else { return false };
        let mut parts = head[service + ":kinesis:".len()..].split(':');
        // the region may hold colons; with a leading colon in `kind` the account must come right before it
        let account = if kind.starts_with(':') { parts.next_back() } else { parts.nth_back(1) };
        account.is_some_and(is_account) && parts.next().is_some() && !head.contains('\n') && tail_fits(tail)
    })
}
