//! `tidemill app reset`: where the checkpoints were and are, or would be.

use super::place::Place;
use super::{Common, text};
use crate::error::{Error, Result};
use serde_json::{Value, json};
use tidemill_proto::ErrorKind;
use tidemill_proto::client::{Change, ResetRow};
use tidemill_types::{AppName, StreamName};

pub(super) async fn run(
    app: &AppName,
    stream: &StreamName,
    to: Place,
    change: Change,
    common: &Common,
) -> Result<()> {
    let apps = common.connection.apps().await?;
    let rows = apps.reset(app, stream, to.0, change).await.map_err(|error| match error.kind() {
        ErrorKind::Conflict => Error::failed(format!(
            "{}; nothing was changed (--dry-run shows what would be, --force does it all the same)",
            error.message()
        )),
        _ => error.into(),
    })?;
    let value = json!({
        "app": app.as_str(),
        "stream": stream.as_str(),
        "dry_run": change == Change::DryRun,
        "shards": rows.iter().map(row_json).collect::<Vec<_>>(),
    });
    common.print(&value, || plan(app, stream, &rows, change))
}

fn row_json(row: &ResetRow) -> Value {
    json!({
        "shard": row.shard.to_string(),
        "before": text::checkpoint_json(row.before),
        "after": text::checkpoint_json(row.after),
        "owner": row.owner.as_ref().map(ToString::to_string),
    })
}

/// The plan as people read it.
fn plan(app: &AppName, stream: &StreamName, rows: &[ResetRow], change: Change) -> String {
    let moved = rows.iter().filter(|row| row.before != row.after).count();
    let done = if change == Change::DryRun { "would move" } else { "moved" };
    let holder = |row: &ResetRow| row.owner.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let table: Vec<_> = rows
        .iter()
        .map(|row| {
            let after =
                if row.before == row.after { "as it is".to_owned() } else { text::checkpoint(row.after) };
            vec![row.shard.to_string(), text::checkpoint(row.before), after, holder(row)]
        })
        .collect();
    let mut told = format!(
        "{done} {moved} of {} checkpoints of application {app} on stream {stream}\n{}",
        rows.len(),
        text::table(&["SHARD", "BEFORE", "AFTER", "WORKER"], &table)
    );
    let held = rows.iter().filter(|row| row.owner.is_some()).count();
    if held > 0 {
        told.push('\n');
        told.push_str(&match change {
            Change::DryRun => format!(
                "{held} leases are held: stop the workers first, or use --force, which takes their leases from them"
            ),
            _ => format!("{held} leases were held: their workers have lost them and take them anew"),
        });
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_types::{Checkpoint, ShardId, WorkerId};

    #[test]
    fn the_plan_tells_before_and_after_and_what_to_do_about_workers() {
        let row = |id, before, after, owner: Option<&str>| ResetRow {
            shard: ShardId::new(id).unwrap(),
            before,
            after,
            owner: owner.map(|name| WorkerId::new(name).unwrap()),
        };
        let rows = [
            row(0, Some(Checkpoint::ShardEnd), Some(Checkpoint::TrimHorizon), Some("a")),
            row(1, None, None, None),
        ];
        let (app, stream) = (AppName::new("app").unwrap(), StreamName::new("s").unwrap());
        let told = plan(&app, &stream, &rows, Change::DryRun);
        let expected = "would move 1 of 2 checkpoints of application app on stream s
SHARD                 BEFORE            AFTER         WORKER
shardId-000000000000  end of the shard  trim horizon  a
shardId-000000000001  none              as it is      -
1 leases are held: stop the workers first, or use --force, which takes their leases from them";
        assert_eq!(told, expected);
        assert!(plan(&app, &stream, &rows, Change::Force).contains("have lost them"));
        assert!(!plan(&app, &stream, &rows[1..], Change::Unheld).contains("workers"));
    }
}
