//! One measurement: the same records, whatever takes them.

use super::peer::{Measure, Peer, Program};
use super::running::Running;
use super::{kinesis, nats, redis};
use crate::figure::Figure;
use crate::window::{Meter, Window};
use anyhow::{Context, Result};
use std::time::Duration;
use tokio::task::JoinSet;

pub(super) const RECORD_BYTES: usize = 1024;
/// Shards of a stream; streams where there are no shards.
pub(super) const STREAMS: usize = 8;
/// Of produce and consume.
pub(super) const CONNECTIONS: usize = 4;
/// A consumer reads so many again and again; as many as the load generator of Tidemill fills its streams with.
pub(super) const FILL_RECORDS: usize = (512 << 20) / RECORD_BYTES;
pub(super) const WARMUP: Duration = Duration::from_secs(1);

/// Takes one measurement of a server that has just been started.
pub(super) async fn measure(
    peer: &Peer,
    measure: Measure,
    server: &Running,
    time: Duration,
) -> Result<Figure> {
    let window = || Window::after(WARMUP, time);
    let port = server.port();
    let meter = match (peer.program, measure) {
        (Program::Redis(_), Measure::Consume) => redis::consume(port, window).await?,
        (Program::Redis(_), _) => redis::produce(port, window()).await?,
        (Program::Nats(..), Measure::Consume) => nats::consume(port, window).await?,
        (Program::Nats(_, publish), _) => nats::produce(port, publish, window()).await?,
        _ => return kinesis::measure(peer, measure, port, time).await,
    };
    Ok(meter.figure(measure.name(), peer.name))
}

/// What all connections came to.
pub(super) async fn together(mut tasks: JoinSet<Result<Meter>>, window: Window) -> Result<Meter> {
    let mut all = Meter::new(window);
    while let Some(part) = tasks.join_next().await {
        all.add(&part.context("a connection's task broke off")??);
    }
    Ok(all)
}
