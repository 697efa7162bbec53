use std::path::Path;

use super::*;

fn settings(to: Target) -> AccessLogSettings {
    AccessLogSettings { to, sample_one_in: 1, query: false, buffer_bytes_max: 1 << 20 }
}

fn record(path: &str) -> Record<'_> {
    Record { method: "GET", path, http: "1.1", answer: "upstream", ..Record::default() }
}

fn paths(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let path =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].as_str().unwrap().to_owned();
    text.lines().map(path).collect()
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_was_appended_before_the_stop_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.json");
    let (log, writer) = AccessLog::start(settings(Target::File(file.clone())), 2).unwrap();
    for round in 0..3000 {
        log.append(&record(&format!("/{round}")));
        if round % 500 == 0 {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    writer.finish();
    assert_eq!(paths(&file).len(), 3000);
    assert_eq!(paths(&file)[2999], "/2999");
    assert_eq!(std::fs::metadata(&file).unwrap().mode() & 0o007, 0, "others may not read it");
}

#[test]
fn a_file_that_was_moved_is_opened_anew_with_and_without_a_signal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.json");
    let (log, writer) = AccessLog::start(settings(Target::File(file.clone())), 1).unwrap();
    for (round, signal) in [true, false].into_iter().enumerate() {
        let moved = folder.path().join(format!("access.json.{round}"));
        log.append(&record("/before"));
        wait_for("the first line", || paths(&file).len() == 1);
        std::fs::rename(&file, &moved).unwrap();
        if signal {
            log.reopen();
        }
        wait_for("a new file", || file.exists());
        log.append(&record("/after"));
        wait_for("a line in it", || paths(&file) == ["/after"]);
        assert_eq!(paths(&moved), ["/before"]);
        std::fs::remove_file(&file).unwrap();
        log.reopen();
        wait_for("a new file", || file.exists());
    }
    writer.finish();
}

#[test]
fn a_log_that_takes_nothing_costs_lines_and_never_time() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open at both ends, and never read: it takes 64 KiB.
    let reader = File::options().read(true).write(true).open(&pipe).unwrap();
    let (log, writer) = AccessLog::start(settings(Target::File(pipe)), 1).unwrap();
    let dropped = METRICS.access_log_dropped.get();
    let (text, began) = ("x".repeat(1000), Instant::now());
    for _ in 0..20_000 {
        log.append(&record(&text));
    }
    assert!(METRICS.access_log_dropped.get() > dropped + 10_000);
    assert!(lock(&log.buffers[0]).capacity() <= 4 << 20);
    assert!(began.elapsed() < Duration::from_secs(30));
    writer.finish();
    assert!(began.elapsed() < Duration::from_secs(30), "a stop does not wait for ever either");
    drop(reader);
}

#[test]
fn a_full_disk_is_counted_and_tears_no_line() {
    let mut sink = Sink::open(Target::File("/dev/full".into())).unwrap();
    let dropped = METRICS.access_log_dropped.get();
    sink.write(b"{\"path\":\"/lost\"}\n{\"path\":\"/lost\"}\n");
    assert!(METRICS.access_log_dropped.get() >= dropped + 2);
    assert!(sink.failing);

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.json");
    std::fs::write(&file, "{\"path\":\"/ha").unwrap();
    let mut sink = Sink { torn: true, failing: true, ..Sink::open(Target::File(file.clone())).unwrap() };
    sink.write(b"{\"path\":\"/whole\"}\n");
    assert!(!sink.failing && !sink.torn);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{\"path\":\"/ha\n{\"path\":\"/whole\"}\n");
}

#[test]
fn a_sample_leaves_out_what_went_well_and_no_fault() {
    let folder = tempfile::tempdir().unwrap();
    let to = Target::File(folder.path().join("access.json"));
    let (log, writer) = AccessLog::start(AccessLogSettings { sample_one_in: 10, ..settings(to) }, 1).unwrap();
    assert_eq!((0..1000).filter(|_| log.takes(false)).count(), 100);
    assert!((0..1000).all(|_| log.takes(true)));
    writer.finish();
}

#[test]
fn a_file_that_can_not_be_opened_is_an_error_at_the_start() {
    let to = Target::File("/nonexistent/access.json".into());
    assert!(AccessLog::start(settings(to), 1).is_err());
}
