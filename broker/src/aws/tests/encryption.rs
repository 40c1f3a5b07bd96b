//! Encryption of streams as the API shows it. That no plaintext reaches the disk is tested in the engine.

use super::{Kinesis, START_MS};
use serde_json::{Value, json};
use std::sync::Arc;
use tidemill_engine::{KeyMaterial, KeyRing, Settings, WrappingKey};
use tidemill_types::{ManualClock, TimestampMs};

const KEY: &str = "alias/first";
const INVALID: &str = "InvalidArgumentException";

fn keys() -> KeyRing {
    let key = |id: &str, material| WrappingKey { id: id.to_owned(), aliases: Vec::new(), material };
    KeyRing::new(vec![
        key(KEY, KeyMaterial::secret([1; 32])),
        key("alias/second", KeyMaterial::secret([2; 32])),
        key("alias/off", KeyMaterial::Disabled),
        key("alias/locked", KeyMaterial::Unreadable("permission denied".to_owned())),
    ])
    .unwrap()
}

async fn start(keys: &KeyRing) -> Kinesis {
    let clock = Arc::new(ManualClock::new(TimestampMs::new(START_MS)));
    let settings = Settings { keys: keys.clone(), ..Settings::default() };
    Kinesis::open_with(tempfile::tempdir().unwrap(), clock, settings).await
}

fn asked(key: &str) -> Value {
    json!({"StreamName": "s", "EncryptionType": "KMS", "KeyId": key})
}

// covers: StartStreamEncryption, StopStreamEncryption success
#[tokio::test(flavor = "multi_thread")]
async fn records_tell_whether_they_were_put_under_encryption() {
    let kinesis = start(&keys()).await;
    kinesis.create("s", 1).await;
    let put = || json!({"StreamName": "s", "PartitionKey": "a", "Data": "aGk="});
    assert_eq!(kinesis.ok("PutRecord", put()).await["EncryptionType"], "NONE");
    for key in [KEY, "alias/second"] {
        assert_eq!(kinesis.ok("StartStreamEncryption", asked(key)).await, Value::Null);
        assert_eq!(kinesis.ok("PutRecord", put()).await["EncryptionType"], "KMS");
        let summary = kinesis.summary("s").await;
        assert_eq!((&summary["EncryptionType"], &summary["KeyId"]), (&json!("KMS"), &json!(key)));
        let described = kinesis.ok("DescribeStream", json!({"StreamName": "s"})).await;
        assert_eq!(described["StreamDescription"]["KeyId"], key);
    }
    assert_eq!(kinesis.ok("StopStreamEncryption", asked("alias/second")).await, Value::Null);
    let summary = kinesis.summary("s").await;
    assert_eq!((&summary["EncryptionType"], summary.get("KeyId")), (&json!("NONE"), None));
    let batch = json!({"StreamName": "s", "Records": [{"PartitionKey": "a", "Data": "aGk="}]});
    assert_eq!(kinesis.ok("PutRecords", batch).await["EncryptionType"], "NONE");
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    let page = kinesis.read(&iterator).await;
    let kinds: Vec<_> =
        page["Records"].as_array().unwrap().iter().map(|r| r["EncryptionType"].as_str()).collect();
    assert_eq!(kinds, [None, Some("KMS"), Some("KMS"), None]);
    assert!(page["Records"].as_array().unwrap().iter().all(|record| record["Data"] == "aGk="));
}

// covers: StartStreamEncryption, StopStreamEncryption validation wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_used_are_told_apart() {
    let kinesis = start(&keys()).await;
    kinesis.create("s", 1).await;
    let start = "StartStreamEncryption";
    for (key, kind) in [
        ("alias/nobody", "KMSNotFoundException"),
        ("alias/off", "KMSDisabledException"),
        ("alias/locked", "KMSAccessDeniedException"),
    ] {
        assert_eq!(kinesis.refused(start, asked(key)).await.0, kind);
    }
    assert_eq!(kinesis.summary("s").await["EncryptionType"], "NONE");
    let none = json!({"StreamName": "s", "EncryptionType": "NONE", "KeyId": KEY});
    for operation in [start, "StopStreamEncryption"] {
        let message = "EncryptionType must be KMS.";
        kinesis.assert_refused(operation, none.clone(), INVALID, message).await;
    }
    kinesis.ok(start, asked(KEY)).await;
    assert_eq!(kinesis.refused("StopStreamEncryption", asked("alias/second")).await.0, INVALID);
    assert_eq!(kinesis.summary("s").await["KeyId"], KEY);
}

// covers: PutRecord, PutRecords, GetRecords wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn without_its_key_a_stream_takes_nothing_and_tells_why() {
    let ring = keys();
    let kinesis = start(&ring).await;
    kinesis.create("s", 1).await;
    kinesis.ok("StartStreamEncryption", asked(KEY)).await;
    kinesis.put("s", "a", "x").await;
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    ring.replace(Vec::new()).unwrap();
    let kinesis = kinesis.restart_with(Settings { keys: ring.clone(), ..Settings::default() }).await;
    let kind = "KMSNotFoundException";
    let put = json!({"StreamName": "s", "PartitionKey": "a", "Data": "aGk="});
    assert_eq!(kinesis.refused("PutRecord", put.clone()).await.0, kind);
    let batch = json!({"StreamName": "s", "Records": [{"PartitionKey": "a", "Data": "aGk="}]});
    assert_eq!(kinesis.refused("PutRecords", batch).await.0, kind);
    assert_eq!(kinesis.refused("GetRecords", json!({"ShardIterator": iterator})).await.0, kind);
}
