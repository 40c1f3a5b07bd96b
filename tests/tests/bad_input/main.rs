//! What bad input gets over HTTP: the documented 4xx answer, nothing written, and a connection that is usable after.

mod calls;
mod fixture;
mod hostile;
mod malformed;
mod transport;
