//! Prints how often the producer library allocates for a record. A program of its own, because counting slows down every
//! allocation of a process; `suite` starts it. It counts calls, so it does not matter that the allocator is the system's.

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> anyhow::Result<()> {
    tidemill_benches::allocations_per_record(|| {
        let stats = ALLOCATOR.stats();
        stats.allocations + stats.reallocations
    })
}
