//! Several accounts on one broker: each has streams of its own, and sees another's only by a resource policy.

use super::Kinesis;
use http::StatusCode;
use serde_json::{Value, json};

const OURS: &str = "123456789012";
const OTHER: &str = "999999999999";
const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/s";

impl Kinesis {
    async fn ok_as(&self, account: &str, operation: &str, input: Value) -> Value {
        let (status, body) = self.call_as(account, operation, input).await;
        assert_eq!(status, StatusCode::OK, "{operation}: {body}");
        body
    }
    async fn refused_as(&self, account: &str, operation: &str, input: Value) -> (String, String) {
        let (status, body) = self.call_as(account, operation, input).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{operation}: {body}");
        let text = |member: &str| body[member].as_str().unwrap_or_default().to_owned();
        (text("__type"), text("message"))
    }
    async fn allow(&self, arn: &str, actions: &[&str]) {
        let actions: Vec<String> = actions.iter().map(|action| format!("kinesis:{action}")).collect();
        let statement =
            json!({"Effect": "Allow", "Principal": {"AWS": OTHER}, "Action": actions, "Resource": arn});
        let policy = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
        self.ok("PutResourcePolicy", json!({"ResourceARN": arn, "Policy": policy})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_means_the_stream_of_the_callers_account() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    kinesis.ok_as(OTHER, "CreateStream", json!({"StreamName": "s", "ShardCount": 3})).await;
    kinesis.ok_as(OTHER, "CreateStream", json!({"StreamName": "t", "ShardCount": 1})).await;
    let ours = kinesis.summary("s").await;
    let theirs = kinesis.ok_as(OTHER, "DescribeStreamSummary", json!({"StreamName": "s"})).await;
    let theirs = &theirs["StreamDescriptionSummary"];
    assert_eq!((&ours["OpenShardCount"], &theirs["OpenShardCount"]), (&json!(1), &json!(3)));
    assert_eq!((&ours["StreamARN"], &theirs["StreamARN"]), (&json!(ARN), &json!(ARN.replace(OURS, OTHER))));
    assert_eq!(kinesis.ok("ListStreams", json!({})).await["StreamNames"], json!(["s"]));
    assert_eq!(kinesis.ok_as(OTHER, "ListStreams", json!({})).await["StreamNames"], json!(["s", "t"]));
    assert_eq!(kinesis.ok("DescribeLimits", json!({})).await["OpenShardCount"], 1);
    assert_eq!(kinesis.ok_as(OTHER, "DescribeLimits", json!({})).await["OpenShardCount"], 4);
    kinesis.put("s", "a", "ours").await;
    let iterator = json!({"StreamName": "s", "ShardId": "shardId-0", "ShardIteratorType": "TRIM_HORIZON"});
    let iterator = kinesis.ok_as(OTHER, "GetShardIterator", iterator).await;
    assert_eq!(kinesis.ok_as(OTHER, "GetRecords", iterator).await["Records"], json!([]));
    kinesis.ok_as(OTHER, "DeleteStream", json!({"StreamName": "s"})).await;
    kinesis.summary("s").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_consumers_of_another_account_are_as_if_they_were_not() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = kinesis.register("s", "c").await;
    let absent =
        ("ResourceNotFoundException".to_owned(), format!("Stream s under account {OURS} not found."));
    let cases = [
        ("DescribeStreamSummary", json!({"StreamARN": ARN})),
        ("PutRecord", json!({"StreamARN": ARN, "PartitionKey": "a", "Data": ""})),
        ("PutRecord", json!({"StreamARN": ARN, "PartitionKey": "a", "Data": "", "DryRun": true})),
        ("DeleteStream", json!({"StreamARN": ARN})),
        ("ListShards", json!({"StreamARN": ARN})),
        ("AddTagsToStream", json!({"StreamARN": ARN, "Tags": {"a": "b"}})),
        ("TagResource", json!({"ResourceARN": ARN, "Tags": {"a": "b"}})),
        ("GetResourcePolicy", json!({"ResourceARN": ARN})),
        ("RegisterStreamConsumer", json!({"StreamARN": ARN, "ConsumerName": "d"})),
        ("DescribeStreamConsumer", json!({"ConsumerARN": consumer})),
        ("DescribeStreamConsumer", json!({"StreamARN": ARN, "ConsumerName": "nobody"})),
        ("DeregisterStreamConsumer", json!({"ConsumerARN": consumer})),
    ];
    for (operation, input) in cases {
        assert_eq!(kinesis.refused_as(OTHER, operation, input.clone()).await, absent, "{operation} {input}");
    }
    let iterator = json!({"StreamARN": ARN, "ShardId": "shardId-0", "ShardIteratorType": "LATEST"});
    let (kind, message) = kinesis.refused_as(OTHER, "GetShardIterator", iterator).await;
    assert_eq!(kind, "ResourceNotFoundException");
    assert!(message.ends_with("does not exist"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn iterators_and_page_tokens_of_one_account_are_invalid_for_another() {
    let kinesis = Kinesis::start().await;
    for stream in ["s", "t"] {
        kinesis.create(stream, 2).await;
        kinesis.ok_as(OTHER, "CreateStream", json!({"StreamName": stream, "ShardCount": 2})).await;
    }
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    let shards =
        kinesis.ok("ListShards", json!({"StreamName": "s", "MaxResults": 1})).await["NextToken"].clone();
    let streams = kinesis.ok("ListStreams", json!({"Limit": 1})).await["NextToken"].clone();
    let cases = [
        ("GetRecords", json!({"ShardIterator": iterator}), "Invalid ShardIterator."),
        ("ListShards", json!({"NextToken": shards}), "Invalid NextToken."),
        ("ListStreams", json!({"NextToken": streams}), "Invalid NextToken."),
    ];
    for (operation, input, message) in cases {
        let expected = ("InvalidArgumentException".to_owned(), message.to_owned());
        assert_eq!(kinesis.refused_as(OTHER, operation, input.clone()).await, expected);
        kinesis.ok(operation, input).await;
    }
}

// covers: DescribeStreamSummary, PutRecord, GetRecords, ListShards, DescribeStreamConsumer success
#[tokio::test(flavor = "multi_thread")]
async fn a_resource_policy_opens_what_it_names_and_no_more() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let consumer = kinesis.register("s", "c").await;
    kinesis.allow(ARN, &["PutRecord", "GetShardIterator", "GetRecords", "ListShards"]).await;
    let put = json!({"StreamARN": ARN, "PartitionKey": "a", "Data": "aGk="});
    kinesis.ok_as(OTHER, "PutRecord", put.clone()).await;
    let iterator = json!({"StreamARN": ARN, "ShardId": "shardId-0", "ShardIteratorType": "TRIM_HORIZON"});
    let iterator = kinesis.ok_as(OTHER, "GetShardIterator", iterator).await;
    assert_eq!(kinesis.ok_as(OTHER, "GetRecords", iterator.clone()).await["Records"][0]["Data"], "aGk=");
    let page = kinesis.ok_as(OTHER, "ListShards", json!({"StreamARN": ARN, "MaxResults": 1})).await;
    kinesis.ok_as(OTHER, "ListShards", json!({"NextToken": page["NextToken"]})).await;
    let denied = [
        ("DescribeStreamSummary", json!({"StreamARN": ARN})),
        ("DeleteStream", json!({"StreamARN": ARN})),
        ("PutResourcePolicy", json!({"ResourceARN": ARN, "Policy": "{}"})),
    ];
    for (operation, input) in denied {
        let kind = kinesis.refused_as(OTHER, operation, input).await.0;
        let expected = if operation == "PutResourcePolicy" {
            "InvalidArgumentException"
        } else {
            "AccessDeniedException"
        };
        assert_eq!(kind, expected, "{operation}");
    }
    let describe = json!({"ConsumerARN": consumer});
    let hidden = kinesis.refused_as(OTHER, "DescribeStreamConsumer", describe.clone()).await;
    assert_eq!(hidden.0, "ResourceNotFoundException");
    kinesis.allow(&consumer, &["DescribeStreamConsumer"]).await;
    kinesis.ok_as(OTHER, "DescribeStreamConsumer", describe.clone()).await;
    let kind = kinesis.refused_as(OTHER, "DeregisterStreamConsumer", describe).await.0;
    assert_eq!(kind, "AccessDeniedException");
    kinesis.allow(ARN, &["PutRecord"]).await;
    assert_eq!(kinesis.refused_as(OTHER, "GetRecords", iterator.clone()).await.0, "AccessDeniedException");
    kinesis.ok("DeleteResourcePolicy", json!({"ResourceARN": ARN})).await;
    assert_eq!(kinesis.refused_as(OTHER, "PutRecord", put).await.0, "ResourceNotFoundException");
    assert_eq!(kinesis.refused_as(OTHER, "GetRecords", iterator).await.0, "InvalidArgumentException");
}
