//! One HTTP/1.1 connection that speaks the Kinesis API in JSON. Signed with nothing: a credential is named, that is all.

use crate::error::{Error, Result};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use std::time::Duration;
use tidemill_proto::client::Endpoint;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const CREDENTIAL: &str = "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/kinesis/aws4_request, \
                          SignedHeaders=host;x-amz-date;x-amz-target, \
                          Signature=0000000000000000000000000000000000000000000000000000000000000000";

/// A connection, made when it is first used and again when it broke.
pub(super) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: String,
}

/// What came back: whether it is what was asked for, or why not.
pub(super) enum Reply {
    Done(Bytes),
    Refused(String),
}

impl Http {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
        Self { client, uri: format!("{endpoint}/") }
    }

    /// Calls an operation. An error means that there was no answer.
    pub(super) async fn call(&self, operation: &str, body: Bytes) -> Result<Reply> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.uri)
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
            .header("x-amz-date", "20260101T000000Z")
            .header(header::AUTHORIZATION, CREDENTIAL)
            .body(Full::new(body))
            .map_err(|e| Error::because("cannot make a request", e))?;
        let answered = timeout(PATIENCE, async {
            let reply = self.client.request(request).await.map_err(|e| Error::because("no answer", e))?;
            let status = reply.status();
            let body = reply.into_body().collect().await.map_err(|e| Error::because("half an answer", e))?;
            Ok::<_, Error>((status, body.to_bytes()))
        });
        let (status, body) = answered
            .await
            .map_err(|_| Error::failed(format!("no answer to {operation} in {PATIENCE:?}")))??;
        match status {
            StatusCode::OK => Ok(Reply::Done(body)),
            status => Ok(Reply::Refused(format!("{operation}: {status} {}", String::from_utf8_lossy(&body)))),
        }
    }

    /// Calls an operation that must succeed.
    pub(super) async fn must(&self, operation: &str, body: String) -> Result<Bytes> {
        match self.call(operation, body.into()).await? {
            Reply::Done(body) => Ok(body),
            Reply::Refused(why) => Err(Error::failed(why)),
        }
    }
}
