//! Where batches go. Today: a Tidemill broker over gRPC.

pub(crate) mod grpc;
