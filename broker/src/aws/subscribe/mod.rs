//! SubscribeToShard: a registered consumer follows a shard over one long reply (enhanced fan-out).
//!
//! The checks here come before the reply begins and are told like those of any operation; what happens later is told
//! within the stream, see `feed`. Who may follow at one time is kept in `seats`.

mod feed;
mod outlet;
mod seats;

pub(crate) use outlet::EventRoom;
pub(crate) use seats::Seats;

use super::Call;
use super::address::OpenedConsumer;
use super::error::{self, ApiError, Code, shard_not_found};
use super::records::unless_dry_run;
use super::shape::{StartingPosition, SubscribeToShardInput};
use axum::body::Body;
use feed::{Feed, Subject, seat_taken};
use seats::Refused;
use tidemill_engine::NumberProblem;
use tidemill_types::{ConsumerArn, Position, SequenceNumber, ShardId, TimestampMs};

type Result<T> = std::result::Result<T, ApiError>;

pub(crate) async fn subscribe_to_shard(call: Call, input: SubscribeToShardInput) -> Result<Body> {
    let arn = input.consumer.as_deref().unwrap_or_default();
    let arn: ConsumerArn =
        arn.parse().map_err(|e: tidemill_types::Error| ApiError::invalid(e.to_string()))?;
    let now = call.state.now();
    let asked = input.position.unwrap_or_default();
    let position = asked.position(now)?;
    let subject = subject(call.consumer_of(&arn)?, input.shard.as_deref().unwrap_or_default())?;
    check_number(&subject, position)?;
    let shard = subject.shard.id;
    call.state.limits().admit_subscription(&subject.consumer.to_string(), &subject.key, shard)?;
    let told = |error| error::of_shard(&error, shard, &subject.key);
    let from = subject.stream.resolve(shard, position).await.map_err(told)?;
    let subscription = subject.stream.subscribe(shard, from).map_err(told)?.passing_over_damage();
    unless_dry_run(input.dry_run)?;
    let seat =
        call.state.seats().take((subject.consumer.clone(), shard)).map_err(|refused| match refused {
            Refused::Reserved => seat_taken(&subject),
            Refused::Full => {
                let message = "The broker serves as many subscriptions as it can. Retry with back-off.";
                ApiError::new(Code::LimitExceeded, message)
            }
        })?;
    Ok(Feed::new(call, subject, subscription, from, seat).into_body())
}

/// The shard that is meant, of the consumer's stream.
fn subject(opened: OpenedConsumer, text: &str) -> Result<Subject> {
    let (consumer, key, stream) = (opened.arn, opened.stream.key, opened.stream.stream);
    let id = text.parse::<ShardId>().ok();
    let shard = stream.shards().into_iter().find(|shard| Some(shard.id) == id);
    let shard = shard.ok_or_else(|| shard_not_found(text, &key))?;
    Ok(Subject { consumer, key, stream, shard })
}

impl StartingPosition {
    /// What the type demands beside it must be there, and nothing else.
    fn position(&self, now: TimestampMs) -> Result<Position> {
        let kind = self.kind.as_deref().unwrap_or_default();
        let misfit = |what: &str| Err(ApiError::invalid(format!("StartingPosition of type {kind} {what}.")));
        let numbered = matches!(kind, "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER");
        match (kind, &self.number, self.time) {
            (_, None, _) if numbered => misfit("needs a SequenceNumber"),
            (_, Some(_), _) if !numbered => misfit("takes no SequenceNumber"),
            ("AT_TIMESTAMP", _, None) => misfit("needs a Timestamp"),
            (_, _, Some(_)) if kind != "AT_TIMESTAMP" => misfit("takes no Timestamp"),
            ("AT_SEQUENCE_NUMBER", Some(number), _) => parse_number(number).map(Position::At),
            ("AFTER_SEQUENCE_NUMBER", Some(number), _) => parse_number(number).map(Position::After),
            (_, _, Some(time)) if time > now => Err(ApiError::invalid(format!(
                "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis. \
                 timestampInMillis: {time}, currentTimestampInMillis: {now}"
            ))),
            (_, _, Some(time)) => Ok(Position::AtTime(time)),
            ("LATEST", ..) => Ok(Position::Latest),
            _ => Ok(Position::TrimHorizon),
        }
    }
}

fn parse_number(text: &str) -> Result<SequenceNumber> {
    let invalid = |_| ApiError::invalid(format!("StartingSequenceNumber {text} is invalid."));
    text.parse().map_err(invalid)
}

/// That the shard has given out this number, or may have.
fn check_number(subject: &Subject, position: Position) -> Result<()> {
    let (Position::At(number) | Position::After(number)) = position else { return Ok(()) };
    let shard = subject.shard.id;
    subject.stream.check_number(shard, &number).map_err(|problem| {
        let ending = match problem {
            NumberProblem::OtherShard(encoded) => {
                return ApiError::invalid(format!(
                    "Invalid StartingSequenceNumber. It encodes {encoded}, while it was used in a call to a shard with \
                     {shard}"
                ));
            }
            NumberProblem::OtherStream => " because it did not come from this stream.",
            NumberProblem::NotYet => ".",
        };
        ApiError::invalid(format!(
            "StartingSequenceNumber {number} used in SubscribeToShard on shard {shard} in stream {} is invalid{ending}",
            subject.key
        ))
    })
}
