//! Records of workers: torn, and of those that are gone.

use std::sync::atomic::{AtomicBool, Ordering};

use tidegate::config::OffloadTo;

use super::*;

#[tokio::test]
async fn a_torn_record_does_not_keep_us_from_starting() {
    let bench = Bench::new("exit 0");
    drop(bench.open().unwrap());
    fs::write(bench.state().join("workers/torn.json"), "{\"form").unwrap();
    let launcher = bench.open().unwrap();
    assert!(launcher.list().await.unwrap().is_empty());
    assert!(bench.state().join("workers/torn.bad").exists());
}

#[tokio::test]
async fn a_worker_whose_record_is_torn_is_ended_by_its_name() {
    let bench = Bench::new("echo \"pid $$\"; sleep 64");
    let first = bench.open().unwrap();
    let launched = launch(&first, &bench).await;
    bench.said("pid ").await;
    drop(first);
    let record = format!("workers/{}.json", launched.nonce.as_str());
    let record = bench.state().join(record);
    let text = fs::read(&record).unwrap();
    fs::write(&record, &text[..text.len() / 2]).unwrap();

    let second = bench.open().unwrap();
    assert!(second.list().await.unwrap().is_empty());
    assert!(!lives(&launched.pid.unwrap().to_string()));
}

#[tokio::test]
async fn no_record_comes_back_of_a_worker_that_is_gone() {
    let bench = Bench::new("exit 0");
    let launcher = Arc::new(bench.open().unwrap());
    for _ in 0..20 {
        let worker = launch(&launcher, &bench).await;
        let (done, noting) = (Arc::new(AtomicBool::new(false)), Arc::clone(&launcher));
        let (stop, nonce) = (Arc::clone(&done), worker.nonce.clone());
        let notes = std::thread::spawn(move || {
            while !stop.load(Ordering::Acquire) {
                noting.note_asleep(&nonce, Some(OffloadTo::Cpu));
            }
        });
        exited(&launcher, &worker.nonce).await;
        done.store(true, Ordering::Release);
        notes.join().unwrap();
        let records = fs::read_dir(bench.state().join("workers")).unwrap();
        let left = records
            .flatten()
            .filter(|record| record.path().extension().is_some());
        assert_eq!(left.count(), 0);
    }
}

/// A second gateway on a copy of the state directory, whole or torn, with and
/// without what an older version did not write.
#[tokio::test]
async fn on_a_copy_of_the_state_directory_no_worker_of_the_first_is_touched() {
    let bench = Bench::new("echo \"pid $$\"; sleep 67");
    let first = bench.open().unwrap();
    let launched = launch(&first, &bench).await;
    bench.said("pid ").await;
    let records = |bench: &Bench| {
        let dir = fs::read_dir(bench.state().join("workers")).unwrap();
        let paths = dir.map(|entry| entry.unwrap().path());
        let records = paths.filter(|path| path.extension().is_some());
        records.collect::<Vec<PathBuf>>()
    };
    let [original] = &records(&bench)[..] else {
        panic!("not one record");
    };
    let text = fs::read_to_string(original).unwrap();
    let mut old: serde_json::Value = serde_json::from_str(&text).unwrap();
    for field in ["state", "keeper", "pipe"] {
        old.as_object_mut().unwrap().remove(field);
    }
    let torn = text[..text.len() / 2].to_owned();
    for copied in [text, old.to_string(), torn] {
        let copy = Bench::new("exit 0");
        drop(copy.open().unwrap());
        let path = copy
            .state()
            .join("workers")
            .join(original.file_name().unwrap());
        fs::write(&path, copied).unwrap();
        let second = copy.open().unwrap();
        assert!(second.list().await.unwrap().is_empty());
        assert!(lives(&launched.pid.unwrap().to_string()), "it is not ours");
        assert_eq!(records(&copy), [path.with_extension("foreign")]);
    }
    // The same directory under another name is the same.
    drop(first);
    let moved = bench.dir.path().join("moved");
    fs::rename(bench.state(), &moved).unwrap();
    fs::rename(&moved, bench.state()).unwrap();
    let again = bench.open().unwrap();
    assert_eq!(again.list().await.unwrap().len(), 1);
    again.kill(&launched.nonce);
    exited(&again, &launched.nonce).await;
}

/// The disk fills up between the record of the intent and that of the process: the
/// log, a pipe that nobody reads yet, holds the launch up between the two.
#[tokio::test]
async fn a_worker_that_can_not_be_written_down_is_ended_at_once() {
    let bench = Bench::new("sleep 60");
    let launcher = bench.open().unwrap();
    let first = launch(&launcher, &bench).await;
    let mut log = PathBuf::new();
    change_record(&bench.state(), |record| {
        log = PathBuf::from(record["log"].as_str().unwrap());
    });
    launcher.kill(&first.nonce);
    exited(&launcher, &first.nonce).await;
    fs::remove_file(&log).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&log).status();
    assert!(made.unwrap().success());

    let order = bench.order();
    let nonce = order.nonce.as_str().to_owned();
    let (journal, aside) = (bench.state().join("workers"), bench.state().join("aside"));
    let fills = async {
        let written = async {
            while bench.records() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, written).await.unwrap();
        fs::rename(&journal, &aside).unwrap();
        fs::write(&journal, "full").unwrap();
        tokio::task::spawn_blocking(move || fs::File::open(log)).await
    };
    let (answer, _reader) = tokio::join!(launcher.submit(order), fills);
    let error = answer.unwrap_err().to_string();
    assert!(error.contains("its record can't be written"), "{error}");
    let environs = fs::read_dir("/proc").unwrap().flatten();
    let environs = environs.filter_map(|entry| fs::read(entry.path().join("environ")).ok());
    let ours = |environ: &Vec<u8>| String::from_utf8_lossy(environ).contains(&nonce);
    assert_eq!(
        environs.filter(ours).count(),
        0,
        "it runs, and no one knows"
    );
}
