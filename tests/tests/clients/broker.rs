//! The broker that clients meet: it verifies their signatures.

use anyhow::{Context, Result};
use tempfile::TempDir;
use tidemill_tests::Broker;

/// Two credentials, of one account each, that may do everything.
const CONFIG: &str = r#"
[[credentials]]
access_key_id = "test"
secret_access_key = "test"
policies = ["everything"]

[[credentials]]
access_key_id = "123456789012"
secret_access_key = "test"
account = "123456789012"
policies = ["everything"]

[[policies]]
name = "everything"

[[policies.statements]]
effect = "allow"
actions = ["kinesis:*"]
streams = ["*"]
"#;

/// Starts a broker in `home` whose clients sign with the access key id `test` or `123456789012`, and the secret `test`.
pub(crate) async fn verifying(home: &TempDir, args: &[&str]) -> Result<Broker> {
    let config = home.path().join("tidemill.toml");
    std::fs::write(&config, CONFIG)?;
    let config = config.to_str().context("a temporary directory has a plain name")?;
    Broker::start(&home.path().join("data"), &[&["--config", config], args].concat()).await
}
