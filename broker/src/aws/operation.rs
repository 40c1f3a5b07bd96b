//! Operations: every one of the Kinesis model by name, and the handler of each that this version offers.

use super::Call;
use super::codec::{Encoding, Node};
use super::error::{ApiError, Code};
use super::shape::{Input, Output};
use super::validate::Check;
use super::{account, consumers, policies, records, settings, shards, streams, subscribe, tags};
use axum::body::Body;
use std::future::Future;

macro_rules! operations {
    ($($name:ident)*) => {
        /// An operation of the Kinesis model, offered by this version or not.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Operation { $($name),* }

        impl Operation {
            /// The operation of this name, if the model has one.
            pub(crate) fn from_name(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$name),)*
                    _ => None,
                }
            }
            /// The name in the model.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name)),* }
            }
            /// What policies call it.
            pub(crate) const fn action(self) -> &'static str {
                match self { $(Self::$name => concat!("kinesis:", stringify!($name))),* }
            }
            /// Every one.
            pub(crate) const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

operations! {
    AddTagsToStream CreateStream DecreaseStreamRetentionPeriod DeleteResourcePolicy DeleteStream
    DeregisterStreamConsumer DescribeAccountSettings DescribeLimits DescribeStream DescribeStreamConsumer
    DescribeStreamSummary DisableEnhancedMonitoring EnableEnhancedMonitoring GetRecords GetResourcePolicy
    GetShardIterator IncreaseStreamRetentionPeriod ListShards ListStreamConsumers ListStreams
    ListTagsForResource ListTagsForStream MergeShards PutRecord PutRecords PutResourcePolicy
    RegisterStreamConsumer RemoveTagsFromStream SplitShard StartStreamEncryption StopStreamEncryption
    SubscribeToShard TagResource UntagResource UpdateAccountSettings UpdateMaxRecordSize UpdateShardCount
    UpdateStreamMode UpdateStreamRecordDistributionStrategy UpdateStreamWarmThroughput
    AcknowledgeDeadLetterQueueRecords AcknowledgeQueueRecords CreateChannel CreateQueue DeleteChannel
    DeleteQueue DescribeChannel DescribeQueue ListChannels ListQueues ReceiveDeadLetterQueueRecords
    ReceiveQueueRecords RestoreDeadLetterQueueRecords UpdateChannel UpdateDeadLetterQueueRecordsVisibility
    UpdateQueue UpdateQueueRecordsVisibility
}

/// What the `X-Amz-Target` header asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// No header, or one without a service or an operation.
    Missing,
    /// Another service than Kinesis.
    ForeignService(String),
    /// Kinesis, but nothing of its model.
    Unknown,
    /// An operation of the model.
    Known(Operation),
}

impl Target {
    /// Reads the value of the header.
    pub(crate) fn parse(header: Option<&str>) -> Self {
        let (service, operation) = header.unwrap_or_default().split_once('.').unwrap_or_default();
        if service.is_empty() || operation.is_empty() {
            return Self::Missing;
        }
        if service != "Kinesis_20131202" {
            return Self::ForeignService(format!("service: {service}, operation: {operation}"));
        }
        Operation::from_name(operation).map_or(Self::Unknown, Self::Known)
    }
}

/// What an operation answers with.
pub(crate) enum Answer {
    /// All of a reply, in the encoding of the request.
    Whole(Vec<u8>),
    /// Frames of an event stream, as they come.
    Events(Body),
}

/// Acts on a decoded, authenticated request.
pub(crate) async fn act(
    operation: Operation,
    call: Call,
    tree: Node<'_>,
    encoding: Encoding,
) -> Result<Answer, ApiError> {
    tracing::debug!(operation = operation.name(), caller = %call.caller, "kinesis request");
    macro_rules! run {
        ($handler:path) => {
            run($handler, call, tree, encoding).await
        };
    }
    match operation {
        Operation::CreateStream => run!(streams::create_stream),
        Operation::DeleteStream => run!(streams::delete_stream),
        Operation::DescribeStream => run!(streams::describe_stream),
        Operation::DescribeStreamSummary => run!(streams::describe_stream_summary),
        Operation::ListStreams => run!(streams::list_streams),
        Operation::ListShards => run!(shards::list_shards),
        Operation::SplitShard => run!(shards::split_shard),
        Operation::MergeShards => run!(shards::merge_shards),
        Operation::UpdateShardCount => run!(shards::update_shard_count),
        Operation::PutRecord => run!(records::put_record),
        Operation::PutRecords => run!(records::put_records),
        Operation::GetShardIterator => run!(records::get_shard_iterator),
        Operation::GetRecords => run!(records::get_records),
        Operation::SubscribeToShard => {
            subscribe::subscribe_to_shard(call, input(tree, encoding)?).await.map(Answer::Events)
        }
        Operation::RegisterStreamConsumer => run!(consumers::register_stream_consumer),
        Operation::DeregisterStreamConsumer => run!(consumers::deregister_stream_consumer),
        Operation::DescribeStreamConsumer => run!(consumers::describe_stream_consumer),
        Operation::ListStreamConsumers => run!(consumers::list_stream_consumers),
        Operation::AddTagsToStream => run!(tags::add_tags_to_stream),
        Operation::RemoveTagsFromStream => run!(tags::remove_tags_from_stream),
        Operation::ListTagsForStream => run!(tags::list_tags_for_stream),
        Operation::TagResource => run!(tags::tag_resource),
        Operation::UntagResource => run!(tags::untag_resource),
        Operation::ListTagsForResource => run!(tags::list_tags_for_resource),
        Operation::IncreaseStreamRetentionPeriod => run!(settings::increase_retention),
        Operation::DecreaseStreamRetentionPeriod => run!(settings::decrease_retention),
        Operation::UpdateStreamMode => run!(settings::update_mode),
        Operation::UpdateMaxRecordSize => run!(settings::update_record_size),
        Operation::UpdateStreamWarmThroughput => run!(settings::update_warm_throughput),
        Operation::UpdateStreamRecordDistributionStrategy => run!(settings::update_distribution),
        Operation::EnableEnhancedMonitoring => run!(settings::enable_monitoring),
        Operation::DisableEnhancedMonitoring => run!(settings::disable_monitoring),
        Operation::StartStreamEncryption => run!(settings::start_encryption),
        Operation::StopStreamEncryption => run!(settings::stop_encryption),
        Operation::PutResourcePolicy => run!(policies::put_resource_policy),
        Operation::GetResourcePolicy => run!(policies::get_resource_policy),
        Operation::DeleteResourcePolicy => run!(policies::delete_resource_policy),
        Operation::DescribeLimits => run!(account::describe_limits),
        Operation::DescribeAccountSettings => run!(account::describe_account_settings),
        Operation::UpdateAccountSettings => run!(account::update_account_settings),
        other => Err(ApiError::new(
            Code::UnknownOperation,
            format!("{} is not offered by this version of tidemill.", other.name()),
        )),
    }
}

/// Converts and validates: the same for every operation.
fn input<I: Input>(tree: Node<'_>, encoding: Encoding) -> Result<I, ApiError> {
    let input = I::read(&mut tree.into_fields(encoding)?)?;
    Check::all(&input)?;
    Ok(input)
}

/// Takes the input, handles, encodes: the same for every operation that answers at once.
async fn run<I, O, F, H>(
    handler: H,
    call: Call,
    tree: Node<'_>,
    encoding: Encoding,
) -> Result<Answer, ApiError>
where
    I: Input,
    O: Output,
    F: Future<Output = Result<O, ApiError>>,
    H: FnOnce(Call, I) -> F,
{
    let output = handler(call, input(tree, encoding)?).await?;
    Ok(Answer::Whole(encoding.encode(&output)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_57_operations_of_the_model_are_known_by_name() {
        assert_eq!(Operation::ALL.len(), 57);
        for operation in Operation::ALL {
            assert_eq!(Operation::from_name(operation.name()), Some(*operation));
        }
        assert_eq!(Operation::from_name("listStreams"), None);
    }

    #[test]
    fn targets_are_told_apart() {
        let target = |text| Target::parse(Some(text));
        assert_eq!(target("Kinesis_20131202.PutRecord"), Target::Known(Operation::PutRecord));
        assert_eq!(target("Kinesis_20131202.Put"), Target::Unknown);
        assert_eq!(
            target("DynamoDB_20120810.PutItem"),
            Target::ForeignService("service: DynamoDB_20120810, operation: PutItem".into())
        );
        for missing in ["", "Kinesis_20131202", "Kinesis_20131202.", ".PutRecord"] {
            assert_eq!(target(missing), Target::Missing, "{missing:?}");
        }
        assert_eq!(Target::parse(None), Target::Missing);
    }
}
