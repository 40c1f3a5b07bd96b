//! Everything that is decided before an operation runs: methods, content types, targets, bodies, headers.

use super::{Kinesis, Reply};
use crate::aws::body::BODY_BYTES_MAX;
use crate::aws::operation::Operation;
use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::json;

const JSON: &str = "application/x-amz-json-1.1";

async fn raw(kinesis: &Kinesis, method: &str, uri: &str, headers: &[(&str, &str)], body: &str) -> Reply {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    kinesis.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reply_carries_request_ids_and_content_type() {
    let kinesis = Kinesis::start().await;
    for (operation, status) in [("ListStreams", 200), ("Nonsense", 400)] {
        let reply = kinesis.post(operation, JSON, "{}").await;
        assert_eq!(reply.status.as_u16(), status);
        assert_eq!(reply.header("content-type"), JSON);
        assert_eq!(reply.header("x-amzn-requestid").len(), 36);
        assert_eq!(reply.header("x-amz-id-2").len(), 96);
    }
    let body = r#"{"StreamName":"s","ShardCount":1}"#;
    let reply = kinesis.post("CreateStream", &format!("{JSON}; charset=utf-8"), body).await;
    assert_eq!((reply.status, reply.text(), reply.header("content-type")), (StatusCode::OK, "", JSON));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_methods_than_post_are_denied_in_xml_on_every_path() {
    let kinesis = Kinesis::start().await;
    let denied = "<AccessDeniedException>\n  <Message>Unable to determine service/operation name to be \
                  authorized</Message>\n</AccessDeniedException>\n";
    let known = ("x-amz-target", "Kinesis_20131202.ListStreams");
    for (method, uri) in [("GET", "/"), ("PUT", "/a/b"), ("DELETE", "/?x=y"), ("OPTIONS", "/")] {
        let reply = raw(&kinesis, method, uri, &[("content-type", JSON), known], "{}").await;
        assert_eq!((reply.status, reply.text()), (StatusCode::FORBIDDEN, denied), "{method} {uri}");
        assert_eq!(reply.header("content-type"), "");
    }
    let reply = raw(&kinesis, "POST", "/any/path", &[("content-type", JSON), known], "{}").await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_this_machine_get_cors_headers() {
    let kinesis = Kinesis::start().await;
    let asked = [
        ("origin", "http://localhost:3000"),
        ("access-control-request-headers", "x-amz-target"),
        ("access-control-request-method", "POST"),
    ];
    let reply = raw(&kinesis, "OPTIONS", "/", &asked, "").await;
    assert_eq!((reply.status, reply.text()), (StatusCode::OK, ""));
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    assert_eq!(reply.header("access-control-allow-headers"), "x-amz-target");
    assert_eq!(reply.header("access-control-allow-methods"), "POST");
    assert_eq!(reply.header("access-control-max-age"), "172800");
    assert_eq!(reply.header("x-amz-id-2"), "");
    for origin in ["http://localhost", "https://127.0.0.1:8443", "http://[::1]:3000"] {
        let listed =
            [("origin", origin), ("content-type", JSON), ("x-amz-target", "Kinesis_20131202.ListStreams")];
        let reply = raw(&kinesis, "POST", "/", &listed, "{}").await;
        assert_eq!(reply.status, StatusCode::OK, "{origin}");
        assert_eq!(reply.header("access-control-allow-origin"), "*");
        assert!(reply.header("access-control-expose-headers").contains("x-amzn-RequestId"));
    }
}

/// Signatures are not verified, and every origin was once granted: any page in a browser could delete streams.
#[tokio::test(flavor = "multi_thread")]
async fn pages_from_elsewhere_can_do_nothing() {
    let kinesis = Kinesis::start().await;
    let foreign = ["http://x", "https://localhost.example.com", "http://localhost@x", "http://10.0.0.1:3000"];
    let without_host = ["null", "localhost", "", "file://", "http://é"];
    for origin in foreign.into_iter().chain(without_host) {
        for method in ["OPTIONS", "POST"] {
            let create = [
                ("origin", origin),
                ("access-control-request-method", "POST"),
                ("content-type", JSON),
                ("x-amz-target", "Kinesis_20131202.CreateStream"),
            ];
            let reply = raw(&kinesis, method, "/", &create, r#"{"StreamName":"s","ShardCount":1}"#).await;
            assert_eq!(reply.status, StatusCode::FORBIDDEN, "{method} {origin:?}");
            assert!(reply.text().starts_with("<AccessDeniedException>"), "{}", reply.text());
            assert!(!reply.headers.keys().any(|name| name.as_str().starts_with("access-control-")));
        }
    }
    let two = [("origin", "http://localhost"), ("origin", "http://x"), ("content-type", JSON)];
    assert_eq!(raw(&kinesis, "POST", "/", &two, "{}").await.status, StatusCode::FORBIDDEN);
    assert_eq!(kinesis.ok("ListStreams", json!({})).await["StreamNames"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_json_object_are_serialization_exceptions() {
    let kinesis = Kinesis::start().await;
    let bodies: [&[u8]; 8] =
        [b"", b"{", b"hello", b"[]", b"{\"a\":\"\xff\"}", b"\xff\xfe", b"{}x", b"{\"StreamName\":}"];
    for body in bodies {
        let reply = kinesis.post("ListStreams", JSON, body).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        assert_eq!(reply.text(), r#"{"__type":"SerializationException"}"#, "{body:?}");
    }
    for body in ["", "{}"] {
        let reply = kinesis.post("Nonsense", JSON, body).await;
        assert_eq!(reply.text(), r#"{"__type":"UnknownOperationException"}"#, "{body:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_content_types_are_told_in_the_form_of_aws() {
    let kinesis = Kinesis::start().await;
    let reply = kinesis.post("ListStreams", "text/plain", "{}").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (404, "<UnknownOperationException/>\n"));
    let reply = kinesis.post("Nonsense", "text/plain", "{}").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (404, "<UnknownOperationException/>\n"));
    let reply = raw(&kinesis, "POST", "/", &[], "{}").await;
    assert!(reply.status == 403 && reply.text().starts_with("<AccessDeniedException>"));
    let reply = raw(&kinesis, "POST", "/", &[("x-amz-target", "Sns_1.<Go>")], "{}").await;
    let message = "No authorization strategy was found for service: Sns_1, operation: &lt;Go&gt;";
    let expected = format!(
        "<UnrecognizedClientException>\n  <Message>{message}</Message>\n</UnrecognizedClientException>\n"
    );
    assert_eq!((reply.status.as_u16(), reply.text()), (403, expected.as_str()));
    let coral =
        |name| format!(r#"{{"Output":{{"__type":"com.amazon.coral.service#{name}"}},"Version":"1.0"}}"#);
    let reply = kinesis.post("ListStreams", "application/json", "{}").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (404, coral("UnknownOperationException").as_str()));
    let reply = kinesis.post("ListStreams", "application/json", "{").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (400, coral("SerializationException").as_str()));
}

/// Queues and channels are in the model, and to come. They answer in the shape of every error, after parsing.
#[tokio::test(flavor = "multi_thread")]
async fn operations_to_come_say_so() {
    let kinesis = Kinesis::start().await;
    let mut to_come = 0;
    for operation in Operation::ALL {
        let name = operation.name();
        let reply = kinesis.call(name, &json!({"StreamName": true, "Limit": true})).await;
        let missing = reply.text().contains("is not offered by this version");
        assert_eq!(missing, name.contains("Queue") || name.contains("Channel"), "{name}: {}", reply.text());
        if missing {
            to_come += 1;
            let body = reply.json();
            assert_eq!(
                (reply.status, &body["__type"]),
                (StatusCode::BAD_REQUEST, &json!("UnknownOperationException"))
            );
            let unparsed = kinesis.post(name, JSON, "{").await;
            assert_eq!(unparsed.json()["__type"], "SerializationException");
        }
    }
    assert_eq!(to_come, 17);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_past_the_cap_is_refused_and_the_next_request_works() {
    let kinesis = Kinesis::start().await;
    let reply = kinesis.post("PutRecords", JSON, vec![b' '; BODY_BYTES_MAX + 1]).await;
    assert_eq!(reply.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(reply.json()["__type"], "RequestEntityTooLargeException");
    assert_eq!(kinesis.post("ListStreams", JSON, "{}").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_signature_and_none_are_accepted() {
    let kinesis = Kinesis::start().await;
    let target = ("x-amz-target", "Kinesis_20131202.ListStreams");
    for authorization in ["", "garbage", "AWS4-HMAC-SHA256 Credential=AK/x/y/z/aws4_request, Signature=00"] {
        let headers = [("content-type", JSON), target, ("authorization", authorization)];
        assert_eq!(raw(&kinesis, "POST", "/", &headers, "{}").await.status, StatusCode::OK);
    }
}
