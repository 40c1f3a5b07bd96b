//! `tidemill stream create|list|describe|delete|split|merge|scale`.

use super::{Connection, output};
use crate::error::Result;
use serde_json::{Value, json};
use tidemill_proto::convert::StreamDescription;
use tidemill_types::limits::{
    RETENTION_HOURS_DEFAULT, RETENTION_HOURS_MAX, RETENTION_HOURS_MIN, SHARDS_PER_STREAM_MAX,
};
use tidemill_types::{HashKey, Shard, ShardId, StreamName};

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
    #[command(flatten)]
    Reshard(Reshard),
}

#[derive(Debug, clap::Subcommand)]
enum Reshard {
    /// Split an open shard in two
    Split {
        stream: StreamName,
        /// The shard, such as shardId-000000000000 or 0
        #[arg(long)]
        shard: ShardId,
        /// The first hash key of the upper child; the middle if not given
        #[arg(long)]
        at: Option<HashKey>,
        #[command(flatten)]
        common: Common,
    },
    /// Merge two open shards whose ranges touch
    Merge {
        stream: StreamName,
        /// The lower shard
        #[arg(long)]
        shard: ShardId,
        /// The shard that begins where the other ends
        #[arg(long)]
        adjacent: ShardId,
        #[command(flatten)]
        common: Common,
    },
    /// Split and merge until so many open shards share the hash space equally
    Scale {
        stream: StreamName,
        /// Open shards to come to, 1 to 10,000
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..=i64::from(SHARDS_PER_STREAM_MAX)))]
        shards: u32,
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
        Action::Reshard(reshard) => run_reshard(reshard).await,
    }
}

async fn run_reshard(reshard: Reshard) -> Result<()> {
    match reshard {
        Reshard::Split { stream, shard, at, common } => {
            let control = common.connection.control().await?;
            let at = match at {
                Some(at) => at,
                None => middle(&control.list_shards(&stream).await?.shards, shard),
            };
            control.split_shard(&stream, shard, at).await?;
            let told = json!({ "split": shard.to_string(), "at": at.to_string() });
            common.print(&told, || format!("split {shard} of {stream} at {at}"))
        }
        Reshard::Merge { stream, shard, adjacent, common } => {
            common.connection.control().await?.merge_shards(&stream, shard, adjacent).await?;
            let told = json!({ "merged": [shard.to_string(), adjacent.to_string()] });
            common.print(&told, || format!("merged {shard} and {adjacent} of {stream}"))
        }
        Reshard::Scale { stream, shards, common } => {
            let scaled = common.connection.control().await?.scale_stream(&stream, shards).await?;
            let told = json!({ "before": scaled.before, "after": scaled.after });
            common.print(&told, || {
                format!("scaled {stream} from {} to {} open shards", scaled.before, scaled.after)
            })
        }
    }
}

/// Where a shard would be halved; anywhere for one that is not there, which the broker then tells.
fn middle(shards: &[Shard], id: ShardId) -> HashKey {
    let shard = shards.iter().find(|shard| shard.id == id);
    let (start, end) = shard.map_or((0, 0), |shard| (shard.range.start().get(), shard.range.end().get()));
    HashKey::new(start + (end - start) / 2 + u128::from((end - start) % 2 == 1))
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
