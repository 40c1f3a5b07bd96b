//! Resource policies of streams and consumers: put, read, removed. What they allow is tested in `accounts`.

use super::Kinesis;
use serde_json::{Value, json};

const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/s";
const NOT_FOUND: &str = "ResourceNotFoundException";

fn policy(action: &str, resource: &str) -> String {
    json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow", "Principal": {"AWS": "999999999999"}, "Action": action, "Resource": resource
        }]
    })
    .to_string()
}

// covers: PutResourcePolicy, GetResourcePolicy, DeleteResourcePolicy success
#[tokio::test(flavor = "multi_thread")]
async fn a_policy_is_kept_as_it_was_put_until_it_is_deleted() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let consumer = kinesis.register("s", "c").await;
    for (arn, action) in [(ARN, "kinesis:PutRecord"), (&consumer, "kinesis:SubscribeToShard")] {
        let of = json!({"ResourceARN": arn});
        for resource in ["*", arn] {
            let text = policy(action, resource);
            let put = json!({"ResourceARN": arn, "Policy": text});
            assert_eq!(kinesis.ok("PutResourcePolicy", put).await, Value::Null);
            assert_eq!(kinesis.ok("GetResourcePolicy", of.clone()).await, json!({"Policy": text}));
        }
        assert_eq!(kinesis.ok("DeleteResourcePolicy", of.clone()).await, Value::Null);
        assert_eq!(kinesis.refused("GetResourcePolicy", of.clone()).await.0, NOT_FOUND);
        assert_eq!(kinesis.refused("DeleteResourcePolicy", of).await.0, NOT_FOUND);
    }
}

// covers: PutResourcePolicy, GetResourcePolicy, DeleteResourcePolicy not-found
#[tokio::test(flavor = "multi_thread")]
async fn policies_belong_to_what_is_there() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let text = policy("kinesis:PutRecord", "*");
    for arn in
        [ARN.replace("stream/s", "stream/t"), format!("{ARN}/consumer/c:1"), ARN.replace("stream", "queue")]
    {
        let put = json!({"ResourceARN": arn, "Policy": text});
        assert_eq!(kinesis.refused("PutResourcePolicy", put).await.0, NOT_FOUND, "{arn}");
        for operation in ["GetResourcePolicy", "DeleteResourcePolicy"] {
            assert_eq!(kinesis.refused(operation, json!({"ResourceARN": arn})).await.0, NOT_FOUND, "{arn}");
        }
    }
}

// covers: PutResourcePolicy validation
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_policy_is_not_kept() {
    let kinesis = Kinesis::start().await;
    kinesis.create("s", 1).await;
    let long = policy("kinesis:PutRecord", &format!("arn:aws:kinesis:{}", "x".repeat(30_000)));
    for bad in ["", "x", "{}", &policy("s3:GetObject", "*"), &policy("kinesis:PutRecord", "s"), &long] {
        let put = json!({"ResourceARN": ARN, "Policy": bad});
        let (kind, message) = kinesis.refused("PutResourcePolicy", put).await;
        assert_eq!(kind, "InvalidArgumentException", "{bad}");
        assert!(!message.is_empty() && message.len() < 400, "{message}");
    }
    assert_eq!(kinesis.refused("GetResourcePolicy", json!({"ResourceARN": ARN})).await.0, NOT_FOUND);
}
