// SPDX-License-Identifier: Apache-2.0
//! Training jobs read from the mount unchanged: two epochs, every sample checked, and the second
//! one without a request to the storage.
//!
//! The jobs are the Python programs in `tests/training`. The benchmarks of `bench/training` are run on
//! small data, for what they read and what they report, never for their figures; with their data
//! sets the pages of `docs/guides` are carried out. `scripts/test-training` installs what all of
//! them need; each test names its interpreter.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use testkit::guides;
use testkit::programs::{self, environment, keeps_its_files, program_with};
use testkit::sandbox::{Sandbox, binary, drop_kernel_caches};
use testkit::storage::Storage;
use testkit::stores::Store;
use testkit::wait;

/// Debian's own interpreter, for which Debian's PyTorch is built.
const DEBIAN: &str = "/usr/bin/python3";

fn job(name: &str) -> PathBuf {
    programs::folder("training").join(format!("{name}.py"))
}

/// Moves what a job has prepared into the storage; returns how many bytes that is.
fn upload(storage: &Storage, prepared: &Path, below: &Path) -> u64 {
    let mut total = 0;
    for entry in fs::read_dir(prepared.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = below.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            total += upload(storage, prepared, &name);
        } else {
            let content = fs::read(entry.path()).unwrap();
            storage.put_bytes(&name, &content);
            total += content.len() as u64;
        }
    }
    total
}

fn two_epochs(python: &Path, name: &str) {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let (prepared, manifest) = (
        sandbox.dir().join("prepared"),
        sandbox.dir().join("manifest"),
    );
    let command = |verb: &str, data: &Path| {
        let mut command = Command::new(python);
        command.arg(job(name)).arg(verb).arg(data).arg(&manifest);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    };
    fs::create_dir(&prepared).unwrap();
    assert!(command("prepare", &prepared).status().unwrap().success());
    let total = upload(&storage, &prepared, Path::new(""));
    let mount = sandbox.mount(&storage).start();

    let mut job = command("train", mount.point());
    let mut job = job
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = job.stdin.take().unwrap();
    let mut answers = BufReader::new(job.stdout.take().unwrap()).lines();
    let mut epoch = |number: u32| {
        writeln!(orders, "go").unwrap();
        let answer = answers.next().expect("the job goes on").unwrap();
        assert!(answer.starts_with(&format!("epoch {number}: ")), "{answer}");
        assert!(answer.ends_with(" samples are right"), "{answer}");
    };
    epoch(1);
    wait::until("all is in the cache", || {
        mount.status().number("/cache/used_bytes") >= total
    });
    let asked = storage.requests();
    assert!(asked > 0);
    drop_kernel_caches();
    epoch(2);
    assert_eq!(
        storage.requests(),
        asked,
        "the second epoch asked the storage"
    );
    drop(orders);
    assert!(job.wait().unwrap().success());
    mount.unmount();
}

#[test]
fn pytorch_image_folder_with_four_workers() {
    two_epochs(Path::new(DEBIAN), "image_folder");
}

#[test]
fn pytorch_numpy_memory_mapping() {
    two_epochs(Path::new(DEBIAN), "memmap");
}

#[test]
fn pytorch_checkpoints_rotate_and_are_published_by_rename() {
    let program = || program_with(Path::new(DEBIAN), "torch_checkpoint.py");
    keeps_its_files(program);
}

#[test]
fn tensorflow_events_grow_while_they_are_read_and_checkpoints_rotate() {
    let python = environment("tensorflow");
    keeps_its_files(|| program_with(&python, "tensorflow_events.py"));
}

#[test]
fn tensorflow_records_through_tf_data() {
    two_epochs(&environment("tensorflow"), "tfrecord");
}

#[test]
fn tensorflow_reads_the_same_records_from_every_storage_of_one_tree() {
    let stores = Store::each();
    let base = Storage::local();
    let mut sandbox = Sandbox::new(&base);
    let state = sandbox.dir().join("state").display().to_string();
    sandbox = sandbox.with_variable("FOREBAY_STATE_DIR", &state);
    for (name, value) in stores.iter().flat_map(|store| &store.environment) {
        sandbox = sandbox.with_variable(name, value);
    }
    let python = environment("tensorflow");
    let (shards, manifest) = (sandbox.dir().join("shards"), sandbox.dir().join("manifest"));
    let mut prepare = Command::new(&python);
    prepare.arg(job("tfrecord")).arg("prepare");
    let prepared = prepare.arg(&shards).arg(&manifest).status().unwrap();
    assert!(prepared.success());
    // The web service of HDFS shows what its RPC took.
    for store in stores.iter().filter(|store| store.name != "webhdfs") {
        for shard in fs::read_dir(&shards).unwrap() {
            let shard = shard.unwrap();
            let name = shard.file_name().into_string().unwrap();
            store.put(&name, &fs::read(shard.path()).unwrap());
        }
    }

    let mount = sandbox.mount(&base).start();
    let mut folders = vec![shards];
    for store in &stores {
        let at = format!("/{}", store.name);
        let mut words = vec!["mounts", "add", &at, &store.uri];
        words.extend(store.flags.iter().map(String::as_str));
        sandbox.run(&words).success();
        folders.push(mount.path(store.name));
    }
    let mut compare = Command::new(&python);
    compare.arg(job("one_tree")).arg(&manifest).args(&folders);
    let output = compare
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for folder in &folders {
        let line = format!("{}: 1200 records are right", folder.display());
        assert!(said.contains(&line), "{line} in {said}");
    }
    let status = mount.status();
    for index in 1..=stores.len() {
        let errors = format!("/mounts/{index}/requests/errors");
        assert_eq!(status.number(&errors), 0, "{}", stores[index - 1].name);
    }
    mount.unmount();
}

/// A place that data is read from, with the figures that each job tells of it.
const CONTESTANTS: [&str; 4] = [
    "local disk",
    "remote, no cache",
    "forebay, cold",
    "forebay, warm",
];

fn bench_folder() -> PathBuf {
    programs::folder("../bench/training")
}

/// Returns where the servers are kept, which a sandbox has no home for.
fn rigs() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache/forebay/rigs");
    std::env::var_os("FOREBAY_RIGS").map_or_else(home, PathBuf::from)
}

/// Runs a benchmark on small data, and looks at all rows that it must report.
fn reports_every_row(job: &str, python: &Path, works: usize, figures: &[&str]) {
    let storage = Storage::local();
    // For what is left behind when this fails: all that lives in here is ended and unmounted.
    let sandbox = Sandbox::new(&storage);
    let results = sandbox.dir().join("results");
    let bin = binary("forebay");
    let output = Command::new(DEBIAN)
        .arg(bench_folder().join("bench.py"))
        .args([job, "--quick", "--repeats", "1", "--latency", "1"])
        .args(["--bin".as_ref(), bin.parent().unwrap().as_os_str()])
        .args(["--python".as_ref(), python.as_os_str()])
        .args(["--results".as_ref(), results.as_os_str()])
        .env("HOME", sandbox.dir().join("home"))
        .env("FOREBAY_RIGS", rigs())
        .env("TMPDIR", sandbox.dir())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env_remove("TF_CNN_BENCHMARKS")
        .output()
        .unwrap();
    let [table, complaints] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{table}{complaints}");
    let text = fs::read_to_string(results.join("training.jsonl")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!(rows.len(), works * CONTESTANTS.len(), "{table}");
    for (row, from) in rows.iter().zip(CONTESTANTS.iter().cycle()) {
        assert_eq!(row["from"], *from);
        for figure in figures {
            assert!(row[*figure].as_f64().unwrap() > 0.0, "{figure} of {row}");
        }
        assert!(table.contains(row["work"].as_str().unwrap()), "{table}");
        let asked = row["requests"].as_u64().unwrap();
        let is_local = matches!(*from, "local disk" | "forebay, warm");
        // Of a writable mount the lock file is asked for and stored, also when all is cached.
        let work = row["work"].as_str().unwrap();
        let is_writable = work.contains("writable") || work.contains("back");
        assert!(is_writable || is_local == (asked == 0), "{row}");
    }
    let picture = fs::read_to_string(results.join(format!("training-{job}.svg"))).unwrap();
    assert_eq!(picture.matches("<rect").count(), rows.len() + 1);
    sandbox.assert_nothing_left();
}

/// Puts a data set of a benchmark into a storage, below a prefix.
fn prepared(job: &str, python: &Path, settings: &[&str], below: &str) -> Storage {
    let storage = Storage::s3();
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(python);
    command.arg(bench_folder().join("jobs").join(format!("{job}.py")));
    command.arg("prepare").arg(dir.path().join(below));
    programs::succeed(command.args(settings).env("PYTHONDONTWRITEBYTECODE", "1"));
    upload(&storage, dir.path(), Path::new(""));
    storage
}

#[test]
fn tensorflow_benchmark_reports_every_row() {
    let python = environment("tensorflow");
    reports_every_row("tensorflow", &python, 1, &["fill s", "images/s", "job s"]);
}

#[test]
fn pytorch_benchmark_reports_every_row() {
    let figures = ["epoch s", "images/s", "MB/s", "busy %"];
    reports_every_row("pytorch", &environment("training-pytorch"), 3, &figures);
}

#[test]
fn lmdb_benchmark_reports_every_row() {
    let figures = ["open s", "close s", "read s", "records/s", "MB/s"];
    reports_every_row("lmdb", &environment("programs"), 3, &figures);
}

#[test]
fn checkpoints_benchmark_reports_every_row() {
    let figures = ["first s", "all s", "MB/s"];
    reports_every_row("checkpoints", &environment("programs"), 1, &figures);
}

#[test]
fn dlio_benchmark_reports_every_row() {
    let figures = ["AU 1 %", "AU 2 %", "AU 3 %", "images/s"];
    reports_every_row("dlio", &environment("training-dlio"), 1, &figures);
}

#[test]
fn tensorflow_guide_does_what_it_says() {
    let python = environment("tensorflow");
    let storage = prepared("records", &python, &["images=64", "shards=4"], "imagenet");
    guides::carry_out("tensorflow.md", &storage, &python);
}

#[test]
fn pytorch_guide_does_what_it_says() {
    let python = environment("training-pytorch");
    let storage = prepared("loaders", &python, &["images=100", "shard=25"], "images");
    guides::carry_out("pytorch.md", &storage, &python);
}

#[test]
fn lmdb_guide_does_what_it_says() {
    let python = environment("programs");
    let storage = prepared("caffe_data", &python, &["records=50"], "lmdb");
    guides::carry_out("caffe-lmdb.md", &storage, &python);
}

#[test]
fn pytorch_and_hugging_face_guide_does_what_it_says() {
    let python = environment("training-pytorch");
    let storage = prepared("loaders", &python, &["images=100", "shard=25"], "images");
    let weights = tempfile::tempdir().unwrap();
    let mut command = Command::new(&python);
    command.arg(bench_folder().join("jobs/weights.py"));
    command.arg("prepare").arg(weights.path().join("models"));
    programs::succeed(command.arg("tensors=2"));
    upload(&storage, weights.path(), Path::new(""));
    guides::carry_out("hugging-face.md", &storage, &python);
}
