// SPDX-License-Identifier: Apache-2.0
//! Somebody else writes the same object: another program beside the product, or another node.
//!
//! Nothing is overwritten that the writer did not see, and nothing that was written is lost: it is in
//! the object, or in a copy beside it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use rustix::io::Errno;
use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::Storage;
use testkit::stores::Store;
use testkit::wait;

/// Returns a sandbox that leads to a store.
fn sandbox_of(store: &Store, plain: &Storage) -> Sandbox {
    let environment = store.environment.iter();
    environment.fold(Sandbox::new(plain), |sandbox, (name, value)| {
        sandbox.with_variable(name, value)
    })
}

fn mount_of<'a>(sandbox: &'a Sandbox, store: &Store, plain: &Storage, mode: &str) -> Mount<'a> {
    let mut mounting = sandbox.mount(plain).uri(&store.uri);
    for flag in store.flags.chunks(2) {
        mounting = match flag {
            // An option may be given many times.
            [name, value] => mounting.switch(name).switch(value),
            _ => panic!("a flag without a value"),
        };
    }
    mounting
        .flag("--write-mode", mode)
        .flag("--freshness", "always")
        .start()
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    entries.map(name).collect()
}

#[test]
fn what_others_changed_is_not_overwritten_on_any_storage() {
    let plain = Storage::local();
    // The emulator of Google's storage does not look at the conditions of writes, and web servers
    // take none.
    let mut stores = vec![Store::s3(), Store::local(), Store::azure()];
    stores.extend(Store::hdfs());
    for store in &stores {
        for mode in ["through", "back"] {
            let dir = format!("{}-{mode}", store.name);
            store.put(&format!("{dir}/a"), b"first");
            let sandbox = sandbox_of(store, &plain);
            let mount = mount_of(&sandbox, store, &plain, mode);
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(mount.path(&dir).join("a"))
                .unwrap();
            file.seek(SeekFrom::End(0)).unwrap();
            file.write_all(b" ours").unwrap();
            store.put(&format!("{dir}/a"), b"somebody else's");
            match (mode, file.sync_all()) {
                ("through", done) => {
                    let error = done.expect_err(&dir);
                    let stale = Some(Errno::STALE.raw_os_error());
                    assert_eq!(error.raw_os_error(), stale, "{dir}: {error}");
                }
                (_, done) => done.unwrap(),
            }
            drop(file);
            // Another node sees both.
            let other = sandbox_of(store, &plain);
            let seen = mount_of(&other, store, &plain, mode);
            wait::until(&format!("{dir} has a copy"), || {
                names(&seen.path(&dir)).len() == 2
            });
            for mount in [&mount, &seen] {
                let at = mount.path(&dir);
                assert_eq!(fs::read(at.join("a")).unwrap(), b"somebody else's", "{dir}");
                let names = names(&at);
                let copy = names
                    .iter()
                    .find(|name| name.starts_with("a.forebay-conflict-"));
                let copy = fs::read(at.join(copy.expect("a copy"))).unwrap();
                assert_eq!(copy, b"first ours", "{dir}");
            }
            seen.unmount();
            mount.unmount();
        }
    }
}

/// Changes of each node.
const TURNS: usize = 15;

/// Adds a line to a file after reading it; returns whether that was acknowledged.
fn add_line(path: &Path, line: &str) -> bool {
    let added = OpenOptions::new().read(true).write(true).open(path);
    let added = added.and_then(|mut file| {
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        file.write_all(line.as_bytes())?;
        file.sync_all()
    });
    match added {
        Ok(()) => true,
        Err(error) => {
            let stale = Some(Errno::STALE.raw_os_error());
            assert_eq!(error.raw_os_error(), stale, "{line}: {error}");
            false
        }
    }
}

/// Has two nodes change one object; returns the lines that were acknowledged, and all that there
/// are of the object and of its copies.
fn two_nodes_change_one(mode: &str) -> (Vec<String>, String, Vec<String>) {
    let storage = Storage::s3();
    storage.put_bytes("log", b"");
    let sandboxes = [Sandbox::new(&storage), Sandbox::new(&storage)];
    let mounts = sandboxes.each_ref().map(|sandbox| {
        let mounting = sandbox.mount(&storage).flag("--write-mode", mode);
        mounting.flag("--freshness", "always").start()
    });
    let mut acknowledged = Vec::new();
    std::thread::scope(|scope| {
        let nodes: Vec<_> = (0..2)
            .map(|node| {
                let path = mounts[node].path("log");
                scope.spawn(move || {
                    let lines = (0..TURNS).map(|turn| format!("node {node} turn {turn}\n"));
                    lines
                        .filter(|line| add_line(&path, line))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        for node in nodes {
            acknowledged.extend(node.join().unwrap());
        }
    });
    for (sandbox, mount) in sandboxes.iter().zip(&mounts) {
        let point = mount.point().to_str().unwrap();
        sandbox.run(&["sync", point, "--wait"]).success();
    }
    let read = |name: &str| fs::read_to_string(storage.root().join(name)).unwrap();
    let copies: Vec<_> = names(storage.root())
        .into_iter()
        .filter(|name| name.starts_with("log.forebay-conflict-"))
        .map(|name| read(&name))
        .collect();
    let result = (acknowledged, read("log"), copies);
    for mount in mounts {
        assert_eq!(fs::read_to_string(mount.path("log")).unwrap(), result.1);
        mount.unmount();
    }
    result
}

#[test]
fn what_two_nodes_acknowledged_of_one_object_is_all_in_it() {
    let (acknowledged, log, _) = two_nodes_change_one("through");
    assert!(
        acknowledged.len() >= TURNS,
        "only {} were",
        acknowledged.len()
    );
    for line in &acknowledged {
        assert_eq!(log.matches(line).count(), 1, "{line} in:\n{log}");
    }
    assert_eq!(log.lines().count(), acknowledged.len(), "{log}");
}

#[test]
fn of_two_nodes_that_create_one_name_exclusively_one_succeeds() {
    let storage = Storage::s3();
    let sandboxes = [Sandbox::new(&storage), Sandbox::new(&storage)];
    let mounts = sandboxes.each_ref().map(|sandbox| {
        sandbox
            .mount(&storage)
            .flag("--freshness", "always")
            .start()
    });
    for round in 0..20 {
        let name = format!("lock-{round}");
        let made: Vec<_> = std::thread::scope(|scope| {
            let each = mounts.each_ref().map(|mount| {
                let path = mount.path(&name);
                scope.spawn(move || File::create_new(path).map(drop))
            });
            each.map(|node| node.join().unwrap()).into_iter().collect()
        });
        let won = made.iter().filter(|made| made.is_ok()).count();
        assert_eq!(won, 1, "{name}: {made:?}");
        for error in made.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{name}");
        }
    }
    for mount in mounts {
        mount.unmount();
    }
}

#[test]
fn what_two_nodes_write_over_one_object_in_back_is_in_it_or_beside_it() {
    let storage = Storage::s3();
    storage.put_bytes("shared", b"first");
    let sandboxes = [Sandbox::new(&storage), Sandbox::new(&storage)];
    let mounts = sandboxes.each_ref().map(|sandbox| {
        let mounting = sandbox.mount(&storage).flag("--write-mode", "back");
        mounting.flag("--freshness", "always").start()
    });
    let content = |node: usize| format!("written by node {node}").into_bytes();
    // Both saw the first version, and both are told that what they wrote is kept.
    let mut files = mounts.each_ref().map(|mount| {
        let mut how = OpenOptions::new();
        how.read(true)
            .write(true)
            .open(mount.path("shared"))
            .unwrap()
    });
    for (node, file) in files.iter_mut().enumerate() {
        file.write_all(&content(node)).unwrap();
    }
    storage.switch_off();
    for file in &files {
        file.sync_all().unwrap();
    }
    drop(files);
    storage.switch_on();
    for (sandbox, mount) in sandboxes.iter().zip(&mounts) {
        let point = mount.point().to_str().unwrap();
        sandbox.run(&["sync", point, "--wait"]).success();
    }
    let mut stored = names(storage.root());
    stored.retain(|name| !name.starts_with(".sgwtmp"));
    let found: BTreeSet<_> = stored
        .iter()
        .map(|name| fs::read(storage.root().join(name)).unwrap())
        .collect();
    assert_eq!(
        found,
        BTreeSet::from([content(0), content(1)]),
        "{stored:?}"
    );
    let beside = stored.iter().filter(|name| *name != "shared");
    assert_eq!(beside.count(), 1, "{stored:?}");
    let of_name = fs::read(storage.root().join("shared")).unwrap();
    for mount in mounts {
        assert_eq!(mount.read("shared"), of_name);
        assert_eq!(names(mount.point()), stored);
        mount.unmount();
    }
}
