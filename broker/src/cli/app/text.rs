//! What people read: tables, durations, places.

use tidemill_types::Checkpoint;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Columns as wide as their widest field; the last one is not filled up.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|name| (*name).to_owned()).collect();
    let width = |column: usize| {
        let fields = rows.iter().chain([&head]).map(|row| row[column].chars().count());
        fields.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let fields = row.iter().zip(&widths).map(|(field, width)| format!("{field:width$}"));
        fields.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    [&head].into_iter().chain(rows).map(line).collect::<Vec<_>>().join("\n")
}

/// Milliseconds, in the unit that suits them.
pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

/// How far a checkpoint has come; for a record, when it arrived.
pub(super) fn checkpoint(checkpoint: Option<Checkpoint>) -> String {
    match checkpoint {
        None => "none".to_owned(),
        Some(Checkpoint::TrimHorizon) => "trim horizon".to_owned(),
        Some(Checkpoint::Latest) => "latest".to_owned(),
        Some(Checkpoint::ShardEnd) => "end of the shard".to_owned(),
        Some(Checkpoint::At { number, .. }) => {
            let seconds = i64::try_from(number.time_s()).ok();
            let time = seconds.and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
            match time.and_then(|time| time.format(&Rfc3339).ok()) {
                Some(time) => format!("record of {time}"),
                None => number.to_string(),
            }
        }
    }
}

/// A checkpoint for programs.
pub(super) fn checkpoint_json(checkpoint: Option<Checkpoint>) -> serde_json::Value {
    match checkpoint {
        None => serde_json::Value::Null,
        Some(Checkpoint::TrimHorizon) => "trim-horizon".into(),
        Some(Checkpoint::Latest) => "latest".into(),
        Some(Checkpoint::ShardEnd) => "shard-end".into(),
        Some(Checkpoint::At { number, .. }) => number.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_types::{SequenceIndex, SequenceNumber, ShardId, TimestampMs};

    #[test]
    fn columns_are_as_wide_as_their_widest_field() {
        let rows = [vec!["a".to_owned(), "b".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(table(&["ONE", "TWO"], &rows), "ONE     TWO\na       b\nlonger");
    }

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (3_250, "3.2 s"),
            (119_999, "119.9 s"),
            (120_000, "2 min"),
            (7_200_000, "2 h"),
            (172_800_000, "2 days"),
        ] {
            assert_eq!(duration(ms), text);
        }
    }

    #[test]
    fn a_checkpoint_at_a_record_tells_when_that_arrived() {
        let shard = ShardId::new(0).unwrap();
        let time = TimestampMs::new(1_795_917_484_999);
        let number = SequenceNumber::new(TimestampMs::new(5), shard, SequenceIndex::new(7).unwrap(), time);
        assert_eq!(checkpoint(Some(Checkpoint::At { number, sub: 0 })), "record of 2026-11-29T01:58:04Z");
        assert_eq!(checkpoint(None), "none");
    }
}
