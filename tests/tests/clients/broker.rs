//! The broker that clients meet: it verifies their signatures.

use anyhow::{Context, Result};
use tempfile::TempDir;
use tidemill_tests::Broker;

/// What streams can be encrypted with.
pub(crate) const KEY_ID: &str = "alias/tidemill-tests";

/// Two credentials, of one account each, that may do everything; a key.
const CONFIG: &str = r#"
[[keys]]
id = "alias/tidemill-tests"
secret = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

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
