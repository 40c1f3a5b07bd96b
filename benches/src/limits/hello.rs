//! The limit of HTTP/1.1 on this machine: a stock server that takes a body and says hello, under the load of PutRecord, which
//! is one request under way per connection, of the size and with the headers of one that puts a record of 1 KiB.

use super::HELLO;
use crate::figure::Figure;
use crate::window::{Meter, Window};
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;
use tokio::time::Instant;

const RECORD_BYTES: u64 = 1024;
/// Base64 of the record, and what a request has beside.
const BODY_BYTES: usize = 1368 + 72;
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=bench/20260101/us-east-1/kinesis/aws4_request, \
                             SignedHeaders=host;x-amz-date;x-amz-target, \
                             Signature=0000000000000000000000000000000000000000000000000000000000000000";

/// Serves until standard input ends.
pub(super) fn serve() -> Result<()> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("ready on http://{}", listener.local_addr()?);
        tokio::select! {
            () = super::input_ended() => Ok(()),
            broken = accept(listener) => broken.context("the bare server broke off"),
        }
    })
}

async fn accept(listener: tokio::net::TcpListener) -> Result<()> {
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        tokio::spawn(async move {
            let io = TokioIo::new(connection);
            // a client that leaves is no failure
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(hello)).await;
        });
    }
}

async fn hello(request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
    request.into_body().collect().await?;
    Ok(Response::new(Full::new(Bytes::from_static(b"hello"))))
}

/// Requests over so many connections. A record is a request.
pub(crate) async fn requests(endpoint: &str, connections: usize, window: Window) -> Result<Figure> {
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(connection(format!("{endpoint}/"), window));
    }
    let mut all = Meter::new(window);
    while let Some(part) = tasks.join_next().await {
        all.add(&part??);
    }
    Ok(all.figure(HELLO.workload, HELLO.target))
}

async fn connection(uri: String, window: Window) -> Result<Meter> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1).build(connector);
    let body = Bytes::from(vec![b'a'; BODY_BYTES]);
    let mut meter = Meter::new(window);
    while !window.is_over() {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&uri)
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.1")
            .header("x-amz-target", "Kinesis_20131202.PutRecord")
            .header("x-amz-date", "20260101T000000Z")
            .header(header::AUTHORIZATION, AUTHORIZATION)
            .body(Full::new(body.clone()))?;
        let began = Instant::now();
        let reply = client.request(request).await?;
        ensure!(reply.status().is_success(), "the bare server answers {}", reply.status());
        reply.into_body().collect().await?;
        meter.done(began, 1, RECORD_BYTES);
    }
    Ok(meter)
}
