// SPDX-License-Identifier: Apache-2.0
//! Symbolic links, on storages that have them and on those that only have objects.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;
use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::Storage;

/// Checks that a name is a link, to whoever asks.
#[track_caller]
fn points_to(path: &Path, target: &str) {
    let name = path.file_name().unwrap();
    let mut listed = fs::read_dir(path.parent().unwrap()).unwrap();
    let entry = listed.find(|entry| entry.as_ref().unwrap().file_name() == name);
    assert!(entry.unwrap().unwrap().file_type().unwrap().is_symlink());
    let about = fs::symlink_metadata(path).unwrap();
    assert!(about.is_symlink());
    assert_eq!(about.len(), target.len() as u64, "{}", path.display());
    assert_eq!(fs::read_link(path).unwrap(), Path::new(target));
}

#[track_caller]
fn run(program: &str, arguments: &[&str], dir: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8_lossy(&both).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn links_are_kept_renamed_replaced_and_removed() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        fs::create_dir(mount.path("dir")).unwrap();
        fs::write(mount.path("dir/file"), b"content").unwrap();
        symlink("file", mount.path("dir/link")).unwrap();
        symlink("no such \u{e9} %41\n", mount.path("dir/dangling")).unwrap();
        symlink("dir", mount.path("todir")).unwrap();
        let again = symlink("x", mount.path("dir/link")).unwrap_err();
        assert_eq!(again.raw_os_error(), Some(Errno::EXIST.raw_os_error()));
        points_to(&mount.path("dir/link"), "file");
        points_to(&mount.path("dir/dangling"), "no such \u{e9} %41\n");
        assert_eq!(mount.read("todir/link"), b"content");

        fs::rename(mount.path("dir/link"), mount.path("dir/moved")).unwrap();
        points_to(&mount.path("dir/moved"), "file");
        assert!(fs::symlink_metadata(mount.path("dir/link")).is_err());
        // As programs switch a version over: another link takes the name in one step.
        symlink("other", mount.path("new")).unwrap();
        fs::rename(mount.path("new"), mount.path("dir/moved")).unwrap();
        points_to(&mount.path("dir/moved"), "other");
        fs::rename(mount.path("dir/moved"), mount.path("dir/file")).unwrap();
        points_to(&mount.path("dir/file"), "other");
        fs::write(mount.path("plain"), b"plain").unwrap();
        fs::rename(mount.path("plain"), mount.path("dir/file")).unwrap();
        assert_eq!(mount.read("dir/file"), b"plain");

        // A directory takes its links along.
        fs::rename(mount.path("dir"), mount.path("renamed")).unwrap();
        points_to(&mount.path("renamed/dangling"), "no such \u{e9} %41\n");
        mount.unmount();
        let mount = sandbox.mount(&storage).start();
        points_to(&mount.path("renamed/dangling"), "no such \u{e9} %41\n");
        points_to(&mount.path("todir"), "dir");
        fs::remove_file(mount.path("todir")).unwrap();
        fs::remove_file(mount.path("renamed/dangling")).unwrap();
        fs::remove_file(mount.path("renamed/file")).unwrap();
        fs::remove_dir(mount.path("renamed")).unwrap();
        assert_eq!(fs::read_dir(mount.point()).unwrap().count(), 0);
    }
}

#[test]
fn what_a_link_cannot_keep_is_refused() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    let long = "x".repeat(3000);
    let error = symlink(&long, mount.path("long")).unwrap_err();
    let number = Errno::NAMETOOLONG.raw_os_error();
    assert_eq!(error.raw_os_error(), Some(number), "{error}");
    let fits = "y".repeat(1500);
    symlink(&fits, mount.path("fits")).unwrap();
    points_to(&mount.path("fits"), &fits);
}

#[test]
fn links_have_owners_and_times_of_their_own() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let mount = sandbox.mount(&storage).start();
        let link = mount.path("link");
        symlink("target", &link).unwrap();
        let touched = ["-h", "-d", "@1500000000", "link"];
        run("touch", &touched, mount.point());
        assert_eq!(fs::symlink_metadata(&link).unwrap().mtime(), 1_500_000_000);
        run("chown", &["-h", "12:34", "link"], mount.point());
        let about = fs::symlink_metadata(&link).unwrap();
        assert_eq!((about.uid(), about.gid()), (12, 34));
        points_to(&link, "target");
        mount.unmount();
        let mount = sandbox.mount(&storage).start();
        let about = fs::symlink_metadata(mount.path("link")).unwrap();
        assert_eq!(about.mtime(), 1_500_000_000);
        assert_eq!((about.uid(), about.gid()), (12, 34));
    }
}

/// A small tree with links, on the local disk.
fn tree(dir: &Path) {
    fs::create_dir_all(dir.join("lib/deep")).unwrap();
    fs::write(dir.join("lib/deep/data"), b"data").unwrap();
    fs::write(dir.join("lib/empty"), b"").unwrap();
    symlink("deep/data", dir.join("lib/data")).unwrap();
    symlink("lib", dir.join("current")).unwrap();
    symlink("nowhere", dir.join("lib/dangling")).unwrap();
}

#[test]
fn tar_rsync_cp_and_git_keep_links() {
    for storage in Storage::each() {
        let sandbox = Sandbox::new(&storage);
        let source = sandbox.dir().join("source");
        tree(&source);
        let mount = sandbox.mount(&storage).start();
        let (from, point) = (source.to_str().unwrap(), mount.point());
        let slashed = format!("{from}/");
        run("rsync", &["-a", &slashed, "rsynced"], point);
        run("cp", &["-a", from, "copied"], point);
        let archive = sandbox.dir().join("tree.tar");
        let archive = archive.to_str().unwrap();
        run("tar", &["-cf", archive, "-C", from, "."], point);
        fs::create_dir(mount.path("untarred")).unwrap();
        run("tar", &["-xf", archive, "-C", "untarred"], point);
        for made in ["rsynced", "copied", "untarred"] {
            let told = run("rsync", &["-anvi", "--delete", &slashed, made], point);
            let differs = |line: &&str| line.contains(['<', '>']) || line.contains("cL");
            let differing: Vec<_> = told.lines().filter(differs).collect();
            assert!(differing.is_empty(), "{made}: {differing:?}");
            let links = run("find", &[made, "-type", "l"], point);
            assert_eq!(links.lines().count(), 3, "{links}");
        }
        let who = ["-c", "user.name=n", "-c", "user.email=e@x"];
        let git = |arguments: &[&str], dir: &Path| run("git", &[&who, arguments].concat(), dir);
        git(&["init", "-q"], &source);
        git(&["add", "-A"], &source);
        git(&["commit", "-qm", "one"], &source);
        git(&["clone", "-q", from, "cloned"], point);
        let cloned = mount.path("cloned");
        assert_eq!(git(&["status", "--porcelain"], &cloned), "");
        points_to(&cloned.join("current"), "lib");
        git(&["fsck", "--strict"], &cloned);
    }
}

/// Returns the requests that something costs.
fn cost(mount: &Mount<'_>, work: impl FnOnce()) -> u64 {
    let before = mount.status().requests();
    work();
    mount.status().requests() - before
}

#[test]
fn links_cost_a_look_each_when_they_are_looked_up_and_empty_files_none() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = sandbox.mount(&storage).start();
    fs::create_dir(mount.path("d")).unwrap();
    for number in 0..40 {
        fs::write(mount.path(format!("d/empty-{number}")), b"").unwrap();
    }
    for number in 0..5 {
        symlink("empty-0", mount.path(format!("d/link-{number}"))).unwrap();
    }
    mount.unmount();
    let other = sandbox.dir().join("another cache");
    let mounting = sandbox.mount(&storage).cache_dir(&other);
    let mount = mounting.flag("--freshness", "immutable").start();
    let mut links = BTreeSet::new();
    let listing = cost(&mount, || {
        for entry in fs::read_dir(mount.path("d")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_symlink() {
                links.insert(entry.path());
            }
        }
    });
    assert_eq!(links.len(), 5, "{links:?}");
    assert!(listing <= 3, "{listing} requests for two directories");
    let look = || {
        for entry in fs::read_dir(mount.path("d")).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            if about.is_symlink() {
                assert_eq!(fs::read_link(&path).unwrap(), Path::new("empty-0"));
            }
        }
    };
    assert_eq!(cost(&mount, look), 5, "one look at each link");
    assert_eq!(cost(&mount, look), 0, "what is known costs nothing");
    mount.unmount();
    let mount = mounting_again(&sandbox, &storage, &other);
    let known = cost(&mount, || points_to(&mount.path("d/link-3"), "empty-0"));
    assert_eq!(known, 0, "and outlives the daemon");
}

fn mounting_again<'a>(sandbox: &'a Sandbox, storage: &Storage, cache: &Path) -> Mount<'a> {
    let mounting = sandbox.mount(storage).cache_dir(cache);
    mounting.flag("--freshness", "immutable").start()
}
