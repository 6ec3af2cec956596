// SPDX-License-Identifier: Apache-2.0
//! Mounts that are added, changed and removed while the tree is in use, and that come back.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use serde_json::Value;
use testkit::data;
use testkit::sandbox::{Finished, Mount, Sandbox};
use testkit::storage::Storage;
use testkit::wait;

const LARGE: usize = 48 << 20;

/// An environment in which mounts that are added live are remembered below its own directory.
fn sandbox_of(storage: &Storage) -> Sandbox {
    let sandbox = Sandbox::new(storage);
    let state = state_dir(&sandbox);
    sandbox.with_variable("FOREBAY_STATE_DIR", state.to_str().unwrap())
}

fn state_dir(sandbox: &Sandbox) -> PathBuf {
    sandbox.dir().join("state")
}

/// Runs `forebay mounts` with these words and flags.
fn mounts(sandbox: &Sandbox, words: &[&str], flags: &[String]) -> Finished {
    let words = words.iter().map(|word| OsStr::new(*word));
    let flags = flags.iter().map(OsStr::new);
    let all: Vec<_> = [OsStr::new("mounts")]
        .into_iter()
        .chain(words)
        .chain(flags)
        .collect();
    sandbox.run(&all)
}

#[track_caller]
fn add(sandbox: &Sandbox, at: &str, storage: &Storage, more: &[&str]) -> String {
    let more = more.iter().map(|word| (*word).to_owned());
    let flags: Vec<_> = storage.flags().into_iter().chain(more).collect();
    mounts(sandbox, &["add", at, &storage.uri()], &flags).success()
}

#[track_caller]
fn listed(sandbox: &Sandbox) -> Vec<Value> {
    let text = mounts(sandbox, &["list", "--json"], &[]).success();
    let all: Value = serde_json::from_str(&text).unwrap();
    all["daemons"][0]["mounts"].as_array().unwrap().clone()
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
fn errno(result: std::io::Result<impl Sized>) -> Option<Errno> {
    let error = result.err().expect("this must fail");
    error.raw_os_error().map(Errno::from_raw_os_error)
}

/// A `forebay serve` with these tables of mounts.
fn serve<'a>(sandbox: &'a Sandbox, tables: &str) -> (Mount<'a>, Child, PathBuf) {
    let config = sandbox.dir().join("forebay.toml");
    let said = sandbox.dir().join("said");
    let text = format!(
        "mount_point = '{}'\n[cache]\ndir = '{}'\nsize = '1GiB'\n{tables}",
        sandbox.point().display(),
        sandbox.cache_dir().display()
    );
    fs::write(&config, text).unwrap();
    let child = sandbox
        .command()
        .args(["serve".as_ref(), "--config".as_ref(), config.as_os_str()])
        .stdout(File::create(&said).unwrap())
        .spawn()
        .unwrap();
    wait::until("it is mounted", || {
        sandbox.run(&["status"]).status.success() && sandbox.mounts().contains(&sandbox.point())
    });
    (Mount::of(sandbox, sandbox.point()), child, said)
}

/// Unmounts a tree that is served.
fn end(mount: Mount<'_>, mut child: Child) {
    mount.unmount();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_storage_that_is_added_live_is_there_at_once_also_where_the_kernel_knew_better() {
    let (base, other, local) = (Storage::s3(), Storage::s3(), Storage::local());
    base.put("sets/first", 1, 1000);
    other.put("dir/object", 2, 300_000);
    local.put("file", 3, 2000);
    let sandbox = sandbox_of(&base);
    let mounting = sandbox.mount(&base).flag("--freshness", "immutable");
    let mount = mounting.start();
    assert_eq!(names(mount.path("sets")), ["first"]);
    for name in ["sets/new", "sets/local", "way"] {
        let absent = fs::metadata(mount.path(name)).unwrap_err();
        assert_eq!(absent.kind(), ErrorKind::NotFound);
    }
    let mut inside = Command::new("cat")
        .current_dir(mount.path("sets"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();

    let said = add(&sandbox, "/sets/new", &other, &["--freshness", "always"]);
    let place = mount.path("sets/new").display().to_string();
    assert!(said.contains(&place), "{said}");
    assert_eq!(names(mount.path("sets")), ["first", "new"]);
    same(mount.path("sets/new/dir/object"), 2, 300_000);
    let below_mount_point = mount.path("sets/local").display().to_string();
    add(&sandbox, &below_mount_point, &local, &[]);
    same(mount.path("sets/local/file"), 3, 2000);
    add(
        &sandbox,
        "/way/to/it",
        &local,
        &["--mount-point", mount.point().to_str().unwrap()],
    );
    same(mount.path("way/to/it/file"), 3, 2000);
    add(&sandbox, "/sets/new/dir/deeper", &local, &[]);
    assert_eq!(names(mount.path("sets/new/dir")), ["deeper", "object"]);
    same(mount.path("sets/new/dir/deeper/file"), 3, 2000);
    same(mount.path("sets/first"), 1, 1000);

    let within = fs::read_link(format!("/proc/{}/cwd", inside.id())).unwrap();
    assert_eq!(
        within,
        mount.path("sets"),
        "a program in the directory stays in it"
    );
    drop(inside.stdin.take());
    inside.wait().unwrap();
    let list = listed(&sandbox);
    let places: Vec<_> = list.iter().map(|one| one["at"].as_str().unwrap()).collect();
    let expected = [
        "/",
        "/sets/new",
        "/sets/local",
        "/way/to/it",
        "/sets/new/dir/deeper",
    ];
    assert_eq!(places, expected);
    assert_eq!(
        (&list[0]["source"], &list[1]["source"]),
        (&"start".into(), &"live".into())
    );
    assert_eq!(list[1]["freshness"], "always");
    let table = mounts(&sandbox, &["list"], &[]).success();
    assert!(
        table.contains("/way/to/it") && table.contains(&other.uri()),
        "{table}"
    );
    let shown = mounts(&sandbox, &["show", "/sets/new"], &[]).success();
    assert!(shown.contains(other.relay().endpoint()), "{shown}");
    assert_eq!(mount.status().0["mounts"].as_array().unwrap().len(), 5);
}

#[test]
fn an_update_changes_freshness_and_attributes_of_a_mount_in_use() {
    let (base, storage) = (Storage::local(), Storage::s3());
    storage.put("dir/object", 1, 1000);
    let sandbox = sandbox_of(&storage);
    let mount = sandbox.mount(&base).start();
    add(
        &sandbox,
        "/data",
        &storage,
        &["--freshness", "immutable", "--uid", "7"],
    );
    let path = mount.path("data/dir/object");
    same(&path, 1, 1000);
    assert_eq!(fs::metadata(&path).unwrap().uid(), 7);
    let mut open = File::open(&path).unwrap();
    storage.put("dir/object", 2, 2000);
    same(&path, 1, 1000);

    let flags = [
        "--freshness",
        "always",
        "--uid",
        "42",
        "--file-mode",
        "0640",
    ];
    let flags = flags.map(String::from);
    mounts(&sandbox, &["update", "/data"], &flags).success();
    same(&path, 2, 2000);
    let meta = fs::metadata(&path).unwrap();
    assert_eq!(
        (meta.uid(), meta.permissions().mode() & 0o7777),
        (42, 0o640)
    );
    assert_eq!(fs::metadata(mount.path("data")).unwrap().uid(), 42);
    let mut found = Vec::new();
    open.read_to_end(&mut found).unwrap();
    assert_eq!(
        data::check(1, 0, &found),
        Ok(()),
        "an open file stays what it was"
    );
    let list = listed(&sandbox);
    assert_eq!(
        (&list[1]["freshness"], &list[1]["uid"]),
        (&"always".into(), &42.into())
    );
    assert_eq!(list[1]["options"]["endpoint"], storage.relay().endpoint());
    let refused = mounts(&sandbox, &["update", "/nothing"], &[]).refusal();
    assert!(
        refused.contains("/data"),
        "it says what is there: {refused}"
    );
}

#[test]
fn a_removed_mount_is_gone_at_once_and_open_files_are_read_as_far_as_they_are_cached() {
    let (base, storage) = (Storage::local(), Storage::s3());
    base.put("sets/under", 9, 10);
    storage.put("small", 1, 100_000);
    storage.put("large", 2, LARGE);
    let sandbox = sandbox_of(&storage);
    let mount = sandbox.mount(&base).start();
    add(&sandbox, "/sets", &storage, &[]);
    let small = File::open(mount.path("sets/small")).unwrap();
    let large = File::open(mount.path("sets/large")).unwrap();
    let mut piece = vec![0; 4096];
    large.read_exact_at(&mut piece, 0).unwrap();
    assert_eq!(data::check(2, 0, &piece), Ok(()));
    assert_eq!(names(mount.path("sets")), ["large", "small"]);

    let said = mounts(&sandbox, &["remove", "/sets"], &[]).success();
    assert!(said.contains("no longer"), "{said}");
    assert_eq!(names(mount.path("sets")), ["under"], "what it hid is back");
    let absent = fs::metadata(mount.path("sets/small")).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    let mut all = vec![0; 100_000];
    small.read_exact_at(&mut all, 0).unwrap();
    assert_eq!(data::check(1, 0, &all), Ok(()));
    let far = (LARGE - 4096) as u64;
    assert_eq!(
        errno(large.read_exact_at(&mut piece, far)),
        Some(Errno::STALE)
    );
    let gone = mounts(&sandbox, &["remove", "/sets"], &[]).refusal();
    assert!(gone.contains("nothing is mounted"), "{gone}");
    drop((small, large));

    add(&sandbox, "/sets", &storage, &[]);
    same(mount.path("sets/small"), 1, 100_000);
}

#[test]
fn mounts_that_were_added_live_survive_a_restart_and_a_crash_until_they_are_removed() {
    let (base, storage, local) = (Storage::local(), Storage::s3(), Storage::local());
    storage.put("object", 1, 100_000);
    local.put("file", 2, 1000);
    let sandbox = sandbox_of(&storage);
    let mounting = sandbox.mount(&base);
    let mount = mounting.start();
    add(
        &sandbox,
        "/remote",
        &storage,
        &["--freshness", "1d", "--gid", "5"],
    );
    add(&sandbox, "/near/by", &local, &[]);
    same(mount.path("remote/object"), 1, 100_000);
    wait::until("it is cached", || {
        mount.status().number("/cache/used_bytes") >= 100_000
    });
    mount.unmount();
    let asked = storage.requests();
    let mount = mounting.start();
    same(mount.path("remote/object"), 1, 100_000);
    same(mount.path("near/by/file"), 2, 1000);
    assert_eq!(fs::metadata(mount.path("remote/object")).unwrap().gid(), 5);
    let asked = storage.requests() - asked;
    assert!(
        asked <= 1,
        "names and bytes are known but for one look at the storage: {asked}"
    );
    mounts(&sandbox, &["remove", "/near/by"], &[]).success();
    mount.crash();
    let mount = mounting.start();
    same(mount.path("remote/object"), 1, 100_000);
    assert!(fs::metadata(mount.path("near")).is_err());
    let note = mounts(&sandbox, &["update", "/", "--freshness", "5s"], &[]).success();
    assert!(note.contains("until the daemon ends"), "{note}");
    mount.unmount();
    let files: Vec<_> = fs::read_dir(state_dir(&sandbox))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(files.len(), 1);
    assert_eq!(
        files[0].metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    sandbox.assert_nothing_left();
}

#[test]
fn the_configuration_wins_over_a_mount_that_was_added_live_at_the_same_place() {
    let (one, two) = (Storage::local(), Storage::local());
    one.put("one", 1, 10);
    two.put("two", 2, 10);
    let sandbox = sandbox_of(&one);
    let (mount, child, _) = serve(&sandbox, "");
    assert!(names(mount.point()).is_empty(), "no mount yet");
    add(&sandbox, "/x", &one, &[]);
    assert_eq!(names(mount.path("x")), ["one"]);
    end(mount, child);
    let table = format!("[[mount]]\nat = '/x'\nuri = '{}'\n", two.uri());
    let (mount, child, said) = serve(&sandbox, &table);
    assert_eq!(names(mount.path("x")), ["two"]);
    wait::until("it is told", || {
        let said = fs::read_to_string(&said).unwrap();
        said.contains("configuration wins") && said.contains(&one.uri())
    });
    add(&sandbox, "/y", &one, &[]);
    end(mount, child);
    let (mount, child, _) = serve(&sandbox, "");
    assert_eq!(
        names(mount.path("x")),
        ["one"],
        "it was kept while it was hidden"
    );
    assert_eq!(names(mount.path("y")), ["one"]);
    end(mount, child);
    sandbox.assert_nothing_left();
}

#[test]
fn a_storage_that_is_away_at_a_restart_is_an_error_that_status_tells_and_that_heals() {
    for storage in Storage::each() {
        let base = Storage::local();
        base.put("file", 9, 10);
        storage.put("object", 1, 1000);
        let sandbox = sandbox_of(&storage);
        let mounting = sandbox.mount(&base).flag("--deadline", "5s");
        let mount = mounting.start();
        add(&sandbox, "/away", &storage, &["--freshness", "always"]);
        mount.unmount();
        storage.switch_off();
        let mount = mounting.start();
        same(mount.path("file"), 9, 10);
        let failed = fs::metadata(mount.path("away/object")).unwrap_err();
        assert_ne!(
            failed.kind(),
            ErrorKind::NotFound,
            "a failure is no absence"
        );
        wait::until("status tells it", || {
            mount.status().0["mounts"][1]["fault"].is_string()
        });
        assert!(listed(&sandbox)[1]["fault"].is_string());
        storage.switch_on();
        wait::until("it heals", || fs::read(mount.path("away/object")).is_ok());
        same(mount.path("away/object"), 1, 1000);
        assert!(listed(&sandbox)[1]["fault"].is_null());
        mount.unmount();
    }
}

#[test]
fn what_cannot_be_mounted_is_refused_with_the_reason_and_changes_nothing() {
    let (base, storage) = (Storage::local(), Storage::s3());
    base.put("dir/file", 1, 10);
    storage.put("object", 2, 10);
    let sandbox = sandbox_of(&storage);
    let mount = sandbox.mount(&base).start();
    add(&sandbox, "/a", &storage, &[]);
    add(&sandbox, "/a/b", &base, &[]);
    let uri = storage.uri();
    let good = storage.flags();
    let unreachable = ["--endpoint", "http://127.0.0.1:9"].map(String::from);
    let unknown = ["--option", "endpiont=x"].map(String::from);
    for (words, flags, part) in [
        (&["add", "/a", &uri][..], &good[..], "already"),
        (&["add", "/dir/file/x", &uri], &good, "is a file"),
        (&["add", "/dir/file", &uri], &good, "is a file"),
        (&["add", "/c", &uri], &unreachable, "--no-check"),
        (&["add", "/c", &uri], &unknown, "did you mean 'endpoint'"),
        (
            &["add", "/c", "s3://no-such-bucket"],
            &good,
            "no-such-bucket",
        ),
        (&["add", "c", &uri], &good, "begin with"),
        (&["add", "/../c", &uri], &good, ".."),
        (&["remove", "/a"], &[], "/a/b"),
        (&["remove", "/dir"], &[], "nothing is mounted"),
        (&["show", "/dir"], &[], "/a/b"),
    ] {
        let message = mounts(&sandbox, words, flags).refusal();
        assert!(message.contains(part), "{words:?}: no {part} in: {message}");
    }
    assert_eq!(listed(&sandbox).len(), 3);
    assert_eq!(names(mount.point()), ["a", "dir"]);
    mounts(&sandbox, &["remove", "/a/b"], &[]).success();
    mounts(&sandbox, &["remove", "/a"], &[]).success();
    let last = mounts(&sandbox, &["remove", "/"], &[]).refusal();
    assert!(last.contains("only mount"), "{last}");
    let all: Vec<_> = unreachable
        .into_iter()
        .chain(["--force".to_owned()])
        .collect();
    mounts(&sandbox, &["add", "/c", &uri], &all).success();
    assert!(names(mount.point()).contains(&"c".to_owned()));
}

#[test]
fn mounts_of_one_storage_with_other_credentials_share_no_names_and_no_bytes() {
    let storage = Storage::s3();
    storage.put("private/object", 1, 1000);
    let keys = format!(
        "{}:{}",
        storage.server().access_key,
        storage.server().secret_key
    );
    let sandbox = sandbox_of(&storage).with_variable("RIG_KEYS", &keys);
    let sandbox = sandbox.with_variable("AWS_ACCESS_KEY_ID", "nobody");
    let (mount, child, _) = serve(&sandbox, "");
    add(
        &sandbox,
        "/mine",
        &storage,
        &["--credentials", "env:RIG_KEYS"],
    );
    same(mount.path("mine/private/object"), 1, 1000);
    assert_eq!(names(mount.path("mine")), ["private"]);
    add(
        &sandbox,
        "/theirs",
        &storage,
        &["--no-check", "--anonymous"],
    );
    add(&sandbox, "/chain", &storage, &["--no-check"]);
    for place in ["theirs", "chain"] {
        let refused = fs::read(mount.path(place).join("private/object"));
        assert_eq!(errno(refused), Some(Errno::ACCESS), "{place}");
        assert_eq!(
            errno(fs::read_dir(mount.path(place))),
            Some(Errno::ACCESS),
            "{place}"
        );
    }
    same(mount.path("mine/private/object"), 1, 1000);
    let flags = ["--credentials", "env:RIG_KEYS"].map(String::from);
    mounts(&sandbox, &["update", "/chain"], &flags).success();
    same(mount.path("chain/private/object"), 1, 1000);
    let unset = ["--credentials", "env:NOT_SET"].map(String::from);
    let refused = mounts(&sandbox, &["update", "/chain"], &unset).refusal();
    assert!(refused.contains("not_set"), "{refused}");
    same(mount.path("chain/private/object"), 1, 1000);
    end(mount, child);
}

#[test]
fn secrets_of_live_mounts_are_in_no_state_list_status_or_log() {
    let storage = Storage::s3();
    storage.put("object", 1, 100_000);
    let secret = storage.server().secret_key.clone();
    let keys = format!("{}:{secret}", storage.server().access_key);
    let sandbox = sandbox_of(&storage)
        .with_variable("RIG_KEYS", &keys)
        .with_variable("FOREBAY_LOG_LEVEL", "trace")
        .with_variable("AWS_SECRET_ACCESS_KEY", "another");
    let (mount, child, _) = serve(&sandbox, "");
    add(&sandbox, "/x", &storage, &["--credentials", "env:RIG_KEYS"]);
    same(mount.path("x/object"), 1, 100_000);
    let literal = ["--credentials".to_owned(), secret.clone()];
    let refused = mounts(&sandbox, &["update", "/x"], &literal).refusal();
    assert!(!refused.contains(&secret), "{refused}");
    let option = ["--option".to_owned(), format!("secret_access_key={secret}")];
    let refused = mounts(&sandbox, &["update", "/x"], &option).refusal();
    assert!(!refused.contains(&secret), "{refused}");
    for words in [
        &["mounts", "list", "--json"][..],
        &["mounts", "show", "/x"],
        &["status", "--json"],
    ] {
        let said = sandbox.run(words).success();
        assert!(
            said.contains("env:RIG_KEYS") && !said.contains(&secret),
            "{words:?}: {said}"
        );
    }
    end(mount, child);
    let mut folders = vec![sandbox.dir().to_owned()];
    let mut found = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => folders.push(entry.path()),
                kind if kind.is_file() => {
                    let text = fs::read(entry.path()).unwrap();
                    let text = String::from_utf8_lossy(&text).into_owned();
                    assert!(!text.contains(&secret), "{}", entry.path().display());
                    if text.contains("env:RIG_KEYS") {
                        found.push_str(&entry.path().display().to_string());
                    }
                }
                _ => (),
            }
        }
    }
    assert!(
        found.contains("mounts.json"),
        "the state file was looked at: {found}"
    );
}

#[test]
fn a_configuration_of_alluxio_is_taken_over_and_passes_the_check() {
    let storage = Storage::s3();
    storage.put("p/object", 1, 1000);
    let sandbox = sandbox_of(&storage);
    let place = |name: &str| sandbox.dir().join(name);
    let properties = format!(
        "alluxio.master.hostname=m\nalluxio.master.mount.table.root.ufs={local}\n\
         s3a.accessKeyId={id}\ns3a.secretKey={secret}\nalluxio.underfs.s3.endpoint={endpoint}\n\
         alluxio.worker.tieredstore.level0.dirs.path={cache}\n\
         alluxio.worker.tieredstore.level0.dirs.quota=1GB\n",
        local = sandbox.dir().join("home").display(),
        id = storage.server().access_key,
        secret = storage.server().secret_key,
        endpoint = storage.relay().endpoint(),
        cache = sandbox.cache_dir().display(),
    );
    fs::write(place("alluxio-site.properties"), properties).unwrap();
    let listing = "s3a://data/p on /mnt/s3 (s3, capacity=-1B, read-only, not shared, \
                   properties={})\n";
    fs::write(place("listing"), listing).unwrap();
    let words = ["config", "from-alluxio"].map(PathBuf::from);
    let files = [
        place("alluxio-site.properties"),
        "--mounts".into(),
        place("listing"),
    ];
    let point = ["--mount-point".into(), sandbox.point()];
    let words: Vec<_> = words.into_iter().chain(files).chain(point).collect();
    let converted = sandbox.run(&words).success();
    assert!(
        !converted.contains(&storage.server().secret_key),
        "{converted}"
    );
    fs::write(place("forebay.toml"), &converted).unwrap();
    let check = |sandbox: &Sandbox| {
        let file = sandbox.dir().join("forebay.toml");
        sandbox.run(&["config".as_ref(), "check".as_ref(), file.as_os_str()])
    };
    let unset = check(&sandbox).refusal();
    assert!(unset.contains("alluxio_s3_access_key_id"), "{unset}");
    let (id, secret) = (&storage.server().access_key, &storage.server().secret_key);
    let sandbox = sandbox
        .with_variable("ALLUXIO_S3_ACCESS_KEY_ID", id)
        .with_variable("ALLUXIO_S3_SECRET_ACCESS_KEY", secret);
    check(&sandbox).success();
    let config = sandbox.dir().join("forebay.toml");
    let mut child = sandbox
        .command()
        .args(["serve".as_ref(), "--config".as_ref(), config.as_os_str()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait::until("it is mounted", || {
        sandbox.run(&["status"]).status.success() && sandbox.mounts().contains(&sandbox.point())
    });
    let mount = Mount::of(&sandbox, sandbox.point());
    same(mount.path("mnt/s3/object"), 1, 1000);
    mount.unmount();
    assert!(child.wait().unwrap().success());
}

#[test]
fn mounts_check_tells_what_works_and_how_to_mend_what_does_not() {
    for storage in Storage::each() {
        storage.put("dir/object", 1, 20 << 20);
        let sandbox = sandbox_of(&storage);
        let flags = storage.flags();
        let said = mounts(&sandbox, &["check", &storage.uri()], &flags).success();
        for part in [
            "reach",
            "list",
            "dir/object",
            "1 connection",
            "16 connections",
            "MB/s",
        ] {
            assert!(said.contains(part), "no {part} in:\n{said}");
        }
        assert!(!said.contains("failed"), "{said}");
        let said = mounts(&sandbox, &["check", "--json", &storage.uri()], &flags).success();
        let report: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(report["steps"].as_array().unwrap().len(), 7);
        storage.switch_off();
        let sandbox = sandbox.with_variable("AWS_MAX_ATTEMPTS", "1");
        let finished = mounts(&sandbox, &["check", &storage.uri()], &flags);
        assert!(finished.stdout.contains("fix:"), "{finished:?}");
        assert_eq!(finished.status.code(), Some(1));
        storage.switch_on();
    }
    let storage = Storage::s3();
    let sandbox = sandbox_of(&storage).with_variable("AWS_SECRET_ACCESS_KEY", "hunter2");
    let finished = mounts(&sandbox, &["check", &storage.uri()], &storage.flags());
    assert!(finished.stdout.contains("--credentials"), "{finished:?}");
    assert!(!format!("{finished:?}").contains("hunter2"));
    assert_eq!(finished.status.code(), Some(1));
}

#[test]
fn a_tree_that_is_loaded_ahead_is_told_by_status_and_a_flag_forbids_it() {
    const FILES: usize = 300;
    for forbidden in [true, false] {
        let storage = Storage::s3();
        for index in 0..FILES {
            storage.put(format!("sets/train/{index:03}"), 1, 20_000);
        }
        let sandbox = sandbox_of(&storage);
        let mount = match forbidden {
            true => sandbox.mount(&storage).switch("--no-neighbours").start(),
            false => sandbox.mount(&storage).start(),
        };
        storage.relay().set_latency(Duration::from_millis(50));
        for index in 0..20 {
            mount.read(format!("sets/train/{index:03}"));
        }
        if forbidden {
            let status = mount.status();
            assert_eq!(status.number("/mounts/0/requests/get"), 20);
            assert_eq!(status.0["trees_ahead"], Value::Array(Vec::new()));
            continue;
        }
        wait::until("status tells of the tree", || {
            mount.status().0["trees_ahead"][0]["path"] == "/sets/train"
        });
        let table = sandbox.run(&["status"]).success();
        wait::until("all of it is there", || {
            mount.status().number("/cache/objects") == FILES as u64
        });
        assert!(
            table.contains("ahead of readers") || table.contains("300 objects"),
            "{table}"
        );
    }
}

#[test]
fn a_remembered_mount_that_lies_where_the_cache_does_by_now_is_refused_and_told() {
    let (base, other) = (Storage::local(), Storage::local());
    base.put("file", 1, 1000);
    other.put("file", 2, 1000);
    let sandbox = sandbox_of(&base);
    let mount = sandbox.mount(&base).start();
    add(&sandbox, "/other", &other, &[]);
    same(mount.path("other/file"), 2, 1000);
    mount.unmount();

    let moved = sandbox.mount(&base).cache_dir(other.root().join("cache"));
    let said = moved.run().success();
    assert!(said.contains("'/other' is not restored"), "{said}");
    let mount = Mount::of(&sandbox, sandbox.point());
    same(mount.path("file"), 1, 1000);
    assert_eq!(errno(fs::read(mount.path("other/file"))), Some(Errno::IO));
    let fault = listed(&sandbox)[1]["fault"].as_str().unwrap().to_owned();
    assert!(fault.contains("the cache would show up"), "{fault}");
    let log = fs::read_to_string(sandbox.log()).unwrap();
    assert!(log.contains("'/other' is not restored"), "{log}");
    let update = ["update", "/other", "--no-check", "--option", "x=y"];
    let said = mounts(&sandbox, &update, &[]).refusal();
    assert!(said.contains("the cache would show up"), "{said}");
    mounts(&sandbox, &["remove", "/other"], &[]).success();
    mount.unmount();
    let mount = moved.start();
    assert_eq!(names(mount.point()), ["file"]);
    mount.unmount();
}

#[test]
fn owners_of_a_local_storage_are_mapped_and_a_map_is_changed_in_use() {
    let storage = Storage::local();
    storage.put("d/ours", 1, 1000);
    storage.put("d/theirs", 2, 1000);
    for (name, uid, gid) in [("d/ours", 1234, 50), ("d/theirs", 2005, 60)] {
        std::os::unix::fs::chown(storage.root().join(name), Some(uid), Some(gid)).unwrap();
    }
    let sandbox = sandbox_of(&storage);
    let map = "uid:1234=0,uid:2000-2999=5000,gid:*=100";
    let mount = sandbox.mount(&storage).flag("--idmap", map).start();
    let owner = |name: &str| {
        let found = mount.path(name).metadata().unwrap();
        (found.uid(), found.gid())
    };
    assert_eq!(
        (owner("d/ours"), owner("d/theirs")),
        ((0, 100), (5005, 100))
    );
    assert_eq!(listed(&sandbox)[0]["idmap"], map);
    let shown = mounts(&sandbox, &["show", "/"], &[]).success();
    assert!(shown.contains(map), "{shown}");
    let update = ["update", "/", "--idmap", "gid:50=7"];
    mounts(&sandbox, &update, &[]).success();
    assert_eq!(
        (owner("d/ours"), owner("d/theirs")),
        ((1234, 7), (2005, 60))
    );
    mounts(&sandbox, &["update", "/", "--idmap", ""], &[]).success();
    assert_eq!(owner("d/ours"), (1234, 50));
    mount.unmount();
}
