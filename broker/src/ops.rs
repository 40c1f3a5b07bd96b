//! For operators: is it alive, is it ready, what does it count.
//!
//! `GET /health/live` answers 200 while the process can answer at all. `GET /health/ready` answers 200 while requests
//! are worth sending, else 503; its JSON says why. `GET /metrics` is the Prometheus text format; it names streams of all
//! accounts, so where there are credentials it is for those of the broker's own account (`Authorization: Basic`), and
//! what exactly failed is told to them alone. What it does not do: count anything itself; the engine and the server keep
//! their own handles.

use crate::auth::{Gate, Refusal};
use crate::aws::Code;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tidemill_engine::Engine;
use tidemill_storage::Health;
use tokio_util::sync::CancellationToken;

/// How often observations are folded into their histograms, read or not.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Bounds of latency histograms, in seconds: a tenth of a millisecond to ten seconds.
const LATENCY_SECONDS: [f64; 16] =
    [0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 10.0];
/// Bounds of histograms of counts and bytes.
const SIZES: [f64; 12] =
    [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 16_777_216.0];

/// What the three pages look at.
#[derive(Clone)]
pub(crate) struct Ops {
    engine: Engine,
    gate: Gate,
    stopping: CancellationToken,
    metrics: Arc<PrometheusHandle>,
}

impl Ops {
    pub(crate) fn new(
        engine: Engine,
        gate: Gate,
        stopping: CancellationToken,
        metrics: Arc<PrometheusHandle>,
    ) -> Self {
        Self { engine, gate, stopping, metrics }
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/health/live", get(live))
            .route("/health/ready", get(ready))
            .route("/metrics", get(metrics_page))
            .with_state(self)
    }

    /// Whether the caller gets to see what an operator does, and others do not.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        self.gate.verify_operator(headers, self.engine.clock().now())
    }

    fn readiness(&self, headers: &HeaderMap) -> (StatusCode, Readiness) {
        if self.stopping.is_cancelled() {
            let reason = Some("the broker is shutting down".to_owned());
            return (StatusCode::SERVICE_UNAVAILABLE, Readiness { status: "stopping", reason });
        }
        match self.engine.health() {
            Health::Healthy => (StatusCode::OK, Readiness { status: "ready", reason: None }),
            Health::Full => {
                let reason =
                    "the disk has no room: reads work, writes are refused until there is some".to_owned();
                (StatusCode::OK, Readiness { status: "degraded", reason: Some(reason) })
            }
            Health::Poisoned(why) => {
                let mut reason =
                    "storage refuses writes after a failure, restart the broker to recover".to_owned();
                if self.admit(headers).is_ok() {
                    reason += &format!(": {why}");
                }
                (StatusCode::SERVICE_UNAVAILABLE, Readiness { status: "not ready", reason: Some(reason) })
            }
        }
    }
}

#[derive(Serialize)]
struct Readiness {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl IntoResponse for Readiness {
    fn into_response(self) -> Response {
        let body = serde_json::to_string(&self).expect("two texts are JSON");
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

async fn live() -> Response {
    Readiness { status: "live", reason: None }.into_response()
}

async fn ready(State(ops): State<Ops>, headers: HeaderMap) -> Response {
    ops.readiness(&headers).into_response()
}

async fn metrics_page(State(ops): State<Ops>, headers: HeaderMap) -> Response {
    if let Err(refusal) = ops.admit(&headers) {
        let status = match refusal.code {
            Code::AccessDenied => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        };
        let asks = (header::WWW_AUTHENTICATE, "Basic realm=\"tidemill\"");
        return (status, [asks], refusal.message + "\n").into_response();
    }
    let content_type = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
    ([content_type], ops.metrics.render()).into_response()
}

/// The recorder of this process, installed by the first caller. It must be there before the engine makes its handles.
pub(crate) fn recorder() -> Arc<PrometheusHandle> {
    static RECORDER: OnceLock<Arc<PrometheusHandle>> = OnceLock::new();
    let install = || {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &LATENCY_SECONDS)
            .and_then(|builder| builder.set_buckets(&SIZES))
            .expect("the lists of bounds are not empty")
            .build_recorder();
        let handle = Arc::new(recorder.handle());
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another recorder of metrics is installed; /metrics stays empty");
        }
        handle
    };
    Arc::clone(RECORDER.get_or_init(install))
}

/// Folds observations into histograms until `stopping`, so that memory stays bounded when nobody reads `/metrics`.
pub(crate) async fn upkeep(metrics: Arc<PrometheusHandle>, stopping: CancellationToken) {
    while tokio::time::timeout(UPKEEP_EVERY, stopping.cancelled()).await.is_err() {
        metrics.run_upkeep();
    }
}
