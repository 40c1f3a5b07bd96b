//! HTTP around the API: the order of checks before an operation runs, and how replies and errors look.
//!
//! ```text
//!  body cap → origin → method → empty body → content type → parse → target → caller → operation
//! ```
//!
//! Errors before the content type is known to be good are XML (that of an empty body is CBOR), all later ones are in the
//! encoding of the request. Every reply but a CORS pre-flight carries the two request ids. What it does not do: know
//! any operation.

use super::codec::Encoding;
use super::error::{ApiError, Code};
use super::operation::{self, Answer, Target};
use super::{AwsState, Call, body, eventstream, reply};
use crate::auth::Sender;
use crate::server::Cut;
use axum::body::Body;
use axum::extract::{Request, State};
use http::header::{self, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use std::time::Duration;

/// How long an operation may take. An append past it may or may not have happened.
const ACTION_DEADLINE: Duration = Duration::from_secs(60);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const EXTENDED_REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-id-2");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-amzn-RequestId,x-amzn-ErrorType,x-amz-request-id,x-amz-id-2,x-amzn-ErrorMessage,Date",
);

/// A request in, a reply out; no request goes unanswered.
pub(crate) async fn handle(State(state): State<AwsState>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let known = || state.gate().check_claim(&parts).map_err(ApiError::from);
    let body = body::read(&parts.headers, body, state.budget(), known).await;
    let sender = Sender::of(&parts.headers, state.gate().verifies());
    let mut reply = match body {
        Ok(_) if sender == Sender::ForeignPage => not_authorized(),
        Ok(_) if sender == Sender::Page && parts.method == Method::OPTIONS => {
            return preflight(&parts.headers);
        }
        Ok(body) => answer(state, &parts, body.as_ref()).await,
        Err(error) => {
            let target = target_of(&parts.headers);
            count(&target, error.code().name());
            unread(&parts.headers, &error)
        }
    };
    let headers = reply.headers_mut();
    if sender == Sender::Page {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    headers.insert(REQUEST_ID, ascii(&uuid::Uuid::new_v4().to_string()));
    let id = base64_simd::STANDARD.encode_to_string(rand::random::<[u8; 72]>());
    headers.insert(EXTENDED_REQUEST_ID, ascii(&id));
    reply::watched(reply, parts.extensions.get())
}

/// A header value of text that this program made.
fn ascii(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("the text is ASCII without control characters")
}

async fn answer(state: AwsState, parts: &Parts, body: &[u8]) -> Response<Body> {
    let target = target_of(&parts.headers);
    let media_type = media_type(&parts.headers);
    let encoding = Encoding::from_media_type(media_type);
    match (&parts.method, encoding) {
        (&Method::POST, _) if body.is_empty() => {
            let code = match target {
                Target::Known(_) => Code::Serialization,
                _ => Code::UnknownOperation,
            };
            count(&target, code.name());
            failure(encoding.unwrap_or(Encoding::Cbor), &ApiError::bare(code))
        }
        (&Method::POST, Some(encoding)) => {
            let result = perform(&state, parts, &target, encoding, body).await;
            count(&target, result.as_ref().map_or_else(|error| error.code().name(), |_| "ok"));
            let reply = result.and_then(|answer| success(&state, parts, encoding, answer));
            reply.unwrap_or_else(|error| failure(encoding, &error))
        }
        (&Method::POST, None) => wrong_content_type(media_type, &target, body),
        _ => not_authorized(),
    }
}

/// From a body in a known encoding to what is answered.
async fn perform(
    state: &AwsState,
    parts: &Parts,
    target: &Target,
    encoding: Encoding,
    body: &[u8],
) -> Result<Answer, ApiError> {
    let tree = encoding.decode(body)?;
    let Target::Known(operation) = *target else {
        return Err(ApiError::bare(Code::UnknownOperation));
    };
    // before the check: a change in between is not missed
    let valid = state.gate().validity();
    let caller = state.gate().verify(parts, body, state.now())?;
    let call = Call { state: state.clone(), caller, valid, operation };
    let acting = operation::act(operation, call, tree, encoding);
    let late = |_| {
        let message = format!(
            "{} did not finish within {} seconds; whether it happened is not known.",
            operation.name(),
            ACTION_DEADLINE.as_secs()
        );
        ApiError::new(Code::InternalFailure, message)
    };
    tokio::time::timeout(ACTION_DEADLINE, acting).await.map_err(late).flatten()
}

fn target_of(headers: &HeaderMap) -> Target {
    Target::parse(headers.get("x-amz-target").map(|value| value.to_str().unwrap_or_default()))
}

/// Counts an answer. Names are those of the model and of exceptions, so there are not many of them.
fn count(target: &Target, result: &'static str) {
    let operation = match target {
        Target::Known(operation) => operation.name(),
        _ => "none",
    };
    metrics::counter!("tidemill_kinesis_requests_total", "operation" => operation, "result" => result)
        .increment(1);
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut reply = bare(status, body);
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

fn bare(status: StatusCode, body: Body) -> Response<Body> {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply
}

fn success(
    state: &AwsState,
    parts: &Parts,
    encoding: Encoding,
    answer: Answer,
) -> Result<Response<Body>, ApiError> {
    let (content_type, body) = match answer {
        Answer::Whole(reply) => {
            let unread = parts.extensions.get().map_or(0, Cut::unread);
            (encoding.content_type(), Body::from(state.budget().charge(reply, unread)?))
        }
        Answer::Events(body) => (eventstream::CONTENT_TYPE, body),
    };
    Ok(with_type(StatusCode::OK, content_type, body))
}

/// An exception in the encoding of the request.
fn failure(encoding: Encoding, error: &ApiError) -> Response<Body> {
    let body = Body::from(encoding.encode_error(error));
    let mut reply = with_type(error.code().status(), encoding.content_type(), body);
    reply.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(error.code().name()));
    reply
}

/// The body was not taken. Of one that is late the rest may never come, so its HTTP/1 connection ends.
fn unread(headers: &HeaderMap, error: &ApiError) -> Response<Body> {
    let encoding = Encoding::from_media_type(media_type(headers));
    let mut reply = failure(encoding.unwrap_or(Encoding::Json), error);
    if error.code() == Code::RequestTimeout {
        reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    reply
}

fn xml(status: StatusCode, name: &str, message: &str) -> Response<Body> {
    let message = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    bare(status, Body::from(format!("<{name}>\n  <Message>{message}</Message>\n</{name}>\n")))
}

fn not_authorized() -> Response<Body> {
    let message = "Unable to determine service/operation name to be authorized";
    xml(StatusCode::FORBIDDEN, "AccessDeniedException", message)
}

fn wrong_content_type(media_type: &str, target: &Target, body: &[u8]) -> Response<Body> {
    match target {
        Target::Missing => not_authorized(),
        Target::ForeignService(asked) => {
            let message = format!("No authorization strategy was found for {asked}");
            xml(StatusCode::FORBIDDEN, "UnrecognizedClientException", &message)
        }
        Target::Known(_) if media_type.eq_ignore_ascii_case("application/json") => coral(body),
        // AWS answers 500 where the operation is unknown, too; here no request can bring about a server error
        Target::Unknown | Target::Known(_) => {
            bare(StatusCode::NOT_FOUND, Body::from("<UnknownOperationException/>\n"))
        }
    }
}

/// AWS answers plain JSON in the manner of an older protocol.
fn coral(body: &[u8]) -> Response<Body> {
    let (status, code) = match Encoding::Json.decode(body) {
        Ok(_) => (StatusCode::NOT_FOUND, Code::UnknownOperation),
        Err(_) => (StatusCode::BAD_REQUEST, Code::Serialization),
    };
    let name = code.name();
    let text = format!(r#"{{"Output":{{"__type":"com.amazon.coral.service#{name}"}},"Version":"1.0"}}"#);
    with_type(status, "application/json", Body::from(text))
}

fn preflight(asked: &HeaderMap) -> Response<Body> {
    let mut reply = bare(StatusCode::OK, Body::empty());
    let headers = reply.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("172800"));
    let echoes = [
        (header::ACCESS_CONTROL_REQUEST_HEADERS, header::ACCESS_CONTROL_ALLOW_HEADERS),
        (header::ACCESS_CONTROL_REQUEST_METHOD, header::ACCESS_CONTROL_ALLOW_METHODS),
    ];
    for (question, answer) in echoes {
        if let Some(value) = asked.get(question) {
            headers.insert(answer, value.clone());
        }
    }
    reply
}
