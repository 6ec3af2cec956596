// SPDX-License-Identifier: Apache-2.0
//! `forebay pin` and `unpin`: what is pinned is there when everything else had to go.

use std::fs;
use std::path::Path;

use serde_json::Value;
use testkit::data;
use testkit::sandbox::{Finished, Mount, Mounting, Sandbox, drop_kernel_caches};
use testkit::storage::Storage;
use testkit::wait;

const SIZE: usize = 1 << 20;

/// Puts a tree to keep, and one that alone is more than the cache.
fn put_trees(storage: &Storage) {
    for seed in 0..12 {
        storage.put(format!("kept/{seed}"), seed, SIZE);
    }
    for seed in 0..40 {
        storage.put(format!("other/{seed}"), seed, 3 * SIZE);
    }
}

fn small_cache<'a>(sandbox: &'a Sandbox, storage: &Storage) -> Mounting<'a> {
    let state = sandbox.dir().join("state");
    let mounting = sandbox.mount(storage).cache_size("64MiB");
    mounting.flag("--state-dir", state.to_str().unwrap())
}

fn forebay(sandbox: &Sandbox, verb: &str, path: impl AsRef<Path>, flags: &[&str]) -> Finished {
    let mut words = vec![verb.as_ref(), path.as_ref().as_os_str()];
    words.extend(flags.iter().map(std::ffi::OsStr::new));
    sandbox.run(&words)
}

#[track_caller]
fn usage(sandbox: &Sandbox, path: impl AsRef<Path>, name: &str) -> u64 {
    let said = forebay(sandbox, "du", path, &["--json"]).success();
    let usages: Value = serde_json::from_str(&said).unwrap();
    usages[0][name].as_u64().unwrap()
}

/// Reads the tree that is more than the cache.
#[track_caller]
fn read_others(mount: &Mount<'_>) {
    for seed in 0..40 {
        let found = mount.read(format!("other/{seed}"));
        assert_eq!(data::check(seed, 0, &found), Ok(()));
    }
    drop_kernel_caches();
}

#[track_caller]
fn reads_kept_without_a_request(mount: &Mount<'_>, seeds: std::ops::Range<u64>) {
    let asked = mount.status().number("/mounts/0/requests/get");
    for seed in seeds {
        let found = mount.read(format!("kept/{seed}"));
        assert_eq!(data::check(seed, 0, &found), Ok(()));
    }
    assert_eq!(mount.status().number("/mounts/0/requests/get"), asked);
}

#[test]
fn what_is_pinned_is_never_evicted_also_after_restarts_and_until_it_is_unpinned() {
    let storage = Storage::s3();
    put_trees(&storage);
    let sandbox = Sandbox::new(&storage);
    let mounting = small_cache(&sandbox, &storage);
    let mount = mounting.start();
    // Half of it is cached before, the rest after.
    for seed in 0..6 {
        mount.read(format!("kept/{seed}"));
    }
    let said = forebay(&sandbox, "pin", mount.path("kept"), &[]).success();
    assert!(said.contains("of 12 MiB are cached and stay"), "{said}");
    assert!(said.contains("forebay load"), "{said}");
    forebay(&sandbox, "load", mount.path("kept"), &[]).success();
    assert_eq!(
        usage(&sandbox, mount.path("kept"), "pinned_bytes"),
        12 << 20
    );
    let said = forebay(&sandbox, "du", mount.path("kept"), &[]).success();
    assert!(said.contains("PINNED") && said.contains("12 MiB"), "{said}");
    read_others(&mount);
    assert!(mount.status().number("/cache/evictions") > 10);
    reads_kept_without_a_request(&mount, 0..12);

    mount.crash();
    let mount = mounting.start();
    assert_eq!(mount.status().0["pins"][0], "/kept");
    read_others(&mount);
    reads_kept_without_a_request(&mount, 0..12);
    mount.unmount();
    let mount = mounting.start();
    let said = sandbox.run(&["status"]).success();
    assert!(
        said.contains("/kept: 12") && said.contains("12 objects"),
        "{said}"
    );
    let said = forebay(&sandbox, "free", mount.point(), &[]).success();
    assert!(said.contains("12 MiB are pinned and stay"), "{said}");
    reads_kept_without_a_request(&mount, 0..12);

    let said = forebay(&sandbox, "unpin", mount.path("kept"), &[]).success();
    assert!(said.contains("not pinned any more"), "{said}");
    assert_eq!(mount.status().number("/cache/pinned_bytes"), 0);
    for _ in 0..3 {
        read_others(&mount);
    }
    assert!(usage(&sandbox, mount.path("kept"), "cached_bytes") < 12 << 20);
    mount.unmount();
}

#[test]
fn a_load_of_what_is_pinned_displaces_what_is_not() {
    let storage = Storage::s3();
    put_trees(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = small_cache(&sandbox, &storage).start();
    read_others(&mount);
    let refused = forebay(&sandbox, "load", mount.path("kept"), &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("forebay pin"), "{}", refused.stderr);
    forebay(&sandbox, "pin", mount.path("kept"), &[]).success();
    forebay(&sandbox, "load", mount.path("kept"), &[]).success();
    reads_kept_without_a_request(&mount, 0..12);
    // What does not fit among the pins is said.
    forebay(&sandbox, "pin", mount.path("other"), &[]).success();
    let refused = forebay(&sandbox, "load", mount.path("other"), &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stderr.contains("full"), "{}", refused.stderr);
    assert!(mount.status().number("/cache/used_bytes") <= 64 << 20);
    mount.unmount();
}

#[test]
fn of_a_pinned_name_the_latest_version_is_kept_and_what_is_written_there_too() {
    let storage = Storage::s3();
    put_trees(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = small_cache(&sandbox, &storage)
        .flag("--freshness", "always")
        .start();
    forebay(&sandbox, "pin", mount.path("kept"), &[]).success();
    forebay(&sandbox, "load", mount.path("kept"), &[]).success();
    storage.put("kept/0", 50, SIZE);
    assert_eq!(data::check(50, 0, &mount.read("kept/0")), Ok(()));
    fs::write(mount.path("kept/1"), data::bytes(51, SIZE)).unwrap();
    fs::write(mount.path("new"), data::bytes(52, SIZE)).unwrap();
    fs::rename(mount.path("new"), mount.path("kept/12")).unwrap();
    fs::rename(mount.path("kept/2"), mount.path("gone")).unwrap();
    wait::until("all of it is pinned, and no more", || {
        mount.status().number("/cache/pinned_objects") == 12
    });
    read_others(&mount);
    let asked = mount.status().number("/mounts/0/requests/get");
    for (name, seed) in [
        ("kept/0", 50),
        ("kept/1", 51),
        ("kept/12", 52),
        ("kept/3", 3),
    ] {
        assert_eq!(data::check(seed, 0, &mount.read(name)), Ok(()), "{name}");
    }
    assert_eq!(mount.status().number("/mounts/0/requests/get"), asked);
    mount.unmount();
}

#[test]
fn wrong_pins_are_refused_with_what_to_do() {
    let storage = Storage::local();
    put_trees(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = small_cache(&sandbox, &storage).start();
    let pin = |path: &str| forebay(&sandbox, "pin", mount.path(path), &[]);
    let unpin = |path: &str| forebay(&sandbox, "unpin", mount.path(path), &[]);
    assert!(pin("nothing").refusal().contains("does not exist"));
    assert!(unpin("kept").refusal().contains("nothing is"));
    pin("kept").success();
    pin("kept").success();
    let said = pin("kept/3").refusal();
    assert!(said.contains("with '/kept'"), "{said}");
    let said = unpin("kept/3").refusal();
    assert!(said.contains("unpin that"), "{said}");
    // A pin around others takes them in.
    pin("").success();
    assert_eq!(mount.status().0["pins"], serde_json::json!(["/"]));
    let said = unpin("kept").refusal();
    assert!(said.contains("with '/'"), "{said}");
    unpin("").success();
    assert_eq!(mount.status().0["pins"], serde_json::json!([]));
    mount.unmount();
}
