//! Registered consumers: registering, describing, listing, removing.

use super::{Kinesis, START_MS};
use serde_json::{Value, json};

const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/s";
const NOT_FOUND: &str = "ResourceNotFoundException";
const INVALID: &str = "InvalidArgumentException";

// covers: RegisterStreamConsumer, DescribeStreamConsumer, DeregisterStreamConsumer success
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_registered_described_and_removed() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let input = json!({"StreamARN": ARN, "ConsumerName": "c", "Tags": {"team": "a"}});
    let reply = kinesis.ok("RegisterStreamConsumer", input).await;
    let arn = format!("{ARN}/consumer/c:{}", START_MS / 1000);
    let consumer = json!({
        "ConsumerName": "c", "ConsumerARN": arn, "ConsumerStatus": "ACTIVE",
        "ConsumerCreationTimestamp": 1_700_000_000.0
    });
    assert_eq!(reply, json!({"Consumer": consumer}));
    assert_eq!(kinesis.summary("s").await["ConsumerCount"], 1);
    let tags = kinesis.ok("ListTagsForResource", json!({"ResourceARN": arn})).await;
    assert_eq!(tags["Tags"], json!([{"Key": "team", "Value": "a"}]));
    let mut description = consumer.clone();
    description["StreamARN"] = ARN.into();
    for input in [
        json!({"ConsumerARN": arn}),
        json!({"StreamARN": ARN, "ConsumerName": "c"}),
        json!({"StreamARN": ARN, "ConsumerName": "c", "ConsumerARN": arn}),
    ] {
        let found = kinesis.ok("DescribeStreamConsumer", input).await;
        assert_eq!(found, json!({"ConsumerDescription": description}));
    }
    assert_eq!(kinesis.ok("DeregisterStreamConsumer", json!({"ConsumerARN": arn})).await, Value::Null);
    assert_eq!(kinesis.summary("s").await["ConsumerCount"], 0);
    assert_eq!(kinesis.refused("DescribeStreamConsumer", json!({"ConsumerARN": arn})).await.0, NOT_FOUND);
}

// covers: DescribeStreamConsumer, DeregisterStreamConsumer not-found validation
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_is_found_by_an_address_that_agrees_with_itself_only() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let arn = kinesis.register("s", "c").await;
    let elsewhere = ARN.replace("stream/s", "stream/t");
    let cases = [
        (json!({}), INVALID),
        (json!({"ConsumerName": "c"}), INVALID),
        (json!({"StreamARN": ARN}), INVALID),
        (json!({"ConsumerARN": arn, "ConsumerName": "d"}), INVALID),
        (json!({"ConsumerARN": arn, "StreamARN": elsewhere}), INVALID),
        (json!({"StreamARN": ARN, "ConsumerName": "d"}), NOT_FOUND),
        (json!({"StreamARN": elsewhere, "ConsumerName": "c"}), NOT_FOUND),
        (json!({"ConsumerARN": format!("{arn}1")}), NOT_FOUND),
        (json!({"ConsumerARN": arn.replace("us-east-1", "eu-west-1")}), NOT_FOUND),
        (json!({"ConsumerARN": arn.replace("123456789012", "999999999999")}), NOT_FOUND),
    ];
    for operation in ["DescribeStreamConsumer", "DeregisterStreamConsumer"] {
        for (input, kind) in &cases {
            assert_eq!(kinesis.refused(operation, input.clone()).await.0, *kind, "{operation} {input}");
        }
    }
    kinesis.ok("DescribeStreamConsumer", json!({"ConsumerARN": arn})).await;
}

// covers: RegisterStreamConsumer wrong-state
// covers: DeleteStream wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn names_are_unique_numbers_bounded_and_a_stream_with_consumers_is_not_deleted_unasked() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let arn = kinesis.register("s", "c").await;
    let again = json!({"StreamARN": ARN, "ConsumerName": "c"});
    assert_eq!(kinesis.refused("RegisterStreamConsumer", again.clone()).await.0, "ResourceInUseException");
    for n in 1..20 {
        kinesis.register("s", &format!("c{n}")).await;
    }
    let more = json!({"StreamARN": ARN, "ConsumerName": "more"});
    assert_eq!(kinesis.refused("RegisterStreamConsumer", more).await.0, "LimitExceededException");
    for input in [json!({"StreamName": "s"}), json!({"StreamName": "s", "EnforceConsumerDeletion": false})] {
        assert_eq!(kinesis.refused("DeleteStream", input).await.0, "ResourceInUseException");
    }
    kinesis.ok("DeleteStream", json!({"StreamName": "s", "EnforceConsumerDeletion": true})).await;
    kinesis.create("s", 1).await;
    assert_eq!(kinesis.refused("DescribeStreamConsumer", json!({"ConsumerARN": arn})).await.0, NOT_FOUND);
    let anew = kinesis.ok("RegisterStreamConsumer", again).await;
    assert_ne!(anew["Consumer"]["ConsumerARN"], arn, "an ARN means one consumer only");
}

fn names(page: &Value) -> Vec<&str> {
    let consumers = page["Consumers"].as_array().unwrap();
    consumers.iter().map(|consumer| consumer["ConsumerName"].as_str().unwrap()).collect()
}

// covers: ListStreamConsumers success validation wrong-state
#[tokio::test(flavor = "multi_thread")]
async fn consumers_are_listed_page_by_page_until_their_token_expires() {
    let kinesis = Kinesis::start().await;
    for stream in ["s", "t"] {
        kinesis.create(stream, 1).await;
    }
    for name in ["c", "a", "b"] {
        kinesis.register("s", name).await;
    }
    let operation = "ListStreamConsumers";
    let page = kinesis.ok(operation, json!({"StreamARN": ARN, "MaxResults": 2})).await;
    assert_eq!(names(&page), ["a", "b"]);
    assert_eq!(page["Consumers"][0]["ConsumerStatus"], "ACTIVE");
    let token = page["NextToken"].clone();
    let rest = kinesis.ok(operation, json!({"StreamARN": ARN, "NextToken": token})).await;
    assert_eq!((names(&rest), rest.get("NextToken")), (vec!["c"], None));
    let created = |second: u64| json!({"StreamARN": ARN, "StreamCreationTimestamp": second});
    assert_eq!(names(&kinesis.ok(operation, created(1_700_000_000)).await).len(), 3);
    assert_eq!(kinesis.refused(operation, created(1_600_000_000)).await.0, NOT_FOUND);
    let mut both = created(1_700_000_000);
    both["NextToken"] = token.clone();
    let message = "NextToken and StreamCreationTimestamp cannot be provided together.";
    kinesis.assert_refused(operation, both, INVALID, message).await;
    let shards = kinesis.ok("ListStreams", json!({"Limit": 1})).await["NextToken"].clone();
    for (stream, token) in [("t", &token), ("s", &shards), ("s", &json!("x"))] {
        let input =
            json!({"StreamARN": ARN.replace("stream/s", &format!("stream/{stream}")), "NextToken": token});
        kinesis.assert_refused(operation, input, INVALID, "Invalid NextToken.").await;
    }
    let late = json!({"StreamARN": ARN, "NextToken": token});
    kinesis.clock.advance_ms(300_001);
    assert_eq!(kinesis.refused(operation, late).await.0, "ExpiredNextTokenException");
}
