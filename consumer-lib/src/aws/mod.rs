//! Amazon's services, or any that speak as they do: where to find them, and how to use them. Feature `aws`.
//!
//! What a worker reads from ([`Kinesis`]) and where its leases are ([`DynamoDb`]) are told apart: records of a Kinesis need
//! a lease table; that table may also serve a worker that reads from a broker.

mod dynamo_db;
mod error;
mod kinesis;

pub use aws_config::SdkConfig;
pub use dynamo_db::DynamoDb;
pub use kinesis::Kinesis;

pub(crate) use dynamo_db::LeaseTable;
pub(crate) use kinesis::KinesisChoice;

pub(crate) use error::tell;

use aws_config::BehaviorVersion;
use aws_sdk_kinesis::config::{Credentials, Region};

/// Where a service is, and as whom it is called.
#[derive(Debug, Clone)]
struct Access {
    config: SdkConfig,
    /// Of this service alone.
    endpoint: Option<String>,
}

impl Access {
    async fn from_env() -> Self {
        Self::new(aws_config::load_defaults(BehaviorVersion::latest()).await)
    }
    fn new(config: SdkConfig) -> Self {
        Self { config, endpoint: None }
    }
    fn at(endpoint: &str) -> Self {
        let config = SdkConfig::builder().behavior_version(BehaviorVersion::latest());
        Self::new(config.region(Region::from_static("us-east-1")).build()).endpoint(endpoint)
    }
    fn endpoint(self, url: &str) -> Self {
        Self { endpoint: Some(url.to_owned()), ..self }
    }
    fn region(self, region: &str) -> Self {
        Self { config: self.config.into_builder().region(Region::new(region.to_owned())).build(), ..self }
    }
    fn credentials(self, access_key_id: &str, secret_access_key: &str) -> Self {
        let credentials = Credentials::new(access_key_id, secret_access_key, None, None, "settings");
        let provider = aws_sdk_kinesis::config::SharedCredentialsProvider::new(credentials);
        Self { config: self.config.into_builder().credentials_provider(provider).build(), ..self }
    }
}
