//! Which stream is meant: streams of one name may exist under several accounts.

use crate::name::{AccountId, StreamName};
use std::fmt;

/// An account and the name of a stream in it. Cheap to clone. Orders by account, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// Whose stream it is.
    pub account: AccountId,
    /// Its name there.
    pub name: StreamName,
}

impl StreamKey {
    /// From both parts.
    pub const fn new(account: AccountId, name: StreamName) -> Self {
        Self { account, name }
    }
}

/// As Kinesis puts it in messages: `NAME under account ACCOUNT`.
impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} under account {}", self.name, self.account)
    }
}
