// SPDX-License-Identifier: Apache-2.0
//! `forebay load`, `jobs`, `free` and `du`: what is said to be cached is, and nothing else is said.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use testkit::data;
use testkit::sandbox::{Finished, Mount, Sandbox, drop_kernel_caches, kill};
use testkit::storage::Storage;
use testkit::wait;

/// Names and sizes of a tree; the seed of each is its index.
const TREE: [(&str, usize); 7] = [
    ("d/small/1", 1),
    ("d/small/2.jpg", 110 * 1024),
    ("d/deep/er/3.jpg", 500_000),
    ("d/large", (20 << 20) + 1),
    ("d/empty", 0),
    ("e/4.jpg", 70_000),
    ("5", 60_000),
];

fn put_tree(storage: &Storage) {
    for (seed, (name, size)) in TREE.iter().enumerate() {
        storage.put(name, seed as u64, *size);
    }
}

#[track_caller]
fn read_tree(mount: &Mount<'_>, is_meant: impl Fn(&str) -> bool) {
    let meant = TREE
        .iter()
        .enumerate()
        .filter(|(_, (name, _))| is_meant(name));
    for (seed, (name, size)) in meant {
        let found = mount.read(name);
        let content = data::check(seed as u64, 0, &found);
        assert_eq!((found.len(), content), (*size, Ok(())), "{name}");
    }
}

fn forebay(sandbox: &Sandbox, verb: &str, path: impl AsRef<Path>, flags: &[&str]) -> Finished {
    let mut words = vec![verb.as_ref(), path.as_ref().as_os_str()];
    words.extend(flags.iter().map(std::ffi::OsStr::new));
    sandbox.run(&words)
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn jobs(sandbox: &Sandbox) -> Vec<Value> {
    let said = sandbox.run(&["jobs", "--json"]).success();
    json(&said)["daemons"][0]["jobs"]
        .as_array()
        .unwrap()
        .clone()
}

#[track_caller]
fn cached(sandbox: &Sandbox, path: impl AsRef<Path>) -> (u64, u64, u64) {
    let said = forebay(sandbox, "du", path, &["--json"]).success();
    let usage = &json(&said)[0];
    let number = |name: &str| usage[name].as_u64().unwrap();
    (number("files"), number("bytes"), number("cached_bytes"))
}

/// Begins a load that takes long, and watches it from another process.
fn slow_load(sandbox: &Sandbox, path: &Path) -> Child {
    let mut command: Command = sandbox.command();
    command.arg("load").arg(path).args(["--bandwidth", "1MB"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[track_caller]
fn begun(sandbox: &Sandbox) {
    wait::until("the load fetches", || {
        jobs(sandbox).iter().any(|job| job["fetched_bytes"] != 0)
    });
}

#[test]
fn a_loaded_tree_is_read_without_the_storage_and_a_freed_one_from_it() {
    let storage = Storage::s3();
    put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let said = forebay(&sandbox, "load", mount.path("d"), &[]).success();
    assert!(
        said.contains("5 files") && said.contains("cached whole"),
        "{said}"
    );
    let total: u64 = TREE[..5].iter().map(|(_, size)| *size as u64).sum();
    assert_eq!(cached(&sandbox, mount.path("d")), (5, total, total));
    assert_eq!(cached(&sandbox, mount.path("e")), (1, 70_000, 0));
    let said = forebay(&sandbox, "du", mount.path("d"), &[]).success();
    assert!(said.contains("100 %"), "{said}");

    // Another load finds everything there.
    let asked = mount.status().number("/mounts/0/requests/get");
    let said = forebay(&sandbox, "load", mount.path("d"), &["--json"]).success();
    let job = json(&said);
    assert_eq!(
        (&job["state"], &job["fetched_bytes"]),
        (&"complete".into(), &0.into())
    );
    assert_eq!(mount.status().number("/mounts/0/requests/get"), asked);
    let in_d = |name: &str| name.starts_with("d/");
    storage.switch_off();
    read_tree(&mount, in_d);
    storage.switch_on();

    let said = forebay(&sandbox, "free", mount.path("d/deep"), &[]).success();
    assert!(said.contains("1 files"), "{said}");
    assert_eq!(cached(&sandbox, mount.path("d/deep")), (1, 500_000, 0));
    assert_eq!(cached(&sandbox, mount.path("d")).2, total - 500_000);
    forebay(&sandbox, "free", mount.point(), &[]).success();
    assert_eq!(cached(&sandbox, mount.point()).2, 0);
    drop_kernel_caches();
    read_tree(&mount, |_| true);
    assert!(mount.status().number("/mounts/0/requests/get") > asked);
    mount.unmount();
}

#[test]
fn what_is_written_and_not_stored_is_not_freed() {
    let storage = Storage::s3();
    put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage).flag("--write-mode", "back");
    let mount = mounting.flag("--deadline", "3s").start();
    read_tree(&mount, |_| true);
    storage.switch_off();
    let content = data::bytes(99, 100_000);
    fs::write(mount.path("new"), &content).unwrap();
    storage.switch_on();
    forebay(&sandbox, "free", mount.point(), &[]).success();
    assert_eq!(mount.read("new"), content);
    sandbox
        .run(&[
            "sync".as_ref(),
            mount.point().as_os_str(),
            "--wait".as_ref(),
        ])
        .success();
    assert_eq!(fs::read(storage.root().join("new")).unwrap(), content);
    mount.unmount();
}

#[test]
fn only_what_matches_or_is_listed_is_loaded() {
    let storage = Storage::s3();
    put_tree(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let load = |flags: &[&str]| forebay(&sandbox, "load", mount.point(), flags);
    let said = load(&["--metadata-only"]).success();
    assert!(said.contains("names of 7 files"), "{said}");
    assert_eq!(mount.status().number("/mounts/0/requests/get"), 0);
    load(&["--include", "*.jpg", "--exclude", "e/**"]).success();
    assert_eq!(cached(&sandbox, mount.point()).2, 110 * 1024 + 500_000);

    let list = sandbox.dir().join("list");
    fs::write(
        &list,
        format!("5\r\n\n{}\nno/such\n", mount.path("e").display()),
    )
    .unwrap();
    let list = list.to_str().unwrap();
    let finished = load(&["--from-file", list]);
    assert_eq!(finished.status.code(), Some(1));
    let said = &finished.stdout;
    assert!(
        said.contains("missing: /no/such: 'no/such' does not exist"),
        "{said}"
    );
    assert!(
        finished.stderr.contains("1 file or directory"),
        "{}",
        finished.stderr
    );
    assert_eq!(cached(&sandbox, mount.path("5")).2, 60_000);
    assert_eq!(cached(&sandbox, mount.path("e")).2, 70_000);
    assert_eq!(cached(&sandbox, mount.path("d/large")).2, 0);
    mount.unmount();
}

#[test]
fn an_interrupted_client_leaves_the_load_to_the_daemon_and_to_others() {
    let storage = Storage::s3();
    for seed in 0..30 {
        storage.put(format!("d/{seed}"), seed, 1 << 20);
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let client = slow_load(&sandbox, &mount.path("d"));
    begun(&sandbox);
    kill(i32::try_from(client.id()).unwrap(), Signal::INT);
    let ended = client.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(
        said.contains("goes on") && said.contains("--stop"),
        "{said}"
    );
    assert_eq!(jobs(&sandbox)[0]["state"], "running");
    assert_eq!(mount.status().0["loads"][0]["path"], "/d");
    let said = sandbox.run(&["status"]).success();
    assert!(said.contains("of 30 files"), "{said}");

    let load = |flags: &[&str]| forebay(&sandbox, "load", mount.path("d"), flags);
    let said = load(&["--bandwidth", "1MB", "--detach"]).success();
    assert!(said.contains("runs already"), "{said}");
    let said = load(&[]).refusal();
    assert!(said.contains("with other options"), "{said}");
    let said = forebay(&sandbox, "free", mount.point(), &[]).refusal();
    assert!(said.contains("a load of '/d' runs"), "{said}");
    let mut watcher = slow_load(&sandbox, &mount.path("d"));
    let mut said = String::new();
    let mut pipe = BufReader::new(watcher.stderr.take().unwrap());
    pipe.read_line(&mut said).unwrap();
    assert!(said.contains("joins"), "{said}");
    load(&["--stop"]).success();
    assert_eq!(watcher.wait().unwrap().code(), Some(1));
    assert!(load(&["--stop"]).refusal().contains("no load"));
    assert_eq!(jobs(&sandbox)[0]["state"], "stopped");
    assert!(cached(&sandbox, mount.path("d")).2 < 30 << 20);
    load(&[]).success();
    assert_eq!(cached(&sandbox, mount.path("d")).2, 30 << 20);
    mount.unmount();
}

#[test]
fn a_load_goes_on_after_a_crash_and_a_restart_and_one_that_ended_does_not() {
    let storage = Storage::s3();
    for seed in 0..30 {
        storage.put(format!("d/{seed}"), seed, 1 << 20);
    }
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage);
    let state = sandbox.dir().join("state");
    let mounting = mounting.flag("--state-dir", state.to_str().unwrap());
    let mount = mounting.start();
    let flags = ["--bandwidth", "1MB", "--detach"];
    forebay(&sandbox, "load", mount.path("d"), &flags).success();
    begun(&sandbox);
    mount.crash();
    let mount = mounting.start();
    wait::until("the load runs again", || !jobs(&sandbox).is_empty());
    assert_eq!(jobs(&sandbox)[0]["path"], "/d");
    mount.unmount();
    let mount = mounting.start();
    wait::until("the load runs again", || !jobs(&sandbox).is_empty());
    forebay(&sandbox, "load", mount.path("d"), &["--stop"]).success();
    forebay(&sandbox, "load", mount.path("d"), &[]).success();
    assert_eq!(jobs(&sandbox).len(), 1, "the latest of a path is kept");
    assert_eq!(cached(&sandbox, mount.path("d")).2, 30 << 20);
    mount.unmount();
    let mount = mounting.start();
    assert_eq!(jobs(&sandbox), Vec::<Value>::new());
    mount.unmount();
}

#[test]
fn what_does_not_fit_or_is_not_there_is_said_and_the_cache_stays() {
    let storage = Storage::s3();
    for seed in 0..30 {
        storage.put(format!("kept/{seed}"), seed, 1 << 20);
        storage.put(format!("more/{seed}"), seed, 3 << 20);
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).cache_size("64MiB").start();
    forebay(&sandbox, "load", mount.path("kept"), &[]).success();
    let finished = forebay(&sandbox, "load", mount.path("more"), &[]);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let (said, listed) = (&finished.stderr, &finished.stdout);
    assert!(
        said.contains("full") && said.contains("forebay free"),
        "{said}"
    );
    assert!(listed.contains("missing: /more/"), "{listed}");
    assert_eq!(cached(&sandbox, mount.path("kept")).2, 30 << 20);
    assert!(cached(&sandbox, mount.path("more")).2 > 0);

    let said = forebay(&sandbox, "load", mount.path("none"), &[]).refusal();
    assert!(said.contains("'none' does not exist"), "{said}");
    let said = forebay(&sandbox, "load", sandbox.dir(), &[]).refusal();
    assert!(said.contains("in no mount"), "{said}");
    let said = forebay(&sandbox, "load", mount.point(), &["--include", "/"]).refusal();
    assert!(said.contains("no pattern"), "{said}");
    mount.unmount();
}
