//! `tidemill stream create|list|describe|delete`.

use super::{Connection, output};
use crate::error::Result;
use serde_json::{Value, json};
use tidemill_proto::convert::StreamDescription;
use tidemill_types::limits::{
    RETENTION_HOURS_DEFAULT, RETENTION_HOURS_MAX, RETENTION_HOURS_MIN, SHARDS_PER_STREAM_MAX,
};
use tidemill_types::{Shard, StreamName};

const PAGE: u32 = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Create a stream
    Create {
        stream: StreamName,
        /// Shards, 1 to 10,000
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(SHARDS_PER_STREAM_MAX)))]
        shards: u32,
        /// How long records are kept, 24 to 8,760
        #[arg(long, default_value_t = RETENTION_HOURS_DEFAULT, value_parser = clap::value_parser!(u32).range(i64::from(RETENTION_HOURS_MIN)..=i64::from(RETENTION_HOURS_MAX)))]
        retention_hours: u32,
        #[command(flatten)]
        common: Common,
    },
    /// List all streams
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show a stream and its shards
    Describe {
        stream: StreamName,
        #[command(flatten)]
        common: Common,
    },
    /// Delete a stream and all its records
    Delete {
        stream: StreamName,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(args: Args) -> Result<()> {
    match args.action {
        Action::Create { stream, shards, retention_hours, common } => {
            let made =
                common.connection.control().await?.create_stream(&stream, shards, retention_hours).await?;
            common.print(&stream_json(&made), || format!("created {}", summary(&made)))
        }
        Action::List { common } => list(&common).await,
        Action::Describe { stream, common } => describe(&stream, &common).await,
        Action::Delete { stream, common } => {
            common.connection.control().await?.delete_stream(&stream).await?;
            common.print(&json!({ "deleted": stream.as_str() }), || format!("deleted {stream}"))
        }
    }
}

async fn list(common: &Common) -> Result<()> {
    let control = common.connection.control().await?;
    let mut streams: Vec<StreamDescription> = Vec::new();
    loop {
        let page = control.list_streams(streams.last().map(|stream| &stream.name), PAGE).await?;
        let more = page.more && !page.streams.is_empty();
        streams.extend(page.streams);
        if !more {
            break;
        }
    }
    let all = json!({ "streams": streams.iter().map(stream_json).collect::<Vec<_>>() });
    common.print(&all, || match streams.as_slice() {
        [] => "no streams".to_owned(),
        streams => streams.iter().map(summary).collect::<Vec<_>>().join("\n"),
    })
}

async fn describe(stream: &StreamName, common: &Common) -> Result<()> {
    let control = common.connection.control().await?;
    let found = control.describe_stream(stream).await?;
    let shards = control.list_shards(stream).await?.shards;
    let mut all = stream_json(&found);
    all["shards"] = shards.iter().map(shard_json).collect();
    common.print(&all, || {
        let shards = shards.iter().map(|shard| format!("\n  {}", shard_line(shard))).collect::<String>();
        format!("{}{shards}", summary(&found))
    })
}

impl Common {
    fn print(&self, value: &Value, text: impl FnOnce() -> String) -> Result<()> {
        if self.json { output::json(value) } else { output::line(&text()) }
    }
}

fn summary(stream: &StreamDescription) -> String {
    format!("{}: {} open shards, keeps records {} h", stream.name, stream.open_shards, stream.retention_hours)
}

fn shard_line(shard: &Shard) -> String {
    let state = if shard.is_open() { "open" } else { "closed" };
    format!("{} {state:6} {} to {}", shard.id, shard.range.start(), shard.range.end())
}

fn stream_json(stream: &StreamDescription) -> Value {
    json!({
        "stream": stream.name.as_str(),
        "open_shards": stream.open_shards,
        "retention_hours": stream.retention_hours,
        "created_ms": stream.created.get(),
        "incarnation": stream.incarnation.get(),
    })
}

fn shard_json(shard: &Shard) -> Value {
    json!({
        "shard": shard.id.to_string(),
        "state": if shard.is_open() { "open" } else { "closed" },
        "parent": shard.parent.map(|id| id.to_string()),
        "adjacent_parent": shard.adjacent_parent.map(|id| id.to_string()),
        "hash_start": shard.range.start().to_string(),
        "hash_end": shard.range.end().to_string(),
        "created_ms": shard.created.get(),
        "starting_sequence_number": shard.starting_number().to_string(),
        "ending_sequence_number": shard.ending_number().map(|number| number.to_string()),
    })
}
