//! `tidemill app list|describe|reset|move-lease|delete`: consumer applications, for operators.
//!
//! What an application is to the broker: its leases, one for each shard, each with a checkpoint. What it does not do: start
//! or stop workers; those are processes of the application's own.

mod describe;
mod place;
mod reset;
mod standing;
mod text;

use super::{Connection, output};
use crate::error::{Error, Result};
use place::Place;
use serde_json::{Value, json};
use tidemill_proto::client::{App, Apps, Change};
use tidemill_types::limits::HANDOFF_MS_MAX;
use tidemill_types::{AppName, ShardId, StreamName, WorkerId};

const PAGE: u32 = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List all applications
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show how far an application has come in each shard, who works on it, and why nobody does
    Describe {
        app: AppName,
        /// Only on this stream
        #[arg(long)]
        stream: Option<StreamName>,
        #[command(flatten)]
        common: Common,
    },
    /// Move the checkpoints of an application, also back
    Reset {
        app: AppName,
        #[arg(long)]
        stream: StreamName,
        /// Where to: trim-horizon, latest, a time (RFC 3339, or since the epoch: seconds with up to 11 digits,
        /// milliseconds with 12 to 15), or a sequence number, whose record then comes next
        #[arg(long, value_name = "PLACE")]
        to: Place,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        common: Common,
    },
    /// Have a worker hand a shard over to another one, in order
    MoveLease {
        app: AppName,
        #[arg(long)]
        stream: StreamName,
        /// The shard, such as shardId-000000000000 or 0
        #[arg(long)]
        shard: ShardId,
        /// The worker that is to have it
        #[arg(long, value_name = "WORKER")]
        to: WorkerId,
        /// How long its holder has, in milliseconds, before it may be taken by force
        #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(0..=HANDOFF_MS_MAX))]
        within_ms: u64,
        #[command(flatten)]
        common: Common,
    },
    /// Forget an application: all its leases and checkpoints
    Delete {
        app: AppName,
        /// Only on this stream
        #[arg(long)]
        stream: Option<StreamName>,
        #[command(flatten)]
        terms: Terms,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct Terms {
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
    /// Also while workers hold leases: they lose them
    #[arg(long, conflicts_with = "dry_run")]
    force: bool,
}

impl Terms {
    fn change(self) -> Change {
        match self {
            Self { dry_run: true, .. } => Change::DryRun,
            Self { force: true, .. } => Change::Force,
            _ => Change::Unheld,
        }
    }
}

#[derive(Debug, clap::Args)]
struct Common {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

impl Common {
    fn print(&self, value: &Value, text: impl FnOnce() -> String) -> Result<()> {
        if self.json { output::json(value) } else { output::line(&text()) }
    }
}

pub(super) async fn run(args: Args) -> Result<()> {
    match args.action {
        Action::List { common } => list(&common).await,
        Action::Describe { app, stream, common } => describe::run(&app, stream.as_ref(), &common).await,
        Action::Reset { app, stream, to, terms, common } => {
            reset::run(&app, &stream, to, terms.change(), &common).await
        }
        Action::MoveLease { app, stream, shard, to, within_ms, common } => {
            move_lease(&app, &stream, shard, (&to, within_ms), &common).await
        }
        Action::Delete { app, stream, terms, common } => {
            delete(&app, stream.as_ref(), terms.change(), &common).await
        }
    }
}

/// All applications, page by page.
async fn all(apps: &Apps) -> Result<Vec<App>> {
    let mut found: Vec<App> = Vec::new();
    loop {
        let page = apps.list(found.last().map(|app| &app.app), PAGE).await?;
        let more = page.more && !page.apps.is_empty();
        found.extend(page.apps);
        if !more {
            return Ok(found);
        }
    }
}

async fn list(common: &Common) -> Result<()> {
    let found = all(&common.connection.apps().await?).await?;
    let stream_json = |stream: &tidemill_proto::client::AppStream| {
        json!({
            "stream": stream.stream.as_str(),
            "leases": stream.leases,
            "held": stream.held,
            "workers": stream.workers,
        })
    };
    let app_json = |app: &App| {
        let streams: Vec<_> = app.streams.iter().map(stream_json).collect();
        json!({ "app": app.app.as_str(), "streams": streams })
    };
    let value = json!({ "apps": found.iter().map(app_json).collect::<Vec<_>>() });
    common.print(&value, || {
        let rows = found.iter().flat_map(|app| {
            app.streams.iter().map(|stream| {
                let counts = [stream.leases, stream.held, stream.workers].map(|count| count.to_string());
                [&[app.app.to_string(), stream.stream.to_string()], &counts[..]].concat()
            })
        });
        match rows.collect::<Vec<_>>().as_slice() {
            [] => "no applications".to_owned(),
            rows => text::table(&["APP", "STREAM", "LEASES", "HELD", "WORKERS"], rows),
        }
    })
}

async fn move_lease(
    app: &AppName,
    stream: &StreamName,
    shard: ShardId,
    (to, within_ms): (&WorkerId, u64),
    common: &Common,
) -> Result<()> {
    let apps = common.connection.apps().await?;
    let leases = apps.leases(app, stream).await?;
    let lease = leases.iter().find(|lease| lease.shard.id == shard);
    let lease = lease.ok_or_else(|| Error::failed(format!("stream {stream} has no {shard}")))?;
    if !leases.iter().any(|lease| lease.owner.as_ref() == Some(to)) {
        eprintln!(
            "note: worker {to} holds no lease of application {app} on stream {stream}; if it does not run, \
             {shard} is taken by another worker once the lease that it is given has run out"
        );
    }
    let asked = apps.request_handoff(app, stream, (shard, lease.epoch), to, within_ms).await?;
    let owner = asked.owner.as_ref().map(ToString::to_string).unwrap_or_default();
    let told = json!({
        "shard": shard.to_string(),
        "from": owner,
        "to": to.as_str(),
        "handoff_in_ms": asked.handoff_in_ms,
    });
    common.print(&told, || {
        let left = text::duration(asked.handoff_in_ms);
        format!("asked worker {owner} to hand {shard} over to {to}; it has {left} to do so")
    })
}

async fn delete(app: &AppName, stream: Option<&StreamName>, change: Change, common: &Common) -> Result<()> {
    let leases = common.connection.apps().await?.delete(app, stream, change).await?;
    let told = json!({
        "app": app.as_str(),
        "stream": stream.map(StreamName::as_str),
        "leases": leases,
        "dry_run": change == Change::DryRun,
    });
    common.print(&told, || {
        let done = if change == Change::DryRun { "would forget" } else { "forgot" };
        let place = stream.map_or_else(String::new, |stream| format!(" on stream {stream}"));
        format!("{done} {leases} leases of application {app}{place}")
    })
}
