//! For the tests of this project alone: the suite of lease stores, run on stores that need another process. No part of the
//! library's interface; it may change or go at any time.

use crate::fetch::{BrokerSource, Source};
use crate::service::Holder;
use crate::store::suite::{self, StubSource, World};
use crate::store::{BrokerStore, LeaseStore};
use std::sync::Arc;
use std::time::Duration;
use tidemill_proto::client::{Channel, Endpoint};

/// Runs the suite against a broker, on a stream with one shard. Each case is an application of its own. Gives the names of the
/// cases that failed.
pub async fn leases_in_a_broker(endpoint: &Endpoint, stream: &str, lease: Duration) -> Vec<&'static str> {
    let channel = Channel::lazy(endpoint);
    let world = |case: &str| {
        let channel = channel.clone();
        let make = move |holder: Holder| -> Arc<dyn LeaseStore> {
            let Holder { app, worker, lease } = holder;
            Arc::new(BrokerStore::new(channel.clone(), app, worker, lease))
        };
        World::new(&app(case), stream, lease, make)
    };
    // the stream is there, or all cases would fail alike
    let source = BrokerSource::new(endpoint.clone(), channel.clone(), 1);
    let name = tidemill_types::StreamName::new(stream).expect("a name of a test fits");
    assert_eq!(source.shards(&name).await.map_or(0, |shards| shards.len()), 1, "a stream with one shard");
    suite::run(world).await
}

/// Runs the suite against a DynamoDB, each case with a table of its own.
#[cfg(feature = "aws")]
pub async fn leases_in_dynamo_db(table: &crate::aws::DynamoDb, lease: Duration) -> Vec<&'static str> {
    use crate::aws::LeaseTable;
    use crate::streams::Streams;
    let stream = tidemill_types::StreamName::new("stream").expect("a name of a test fits");
    suite::run(|case| {
        let source = Arc::new(StubSource::new(1));
        let streams = Streams::new([(stream.clone(), Default::default())], Default::default());
        let table = LeaseTable::new(table.clone()).settled(None, &streams).expect("one stream");
        let stub = Arc::clone(&source);
        let make = move |holder: Holder| -> Arc<dyn LeaseStore> {
            let source: Arc<dyn Source> = Arc::clone(&source) as _;
            Arc::new(table.store(&source, &holder))
        };
        World::new(&app(case), stream.as_str(), lease, make).with_source(stub)
    })
    .await
}

/// A name that fits: those of cases are sentences.
fn app(case: &str) -> String {
    let hash = tidemill_types::HashKey::of(case).get();
    let short: String = case.chars().take(40).collect();
    format!("{short}-{:08x}", hash as u32)
}
