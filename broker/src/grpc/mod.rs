//! The native front end: messages to nouns, one engine call, nouns to messages.
//!
//! One file per service of `proto/schema/v1`, beside them health and reflection. What it does not do: decide anything; the
//! engine decides, `tidemill_proto` converts, and the one table from engine errors to wire errors is here.

mod access;
mod admin;
mod control;
mod data;
mod deadline;
mod intake;
mod lease;

use crate::auth::Gate;
use access::Access;
use axum::extract::Request;
use axum::{Router, middleware};
use intake::IntakeRoom;
use std::time::Duration;
use tidemill_engine::{Engine, ErrorKind as Cause, Health};
use tidemill_proto::v1::admin_server::AdminServer;
use tidemill_proto::v1::control_server::ControlServer;
use tidemill_proto::v1::lease_server::LeaseServer;
use tidemill_proto::{Error, ErrorKind};
use tidemill_types::limits::GRPC_MESSAGE_BYTES_MAX;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

type Admin = AdminServer<admin::AdminService>;
type Control = ControlServer<control::ControlService>;
type Lease = LeaseServer<lease::LeaseService>;

/// After this long without records a subscription sends an empty answer, so that its reader knows it is alive.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How soon health watchers learn that storage has failed.
const HEALTH_EVERY: Duration = Duration::from_secs(1);

/// All services as one router, and the switch that tells health watchers of the end.
pub(crate) async fn routes(
    engine: &Engine,
    gate: &Gate,
    stopping: &CancellationToken,
) -> (Router, HealthSwitch) {
    let access = Access::new(engine.clone(), gate.clone());
    let control = ControlServer::new(control::ControlService::new(access.clone()));
    let data = data::DataService::new(access.clone(), stopping.clone());
    let lease = LeaseServer::new(lease::LeaseService::new(access.clone()))
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let admin = AdminServer::new(admin::AdminService::new(access.clone()))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<Admin>().await;
    reporter.set_serving::<Control>().await;
    reporter.set_service_status(data::NAME, ServingStatus::Serving).await;
    reporter.set_serving::<Lease>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tidemill_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let routes = Routes::new(control)
        .add_service(admin)
        .add_service(lease)
        .add_service(health)
        .add_service(reflection().build_v1().expect("the descriptors were compiled with this program"))
        .add_service(reflection().build_v1alpha().expect("the descriptors were compiled with this program"));
    let room = IntakeRoom::default();
    let watch = move |call: Request| std::future::ready(room.watch(call));
    let routes =
        routes.prepare().into_axum_router().merge(data.routes()).layer(middleware::map_request(watch));
    let routes = routes.layer(middleware::from_fn(deadline::keep));
    let guarded = routes.layer(middleware::from_fn_with_state(access, access::guard));
    (guarded, HealthSwitch { reporter })
}

/// What the health service says: serving, until storage has failed or the broker goes.
#[derive(Clone)]
pub(crate) struct HealthSwitch {
    reporter: HealthReporter,
}

impl HealthSwitch {
    /// Tells watchers when storage refuses writes for good. Reads go on, so only the data service is not serving.
    pub(crate) async fn follow(self, engine: Engine, stopping: CancellationToken) {
        while tokio::time::timeout(HEALTH_EVERY, stopping.cancelled()).await.is_err() {
            if matches!(engine.health(), Health::Poisoned(_)) {
                self.reporter.set_service_status(data::NAME, ServingStatus::NotServing).await;
                return;
            }
        }
    }

    /// Tells watchers that the broker goes, and ends their watching.
    pub(crate) async fn not_serving(mut self) {
        use tonic::server::NamedService;
        for service in ["", Admin::NAME, Control::NAME, data::NAME, Lease::NAME] {
            self.reporter.set_service_status(service, ServingStatus::NotServing).await;
            self.reporter.clear_service_status(service).await;
        }
    }
}

/// What the engine says, in the words of the wire: the one table.
fn told(error: &tidemill_engine::Error) -> Error {
    let kind = match error.kind() {
        Cause::Invalid => ErrorKind::Invalid,
        Cause::NotFound => ErrorKind::NotFound,
        Cause::AlreadyExists => ErrorKind::AlreadyExists,
        Cause::Conflict => ErrorKind::Conflict,
        Cause::Precondition => ErrorKind::Invalid,
        // goes on as soon as the operator has put the key right
        Cause::KeyNotFound | Cause::KeyUnusable | Cause::KeyDisabled | Cause::KeyDenied => {
            ErrorKind::Unavailable
        }
        Cause::ShardClosed => ErrorKind::ShardClosed,
        Cause::Throttled => ErrorKind::Throttled,
        Cause::Unavailable => ErrorKind::Unavailable,
        Cause::UnknownOutcome => ErrorKind::UnknownOutcome,
        Cause::Damaged => ErrorKind::Damaged,
        Cause::Internal => ErrorKind::Internal,
    };
    if matches!(kind, ErrorKind::Damaged | ErrorKind::Internal) {
        // the caller is told, but only the operator can act
        tracing::error!(%error, "a request met a fault of the broker");
    }
    Error::new(kind, error.to_string())
}

fn going_away() -> Error {
    Error::new(ErrorKind::Unavailable, "the broker is shutting down")
}

fn credentials_changed() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the credentials that the broker knows have changed, or the caller's has expired: call again",
    )
}
