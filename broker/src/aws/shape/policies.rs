//! Shapes of PutResourcePolicy, GetResourcePolicy and DeleteResourcePolicy.

use super::{Input, Output, ResourceAddress};
use crate::aws::codec::{Fields, Members};
use crate::aws::error::ApiError;
use crate::aws::validate::{ANY_TEXT, Check, Presence};

pub(crate) struct PutResourcePolicyInput {
    pub(crate) resource: ResourceAddress,
    pub(crate) policy: Option<String>,
}

impl Input for PutResourcePolicyInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        Ok(Self { policy: fields.text("Policy")?, resource: ResourceAddress::read(fields)? })
    }
    fn check(&self, check: &mut Check) {
        check.text("policy", Presence::Required, self.policy.as_deref(), &ANY_TEXT);
        self.resource.check(check);
    }
}

/// The request of operations that need a resource and nothing else.
pub(crate) struct ResourceInput(pub(crate) ResourceAddress);

impl Input for ResourceInput {
    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        ResourceAddress::read(fields).map(Self)
    }
    fn check(&self, check: &mut Check) {
        self.0.check(check);
    }
}

pub(crate) struct GetResourcePolicyOutput(pub(crate) String);

impl Output for GetResourcePolicyOutput {
    fn write(&self, members: &mut Members<'_>) {
        members.text("Policy", &self.0);
    }
    fn size_hint(&self) -> usize {
        64 + 2 * self.0.len()
    }
}
