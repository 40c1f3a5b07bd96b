//! Subscriptions over real connections: HTTP/1.1 in chunks, and HTTP/2 by prior knowledge.

use super::*;
use crate::server::{Broker, BrokerSettings};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::collections::BTreeMap;
use tidemill_engine::StreamSpec;
use tidemill_types::{AccountId, ConsumerName, PartitionKey, Record, StreamKey, StreamName};

async fn broker(dir: &tempfile::TempDir) -> Broker {
    let settings = BrokerSettings {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: dir.path().to_owned(),
        ..BrokerSettings::default()
    };
    Broker::start(settings).await.unwrap()
}

fn key() -> StreamKey {
    StreamKey::new(AccountId::new("000000000000").unwrap(), StreamName::new("s").unwrap())
}

/// The body of a request for the shard of a new consumer.
async fn registered(broker: &Broker, name: &str) -> String {
    let consumer = ConsumerName::new(name).unwrap();
    let info = broker.engine().register_consumer(&key(), &consumer, BTreeMap::new()).await.unwrap();
    let seconds = info.created.seconds();
    let arn = format!("arn:aws:kinesis:us-east-1:000000000000:stream/s/consumer/{name}:{seconds}");
    input(&arn, 0, &latest()).to_string()
}

async fn put(broker: &Broker, text: &str) {
    let record = Record::new(PartitionKey::new("a").unwrap(), text.to_owned().into_bytes()).unwrap();
    broker.engine().stream(&key()).unwrap().put(vec![record]).await.pop().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_at_once_over_http_1_1_and_http_2_and_a_stop_ends_them() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir).await;
    broker.engine().create_stream(&key(), StreamSpec::default()).await.unwrap();
    let mut subscriptions = Vec::new();
    let mut slow = Vec::new();
    for http2_only in [false, true] {
        let client = Client::builder(TokioExecutor::new()).http2_only(http2_only).build_http::<String>();
        for name in ["reading", "waiting"] {
            let body = registered(&broker, &format!("{name}-{http2_only}")).await;
            let request = Request::post(broker.endpoint()).header("content-type", super::super::JSON);
            let request = request.header("x-amz-target", "Kinesis_20131202.SubscribeToShard");
            let reply = client.request(request.body(body).unwrap()).await.unwrap();
            assert_eq!(reply.status(), StatusCode::OK);
            let events = opened(reply).await;
            if name == "reading" { subscriptions.push(events) } else { slow.push((events, client.clone())) }
        }
    }
    for events in &mut subscriptions {
        assert_eq!(events.records().await["Records"], json!([]));
    }
    // more than sockets and windows hold: those who do not read are stuck, the others are not, on the same connection
    for n in 0..40 {
        let text = format!("{n} {}", "x".repeat(500_000));
        put(&broker, &text).await;
        for events in &mut subscriptions {
            assert_eq!(tokio::time::timeout(SOON, events.data(1)).await.unwrap(), [text.as_str()]);
        }
    }
    drop(slow);
    let reading = async {
        for events in &mut subscriptions {
            while let Some((kind, event)) = events.next().await {
                assert_eq!((kind.as_str(), &event["Records"]), (EVENT, &json!([])));
            }
        }
    };
    let (stopped, ()) =
        tokio::time::timeout(SOON, async { tokio::join!(broker.shutdown(), reading) }).await.unwrap();
    stopped.unwrap();
}
