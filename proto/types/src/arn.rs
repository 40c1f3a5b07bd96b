//! Amazon resource names of streams and their consumers: parse and print agree.

use crate::error::{Error, Result};
use crate::name::{AccountId, ConsumerName, Region, StreamName};
use crate::stream_key::StreamKey;
use std::fmt;
use std::str::FromStr;

/// `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME`. The partition (`aws`, `aws-cn`, …) is accepted and not kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StreamArn {
    /// The region the name speaks of.
    pub region: Region,
    /// The account the name speaks of.
    pub account: AccountId,
    /// The stream.
    pub stream: StreamName,
}

impl fmt::Display for StreamArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:aws:kinesis:{}:{}:stream/{}", self.region, self.account, self.stream)
    }
}

impl FromStr for StreamArn {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::new(format!("not the ARN of a stream: {text:?}"));
        let mut parts = text.splitn(6, ':');
        let mut next = || parts.next().ok_or_else(bad);
        let (scheme, partition, service) = (next()?, next()?, next()?);
        if scheme != "arn" || !partition.starts_with("aws") || service != "kinesis" {
            return Err(bad());
        }
        let region = Region::new(next()?)?;
        let account = AccountId::new(next()?)?;
        let stream = StreamName::new(next()?.strip_prefix("stream/").ok_or_else(bad)?)?;
        Ok(Self { region, account, stream })
    }
}

impl StreamArn {
    /// The stream that is meant, if the region is this broker's.
    pub fn key(&self) -> StreamKey {
        StreamKey::new(self.account.clone(), self.stream.clone())
    }
}

/// `arn:aws:kinesis:REGION:ACCOUNT:stream/NAME/consumer/CONSUMER:SECONDS`; the seconds, when the consumer was registered,
/// tell it from an earlier one of the same name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConsumerArn {
    /// The stream it reads.
    pub stream: StreamArn,
    /// Its name there.
    pub consumer: ConsumerName,
    /// When it was registered, in seconds since the epoch.
    pub created_s: u64,
}

impl fmt::Display for ConsumerArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/consumer/{}:{}", self.stream, self.consumer, self.created_s)
    }
}

impl FromStr for ConsumerArn {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let bad = || Error::new(format!("not the ARN of a consumer: {text:?}"));
        let (stream, rest) = text.split_once("/consumer/").ok_or_else(bad)?;
        let (consumer, seconds) = rest.split_once(':').ok_or_else(bad)?;
        if seconds.is_empty() || !seconds.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        Ok(Self {
            stream: stream.parse()?,
            consumer: ConsumerName::new(consumer)?,
            created_s: seconds.parse().map_err(|_| bad())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_print_as_they_parse() {
        let text = "arn:aws:kinesis:us-east-1:000000000000:stream/s1";
        assert_eq!(text.parse::<StreamArn>().unwrap().to_string(), text);
        for bad in
            ["", "arn:aws:kinesis:us-east-1:0:stream/s", "arn:aws:s3:us-east-1:000000000000:stream/s", "s1"]
        {
            assert!(bad.parse::<StreamArn>().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn arns_of_consumers_print_as_they_parse() {
        let text = "arn:aws:kinesis:us-east-1:000000000000:stream/s1/consumer/c1:1700000000";
        assert_eq!(text.parse::<ConsumerArn>().unwrap().to_string(), text);
        assert!(text.parse::<StreamArn>().is_err());
        for bad in [
            "",
            "arn:aws:kinesis:us-east-1:000000000000:stream/s1",
            &text.replace(":17", ":x"),
            &text[..text.len() - 10],
        ] {
            assert!(bad.parse::<ConsumerArn>().is_err(), "{bad:?} was taken");
        }
    }
}
