use std::fs;
use std::path::Path;

use super::*;

const LIMIT: Duration = Duration::from_secs(20);

fn to(path: &Path, rotation: Option<Rotation>) -> Output {
    Output::start(
        "test",
        Duration::ZERO,
        LogSink::file(path, rotation).unwrap(),
    )
    .unwrap()
}

fn say(output: &Output, line: &str) {
    output.write(format!("{line}\n").as_bytes());
    assert!(output.flush(LIMIT));
}

#[test]
fn a_pipe_that_no_one_reads_costs_lines_and_no_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    assert!(
        LogSink::file(&path, None).is_err(),
        "it never waits for a reader"
    );
    let reader = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    let output = to(&path, None);
    let line = [b"x".repeat((64 << 10) - 1), b"\n".to_vec()].concat();
    for _ in 0..300 {
        output.write(&line);
    }
    let lost = output.dropped();
    // Two buffers of 8 MiB, of lines of 64 KiB.
    assert!((40..300).contains(&lost), "{lost}");
    assert!(!output.close(Duration::from_millis(50)));
    drop(reader);
    output.write(b"too late\n");
    // That one, and what was on its way when the reader left.
    assert!(output.dropped() > lost);
}

#[test]
fn a_full_disk_loses_lines_one_by_one_and_is_tried_again() {
    let output = to(Path::new("/dev/full"), None);
    say(&output, "a");
    say(&output, "b\nc");
    assert_eq!(output.dropped(), 3);
    assert!(output.close(LIMIT));
}

#[test]
fn a_file_that_was_moved_aside_is_written_no_more_and_the_path_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep").join("a.log");
    let output = to(&path, None);
    say(&output, "one");
    fs::rename(&path, path.with_extension("1")).unwrap();
    say(&output, "two");
    fs::rename(&path, path.with_extension("2")).unwrap();
    output.reopen();
    assert!(output.flush(LIMIT));
    assert_eq!(fs::read_to_string(&path).unwrap(), "", "without any line");
    say(&output, "three");
    // As an editor or `logrotate` with `create` leaves it.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "new\n").unwrap();
    say(&output, "four");
    assert_eq!(fs::read_to_string(&path).unwrap(), "new\nfour\n");
    for (extension, line) in [("1", "one\n"), ("2", "two\n")] {
        assert_eq!(
            fs::read_to_string(path.with_extension(extension)).unwrap(),
            line
        );
    }
}

#[test]
fn a_path_that_can_not_be_opened_anew_leaves_the_old_file_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let aside = dir.path().join("a.log.1");
    let output = to(&path, None);
    say(&output, "one");
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    say(&output, "two");
    assert_eq!(fs::read_to_string(&aside).unwrap(), "one\ntwo\n");
    assert_eq!(output.dropped(), 0);
}

#[test]
fn a_file_of_ours_is_moved_aside_by_size_and_the_oldest_goes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.log");
    let rotation = Rotation {
        bytes_max: 10,
        files_max: 2,
    };
    // Two write to it, as while one takes over from the other.
    let outputs = [to(&path, Some(rotation)), to(&path, Some(rotation))];
    for n in 0..8 {
        say(&outputs[n % 2], &format!("line{n}"));
    }
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap();
    let found = [read("a.log.2"), read("a.log.1"), read("a.log")];
    assert_eq!(found, ["line5\n", "line6\n", "line7\n"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
}
