//! What a credential is not allowed it cannot do, by any operation.

use super::Kinesis;
use crate::auth::{AccessSettings, Gate, Verified};
use crate::aws::codec::Encoding;
use crate::aws::operation::{Operation, act};
use crate::aws::{AwsState, Call, Code};
use crate::limits::LimitSettings;
use http::HeaderMap;
use serde_json::{Value, json};
use tidemill_types::{AccountId, Region, TimestampMs};
use tokio_util::sync::CancellationToken;

const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/s";

#[derive(serde::Deserialize)]
struct Written {
    credentials: Vec<crate::auth::CredentialSettings>,
    policies: Vec<crate::auth::PolicySettings>,
}

/// A caller that may do what the statements say, and the front end that knows it.
fn caller(kinesis: &Kinesis, statements: &str) -> (AwsState, Verified) {
    caller_with(kinesis, "", statements)
}

/// The same, of whose credential there is more to say.
pub(super) fn caller_with(kinesis: &Kinesis, credential: &str, statements: &str) -> (AwsState, Verified) {
    let text = format!(
        "
        [[credentials]]
        access_key_id = 'KEY'
        secret_access_key = 'secret'
        name = 'app'
        policies = ['some']
        {credential}
        [[policies]]
        name = 'some'
        {statements}"
    );
    let Written { credentials, policies } = toml::from_str(&text).unwrap();
    let settings = AccessSettings { credentials, policies, file: None };
    let account = AccountId::new("123456789012").unwrap();
    let gate = Gate::new(&settings, account, Region::new("us-east-1").unwrap()).unwrap();
    let mut headers = HeaderMap::new();
    let basic = base64_simd::STANDARD.encode_to_string("KEY:secret");
    headers.insert("authorization", format!("Basic {basic}").parse().unwrap());
    let caller = gate.verify_basic(&headers, TimestampMs::new(super::START_MS)).unwrap();
    let engine = kinesis.engine.clone();
    (AwsState::guarded(engine, gate, LimitSettings::default(), CancellationToken::new()), caller)
}

async fn told(
    (state, caller): &(AwsState, Verified),
    operation: &str,
    input: &Value,
) -> Option<(Code, String)> {
    let operation = Operation::from_name(operation).unwrap();
    let call =
        Call { state: state.clone(), caller: caller.clone(), valid: CancellationToken::new(), operation };
    let body = input.to_string();
    let tree = Encoding::Json.decode(body.as_bytes()).unwrap();
    let error = act(operation, call, tree, Encoding::Json).await.err()?;
    Some((error.code(), error.message().to_owned()))
}

/// A good request of every operation; that of GetRecords needs an iterator, those of consumers an ARN.
fn requests(iterator: &str, consumer: &str) -> Vec<(&'static str, Value)> {
    let stream = |more: Value| {
        let mut input = json!({"StreamName": "s"});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let key = json!({"EncryptionType": "KMS", "KeyId": "k"});
    let statement = json!({"Effect": "Allow", "Principal": "*", "Action": "kinesis:*", "Resource": "*"});
    let policy = json!({"Version": "2012-10-17", "Statement": [statement]}).to_string();
    let record = json!({"PartitionKey": "a", "Data": ""});
    vec![
        ("AddTagsToStream", stream(json!({"Tags": {"a": "b"}}))),
        ("CreateStream", json!({"StreamName": "t", "ShardCount": 1})),
        ("DecreaseStreamRetentionPeriod", stream(json!({"RetentionPeriodHours": 24}))),
        ("DeleteResourcePolicy", json!({"ResourceARN": ARN})),
        ("DeregisterStreamConsumer", json!({"ConsumerARN": consumer})),
        ("DescribeAccountSettings", json!({})),
        ("DescribeLimits", json!({})),
        ("DescribeStream", stream(json!({}))),
        ("DescribeStreamConsumer", json!({"StreamARN": ARN, "ConsumerName": "c"})),
        ("DescribeStreamSummary", stream(json!({}))),
        ("DisableEnhancedMonitoring", stream(json!({"ShardLevelMetrics": ["ALL"]}))),
        ("EnableEnhancedMonitoring", stream(json!({"ShardLevelMetrics": ["ALL"]}))),
        ("GetRecords", json!({"ShardIterator": iterator})),
        ("GetResourcePolicy", json!({"ResourceARN": consumer})),
        ("GetShardIterator", stream(json!({"ShardId": "shardId-0", "ShardIteratorType": "LATEST"}))),
        ("IncreaseStreamRetentionPeriod", stream(json!({"RetentionPeriodHours": 48}))),
        ("ListShards", stream(json!({}))),
        ("ListStreamConsumers", json!({"StreamARN": ARN})),
        ("ListStreams", json!({})),
        ("ListTagsForResource", json!({"ResourceARN": ARN})),
        ("ListTagsForStream", stream(json!({}))),
        ("MergeShards", stream(json!({"ShardToMerge": "0", "AdjacentShardToMerge": "1"}))),
        ("PutRecord", stream(record.clone())),
        ("PutRecords", stream(json!({"Records": [record], "DryRun": true}))),
        ("PutResourcePolicy", json!({"ResourceARN": ARN, "Policy": policy})),
        ("RegisterStreamConsumer", json!({"StreamARN": ARN, "ConsumerName": "d"})),
        ("RemoveTagsFromStream", stream(json!({"TagKeys": ["a"]}))),
        ("SplitShard", stream(json!({"ShardToSplit": "0", "NewStartingHashKey": "9"}))),
        ("StartStreamEncryption", stream(key.clone())),
        ("StopStreamEncryption", stream(key)),
        (
            "SubscribeToShard",
            json!({"ConsumerARN": consumer, "ShardId": "shardId-0", "StartingPosition": {"Type": "LATEST"}}),
        ),
        ("TagResource", json!({"ResourceARN": consumer, "Tags": {"a": "b"}})),
        ("UntagResource", json!({"ResourceARN": ARN, "TagKeys": ["a"]})),
        ("UpdateAccountSettings", json!({"MinimumThroughputBillingCommitment": {"Status": "ENABLED"}})),
        ("UpdateMaxRecordSize", json!({"StreamARN": ARN, "MaxRecordSizeInKiB": 2048})),
        ("UpdateShardCount", stream(json!({"TargetShardCount": 4, "ScalingType": "UNIFORM_SCALING"}))),
        ("UpdateStreamMode", json!({"StreamARN": ARN, "StreamModeDetails": {"StreamMode": "ON_DEMAND"}})),
        (
            "UpdateStreamRecordDistributionStrategy",
            json!({"StreamARN": ARN, "RecordDistributionStrategy": "USER_PARTITION_KEY"}),
        ),
        ("UpdateStreamWarmThroughput", stream(json!({"WarmThroughputMiBps": 1}))),
        ("DeleteStream", stream(json!({"EnforceConsumerDeletion": true}))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_is_denied_by_every_operation_and_changes_nothing() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let consumer = kinesis.register("s", "c").await;
    let iterator = kinesis.iterator("s", 0, json!({"ShardIteratorType": "TRIM_HORIZON"})).await;
    let nobody = caller(&kinesis, "statements = []");
    let before = kinesis.summary("s").await;
    let requests = requests(&iterator, &consumer);
    assert_eq!(requests.len(), 40);
    for (operation, input) in &requests {
        let (code, message) = told(&nobody, operation, input).await.unwrap();
        assert_eq!(code, Code::AccessDenied, "{operation}: {message}");
        let named = "User: arn:aws:iam::123456789012:user/app is not authorized to perform: kinesis:";
        assert!(message.starts_with(&format!("{named}{operation} on resource: ")), "{message}");
    }
    assert_eq!(kinesis.summary("s").await, before);
    assert_eq!(kinesis.ok("ListStreams", json!({})).await["StreamNames"], json!(["s"]));
    let absent = json!({"StreamName": "nobody"});
    assert_eq!(told(&nobody, "DescribeStream", &absent).await.unwrap().0, Code::AccessDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credential_may_do_what_its_policies_allow() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 2).await;
    let consumer = kinesis.register("s", "c").await;
    let statements = "
        [[policies.statements]]
        effect = 'allow'
        actions = ['kinesis:Describe*', 'kinesis:PutRecord']
        streams = ['s*']
        [[policies.statements]]
        effect = 'deny'
        actions = ['kinesis:*']
        streams = ['secret']";
    let app = caller(&kinesis, statements);
    let put = |stream: &str| json!({"StreamName": stream, "PartitionKey": "a", "Data": ""});
    for (operation, input) in [
        ("DescribeStreamSummary", json!({"StreamARN": ARN})),
        ("PutRecord", put("s")),
        ("DescribeStreamConsumer", json!({"ConsumerARN": consumer})),
    ] {
        assert_eq!(told(&app, operation, &input).await, None, "{operation}");
    }
    for (operation, input, code) in [
        ("PutRecord", put("other"), Code::AccessDenied),
        ("PutRecord", put("secret"), Code::AccessDenied),
        ("PutRecord", put("s-absent"), Code::ResourceNotFound),
        ("DeleteStream", json!({"StreamName": "s"}), Code::AccessDenied),
        ("DescribeLimits", json!({}), Code::AccessDenied),
    ] {
        assert_eq!(told(&app, operation, &input).await.unwrap().0, code, "{operation} {input}");
    }
}
