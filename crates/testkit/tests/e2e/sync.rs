// SPDX-License-Identifier: Apache-2.0
//! `forebay sync`: what was changed in the storage before is seen after it, whatever the freshness.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use testkit::data;
use testkit::sandbox::{Finished, Sandbox};
use testkit::storage::Storage;

fn sync(sandbox: &Sandbox, path: impl AsRef<Path>) -> Finished {
    sandbox.run(&["sync".as_ref(), path.as_ref().as_os_str()])
}

#[track_caller]
fn names(dir: impl AsRef<Path>) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[track_caller]
fn same(path: impl AsRef<Path>, seed: u64, len: usize) {
    let found = fs::read(path).unwrap();
    assert_eq!((found.len(), data::check(seed, 0, &found)), (len, Ok(())));
}

#[track_caller]
fn absent(path: impl AsRef<Path>) {
    let error = fs::metadata(path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_synced_directory_shows_every_change_made_before_also_on_immutable_mounts() {
    for freshness in ["immutable", "1h"] {
        let storage = Storage::s3();
        for (name, seed) in [
            ("d/changed", 1),
            ("d/gone", 2),
            ("d/sub/deep", 3),
            ("e/x", 4),
        ] {
            storage.put(name, seed, 100_000);
        }
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox
            .mount(&storage)
            .flag("--freshness", freshness)
            .start();
        let path = |name: &str| mount.path(name);
        same(path("d/changed"), 1, 100_000);
        same(path("d/sub/deep"), 3, 100_000);
        assert_eq!(names(path("d")), ["changed", "gone", "sub"]);
        for name in ["d/new", "d/sub/new", "d/dir", "later", "e/later"] {
            absent(path(name));
        }
        let mut open = fs::File::open(path("d/sub/deep")).unwrap();

        storage.put("d/changed", 11, 50_000);
        storage.put("d/new", 12, 1000);
        storage.put("d/sub/deep", 13, 20_000);
        storage.put("d/sub/new", 14, 1000);
        storage.put("d/dir/file", 15, 1000);
        storage.put("e/later", 16, 1000);
        storage.remove("d/gone");
        same(path("d/changed"), 1, 100_000);
        absent(path("d/new"));

        let said = sync(&sandbox, path("d")).success();
        assert!(said.contains("4 names"), "{said}");
        assert_eq!(names(path("d")), ["changed", "dir", "new", "sub"]);
        same(path("d/changed"), 11, 50_000);
        same(path("d/new"), 12, 1000);
        same(path("d/sub/deep"), 13, 20_000);
        same(path("d/sub/new"), 14, 1000);
        same(path("d/dir/file"), 15, 1000);
        absent(path("d/gone"));
        assert_eq!(path("d/changed").metadata().unwrap().len(), 50_000);
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut open, &mut content).unwrap();
        assert_eq!(content.len(), 100_000, "an open file stays what it was");
        // Outside of what was synced, freshness holds.
        absent(path("e/later"));

        storage.put("later", 17, 1000);
        sync(&sandbox, mount.point()).success();
        same(path("later"), 17, 1000);
        same(path("e/later"), 16, 1000);
        drop(open);
        mount.unmount();
    }
}

#[test]
fn a_file_is_synced_alone_and_a_sync_outlives_the_daemon() {
    let storage = Storage::s3();
    storage.put("d/one", 1, 100_000);
    storage.put("d/two", 2, 100_000);
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage).flag("--freshness", "immutable");
    let mount = mounting.start();
    assert_eq!(names(mount.path("d")), ["one", "two"]);
    same(mount.path("d/two"), 2, 100_000);
    storage.put("d/one", 11, 5000);
    storage.put("d/two", 12, 5000);
    sync(&sandbox, mount.path("d/one")).success();
    same(mount.path("d/one"), 11, 5000);
    same(mount.path("d/two"), 2, 100_000);
    storage.remove("d/one");
    let said = sync(&sandbox, mount.path("d/one")).success();
    assert!(said.contains("not there any more"), "{said}");
    absent(mount.path("d/one"));
    assert_eq!(names(mount.path("d")), ["two"]);
    storage.put("d/three", 3, 1000);
    sync(&sandbox, mount.path("d")).success();
    mount.crash();

    let mount = mounting.start();
    assert_eq!(names(mount.path("d")), ["three", "two"]);
    same(mount.path("d/two"), 12, 5000);
    absent(mount.path("d/one"));
    mount.unmount();
}

#[test]
fn a_storage_that_is_away_fails_a_sync_and_what_was_known_stays() {
    let (near, far) = (Storage::local(), Storage::s3());
    near.put("file", 1, 1000);
    far.put("d/file", 2, 1000);
    let sandbox = Sandbox::new(&far);
    let state = sandbox.dir().join("state");
    let sandbox = sandbox.with_variable("FOREBAY_STATE_DIR", state.to_str().unwrap());
    let mounting = sandbox.mount(&near).flag("--freshness", "immutable");
    let mount = mounting.flag("--deadline", "3s").start();
    let mut words = vec![
        "mounts",
        "add",
        "/far",
        "s3://data",
        "--freshness",
        "immutable",
    ];
    let flags = far.flags();
    words.extend(flags.iter().map(String::as_str));
    sandbox.run(&words).success();
    same(mount.path("far/d/file"), 2, 1000);
    far.switch_off();
    let said = sync(&sandbox, mount.path("far/d")).refusal();
    assert!(
        said.contains("'/far/d'") && said.contains("stays"),
        "{said}"
    );
    same(mount.path("far/d/file"), 2, 1000);
    assert_eq!(names(mount.path("far/d")), ["file"]);

    // Of a path that stands for several storages, the others are synced.
    near.put("new", 3, 1000);
    let mut command = vec!["sync".as_ref(), mount.point().as_os_str()];
    command.push("--json".as_ref());
    let finished = sandbox.run(&command);
    assert_eq!(finished.status.code(), Some(1));
    let answer: Value = serde_json::from_str(&finished.stdout).unwrap();
    let places = answer["places"].as_array().unwrap();
    assert_eq!(
        (&places[0]["path"], &places[0]["error"]),
        (&"/".into(), &Value::Null)
    );
    assert_eq!(places[1]["path"], "/far");
    assert!(places[1]["error"].is_string(), "{answer}");
    same(mount.path("new"), 3, 1000);
    far.switch_on();
    far.put("d/new", 4, 1000);
    sync(&sandbox, mount.point()).success();
    same(mount.path("far/d/new"), 4, 1000);
    mount.unmount();
}

#[test]
fn what_cannot_be_synced_is_refused_with_the_reason() {
    let storage = Storage::local();
    storage.put("file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let said = sync(&sandbox, sandbox.dir()).refusal();
    let point = mount.point().display().to_string().to_lowercase();
    assert!(said.contains("no mount") && said.contains(&point), "{said}");
    let said = sync(&sandbox, mount.path("never")).refusal();
    assert!(said.contains("'never' does not exist"), "{said}");
    mount.unmount();
    let said = sync(&sandbox, sandbox.point()).refusal();
    assert!(said.contains("no daemon"), "{said}");
}

#[test]
fn syncs_at_the_same_time_and_readers_around_them_disturb_nobody() {
    let storage = Storage::s3();
    for index in 0..40 {
        storage.put(format!("d{}/{index}", index % 4), index, 10_000);
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox
        .mount(&storage)
        .flag("--freshness", "immutable")
        .start();
    let mut inside = Command::new("cat")
        .current_dir(mount.path("d1"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::scope(|scope| {
        for dir in ["", "d0", "d1", "d2", "d3", "d0/0"] {
            let (sandbox, path) = (&sandbox, mount.path(dir));
            scope.spawn(move || sync(sandbox, path).success());
        }
        for dir in 0..4 {
            let mount = &mount;
            scope.spawn(move || {
                for index in (dir..40).step_by(4) {
                    same(mount.path(format!("d{dir}/{index}")), index, 10_000);
                }
            });
        }
    });
    let cwd = fs::read_link(format!("/proc/{}/cwd", inside.id())).unwrap();
    assert_eq!(
        cwd,
        mount.path("d1"),
        "a directory that stayed is left alone"
    );
    drop(inside.stdin.take());
    assert!(inside.wait().unwrap().success());
    mount.unmount();
}

#[test]
fn owners_and_modes_of_a_local_storage_are_seen_after_a_sync() {
    let storage = Storage::local();
    storage.put("d/file", 1, 1000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox
        .mount(&storage)
        .flag("--freshness", "immutable")
        .start();
    let mode = |name: &str| mount.path(name).metadata().unwrap().mode() & 0o777;
    let before = (mode("d/file"), mode("d"));
    for (name, mode) in [("d/file", 0o600), ("d", 0o701)] {
        fs::set_permissions(storage.root().join(name), PermissionsExt::from_mode(mode)).unwrap();
    }
    assert_eq!((mode("d/file"), mode("d")), before);
    sync(&sandbox, mount.point()).success();
    assert_eq!((mode("d/file"), mode("d")), (0o600, 0o701));
    mount.unmount();
}

#[test]
fn an_immutable_root_that_is_removed_and_added_again_keeps_no_absent_names() {
    let (first, second) = (Storage::local(), Storage::local());
    first.put("file", 1, 1000);
    second.put("new", 2, 1000);
    let sandbox = Sandbox::new(&first);
    let state = sandbox.dir().join("state");
    let sandbox = sandbox.with_variable("FOREBAY_STATE_DIR", state.to_str().unwrap());
    let mount = sandbox
        .mount(&first)
        .flag("--freshness", "immutable")
        .start();
    absent(mount.path("new"));
    absent(mount.path("d"));
    let other = second.uri();
    let add = |at: &str, uri: &str| {
        let words = ["mounts", "add", at, uri, "--freshness", "immutable"];
        sandbox.run(&words).success()
    };
    add("/other", &other);
    sandbox.run(&["mounts", "remove", "/"]).success();
    absent(mount.path("new"));
    first.put("d/x", 3, 1000);
    add("/", &other);
    same(mount.path("new"), 2, 1000);
    sandbox.run(&["mounts", "remove", "/"]).success();
    add("/", &first.uri());
    sync(&sandbox, mount.path("d")).success();
    same(mount.path("d/x"), 3, 1000);
    mount.unmount();
}

#[test]
fn a_directory_that_only_leads_to_mounts_is_synced_and_stays_what_it_was() {
    let (base, other) = (Storage::local(), Storage::local());
    base.put("file", 1, 1000);
    other.put("old", 2, 1000);
    let sandbox = Sandbox::new(&base);
    let state = sandbox.dir().join("state");
    let sandbox = sandbox.with_variable("FOREBAY_STATE_DIR", state.to_str().unwrap());
    let mount = sandbox.mount(&base).start();
    let words = [
        "mounts",
        "add",
        "/way/to",
        &other.uri(),
        "--freshness",
        "immutable",
    ];
    sandbox.run(&words).success();
    absent(mount.path("way/to/new"));
    other.put("new", 3, 1000);
    let mut inside = Command::new("cat")
        .current_dir(mount.path("way"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let said = sync(&sandbox, mount.path("way")).success();
    assert!(
        said.contains("2 names") && said.lines().count() == 1,
        "{said}"
    );
    same(mount.path("way/to/new"), 3, 1000);
    let cwd = fs::read_link(format!("/proc/{}/cwd", inside.id())).unwrap();
    assert_eq!(cwd, mount.path("way"));
    drop(inside.stdin.take());
    assert!(inside.wait().unwrap().success());
    mount.unmount();
}
