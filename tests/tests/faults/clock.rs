//! The wall clock jumps both ways: numbers go on rising, arrival times never fall within a shard, nothing is lost, and leases
//! (which go by the other clock) are not disturbed. Also a start with a clock that is far ahead, or behind.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use tidemill_tests::load::{Loading, STREAM};
use tidemill_tests::{Broker, tell};
use tokio::time::sleep;

/// Stands between the broker and the C library: what CLOCK_REALTIME says, and as many seconds as a file says.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
static volatile int64_t *offset;
__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("CLOCK_OFFSET"), O_RDONLY);
    void *map = mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    if (fd >= 0 && map != MAP_FAILED) offset = map;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (clock == CLOCK_REALTIME && offset) now->tv_sec += *offset;
    return result;
}
"#;
/// Seconds. With one that is far from the time before, everything looks older than the retention.
const JUMPS: [i64; 12] = [3600, -7200, 1, 43_200, -43_200, 0, FAR, 60, -FAR, 0, -1, FAR];
const FAR: i64 = 1000 * 86_400;
/// Every shard is looked at for old records within a second.
const LOOKED_AT: Duration = Duration::from_millis(1500);

fn shim(home: &Path) -> Result<PathBuf> {
    let (source, library) = (home.join("clock.c"), home.join("clock.so"));
    std::fs::write(&source, SHIM)?;
    let mut cc = Command::new("cc");
    let built = cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl").output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Ok(library)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_both_ways_loses_nothing_and_turns_no_order_around() -> Result<()> {
    let home = TempDir::new()?;
    let library = shim(home.path())?;
    let file = home.path().join("offset");
    std::fs::write(&file, 0i64.to_ne_bytes())?;
    let set = std::fs::OpenOptions::new().write(true).open(&file)?;
    let preload = format!("LD_PRELOAD={}", library.display());
    let offset = format!("CLOCK_OFFSET={}", file.display());
    let data = home.path().join("data");
    let mut broker =
        Broker::start_under(&["env", &preload, &offset], &data, &["--durability", "device"]).await?;
    let loading = Loading::start(&broker).await?;
    for (turn, jump) in JUMPS.into_iter().enumerate() {
        set.write_all_at(&jump.to_ne_bytes(), 0)?;
        loading.progress(300, Duration::from_secs(20)).await.with_context(|| format!("at {jump} s"))?;
        if turn % 3 == 2 {
            broker.kill_9().await?;
            broker = broker.restart().await?;
        }
        sleep(if jump.abs() == FAR { LOOKED_AT } else { Duration::from_millis(50) }).await;
    }
    let load = loading.stop().await?;
    load.check(&broker, &format!("clock, {} jumps of up to {} days", JUMPS.len(), FAR / 86_400)).await?;
    let mut kinesis = broker.kinesis();
    let (mut newest, mut spread): (HashMap<String, f64>, f64) = (HashMap::new(), 0.0);
    for shard in kinesis.shards(STREAM).await? {
        let iterator = kinesis.iterator(STREAM, &shard, "TRIM_HORIZON", &json!(null)).await?;
        for record in kinesis.records(iterator).await? {
            let arrival = record["ApproximateArrivalTimestamp"].as_f64().context("an arrival")?;
            let before = newest.insert(shard.clone(), arrival).unwrap_or(arrival);
            ensure!(arrival >= before, "{shard}: {arrival} follows {before}");
            spread = spread.max(arrival - before);
        }
    }
    ensure!(spread > 3000.0, "the broker has seen no jump: at most {spread} s between two records");
    tell(&format!("clock: arrivals never fell, and rose by up to {spread:.0} s at once"));
    broker.terminate().await?;
    Ok(())
}
