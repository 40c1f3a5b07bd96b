//! How to reach Amazon Kinesis, and how records travel there; the KPL's defaults, where it has them.

use crate::config::within;
use crate::error::{Error, Result};
use crate::retrier::{Decision, Policy, Repeats};
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{Credentials, Region, StalledStreamProtectionConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use std::time::Duration;
use tidemill_types::limits::{PUT_RECORDS_BYTES_MAX, PUT_RECORDS_ENTRIES_MAX, RECORD_BYTES_DEFAULT};

/// Amazon closes connections that are idle for longer.
const IDLE_MAX: Duration = Duration::from_secs(15);
/// Whoever names an endpoint and no region signs for this one.
const REGION_OF_ENDPOINTS: &str = "us-east-1";

/// Amazon Kinesis, or whatever speaks its API, for [`Config::aws`](crate::Config::aws).
///
/// Credentials and region come from the environment, as for every tool of Amazon's (variables, profiles of the shared files,
/// containers, instances), unless they are given here.
#[derive(Debug, Clone, Default)]
#[must_use = "it does nothing until a producer is configured with it"]
pub struct Aws {
    region: Option<String>,
    endpoint: Option<String>,
    credentials: Option<Credentials>,
    sdk: Option<SdkConfig>,
    authorities: Option<Vec<u8>>,
    request_deadline: Option<Duration>,
    connect_deadline: Option<Duration>,
    pub(crate) aggregation_bytes: usize,
    aggregation: Option<u32>,
    pub(super) collection_records: usize,
    pub(super) collection_bytes: usize,
    pub(super) requests_in_flight: usize,
    pub(crate) rate_percent: Option<u32>,
    throttled: Choice,
    unknown: Choice,
}

/// What to do with a record after a failure.
#[derive(Debug, Clone, Copy, Default)]
enum Choice {
    #[default]
    Again,
    Fail,
}

impl Choice {
    fn decision(self) -> Decision {
        match self {
            Self::Again => Decision::Again,
            Self::Fail => Decision::Fail,
        }
    }
}

impl Aws {
    /// Credentials, region and endpoint from the environment; how records travel as by default.
    pub fn from_env() -> Self {
        Self {
            aggregation_bytes: 51_200,
            aggregation: Some(u32::MAX),
            collection_records: PUT_RECORDS_ENTRIES_MAX,
            collection_bytes: PUT_RECORDS_BYTES_MAX / 2,
            requests_in_flight: 24,
            rate_percent: Some(150),
            ..Self::default()
        }
    }
    /// The region, instead of that of the environment.
    pub fn region(self, region: &str) -> Self {
        Self { region: Some(region.to_owned()), ..self }
    }
    /// Where the API is, `http://host:port` or `https://host:port`, instead of the region's own: a Tidemill broker, an
    /// emulator, an endpoint of a private network.
    pub fn endpoint(self, url: &str) -> Result<Self> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(Error::invalid(format!(
                "an endpoint begins with http:// or https://, found {url:?}"
            )));
        }
        Ok(Self { endpoint: Some(url.to_owned()), ..self })
    }
    /// An access key id and its secret, instead of those of the environment.
    pub fn credentials(self, access_key_id: &str, secret_access_key: &str) -> Self {
        let credentials = Credentials::new(access_key_id, secret_access_key, None, None, "tidemill-producer");
        Self { credentials: Some(credentials), ..self }
    }
    /// Everything else of the official SDK, loaded by the application: assumed roles, single sign-on, proxies. Its retries
    /// and time-outs are replaced; region, endpoint and credentials that are given here win.
    pub fn sdk_config(self, sdk: SdkConfig) -> Self {
        Self { sdk: Some(sdk), ..self }
    }
    /// The authorities (PEM) to trust with `https://`, instead of those the system trusts.
    pub fn ca_certificate(self, pem: impl Into<Vec<u8>>) -> Self {
        Self { authorities: Some(pem.into()), ..self }
    }
    /// How long a request may take before it is given up and its outcome is unknown. Default 6 s, 100 ms to 10 min.
    pub fn request_deadline(self, deadline: Duration) -> Result<Self> {
        within("request_deadline", deadline.as_millis(), 100, 600_000, "ms")?;
        Ok(Self { request_deadline: Some(deadline), ..self })
    }
    /// How long connecting may take. Default 6 s, 100 ms to 5 min.
    pub fn connect_deadline(self, deadline: Duration) -> Result<Self> {
        within("connect_deadline", deadline.as_millis(), 100, 300_000, "ms")?;
        Ok(Self { connect_deadline: Some(deadline), ..self })
    }
    /// Sends each record as it is put, a record of the stream each, instead of many in one in the KPL's format. For readers
    /// that do not know the format.
    pub fn without_aggregation(self) -> Self {
        Self { aggregation: None, ..self }
    }
    /// Most bytes of an aggregated record. Default 51,200, 64 to 1 MiB; a larger record goes alone, as it is.
    pub fn aggregation_bytes(self, bytes: usize) -> Result<Self> {
        within("aggregation_bytes", bytes as u128, 64, RECORD_BYTES_DEFAULT as u128, "bytes")?;
        Ok(Self { aggregation_bytes: bytes, ..self })
    }
    /// Most records in an aggregated record. Default as many as its bytes hold; at least 1, which is
    /// [`Aws::without_aggregation`].
    pub fn aggregation_records(self, records: u32) -> Result<Self> {
        within("aggregation_records", u128::from(records), 1, u128::from(u32::MAX), "records")?;
        Ok(Self { aggregation: Some(records), ..self })
    }
    /// Most records of the stream in a PutRecords request. Default 500, 1 to 500.
    pub fn collection_records(self, records: usize) -> Result<Self> {
        within("collection_records", records as u128, 1, PUT_RECORDS_ENTRIES_MAX as u128, "records")?;
        Ok(Self { collection_records: records, ..self })
    }
    /// Most bytes in a PutRecords request, data and keys. Default 5 MiB, 52,224 to 10 MiB; a larger record goes alone.
    pub fn collection_bytes(self, bytes: usize) -> Result<Self> {
        within("collection_bytes", bytes as u128, 52_224, PUT_RECORDS_BYTES_MAX as u128, "bytes")?;
        Ok(Self { collection_bytes: bytes, ..self })
    }
    /// Requests under way at a time. Default 24, 1 to 256.
    pub fn requests_in_flight(self, requests: usize) -> Result<Self> {
        within("requests_in_flight", requests as u128, 1, 256, "requests")?;
        Ok(Self { requests_in_flight: requests, ..self })
    }
    /// How fast each shard is sent to, in hundredths of what it takes (1000 records and 1 MiB a second). Default 150, as a
    /// little throttling costs less than capacity left unused; lower it where many producers share a shard. 1 to 100,000.
    pub fn rate_limit_percent(self, percent: u32) -> Result<Self> {
        within("rate_limit_percent", u128::from(percent), 1, 100_000, "percent")?;
        Ok(Self { rate_percent: Some(percent), ..self })
    }
    /// Sends as fast as records are put, whatever a shard takes. For a stream without such limits, as of Tidemill.
    pub fn without_rate_limit(self) -> Self {
        Self { rate_percent: None, ..self }
    }
    /// Fails a record as [`ErrorKind::Throttled`](crate::ErrorKind::Throttled) when its shard takes no more, instead of
    /// trying it again until its time is over.
    pub fn fail_if_throttled(self) -> Self {
        Self { throttled: Choice::Fail, ..self }
    }
    /// Fails a record as [`ErrorKind::UnknownOutcome`](crate::ErrorKind::UnknownOutcome) when nobody knows whether it was
    /// stored (no answer in time, a lost connection), instead of trying it again, which may store it twice.
    pub fn fail_if_unknown(self) -> Self {
        Self { unknown: Choice::Fail, ..self }
    }

    pub(crate) fn records_per_aggregate(&self) -> u32 {
        self.aggregation.unwrap_or(1)
    }
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            repeats: Repeats::Stored,
            throttled: self.throttled.decision(),
            unknown: self.unknown.decision(),
        }
    }

    pub(super) async fn client(&self) -> Result<Client> {
        let mut trusted = TrustStore::default();
        if let Some(pem) = &self.authorities {
            check_pem(pem)?;
            trusted = TrustStore::empty().with_pem_certificate(pem.clone());
        }
        let tls = TlsContext::builder().with_trust_store(trusted).build();
        let tls = tls.map_err(|error| Error::invalid(format!("cannot prepare TLS: {error}")))?;
        let http = Builder::new()
            .pool_idle_timeout(IDLE_MAX)
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls)
            .build_https();
        let loaded = match &self.sdk {
            Some(sdk) => sdk.clone(),
            None => {
                let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
                if let Some(region) = self.region_told() {
                    loader = loader.region(region);
                }
                if let Some(credentials) = &self.credentials {
                    loader = loader.credentials_provider(credentials.clone());
                }
                loader.load().await
            }
        };
        let deadline = Duration::from_secs(6);
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(self.connect_deadline.unwrap_or(deadline))
            .operation_timeout(self.request_deadline.unwrap_or(deadline))
            .build();
        let mut config = aws_sdk_kinesis::config::Builder::from(&loaded)
            // who tries again, and when, is decided by the retrier
            .retry_config(RetryConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(timeouts);
        if self.sdk.is_none() {
            config = config.http_client(http);
        }
        let region = self.region_told().or_else(|| loaded.region().cloned());
        let told = "there is no region: set AWS_REGION, or tell it to `Aws::region`";
        config = config.region(region.ok_or_else(|| Error::invalid(told))?);
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        if let Some(credentials) = &self.credentials {
            config = config.credentials_provider(credentials.clone());
        }
        Ok(Client::from_conf(config.build()))
    }
    fn region_told(&self) -> Option<Region> {
        let of_endpoint = || {
            let elsewhere =
                self.endpoint.is_some() && self.sdk.is_none() && std::env::var_os("AWS_REGION").is_none();
            elsewhere.then(|| REGION_OF_ENDPOINTS.to_owned())
        };
        self.region.clone().or_else(of_endpoint).map(Region::new)
    }
}

/// The trust store takes anything and finds out when it connects.
fn check_pem(pem: &[u8]) -> Result<()> {
    match std::str::from_utf8(pem) {
        Ok(text) if text.contains("-----BEGIN CERTIFICATE-----") => Ok(()),
        _ => Err(Error::invalid("the authorities to trust are not certificates in PEM form")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_out_of_bounds_are_refused_by_name() {
        let aws = Aws::from_env;
        let refused = [
            ("request_deadline", aws().request_deadline(Duration::ZERO)),
            ("connect_deadline", aws().connect_deadline(Duration::from_secs(301))),
            ("aggregation_bytes", aws().aggregation_bytes(63)),
            ("aggregation_records", aws().aggregation_records(0)),
            ("collection_records", aws().collection_records(501)),
            ("collection_bytes", aws().collection_bytes(1)),
            ("requests_in_flight", aws().requests_in_flight(0)),
            ("rate_limit_percent", aws().rate_limit_percent(0)),
            ("an endpoint", aws().endpoint("127.0.0.1:4567")),
        ];
        for (name, refused) in refused {
            let error = refused.expect_err(name);
            assert!(error.message().starts_with(name), "{error}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let aws = Aws::from_env().credentials("AKID", "open sesame");
        assert!(!format!("{aws:?}").contains("sesame"));
    }
}
