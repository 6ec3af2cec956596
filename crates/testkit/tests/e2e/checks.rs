// SPDX-License-Identifier: Apache-2.0
//! `forebay mounts check` against a real server of each kind: what it says of each step.

use serde_json::Value;
use testkit::data;
use testkit::sandbox::Sandbox;
use testkit::storage::Storage;
use testkit::stores::Store;

const STEPS: [&str; 7] = [
    "resolve",
    "reach and authenticate",
    "list",
    "read a range",
    "throughput, 1 connection",
    "throughput, 16 connections",
    "write and delete",
];

fn sandbox_of(store: &Store) -> Sandbox {
    let mut sandbox = Sandbox::new(&Storage::local());
    for (name, value) in &store.environment {
        sandbox = sandbox.with_variable(name, value);
    }
    sandbox
}

/// Puts a file, and checks that every step passes and says what it found.
fn every_step_passes(store: &Store) {
    store.put("dir/file", &data::bytes(1, 3 << 20));
    let sandbox = sandbox_of(store);
    let mut words = vec!["mounts", "check", &store.uri, "--json"];
    words.extend(store.flags.iter().map(String::as_str));
    let text = sandbox.run(&words).success();
    let report: Value = serde_json::from_str(&text).unwrap();
    let steps = report["steps"].as_array().unwrap();
    let names: Vec<_> = steps
        .iter()
        .map(|step| step["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, STEPS, "{}", store.name);
    for (step, name) in steps.iter().zip(STEPS) {
        let expected = match name {
            "write and delete" if !store.is_writable() => "not_supported",
            _ => "pass",
        };
        assert_eq!(step["outcome"], expected, "{}: {step}", store.name);
        let detail = step["detail"].as_str().unwrap();
        let words = match name {
            "list" => "2 names in 2 directories",
            "read a range" => "64 KiB of 'dir/file', first byte after",
            name if name.starts_with("throughput") => "/s",
            "write and delete" if store.is_writable() => "wrote and deleted an object",
            _ => "",
        };
        assert!(
            detail.contains(words),
            "{}: {words} in {detail}",
            store.name
        );
    }
    for (_, secret) in &store.environment {
        assert!(!text.contains(secret), "{}: a secret is shown", store.name);
    }
    sandbox.assert_nothing_left();
}

#[test]
fn a_check_of_s3_passes_every_step() {
    every_step_passes(&Store::s3());
}

#[test]
fn a_check_of_a_local_directory_passes_every_step() {
    every_step_passes(&Store::local());
}

#[test]
fn a_check_of_a_web_server_passes_every_step() {
    every_step_passes(&Store::web());
}

#[test]
fn a_check_of_azure_passes_every_step_and_a_wrong_key_is_told() {
    let store = Store::azure();
    every_step_passes(&store);
    let sandbox = sandbox_of(&store).with_variable("AZURE_STORAGE_KEY", "d3Jvbmc=");
    let mut words = vec!["mounts", "check", &store.uri];
    words.extend(store.flags.iter().map(String::as_str));
    let finished = sandbox.run(&words);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stdout.contains("failed"), "{finished:?}");
    assert!(!finished.stdout.contains("d3Jvbmc="), "{finished:?}");
}

#[test]
fn a_check_of_google_cloud_storage_passes_every_step() {
    every_step_passes(&Store::google());
}

#[test]
fn a_check_of_ceph_passes_every_step_through_its_gateway_and_as_files() {
    for store in &Store::ceph() {
        every_step_passes(store);
    }
}

#[test]
fn a_check_of_a_hub_passes_every_step() {
    every_step_passes(&Store::hub());
}

#[test]
fn a_check_of_hdfs_passes_every_step_by_both_protocols_and_its_owners_are_mapped() {
    let stores = Store::hdfs();
    for store in &stores {
        every_step_passes(store);
    }
    owners_of_hdfs_are_mapped(&stores);
}

/// Owners that this machine does not know are the mount's, unless a map says otherwise.
fn owners_of_hdfs_are_mapped(stores: &[Store; 2]) {
    use std::os::unix::fs::MetadataExt;
    stores[0].change_owner("dir/file", "nobody-knows-her", "root");
    let owner = |store: &Store, map: &str| {
        let sandbox = sandbox_of(store);
        let local = Storage::local();
        let mount = sandbox
            .mount(&local)
            .uri(&store.uri)
            .flag("--uid", "4321")
            .flag("--gid", "8765")
            .flag("--idmap", map)
            .start();
        let found = mount.path("dir/file").metadata().unwrap();
        mount.unmount();
        (found.uid(), found.gid())
    };
    for store in stores {
        assert_eq!(owner(store, ""), (4321, 0), "{}", store.name);
        let map = "uid:nobody-knows-her=77,gid:0=88";
        assert_eq!(owner(store, map), (77, 88), "{}", store.name);
        assert_eq!(owner(store, "uid:*=5"), (5, 0), "{}", store.name);
    }
}
