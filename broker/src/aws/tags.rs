//! Tags of streams and consumers.

use super::address::{Opened, Resource};
use super::error::ApiError;
use super::listing::{cut, page_size};
use super::shape::{
    AddTagsToStreamInput, ListTagsForResourceOutput, ListTagsForStreamInput, ListTagsForStreamOutput,
    Nothing, RemoveTagsFromStreamInput, ResourceInput, Tag, TagResourceInput, UntagResourceInput,
};
use super::{Call, consumers, settings};
use tidemill_engine::{ConsumerUpdate, StreamUpdate, Tags};
use tidemill_types::limits::TAGS_MAX;

type Result<T> = std::result::Result<T, ApiError>;

fn listed(tags: Tags) -> impl Iterator<Item = Tag> {
    tags.into_iter().map(|(key, value)| Tag(key, value))
}

fn of_stream(opened: &Opened) -> Tags {
    opened.stream.with_settings(|settings| settings.tags.clone())
}

pub(crate) async fn add_tags_to_stream(call: Call, input: AddTagsToStreamInput) -> Result<Nothing> {
    let opened = input.stream.open(&call)?;
    settings::update(&call, &opened, StreamUpdate::Tag(input.tags.unwrap_or_default())).await
}

pub(crate) async fn remove_tags_from_stream(call: Call, input: RemoveTagsFromStreamInput) -> Result<Nothing> {
    let opened = input.stream.open(&call)?;
    settings::update(&call, &opened, StreamUpdate::Untag(input.keys.unwrap_or_default())).await
}

pub(crate) async fn list_tags_for_stream(
    call: Call,
    input: ListTagsForStreamInput,
) -> Result<ListTagsForStreamOutput> {
    let opened = input.stream.open(&call)?;
    let behind = |tag: &Tag| input.after.as_ref().is_none_or(|after| tag.0 > *after);
    let tags = listed(of_stream(&opened)).filter(behind).collect();
    let (tags, more) = cut(tags, page_size(input.limit, TAGS_MAX));
    Ok(ListTagsForStreamOutput { tags, more })
}

pub(crate) async fn tag_resource(call: Call, input: TagResourceInput) -> Result<Nothing> {
    let tags = input.tags.unwrap_or_default();
    match input.resource.open(&call)? {
        Resource::Stream(opened) => settings::update(&call, &opened, StreamUpdate::Tag(tags)).await,
        Resource::Consumer(consumer) => consumers::update(&call, &consumer, ConsumerUpdate::Tag(tags)).await,
    }
}

pub(crate) async fn untag_resource(call: Call, input: UntagResourceInput) -> Result<Nothing> {
    let keys = input.keys.unwrap_or_default();
    match input.resource.open(&call)? {
        Resource::Stream(opened) => settings::update(&call, &opened, StreamUpdate::Untag(keys)).await,
        Resource::Consumer(consumer) => {
            consumers::update(&call, &consumer, ConsumerUpdate::Untag(keys)).await
        }
    }
}

pub(crate) async fn list_tags_for_resource(
    call: Call,
    input: ResourceInput,
) -> Result<ListTagsForResourceOutput> {
    let tags = match input.0.open(&call)? {
        Resource::Stream(opened) => of_stream(&opened),
        Resource::Consumer(consumer) => consumer.info.tags,
    };
    Ok(ListTagsForResourceOutput(listed(tags).collect()))
}
