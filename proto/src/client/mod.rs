//! What both client libraries share: where the broker is, the channel to it, when to try again, and the calls on
//! streams and applications.
//!
//! Nothing here keeps records, leases or buffers: that is the libraries' own.

mod apps;
mod call;
mod channel;
mod control;
mod data;
mod dial;
mod endpoint;
mod retry;

pub use apps::{App, AppPage, AppStream, Apps, Change, LeaseDescription, ResetRow};
pub use channel::{Carrier, Channel, Prove};
pub use control::{Control, Scaled, StreamPage};
pub use dial::{Dial, Duplex};
pub use endpoint::Endpoint;
pub use retry::Backoff;
