// SPDX-License-Identifier: Apache-2.0
//! A tree of many small directories is walked for the first time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use testkit::sandbox::Sandbox;
use testkit::storage::Storage;

const DIRECTORIES: usize = 1500;

/// All names below a directory, and how long the files are.
fn walk(root: &Path, below: &str, found: &mut BTreeMap<String, Option<u64>>) {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(root.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = if below.is_empty() {
            name
        } else {
            format!("{below}/{name}")
        };
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            dirs.push(path.clone());
        }
        found.insert(path, meta.is_file().then_some(meta.len()));
    }
    dirs.sort();
    for dir in dirs {
        walk(root, &dir, found);
    }
}

#[test]
fn a_first_walk_of_many_small_directories_asks_for_few_listings() {
    let storage = Storage::s3();
    for index in 0..DIRECTORIES {
        let dir = format!("tree/{:02}/{index:04}", index % 30);
        storage.put(format!("{dir}/a"), 1, index);
        if index % 3 == 0 {
            storage.put(format!("{dir}/deep/b"), 2, 7);
        }
        if index % 5 == 0 {
            storage.put(format!("{dir}/a-b"), 3, 9);
        }
    }
    storage.put("tree.txt", 4, 11);
    let mut expected = BTreeMap::new();
    walk(storage.root(), "tree", &mut expected);
    storage.relay().set_latency(Duration::from_millis(10));
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let mut found = BTreeMap::new();
    walk(&mount.path(""), "tree", &mut found);
    assert_eq!(found.len(), expected.len());
    assert_eq!(found, expected);
    let listings = mount.status().number("/mounts/0/requests/list");
    assert!(listings < DIRECTORIES as u64 / 5, "{listings} listings");
    // And again from what is known.
    let mut again = BTreeMap::new();
    walk(&mount.path(""), "tree", &mut again);
    assert_eq!(again, expected);
    assert_eq!(mount.status().number("/mounts/0/requests/list"), listings);
    // What is changed here shows, though the listing of all said otherwise.
    fs::write(mount.path("tree/07/0007/new"), b"new").unwrap();
    fs::remove_file(mount.path("tree/09/0009/a")).unwrap();
    assert_eq!(fs::read(mount.path("tree/07/0007/new")).unwrap(), b"new");
    let left = fs::read_dir(mount.path("tree/09/0009")).unwrap().count();
    assert_eq!(left, 1);
}
