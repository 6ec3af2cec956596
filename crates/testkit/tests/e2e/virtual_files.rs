// SPDX-License-Identifier: Apache-2.0
//! `.forebay` in the root of a mount: there for who knows it, and in nobody's way.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::Storage;

const STATUS: &str = ".forebay/status.json";
const LOG: &str = ".forebay/accesslog";

fn run(program: &str, words: &[&Path]) -> Output {
    let output = Command::new(program).args(words).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
    output
}

/// Returns the paths of a program's answer.
fn lines(output: Output) -> Vec<String> {
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(String::from).collect()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// Returns the objects of a storage.
fn objects(root: &Path) -> Vec<String> {
    let found = run(
        "find",
        &[
            root,
            "-type".as_ref(),
            "f".as_ref(),
            "-printf".as_ref(),
            "%P\n".as_ref(),
        ],
    );
    lines(found)
}

/// Lines of the log as they come.
fn watch(mount: &Mount<'_>) -> BufReader<File> {
    BufReader::new(File::open(mount.path(LOG)).unwrap())
}

fn next(log: &mut BufReader<File>, marks: &[&str]) -> String {
    loop {
        let mut line = String::new();
        assert_ne!(
            log.read_line(&mut line).unwrap(),
            0,
            "the end, before {marks:?}"
        );
        if marks.iter().all(|mark| line.contains(mark)) {
            return line;
        }
    }
}

#[test]
fn status_json_is_what_the_command_says() {
    let storage = Storage::s3();
    storage.put("d/file", 1, 100_000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    mount.read("d/file");
    let told: Value = serde_json::from_slice(&mount.read(STATUS)).unwrap();
    let status = mount.status();
    let own = &told["daemons"][0];
    assert_eq!(own["pid"], status.0["pid"]);
    assert_eq!(own["cache"]["served_bytes"], 100_000);
    assert_eq!(own["mounts"][0]["uri"], status.0["mounts"][0]["uri"]);
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(own), keys(&status.0));
    // An open file is of one moment, and read at any place.
    let file = File::open(mount.path(STATUS)).unwrap();
    let mut whole = Vec::new();
    (&file).read_to_end(&mut whole).unwrap();
    mount.read("d/file");
    let mut part = [0; 100];
    file.read_exact_at(&mut part, 50).unwrap();
    assert_eq!(part[..], whole[50..150]);
    let meta = fs::metadata(mount.path(STATUS)).unwrap();
    assert_eq!(meta.mode() & 0o7777, 0o400, "for the owner of the daemon");
    drop(file);
    mount.unmount();
}

#[test]
fn virtual_files_are_in_no_listing_and_cannot_be_changed() {
    let storage = Storage::s3();
    storage.put("a", 1, 1000);
    storage.put("d/b", 2, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let (root, copy) = (mount.point().to_owned(), sandbox.dir().join("copy"));
    // The kernel knows them now, and shows them no more for it.
    mount.read(STATUS);
    assert_eq!(names(&root), ["a", "d"].map(String::from).into());
    for output in [
        run("ls", &["-lA".as_ref(), &root]),
        run("find", &[&root]),
        run("du", &["-a".as_ref(), &root]),
        run(
            "tar",
            &[
                "-cvf".as_ref(),
                "/dev/null".as_ref(),
                "-C".as_ref(),
                &root,
                ".".as_ref(),
            ],
        ),
    ] {
        let said = lines(output);
        assert!(said.len() >= 3, "{said:?}");
        assert!(
            said.iter().all(|line| !line.contains("forebay/")),
            "{said:?}"
        );
        assert!(
            said.iter().all(|line| !line.ends_with(".forebay")),
            "{said:?}"
        );
    }
    let from = format!("{}/", root.display());
    run("rsync", &["-a".as_ref(), from.as_ref(), &copy]);
    assert_eq!(names(&copy), ["a", "d"].map(String::from).into());

    assert_eq!(
        names(&mount.path(".forebay")),
        ["accesslog", "status.json"].map(String::from).into()
    );
    run("ls", &["-la".as_ref(), &mount.path(".forebay")]);
    let virtual_path = mount.path(STATUS);
    for (what, outcome) in [
        ("write", fs::write(&virtual_path, "x")),
        ("remove", fs::remove_file(&virtual_path)),
        ("make", fs::write(mount.path(".forebay/new"), "x")),
        (
            "make a directory",
            fs::create_dir(mount.path(".forebay/new")),
        ),
        (
            "rename in",
            fs::rename(mount.path("a"), mount.path(".forebay/a")),
        ),
        ("rename out", fs::rename(&virtual_path, mount.path("out"))),
        ("take its place", fs::create_dir(mount.path(".forebay"))),
        ("remove all", fs::remove_dir_all(mount.path(".forebay"))),
    ] {
        let error = outcome.expect_err(what);
        assert!(error.raw_os_error().is_some(), "{what}: {error}");
    }
    // Everything else goes, and they stay.
    let said = Command::new("rm").arg("-rf").arg(&root).output().unwrap();
    assert!(!said.status.success(), "the mount point itself is busy");
    assert_eq!(names(&root), BTreeSet::new());
    mount.read(STATUS);
    assert_eq!(objects(storage.root()), Vec::<String>::new());
    mount.unmount();
}

#[test]
fn the_access_log_tells_each_operation_as_it_happens() {
    let storage = Storage::s3();
    storage.put("d/file one", 1, 300_000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).switch("--no-passthrough").start();
    let mut log = watch(&mount);
    mount.read("d/file one");
    fs::metadata(mount.path("absent")).unwrap_err();
    fs::write(mount.path("d/new"), b"12345").unwrap();
    next(&mut log, &[" lookup \"/d/file one\" - ok "]);
    next(&mut log, &[" open \"/d/file one\" "]);
    let read = next(&mut log, &[" read \"/d/file one\" 0+"]);
    let words: Vec<_> = read.split(' ').collect();
    let (at, took) = (words[0], words[words.len() - 2]);
    assert!(at.parse::<f64>().unwrap() > 1e9, "{read}");
    assert!(took.parse::<f64>().unwrap() >= 0.0, "{read}");
    assert!(
        read.trim_end().ends_with(&format!(
            "pid={}",
            rustix::thread::gettid().as_raw_nonzero()
        )),
        "{read}"
    );
    next(&mut log, &[" lookup \"/absent\" - NotFound "]);
    next(&mut log, &[" create \"/d/new\" "]);
    next(&mut log, &[" write \"/d/new\" 0+5 ok "]);
    next(&mut log, &[" close \"/d/new\" "]);

    // Two readers, and one that was killed while it waited, are in nobody's way.
    let mut other = watch(&mount);
    let mut cat = Command::new("cat").arg(mount.path(LOG)).spawn().unwrap();
    fs::metadata(mount.path("again")).unwrap_err();
    for log in [&mut log, &mut other] {
        next(log, &["\"/again\""]);
    }
    cat.kill().unwrap();
    cat.wait().unwrap();
    drop((log, other));
    fs::metadata(mount.path("unseen")).unwrap_err();
    // Its own lines are not told, or it would never be quiet.
    let mut log = watch(&mount);
    fs::metadata(mount.path("last")).unwrap_err();
    let line = next(&mut log, &["\"/"]);
    assert!(!line.contains("unseen"), "{line}");
    drop(log);
    mount.unmount();
}

#[test]
fn an_object_of_the_storage_by_that_name_is_never_hidden() {
    let storage = Storage::s3();
    let inside = storage.put(".forebay/status.json", 1, 5000);
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage).flag("--freshness", "always");
    let mount = mounting.start();
    assert_eq!(names(mount.point()), [".forebay".to_owned()].into());
    assert_eq!(mount.read(STATUS), inside);
    assert!(fs::metadata(mount.path(LOG)).is_err());
    fs::remove_dir_all(mount.path(".forebay")).unwrap();
    // Nothing is in its way now.
    let told: Value = serde_json::from_slice(&mount.read(STATUS)).unwrap();
    assert_eq!(told["daemons"].as_array().unwrap().len(), 1);
    // And it comes back as soon as the storage has it.
    let inside = storage.put(".forebay/again", 2, 700);
    assert_eq!(mount.read(".forebay/again"), inside);
    mount.unmount();
}

#[test]
fn without_virtual_files_the_name_is_free() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).switch("--no-virtual-files").start();
    assert!(fs::metadata(mount.path(".forebay")).is_err());
    fs::create_dir(mount.path(".forebay")).unwrap();
    fs::write(mount.path(STATUS), b"mine").unwrap();
    assert_eq!(mount.read(STATUS), b"mine");
    assert_eq!(objects(storage.root()), [STATUS]);
    mount.unmount();
}

#[test]
fn the_status_is_there_while_the_storage_is_not() {
    let storage = Storage::s3();
    storage.put("a", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage).flag("--freshness", "always");
    let mount = mounting.flag("--deadline", "5s").start();
    storage.switch_off();
    let told: Value = serde_json::from_slice(&mount.read(STATUS)).unwrap();
    assert_eq!(told["daemons"][0]["pid"], mount.pid());
    mount.unmount();
}
