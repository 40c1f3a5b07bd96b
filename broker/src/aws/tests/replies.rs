//! Clients that do not take what they asked for.

use super::Kinesis;
use crate::server::Cut;
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::json;
use tower::ServiceExt;

#[tokio::test]
async fn who_takes_none_of_a_reply_is_cut_off_however_small_it_is() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    kinesis.put("s", "k", &"x".repeat(500_000)).await;
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    let cases = [
        ("GetRecords", json!({"ShardIterator": iterator}), StatusCode::OK),
        ("ListStreams", json!({}), StatusCode::OK),
        ("DescribeStream", json!({"StreamName": "absent"}), StatusCode::BAD_REQUEST),
    ];
    for (operation, input, status) in cases {
        let (taker, idler) = (Cut::new(), Cut::new());
        let ask = async |cut: &Cut| {
            let request = Request::post("/")
                .header("content-type", super::JSON)
                .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
                .extension(cut.clone());
            let body = Body::from(input.to_string());
            kinesis.router.clone().oneshot(request.body(body).unwrap()).await.unwrap()
        };
        let taken = ask(&taker).await;
        assert_eq!(taken.status(), status);
        let bytes = http_body_util::BodyExt::collect(taken.into_body()).await.unwrap().to_bytes();
        drop(bytes);
        let _untaken = ask(&idler).await;
        assert!(taker.unread() == 0 && idler.unread() > 0, "{operation}");
        let cut = [taker.turn(), taker.turn(), idler.turn(), idler.turn()];
        assert_eq!(cut, [false, false, false, true], "{operation}");
    }
}
