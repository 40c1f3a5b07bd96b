//! The benchmarks, with the broker's allocator, so that the limits and the broker differ in nothing but their work.

use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> anyhow::Result<()> {
    tidemill_benches::run()
}
