//! Reading with GetRecords, as a consumer that catches up.

use super::super::meter::Meter;
use super::super::tasks::Refusals;
use super::api::{self, RecordsReply, not_kinesis};
use super::http::{Http, Reply};
use crate::error::Result;
use tidemill_types::StreamName;
use tokio::time::Instant;

/// Reads its shards one after the other from their beginnings to their ends, again and again.
pub(super) struct Reader {
    pub(super) http: Http,
    pub(super) stream: StreamName,
    pub(super) shards: Vec<String>,
}

/// Whether a pass goes on past the end of the window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Whole,
    UntilOver,
}

impl Reader {
    pub(super) async fn run(self, mut meter: Meter) -> Result<Meter> {
        let mut first = 0;
        for shard in &self.shards {
            let records = self.pass(shard, &mut meter, Pass::Whole).await?;
            meter.read_once(records);
            first += records;
        }
        while first > 0 && !meter.window().is_over() {
            for shard in &self.shards {
                self.pass(shard, &mut meter, Pass::UntilOver).await?;
            }
        }
        Ok(meter)
    }

    /// From the beginning to the end of a shard; the number of its records.
    async fn pass(&self, shard: &str, meter: &mut Meter, pass: Pass) -> Result<u64> {
        let mut iterator = api::beginning(&self.http, &self.stream, shard).await?;
        let mut refusals = Refusals::default();
        let mut records = 0;
        while pass == Pass::Whole || !meter.window().is_over() {
            let began = Instant::now();
            let body = api::get_records_body(&iterator);
            let reply = match self.http.call("GetRecords", body.into()).await? {
                Reply::Done(reply) => reply,
                Reply::Refused(why) => {
                    refusals.another(meter, why).await?;
                    continue;
                }
            };
            refusals.none();
            let reply: RecordsReply<'_> = serde_json::from_slice(&reply).map_err(not_kinesis)?;
            let count = reply.records.iter().filter(|record| !record.data.is_empty()).count() as u64;
            records += count;
            meter.done(began, count);
            match reply.next_shard_iterator {
                Some(next) if count > 0 || reply.millis_behind_latest.unwrap_or(0) > 0 => iterator = next,
                _ => break,
            }
        }
        Ok(records)
    }
}
