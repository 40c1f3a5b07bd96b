//! How long a caller says it will wait: `grpc-timeout`.
//!
//! Why: nobody hears the answer after that, so nothing is held for it. It bounds the time until an answer begins; calls
//! that go on answering end when their caller does.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use std::time::Duration;
use tonic::Status;

/// Answers the call in the time that its caller gives, or says that it could not.
pub(super) async fn keep(call: Request, next: Next) -> Response {
    let Some(within) = timeout(call.headers()) else { return next.run(call).await };
    tokio::time::timeout(within, next.run(call)).await.unwrap_or_else(|_| {
        let late = Status::deadline_exceeded("the time that the caller gave is over");
        late.into_http::<axum::body::Body>().into_response()
    })
}

/// Up to eight digits and a unit.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let known = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let count: u64 = known.then(|| digits.parse().ok())??;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::routing::get;
    use axum::{Router, middleware};
    use tower::ServiceExt;

    #[test]
    fn every_unit_is_known_and_anything_else_is_no_deadline() {
        let read = |text: &str| {
            timeout(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
        };
        let cases = [
            ("1H", 3_600_000_000_000),
            ("2M", 120_000_000_000),
            ("3S", 3_000_000_000),
            ("4m", 4_000_000),
            ("5u", 5_000),
            ("00000006n", 6),
        ];
        for (text, nanos) in cases {
            assert_eq!(read(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "S", "1", "1s", "123456789S", "-1S", "1.5S", " 1S"] {
            assert_eq!(read(text), None, "{text:?}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_answered_in_the_time_given_or_told_that_it_is_over() {
        let slow = || async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            "late"
        };
        let router = Router::new().route("/", get(slow)).layer(middleware::from_fn(keep));
        for (given, status) in [("1S", Some("4")), ("3S", None)] {
            let call = Request::get("/").header("grpc-timeout", given).body(Body::empty()).unwrap();
            let reply = router.clone().oneshot(call).await.unwrap();
            assert_eq!(reply.headers().get("grpc-status").map(|value| value.to_str().unwrap()), status);
        }
    }
}
