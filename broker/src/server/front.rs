//! The fork in the road: which front end a request is for, by its head alone; and no front end for web pages that may not.
//!
//! A page of another machine is answered by the Kinesis front end only, which tells it so in its own manner.

use crate::auth::{Gate, Sender};
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::time::Duration;
use tonic::Status;
use tower::ServiceExt;

/// A plain HTTP request must be read and answered within this time.
const REQUEST: Duration = Duration::from_secs(120);

const FOREIGN: &str = "a broker without credentials serves web pages of its own machine only\n";

/// The three front ends behind the one port.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) grpc: Router,
    pub(super) ops: Router,
    pub(super) aws: Router,
    pub(super) gate: Gate,
}

impl Front {
    pub(super) async fn call(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let request = request.map(Body::new);
        let foreign = Sender::of(request.headers(), self.gate.verifies()) == Sender::ForeignPage;
        if is_grpc(request.headers()) {
            if foreign {
                return Ok(Status::permission_denied(FOREIGN.trim_end()).into_http());
            }
            return self.grpc.oneshot(request).await;
        }
        let path = request.uri().path();
        let is_ops = path.starts_with("/health/") || path == "/metrics";
        if is_ops && foreign {
            let mut refused = Response::new(Body::from(FOREIGN));
            *refused.status_mut() = StatusCode::FORBIDDEN;
            return Ok(refused);
        }
        let router = if is_ops { self.ops } else { self.aws };
        match tokio::time::timeout(REQUEST, router.oneshot(request)).await {
            Ok(answer) => answer,
            Err(_) => {
                let mut late = Response::new(Body::from("the request was not complete in time\n"));
                *late.status_mut() = StatusCode::REQUEST_TIMEOUT;
                late.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
                Ok(late)
            }
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}
