// SPDX-License-Identifier: Apache-2.0
//! What is written through the mount: what its writers see, and what the storage has.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::Signal;
use testkit::data;
use testkit::sandbox::{Sandbox, kill};
use testkit::storage::Storage;
use testkit::wait;

fn stored(storage: &Storage, name: &str) -> Vec<u8> {
    fs::read(storage.root().join(name)).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().into_owned()
    };
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
    names.retain(|name| !name.starts_with(".sgwtmp"));
    names.sort();
    names
}

fn is_cached(path: &Path) -> bool {
    let mut value = [0; 16];
    let read = rustix::fs::getxattr(path, "user.forebay.cached", &mut value);
    read.is_ok_and(|len| &value[..len] == b"whole")
}

#[test]
fn the_storage_has_the_whole_file_when_close_returns() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        fs::write(mount.path("empty"), b"").unwrap();
        assert_eq!(stored(&storage, "empty"), b"");
        fs::write(mount.path("a"), b"first").unwrap();
        assert_eq!(stored(&storage, "a"), b"first");
        let mut file = OpenOptions::new()
            .append(true)
            .open(mount.path("a"))
            .unwrap();
        file.write_all(b" second").unwrap();
        drop(file);
        assert_eq!(stored(&storage, "a"), b"first second");
        let file = OpenOptions::new()
            .write(true)
            .open(mount.path("a"))
            .unwrap();
        file.write_all_at(b"FIRST", 0).unwrap();
        file.write_all_at(b"end", 20).unwrap();
        drop(file);
        let expected = b"FIRST second\0\0\0\0\0\0\0\0end";
        assert_eq!(stored(&storage, "a"), expected);
        assert_eq!(mount.read("a"), expected);
        fs::write(mount.path("a"), b"new").unwrap();
        assert_eq!(stored(&storage, "a"), b"new");
        assert_eq!(names(mount.point()), ["a", "empty"]);
    }
}

#[test]
fn a_large_file_is_stored_in_parts_and_read_back_without_a_request() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        let size = (40 << 20) + 77;
        let content = data::bytes(3, size);
        let mut file = File::create(mount.path("large")).unwrap();
        for piece in content.chunks(300_000) {
            file.write_all(piece).unwrap();
        }
        file.sync_all().unwrap();
        assert!(stored(&storage, "large") == content);
        drop(file);
        wait::until("the file is cached", || is_cached(&mount.path("large")));
        storage.switch_off();
        assert!(mount.read("large") == content);
        storage.switch_on();
    }
}

#[test]
fn a_file_is_changed_in_its_middle_and_cut_without_losing_the_rest() {
    for storage in Storage::each() {
        let mut expected = storage.put("old", 5, 9 << 20);
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(mount.path("old"))
            .unwrap();
        file.write_all_at(b"in the middle", 5 << 20).unwrap();
        expected[5 << 20..(5 << 20) + 13].copy_from_slice(b"in the middle");
        let mut found = Vec::new();
        file.read_to_end(&mut found).unwrap();
        assert!(found == expected, "read back before it is stored");
        file.set_len(6 << 20).unwrap();
        file.set_len(7 << 20).unwrap();
        expected.truncate(6 << 20);
        expected.resize(7 << 20, 0);
        drop(file);
        assert!(stored(&storage, "old") == expected);
        assert!(mount.read("old") == expected);
        let path = mount.path("old");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(10).unwrap();
        drop(file);
        assert_eq!(stored(&storage, "old"), expected[..10]);
    }
}

#[test]
fn directories_are_made_renamed_and_removed() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        fs::create_dir_all(mount.path("a/b/c")).unwrap();
        fs::write(mount.path("a/b/c/file"), b"deep").unwrap();
        fs::write(mount.path("a/other"), b"flat").unwrap();
        let error = fs::remove_dir(mount.path("a/b")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::NOTEMPTY.raw_os_error()));
        fs::rename(mount.path("a"), mount.path("z")).unwrap();
        assert_eq!(names(mount.point()), ["z"]);
        assert_eq!(names(&mount.path("z")), ["b", "other"]);
        assert_eq!(mount.read("z/b/c/file"), b"deep");
        assert_eq!(stored(&storage, "z/b/c/file"), b"deep");
        assert_eq!(names(storage.root()), ["z"]);
        fs::remove_file(mount.path("z/b/c/file")).unwrap();
        assert_eq!(names(&mount.path("z/b/c")), [""; 0], "outlives its files");
        fs::remove_dir_all(mount.path("z")).unwrap();
        assert_eq!(names(mount.point()), [""; 0]);
        assert_eq!(names(storage.root()), [""; 0]);
    }
}

#[test]
fn a_rename_replaces_and_readers_keep_what_they_opened() {
    for storage in Storage::each() {
        storage.put_bytes("target", b"old target");
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        let mut reader = File::open(mount.path("target")).unwrap();
        fs::write(mount.path("new"), b"new target").unwrap();
        fs::rename(mount.path("new"), mount.path("target")).unwrap();
        assert_eq!(mount.read("target"), b"new target");
        assert_eq!(stored(&storage, "target"), b"new target");
        assert_eq!(names(mount.point()), ["target"]);
        let mut old = String::new();
        reader.read_to_string(&mut old).unwrap();
        assert_eq!(old, "old target");
    }
}

#[test]
fn a_rename_across_mounts_is_one_across_file_systems_and_mv_copies() {
    for base in Storage::each() {
        let other = Storage::local();
        base.put_bytes("dir/file", b"of the base");
        base.put_bytes("taken", b"taken here");
        other.put_bytes("taken", b"taken there");
        let state = tempfile::tempdir().unwrap();
        let sandbox =
            Sandbox::new(&base).with_variable("FOREBAY_STATE_DIR", state.path().to_str().unwrap());
        let mount = sandbox.mount(&base).start();
        let add = ["mounts", "add", "/other", &other.uri()];
        sandbox.run(&add).success();
        let again = ["mounts", "add", "/again", &other.uri()];
        sandbox.run(&again).success();
        for (from, to) in [
            ("taken", "other/new"),
            ("taken", "other/taken"),
            ("dir", "other/dir"),
            ("other/taken", "dir/new"),
            // The same storage, but another mount.
            ("other/taken", "again/new"),
        ] {
            let error = fs::rename(mount.path(from), mount.path(to)).unwrap_err();
            let wanted = Some(Errno::XDEV.raw_os_error());
            assert_eq!(error.raw_os_error(), wanted, "{from} {to}");
        }
        assert_eq!(names(base.root()), ["dir", "taken"]);
        assert_eq!(names(other.root()), ["taken"]);
        assert_eq!(mount.read("other/taken"), b"taken there");

        let mv = |from: &str, to: &str| {
            let paths = [mount.path(from), mount.path(to)];
            let moved = Command::new("mv").args(paths).status().unwrap();
            assert!(moved.success(), "mv {from} {to}");
        };
        mv("dir", "other/moved");
        mv("taken", "other/taken");
        mv("other/taken", "back");
        assert_eq!(mount.read("other/moved/file"), b"of the base");
        assert_eq!(stored(&other, "moved/file"), b"of the base");
        assert_eq!(stored(&base, "back"), b"taken here");
        assert_eq!(names(base.root()), ["back"]);
        assert_eq!(names(other.root()), ["moved"]);
    }
}

#[test]
fn a_file_that_somebody_reads_is_opened_for_writing_each_time() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox
            .mount(&storage)
            .flag("--freshness", "always")
            .start();
        // The kernel looks the name up twice and forgets the first answer in between.
        for index in 0..20 {
            let name = format!("log-{index}");
            storage.put_bytes(&name, b"first");
            let reader = File::open(mount.path(&name)).unwrap();
            let mut options = OpenOptions::new();
            let mut file = options
                .append(true)
                .create(true)
                .open(mount.path(&name))
                .unwrap();
            file.write_all(b", second").unwrap();
            drop((reader, file));
            assert_eq!(stored(&storage, &name), b"first, second");
        }
    }
}

#[test]
fn what_is_renamed_is_what_was_written_and_not_what_an_old_reader_has() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox
            .mount(&storage)
            .flag("--freshness", "always")
            .start();
        for index in 0..10 {
            let (old, new) = (format!("old-{index}"), format!("new-{index}"));
            storage.put_bytes(&old, b"opened");
            let mut reader = File::open(mount.path(&old)).unwrap();
            let writer = OpenOptions::new()
                .write(true)
                .open(mount.path(&old))
                .unwrap();
            writer.write_all_at(b"change", 0).unwrap();
            fs::rename(mount.path(&old), mount.path(&new)).unwrap();
            writer.write_all_at(b"changed", 0).unwrap();
            drop(writer);
            assert_eq!(mount.read(&new), b"changed");
            assert_eq!(stored(&storage, &new), b"changed");
            let mut found = String::new();
            reader.read_to_string(&mut found).unwrap();
            assert!(["opened", "changed"].contains(&found.as_str()), "{found}");
        }
    }
}

#[test]
fn a_removed_file_lives_on_for_who_has_it_open() {
    for storage in Storage::each() {
        let content = storage.put("gone", 8, 6 << 20);
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        let mut reader = File::open(mount.path("gone")).unwrap();
        let mut writer = File::create(mount.path("scratch")).unwrap();
        writer.write_all(b"kept").unwrap();
        fs::remove_file(mount.path("gone")).unwrap();
        fs::remove_file(mount.path("scratch")).unwrap();
        assert_eq!(names(storage.root()), [""; 0]);
        assert_eq!(writer.metadata().unwrap().nlink(), 0);
        let mut found = Vec::new();
        reader.read_to_end(&mut found).unwrap();
        assert!(found == content);
        writer.write_all(b" on").unwrap();
        drop(writer);
        assert_eq!(names(mount.point()), [""; 0]);
        assert_eq!(names(storage.root()), [""; 0]);
    }
}

#[test]
fn a_close_that_fails_keeps_the_bytes_and_they_are_stored_later() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).flag("--deadline", "2s").start();
    let mut file = File::create(mount.path("a")).unwrap();
    file.write_all(b"not lost").unwrap();
    storage.switch_off();
    file.sync_all().unwrap_err();
    drop(file);
    assert_eq!(mount.read("a"), b"not lost");
    storage.switch_on();
    wait::until("the file is stored", || {
        fs::read(storage.root().join("a")).is_ok_and(|found| found == b"not lost")
    });
}

#[test]
fn what_somebody_else_changed_is_not_overwritten() {
    let storage = Storage::s3();
    storage.put_bytes("a", b"first");
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(mount.path("a"))
        .unwrap();
    file.seek(SeekFrom::End(0)).unwrap();
    file.write_all(b" ours").unwrap();
    storage.put_bytes("a", b"somebody else's");
    let error = file.sync_all().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(Errno::STALE.raw_os_error()));
    drop(file);
    assert_eq!(mount.read("a"), b"somebody else's");
    let kept: Vec<_> = names(mount.point());
    let kept = kept
        .iter()
        .find(|name| name.starts_with("a.forebay-conflict-"));
    let kept = kept.expect("a copy of what was written");
    assert_eq!(stored(&storage, kept), b"first ours");
}

#[test]
fn an_exclusive_creation_succeeds_once() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        let make = || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o640);
            options.open(mount.path("lock"))
        };
        drop(make().unwrap());
        let error = make().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EXIST.raw_os_error()));
        let mode = fs::metadata(mount.path("lock"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o640);
    }
}

#[test]
fn what_back_acknowledged_outlives_a_kill_and_is_stored_after_the_restart() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage).flag("--write-mode", "back");
    let mount = mounting.start();
    fs::create_dir(mount.path("d")).unwrap();
    storage.switch_off();
    let content = data::bytes(7, 20 << 20);
    fs::write(mount.path("d/a"), &content).unwrap();
    fs::write(mount.path("d/b"), b"small").unwrap();
    fs::rename(mount.path("d/b"), mount.path("d/c")).unwrap();
    assert_eq!(names(&mount.path("d")), ["a", "c"]);
    kill(mount.pid(), Signal::KILL);
    storage.switch_on();
    let mount = mounting.start();
    assert_eq!(mount.read("d/c"), b"small");
    assert!(mount.read("d/a") == content);
    wait::until("both files are stored", || {
        let has = |name: &str, bytes: &[u8]| {
            fs::read(storage.root().join(name)).is_ok_and(|found| found == bytes)
        };
        has("d/a", &content) && has("d/c", b"small")
    });
    assert_eq!(names(&storage.root().join("d")), ["a", "c"]);
}

#[test]
fn what_is_written_in_a_shared_mapping_is_stored() {
    for storage in Storage::each() {
        storage.put("mapped", 6, 1 << 20);
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        let script = "import mmap,sys\n\
            with open(sys.argv[1],'r+b') as f:\n\
            \x20 m=mmap.mmap(f.fileno(),0)\n\
            \x20 m[4096:4101]=b'hello'\n\
            \x20 m.flush(); m.close()\n";
        let done = Command::new("python3")
            .args(["-c", script])
            .arg(mount.path("mapped"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        assert_eq!(&stored(&storage, "mapped")[4096..4101], b"hello");
        assert_eq!(&mount.read("mapped")[4096..4101], b"hello");
    }
}

#[test]
fn what_is_scratch_is_never_stored() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox
        .mount(&storage)
        .flag("--write-mode", "local")
        .start();
    fs::write(mount.path("scratch"), b"for now").unwrap();
    assert_eq!(mount.read("scratch"), b"for now");
    assert_eq!(names(mount.point()), ["scratch"]);
    fs::rename(mount.path("scratch"), mount.path("renamed")).unwrap();
    assert_eq!(mount.read("renamed"), b"for now");
    let point = mount.point().to_str().unwrap().to_owned();
    sandbox.run(&["sync", &point, "--wait"]).success();
    assert_eq!(names(mount.point()), ["renamed"]);
    assert_eq!(names(storage.root()), [""; 0]);
}

#[test]
fn what_is_not_stored_yet_shows_and_can_be_waited_for() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mounting = sandbox.mount(&storage).flag("--write-mode", "back");
    let mount = mounting.start();
    let point = mount.point().to_str().unwrap().to_owned();
    fs::write(mount.path("first"), b"stored").unwrap();
    sandbox.run(&["sync", &point, "--wait"]).success();
    assert_eq!(stored(&storage, "first"), b"stored");
    storage.switch_off();
    fs::write(mount.path("second"), b"waits").unwrap();
    let text = sandbox.run(&["status", "--json"]).success();
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    let staged = &status["daemons"][0]["staged"];
    assert_eq!((&staged["files"], &staged["bytes"]), (&1.into(), &5.into()));
    let arguments = ["sync", &point, "--wait", "--timeout", "1s"];
    let refused = sandbox.run(&arguments).refusal();
    assert!(refused.contains("not stored yet"), "{refused}");
    let told = sandbox.run(&["umount", &point]);
    assert!(
        told.stderr.contains("1 files are not stored yet"),
        "{told:?}"
    );
    told.success();
    storage.switch_on();
    let mount = mounting.start();
    assert_eq!(mount.read("second"), b"waits");
    sandbox.run(&["sync", &point, "--wait"]).success();
    assert_eq!(stored(&storage, "second"), b"waits");
}

#[test]
fn what_is_open_below_a_directory_that_is_renamed_is_written_on_and_stored() {
    for storage in Storage::each() {
        let large = data::bytes(1, (17 << 20) + 5);
        storage.put_bytes("old/large", &large);
        storage.put_bytes("old/small", b"as it was");
        for mode in ["through", "back"] {
            let sandbox = Sandbox::new(&storage);
            let mount = sandbox.mount(&storage).flag("--write-mode", mode).start();
            let open = |name: &str| {
                let mut options = OpenOptions::new();
                let path = mount.path(format!("old/{name}"));
                options.read(true).write(true).open(path).unwrap()
            };
            let (large_file, small_file) = (open("large"), open("small"));
            let reader = File::open(mount.path("old/large")).unwrap();
            fs::create_dir(mount.path("new")).unwrap();
            fs::rename(mount.path("old"), mount.path("new")).unwrap();
            // Nothing was written yet: all of it shows through.
            let mut part = vec![0; 1 << 20];
            large_file.read_exact_at(&mut part, 5 << 20).unwrap();
            assert!(part == large[5 << 20..6 << 20], "{mode}");
            large_file.write_all_at(b"changed", 3 << 20).unwrap();
            small_file.write_all_at(b"no", 0).unwrap();
            drop((large_file, small_file));
            reader.read_exact_at(&mut part, 9 << 20).unwrap();
            assert!(part == large[9 << 20..10 << 20], "{mode}");
            drop(reader);
            let point = mount.point().to_str().unwrap();
            sandbox.run(&["sync", point, "--wait"]).success();
            let mut expected = large.clone();
            expected[3 << 20..(3 << 20) + 7].copy_from_slice(b"changed");
            let stored = storage.root().join("new");
            assert!(
                fs::read(stored.join("large")).unwrap() == expected,
                "{mode}"
            );
            assert_eq!(fs::read(stored.join("small")).unwrap(), b"no it was");
            assert_eq!(names(&stored), ["large", "small"], "{mode}");
            // As it was, for the other mode.
            fs::rename(mount.path("new"), mount.path("old")).unwrap();
            fs::write(mount.path("old/large"), &large).unwrap();
            fs::write(mount.path("old/small"), b"as it was").unwrap();
            mount.unmount();
        }
    }
}
