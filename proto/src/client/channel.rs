//! One HTTP/2 connection to a broker, with windows, limits and deadlines that suit frames of megabytes.
//!
//! A channel reconnects by itself when it is used after its connection broke; what was under way then failed.

use super::endpoint::Endpoint;
use crate::v1::admin_client::AdminClient;
use crate::v1::control_client::ControlClient;
use crate::v1::data_client::DataClient;
use crate::v1::lease_client::LeaseClient;
use crate::{Error, ErrorKind, Result};
use std::time::Duration;
use tidemill_types::limits::GRPC_MESSAGE_BYTES_MAX;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, ClientTlsConfig};
use tonic::{Request, Status};

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_DEADLINE: Duration = Duration::from_secs(10);
/// A peer may send this much on one call before we must have taken some.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// The same for all calls of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
const HTTP2_FRAME_BYTES: u32 = 1 << 20;

/// A connection to one broker, shared by its clones.
#[derive(Debug, Clone)]
pub struct Channel {
    transport: tonic::transport::Channel,
    prove: Prove,
}

/// What carries the calls of a [`Channel`].
pub type Carrier = InterceptedService<tonic::transport::Channel, Prove>;

/// Puts to each call what proves who makes it.
#[derive(Debug, Clone)]
pub struct Prove(Option<MetadataValue<Ascii>>);

impl Prove {
    fn of(endpoint: &Endpoint) -> Self {
        Self(endpoint.proof().map(|proof| {
            let mut value = MetadataValue::try_from(proof.header()).expect("Base64 is ASCII");
            value.set_sensitive(true);
            value
        }))
    }
}

impl Interceptor for Prove {
    fn call(&mut self, mut request: Request<()>) -> std::result::Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Channel {
    /// Connects within 5 s, or fails as [`ErrorKind::Unavailable`] with the address and the reason.
    /// Cancelling is safe.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self> {
        let configured = configured(endpoint);
        let connected = match endpoint.dial() {
            Some(dial) => configured.connect_with_connector(dial.clone()).await,
            None => configured.connect().await,
        };
        match connected {
            Ok(transport) => Ok(Self { transport, prove: Prove::of(endpoint) }),
            Err(error) => {
                let message =
                    format!("cannot reach a broker at {endpoint}: {}; is it running?", tell(&error));
                Err(Error::new(ErrorKind::Unavailable, message))
            }
        }
    }
    /// A channel that connects when it is first used; its first call fails if it cannot. Needs a tokio runtime.
    pub fn lazy(endpoint: &Endpoint) -> Self {
        let configured = configured(endpoint);
        let transport = match endpoint.dial() {
            Some(dial) => configured.connect_with_connector_lazy(dial.clone()),
            None => configured.connect_lazy(),
        };
        Self { transport, prove: Prove::of(endpoint) }
    }
    /// The calls on streams and shards.
    pub fn control(&self) -> ControlClient<Carrier> {
        ControlClient::with_interceptor(self.transport.clone(), self.prove.clone())
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }
    /// The calls that carry records, by tonic's own codec. [`Channel::append`] and [`Channel::read`] do the same and copy less.
    pub fn data(&self) -> DataClient<Carrier> {
        DataClient::with_interceptor(self.transport.clone(), self.prove.clone())
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }
    /// The calls on the broker as a whole.
    pub fn admin(&self) -> AdminClient<Carrier> {
        AdminClient::with_interceptor(self.transport.clone(), self.prove.clone())
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }
    pub(super) fn carrier(&self) -> Carrier {
        InterceptedService::new(self.transport.clone(), self.prove.clone())
    }
    /// The calls on leases.
    pub fn lease(&self) -> LeaseClient<Carrier> {
        LeaseClient::with_interceptor(self.transport.clone(), self.prove.clone())
            .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
    }
}

fn configured(endpoint: &Endpoint) -> tonic::transport::Endpoint {
    let plain = tonic::transport::Endpoint::from(endpoint.uri().clone())
        .connect_timeout(CONNECT_DEADLINE)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_DEADLINE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES);
    if !endpoint.is_https() {
        return plain;
    }
    encrypted(plain.clone(), endpoint).unwrap_or_else(|error| {
        // connecting then fails and says so; a channel that connects later has no other way to tell
        tracing::warn!(%endpoint, error = tell(&error), "no authorities to trust for TLS");
        plain
    })
}

/// Set to encrypt, and to trust what the endpoint says.
pub(super) fn encrypted(
    plain: tonic::transport::Endpoint,
    endpoint: &Endpoint,
) -> std::result::Result<tonic::transport::Endpoint, tonic::transport::Error> {
    let tls = ClientTlsConfig::new();
    plain.tls_config(match endpoint.authorities() {
        Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
        None => tls.with_native_roots(),
    })
}

/// The innermost cause: "connection refused" rather than "transport error".
pub(super) fn tell(error: &tonic::transport::Error) -> String {
    let causes =
        std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| error.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_broker_that_is_not_there_is_named() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let endpoint = Endpoint::new(&format!("http://{free}")).unwrap();
        let error = Channel::connect(&endpoint).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains(&free.to_string()), "{error}");
        let request = crate::v1::ListShardsRequest { stream: "s".into() };
        let status = Channel::lazy(&endpoint).control().list_shards(request).await.unwrap_err();
        assert_eq!(
            Error::from(status).kind(),
            ErrorKind::Unavailable,
            "a failed connect proves that nothing was done"
        );
    }
}
