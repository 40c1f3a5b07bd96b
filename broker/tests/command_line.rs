//! The binary as an operator meets it: its ready line, its exit codes, who wins among flag, environment and file.
#![allow(clippy::unwrap_used)] // of helpers; a test may

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

struct Serve {
    child: Child,
    endpoint: String,
}

/// Starts a broker with `arguments` and waits for its ready line.
fn serve(command: &mut Command) -> Serve {
    let mut child = command.arg("serve").stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let endpoint = line.trim_end().strip_prefix("tidemill ready on ").expect("a ready line").to_owned();
    Serve { child, endpoint }
}

impl Serve {
    fn signal(&mut self, signal: rustix::process::Signal) -> Option<i32> {
        let id = i32::try_from(self.child.id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(id).unwrap(), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tidemill() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemill"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEMILL_")) {
        command.env_remove(name);
    }
    command
}

fn run(arguments: &[&str], endpoint: &str, stdin: &[u8]) -> Output {
    let mut command = tidemill();
    command.args(arguments).env("TIDEMILL_ENDPOINT", endpoint);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap()
}

fn json(bytes: &[u8]) -> serde_json::Value {
    serde_json::from_slice(bytes).unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(bytes)))
}

#[test]
fn serve_takes_the_flag_before_the_environment_and_ends_with_0_when_told_to() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("tidemill.toml");
    std::fs::write(&config, "listen = '127.0.0.1:1'\nregion = 'eu-west-1'\n").unwrap();
    let mut command = tidemill();
    command.current_dir(&dir).env("TIDEMILL_LISTEN", "127.0.0.1:0").env("TIDEMILL_CONFIG", &config);
    let mut first = serve(&mut command);
    assert!(first.endpoint.starts_with("http://127.0.0.1:") && !first.endpoint.ends_with(":0"));
    assert!(dir.path().join("tidemill-data").is_dir());

    // the directory is taken: another process is refused with a reason
    let second = tidemill().current_dir(&dir).args(["serve", "--listen", "127.0.0.1:0"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    assert!(!second.stderr.is_empty());

    assert_eq!(first.signal(rustix::process::Signal::TERM), Some(0));
    let mut again = serve(tidemill().current_dir(&dir).env("TIDEMILL_LISTEN", "127.0.0.1:0"));
    assert_eq!(again.signal(rustix::process::Signal::INT), Some(0));
}

#[test]
fn bad_usage_ends_with_2_and_touches_nothing() {
    let dir = TempDir::new().unwrap();
    let config = dir.path().join("bad.toml");
    std::fs::write(&config, "# one\nlisten = 7\n").unwrap();
    let config = config.to_str().unwrap();
    for (arguments, word) in [
        (vec!["serve", "--listen", "0.0.0.0:0"], "--insecure"),
        (vec!["serve", "--config", config], "bad.toml, line 2"),
        (vec!["serve", "--config", "none.toml"], "none.toml"),
        (vec!["serve", "--durability", "maybe"], "device"),
        (vec!["put"], "STREAM"),
    ] {
        let done = tidemill().current_dir(&dir).args(&arguments).output().unwrap();
        let stderr = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(word), "{arguments:?}: {stderr}");
    }
    assert!(!dir.path().join("tidemill-data").exists());
}

/// Only `true` was understood, as nowhere else.
#[test]
fn insecure_may_be_said_by_any_usual_word_in_the_environment() {
    let dir = TempDir::new().unwrap();
    for (word, code) in [("1", 1), ("true", 1), ("yes", 1), ("0", 2), ("false", 2), ("", 2)] {
        // an address of no machine: past the check, listening fails
        let mut command = tidemill();
        command.current_dir(&dir).args(["serve", "--listen", "192.0.2.1:0"]).env("TIDEMILL_INSECURE", word);
        let done = command.output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{word:?}: {done:?}");
    }
}

#[test]
fn lines_put_are_the_lines_consumed_and_a_second_run_goes_on_behind_the_checkpoint() {
    let dir = TempDir::new().unwrap();
    let broker = serve(tidemill().current_dir(&dir).env("TIDEMILL_LISTEN", "127.0.0.1:0"));
    let run = |arguments: &[&str], stdin: &[u8]| run(arguments, &broker.endpoint, stdin);
    let made = run(&["stream", "create", "s", "--shards", "2", "--json"], b"");
    assert_eq!(json(&made.stdout)["open_shards"], 2);
    assert_eq!(run(&["stream", "create", "s"], b"").status.code(), Some(1));
    let described = json(&run(&["stream", "describe", "s", "--json"], b"").stdout);
    assert_eq!(described["shards"].as_array().unwrap().len(), 2);

    let put = run(&["put", "s", "--json"], b"one\n\n\xff\xfe\nlast");
    assert_eq!(put.status.code(), Some(0), "{put:?}");
    let summary = json(&put.stdout);
    assert_eq!(
        (&summary["records"], &summary["bytes"], &summary["failures"]),
        (&4.into(), &9.into(), &0.into())
    );
    let keyed = run(&["put", "s", "--key-field", "id", "--json"], b"{\"id\":7}\nnot json\n{\"no\":1}\n");
    assert_eq!(keyed.status.code(), Some(1));
    assert_eq!((&json(&keyed.stdout)["records"], &json(&keyed.stdout)["failures"]), (&1.into(), &2.into()));
    assert_eq!(run(&["put", "unknown"], b"x\n").status.code(), Some(1));

    let consume = ["consume", "s", "--app", "a", "--until-caught-up", "--json", "--lease-ms", "1000"];
    let first = run(&consume, b"");
    assert_eq!(first.status.code(), Some(0), "{first:?}");
    let lines: Vec<_> =
        first.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(json).collect();
    let mut data: Vec<_> = lines.iter().filter_map(|line| line["data"].as_str()).collect();
    data.sort_unstable();
    assert_eq!(data, ["", "last", "one", "{\"id\":7}"]);
    assert_eq!(lines.iter().filter(|line| line["data_base64"] == "//4=").count(), 1);
    let keyed = lines.iter().find(|line| line["data"] == "{\"id\":7}").unwrap();
    assert_eq!(
        (&keyed["partition_key"], &keyed["stream"], &keyed["sub_sequence_number"]),
        (&"7".into(), &"s".into(), &0.into())
    );
    assert!(keyed["sequence_number"].is_string() && keyed["shard"].as_str().unwrap().starts_with("shardId-"));
    assert!(keyed["arrival_ms"].is_u64());
    assert_eq!(run(&consume, b"").stdout, b"", "everything was checkpointed");
    assert_eq!(run(&["stream", "delete", "s"], b"").status.code(), Some(0));
    assert_eq!(run(&["stream", "list"], b"").stdout, b"no streams\n");
}

#[test]
fn consume_ends_quietly_when_its_reader_goes_and_checkpoints_only_what_was_read() {
    let dir = TempDir::new().unwrap();
    let broker = serve(tidemill().current_dir(&dir).env("TIDEMILL_LISTEN", "127.0.0.1:0"));
    let run = |arguments: &[&str], stdin: &[u8]| run(arguments, &broker.endpoint, stdin);
    run(&["stream", "create", "s"], b"");
    let lines: String = (0..300_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(run(&["put", "s", "--key", "k"], lines.as_bytes()).status.code(), Some(0));

    let mut command = tidemill();
    command.args(["consume", "s", "--app", "a", "--endpoint", &broker.endpoint]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    reader.read_line(&mut first).unwrap();
    assert_eq!(first, "0\n");
    drop(reader);
    let done = child.wait_with_output().unwrap();
    assert_eq!((done.status.code(), String::from_utf8_lossy(&done.stderr).as_ref()), (Some(0), ""));

    // its leases are free at once, and the lines that nobody read come again
    let rest = run(&["consume", "s", "--app", "a", "--until-caught-up"], b"").stdout;
    assert!(rest.ends_with(b"\n299999\n"));
    let next: u64 = String::from_utf8_lossy(&rest).lines().next().unwrap().parse().unwrap();
    assert!(
        next < 200_000,
        "a pipe holds 64 KiB, some 10,000 lines, and one batch may be on its way: {next}"
    );
}

#[test]
fn the_demo_agrees_with_the_file_although_a_worker_dies_halfway() {
    let done = run(&["demo", "--json"], "http://127.0.0.1:1", b"");
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    let result = json(&done.stdout);
    assert_eq!((&result["agree"], &result["counted"]), (&true.into(), &27_004.into()));
    assert_eq!(result["airports"], result["expected"]["airports"]);
    assert_eq!(result["carriers"]["UA"]["flights"], 4637);
    assert!(
        result["takeover_seconds"].as_f64().unwrap() > 0.1,
        "the lease of the dead worker had to run out"
    );
}
