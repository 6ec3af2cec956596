// SPDX-License-Identifier: Apache-2.0
//! Write modes by path: what is kept how, and what a rename between them does.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use rustix::io::Errno;
use testkit::sandbox::{Mounting, Sandbox};
use testkit::storage::Storage;

fn told(path: &Path, what: &str) -> String {
    let mut value = [0; 64];
    let name = format!("user.forebay.{what}");
    let len = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
    String::from_utf8(value[..len].to_vec()).unwrap()
}

fn mounting<'a>(sandbox: &'a Sandbox, storage: &Storage) -> Mounting<'a> {
    let modes = "/scratch=local,/fixed=read-only,/scratch/kept=back";
    sandbox.mount(storage).flag("--write-mode-for", modes)
}

#[test]
fn the_longest_path_that_fits_says_how_a_file_is_kept() {
    let storage = Storage::s3();
    storage.put_bytes("fixed/file", b"fixed");
    let sandbox = Sandbox::new(&storage);
    let mount = mounting(&sandbox, &storage).start();
    fs::create_dir_all(mount.path("scratch/kept")).unwrap();
    for (name, mode, persisted) in [
        ("through", "through", "yes"),
        ("scratch/local", "local", "never"),
        ("scratch/kept/back", "back", "waiting"),
    ] {
        if mode == "back" {
            storage.switch_off();
        }
        fs::write(mount.path(name), name).unwrap();
        assert_eq!(told(&mount.path(name), "write-mode"), mode);
        assert_eq!(told(&mount.path(name), "persisted"), persisted);
    }
    storage.switch_on();
    let refused = fs::write(mount.path("fixed/file"), b"x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::ROFS.raw_os_error()));
    let refused = File::create(mount.path("fixed/new")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::ROFS.raw_os_error()));
    assert_eq!(mount.read("fixed/file"), b"fixed");
    let point = mount.point().to_str().unwrap().to_owned();
    sandbox.run(&["sync", &point, "--wait"]).success();
    let has = |name: &str| storage.root().join(name).try_exists().unwrap();
    assert!(has("through") && has("scratch/kept/back") && !has("scratch/local"));
    // The table breaks its lines where the terminal ends.
    let table = sandbox.run(&["status", &point]).success();
    let words = table.split(|c: char| c.is_whitespace() || c == '│');
    let text = words.filter(|word| !word.is_empty()).collect::<Vec<_>>();
    assert!(
        text.join(" ")
            .contains("/scratch read-write, local: never stored"),
        "{table}"
    );
}

#[test]
fn a_file_that_is_renamed_is_kept_as_its_new_place_says() {
    let storage = Storage::s3();
    let sandbox = Sandbox::new(&storage);
    let mount = mounting(&sandbox, &storage).start();
    let path = |name: &str| mount.path(name);
    let stored = |name: &str| fs::read(storage.root().join(name)).ok();
    fs::create_dir_all(path("scratch/kept")).unwrap();
    fs::create_dir(path("out")).unwrap();
    // Out of scratch: stored when the rename returns, or promised.
    fs::write(path("scratch/a"), b"a").unwrap();
    fs::rename(path("scratch/a"), path("out/a")).unwrap();
    assert_eq!(stored("out/a").as_deref(), Some(&b"a"[..]));
    fs::write(path("scratch/b"), b"b").unwrap();
    fs::rename(path("scratch/b"), path("scratch/kept/b")).unwrap();
    let point = mount.point().to_str().unwrap().to_owned();
    sandbox.run(&["sync", &point, "--wait"]).success();
    assert_eq!(stored("scratch/kept/b").as_deref(), Some(&b"b"[..]));
    // A file that is open is stored under its new name when it is closed.
    let mut file = File::create(path("scratch/open")).unwrap();
    file.write_all(b"first").unwrap();
    fs::rename(path("scratch/open"), path("out/open")).unwrap();
    file.write_all(b", second").unwrap();
    drop(file);
    assert_eq!(stored("out/open").as_deref(), Some(&b"first, second"[..]));
    // Into scratch: what was stored stays stored; what is written from then on is not.
    fs::rename(path("out/a"), path("scratch/a")).unwrap();
    assert_eq!(stored("scratch/a").as_deref(), Some(&b"a"[..]));
    fs::write(path("scratch/a"), b"changed").unwrap();
    assert_eq!(mount.read("scratch/a"), b"changed");
    assert_eq!(stored("scratch/a").as_deref(), Some(&b"a"[..]));
    // Within scratch nothing is stored, whatever the storage has of it.
    fs::rename(path("scratch/a"), path("scratch/c")).unwrap();
    assert_eq!(mount.read("scratch/c"), b"changed");
    assert_eq!(stored("scratch/c").as_deref(), Some(&b"a"[..]));
    fs::create_dir(path("scratch/dir")).unwrap();
    fs::write(path("scratch/dir/d"), b"d").unwrap();
    fs::rename(path("scratch/dir"), path("scratch/moved")).unwrap();
    assert_eq!(mount.read("scratch/moved/d"), b"d");
    assert_eq!(stored("scratch/moved/d"), None);
    // A directory is copied, as `mv` does by itself.
    let refused = fs::rename(path("scratch/moved"), path("out/moved")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::XDEV.raw_os_error()));
    let moved = std::process::Command::new("mv")
        .args([path("scratch/moved"), path("out/moved")])
        .output()
        .unwrap();
    assert!(moved.status.success(), "{moved:?}");
    assert_eq!(stored("out/moved/d").as_deref(), Some(&b"d"[..]));
}

#[test]
fn modes_by_path_are_configured_changed_in_use_and_remembered() {
    let storage = Storage::local();
    let sandbox = Sandbox::new(&storage);
    let mount = mounting(&sandbox, &storage).start();
    let point = mount.point().to_str().unwrap().to_owned();
    let more = sandbox.dir().join("more");
    fs::create_dir(&more).unwrap();
    let more = more.to_str().unwrap();
    let add = [
        "mounts",
        "add",
        "/more",
        more,
        "--write-mode-for",
        "/tmp=local",
    ];
    sandbox.run(&add).success();
    fs::create_dir(mount.path("more/tmp")).unwrap();
    fs::write(mount.path("more/tmp/a"), b"a").unwrap();
    assert_eq!(told(&mount.path("more/tmp/a"), "persisted"), "never");
    let show = sandbox.run(&["mounts", "show", "/more"]).success();
    assert!(show.contains("/tmp read-write, local"), "{show}");
    let update = [
        "mounts",
        "update",
        "/more",
        "--write-mode-for",
        "/tmp=,/x=back",
    ];
    sandbox.run(&update).success();
    let was_scratch = std::path::PathBuf::from(more).join("tmp/a");
    testkit::wait::until("what was scratch is stored", || {
        was_scratch.try_exists().unwrap()
    });
    fs::write(mount.path("more/tmp/b"), b"b").unwrap();
    assert_eq!(told(&mount.path("more/tmp/b"), "write-mode"), "through");
    let wrong = ["mounts", "update", "/more", "--write-mode-for", "/=back"];
    let refused = sandbox.run(&wrong).refusal();
    assert!(refused.contains("whole mount"), "{refused}");
    mount.unmount();
    let mount = mounting(&sandbox, &storage).start();
    assert_eq!(mount.point().to_str().unwrap(), point);
    let text = sandbox.run(&["mounts", "list", "--json"]).success();
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let modes: Vec<_> = list
        .pointer("/daemons/0/mounts")
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| mount["write_modes"].clone())
        .collect();
    assert_eq!(
        modes,
        [
            serde_json::json!({"/fixed": "read-only", "/scratch": "local", "/scratch/kept": "back"}),
            serde_json::json!({"/x": "back"}),
        ]
    );
}
