//! Clients that do not take what they asked for.

use super::Kinesis;
use crate::server::Cut;
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::json;
use std::time::Duration;
use tower::ServiceExt;

#[tokio::test]
async fn who_takes_none_of_a_large_reply_is_cut_off() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    kinesis.put("s", "k", &"x".repeat(500_000)).await;
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    let (taker, idler) = (Cut::new(), Cut::new());
    let ask = async |cut: &Cut| {
        let request = Request::post("/")
            .header("content-type", super::JSON)
            .header("x-amz-target", "Kinesis_20131202.GetRecords")
            .extension(cut.clone());
        let body = Body::from(json!({"ShardIterator": iterator}).to_string());
        kinesis.router.clone().oneshot(request.body(body).unwrap()).await.unwrap()
    };
    let taken = ask(&taker).await;
    assert_eq!(taken.status(), StatusCode::OK);
    let bytes = http_body_util::BodyExt::collect(taken.into_body()).await.unwrap().to_bytes();
    assert!(bytes.len() > 500_000);
    drop(bytes);
    let _untaken = ask(&idler).await;
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert!(idler.is_made() && !taker.is_made());
}
