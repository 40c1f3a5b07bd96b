//! Shapes of the tagging operations: by stream (AddTagsToStream, RemoveTagsFromStream, ListTagsForStream) and by ARN
//! (TagResource, UntagResource, ListTagsForResource).

use super::{Address, Input, Output, ResourceAddress};
use crate::aws::codec::{Fields, Members};
use crate::aws::error::ApiError;
use crate::aws::validate::{Check, Presence, TAG_KEY, TAG_VALUE};
use tidemill_engine::Tags;

fn check_tags(tags: Option<&Tags>, check: &mut Check) {
    check.text_map("tags", Presence::Required, tags, (1, 200), (&TAG_KEY, &TAG_VALUE));
}

fn check_keys(keys: Option<&Vec<String>>, check: &mut Check) {
    check.texts("tagKeys", Presence::Required, keys.map(Vec::as_slice), (1, 50), &TAG_KEY);
}

pub(crate) struct AddTagsToStreamInput {
    pub(crate) stream: Address,
    pub(crate) tags: Option<Tags>,
}

impl Input for AddTagsToStreamInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { tags: fields.text_map("Tags")?, stream: Address::read(fields)? })
    }
    fn check(&self, check: &mut Check) {
        check_tags(self.tags.as_ref(), check);
        self.stream.check(check);
    }
}

pub(crate) struct RemoveTagsFromStreamInput {
    pub(crate) stream: Address,
    pub(crate) keys: Option<Vec<String>>,
}

impl Input for RemoveTagsFromStreamInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { keys: fields.text_list("TagKeys")?, stream: Address::read(fields)? })
    }
    fn check(&self, check: &mut Check) {
        check_keys(self.keys.as_ref(), check);
        self.stream.check(check);
    }
}

pub(crate) struct ListTagsForStreamInput {
    pub(crate) stream: Address,
    pub(crate) limit: Option<i32>,
    pub(crate) after: Option<String>,
}

impl Input for ListTagsForStreamInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            limit: fields.integer("Limit")?,
            after: fields.text("ExclusiveStartTagKey")?,
            stream: Address::read(fields)?,
        })
    }
    fn check(&self, check: &mut Check) {
        check.integer("limit", Presence::Optional, self.limit, (1, 50));
        check.text("exclusiveStartTagKey", Presence::Optional, self.after.as_deref(), &TAG_KEY);
        self.stream.check(check);
    }
}

/// One tag.
pub(crate) struct Tag(pub(crate) String, pub(crate) String);

impl Output for Tag {
    fn write(&self, members: &mut Members<'_>) {
        members.text("Key", &self.0);
        members.text("Value", &self.1);
    }
}

pub(crate) struct ListTagsForStreamOutput {
    pub(crate) tags: Vec<Tag>,
    pub(crate) more: bool,
}

impl Output for ListTagsForStreamOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.structures("Tags", &self.tags);
        members.boolean("HasMoreTags", self.more);
    }
}

pub(crate) struct TagResourceInput {
    pub(crate) resource: ResourceAddress,
    pub(crate) tags: Option<Tags>,
}

impl Input for TagResourceInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { tags: fields.text_map("Tags")?, resource: ResourceAddress::read(fields)? })
    }
    fn check(&self, check: &mut Check) {
        check_tags(self.tags.as_ref(), check);
        self.resource.check(check);
    }
}

pub(crate) struct UntagResourceInput {
    pub(crate) resource: ResourceAddress,
    pub(crate) keys: Option<Vec<String>>,
}

impl Input for UntagResourceInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { keys: fields.text_list("TagKeys")?, resource: ResourceAddress::read(fields)? })
    }
    fn check(&self, check: &mut Check) {
        check_keys(self.keys.as_ref(), check);
        self.resource.check(check);
    }
}

pub(crate) struct ListTagsForResourceOutput(pub(crate) Vec<Tag>);

impl Output for ListTagsForResourceOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.structures("Tags", &self.0);
    }
}
