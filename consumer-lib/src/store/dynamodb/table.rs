//! The calls to DynamoDB, in terms of rows; each with a deadline well inside the lease time, its repetitions included.
//!
//! ```text
//!  not looked at ─► describe ─► missing ─► create (by demand, or told not to) ─► wait until active ─► ready
//!        ▲                                                                                            │
//!        └──────────────────────── a call does not find the table any more ◄──────────────────────────┘
//! ```
//!
//! A table that exists is used as it is: indexes and rows of other kinds are left alone. Not here: what rows mean.

use super::change::Change;
use super::row::{Item, LEASE_COUNTER, LEASE_KEY, STREAM_NAME, numeral, text};
use crate::aws::tell;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, ExpectedAttributeValue, KeySchemaElement, KeyType,
    ReturnValuesOnConditionCheckFailure, ScalarAttributeType, TableDescription, TableStatus,
};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tidemill_proto::{Error, ErrorKind, Result};
use tokio::time::{Instant, sleep};
use tracing::info;

/// A new table is active within this time; Amazon takes some ten seconds.
const ACTIVE_DEADLINE: Duration = Duration::from_secs(120);
const ACTIVE_POLL: Duration = Duration::from_millis(500);

/// How rows are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableReads {
    /// At half the price; what is seen may be a moment old. Nothing but speed hangs on it: every change is conditional.
    Eventual,
    /// As they are.
    Consistent,
}

/// What to do when there is no table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Creation {
    /// Make one, paid by demand.
    Create,
    /// Fail.
    Never,
}

#[derive(Debug)]
pub(super) struct Table {
    client: Client,
    name: String,
    reads: TableReads,
    creation: Creation,
    ready: AtomicBool,
    /// One looks, others wait.
    looking: tokio::sync::Mutex<()>,
}

/// What became of a conditional write.
#[derive(Debug)]
pub(super) enum Written {
    Done,
    /// The condition did not hold; the row as it was, if the service tells.
    Refused(Option<Item>),
}

impl Table {
    pub(super) fn new(client: Client, name: &str, reads: TableReads, creation: Creation) -> Self {
        let ready = AtomicBool::new(false);
        Self { client, name: name.to_owned(), reads, creation, ready, looking: tokio::sync::Mutex::default() }
    }

    /// Makes sure that there is a table to be used.
    pub(super) async fn ensure(&self) -> Result<()> {
        if self.ready.load(Ordering::Relaxed) {
            return Ok(());
        }
        let _looking = self.looking.lock().await;
        let deadline = Instant::now() + ACTIVE_DEADLINE;
        while !self.ready.load(Ordering::Relaxed) {
            match self.describe().await? {
                Some(table) => self.judge(&table)?,
                None if self.creation == Creation::Create => self.create().await?,
                None => return Err(Error::invalid(format!("there is no lease table {}", self.name))),
            }
            if Instant::now() >= deadline {
                let told = format!("the lease table {} is not active within {ACTIVE_DEADLINE:?}", self.name);
                return Err(Error::new(ErrorKind::Unavailable, told));
            }
            if !self.ready.load(Ordering::Relaxed) {
                sleep(ACTIVE_POLL).await;
            }
        }
        Ok(())
    }

    async fn describe(&self) -> Result<Option<TableDescription>> {
        match self.client.describe_table().table_name(&self.name).send().await {
            Ok(answer) => Ok(answer.table),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(DescribeTableError::is_resource_not_found_exception) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.failed("looking for", &error)),
        }
    }

    fn judge(&self, table: &TableDescription) -> Result<()> {
        let key: Vec<&str> = table.key_schema().iter().map(|key| key.attribute_name.as_str()).collect();
        if key != [LEASE_KEY] {
            let told =
                format!("the table {} is no lease table: its key is {key:?}, not {LEASE_KEY}", self.name);
            return Err(Error::invalid(told));
        }
        // one whose throughput or indexes are changed serves all the while
        let serves = matches!(table.table_status(), Some(TableStatus::Active | TableStatus::Updating));
        self.ready.store(serves, Ordering::Relaxed);
        Ok(())
    }

    async fn create(&self) -> Result<()> {
        info!(table = self.name, "creating the lease table");
        let attribute = AttributeDefinition::builder().attribute_name(LEASE_KEY);
        let key = KeySchemaElement::builder().attribute_name(LEASE_KEY).key_type(KeyType::Hash);
        let create = self
            .client
            .create_table()
            .table_name(&self.name)
            .attribute_definitions(complete(attribute.attribute_type(ScalarAttributeType::S).build())?)
            .key_schema(complete(key.build())?)
            .billing_mode(BillingMode::PayPerRequest);
        match create.send().await {
            Ok(_) => Ok(()),
            // another worker was faster
            Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => {
                Ok(())
            }
            Err(error) => Err(self.failed("creating", &error)),
        }
    }

    /// One row, as it is.
    pub(super) async fn get(&self, key: &str) -> Result<Option<Item>> {
        let get = self.client.get_item().table_name(&self.name).key(LEASE_KEY, text(key));
        let answer = get.consistent_read(true).send().await;
        Ok(answer.map_err(|error| self.failed("reading a row of", &error))?.item)
    }

    /// All rows; where a table serves many streams, those of one.
    pub(super) async fn scan(&self, stream: Option<&str>) -> Result<Vec<Item>> {
        let (mut items, mut from) = (Vec::new(), None);
        loop {
            let mut scan = self.client.scan().table_name(&self.name).set_exclusive_start_key(from);
            scan = scan.consistent_read(self.reads == TableReads::Consistent);
            if let Some(stream) = stream {
                scan = scan.filter_expression(format!("{STREAM_NAME} = :streamName"));
                scan = scan.expression_attribute_values(":streamName", text(stream));
            }
            let page = scan.send().await.map_err(|error| self.failed("listing", &error))?;
            items.extend(page.items.unwrap_or_default());
            from = page.last_evaluated_key.filter(|key| !key.is_empty());
            if from.is_none() {
                return Ok(items);
            }
        }
    }

    /// Writes a row that must be new.
    pub(super) async fn put_new(&self, item: Item) -> Result<Written> {
        let absent = ExpectedAttributeValue::builder().exists(false).build();
        let put =
            self.client.put_item().table_name(&self.name).set_item(Some(item)).expected(LEASE_KEY, absent);
        match put.send().await {
            Ok(_) => Ok(Written::Done),
            Err(error)
                if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                Ok(Written::Refused(None))
            }
            Err(error) => Err(self.failed("adding a row to", &error)),
        }
    }

    /// Changes a row on a condition.
    pub(super) async fn update(&self, key: &str, change: Change) -> Result<Written> {
        let update = self
            .client
            .update_item()
            .table_name(&self.name)
            .key(LEASE_KEY, text(key))
            .set_attribute_updates(Some(change.updates))
            .set_expected(Some(change.expected))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        let error = match update.send().await {
            Ok(_) => return Ok(Written::Done),
            Err(error) => error,
        };
        use aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException;
        match error.as_service_error() {
            Some(ConditionalCheckFailedException(refused)) => {
                Ok(Written::Refused(refused.item().filter(|item| !item.is_empty()).cloned()))
            }
            _ => Err(self.failed("changing a row of", &error)),
        }
    }

    /// Deletes a row unless it has moved since.
    pub(super) async fn delete(&self, key: &str, counter: u64) -> Result<()> {
        let same = ExpectedAttributeValue::builder().value(numeral(counter)).build();
        let delete = self.client.delete_item().table_name(&self.name).key(LEASE_KEY, text(key));
        match delete.expected(LEASE_COUNTER, same).send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                Ok(())
            }
            Err(error) => Err(self.failed("deleting a row of", &error)),
        }
    }

    /// A table that is gone is no stream that is gone: it is looked for, and made, again.
    fn failed<E>(&self, what: &str, error: &SdkError<E>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let error = tell(error).during(&format!("{what} the lease table {}", self.name));
        if error.kind() != ErrorKind::NotFound {
            return error;
        }
        self.ready.store(false, Ordering::Relaxed);
        Error::new(ErrorKind::Unavailable, error.message())
    }
}

fn complete<T, E: std::fmt::Display>(built: std::result::Result<T, E>) -> Result<T> {
    built.map_err(|error| Error::new(ErrorKind::Internal, format!("an incomplete request: {error}")))
}
