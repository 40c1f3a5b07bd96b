//! The fork in the road: which front end a request is for, by its head alone.

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::time::Duration;
use tower::ServiceExt;

/// A plain HTTP request must be read and answered within this time.
const REQUEST: Duration = Duration::from_secs(120);

/// The three front ends behind the one port.
#[derive(Clone)]
pub(super) struct Front {
    pub(super) grpc: Router,
    pub(super) ops: Router,
    pub(super) aws: Router,
}

impl Front {
    pub(super) async fn call(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let request = request.map(Body::new);
        if is_grpc(request.headers()) {
            return self.grpc.oneshot(request).await;
        }
        let path = request.uri().path();
        let router = if path.starts_with("/health/") || path == "/metrics" { self.ops } else { self.aws };
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
