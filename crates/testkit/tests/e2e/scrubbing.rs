// SPDX-License-Identifier: Apache-2.0
//! `forebay scrub` and `check`: what is bad, old or gone in the cache is found before a reader does.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::data;
use testkit::sandbox::{Finished, Sandbox, drop_kernel_caches};
use testkit::storage::Storage;
use testkit::wait;

fn run(sandbox: &Sandbox, verb: &str, path: impl AsRef<Path>, flags: &[&str]) -> Finished {
    let mut words = vec![verb.as_ref(), path.as_ref().as_os_str()];
    words.extend(flags.iter().map(std::ffi::OsStr::new));
    sandbox.run(&words)
}

#[track_caller]
fn json(finished: &Finished) -> Value {
    let text = &finished.stdout;
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {finished:?}"))
}

/// Returns the files of the cache that hold bytes of objects, the largest first.
fn cache_files(sandbox: &Sandbox) -> Vec<PathBuf> {
    let shards = fs::read_dir(sandbox.cache_dir().join("data"))
        .unwrap()
        .flatten();
    let files = shards.flat_map(|shard| fs::read_dir(shard.path()).unwrap().flatten());
    let mut files: Vec<_> = files.map(|file| file.path()).collect();
    files.sort_by_key(|file| std::cmp::Reverse(file.metadata().unwrap().len()));
    files
}

fn flip(path: &Path, offset: u64) {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn a_scrub_drops_what_is_bad_and_it_is_read_rightly_again() {
    let storage = Storage::s3();
    for seed in 0..5 {
        storage.put(
            format!("d/{seed}"),
            seed,
            300_000 + 100_000 * usize::try_from(seed).unwrap(),
        );
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    run(&sandbox, "load", mount.point(), &[]).success();
    let said = run(&sandbox, "scrub", mount.point(), &[]).success();
    assert!(said.contains("of 5 files compared"), "{said}");
    let files = cache_files(&sandbox);
    assert_eq!(files.len(), 5);
    flip(&files[0], 130_000);
    fs::remove_file(&files[4]).unwrap();
    let scrubbed = run(
        &sandbox,
        "scrub",
        mount.point(),
        &["--json", "--bandwidth", "2MB"],
    );
    assert_eq!(scrubbed.status.code(), Some(1), "{scrubbed:?}");
    assert!(
        scrubbed.stderr.contains("2 files were bad"),
        "{}",
        scrubbed.stderr
    );
    let report = json(&scrubbed);
    assert_eq!(
        (&report["bad_pages"], &report["lost_objects"]),
        (&1.into(), &1.into())
    );
    drop_kernel_caches();
    for seed in 0..5 {
        assert_eq!(
            data::check(seed, 0, &mount.read(format!("d/{seed}"))),
            Ok(())
        );
    }
    run(&sandbox, "scrub", mount.point(), &[]).success();
    let said = run(&sandbox, "scrub", mount.point(), &["--bandwidth", "0"]).refusal();
    assert!(said.contains("compares nothing"), "{said}");
    mount.unmount();
    let said = sandbox.run(&["scrub"]).refusal();
    assert!(said.contains("no daemon"), "{said}");
}

#[test]
fn a_load_that_verifies_fetches_once_more_what_is_bad_on_the_disk() {
    let storage = Storage::s3();
    for seed in 0..4 {
        storage.put(format!("d/{seed}"), seed, 400_000);
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let said = run(&sandbox, "load", mount.point(), &["--verify"]).success();
    assert!(
        said.contains("4 files") && said.contains("whole and verified"),
        "{said}"
    );
    let files = cache_files(&sandbox);
    flip(&files[0], 300_000);
    fs::remove_file(&files[1]).unwrap();
    // What only counts does not look.
    let loaded = run(&sandbox, "load", mount.point(), &["--json"]);
    let loaded = json(&loaded);
    assert_eq!(loaded["fetched_bytes"], 0);
    let loaded = run(&sandbox, "load", mount.point(), &["--verify", "--json"]);
    assert!(loaded.status.success(), "{loaded:?}");
    let loaded = json(&loaded);
    assert_eq!(
        (&loaded["state"], &loaded["verify"]),
        (&"complete".into(), &true.into())
    );
    let fetched = loaded["fetched_bytes"].as_u64().unwrap();
    assert!((400_000..=800_000).contains(&fetched), "{loaded}");
    run(&sandbox, "scrub", mount.point(), &[]).success();
    drop_kernel_caches();
    for seed in 0..4 {
        assert_eq!(
            data::check(seed, 0, &mount.read(format!("d/{seed}"))),
            Ok(())
        );
    }
    let refused = run(
        &sandbox,
        "load",
        mount.point(),
        &["--verify", "--metadata-only"],
    );
    assert!(refused.refusal().contains("--metadata-only"));
    mount.unmount();
}

#[test]
fn a_scrub_is_the_only_one_and_ends_with_who_waits_for_it() {
    let storage = Storage::local();
    for seed in 0..4 {
        storage.put(format!("d/{seed}"), seed, 6_000_000);
    }
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    run(&sandbox, "load", mount.point(), &[]).success();
    let mut command = sandbox.command();
    command.args(["scrub", "--bandwidth", "10kB"]);
    let mut waiting = command.spawn().unwrap();
    wait::until("it runs", || !mount.status().0["scrub"]["bytes"].is_null());
    let said = sandbox.run(&["status"]).success();
    assert!(said.contains("scrub"), "{said}");
    let said = run(&sandbox, "scrub", mount.point(), &[]).refusal();
    assert!(said.contains("runs already"), "{said}");
    waiting.kill().unwrap();
    waiting.wait().unwrap();
    wait::until("it has ended", || mount.status().0["scrub"].is_null());
    run(&sandbox, "scrub", mount.point(), &[]).success();
    mount.unmount();
}

#[test]
fn a_check_tells_what_the_storage_has_changed_and_drops_it_when_asked() {
    let storage = Storage::s3();
    for seed in 0..6 {
        storage.put(format!("d/{seed}"), seed, 200_000);
    }
    storage.put("d/sub/deep/7", 7, 50_000);
    storage.put("e", 8, 50_000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox
        .mount(&storage)
        .flag("--freshness", "immutable")
        .flag("--deadline", "3s")
        .start();
    run(&sandbox, "load", mount.path("d"), &[]).success();
    let said = run(&sandbox, "check", mount.point(), &["--bytes"]).success();
    assert!(
        said.contains("of 8 files in the storage, 7 are cached"),
        "{said}"
    );
    assert!(said.contains("compared"), "{said}");

    storage.put("d/0", 50, 200_000);
    storage.remove("d/1");
    storage.remove("d/sub/deep/7");
    storage.put("d/new", 51, 10);
    let checked = run(&sandbox, "check", mount.path("d"), &["--json"]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let report = json(&checked);
    for (name, count) in [
        ("files", 6),
        ("cached_files", 4),
        ("stale_files", 1),
        ("gone_files", 2),
    ] {
        assert_eq!(report[name], count, "{name} in {report}");
    }
    let paths: Vec<_> = report["findings"].as_array().unwrap().iter().collect();
    assert!(paths.iter().any(|one| one["path"] == "/d/0"), "{report}");
    assert!(
        paths.iter().any(|one| one["path"] == "/d/sub/deep/7"),
        "{report}"
    );
    // Nothing changed by it: the first version that was seen stays.
    assert_eq!(data::check(0, 0, &mount.read("d/0")), Ok(()));

    let dropped = run(&sandbox, "check", mount.path("d"), &["--drop"]);
    assert_eq!(dropped.status.code(), Some(1), "{dropped:?}");
    assert!(
        dropped.stdout.contains("3 dropped from the cache"),
        "{dropped:?}"
    );
    run(&sandbox, "sync", mount.point(), &[]).success();
    run(&sandbox, "check", mount.point(), &[]).success();
    assert_eq!(data::check(50, 0, &mount.read("d/0")), Ok(()));

    storage.switch_off();
    let refused = run(&sandbox, "check", mount.path("d/2"), &[]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    storage.switch_on();
    mount.unmount();
}

#[test]
fn bytes_that_changed_behind_the_same_version_are_found_with_bytes() {
    let storage = Storage::s3();
    storage.put("d/file", 1, 400_000);
    storage.put("d/same", 2, 400_000);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    run(&sandbox, "load", mount.point(), &[]).success();
    // A storage whose disk rots: other bytes under the same ETag.
    flip(&storage.root().join("d/file"), 200_000);
    run(&sandbox, "check", mount.point(), &[]).success();
    let checked = run(&sandbox, "check", mount.point(), &["--bytes", "--json"]);
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    let report = json(&checked);
    assert_eq!(report["different_files"], 1, "{report}");
    assert_eq!(report["findings"][0]["path"], "/d/file");
    mount.unmount();
}
