//! An Amazon Kinesis in memory behind a real HTTP server: as much as the producer uses of it, and faults as told.

#![allow(clippy::unwrap_used, reason = "this is test code")]

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tidemill_producer::HashKey;
use tidemill_types::HashKeyRange;

/// What happens to a PutRecords request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Refused as a whole, with this code; nothing is stored.
    Refuse(u16, &'static str),
    /// Every other entry is refused, from the first on.
    ThrottleSome,
    /// Stored, and answered as if the service had failed.
    FailAfter,
    /// Stored, and never answered.
    HangAfter,
    /// Stored, and one entry is not answered.
    AnswerShort,
    /// This shard is split in two before anything is stored.
    SplitBefore(u32),
}

#[derive(Debug, Clone)]
pub(crate) struct Shard {
    pub(crate) range: HashKeyRange,
    pub(crate) open: bool,
    pub(crate) stored: Vec<Stored>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) key: String,
    pub(crate) hash: HashKey,
    pub(crate) number: String,
    pub(crate) data: Vec<u8>,
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) shards: BTreeMap<u32, Shard>,
    /// Faults of the next requests, one each; then `always`.
    pub(crate) script: VecDeque<Option<Fault>>,
    pub(crate) always: Option<Fault>,
    /// Entries of each request.
    pub(crate) requests: Vec<usize>,
    /// Lists of shards that are still told as they were before the last split.
    pub(crate) stale_lists: u32,
    before_split: Vec<u32>,
    /// How long each request takes.
    pub(crate) delay: Duration,
    /// Entries of a shard that were under way together, at most.
    pub(crate) together_max: usize,
    under_way: HashMap<u32, usize>,
    next_number: u64,
}

impl Model {
    fn split(&mut self, id: u32) {
        self.before_split = self.open();
        let parent = self.shards.get_mut(&id).unwrap();
        parent.open = false;
        let (start, end) = (parent.range.start().get(), parent.range.end().get());
        let middle = start + (end - start) / 2;
        for (start, end) in [(start, middle), (middle + 1, end)] {
            let range = HashKeyRange::new(HashKey::new(start), HashKey::new(end)).unwrap();
            self.shards.insert(self.shards.len() as u32, Shard { range, open: true, stored: Vec::new() });
        }
    }
    fn open(&self) -> Vec<u32> {
        self.shards.iter().filter(|(_, shard)| shard.open).map(|(id, _)| *id).collect()
    }
    fn shard_of(&self, hash: HashKey) -> u32 {
        *self.shards.iter().find(|(_, shard)| shard.open && shard.range.contains(hash)).unwrap().0
    }
    pub(crate) fn stored(&self) -> Vec<(u32, Stored)> {
        self.shards.iter().flat_map(|(id, shard)| shard.stored.iter().map(|s| (*id, s.clone()))).collect()
    }
    fn list(&mut self) -> Value {
        let ids = match self.stale_lists {
            0 => self.open(),
            left => {
                self.stale_lists = left - 1;
                self.before_split.clone()
            }
        };
        let shown = |id: &u32| {
            let range = self.shards[id].range;
            let (start, end) = (range.start().to_string(), range.end().to_string());
            json!({
                "ShardId": format!("shardId-{id:012}"),
                "HashKeyRange": { "StartingHashKey": start, "EndingHashKey": end },
                "SequenceNumberRange": { "StartingSequenceNumber": "1" },
            })
        };
        json!({ "Shards": ids.iter().map(shown).collect::<Vec<_>>() })
    }
    fn store(&mut self, entry: &Value) -> Value {
        let hash: HashKey = entry["ExplicitHashKey"].as_str().unwrap().parse().unwrap();
        let data = base64_simd::STANDARD.decode_to_vec(entry["Data"].as_str().unwrap()).unwrap();
        let id = self.shard_of(hash);
        self.next_number += 1;
        // as long as Amazon's
        let number = format!("49545115243490985018280067714973144582180062593{:09}", self.next_number);
        let key = entry["PartitionKey"].as_str().unwrap().to_owned();
        assert!(!key.is_empty());
        let stored = Stored { key, hash, number: number.clone(), data };
        self.shards.get_mut(&id).unwrap().stored.push(stored);
        json!({ "SequenceNumber": number, "ShardId": format!("shardId-{id:012}") })
    }
}

/// A running service.
#[derive(Clone)]
pub(crate) struct FakeKinesis {
    pub(crate) address: SocketAddr,
    model: Arc<Mutex<Model>>,
}

impl FakeKinesis {
    /// Of one stream, whatever it is called.
    pub(crate) async fn start(shards: u32) -> Self {
        let mut model = Model::default();
        for (id, range) in (0..).zip(HashKeyRange::uniform(shards)) {
            model.shards.insert(id, Shard { range, open: true, stored: Vec::new() });
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self { address: listener.local_addr().unwrap(), model: Arc::new(Mutex::new(model)) };
        let app = Router::new().route("/", post(handle)).with_state(fake.clone());
        let app = app.layer(axum::extract::DefaultBodyLimit::max(16 << 20));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        fake
    }
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    async fn put(&self, input: Value) -> (StatusCode, String) {
        let entries = input["Records"].as_array().unwrap();
        let (fault, delay, shards) = {
            let mut model = self.model();
            let fault = model.script.pop_front().unwrap_or(model.always);
            if let Some(Fault::SplitBefore(id)) = fault {
                model.split(id);
            }
            model.requests.push(entries.len());
            let hash = |entry: &Value| entry["ExplicitHashKey"].as_str().unwrap().parse().unwrap();
            let shards: Vec<u32> = entries.iter().map(|entry| model.shard_of(hash(entry))).collect();
            for shard in &shards {
                let together = model.under_way.entry(*shard).or_default();
                *together += 1;
                model.together_max = model.together_max.max(model.under_way[shard]);
            }
            (fault, model.delay, shards)
        };
        tokio::time::sleep(delay).await;
        let reply = self.reply(entries, fault);
        if fault == Some(Fault::HangAfter) {
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let mut model = self.model();
        shards.iter().for_each(|shard| *model.under_way.get_mut(shard).unwrap() -= 1);
        reply
    }
    fn reply(&self, entries: &[Value], fault: Option<Fault>) -> (StatusCode, String) {
        let mut model = self.model();
        if let Some(Fault::Refuse(status, code)) = fault {
            let told = json!({ "__type": code, "message": "refused by the script" });
            return (StatusCode::from_u16(status).unwrap(), told.to_string());
        }
        let throttled = json!({
            "ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "Rate exceeded for shard",
        });
        let mut results = Vec::new();
        for (at, entry) in entries.iter().enumerate() {
            let refused = fault == Some(Fault::ThrottleSome) && at % 2 == 0;
            results.push(if refused { throttled.clone() } else { model.store(entry) });
        }
        match fault {
            Some(Fault::FailAfter) => {
                let told = json!({ "__type": "InternalFailure", "message": "it broke" });
                return (StatusCode::INTERNAL_SERVER_ERROR, told.to_string());
            }
            Some(Fault::AnswerShort) => drop(results.pop()),
            _ => {}
        }
        let failed = results.iter().filter(|result| result["ErrorCode"].is_string()).count();
        (StatusCode::OK, json!({ "FailedRecordCount": failed, "Records": results }).to_string())
    }
}

async fn handle(
    State(fake): State<FakeKinesis>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, [(&'static str, &'static str); 1], String) {
    let target = headers["x-amz-target"].to_str().unwrap();
    assert!(headers["authorization"].to_str().unwrap().starts_with("AWS4-HMAC-SHA256 "));
    let input: Value = serde_json::from_slice(&body).unwrap();
    let (status, reply) = match target {
        "Kinesis_20131202.ListShards" => (StatusCode::OK, fake.model().list().to_string()),
        "Kinesis_20131202.PutRecords" => fake.put(input).await,
        _ => {
            let told = json!({ "__type": "AccessDeniedException", "message": "you may only put" });
            (StatusCode::BAD_REQUEST, told.to_string())
        }
    };
    (status, [("content-type", "application/x-amz-json-1.1")], reply)
}
