//! Who makes a call, and whether it may: the gate before every service, and what each method asks.
//!
//! ```text
//!  call ─► guard: health passes, others must be verified ─► method: Caller ─► permit(action, stream) ─► engine
//! ```
//!
//! A call that goes on for long ends when the credentials change or that of the caller expires, and asks again every
//! [`PERMITTED_FOR`] whether it may, so that what was taken away does not go on being used;
//! its client calls again, and is verified anew. What it does not do: decide. The rules are in `auth`, the same as those
//! of the Kinesis API: a method is allowed to whoever may do the action of the same name there.

use crate::auth::{Decision, Gate, Verified, decide};
use axum::extract::State;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::time::Duration;
use tidemill_engine::{Engine, Stream};
use tidemill_types::{StreamArn, StreamKey, StreamName};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

/// What a caller was permitted is asked about again after so long.
pub(super) const PERMITTED_FOR: Duration = Duration::from_secs(1);

const HEALTH: &str = "/grpc.health.v1.Health/";

/// What is needed to let a call through to a stream. Cheap to clone.
#[derive(Clone)]
pub(super) struct Access {
    engine: Engine,
    gate: Gate,
}

/// Who makes a call, once the gate has let it pass.
#[derive(Clone)]
pub(super) struct Caller {
    pub(super) verified: Verified,
    /// Is cancelled when the credentials change.
    valid: CancellationToken,
    /// When the credential of the caller does.
    expires_at: Option<Instant>,
}

impl Caller {
    /// Waits until the caller would have to be verified anew.
    pub(super) async fn ended(&self) {
        match self.expires_at {
            Some(end) => tokio::select! {
                () = self.valid.cancelled() => {}
                () = tokio::time::sleep_until(end) => {}
            },
            None => self.valid.cancelled().await,
        }
    }
}

/// Lets a call on to its service together with its [`Caller`], or refuses it.
pub(super) async fn guard(
    State(access): State<Access>,
    mut request: axum::extract::Request,
    next: Next,
) -> Response {
    if !request.uri().path().starts_with(HEALTH) {
        // before the check: a change in between ends the call
        let valid = access.gate.validity();
        let now = access.engine.clock().now();
        match access.gate.verify_basic(request.headers(), now) {
            Ok(verified) => {
                let expires_at = verified.left(now).map(|left| Instant::now() + left);
                request.extensions_mut().insert(Caller { verified, valid, expires_at });
            }
            Err(refusal) => {
                return Status::unauthenticated(refusal.message)
                    .into_http::<axum::body::Body>()
                    .into_response();
            }
        }
    }
    next.run(request).await
}

impl Access {
    pub(super) fn new(engine: Engine, gate: Gate) -> Self {
        Self { engine, gate }
    }
    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The caller, and what it asks.
    pub(super) fn caller<T>(request: Request<T>) -> Result<(Caller, T), Status> {
        let (_, mut extensions, asked) = request.into_parts();
        Ok((Self::caller_of(&mut extensions)?, asked))
    }

    /// The caller, as the gate has left it in a call.
    pub(super) fn caller_of(extensions: &mut http::Extensions) -> Result<Caller, Status> {
        let caller = extensions.remove::<Caller>();
        caller.ok_or_else(|| Status::unauthenticated("the call did not come through the gate"))
    }

    /// The caller's stream of that name, there or not, if it may do `action` to it.
    pub(super) fn permit(&self, caller: &Caller, action: &str, name: &str) -> Result<StreamKey, Status> {
        let name = StreamName::new(name).map_err(tidemill_proto::Error::from)?;
        let key = StreamKey::new(caller.verified.account().clone(), name);
        self.look(caller, action, &key).map(|_| key)
    }

    /// The caller's stream of that name, if it may do `action` to it.
    pub(super) fn open(&self, caller: &Caller, action: &str, name: &str) -> Result<Stream, Status> {
        let name = StreamName::new(name).map_err(tidemill_proto::Error::from)?;
        let key = StreamKey::new(caller.verified.account().clone(), name);
        Ok(self.look(caller, action, &key)?.map_err(|error| super::told(&error))?)
    }

    fn look(
        &self,
        caller: &Caller,
        action: &str,
        key: &StreamKey,
    ) -> Result<tidemill_engine::Result<Stream>, Status> {
        let found = self.engine.stream(key);
        let arn = StreamArn {
            region: self.gate.region().clone(),
            account: key.account.clone(),
            stream: key.name.clone(),
        };
        let policy = found.as_ref().ok().and_then(|s| s.with_settings(|settings| settings.policy.clone()));
        permitted(decide(&caller.verified, action, &arn.to_string(), &key.account, policy.as_deref()))?;
        Ok(found)
    }

    /// Whether the caller may do what concerns its account as a whole.
    pub(super) fn permit_account(&self, caller: &Caller, action: &str) -> Result<(), Status> {
        permitted(decide(&caller.verified, action, "*", caller.verified.account(), None))
    }
}

fn permitted(decision: Decision) -> Result<(), Status> {
    match decision {
        Decision::Allowed => Ok(()),
        Decision::Denied(message) => Err(Status::permission_denied(message)),
        // names are of the caller's own account, where nothing is hidden
        Decision::Hidden => Err(Status::permission_denied("the stream is not of the caller's account")),
    }
}
