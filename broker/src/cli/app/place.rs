//! The place that `--to` names.

use std::str::FromStr;
use tidemill_types::{Position, SequenceNumber, TimestampMs};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

const SECONDS_DIGITS_MAX: usize = 11;
const MILLIS_DIGITS_MAX: usize = 15;

/// Where checkpoints are to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(pub(super) Position);

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| {
            format!(
                "{why}: expected trim-horizon, latest, a time such as 2026-11-29T01:58:04Z or 1795917484, or a sequence \
                 number"
            )
        };
        match text {
            "trim-horizon" => return Ok(Self(Position::TrimHorizon)),
            "latest" => return Ok(Self(Position::Latest)),
            _ => {}
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() > MILLIS_DIGITS_MAX {
            let number: SequenceNumber = text.parse().map_err(|e| bad(&format!("{e}")))?;
            return Ok(Self(Position::At(number)));
        }
        let ms = match text.parse::<u64>() {
            Ok(seconds) if text.len() <= SECONDS_DIGITS_MAX => seconds * 1000,
            Ok(ms) => ms,
            Err(_) => {
                let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| bad("it is no place"))?;
                u64::try_from(time.unix_timestamp_nanos() / 1_000_000)
                    .map_err(|_| bad("the time lies before 1970"))?
            }
        };
        Ok(Self(Position::AtTime(TimestampMs::new(ms))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_types::{SequenceIndex, ShardId};

    #[test]
    fn every_kind_of_place_is_told_from_the_others() {
        let time = |ms| Position::AtTime(TimestampMs::new(ms));
        let shard = ShardId::new(0).unwrap();
        let created = TimestampMs::new(1_700_000_000_000);
        let number = SequenceNumber::new(created, shard, SequenceIndex::new(7).unwrap(), created);
        for (text, position) in [
            ("trim-horizon", Position::TrimHorizon),
            ("latest", Position::Latest),
            ("0", time(0)),
            ("1795917484", time(1_795_917_484_000)),
            ("1795917484123", time(1_795_917_484_123)),
            ("2026-11-29T01:58:04Z", time(1_795_917_484_000)),
            ("2026-11-29T03:58:04.5+02:00", time(1_795_917_484_500)),
            (&number.to_string(), Position::At(number)),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().0, position, "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_what_would_be_one() {
        for text in ["", "newest", "2026-11-29", "1969-12-31T23:59:59Z", "-5", "12345678901234567890", "1.5"]
        {
            let why = text.parse::<Place>().unwrap_err();
            assert!(why.contains("expected trim-horizon"), "{text}: {why}");
        }
    }
}
