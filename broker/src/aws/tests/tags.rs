//! Tags of streams and of consumers, by name and by ARN.

use super::Kinesis;
use serde_json::{Value, json};

const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/s";

fn many(range: std::ops::Range<u32>) -> Value {
    range.map(|n| (format!("key-{n:02}"), json!("v"))).collect::<serde_json::Map<_, _>>().into()
}

fn keys(page: &Value) -> Vec<&str> {
    page["Tags"].as_array().unwrap().iter().map(|tag| tag["Key"].as_str().unwrap()).collect()
}

// covers: AddTagsToStream, RemoveTagsFromStream, ListTagsForStream success
#[tokio::test(flavor = "multi_thread")]
async fn tags_are_merged_removed_and_listed_by_key() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let add = json!({"StreamName": "s", "Tags": {"b": "1", "a": "Ünï /=+-%@:", "c": ""}});
    assert_eq!(kinesis.ok("AddTagsToStream", add).await, Value::Null);
    kinesis.ok("AddTagsToStream", json!({"StreamARN": ARN, "Tags": {"b": "2"}})).await;
    let remove = json!({"StreamName": "s", "TagKeys": ["c", "unknown"]});
    assert_eq!(kinesis.ok("RemoveTagsFromStream", remove).await, Value::Null);
    let page = kinesis.ok("ListTagsForStream", json!({"StreamName": "s"})).await;
    let expected = json!([{"Key": "a", "Value": "Ünï /=+-%@:"}, {"Key": "b", "Value": "2"}]);
    assert_eq!(page, json!({"Tags": expected, "HasMoreTags": false}));
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_listed_page_by_page() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    kinesis.ok("AddTagsToStream", json!({"StreamName": "s", "Tags": many(0..5)})).await;
    let page = kinesis.ok("ListTagsForStream", json!({"StreamName": "s", "Limit": 2})).await;
    assert_eq!((keys(&page), &page["HasMoreTags"]), (vec!["key-00", "key-01"], &json!(true)));
    let rest = json!({"StreamName": "s", "Limit": 3, "ExclusiveStartTagKey": "key-01"});
    let page = kinesis.ok("ListTagsForStream", rest).await;
    assert_eq!((keys(&page), &page["HasMoreTags"]), (vec!["key-02", "key-03", "key-04"], &json!(false)));
}

// covers: AddTagsToStream, TagResource wrong-state
// covers: AddTagsToStream, RemoveTagsFromStream validation
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_at_most_fifty_tags_of_allowed_characters() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    kinesis.ok("AddTagsToStream", json!({"StreamName": "s", "Tags": many(0..50)})).await;
    kinesis.ok("AddTagsToStream", json!({"StreamName": "s", "Tags": many(10..20)})).await;
    let more = json!({"StreamName": "s", "Tags": {"one": "more"}});
    assert_eq!(kinesis.refused("AddTagsToStream", more).await.0, "InvalidArgumentException");
    let more = json!({"ResourceARN": ARN, "Tags": {"one": "more"}});
    assert_eq!(kinesis.refused("TagResource", more).await.0, "InvalidArgumentException");
    let characters = "Some tags contain invalid characters. Valid characters: Unicode letters, digits, white space, _ . / \
                      = + - % @.";
    let bad = json!({"StreamName": "s", "Tags": {"key-00": "a*b"}});
    kinesis.assert_refused("AddTagsToStream", bad, "InvalidArgumentException", characters).await;
    let bad = json!({"StreamName": "s", "TagKeys": ["a*b"]});
    kinesis.assert_refused("RemoveTagsFromStream", bad, "InvalidArgumentException", characters).await;
    let reserved = json!({"StreamName": "s", "Tags": {"aws:x": "v"}});
    assert_eq!(kinesis.refused("AddTagsToStream", reserved).await.0, "InvalidArgumentException");
    let page = kinesis.ok("ListTagsForStream", json!({"StreamName": "s"})).await;
    assert_eq!((keys(&page).len(), &page["HasMoreTags"]), (50, &json!(false)));
}

// covers: TagResource, UntagResource, ListTagsForResource success
#[tokio::test(flavor = "multi_thread")]
async fn streams_and_consumers_are_tagged_by_arn() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = kinesis.register("s", "c").await;
    for arn in [ARN, &consumer] {
        let tag = json!({"ResourceARN": arn, "Tags": {"a": "1", "b": "2"}});
        assert_eq!(kinesis.ok("TagResource", tag).await, Value::Null);
        let untag = json!({"ResourceARN": arn, "TagKeys": ["a", "z"]});
        assert_eq!(kinesis.ok("UntagResource", untag).await, Value::Null);
        let list = kinesis.ok("ListTagsForResource", json!({"ResourceARN": arn})).await;
        assert_eq!(list, json!({"Tags": [{"Key": "b", "Value": "2"}]}), "{arn}");
    }
    let by_name = kinesis.ok("ListTagsForStream", json!({"StreamName": "s"})).await;
    assert_eq!(keys(&by_name), ["b"]);
}

// covers: TagResource, UntagResource, ListTagsForResource not-found
#[tokio::test(flavor = "multi_thread")]
async fn resources_that_are_not_there_are_not_found() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = kinesis.register("s", "c").await;
    let arns = [
        ARN.replace("stream/s", "stream/t"),
        ARN.replace("us-east-1", "eu-west-1"),
        ARN.replace("123456789012", "999999999999"),
        ARN.replace("stream/s", "queue/q"),
        consumer.replace("/c:", "/d:"),
        format!("{consumer}0"),
    ];
    for arn in arns {
        let cases = [
            ("TagResource", json!({"Tags": {"a": "b"}})),
            ("UntagResource", json!({"TagKeys": ["a"]})),
            ("ListTagsForResource", json!({})),
        ];
        for (operation, mut input) in cases {
            input["ResourceARN"] = arn.clone().into();
            let (kind, message) = kinesis.refused(operation, input).await;
            assert_eq!(kind, "ResourceNotFoundException", "{operation} {arn}: {message}");
            assert!(message.ends_with(" not found."), "{message}");
        }
    }
    let bad = json!({"ResourceARN": format!("{ARN}/x")});
    assert_eq!(kinesis.refused("ListTagsForResource", bad).await.0, "InvalidArgumentException");
}
