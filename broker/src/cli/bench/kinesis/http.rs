//! One HTTP/1.1 connection that speaks the Kinesis API in JSON. Each request is signed when it is sent, as a client signs it.

use super::super::site::{Credentials, authority};
use super::super::tasks::Refusal;
use crate::auth::{Secret, Signer};
use crate::error::{Error, Result};
use crate::tls;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::Endpoint;
use tidemill_types::{Clock, SystemClock};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
/// What is signed with where no credentials are told; who verifies nothing takes it.
const STAND_IN: &str = "bench";
/// What a service calls it when something was too much at once.
const THROTTLES: [&str; 4] = [
    "ProvisionedThroughputExceededException",
    "LimitExceededException",
    "ThrottlingException",
    "KMSThrottlingException",
];
/// Most characters of an answer that are shown.
const SHOWN_MAX: usize = 300;

/// Where requests go, and who signs them. Shared by all connections.
pub(super) struct Caller {
    uri: String,
    host: String,
    signer: Signer,
    clock: SystemClock,
    connector: HttpsConnector<HttpConnector>,
}

impl Caller {
    pub(super) fn new(
        endpoint: &Endpoint,
        credentials: Option<Credentials>,
        region: &str,
    ) -> Result<Arc<Self>> {
        let stand_in = || Credentials::lasting(STAND_IN.to_owned(), Secret::new(STAND_IN.to_owned()));
        let Credentials { id, secret, token } = credentials.unwrap_or_else(stand_in);
        let (scheme, host) = (if endpoint.is_https() { "https" } else { "http" }, host(endpoint));
        Ok(Arc::new(Self {
            uri: format!("{scheme}://{host}/"),
            host,
            signer: Signer::new(id, secret, token, region.to_owned()),
            clock: SystemClock::new(),
            connector: connector(endpoint)?,
        }))
    }

    fn request(&self, operation: &str, body: &Bytes) -> Result<Request<Full<Bytes>>> {
        let cannot = |why: String| Error::failed(format!("cannot make a request: {why}"));
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.uri)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
            .body(())
            .map_err(|e| cannot(e.to_string()))?;
        let (mut parts, ()) = request.into_parts();
        self.signer.sign(&mut parts, body, self.clock.now()).map_err(cannot)?;
        Ok(Request::from_parts(parts, Full::new(body.clone())))
    }
}

/// As it stands in requests: without the port that goes without saying, as the clients of Amazon sign it.
fn host(endpoint: &Endpoint) -> String {
    let authority = authority(endpoint);
    let usual = if endpoint.is_https() { ":443" } else { ":80" };
    authority.strip_suffix(usual).map_or(authority.clone(), str::to_owned)
}

fn connector(endpoint: &Endpoint) -> Result<HttpsConnector<HttpConnector>> {
    let mut clear = HttpConnector::new();
    clear.set_nodelay(true);
    clear.enforce_http(false);
    // in clear text nobody is trusted, so nothing is read
    let authorities = if endpoint.is_https() { endpoint.authorities() } else { Some(&[][..]) };
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls::client(authorities)?);
    // subscriptions of Amazon are there over HTTP/2 alone, which only a handshake can agree on
    Ok(builder.https_or_http().enable_all_versions().wrap_connector(clear))
}

/// A connection, made when it is first used and again when it broke.
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    caller: Arc<Caller>,
}

/// What came back: whether it is what was asked for, or why not.
pub(super) enum Reply {
    Done(Bytes),
    Refused(Refusal),
}

/// How a service names what is wrong.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Exception {
    #[serde(rename = "__type")]
    kind: String,
}

impl Http {
    pub(super) fn new(caller: &Arc<Caller>) -> Self {
        let connector = caller.connector.clone();
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Self { client, caller: Arc::clone(caller) }
    }

    /// Calls an operation. An error means that there was no answer.
    pub(super) async fn call(&self, operation: &str, body: Bytes) -> Result<Reply> {
        let answered = in_time(operation, async {
            let (status, answer) = self.send(operation, body).await?;
            Ok((status, whole(answer).await?))
        });
        Ok(match answered.await? {
            (StatusCode::OK, answer) => Reply::Done(answer),
            (status, answer) => Reply::Refused(refusal(operation, status, &answer)),
        })
    }

    /// Calls an operation whose answer goes on for as long as it is read.
    pub(super) async fn open(
        &self,
        operation: &str,
        body: Bytes,
    ) -> Result<std::result::Result<Incoming, Refusal>> {
        let answered = in_time(operation, async {
            Ok(match self.send(operation, body).await? {
                (StatusCode::OK, answer) => Ok(answer),
                (status, answer) => Err(refusal(operation, status, &whole(answer).await?)),
            })
        });
        answered.await
    }

    async fn send(&self, operation: &str, body: Bytes) -> Result<(StatusCode, Incoming)> {
        let request = self.caller.request(operation, &body)?;
        let uri = &self.caller.uri;
        let no_answer = |e| Error::failed(format!("no answer from {uri}: {}; is it running?", innermost(&e)));
        let reply = self.client.request(request).await.map_err(no_answer)?;
        Ok((reply.status(), reply.into_body()))
    }

    /// Calls an operation that must succeed.
    pub(super) async fn must(&self, operation: &str, body: String) -> Result<Bytes> {
        match self.call(operation, body.into()).await? {
            Reply::Done(body) => Ok(body),
            Reply::Refused(Refusal::Throttled(why) | Refusal::Failed(why)) => Err(Error::failed(why)),
        }
    }
}

async fn in_time<T>(operation: &str, answered: impl Future<Output = Result<T>>) -> Result<T> {
    let late = |_| Error::failed(format!("no answer to {operation} in {PATIENCE:?}"));
    timeout(PATIENCE, answered).await.map_err(late)?
}

async fn whole(answer: Incoming) -> Result<Bytes> {
    Ok(answer.collect().await.map_err(|e| Error::because("half an answer", e))?.to_bytes())
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .map_or_else(String::new, ToString::to_string)
}

fn refusal(operation: &str, status: StatusCode, body: &[u8]) -> Refusal {
    let shown: String = String::from_utf8_lossy(body).chars().take(SHOWN_MAX).collect();
    let why = format!("{operation}: {status} {shown}");
    let kind = serde_json::from_slice::<Exception>(body).unwrap_or_default().kind;
    if status == StatusCode::TOO_MANY_REQUESTS || is_throttle(&kind) {
        Refusal::Throttled(why)
    } else {
        Refusal::Failed(why)
    }
}

/// Whether an error of this name says that something was too much at once. Some services put a prefix before `#`.
pub(super) fn is_throttle(kind: &str) -> bool {
    THROTTLES.contains(&kind.rsplit('#').next().unwrap_or(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_port_is_not_named() {
        for (endpoint, expected) in [
            ("https://kinesis.us-east-1.amazonaws.com:443", "kinesis.us-east-1.amazonaws.com"),
            ("http://127.0.0.1:80", "127.0.0.1"),
            ("https://127.0.0.1:80", "127.0.0.1:80"),
            ("http://[::1]:4567", "[::1]:4567"),
        ] {
            assert_eq!(host(&Endpoint::new(endpoint).unwrap()), expected);
        }
    }

    #[test]
    fn what_is_too_much_at_once_is_told_from_what_fails() {
        let told = |body: &str| refusal("PutRecord", StatusCode::BAD_REQUEST, body.as_bytes());
        let throttled = |body: &str| matches!(told(body), Refusal::Throttled(_));
        assert!(throttled(r#"{"__type":"ProvisionedThroughputExceededException","message":"slow"}"#));
        assert!(throttled(r#"{"__type":"com.amazonaws.kinesis#LimitExceededException"}"#));
        assert!(!throttled(r#"{"__type":"ResourceNotFoundException"}"#));
        assert!(!throttled("<html>"));
    }
}
