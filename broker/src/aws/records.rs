//! Putting records and reading them back.

use super::error::{self, ApiError, Code, rate_exceeded, shard_gone};
use super::iterator::ShardIterator;
use super::shape::{
    ChildShard, GetRecordsInput, GetRecordsOutput, GetShardIteratorInput, GetShardIteratorOutput, GoOn,
    PutEntry, PutOutcome, PutRecordInput, PutRecordOutput, PutRecordsInput, PutRecordsOutput,
};
use super::validate::data_too_long;
use super::{AwsState, Call};
use tidemill_engine::{ErrorKind, NumberProblem, Placed, Stream};
use tidemill_types::limits::{
    GET_RECORDS_BYTES_MAX, GET_RECORDS_MAX, PUT_RECORDS_BYTES_MAX, RECORD_BYTES_DEFAULT,
};
use tidemill_types::{
    AccountId, HashKey, PartitionKey, Position, Record, SequenceNumber, ShardId, StreamName, TimestampMs,
};

type Result<T> = std::result::Result<T, ApiError>;

fn unless_dry_run(dry_run: bool) -> Result<()> {
    if dry_run {
        let message = "The request would have succeeded, but the DryRun flag is set.";
        return Err(ApiError::new(Code::DryRunOperation, message));
    }
    Ok(())
}

pub(crate) async fn put_record(call: Call, input: PutRecordInput) -> Result<PutRecordOutput> {
    let record = into_record(input.entry, "data")?;
    let (name, stream) = input.stream.open(&call.state)?;
    check_order(input.after.as_deref(), &stream, &name, &call.state)?;
    unless_dry_run(input.dry_run)?;
    let shard = stream.map().route(record.hash_key()).id;
    let placed = stream.put(vec![record]).await.pop();
    let placed = placed.ok_or_else(|| ApiError::bare(Code::InternalFailure))?;
    placed.map(PutRecordOutput).map_err(|error| error::of_put(&error, shard, &name, call.state.account()))
}

pub(crate) async fn put_records(call: Call, input: PutRecordsInput) -> Result<PutRecordsOutput> {
    let entries = input.entries.unwrap_or_default().into_iter().enumerate();
    let records = entries
        .map(|(place, entry)| into_record(entry, &format!("records.{}.member.data", place + 1)))
        .collect::<Result<Vec<Record>>>()?;
    if records.iter().map(Record::counted_bytes).sum::<usize>() > PUT_RECORDS_BYTES_MAX {
        let mib = PUT_RECORDS_BYTES_MAX / (1024 * 1024);
        return Err(ApiError::invalid(format!("Records size exceeds {mib} MB limit")));
    }
    let (name, stream) = input.stream.open(&call.state)?;
    unless_dry_run(input.dry_run)?;
    let hashes: Vec<HashKey> = records.iter().map(Record::hash_key).collect();
    let placed = stream.put(records).await;
    outcomes(placed, &hashes, &stream, &name, call.state.account()).map(PutRecordsOutput)
}

/// Entries fail alone, unless the stream went away under all of them.
fn outcomes(
    placed: Vec<tidemill_engine::Result<Placed>>,
    hashes: &[HashKey],
    stream: &Stream,
    name: &StreamName,
    account: &AccountId,
) -> Result<Vec<PutOutcome>> {
    let gone = |result: &tidemill_engine::Result<Placed>| {
        result.as_ref().err().is_some_and(|error| error.kind() == ErrorKind::NotFound)
    };
    if placed.iter().all(gone) {
        return Err(error::stream_not_found(name, account));
    }
    warn_of_failures(&placed, name);
    let map = stream.map();
    let outcome = |(result, hash): (tidemill_engine::Result<Placed>, &HashKey)| match result {
        Ok(placed) => PutOutcome::Placed(placed),
        Err(error) if error.kind() == ErrorKind::Throttled => PutOutcome::Failed {
            code: Code::ProvisionedThroughputExceeded.name(),
            message: rate_exceeded(map.route(*hash).id, name, account),
        },
        Err(_) => PutOutcome::Failed {
            code: Code::InternalFailure.name(),
            message: "Internal Service Failure".to_owned(),
        },
    };
    Ok(placed.into_iter().zip(hashes).map(outcome).collect())
}

/// One line for a request: on a full disk all its records fail for the same reason. Throttling is the client's matter.
fn warn_of_failures(placed: &[tidemill_engine::Result<Placed>], name: &StreamName) {
    let errors = placed.iter().filter_map(|result| result.as_ref().err());
    let mut failures = errors.filter(|error| error.kind() != ErrorKind::Throttled).peekable();
    if let Some(&first) = failures.peek() {
        let (records, kind) = (failures.count(), first.kind());
        tracing::warn!(stream = %name, records, ?kind, error = %first, "records not put");
    }
}

/// The record of an entry that passed validation; `path` names its data in messages.
fn into_record(entry: PutEntry, path: &str) -> Result<Record> {
    let invalid = |error: tidemill_types::Error| ApiError::invalid(error.to_string());
    let data = entry.data.unwrap_or_default();
    let key = PartitionKey::new(&entry.partition_key.unwrap_or_default()).map_err(invalid)?;
    let room = RECORD_BYTES_DEFAULT - key.as_str().len();
    if data.len() > room {
        let max = if data.len() > RECORD_BYTES_DEFAULT { RECORD_BYTES_DEFAULT } else { room };
        return Err(data_too_long(path, data.len(), max));
    }
    let record = Record::new(key, data).map_err(invalid)?;
    let Some(text) = entry.explicit_hash_key else { return Ok(record) };
    let hash = text.parse::<HashKey>().map_err(|_| {
        ApiError::invalid(format!(
            "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
        ))
    })?;
    Ok(record.with_explicit_hash(hash))
}

/// SequenceNumberForOrdering must be below the tip of its shard in this stream; then every later number is above it.
fn check_order(after: Option<&str>, stream: &Stream, name: &StreamName, state: &AwsState) -> Result<()> {
    let Some(text) = after else { return Ok(()) };
    let ours = |number: &SequenceNumber| {
        let past = number.time_s() <= state.now().seconds();
        past && stream.check_number(number.shard(), number).is_ok()
    };
    match text.parse().ok().filter(ours) {
        Some(_) => Ok(()),
        None => Err(ApiError::invalid(format!(
            "ExclusiveMinimumSequenceNumber {text} used in PutRecord on stream {name} under account {} is invalid.",
            state.account()
        ))),
    }
}

pub(crate) async fn get_shard_iterator(
    call: Call,
    input: GetShardIteratorInput,
) -> Result<GetShardIteratorOutput> {
    let (state, now) = (&call.state, call.state.now());
    let name = input.stream.resolve(state)?;
    let text = input.shard.as_deref().unwrap_or_default();
    let shard: ShardId = text.parse().map_err(|_| error::shard_not_found(text, &name, state.account()))?;
    let place = Place { shard, name: &name, account: state.account() };
    let position = place.position(&input, now)?;
    let stream =
        state.engine().stream(&state.key(&name)).map_err(|e| error::of_shard(&e, shard, &name, state.account()))?;
    place.check_number(&stream, position)?;
    let resolved = stream.resolve(shard, position).await;
    let index = resolved.map_err(|e| error::of_shard(&e, shard, &name, state.account()))?;
    unless_dry_run(input.dry_run)?;
    let incarnation = stream.info().incarnation;
    let iterator = ShardIterator { stream: name, incarnation, shard, index, minted: now };
    Ok(GetShardIteratorOutput(state.tokens().seal_iterator(&iterator)))
}

/// Where an iterator is asked for: the checks of GetShardIterator with their wordings.
struct Place<'a> {
    shard: ShardId,
    name: &'a StreamName,
    account: &'a AccountId,
}

impl Place<'_> {
    fn position(&self, input: &GetShardIteratorInput, now: TimestampMs) -> Result<Position> {
        let kind = input.kind.as_deref().unwrap_or_default();
        let numbered = matches!(kind, "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER");
        let misfit = |found: &str| {
            ApiError::invalid(format!(
                "Must either specify (1) AT_SEQUENCE_NUMBER or AFTER_SEQUENCE_NUMBER and StartingSequenceNumber or \
                 (2) TRIM_HORIZON or LATEST and no StartingSequenceNumber. Request specified {kind} and {found} \
                 StartingSequenceNumber."
            ))
        };
        match &input.number {
            Some(_) if !numbered => return Err(misfit("also a")),
            None if numbered => return Err(misfit("no")),
            _ => {}
        }
        let number = || self.parse_number(input.number.as_deref().unwrap_or_default());
        match kind {
            "AT_SEQUENCE_NUMBER" => number().map(Position::At),
            "AFTER_SEQUENCE_NUMBER" => number().map(Position::After),
            "AT_TIMESTAMP" => time_asked(input.time, now).map(Position::AtTime),
            "LATEST" => Ok(Position::Latest),
            _ => Ok(Position::TrimHorizon),
        }
    }

    fn parse_number(&self, text: &str) -> Result<SequenceNumber> {
        let number: SequenceNumber = text.parse().map_err(|_| self.number_invalid(text, "."))?;
        if number.shard() != self.shard {
            return Err(self.number_elsewhere(number.shard()));
        }
        Ok(number)
    }

    /// That a number was given out by this shard of this stream, not by an earlier one of the same name, nor by nobody yet.
    fn check_number(&self, stream: &Stream, position: Position) -> Result<()> {
        let (Position::At(number) | Position::After(number)) = position else { return Ok(()) };
        if !stream.shards().iter().any(|shard| shard.id == self.shard) {
            return Err(shard_gone(self.shard, self.name, self.account));
        }
        stream.check_number(self.shard, &number).map_err(|problem| match problem {
            NumberProblem::OtherShard(shard) => self.number_elsewhere(shard),
            NumberProblem::OtherStream => {
                self.number_invalid(&number.to_string(), " because it did not come from this stream.")
            }
            NumberProblem::NotYet => self.number_invalid(&number.to_string(), "."),
        })
    }

    fn number_elsewhere(&self, encoded: ShardId) -> ApiError {
        ApiError::invalid(format!(
            "Invalid StartingSequenceNumber. It encodes {encoded}, while it was used in a call to a shard with {}",
            self.shard
        ))
    }

    fn number_invalid(&self, text: &str, ending: &str) -> ApiError {
        ApiError::invalid(format!(
            "StartingSequenceNumber {text} used in GetShardIterator on shard {} in stream {} under account {} is \
             invalid{ending}",
            self.shard, self.name, self.account
        ))
    }
}

fn time_asked(time: Option<TimestampMs>, now: TimestampMs) -> Result<TimestampMs> {
    match time {
        None => Err(ApiError::invalid(
            "Must specify timestampInMillis parameter for iterator of type AT_TIMESTAMP. Current request has no \
             timestamp parameter.",
        )),
        Some(time) if time > now => Err(ApiError::invalid(format!(
            "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
             timestampInMillis: {time}, currentTimestampInMillis: {now}"
        ))),
        Some(time) => Ok(time),
    }
}

pub(crate) async fn get_records(call: Call, input: GetRecordsInput) -> Result<GetRecordsOutput> {
    let (state, now) = (&call.state, call.state.now());
    let text = input.iterator.as_deref().unwrap_or_default();
    let from = state.tokens().open_iterator(text, now).map_err(|error| error.of_iterator(now))?;
    let stream = open_iterated(state, &input, &from)?;
    unless_dry_run(input.dry_run)?;
    let limit = input.limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(GET_RECORDS_MAX);
    let page = stream.read_records(from.shard, from.index, limit, GET_RECORDS_BYTES_MAX).await;
    let page = page.map_err(|error| error::of_shard(&error, from.shard, &from.stream, state.account()))?;
    let go_on = match page.end {
        None => {
            let next = ShardIterator { index: page.next, minted: now, ..from };
            GoOn::At(state.tokens().seal_iterator(&next))
        }
        Some(children) => GoOn::In(children.into_iter().map(ChildShard::from).collect()),
    };
    Ok(GetRecordsOutput { records: page.records, go_on, millis_behind: page.millis_behind })
}

/// The stream an iterator was made for, and no later one of the same name.
fn open_iterated(state: &AwsState, input: &GetRecordsInput, from: &ShardIterator) -> Result<Stream> {
    let addressed = input.stream.name.is_some() || input.stream.arn.is_some();
    if addressed && input.stream.resolve(state)? != from.stream {
        return Err(ApiError::invalid("The ShardIterator is of another stream than StreamARN."));
    }
    let gone = || shard_gone(from.shard, &from.stream, state.account());
    match state.engine().stream(&state.key(&from.stream)) {
        Ok(stream) if stream.info().incarnation == from.incarnation => Ok(stream),
        Ok(_) => Err(gone()),
        Err(error) => Err(error::of_shard(&error, from.shard, &from.stream, state.account())),
    }
}
