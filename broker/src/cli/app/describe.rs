//! `tidemill app describe`: each shard, who works on it, how far the application is behind, and why nobody does.

use super::standing::Standing;
use super::{Common, all, text};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use std::collections::HashSet;
use tidemill_proto::client::{Apps, LeaseDescription};
use tidemill_types::{AppName, StreamName};

/// The leases of an application on one stream.
struct OnStream {
    stream: StreamName,
    leases: Vec<LeaseDescription>,
}

pub(super) async fn run(app: &AppName, stream: Option<&StreamName>, common: &Common) -> Result<()> {
    let apps = common.connection.apps().await?;
    let streams = match stream {
        Some(stream) => vec![stream.clone()],
        None => streams_of(&apps, app).await?,
    };
    let mut found = Vec::new();
    for stream in streams {
        let leases = apps.leases(app, &stream).await?;
        if leases.iter().any(|lease| lease.epoch.get() > 0) {
            found.push(OnStream { stream, leases });
        }
    }
    if found.is_empty() {
        let place = stream.map_or_else(String::new, |stream| format!(" on stream {stream}"));
        return Err(Error::failed(format!("application {app} has no leases{place}; is the name right?")));
    }
    let streams: Vec<_> = found.iter().map(OnStream::json).collect();
    common.print(&json!({ "app": app.as_str(), "streams": streams }), || {
        found.iter().map(|on| on.text(app)).collect::<Vec<_>>().join("\n\n")
    })
}

async fn streams_of(apps: &Apps, app: &AppName) -> Result<Vec<StreamName>> {
    let found = all(apps).await?.into_iter().filter(|known| known.app == *app);
    Ok(found.flat_map(|known| known.streams).map(|on| on.stream).collect())
}

impl OnStream {
    /// Records behind in all shards where that can be told.
    fn records_behind(&self) -> u64 {
        self.leases.iter().filter_map(|lease| lease.records_behind).sum()
    }
    /// The age of the oldest record behind.
    fn millis_behind(&self) -> u64 {
        self.leases.iter().filter_map(|lease| lease.millis_behind).max().unwrap_or_default()
    }

    fn json(&self) -> Value {
        let leases: Vec<_> = self.leases.iter().map(|lease| lease_json(lease, &self.leases)).collect();
        json!({
            "stream": self.stream.as_str(),
            "records_behind": self.records_behind(),
            "millis_behind": self.millis_behind(),
            "leases": leases,
        })
    }

    fn text(&self, app: &AppName) -> String {
        let held: Vec<_> = self.leases.iter().filter(|lease| lease.expires_in_ms > 0).collect();
        let workers: HashSet<_> = held.iter().filter_map(|lease| lease.owner.as_ref()).collect();
        let summary = format!(
            "application {app} on stream {}: {} shards, {} held by {} workers, {} records behind, the oldest for {}",
            self.stream,
            self.leases.len(),
            held.len(),
            workers.len(),
            self.records_behind(),
            text::duration(self.millis_behind()),
        );
        let unknown = || "?".to_owned();
        let row = |lease: &LeaseDescription| {
            vec![
                lease.shard.id.to_string(),
                if lease.shard.is_open() { "open" } else { "closed" }.to_owned(),
                lease.records_behind.map_or_else(unknown, |records| records.to_string()),
                lease.millis_behind.map_or_else(unknown, text::duration),
                lease.epoch.to_string(),
                text::checkpoint(lease.checkpoint),
                Standing::of(lease, &self.leases).to_string(),
            ]
        };
        let rows: Vec<_> = self.leases.iter().map(row).collect();
        let head = ["SHARD", "STATE", "BEHIND", "SINCE", "EPOCH", "CHECKPOINT", "STANDING"];
        format!("{summary}\n{}", text::table(&head, &rows))
    }
}

fn lease_json(lease: &LeaseDescription, all: &[LeaseDescription]) -> Value {
    let standing = Standing::of(lease, all);
    let pending = lease.pending.as_ref().map(|pending| text::checkpoint_json(Some(pending.at())));
    json!({
        "shard": lease.shard.id.to_string(),
        "state": if lease.shard.is_open() { "open" } else { "closed" },
        "owner": lease.owner.as_ref().map(ToString::to_string),
        "epoch": lease.epoch.get(),
        "expires_in_ms": lease.expires_in_ms,
        "checkpoint": text::checkpoint_json(lease.checkpoint),
        "pending_checkpoint": pending,
        "records_behind": lease.records_behind,
        "millis_behind": lease.millis_behind,
        "bytes_per_s": lease.bytes_per_s,
        "successor": lease.successor.as_ref().map(ToString::to_string),
        "handoff_in_ms": lease.handoff_in_ms,
        "standing": standing.word(),
        "why": standing.to_string(),
    })
}
