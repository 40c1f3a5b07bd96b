//! What is judged before a subscription begins.

use super::*;

// covers: SubscribeToShard validation
#[tokio::test(flavor = "multi_thread")]
async fn missing_members_are_listed_in_one_reply() {
    let kinesis = Kinesis::start().await;
    let told = |members: &[&str]| {
        let each: Vec<String> = members
            .iter()
            .map(|m| format!("Value null at '{m}' failed to satisfy constraint: Member must not be null"))
            .collect();
        let plural = if each.len() == 1 { "" } else { "s" };
        format!("{} validation error{plural} detected: {}", each.len(), each.join("; "))
    };
    let found = refused(&kinesis, json!({})).await;
    let all = told(&["consumerARN", "shardId", "startingPosition"]);
    assert_eq!(found, ("ValidationException".to_owned(), all));
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    let found = refused(&kinesis, input(&consumer, 0, &json!({}))).await;
    assert_eq!(found, ("ValidationException".to_owned(), told(&["startingPosition.type"])));
    let (kind, message) = refused(&kinesis, input("x", 0, &json!({"Type": "NOW"}))).await;
    assert_eq!(kind, "ValidationException");
    assert!(message.starts_with("2 validation errors detected: Value 'x' at 'consumerARN'"), "{message}");
    assert!(
        message.contains("at 'startingPosition.type' failed to satisfy constraint: Member must satisfy enum")
    );
}

// covers: SubscribeToShard not-found
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    let absent = [
        (consumer.replace("stream/s/", "stream/t/"), 0),
        (consumer.replace("consumer/c", "consumer/d"), 0),
        (consumer.replace(":17", ":16"), 0),
        (consumer.replace("us-east-1", "eu-west-1"), 0),
        (consumer.replace("123456789012", "123456789013"), 0),
        (consumer.clone(), 1),
    ];
    for (consumer, shard) in absent {
        let (kind, message) = refused(&kinesis, input(&consumer, shard, &latest())).await;
        assert_eq!(kind, "ResourceNotFoundException", "{consumer} {shard}: {message}");
    }
    let found = refused(&kinesis, input(&consumer, 1, &latest())).await.1;
    assert_eq!(found, "Could not find shard shardId-000000000001 in stream s under account 123456789012.");
}

// covers: SubscribeToShard validation
#[tokio::test(flavor = "multi_thread")]
async fn positions_must_fit_their_type_and_numbers_their_shard() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let consumer = register(&kinesis, "s", "c").await;
    let (half, number) =
        ((1u128 << 127).to_string(), "49646437577175378652512468275251745506222989733565300786");
    let put = json!({"StreamName": "s", "PartitionKey": "a", "Data": "", "ExplicitHashKey": half});
    let elsewhere = kinesis.ok("PutRecord", put).await["SequenceNumber"].clone();
    let bad = [
        (json!({"Type": "AT_SEQUENCE_NUMBER"}), "needs a SequenceNumber"),
        (json!({"Type": "LATEST", "SequenceNumber": number}), "takes no SequenceNumber"),
        (json!({"Type": "AT_TIMESTAMP"}), "needs a Timestamp"),
        (json!({"Type": "TRIM_HORIZON", "Timestamp": 1}), "takes no Timestamp"),
        (json!({"Type": "AT_TIMESTAMP", "Timestamp": 1_700_000_001}), "cannot be greater than the current"),
        (
            json!({"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": "7"}),
            "StartingSequenceNumber 7 is invalid.",
        ),
        (
            json!({"Type": "AT_SEQUENCE_NUMBER", "SequenceNumber": elsewhere}),
            "It encodes shardId-000000000001",
        ),
    ];
    for (position, part) in bad {
        let (kind, message) = refused(&kinesis, input(&consumer, 0, &position)).await;
        assert_eq!(kind, "InvalidArgumentException", "{position}: {message}");
        assert!(message.contains(part), "{position}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_takes_no_seat() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    let mut dry = input(&consumer, 0, &latest());
    dry["DryRun"] = json!(true);
    assert_eq!(refused(&kinesis, dry).await.0, "DryRunOperationException");
    subscribed(&kinesis, &consumer, 0, latest()).await;
}

/// So do Java SDKs: they ask in CBOR and read events in JSON.
#[tokio::test(flavor = "multi_thread")]
async fn who_asks_in_cbor_is_sent_events_in_json_and_refusals_in_cbor() {
    const CBOR: &str = "application/x-amz-cbor-1.1";
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = register(&kinesis, "s", "c").await;
    kinesis.put("s", "a", "one").await;
    let mut body = Vec::new();
    let mut cbor = minicbor::Encoder::new(&mut body);
    cbor.begin_map().unwrap().str("ConsumerARN").unwrap().str(&consumer).unwrap();
    cbor.str("ShardId").unwrap().str("shardId-000000000000").unwrap();
    cbor.str("StartingPosition").unwrap().begin_map().unwrap();
    cbor.str("Type").unwrap().str("TRIM_HORIZON").unwrap().end().unwrap().end().unwrap();
    let reply = ask(&kinesis, CBOR, body.clone()).await;
    assert_eq!(opened(reply).await.data(1).await, ["one"]);
    let reply = ask(&kinesis, CBOR, body).await;
    assert_eq!((reply.status().as_u16(), &reply.headers()["content-type"]), (400, &CBOR.parse().unwrap()));
}
