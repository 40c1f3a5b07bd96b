//! Resource policies of streams and consumers: kept by the engine, understood by `auth`.

use super::address::Resource;
use super::error::{ApiError, Code};
use super::shape::{GetResourcePolicyOutput, Nothing, PutResourcePolicyInput, ResourceInput};
use super::{Call, consumers, settings};
use crate::auth::check_policy;
use tidemill_engine::{ConsumerUpdate, StreamUpdate};

type Result<T> = std::result::Result<T, ApiError>;

pub(crate) async fn put_resource_policy(call: Call, input: PutResourcePolicyInput) -> Result<Nothing> {
    let policy = input.policy.unwrap_or_default();
    check_policy(&policy).map_err(ApiError::invalid)?;
    set(&call, &input.resource.open(&call)?, Some(policy)).await
}

pub(crate) async fn get_resource_policy(call: Call, input: ResourceInput) -> Result<GetResourcePolicyOutput> {
    let resource = input.0.open(&call)?;
    policy_of(&resource).map(GetResourcePolicyOutput).ok_or_else(|| not_found(&input))
}

pub(crate) async fn delete_resource_policy(call: Call, input: ResourceInput) -> Result<Nothing> {
    let resource = input.0.open(&call)?;
    policy_of(&resource).ok_or_else(|| not_found(&input))?;
    set(&call, &resource, None).await
}

fn policy_of(resource: &Resource) -> Option<String> {
    match resource {
        Resource::Stream(opened) => opened.stream.with_settings(|settings| settings.policy.clone()),
        Resource::Consumer(consumer) => consumer.info.policy.clone(),
    }
}

fn not_found(input: &ResourceInput) -> ApiError {
    let arn = input.0.arn.as_deref().unwrap_or_default();
    ApiError::new(Code::ResourceNotFound, format!("No resource policy is put on {arn}."))
}

async fn set(call: &Call, resource: &Resource, policy: Option<String>) -> Result<Nothing> {
    match resource {
        Resource::Stream(opened) => settings::update(call, opened, StreamUpdate::Policy(policy)).await,
        Resource::Consumer(consumer) => {
            consumers::update(call, consumer, ConsumerUpdate::Policy(policy)).await
        }
    }
}
