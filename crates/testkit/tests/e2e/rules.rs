// SPDX-License-Identifier: Apache-2.0
//! `forebay rules`: TTL, quota and priority of paths, of a real daemon, over restarts.

use std::fs;
use std::path::Path;

use serde_json::Value;
use testkit::data;
use testkit::sandbox::{Finished, Mount, Mounting, Sandbox, drop_kernel_caches};
use testkit::storage::Storage;
use testkit::wait;

const SIZE: usize = 1 << 20;

/// Puts two trees; one of them alone is more than the cache.
fn put_trees(storage: &Storage) {
    for seed in 0..12 {
        storage.put(format!("some/{seed}"), seed, SIZE);
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

fn rules(sandbox: &Sandbox, verb: &str, path: impl AsRef<Path>, flags: &[&str]) -> Finished {
    let mut words = vec!["rules".as_ref(), verb.as_ref(), path.as_ref().as_os_str()];
    words.extend(flags.iter().map(std::ffi::OsStr::new));
    sandbox.run(&words)
}

#[track_caller]
fn usage(sandbox: &Sandbox, path: impl AsRef<Path>) -> Value {
    let words = ["du".as_ref(), path.as_ref().as_os_str(), "--json".as_ref()];
    let said = sandbox.run(&words).success();
    let usages: Value = serde_json::from_str(&said).unwrap();
    usages[0].clone()
}

#[track_caller]
fn cached(sandbox: &Sandbox, path: impl AsRef<Path>) -> u64 {
    usage(sandbox, path)["cached_bytes"].as_u64().unwrap()
}

#[track_caller]
fn read_all(mount: &Mount<'_>, tree: &str, count: u64) {
    for seed in 0..count {
        let found = mount.read(format!("{tree}/{seed}"));
        assert_eq!(data::check(seed, 0, &found), Ok(()));
    }
    drop_kernel_caches();
}

#[test]
fn what_is_over_a_quota_makes_way_within_its_path_also_after_a_restart() {
    let storage = Storage::s3();
    put_trees(&storage);
    let sandbox = Sandbox::new(&storage);
    let mounting = small_cache(&sandbox, &storage).switch("--no-neighbours");
    let mount = mounting.start();
    read_all(&mount, "some", 12);
    let said = rules(&sandbox, "set", mount.path("other"), &["--quota", "10MiB"]).success();
    assert!(said.contains("at most 10 MiB"), "{said}");
    read_all(&mount, "other", 40);
    wait::until("the quota is kept", || {
        (3 << 20..=10 << 20).contains(&cached(&sandbox, mount.path("other")))
    });
    assert_eq!(cached(&sandbox, mount.path("some")), 12 << 20);
    let said = sandbox.run(&["status"]).success();
    assert!(
        said.contains("/other:") && said.contains("of 10 MiB"),
        "{said}"
    );

    mount.crash();
    let mount = mounting.start();
    read_all(&mount, "other", 40);
    assert!(cached(&sandbox, mount.path("other")) <= 10 << 20);
    assert_eq!(cached(&sandbox, mount.path("some")), 12 << 20);
    // A load does not displace what it loaded itself: it says that the quota is full.
    let other = mount.path("other");
    let refused = sandbox.run(&["load".as_ref(), other.as_os_str()]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stdout.contains("quota"), "{refused:?}");
    // What is cached already makes way for a quota that is said later.
    rules(&sandbox, "set", mount.path("some"), &["--quota", "4MiB"]).success();
    assert!(cached(&sandbox, mount.path("some")) <= 4 << 20);
    rules(&sandbox, "set", mount.path("some"), &["--quota", "0"]).success();
    assert_eq!(cached(&sandbox, mount.path("some")), 0);
    read_all(&mount, "some", 12);
    assert_eq!(cached(&sandbox, mount.path("some")), 0);
    mount.unmount();
}

#[test]
fn a_ttl_drops_what_is_cached_and_neither_what_is_pinned_nor_anything_in_the_storage() {
    let storage = Storage::local();
    put_trees(&storage);
    let sandbox = Sandbox::new(&storage);
    let mounting = small_cache(&sandbox, &storage);
    let mount = mounting.start();
    read_all(&mount, "some", 12);
    let pinned = mount.path("some/3");
    let words = ["pin".as_ref(), pinned.as_os_str()];
    sandbox.run(&words).success();
    let said = rules(&sandbox, "set", mount.point(), &["--ttl", "2s"]).success();
    assert!(said.contains("goes after 2s"), "{said}");
    wait::until("only what is pinned is cached", || {
        cached(&sandbox, mount.path("some")) == 1 << 20
    });
    assert!(mount.status().number("/cache/expired") >= 11);
    // Files that are open are read on, and all of them are there still.
    let open = fs::File::open(mount.path("some/5")).unwrap();
    wait::until("it is gone from the cache", || {
        cached(&sandbox, mount.path("some/5")) == 0
    });
    let mut found = Vec::new();
    std::io::Read::read_to_end(&mut &open, &mut found).unwrap();
    assert_eq!(data::check(5, 0, &found), Ok(()));
    drop(open);
    read_all(&mount, "some", 12);

    mount.unmount();
    let mount = mounting.start();
    wait::until("what an earlier run cached is over too", || {
        cached(&sandbox, mount.path("some")) == 1 << 20
    });
    let found = usage(&sandbox, mount.path("some"));
    assert_eq!(found["rule"]["ttl_seconds"], 2);
    rules(&sandbox, "remove", mount.point(), &[]).success();
    assert_eq!(usage(&sandbox, mount.path("some"))["rule"], Value::Null);
    mount.unmount();
}

#[test]
fn what_is_written_and_not_stored_yet_never_goes_because_of_a_rule() {
    let storage = Storage::s3();
    put_trees(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = small_cache(&sandbox, &storage)
        .flag("--write-mode", "local")
        .start();
    rules(
        &sandbox,
        "set",
        mount.point(),
        &["--ttl", "1s", "--quota", "1MiB"],
    )
    .success();
    fs::write(mount.path("mine"), data::bytes(7, 5 * SIZE)).unwrap();
    read_all(&mount, "some", 12);
    wait::until("what is clean is over", || {
        cached(&sandbox, mount.path("some")) == 0
    });
    assert_eq!(data::check(7, 0, &mount.read("mine")), Ok(()));
    assert_eq!(mount.read("mine").len(), 5 * SIZE);
    mount.unmount();
}

#[test]
fn high_priority_stays_when_everything_else_goes() {
    let storage = Storage::s3();
    put_trees(&storage);
    let sandbox = Sandbox::new(&storage);
    let mounting = small_cache(&sandbox, &storage);
    let mount = mounting.start();
    rules(&sandbox, "set", mount.path("some"), &["--priority", "high"]).success();
    read_all(&mount, "some", 12);
    wait::until("all of it is cached", || {
        cached(&sandbox, mount.path("some")) == 12 << 20
    });
    mount.unmount();
    let mount = mounting.start();
    for _ in 0..2 {
        read_all(&mount, "other", 40);
    }
    assert!(mount.status().number("/cache/evictions") > 10);
    assert_eq!(cached(&sandbox, mount.path("some")), 12 << 20);
    // Then it is the first to go.
    rules(&sandbox, "set", mount.path("some"), &["--priority", "low"]).success();
    read_all(&mount, "other", 40);
    assert_eq!(cached(&sandbox, mount.path("some")), 0);
    mount.unmount();
}

#[test]
fn rules_are_listed_and_wrong_ones_refused_with_what_to_do() {
    let storage = Storage::local();
    put_trees(&storage);
    let sandbox = Sandbox::new(&storage);
    let mount = small_cache(&sandbox, &storage).start();
    let set = |path: &str, flags: &[&str]| rules(&sandbox, "set", mount.path(path), flags);
    let remove = |path: &str, flags: &[&str]| rules(&sandbox, "remove", mount.path(path), flags);
    assert!(
        set("nothing", &["--ttl", "1d"])
            .refusal()
            .contains("does not exist")
    );
    assert!(
        set("some", &[])
            .refusal()
            .contains("a ttl, a quota or a priority")
    );
    assert!(
        set("some", &["--ttl", "0s"])
            .refusal()
            .contains("quota of 0")
    );
    assert!(
        set("some", &["--priority", "urgent"])
            .refusal()
            .contains("urgent")
    );
    assert!(remove("some", &[]).refusal().contains("forebay rules list"));
    set("some", &["--ttl", "7d", "--priority", "low"]).success();
    set("", &["--quota", "32MiB"]).success();
    let said = sandbox.run(&["rules", "list"]).success();
    for part in ["/some", "7d", "low", "32 MiB"] {
        assert!(said.contains(part), "{part} in {said}");
    }
    let some = mount.path("some");
    let said = sandbox.run(&["du".as_ref(), some.as_os_str()]).success();
    assert!(said.contains("goes after 7d, at most 32 MiB"), "{said}");
    assert!(remove("some/3", &[]).refusal().contains("that of '/some'"));
    assert!(
        remove("", &["--ttl"])
            .refusal()
            .contains("no ttl of its own")
    );
    remove("some", &["--ttl"]).success();
    assert_eq!(
        usage(&sandbox, mount.path("some"))["rule"]["ttl_seconds"],
        Value::Null
    );
    assert_eq!(
        usage(&sandbox, mount.path("some"))["rule"]["priority"],
        "low"
    );
    remove("some", &[]).success();
    remove("", &[]).success();
    let said = sandbox.run(&["rules", "list"]).success();
    assert!(said.contains("no path has a rule"), "{said}");
    mount.unmount();
}
