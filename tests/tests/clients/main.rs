//! Unmodified clients of others against a real broker, one file each. Each brings its own packages into the target
//! directory; where the registry cannot be reached the test says so and passes, unless `CI` is set.

mod aggregation;
mod aws_cli;
mod boto3;
mod broker;
mod cbor;
mod coverage;
mod install;
mod javascript;
mod rolling;
mod rust_sdk;
