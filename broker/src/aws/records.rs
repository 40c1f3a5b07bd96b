//! Putting records and reading them back.

use super::Call;
use super::address::Opened;
use super::error::{self, ApiError, Code, rate_exceeded, shard_gone};
use super::iterator::{ShardIterator, TokenError};
use super::shape::{
    ChildShard, GetRecordsInput, GetRecordsOutput, GetShardIteratorInput, GetShardIteratorOutput, GoOn,
    PutEntry, PutOutcome, PutRecordInput, PutRecordOutput, PutRecordsInput, PutRecordsOutput,
};
use super::shards::parse_shard;
use super::validate::Violations;
use bytes::Bytes;
use tidemill_engine::{Distribution, ErrorKind, NumberProblem, Placed, Stream};
use tidemill_types::limits::{GET_RECORDS_BYTES_MAX, GET_RECORDS_MAX, PUT_RECORDS_BYTES_MAX};
use tidemill_types::{
    HashKey, PartitionKey, Position, Record, SequenceNumber, ShardId, StreamKey, TimestampMs,
};

type Result<T> = std::result::Result<T, ApiError>;

pub(super) fn unless_dry_run(dry_run: bool) -> Result<()> {
    if dry_run {
        let message = "The request would have succeeded, but the DryRun flag is set.";
        return Err(ApiError::new(Code::DryRunOperation, message));
    }
    Ok(())
}

pub(crate) async fn put_record(call: Call, input: PutRecordInput) -> Result<PutRecordOutput> {
    let draft = Draft::of(input.entry)?;
    let opened = input.stream.open(&call)?;
    let rules = Rules::of(&opened.stream);
    let record = rules.records(vec![draft], |_, member| member.to_owned())?.pop();
    let record = record.ok_or_else(|| ApiError::bare(Code::InternalFailure))?;
    check_order(input.after.as_deref(), &opened, call.state.now())?;
    unless_dry_run(input.dry_run)?;
    let shard = opened.stream.map().route(record.hash_key()).id;
    let placed = opened.stream.put(vec![record]).await.pop();
    let placed = placed.ok_or_else(|| ApiError::bare(Code::InternalFailure))?;
    let placed = placed.map_err(|error| error::of_put(&error, shard, &opened.key))?;
    Ok(PutRecordOutput { placed, encrypted: rules.encrypted })
}

pub(crate) async fn put_records(call: Call, input: PutRecordsInput) -> Result<PutRecordsOutput> {
    let entries = input.entries.unwrap_or_default().into_iter();
    let drafts = entries.map(Draft::of).collect::<Result<Vec<Draft>>>()?;
    if drafts.iter().map(Draft::counted_bytes).sum::<usize>() > PUT_RECORDS_BYTES_MAX {
        let mib = PUT_RECORDS_BYTES_MAX / (1024 * 1024);
        return Err(ApiError::invalid(format!("Records size exceeds {mib} MB limit")));
    }
    let opened = input.stream.open(&call)?;
    let rules = Rules::of(&opened.stream);
    let records = rules.records(drafts, |place, member| format!("records.{}.member.{member}", place + 1))?;
    unless_dry_run(input.dry_run)?;
    let hashes: Vec<HashKey> = records.iter().map(Record::hash_key).collect();
    let placed = opened.stream.put(records).await;
    Ok(PutRecordsOutput { outcomes: outcomes(placed, &hashes, &opened)?, encrypted: rules.encrypted })
}

/// Entries fail alone, unless all fail for a reason that lies in the stream: it went away, or its key cannot be used.
fn outcomes(
    placed: Vec<tidemill_engine::Result<Placed>>,
    hashes: &[HashKey],
    opened: &Opened,
) -> Result<Vec<PutOutcome>> {
    let map = opened.stream.map();
    let of_stream = |result: &tidemill_engine::Result<Placed>| {
        use ErrorKind::{KeyDenied, KeyDisabled, KeyNotFound, KeyUnusable, NotFound};
        let kind = result.as_ref().err().map(tidemill_engine::Error::kind);
        matches!(kind, Some(NotFound | KeyNotFound | KeyUnusable | KeyDisabled | KeyDenied))
    };
    if let (Some(Err(error)), Some(hash), true) =
        (placed.first(), hashes.first(), placed.iter().all(of_stream))
    {
        return Err(error::of_put(error, map.route(*hash).id, &opened.key));
    }
    warn_of_failures(&placed, &opened.key);
    let outcome = |(result, hash): (tidemill_engine::Result<Placed>, &HashKey)| match result {
        Ok(placed) => PutOutcome::Placed(placed),
        Err(error) if error.kind() == ErrorKind::Throttled => PutOutcome::Failed {
            code: Code::ProvisionedThroughputExceeded.name(),
            message: rate_exceeded(map.route(*hash).id, &opened.key),
        },
        Err(_) => PutOutcome::Failed {
            code: Code::InternalFailure.name(),
            message: "Internal Service Failure".to_owned(),
        },
    };
    Ok(placed.into_iter().zip(hashes).map(outcome).collect())
}

/// One line for a request: on a full disk all its records fail for the same reason. Throttling is the client's matter.
fn warn_of_failures(placed: &[tidemill_engine::Result<Placed>], key: &StreamKey) {
    let errors = placed.iter().filter_map(|result| result.as_ref().err());
    let mut failures = errors.filter(|error| error.kind() != ErrorKind::Throttled).peekable();
    if let Some(&first) = failures.peek() {
        let (records, kind) = (failures.count(), first.kind());
        tracing::warn!(stream = %key.name, account = %key.account, records, ?kind, error = %first, "records not put");
    }
}

/// An entry that passed validation, before its stream is known.
struct Draft {
    key: Option<PartitionKey>,
    hash: Option<HashKey>,
    data: Bytes,
}

impl Draft {
    fn of(entry: PutEntry) -> Result<Self> {
        let key = entry.partition_key.as_deref().map(PartitionKey::new).transpose()?;
        let parse = |text: String| {
            text.parse::<HashKey>().map_err(|_| {
                ApiError::invalid(format!(
                    "Invalid ExplicitHashKey. ExplicitHashKey must be in the range: [0, 2^128-1]. Specified value was {text}"
                ))
            })
        };
        let hash = entry.explicit_hash_key.map(parse).transpose()?;
        Ok(Self { key, hash, data: entry.data.unwrap_or_default() })
    }

    fn key_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, |key| key.as_str().len())
    }

    fn counted_bytes(&self) -> usize {
        self.data.len() + self.key_bytes()
    }
}

/// What a stream demands of records, and does with them.
struct Rules {
    bytes_max: usize,
    distribution: Distribution,
    encrypted: bool,
}

impl Rules {
    fn of(stream: &Stream) -> Self {
        stream.with_settings(|settings| Self {
            bytes_max: settings.record_kib_max as usize * 1024,
            distribution: settings.distribution,
            encrypted: settings.encryption.is_some(),
        })
    }

    /// The records, if every draft keeps the rules; `path` names a member of a draft in messages.
    fn records(&self, drafts: Vec<Draft>, path: impl Fn(usize, &str) -> String) -> Result<Vec<Record>> {
        let mut violations = Violations::default();
        for (place, draft) in drafts.iter().enumerate() {
            if draft.key.is_none() && self.distribution != Distribution::Auto {
                violations.missing(&path(place, "partitionKey"));
            }
            let room = self.bytes_max.saturating_sub(draft.key_bytes());
            let length = draft.data.len();
            if length > room {
                let max = if length > self.bytes_max { self.bytes_max } else { room };
                violations.data_too_long(&path(place, "data"), length, max);
            }
        }
        violations.finish()?;
        drafts.into_iter().map(|draft| self.record(draft)).collect()
    }

    /// A record without a partition key goes anywhere.
    fn record(&self, draft: Draft) -> Result<Record> {
        match (draft.key, draft.hash) {
            (Some(key), hash) => {
                let record = Record::new(key, draft.data)?;
                Ok(hash.into_iter().fold(record, Record::with_explicit_hash))
            }
            (None, hash) => {
                let place = hash.unwrap_or_else(|| HashKey::new(rand::random()));
                Ok(Record::without_key(place, draft.data)?)
            }
        }
    }
}

/// SequenceNumberForOrdering must be below the tip of its shard in this stream; then every later number is above it.
fn check_order(after: Option<&str>, opened: &Opened, now: TimestampMs) -> Result<()> {
    let Some(text) = after else { return Ok(()) };
    let ours = |number: &SequenceNumber| {
        // a shard that came of a reshard may have been created some seconds ahead of the clock
        let past = number.time_s() <= now.seconds().max(number.shard_created_s());
        past && opened.stream.check_number(number.shard(), number).is_ok()
    };
    match text.parse().ok().filter(ours) {
        Some(_) => Ok(()),
        None => Err(ApiError::invalid(format!(
            "ExclusiveMinimumSequenceNumber {text} used in PutRecord on stream {} is invalid.",
            opened.key
        ))),
    }
}

pub(crate) async fn get_shard_iterator(
    call: Call,
    input: GetShardIteratorInput,
) -> Result<GetShardIteratorOutput> {
    let (state, now) = (&call.state, call.state.now());
    let key = input.stream.key(&call)?;
    let shard = parse_shard(input.shard.as_deref().unwrap_or_default(), &key)?;
    let place = Place { shard, key: &key };
    let position = place.position(&input, now)?;
    let Opened { stream, .. } = call.open(key.clone(), |key| shard_gone(shard, key))?;
    call.admit_iterator(&key, shard)?;
    place.check_number(&stream, position)?;
    let resolved = stream.resolve(shard, position).await;
    let index = resolved.map_err(|error| error::of_shard(&error, shard, &key))?;
    unless_dry_run(input.dry_run)?;
    let incarnation = stream.incarnation();
    let iterator = ShardIterator { stream: key, incarnation, shard, index, minted: now };
    Ok(GetShardIteratorOutput(state.tokens().seal_iterator(&iterator)))
}

/// Where an iterator is asked for: the checks of GetShardIterator with their wordings.
struct Place<'a> {
    shard: ShardId,
    key: &'a StreamKey,
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
            return Err(shard_gone(self.shard, self.key));
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
            "StartingSequenceNumber {text} used in GetShardIterator on shard {} in stream {} is invalid{ending}",
            self.shard, self.key
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
    let stream = open_iterated(&call, &input, &from)?;
    unless_dry_run(input.dry_run)?;
    let limit = input.limit.and_then(|n| usize::try_from(n).ok()).unwrap_or(GET_RECORDS_MAX);
    let page = stream.read_records(from.shard, from.index, limit, GET_RECORDS_BYTES_MAX).await;
    let page = page.map_err(|error| error::of_shard(&error, from.shard, &from.stream))?;
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
fn open_iterated(call: &Call, input: &GetRecordsInput, from: &ShardIterator) -> Result<Stream> {
    if input.stream.is_given() && input.stream.key(call)? != from.stream {
        return Err(ApiError::invalid("The ShardIterator is of another stream than StreamARN."));
    }
    // of another account's stream an iterator says no more than that it is of no use
    let ours = from.stream.account == *call.caller.account();
    let absent = |key: &StreamKey| match ours {
        true => shard_gone(from.shard, key),
        false => TokenError::Invalid.of_iterator(from.minted),
    };
    let opened = call.open(from.stream.clone(), absent)?;
    match opened.stream.incarnation() == from.incarnation {
        true => Ok(opened.stream),
        false => Err(shard_gone(from.shard, &opened.key)),
    }
}
