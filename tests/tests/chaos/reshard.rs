//! The stream grows and shrinks: shards are split, merged and scaled at random, 4 to 16 of them open.

use crate::STREAM;
use anyhow::Result;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemill_proto::client::{Channel, Control, Endpoint};
use tidemill_types::{HashKey, StreamName};
use tokio::time::sleep;

const OPEN_MIN: usize = 4;
const OPEN_MAX: usize = 16;
const PAUSE_MS: std::ops::Range<u64> = 500..2500;

/// Reshards until it is calm; how often that was done. What a broker that is killed refuses or leaves open does not count.
pub(crate) async fn reshard_on(endpoint: Endpoint, seed: u64, calm: Arc<AtomicBool>) -> Result<u64> {
    let mut rng = StdRng::seed_from_u64(seed ^ 1);
    let control = Control::new(Channel::lazy(&endpoint), seed);
    let stream = StreamName::new(STREAM)?;
    let mut done = 0;
    while !calm.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(rng.random_range(PAUSE_MS))).await;
        done += u64::from(reshard(&control, &stream, &mut rng).await.is_ok());
    }
    Ok(done)
}

async fn reshard(control: &Control, stream: &StreamName, rng: &mut StdRng) -> tidemill_proto::Result<()> {
    let list = control.list_shards(stream).await?;
    let open = list.map.open();
    let choice = rng.random_range(0..9);
    if choice == 0 {
        let wanted = u32::try_from(rng.random_range(OPEN_MIN..=OPEN_MAX)).expect("small");
        return control.scale_stream(stream, wanted).await.map(drop);
    }
    let splits = open.len() <= OPEN_MIN || (open.len() < OPEN_MAX && choice % 2 == 0);
    if splits {
        let parent = &open[rng.random_range(0..open.len())];
        let at = rng.random_range(parent.range.start().get()..=parent.range.end().get());
        return control.split_shard(stream, parent.id, HashKey::new(at)).await;
    }
    let lower = rng.random_range(0..open.len() - 1);
    control.merge_shards(stream, open[lower].id, open[lower + 1].id).await
}
