// SPDX-License-Identifier: Apache-2.0
//! Several storages in one tree.

use types::{ErrorKind, Freshness, NodeKind, ObjectPath};
use vfs::Ino;

use crate::rig::{Ground, MINUTE, Mounted, bytes};

const IMMUTABLE: Freshness = Freshness::Immutable;

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_inside_a_mount_hides_what_is_under_it() {
    let ground = Ground::new();
    ground.put("outer/x/y/hidden", "h");
    ground.put("outer/x/beside", "b");
    ground.put("outer/file", "f");
    ground.put("inner/deep/shown", bytes(5, 5));
    let rig = ground
        .mount_all(&[
            Mounted {
                dir: "outer",
                at: "",
                freshness: MINUTE,
            },
            Mounted {
                dir: "inner",
                at: "x/y",
                freshness: IMMUTABLE,
            },
        ])
        .await;
    assert_eq!(rig.names(Ino::ROOT).await, ["x", "file"]);
    let x = rig.lookup("x").await.unwrap().ino;
    assert_eq!(rig.names(x).await, ["y", "beside"]);
    let y = rig.lookup("x/y").await.unwrap().ino;
    assert_eq!(rig.names(y).await, ["deep"]);
    assert_eq!(
        rig.lookup("x/y/hidden").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(rig.cat("x/y/deep/shown").await.unwrap(), bytes(5, 5));
    assert_eq!(rig.cat("x/beside").await.unwrap(), b"b");
    let listed = rig.list(y).await.unwrap();
    assert_eq!((listed[0].ino, listed[1].ino), (y, x));
    assert_eq!(rig.list(x).await.unwrap()[1].ino, Ino::ROOT);
    let deep = rig.lookup("x/y/deep").await.unwrap().ino;
    assert_eq!(rig.list(deep).await.unwrap()[1].ino, y);
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_that_lead_to_mounts_exist_without_a_storage() {
    let ground = Ground::new();
    ground.put("one/a", "1");
    ground.put("two/b", "2");
    let rig = ground
        .mount_all(&[
            Mounted {
                dir: "one",
                at: "data/train",
                freshness: MINUTE,
            },
            Mounted {
                dir: "two",
                at: "data/test",
                freshness: MINUTE,
            },
        ])
        .await;
    assert_eq!(rig.names(Ino::ROOT).await, ["data"]);
    let data = rig.lookup("data").await.unwrap();
    assert_eq!(data.attributes.kind, NodeKind::Directory);
    assert!(data.attributes.mtime_ns > 0);
    assert_eq!(rig.names(data.ino).await, ["test", "train"]);
    assert_eq!(
        rig.lookup("data/none").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(
        rig.lookup("other").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert_eq!(rig.cat("data/train/a").await.unwrap(), b"1");
    assert_eq!(rig.cat("data/test/b").await.unwrap(), b"2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_to_a_mount_need_not_exist_in_the_storage_around() {
    let ground = Ground::new();
    ground.put("outer/file", "f");
    ground.put("inner/a", "1");
    let rig = ground
        .mount_all(&[
            Mounted {
                dir: "outer",
                at: "",
                freshness: MINUTE,
            },
            Mounted {
                dir: "inner",
                at: "new/way",
                freshness: MINUTE,
            },
            Mounted {
                dir: "inner",
                at: "file/taken",
                freshness: MINUTE,
            },
        ])
        .await;
    let new = rig.lookup("new").await.unwrap().ino;
    assert_eq!(rig.names(new).await, ["way"]);
    assert_eq!(rig.cat("new/way/a").await.unwrap(), b"1");
    let file = rig.lookup("file").await.unwrap();
    assert_eq!(
        file.attributes.kind,
        NodeKind::Directory,
        "the way hides the file"
    );
    assert_eq!(rig.names(file.ino).await, ["taken"]);
    assert_eq!(rig.names(Ino::ROOT).await, ["file", "new"]);
    let once = rig.lookup("new/way").await.unwrap().ino;
    let twice = rig.lookup("file/taken").await.unwrap().ino;
    assert_ne!(once, twice, "one storage at two places is two trees");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_stands_for_its_place_and_the_mounts_below_without_what_they_hide() {
    let ground = Ground::new();
    ground.put("outer/x/y/hidden", "h");
    ground.put("inner/file", "f");
    let mounted = |dir, at| Mounted {
        dir,
        at,
        freshness: MINUTE,
    };
    let rig = ground
        .mount_all(&[mounted("outer", ""), mounted("inner", "x/y")])
        .await;
    let path = |text: &str| ObjectPath::parse(text.as_bytes()).unwrap();
    let found = |text: &str| {
        let found = rig.vfs.subtrees(&path(text)).unwrap();
        let shown = found.iter().map(|one| {
            let (at, tree) = (&one.mounted_at, &one.subtree);
            format!("{at}:{} {:?} {}", tree.path, tree.hidden, one.is_path)
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(found("x"), [":x [\"x/y\"] true", "x/y: [] false"]);
    assert_eq!(found("x/y/file"), ["x/y:file [] true"]);
    assert_eq!(found("z"), [":z [\"x/y\"] true"]);
}
