// SPDX-License-Identifier: Apache-2.0
//! What was written and cannot be stored at once: who waits for it, who does not, what a kill, a lost
//! answer or somebody else's change makes of it, and how an operator sees it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use testkit::data;
use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::Storage;
use testkit::trees::names;
use testkit::wait;
use types::{Clock, SystemClock};

/// Long for a local disk on a busy machine, short beside the deadline of a request.
const AT_ONCE: Duration = Duration::from_secs(10);

fn sync_wait(sandbox: &Sandbox, mount: &Mount<'_>) {
    let point = mount.point().to_str().unwrap();
    sandbox.run(&["sync", point, "--wait"]).success();
}

/// Returns the name and the bytes of the only copy of what had no place any more.
fn conflict_copy(storage: &Storage, of: &str) -> (String, Vec<u8>) {
    let prefix = format!("{of}.forebay-conflict-");
    let mut copies = names(storage.root());
    copies.retain(|name| name.starts_with(&prefix));
    assert_eq!(copies.len(), 1, "{copies:?}");
    let name = copies.pop_first().unwrap();
    let bytes = fs::read(storage.root().join(&name)).unwrap();
    (name, bytes)
}

#[test]
fn writers_do_not_wait_for_an_upload_and_a_removal_ends_it() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--write-mode", "back").start();
    let mut expected = data::bytes(1, 40 << 20);
    let mut file = File::create(mount.path("large")).unwrap();
    file.write_all(&expected).unwrap();
    storage.relay().set_latency(Duration::from_secs(1));
    let before = storage.requests();
    file.sync_all().unwrap();
    wait::until("the upload is under way", || storage.requests() > before);
    storage.relay().black_hole();
    let begun = SystemClock.now();
    file.write_all_at(b"meanwhile", 30 << 20).unwrap();
    expected[30 << 20..][..9].copy_from_slice(b"meanwhile");
    file.sync_all().unwrap();
    file.set_len(35 << 20).unwrap();
    expected.truncate(35 << 20);
    assert!(SystemClock.now() - begun < AT_ONCE, "a writer waited");
    drop(file);
    storage.relay().set_latency(Duration::ZERO);
    storage.switch_on();
    sync_wait(&sandbox, &mount);
    assert!(fs::read(storage.root().join("large")).unwrap() == expected);
    fs::write(mount.path("gone"), data::bytes(2, 40 << 20)).unwrap();
    fs::remove_file(mount.path("gone")).unwrap();
    sync_wait(&sandbox, &mount);
    assert_eq!(names(storage.root()), BTreeSet::from(["large".to_owned()]));
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_stored_whole() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).flag("--write-mode", "back").start();
        let len = 24 << 20;
        let file = File::create(mount.path("busy")).unwrap();
        file.set_len(len).unwrap();
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // All of the file is one round or the next, at most at two places.
                for round in 1_u8.. {
                    for piece in 0..24 {
                        file.write_all_at(&[round; 1 << 20], piece << 20).unwrap();
                    }
                    if is_done.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
            for _ in 0..6 {
                file.sync_all().unwrap();
                wait::until("a version is stored", || {
                    storage.root().join("busy").try_exists().unwrap()
                });
                let stored = fs::read(storage.root().join("busy")).unwrap();
                assert_eq!(stored.len() as u64, len);
                let turns = stored.windows(2).filter(|two| two[0] != two[1]).count();
                assert!(turns <= 1, "a mixture of more than two moments: {turns}");
            }
            is_done.store(true, Ordering::Relaxed);
        });
        let expected = fs::read(mount.path("busy")).unwrap();
        drop(file);
        sync_wait(&sandbox, &mount);
        assert!(fs::read(storage.root().join("busy")).unwrap() == expected);
    }
}

#[test]
fn a_removed_file_leaves_no_object_although_the_answer_to_its_upload_was_lost() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox
        .mount(&storage)
        .flag("--write-mode", "back")
        .flag("--deadline", "2s")
        .start();
    // From here on it is known which names there are.
    assert!(names(mount.point()).is_empty());
    storage.relay().cut_after(Some(0));
    fs::write(mount.path("a"), b"sent").unwrap();
    fs::write(mount.path("b"), b"sent, too").unwrap();
    wait::until("both arrived", || names(storage.root()).len() == 2);
    storage.relay().cut_after(None);
    fs::remove_file(mount.path("a")).unwrap();
    fs::rename(mount.path("b"), mount.path("c")).unwrap();
    sync_wait(&sandbox, &mount);
    assert_eq!(names(storage.root()), BTreeSet::from(["c".to_owned()]));
    assert_eq!(mount.read("c"), b"sent, too");
}

#[test]
fn a_file_that_is_written_on_after_a_lost_answer_is_no_conflict() {
    let storage = Storage::s3();
    storage.put_bytes("a", b"old");
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox
        .mount(&storage)
        .flag("--write-mode", "back")
        .flag("--deadline", "2s")
        .start();
    let mut file = OpenOptions::new()
        .append(true)
        .open(mount.path("a"))
        .unwrap();
    storage.relay().cut_after(Some(0));
    file.write_all(b", new").unwrap();
    file.sync_all().unwrap();
    wait::until("it arrived", || {
        fs::read(storage.root().join("a")).is_ok_and(|found| found == b"old, new")
    });
    file.write_all(b", newer").unwrap();
    file.sync_all().unwrap();
    storage.relay().cut_after(None);
    sync_wait(&sandbox, &mount);
    let stored = fs::read(storage.root().join("a")).unwrap();
    assert_eq!(stored, b"old, new, newer");
    assert_eq!(names(storage.root()), BTreeSet::from(["a".to_owned()]));
}

#[test]
fn a_rename_that_is_carried_on_keeps_what_others_wrote_meanwhile() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage);
    mounting
        .clone()
        .crash_at("rename.copied", 1)
        .run()
        .success();
    fs::create_dir(sandbox.point().join("old")).unwrap();
    for name in ["a", "b", "c"] {
        fs::write(sandbox.point().join("old").join(name), name).unwrap();
    }
    fs::rename(sandbox.point().join("old"), sandbox.point().join("new")).unwrap_err();
    wait::until("the daemon is dead", || sandbox.processes().is_empty());
    storage.put_bytes("new/b", b"newer, by somebody else");
    let mount = mounting.start();
    assert_eq!(mount.read("new/a"), b"a");
    assert_eq!(mount.read("new/b"), b"newer, by somebody else");
    assert_eq!(mount.read("new/c"), b"c");
    assert_eq!(mount.read("old/b"), b"b", "nothing is lost");
    assert_eq!(names(&mount.path("old")), BTreeSet::from(["b".to_owned()]));
}

#[test]
fn a_large_file_whose_older_version_is_gone_ends_in_a_copy_that_says_what_is_missing() {
    let storage = Storage::s3();
    let len = 9 << 20;
    let old = storage.put("large", 3, len);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--write-mode", "back").start();
    let path = mount.path("large");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.write_all_at(b"ours", 5 << 20).unwrap();
    let theirs = storage.put("large", 4, 100);
    file.sync_all().unwrap();
    sync_wait(&sandbox, &mount);
    let error = file.read_at(&mut [0; 10], 0).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::STALE.raw_os_error()));
    drop(file);
    assert_eq!(mount.read("large"), theirs);
    let (_, copy) = conflict_copy(&storage, "large");
    assert_eq!(
        (copy.len(), &copy[5 << 20..][..4]),
        (len, b"ours".as_slice())
    );
    assert!(copy.iter().zip(&old).enumerate().all(|(at, (found, old))| {
        found == old || *found == 0 || (5 << 20..(5 << 20) + 4).contains(&at)
    }));
    let log = fs::read_to_string(sandbox.log()).unwrap();
    assert!(log.contains("are zeros in the copy"), "{log}");
}

#[test]
fn through_keeps_what_it_could_not_store_over_a_kill() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage).flag("--deadline", "2s");
    let mount = mounting.start();
    let mut file = File::create(mount.path("a")).unwrap();
    file.write_all(b"not lost").unwrap();
    storage.switch_off();
    file.sync_all().unwrap_err();
    mount.crash();
    drop(file);
    storage.switch_on();
    let mount = mounting.start();
    assert_eq!(mount.read("a"), b"not lost");
    sync_wait(&sandbox, &mount);
    assert_eq!(fs::read(storage.root().join("a")).unwrap(), b"not lost");
}

#[test]
fn what_cannot_be_stored_is_listed_and_given_up_on_demand() {
    let storage = Storage::s3();
    storage.put_bytes("a", b"stored");
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox
        .mount(&storage)
        .flag("--write-mode", "back")
        .flag("--deadline", "2s")
        .start();
    assert_eq!(mount.read("a"), b"stored");
    let path = mount.path("a");
    let listed = || sandbox.run(&["staged", "list"]).success();
    assert!(listed().contains("the storages have everything"));
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    storage.switch_off();
    file.write_all(b", and more").unwrap();
    drop(file);
    wait::until("the reason is told", || {
        let told = listed();
        told.contains("/a") && told.contains("16") && !told.contains("on its way")
    });
    let text = sandbox.run(&["staged", "list", "--json"]).success();
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    let file = &told["daemons"][0]["files"][0];
    assert_eq!((&file["path"], &file["bytes"]), (&"/a".into(), &16.into()));
    storage.switch_on();
    storage.relay().black_hole();
    let other = mount.path("b").to_str().unwrap().to_owned();
    let refused = sandbox.run(&["staged", "drop", &other]).refusal();
    assert!(refused.contains("does not wait"), "{refused}");
    storage.switch_on();
    storage.switch_off();
    let told = sandbox.run(&["staged", "drop", path.to_str().unwrap()]);
    assert!(told.success().contains("16"));
    storage.switch_on();
    wait::until("what is stored shows again", || {
        fs::read(&path).is_ok_and(|found| found == b"stored")
    });
    assert!(listed().contains("the storages have everything"));
    sync_wait(&sandbox, &mount);
    assert_eq!(fs::read(storage.root().join("a")).unwrap(), b"stored");
}

#[test]
fn a_mount_with_files_to_store_is_removed_only_by_force_and_they_are_stored_later() {
    let root = Storage::local();
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&root).start();
    let point = mount.point().to_str().unwrap().to_owned();
    let at = format!("{point}/s3");
    let add = || {
        let mut arguments = vec!["mounts".into(), "add".into(), at.clone(), storage.uri()];
        arguments.extend(storage.flags());
        arguments.extend(["--write-mode", "back", "--no-check"].map(String::from));
        sandbox.run(&arguments).success();
    };
    add();
    assert!(names(&mount.path("s3")).is_empty());
    storage.switch_off();
    fs::write(mount.path("s3/a"), b"waits").unwrap();
    let refused = sandbox.run(&["mounts", "remove", &at]).refusal();
    assert!(
        refused.contains("--force") && refused.contains("1 files"),
        "{refused}"
    );
    let waits = ["mounts", "remove", &at, "--wait", "--timeout", "1s"];
    sandbox.run(&waits).refusal();
    assert_eq!(mount.read("s3/a"), b"waits");
    sandbox.run(&["mounts", "remove", &at, "--force"]).success();
    fs::metadata(mount.path("s3/a")).unwrap_err();
    let listed = sandbox.run(&["staged", "list"]).success();
    assert!(listed.contains("mount it again"), "{listed}");
    storage.switch_on();
    add();
    assert_eq!(mount.read("s3/a"), b"waits");
    let waits = ["mounts", "remove", &at, "--wait"];
    sandbox.run(&waits).success();
    assert_eq!(fs::read(storage.root().join("a")).unwrap(), b"waits");
}

#[test]
fn what_is_cached_of_a_directory_is_not_fetched_again_after_its_rename() {
    let storage = Storage::s3();
    let content = storage.put("old/sub/file", 7, 3 << 20);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    assert!(mount.read("old/sub/file") == content);
    wait::until("the file is cached", || {
        let mut value = [0; 16];
        let path = mount.path("old/sub/file");
        let read = rustix::fs::getxattr(path, "user.forebay.cached", &mut value);
        read.is_ok_and(|len| &value[..len] == b"whole")
    });
    fs::rename(mount.path("old"), mount.path("new")).unwrap();
    fs::metadata(mount.path("new/sub/file")).unwrap();
    let before = mount.status().number("/cache/fetched_bytes");
    assert!(mount.read("new/sub/file") == content);
    assert_eq!(mount.status().number("/cache/fetched_bytes"), before);
}

#[test]
fn readers_see_a_published_directory_whole_or_not_at_all() {
    const FILES: usize = 60;
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox
        .mount(&storage)
        .flag("--freshness", "always")
        .start();
    let (from, to) = (mount.path("writing"), mount.path("published"));
    fs::create_dir(&from).unwrap();
    let all: BTreeSet<_> = (0..FILES).map(|index| format!("part-{index}")).collect();
    for name in &all {
        fs::write(from.join(name), name).unwrap();
    }
    storage.relay().set_latency(Duration::from_millis(20));
    let is_done = AtomicBool::new(false);
    // The kernel lets nobody look up a name beside a rename; who is in the directory looks on.
    let inside = File::open(&from).unwrap();
    std::thread::scope(|scope| {
        let looked = scope.spawn(|| {
            let inside = format!("/proc/self/fd/{}", inside.as_raw_fd());
            while !is_done.load(Ordering::Relaxed) {
                let names = fs::read_dir(&inside).and_then(|entries| {
                    let name = |entry: std::io::Result<fs::DirEntry>| {
                        Ok(entry?.file_name().to_string_lossy().into_owned())
                    };
                    entries.map(name).collect::<std::io::Result<BTreeSet<_>>>()
                });
                if let Ok(names) = names {
                    assert_eq!(names, all, "a part of it");
                }
            }
        });
        let reader = scope.spawn(|| {
            let mut after = 0;
            while after == 0 {
                match fs::read_dir(&to) {
                    Err(error) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
                    }
                    Ok(_) => {
                        assert_eq!(names(&to), all, "a part of it");
                        for name in ["part-0", "part-31", "part-59"] {
                            let mut text = String::new();
                            let mut file = File::open(to.join(name)).unwrap();
                            file.read_to_string(&mut text).unwrap();
                            assert_eq!(text, name);
                        }
                        after += 1;
                    }
                }
            }
        });
        fs::rename(&from, &to).unwrap();
        is_done.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        looked.join().unwrap();
    });
    assert_eq!(
        names(storage.root()),
        BTreeSet::from(["published".to_owned()])
    );
}

#[test]
fn temporary_files_are_sent_once_under_their_last_name_or_not_at_all() {
    let storage = Storage::s3();
    storage.put("there", 1, 10);
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--write-mode", "back").start();
    names(mount.point());
    let before = storage.requests();
    for number in 0..20u64 {
        let (draft, last) = (mount.path(".draft"), mount.path(format!("file-{number}")));
        fs::write(&draft, data::bytes(number, 5000)).unwrap();
        fs::rename(&draft, last).unwrap();
        let lock = mount.path("lock");
        fs::write(&lock, "held").unwrap();
        let mut log = OpenOptions::new()
            .append(true)
            .create(true)
            .open(mount.path("log"))
            .unwrap();
        writeln!(log, "{number}").unwrap();
        fs::remove_file(&lock).unwrap();
    }
    sync_wait(&sandbox, &mount);
    let sent = storage.requests() - before;
    assert!((21..=30).contains(&sent), "{sent} requests for 21 files");
    let mut expected: BTreeSet<_> = (0..20).map(|n| format!("file-{n}")).collect();
    expected.extend(["log".to_owned(), "there".to_owned()]);
    assert_eq!(names(storage.root()), expected);
    let log = fs::read_to_string(storage.root().join("log")).unwrap();
    assert_eq!(log.lines().count(), 20);
    mount.unmount();
}

#[test]
fn no_name_is_missing_from_a_listing_while_files_are_stored() {
    let storage = Storage::s3();
    for freshness in ["always", "60s"] {
        let sandbox = Sandbox::new(&storage);
        let mounting = sandbox.mount(&storage).flag("--write-mode", "back");
        let mount = mounting.flag("--freshness", freshness).start();
        let dir = mount.path(freshness);
        fs::create_dir(&dir).unwrap();
        let written = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let lister = scope.spawn(|| {
                let mut listings = 0;
                while written.load(Ordering::SeqCst) < 150 {
                    let at_least = written.load(Ordering::SeqCst);
                    let found = names(&dir);
                    let missing = (0..at_least).find(|n| !found.contains(&format!("{n:03}")));
                    assert_eq!(missing, None, "{freshness}: {} of {at_least}", found.len());
                    listings += 1;
                }
                listings
            });
            for number in 0..150usize {
                let path = dir.join(format!("{number:03}"));
                fs::write(path, data::bytes(number as u64, 3000)).unwrap();
                written.store(number + 1, Ordering::SeqCst);
                // So that some are stored while others are written.
                wait::holds_within(Duration::from_millis(15), || false);
            }
            assert!(lister.join().unwrap() > 10);
        });
        sync_wait(&sandbox, &mount);
        assert_eq!(names(&storage.root().join(freshness)).len(), 150);
        mount.unmount();
    }
}

#[test]
fn a_listing_that_was_begun_before_files_were_stored_leads_to_what_is_stored() {
    for storage in Storage::each() {
        for freshness in ["always", "1h"] {
            let sandbox = Sandbox::new(&storage);
            let mounting = sandbox.mount(&storage).flag("--write-mode", "back");
            let mount = mounting.flag("--freshness", freshness).start();
            let dir = mount.path(freshness);
            fs::create_dir(&dir).unwrap();
            let content = |number: usize| data::bytes(number as u64, 6 << 20);
            for number in 0..3 {
                fs::write(dir.join(format!("{number}")), content(number)).unwrap();
            }
            let listing = fs::read_dir(&dir).unwrap();
            sync_wait(&sandbox, &mount);
            let mut found = 0;
            for entry in listing {
                let entry = entry.unwrap();
                let number: usize = entry.file_name().to_str().unwrap().parse().unwrap();
                assert_eq!(entry.metadata().unwrap().len(), 6 << 20);
                assert!(fs::read(entry.path()).unwrap() == content(number));
                found += 1;
            }
            assert_eq!(found, 3);
            mount.unmount();
        }
    }
}
