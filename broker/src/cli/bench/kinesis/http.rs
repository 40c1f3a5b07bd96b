//! One HTTP/1.1 connection that speaks the Kinesis API in JSON. Each request is signed when it is sent, as a client signs it.

use super::super::site::{Credentials, authority};
use super::super::tasks::Refusal;
use crate::auth::{Secret, Signer};
use crate::error::{Error, Result};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
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
}

impl Caller {
    pub(super) fn new(endpoint: &Endpoint, credentials: Option<Credentials>, region: &str) -> Arc<Self> {
        let stand_in = || Credentials { id: STAND_IN.to_owned(), secret: Secret::new(STAND_IN.to_owned()) };
        let Credentials { id, secret } = credentials.unwrap_or_else(stand_in);
        Arc::new(Self {
            uri: format!("{endpoint}/"),
            host: authority(endpoint),
            signer: Signer::new(id, secret, region.to_owned()),
            clock: SystemClock::new(),
        })
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

/// A connection, made when it is first used and again when it broke.
pub(super) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
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
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Self { client, caller: Arc::clone(caller) }
    }

    /// Calls an operation. An error means that there was no answer.
    pub(super) async fn call(&self, operation: &str, body: Bytes) -> Result<Reply> {
        let request = self.caller.request(operation, &body)?;
        let uri = &self.caller.uri;
        let answered = timeout(PATIENCE, async {
            let no_answer =
                |e| Error::failed(format!("no answer from {uri}: {}; is it running?", innermost(&e)));
            let reply = self.client.request(request).await.map_err(no_answer)?;
            let status = reply.status();
            let body = reply.into_body().collect().await.map_err(|e| Error::because("half an answer", e))?;
            Ok::<_, Error>((status, body.to_bytes()))
        });
        let (status, body) = answered
            .await
            .map_err(|_| Error::failed(format!("no answer to {operation} in {PATIENCE:?}")))??;
        Ok(match status {
            StatusCode::OK => Reply::Done(body),
            status => Reply::Refused(refusal(operation, status, &body)),
        })
    }

    /// Calls an operation that must succeed.
    pub(super) async fn must(&self, operation: &str, body: String) -> Result<Bytes> {
        match self.call(operation, body.into()).await? {
            Reply::Done(body) => Ok(body),
            Reply::Refused(Refusal::Throttled(why) | Refusal::Failed(why)) => Err(Error::failed(why)),
        }
    }
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
    fn what_is_too_much_at_once_is_told_from_what_fails() {
        let told = |body: &str| refusal("PutRecord", StatusCode::BAD_REQUEST, body.as_bytes());
        let throttled = |body: &str| matches!(told(body), Refusal::Throttled(_));
        assert!(throttled(r#"{"__type":"ProvisionedThroughputExceededException","message":"slow"}"#));
        assert!(throttled(r#"{"__type":"com.amazonaws.kinesis#LimitExceededException"}"#));
        assert!(!throttled(r#"{"__type":"ResourceNotFoundException"}"#));
        assert!(!throttled("<html>"));
    }
}
