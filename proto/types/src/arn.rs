//! Amazon resource names of streams: parse and print agree.

use crate::error::{Error, Result};
use crate::name::{AccountId, Region, StreamName};
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
}
