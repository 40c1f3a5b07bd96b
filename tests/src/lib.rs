//! The harness of the tests of the whole: a real `tidemill` process, raw clients, and the checker of histories.
//!
//! Why: what Tidemill promises is promised by a process on a machine, so it is tested as one: started, loaded, killed
//! without warning, started again. Everything here waits with a deadline, and everything that was started ends with the
//! test that started it. What it does not do: reach into the broker; tests see what users see.

mod binary;
mod broker;
pub mod chaos;
mod history;
mod http;
mod kinesis;
pub mod load;
mod native;
mod payload;
mod process;

pub use binary::{build_dir, tidemill};
pub use broker::{Broker, free_port};
pub use history::{History, Stored, Verified};
pub use http::{Connection, Reply};
pub use kinesis::{Kinesis, PutResult, decode_data};
pub use native::{create_stream, read_shard, read_stream};
pub use payload::{id_of, payload};
pub use process::{Finished, Running, Until, run, run_with_input, until};

use std::io::Write;

/// A configuration with one credential, `test` and `secret`, that may do everything.
pub const ONE_CREDENTIAL: &str = r#"
[[credentials]]
access_key_id = "test"
secret_access_key = "secret"
policies = ["everything"]

[[policies]]
name = "everything"

[[policies.statements]]
effect = "allow"
actions = ["kinesis:*"]
streams = ["*"]
"#;

/// Tells a figure, or what was not tested. It is seen in a run that passes too: the test runner holds back what the
/// printing macros print, not what is written like this.
pub fn tell(line: &str) {
    // where nobody listens there is nobody to be told
    let _ = writeln!(std::io::stderr(), "\n{line}");
}
