//! Registering, describing and listing consumers.

use super::Call;
use super::address::{Opened, OpenedConsumer};
use super::error::{self, ApiError, stream_not_found};
use super::iterator::{ConsumerPageToken, TokenError};
use super::listing::{cut, page_size};
use super::room::see_through;
use super::shape::{
    Consumer, ConsumerInput, DescribeStreamConsumerOutput, ListStreamConsumersInput,
    ListStreamConsumersOutput, Nothing, RegisterStreamConsumerInput, RegisterStreamConsumerOutput,
};
use tidemill_engine::{ConsumerInfo, ConsumerUpdate};
use tidemill_types::{ConsumerArn, ConsumerName, StreamArn};

/// Most consumers on a page of ListStreamConsumers (Kinesis).
const CONSUMERS_PAGE_MAX: usize = 100;

type Result<T> = std::result::Result<T, ApiError>;

/// Changes a consumer.
pub(super) async fn update(
    call: &Call,
    consumer: &OpenedConsumer,
    update: ConsumerUpdate,
) -> Result<Nothing> {
    let engine = call.state.engine();
    let updated = engine.update_consumer(&consumer.stream.key, &consumer.info.name, update).await;
    updated.map(|()| Nothing).map_err(|error| error::of_control(&error))
}

fn described(stream: &StreamArn, info: &ConsumerInfo) -> Consumer {
    let created_s = info.created.seconds();
    let arn = ConsumerArn { stream: stream.clone(), consumer: info.name.clone(), created_s };
    Consumer::new(arn, info)
}

pub(crate) async fn register_stream_consumer(
    call: Call,
    input: RegisterStreamConsumerInput,
) -> Result<RegisterStreamConsumerOutput> {
    let name = ConsumerName::new(input.name.as_deref().unwrap_or_default())?;
    let opened = input.stream.open(&call)?;
    let tags = input.tags.unwrap_or_default();
    let room = call.room_for_consumer(&opened, &name)?;
    let (engine, key) = (call.state.engine().clone(), opened.key.clone());
    let registering = async move { engine.register_consumer(&key, &name, tags).await };
    let info = see_through(room, None, registering).await?;
    Ok(RegisterStreamConsumerOutput(described(&call.state.arn(&opened.key), &info)))
}

pub(crate) async fn deregister_stream_consumer(call: Call, input: ConsumerInput) -> Result<Nothing> {
    let consumer = input.0.open(&call)?;
    let engine = call.state.engine();
    let gone = engine.deregister_consumer(&consumer.stream.key, &consumer.info.name).await;
    gone.map(|()| Nothing).map_err(|error| error::of_control(&error))
}

pub(crate) async fn describe_stream_consumer(
    call: Call,
    input: ConsumerInput,
) -> Result<DescribeStreamConsumerOutput> {
    let consumer = input.0.open(&call)?;
    Ok(DescribeStreamConsumerOutput(Consumer::new(consumer.arn, &consumer.info)))
}

pub(crate) async fn list_stream_consumers(
    call: Call,
    input: ListStreamConsumersInput,
) -> Result<ListStreamConsumersOutput> {
    let (state, now) = (&call.state, call.state.now());
    let opened = input.stream.open(&call)?;
    let after = match &input.next_token {
        Some(_) if input.created.is_some() => {
            let message = "NextToken and StreamCreationTimestamp cannot be provided together.";
            return Err(ApiError::invalid(message));
        }
        Some(token) => Some(page_after(&call, &opened, token)?),
        None => None,
    };
    if !opened.was_created(input.created) {
        return Err(stream_not_found(&opened.key));
    }
    let mut consumers = opened.stream.consumers();
    consumers.retain(|info| after.as_ref().is_none_or(|after| info.name > *after));
    let (consumers, more) = cut(consumers, page_size(input.limit, CONSUMERS_PAGE_MAX));
    let next_token = consumers.last().filter(|_| more).map(|last| {
        let (stream, incarnation) = (opened.key.clone(), opened.stream.incarnation());
        let page = ConsumerPageToken { stream, incarnation, after: last.name.clone(), minted: now };
        state.tokens().seal_consumer_page(&page)
    });
    let arn = state.arn(&opened.key);
    let consumers = consumers.iter().map(|info| described(&arn, info)).collect();
    Ok(ListStreamConsumersOutput { consumers, next_token })
}

/// Behind which consumer a page goes on; the token must be of this stream.
fn page_after(call: &Call, opened: &Opened, token: &str) -> Result<ConsumerName> {
    let page =
        call.state.tokens().open_consumer_page(token, call.state.now()).map_err(TokenError::of_page)?;
    if page.stream != opened.key {
        return Err(TokenError::Invalid.of_page());
    }
    if page.incarnation != opened.stream.incarnation() {
        return Err(TokenError::of_earlier_stream(&opened.key));
    }
    Ok(page.after)
}
