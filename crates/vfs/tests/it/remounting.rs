// SPDX-License-Identifier: Apache-2.0
//! Mounts that come, change and go while the tree is in use.

use types::{ErrorKind, Freshness, ObjectPath};
use vfs::{Ino, Outdated};

use crate::rig::{Ground, MINUTE, Mounted, Rig, bytes};

const LARGE: usize = 9 << 20;

fn mounted(dir: &'static str, at: &'static str) -> Mounted {
    let freshness = MINUTE;
    Mounted { dir, at, freshness }
}

fn path(text: &str) -> ObjectPath {
    ObjectPath::parse(text.as_bytes()).unwrap()
}

fn name(dir: Ino, name: &str) -> Outdated {
    let name = name.as_bytes().to_vec();
    Outdated::Name { dir, name }
}

async fn add(rig: &Rig, dir: &'static str, at: &'static str) -> Vec<Outdated> {
    let spec = rig.spec(mounted(dir, at)).await;
    rig.vfs.check_place(&spec.at).await.unwrap();
    rig.vfs.add_mount(spec).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_mount_is_there_at_once_and_the_name_it_takes_is_outdated() {
    let ground = Ground::new();
    ground.put("outer/sets/old", "o");
    ground.put("inner/a", "1");
    let rig = ground.mount_all(&[mounted("outer", "")]).await;
    let sets = rig.lookup("sets").await.unwrap().ino;
    assert_eq!(rig.names(sets).await, ["old"]);
    assert!(rig.lookup("sets/new").await.is_err());
    let handle = rig.vfs.open_dir(sets).wait().await.unwrap();

    let outdated = add(&rig, "inner", "sets/new").await;
    assert_eq!(outdated, [name(sets, "new")], "'sets' stays what it was");
    assert_eq!(rig.names(sets).await, ["new", "old"]);
    assert_eq!(rig.cat("sets/new/a").await.unwrap(), b"1");
    assert_eq!(rig.cat("sets/old").await.unwrap(), b"o");
    let shown: Vec<_> = rig
        .list_from(handle, 0, 9)
        .into_iter()
        .map(|e| e.name)
        .collect();
    assert_eq!(shown.len(), 3, "an open listing is what it was: {shown:?}");

    let outdated = add(&rig, "inner", "x/y/z").await;
    assert_eq!(outdated, [name(Ino::ROOT, "x")]);
    assert_eq!(rig.cat("x/y/z/a").await.unwrap(), b"1");
    let new = rig.lookup("sets/new").await.unwrap().ino;
    let outdated = add(&rig, "outer", "sets/new/deep").await;
    assert_eq!(outdated, [name(new, "deep")]);
    assert_eq!(rig.cat("sets/new/deep/sets/old").await.unwrap(), b"o");
    let ats: Vec<_> = rig
        .vfs
        .mounts()
        .iter()
        .map(|spec| spec.at.to_string())
        .collect();
    assert_eq!(ats, ["", "sets/new", "x/y/z", "sets/new/deep"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_mount_is_gone_for_all_but_open_files_that_are_cached() {
    let ground = Ground::new();
    ground.put("outer/new/under", "u");
    ground.put("inner/small", bytes(1, 1000));
    ground.put("inner/dir/large", bytes(2, LARGE));
    let rig = ground
        .mount_all(&[mounted("outer", ""), mounted("inner", "new")])
        .await;
    let new = rig.lookup("new").await.unwrap().ino;
    let small = rig.open("new/small").await.unwrap().handle;
    let large = rig.open("new/dir/large").await.unwrap().handle;
    let file = rig.lookup("new/small").await.unwrap();
    let outdated = rig.vfs.remove_mount(&path("new")).unwrap();
    assert_eq!(outdated, [name(Ino::ROOT, "new")]);

    let found = rig.lookup("new/under").await.unwrap();
    assert_eq!(found.attributes.size, 1, "what was hidden is seen again");
    let kind = |error: types::Error| error.kind();
    let gone = rig.vfs.lookup(new, b"small").wait().await.unwrap_err();
    assert_eq!(kind(gone), ErrorKind::NotFound);
    let gone = rig.vfs.open_dir(new).wait().await.unwrap_err();
    assert_eq!(kind(gone), ErrorKind::NotFound);
    let gone = rig.vfs.open(file.ino).wait().await.unwrap_err();
    assert_eq!(kind(gone), ErrorKind::Stale);
    assert_eq!(rig.vfs.attributes(file.ino).unwrap(), file.attributes);
    assert_eq!(rig.read(small, 0, 1000).await.unwrap(), bytes(1, 1000));
    let gone = rig.read(large, 8 << 20, 4096).await.unwrap_err();
    assert_eq!(kind(gone.clone()), ErrorKind::Stale);
    assert!(gone.to_string().contains("removed"), "{gone}");

    add(&rig, "inner", "again").await;
    assert_eq!(rig.cat("again/small").await.unwrap(), bytes(1, 1000));
    let gone = rig.read(large, 8 << 20, 4096).await.unwrap_err();
    assert_eq!(
        kind(gone),
        ErrorKind::Stale,
        "the same storage elsewhere is not that mount"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn places_that_cannot_be_mounted_at_are_refused_with_the_reason() {
    let ground = Ground::new();
    ground.put("outer/dir/file", "f");
    ground.put("inner/a", "1");
    let rig = ground
        .mount_all(&[mounted("outer", ""), mounted("inner", "m/n")])
        .await;
    for (at, kind, word) in [
        ("dir/file", ErrorKind::NotADirectory, "'dir/file' is a file"),
        (
            "dir/file/x/y",
            ErrorKind::NotADirectory,
            "'dir/file' is a file",
        ),
        ("m/n", ErrorKind::AlreadyExists, "inner"),
        ("m/n/a/b", ErrorKind::NotADirectory, "'a' is a file"),
        ("", ErrorKind::AlreadyExists, "outer"),
    ] {
        let error = rig.vfs.check_place(&path(at)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{at}: {error}");
        assert!(error.to_string().contains(word), "{at}: {error}");
    }
    for at in ["dir/new/deep", "m/other", "m/n/b"] {
        rig.vfs.check_place(&path(at)).await.unwrap();
    }
    let taken = rig.spec(mounted("inner", "m/n")).await;
    let error = rig.vfs.add_mount(taken).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let error = rig.vfs.remove_mount(&path("dir")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("'/m/n'"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_comes_and_goes_as_a_mount_but_not_as_the_last_one() {
    let ground = Ground::new();
    ground.put("outer/file", "f");
    ground.put("inner/a", "1");
    let rig = ground.mount_all(&[]).await;
    assert!(rig.names(Ino::ROOT).await.is_empty());
    assert!(rig.lookup("file").await.is_err());
    let outdated = add(&rig, "inner", "in/side").await;
    assert_eq!(outdated, [name(Ino::ROOT, "in")]);
    let way = rig.lookup("in").await.unwrap().ino;
    let outdated = add(&rig, "outer", "").await;
    assert_eq!(
        outdated,
        [Outdated::Attributes(Ino::ROOT), name(Ino::ROOT, "in")]
    );
    assert_eq!(rig.names(Ino::ROOT).await, ["in", "file"]);
    assert_eq!(rig.cat("in/side/a").await.unwrap(), b"1");
    assert_ne!(rig.lookup("in").await.unwrap().ino, way);

    assert_eq!(rig.lookup("file").await.unwrap().attributes.size, 1);
    let outdated = rig.vfs.remove_mount(&path("")).unwrap();
    assert!(outdated.contains(&name(Ino::ROOT, "file")), "{outdated:?}");
    assert!(rig.lookup("file").await.is_err());
    assert_eq!(rig.names(Ino::ROOT).await, ["in"]);
    assert_eq!(rig.cat("in/side/a").await.unwrap(), b"1");
    rig.vfs.remove_mount(&path("in/side")).unwrap();
    assert!(rig.names(Ino::ROOT).await.is_empty());
    add(&rig, "outer", "").await;
    let error = rig.vfs.remove_mount(&path("")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(rig.cat("file").await.unwrap(), b"f");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_freshness_and_owners_and_keeps_inodes_and_open_files() {
    let ground = Ground::new();
    ground.put("s/dir/file", "one");
    let freshness = Freshness::Immutable;
    let first = Mounted {
        dir: "s",
        at: "m",
        freshness,
    };
    let rig = ground.mount_all(&[first]).await;
    let mount = rig.lookup("m").await.unwrap();
    let before = rig.lookup("m/dir/file").await.unwrap();
    let open = rig.open("m/dir/file").await.unwrap().handle;
    let dir = rig.lookup("m/dir").await.unwrap();
    assert!(rig.lookup("m/dir/absent").await.is_err());
    let expected = [
        name(mount.ino, "dir"),
        name(dir.ino, "file"),
        name(dir.ino, "absent"),
        Outdated::Attributes(mount.ino),
    ];
    rig.put("s/dir/file", "second");
    assert_eq!(rig.cat("m/dir/file").await.unwrap(), b"one");

    let freshness = Freshness::Always;
    let mut spec = rig
        .spec(Mounted {
            dir: "s",
            at: "m",
            freshness,
        })
        .await;
    spec.attributes.uid = 42;
    let outdated = rig.vfs.update_mount(spec).unwrap();
    for one in &expected {
        assert!(outdated.contains(one), "no {one:?} in {outdated:?}");
    }
    let own = name(Ino::ROOT, "m");
    assert!(!outdated.contains(&own), "programs may be in it");
    assert_eq!(rig.cat("m/dir/file").await.unwrap(), b"second");
    assert_eq!(rig.read(open, 0, 9).await.unwrap(), b"one");
    assert_eq!(rig.lookup("m").await.unwrap().ino, mount.ino);
    assert_eq!(rig.lookup("m").await.unwrap().attributes.uid, 42);
    assert_eq!(rig.lookup("m/dir").await.unwrap().ino, dir.ino);
    assert_ne!(rig.lookup("m/dir/file").await.unwrap().ino, before.ino);
    let spec = rig.spec(mounted("s", "elsewhere")).await;
    assert_eq!(
        rig.vfs.update_mount(spec).unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_outdates_what_a_kernel_may_believe_of_a_place_and_spares_directories_that_stay() {
    let ground = Ground::new();
    ground.put("s/d/file", "one");
    ground.put("s/d/sub/deep", "1");
    ground.put("s/e/other", "1");
    let rig = ground
        .mount_all(&[Mounted {
            dir: "s",
            at: "",
            freshness: Freshness::Immutable,
        }])
        .await;
    let dir = rig.lookup("d").await.unwrap().ino;
    let sub = rig.lookup("d/sub").await.unwrap().ino;
    for known in ["d/file", "d/sub/deep", "e/other"] {
        rig.lookup(known).await.unwrap();
    }
    for absent in ["d/new", "d/sub/none", "e/none"] {
        assert!(rig.lookup(absent).await.is_err());
    }
    let held = rig.vfs.open_dir(dir).wait().await.unwrap();
    rig.put("s/d/new", "22");
    let done = rig.vfs.sync(&path("d")).await.unwrap();
    assert_eq!(done.places.len(), 1);
    let outdated = done.outdated;
    for one in [
        name(dir, "file"),
        name(dir, "new"),
        name(sub, "deep"),
        name(sub, "none"),
        Outdated::Attributes(dir),
        Outdated::Attributes(sub),
    ] {
        assert!(outdated.contains(&one), "no {one:?} in {outdated:?}");
    }
    assert_eq!(outdated.len(), 6, "{outdated:?}");
    assert_eq!(rig.lookup("d/new").await.unwrap().attributes.size, 2);
    // A listing that was taken before promises nothing any more.
    let mut ttls = Vec::new();
    let mut sink = |_: vfs::DirEntry<'_>, entry: vfs::Entry| {
        ttls.push(entry.entry_ttl);
        true
    };
    rig.vfs.read_dir_plus(held, 0, &mut sink).unwrap();
    assert!(ttls.iter().all(|ttl| ttl.is_zero()), "{ttls:?}");
    let error = rig.vfs.sync(&path("d/never")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
