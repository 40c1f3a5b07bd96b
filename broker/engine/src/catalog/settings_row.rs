//! How a stream's settings are written down, behind the other fields of its row. FORMAT.md lists the fields.

use super::settings::{Distribution, Encryption, MetricSet, StreamMode, StreamSettings, Tags};
use crate::error::Result;
use crate::store::row::{RowReader, RowWriter};

/// Appends the settings to a row.
pub(super) fn write(row: RowWriter, settings: &StreamSettings) -> RowWriter {
    let row = row
        .u32(settings.retention_hours)
        .u8(match settings.mode {
            StreamMode::Provisioned => 0,
            StreamMode::OnDemand => 1,
        })
        .u32(settings.record_kib_max)
        .u8(match settings.distribution {
            Distribution::PartitionKey => 0,
            Distribution::Auto => 1,
        })
        .u8(settings.monitoring.bits());
    let row = match settings.warm_mibps {
        None => row.u8(0),
        Some(rate) => row.u8(1).u32(rate),
    };
    let row = match &settings.encryption {
        None => row.u8(0),
        Some(encryption) => row.u8(1).text(&encryption.key_id).u32(encryption.data_key),
    };
    write_policy(write_tags(row, &settings.tags), settings.policy.as_deref())
}

/// Reads what [`write`] wrote.
pub(super) fn read(row: &mut RowReader<'_>) -> Result<StreamSettings> {
    let retention_hours = row.u32()?;
    let mode = match row.u8()? {
        0 => StreamMode::Provisioned,
        1 => StreamMode::OnDemand,
        other => return Err(row.damaged(format!("unknown mode {other}"))),
    };
    let record_kib_max = row.u32()?;
    let distribution = match row.u8()? {
        0 => Distribution::PartitionKey,
        1 => Distribution::Auto,
        other => return Err(row.damaged(format!("unknown distribution {other}"))),
    };
    let bits = row.u8()?;
    let monitoring =
        MetricSet::from_bits(bits).ok_or_else(|| row.damaged(format!("unknown metrics {bits:#x}")))?;
    let warm_mibps = if read_flag(row)? { Some(row.u32()?) } else { None };
    let encryption = match read_flag(row)? {
        false => None,
        true => Some(Encryption { key_id: row.text()?.to_owned(), data_key: row.u32()? }),
    };
    let tags = read_tags(row)?;
    let policy = read_policy(row)?;
    Ok(StreamSettings {
        retention_hours,
        mode,
        record_kib_max,
        distribution,
        warm_mibps,
        monitoring,
        encryption,
        tags,
        policy,
    })
}

/// Appends tags: how many, then key and value of each.
pub(super) fn write_tags(row: RowWriter, tags: &Tags) -> RowWriter {
    let count = u32::try_from(tags.len()).expect("tags are few");
    tags.iter().fold(row.u32(count), |row, (key, value)| row.text(key).text(value))
}

/// Reads what [`write_tags`] wrote.
pub(super) fn read_tags(row: &mut RowReader<'_>) -> Result<Tags> {
    let count = row.u32()?;
    (0..count).map(|_| Ok((row.text()?.to_owned(), row.text()?.to_owned()))).collect()
}

/// Appends a policy, or that there is none.
pub(super) fn write_policy(row: RowWriter, policy: Option<&str>) -> RowWriter {
    match policy {
        None => row.u8(0),
        Some(policy) => row.u8(1).text(policy),
    }
}

/// Reads what [`write_policy`] wrote.
pub(super) fn read_policy(row: &mut RowReader<'_>) -> Result<Option<String>> {
    Ok(if read_flag(row)? { Some(row.text()?.to_owned()) } else { None })
}

/// Reads a byte that says whether something holds, or whether a field follows.
pub(super) fn read_flag(row: &mut RowReader<'_>) -> Result<bool> {
    match row.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(row.damaged(format!("{other} stands for neither yes nor no"))),
    }
}
