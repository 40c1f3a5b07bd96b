//! `tidemill bench` as a program: a figure for every workload and target from a broker of its own, and nothing left behind.
#![allow(clippy::unwrap_used)] // of helpers; a test may

use serde_json::Value;
use std::process::Command;

fn bench(arguments: &[&str]) -> (std::process::Output, tempfile::TempDir) {
    let here = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_tidemill"))
        .arg("bench")
        .args(arguments)
        .current_dir(here.path())
        .output()
        .unwrap();
    (output, here)
}

#[test]
fn every_workload_and_target_gives_one_line_without_errors_and_the_data_is_removed() {
    let few = ["--records", "300", "--warmup-seconds", "0", "--record-bytes", "100", "--shards", "2"];
    let (output, here) = bench(&[&few[..], &["--connections", "2", "--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = lines.iter().map(|l| (l["workload"].as_str(), l["target"].as_str())).collect();
    let targets = ["grpc", "bare", "kinesis"];
    let expected =
        targets.map(|target| ["produce", "consume"].map(|workload| (Some(workload), Some(target))));
    assert_eq!(names, expected.concat());
    for line in &lines {
        assert_eq!(line["errors"], 0, "{line}");
        assert!(line["records"].as_u64().unwrap() >= 300, "{line}");
        for field in ["records_per_s", "mb_per_s", "p50_ms", "p99_ms", "seconds"] {
            assert!(line[field].as_f64().unwrap() > 0.0, "{field} of {line}");
        }
        assert!(line["p99_ms"].as_f64() >= line["p50_ms"].as_f64(), "{line}");
    }
    assert_eq!(here.path().read_dir().unwrap().count(), 0, "the broker's data was left behind");
}

#[test]
fn a_broker_that_is_not_there_is_told_and_nothing_is_printed() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for target in ["grpc", "bare", "kinesis"] {
        let (output, _here) =
            bench(&["produce", "--target", target, "--endpoint", &format!("http://{free}")]);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("tidemill: "));
    }
}
