//! Which stream, consumer or account a call is about, and whether the caller may do what it asks there.
//!
//! What it is: the one place where names and ARNs become streams, and the one that asks `auth` about them. Why one: a
//! handler cannot reach a stream and forget to ask. Absence and what a caller must not know of are told alike.
//!
//! What it does not do: decide. The rules are in `auth`.

use super::error::{self, ApiError, Code, stream_not_found};
use super::shape::{Address, ConsumerAddress, ResourceAddress};
use super::{AwsState, Call};
use crate::auth::{Decision, decide, decide_for_consumer};
use tidemill_engine::{ConsumerInfo, ErrorKind, Stream};
use tidemill_types::{AccountId, ConsumerArn, ConsumerName, StreamArn, StreamKey, StreamName, TimestampMs};

type Result<T> = std::result::Result<T, ApiError>;

/// A stream that the caller may act on.
pub(crate) struct Opened {
    pub(crate) key: StreamKey,
    pub(crate) stream: Stream,
}

/// A consumer that the caller may act on.
pub(crate) struct OpenedConsumer {
    pub(crate) arn: ConsumerArn,
    pub(crate) info: ConsumerInfo,
    pub(crate) stream: Opened,
}

/// What tags and policies are put on.
pub(crate) enum Resource {
    Stream(Opened),
    Consumer(Box<OpenedConsumer>),
}

impl Opened {
    /// Whether it was made at this time, if one is given. Clients send it back in whole seconds or in milliseconds.
    pub(crate) fn was_created(&self, asked: Option<TimestampMs>) -> bool {
        asked.is_none_or(|asked| asked.seconds() == self.stream.info().created.seconds())
    }
}

/// The ARN must be of this region: the streams of another are not here.
fn key_of(arn: &StreamArn, state: &AwsState) -> Result<StreamKey> {
    let key = arn.key();
    if arn.region == *state.region() { Ok(key) } else { Err(stream_not_found(&key)) }
}

impl Address {
    /// The stream meant; name and ARN must agree. A name alone is of the caller's account.
    pub(crate) fn key(&self, call: &Call) -> Result<StreamKey> {
        let named = self.name.as_deref().map(StreamName::new).transpose()?;
        let Some(arn) = &self.arn else {
            let named = named.map(|name| StreamKey::new(call.caller.account().clone(), name));
            return named
                .ok_or_else(|| ApiError::invalid("Either StreamName or StreamARN must be provided."));
        };
        let arn: StreamArn = arn.parse()?;
        match named {
            Some(name) if name != arn.stream => Err(ApiError::invalid(format!(
                "StreamName {name} does not match the stream of StreamARN {arn}."
            ))),
            _ => key_of(&arn, &call.state),
        }
    }

    /// The stream meant, if the caller may.
    pub(crate) fn open(&self, call: &Call) -> Result<Opened> {
        call.open(self.key(call)?, stream_not_found)
    }

    pub(crate) fn is_given(&self) -> bool {
        self.name.is_some() || self.arn.is_some()
    }
}

impl ConsumerAddress {
    /// The consumer meant, by its ARN, by its name and the ARN of its stream, or by both if they agree.
    pub(crate) fn open(&self, call: &Call) -> Result<OpenedConsumer> {
        let stream: Option<StreamArn> = self.stream.as_deref().map(str::parse).transpose()?;
        let name = self.name.as_deref().map(ConsumerName::new).transpose()?;
        match (&self.arn, stream, name) {
            (Some(text), stream, name) => {
                let arn: ConsumerArn = text.parse()?;
                let apart = stream.is_some_and(|stream| stream != arn.stream)
                    || name.is_some_and(|name| name != arn.consumer);
                if apart {
                    return Err(ApiError::invalid(format!(
                        "StreamARN and ConsumerName do not match the consumer of ConsumerARN {arn}."
                    )));
                }
                call.consumer_of(&arn)
            }
            (None, Some(stream), Some(name)) => call.consumer(key_of(&stream, &call.state)?, &name, None),
            _ => {
                Err(ApiError::invalid("Either ConsumerARN, or StreamARN and ConsumerName must be provided."))
            }
        }
    }
}

impl ResourceAddress {
    /// The stream or consumer meant, if the caller may.
    pub(crate) fn open(&self, call: &Call) -> Result<Resource> {
        let text = self.arn.as_deref().unwrap_or_default();
        if text.contains("/consumer/") {
            let arn: ConsumerArn = text.parse()?;
            return call.consumer_of(&arn).map(|consumer| Resource::Consumer(Box::new(consumer)));
        }
        if !text.contains(":stream/") {
            // a queue or a channel, of which there are none
            return Err(ApiError::new(Code::ResourceNotFound, format!("Resource {text} not found.")));
        }
        let arn: StreamArn = text.parse()?;
        call.open(key_of(&arn, &call.state)?, stream_not_found).map(Resource::Stream)
    }
}

/// What a decision means for a call; `hidden` is the answer to who must not know of the resource.
fn settle(decision: Decision, hidden: impl FnOnce() -> ApiError) -> Result<()> {
    match decision {
        Decision::Allowed => Ok(()),
        Decision::Denied(message) => Err(ApiError::new(Code::AccessDenied, message)),
        Decision::Hidden => Err(hidden()),
    }
}

impl Call {
    /// Whether the caller may do this to `resource`; if it must not know of it, `hidden` is the answer.
    fn permit(
        &self,
        resource: &str,
        owner: &AccountId,
        policy: Option<&str>,
        hidden: impl FnOnce() -> ApiError,
    ) -> Result<()> {
        settle(decide(&self.caller, self.operation.action(), resource, owner, policy), hidden)
    }

    /// Whether the caller may do this to a consumer; neither the consumer nor its stream need to be there.
    pub(crate) fn permit_consumer(
        &self,
        arn: &ConsumerArn,
        info: Option<&ConsumerInfo>,
        stream: Option<&Stream>,
    ) -> Result<()> {
        let policy = info.and_then(|info| info.policy.as_deref());
        let of_stream = stream.and_then(|stream| stream.with_settings(|settings| settings.policy.clone()));
        let action = self.operation.action();
        let decision = decide_for_consumer(&self.caller, action, arn, policy, of_stream.as_deref());
        settle(decision, || stream_not_found(&arn.stream.key()))
    }

    /// Whether the caller may do what concerns its account as a whole, and no one stream.
    pub(crate) fn permit_account(&self) -> Result<&AccountId> {
        let account = self.caller.account();
        self.admit(None)?;
        self.permit("*", account, None, || ApiError::bare(Code::AccessDenied))?;
        Ok(account)
    }

    /// Whether the caller may make a stream of that name in its account.
    pub(crate) fn permit_new(&self, name: StreamName) -> Result<StreamKey> {
        let key = StreamKey::new(self.caller.account().clone(), name);
        self.admit(Some(&key))?;
        let arn = self.state.arn(&key).to_string();
        self.permit(&arn, &key.account, None, || stream_not_found(&key))?;
        Ok(key)
    }

    /// The stream, if the caller may; `absent` tells that it is not there, or that the caller must not know of it.
    pub(crate) fn open(&self, key: StreamKey, absent: impl Fn(&StreamKey) -> ApiError) -> Result<Opened> {
        self.admit(Some(&key))?;
        let found = self.state.engine().stream(&key);
        let arn = self.state.arn(&key).to_string();
        let permit = |policy: Option<&str>| self.permit(&arn, &key.account, policy, || absent(&key));
        match &found {
            Ok(stream) => stream.with_settings(|settings| permit(settings.policy.as_deref()))?,
            Err(_) => permit(None)?,
        }
        match found {
            Ok(stream) => Ok(Opened { key, stream }),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(absent(&key)),
            Err(error) => Err(error::of_control(&error)),
        }
    }

    /// The consumer of this ARN, if the caller may.
    pub(crate) fn consumer_of(&self, arn: &ConsumerArn) -> Result<OpenedConsumer> {
        self.consumer(key_of(&arn.stream, &self.state)?, &arn.consumer, Some(arn.created_s))
    }

    /// The consumer of this name, registered in this second if one is given, if the caller may.
    fn consumer(
        &self,
        key: StreamKey,
        name: &ConsumerName,
        created_s: Option<u64>,
    ) -> Result<OpenedConsumer> {
        self.admit(Some(&key))?;
        let stream = self.state.engine().stream(&key);
        let found = stream.as_ref().map_err(Clone::clone).and_then(|stream| stream.consumer(name));
        let meant = |info: &ConsumerInfo| created_s.is_none_or(|second| second == info.created.seconds());
        let info = found.as_ref().ok().filter(|info| meant(info));
        let created_s = created_s.or_else(|| info.map(|info| info.created.seconds())).unwrap_or_default();
        let arn = ConsumerArn { stream: self.state.arn(&key), consumer: name.clone(), created_s };
        self.permit_consumer(&arn, info, stream.as_ref().ok())?;
        match (stream, found) {
            (Ok(stream), Ok(info)) if meant(&info) => {
                Ok(OpenedConsumer { arn, info, stream: Opened { key, stream } })
            }
            (_, Err(error)) => Err(error::of_control(&error)),
            _ => Err(ApiError::new(Code::ResourceNotFound, format!("Consumer {arn} not found."))),
        }
    }
}
