// SPDX-License-Identifier: Apache-2.0
//! Local directories.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tempfile::TempDir;
use types::{ByteRange, Clock, ErrorKind, ManualClock, NodeKind, ObjectPath, SystemClock};
use ufs::conformance::{self, Fixture, list, read, stat};
use ufs::{Expect, FileAttributes, Settings, UnderStorage, open};

use crate::wire::open_at;

/// A directory of a mounted file system, and its driver.
pub(crate) struct Directory {
    root: PathBuf,
    storage: Arc<dyn UnderStorage>,
    /// Removed at the end, if it is ours.
    _dir: Option<TempDir>,
}

impl Directory {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let storage = open_at(dir.path().to_str().unwrap(), &[]).await.unwrap();
        let directory = Directory::of(dir.path().into(), storage);
        Directory {
            _dir: Some(dir),
            ..directory
        }
    }

    /// Makes one of a directory that is there, for a driver of any kind.
    pub(crate) fn of(root: PathBuf, storage: Arc<dyn UnderStorage>) -> Self {
        Directory {
            root,
            storage,
            _dir: None,
        }
    }

    fn at(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }
}

#[async_trait]
impl Fixture for Directory {
    fn storage(&self) -> Arc<dyn UnderStorage> {
        Arc::clone(&self.storage)
    }

    async fn put(&self, path: &[u8], content: &[u8]) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    async fn remove(&self, path: &[u8]) {
        std::fs::remove_file(self.at(path)).unwrap();
    }

    fn odd_names(&self) -> Vec<Vec<u8>> {
        let long = [b'x'; 255];
        let names = [
            &b" "[..],
            b"a ",
            b" a",
            b"\na",
            b"a\n",
            b"\x01",
            b"%2F",
            b"a+b",
            b"?",
            b"#",
            b"...",
            b"\xff\xfe",
            "\u{e9}\u{1f600}".as_bytes(),
            b"a\\b",
            b"-",
            b"'\"",
            &long,
        ];
        names.iter().map(|name| name.to_vec()).collect()
    }
}

#[tokio::test]
async fn a_local_directory_keeps_every_promise() {
    conformance::run(&Directory::new().await).await;
}

#[tokio::test]
async fn a_local_directory_keeps_every_promise_of_writing() {
    conformance::write::run(&Directory::new().await).await;
}

#[tokio::test]
async fn files_on_their_way_do_not_show_and_are_removed_when_their_writer_died() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::default());
    let settings = Settings {
        uri: dir.path().to_str().unwrap().into(),
        options: Default::default(),
        request_timeout: Duration::from_secs(10),
        max_connections: 4,
    };
    let storage = open(&settings, Arc::clone(&clock) as _).await.unwrap();
    let in_directory = || std::fs::read_dir(dir.path()).unwrap().count();
    let kept_name = ".forebay-0123456789abcdef0123456789abcdef.part";
    for name in [kept_name, ".forebay-notes.part"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let shown = async || list(&*storage, b"").await.unwrap().0.len();
    assert_eq!((shown().await, in_directory()), (1, 2));
    clock.advance(Duration::from_secs(90_000));
    assert_eq!((shown().await, in_directory()), (1, 2), "a reader removes");
    let writer = storage.writer().unwrap();
    assert_eq!((shown().await, in_directory()), (1, 1));
    let kept_path = ObjectPath::parse(kept_name.as_bytes()).unwrap();
    let (nothing, anything) = (FileAttributes::default(), Expect::Anything);
    let deadline = SystemClock.deadline(Duration::from_secs(10));
    let put = writer.put(
        &kept_path,
        Bytes::from_static(b"x"),
        &anything,
        &nothing,
        deadline,
    );
    assert_eq!(put.await.unwrap_err().kind(), ErrorKind::Invalid);
}

/// A file system of a megabyte.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "small"]);
        assert!(mount.arg(dir.path()).status().unwrap().success());
        SmallDisk(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _status = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_fails_the_write_and_leaves_nothing_but_what_was() {
    let disk = SmallDisk::mount();
    let root = disk.0.path().to_path_buf();
    let storage = open_at(root.to_str().unwrap(), &[]).await.unwrap();
    let writer = storage.writer().unwrap();
    let (nothing, anything) = (FileAttributes::default(), Expect::Anything);
    let deadline = || SystemClock.deadline(Duration::from_secs(10));
    let path = ObjectPath::parse(b"file").unwrap();
    let put = async |bytes: Bytes| {
        let put = writer.put(&path, bytes, &anything, &nothing, deadline());
        put.await
    };
    put(Bytes::from_static(b"small")).await.unwrap();
    let large = Bytes::from(vec![1; 2 << 20]);
    let error = put(large.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
    let upload = writer.begin(&path, 2 << 20, &nothing, deadline()).await;
    let upload = upload.unwrap();
    let error = upload.part(1, large, deadline()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfSpace, "{error}");
    upload.abort(deadline()).await.unwrap();
    assert_eq!(std::fs::read(root.join("file")).unwrap(), b"small");
    assert_eq!(std::fs::read_dir(&root).unwrap().count(), 1);
    put(Bytes::from_static(b"there is room again"))
        .await
        .unwrap();
}

#[tokio::test]
async fn nothing_is_written_through_a_symbolic_link() {
    let fixture = Directory::new().await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "kept").unwrap();
    symlink(outside.path(), fixture.at(b"out")).unwrap();
    symlink(outside.path().join("file"), fixture.at(b"link")).unwrap();
    let storage = fixture.storage();
    let writer = storage.writer().unwrap();
    let (nothing, anything) = (FileAttributes::default(), Expect::Anything);
    let deadline = SystemClock.deadline(Duration::from_secs(10));
    let (link, bytes) = (
        ObjectPath::parse(b"link").unwrap(),
        Bytes::from_static(b"x"),
    );
    for name in ["out/file", "out/new", "out/dir/new"] {
        let name = ObjectPath::parse(name.as_bytes()).unwrap();
        let put = writer.put(&name, bytes.clone(), &anything, &nothing, deadline);
        assert_eq!(put.await.unwrap_err().kind(), ErrorKind::NotADirectory);
        assert!(writer.create_dir(&name, &nothing, deadline).await.is_err());
        assert!(writer.rename(&link, &name, deadline).await.is_err());
    }
    // The link itself is replaced, not what it leads to.
    let put = writer.put(&link, bytes, &anything, &nothing, deadline);
    assert_eq!(put.await.unwrap().kind, NodeKind::File);
    assert_eq!(std::fs::read(outside.path().join("file")).unwrap(), b"kept");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn nothing_is_reached_through_a_symbolic_link() {
    let fixture = Directory::new().await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "s").unwrap();
    symlink(outside.path(), fixture.at(b"out")).unwrap();
    symlink("../x \n", fixture.at(b"dangling")).unwrap();
    let storage = &*fixture.storage;

    let meta = stat(storage, b"out").await.unwrap();
    assert_eq!(meta.kind, NodeKind::Symlink);
    let target = outside.path().as_os_str().as_bytes();
    let deadline = SystemClock.deadline(Duration::from_secs(10));
    let link = async |name: &[u8]| {
        storage
            .read_link(&ObjectPath::parse(name).unwrap(), deadline)
            .await
    };
    assert_eq!(link(b"out").await.unwrap(), target);
    assert_eq!(link(b"dangling").await.unwrap(), b"../x \n");
    fixture.put(b"file", b"x").await;
    assert_eq!(link(b"file").await.unwrap_err().kind(), ErrorKind::Invalid);

    assert!(stat(storage, b"out/secret").await.is_err());
    assert!(list(storage, b"out").await.is_err());
    let range = ByteRange::new(0, meta.tag.size);
    assert!(read(storage, b"out", &meta.tag, range).await.is_err());
    let (entries, _) = list(storage, b"").await.unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| entry.meta.kind).collect();
    assert_eq!(
        kinds,
        [NodeKind::Symlink, NodeKind::File, NodeKind::Symlink]
    );
}

#[tokio::test]
async fn special_files_are_left_out_and_counted() {
    let fixture = Directory::new().await;
    let _socket = std::os::unix::net::UnixListener::bind(fixture.at(b"socket")).unwrap();
    fixture.put(b"file", b"x").await;
    let (entries, unshowable) = list(&*fixture.storage, b"").await.unwrap();
    assert_eq!((entries.len(), unshowable), (1, 1));
    let error = stat(&*fixture.storage, b"socket").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn modes_owners_and_times_are_told() {
    let fixture = Directory::new().await;
    fixture.put(b"file", b"x").await;
    std::fs::set_permissions(fixture.at(b"file"), PermissionsExt::from_mode(0o4640)).unwrap();
    let meta = stat(&*fixture.storage, b"file").await.unwrap();
    let owner = meta.owner.unwrap();
    assert_eq!(
        (owner.mode, owner.uid),
        (0o4640, rustix::process::getuid().as_raw())
    );
    let modified = std::fs::metadata(fixture.at(b"file"))
        .unwrap()
        .modified()
        .unwrap();
    let since = modified
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    assert_eq!(i128::from(meta.tag.mtime_ns), since as i128);
}

#[tokio::test]
async fn a_change_of_the_same_size_and_time_is_seen() {
    let fixture = Directory::new().await;
    for _ in 0..50 {
        fixture.put(b"file", b"old").await;
        let tag = stat(&*fixture.storage, b"file").await.unwrap().tag;
        let modified = std::fs::metadata(fixture.at(b"file"))
            .unwrap()
            .modified()
            .unwrap();
        fixture.put(b"file", b"new").await;
        std::fs::File::open(fixture.at(b"file"))
            .unwrap()
            .set_modified(modified)
            .unwrap();
        let range = ByteRange::new(0, 3);
        let error = read(&*fixture.storage, b"file", &tag, range)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stale);
    }
}

#[tokio::test]
async fn a_directory_that_went_away_makes_nothing_absent() {
    let fixture = Directory::new().await;
    fixture.put(b"dir/file", b"x").await;
    let tag = stat(&*fixture.storage, b"dir/file").await.unwrap().tag;
    let away = fixture.root.with_extension("away");
    std::fs::rename(&fixture.root, &away).unwrap();
    for replaced in [false, true] {
        if replaced {
            std::fs::create_dir(&fixture.root).unwrap();
        }
        let storage = &*fixture.storage;
        let range = ByteRange::new(0, 1);
        let errors = [
            stat(storage, b"dir/file").await.unwrap_err(),
            stat(storage, b"absent").await.unwrap_err(),
            list(storage, b"dir").await.unwrap_err(),
            read(storage, b"dir/file", &tag, range).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
    }
    std::fs::remove_dir(&fixture.root).unwrap();
    std::fs::rename(&away, &fixture.root).unwrap();
    assert!(stat(&*fixture.storage, b"dir/file").await.is_ok());
}

#[tokio::test]
async fn a_place_that_cannot_be_a_storage_is_refused_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "x").unwrap();
    let shown = |path: &Path| path.to_str().unwrap().to_string();
    for (path, kind) in [
        (dir.path().join("absent"), ErrorKind::NotFound),
        (dir.path().join("file"), ErrorKind::NotADirectory),
    ] {
        let error = open_at(&shown(&path), &[]).await.err().unwrap();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(&shown(&path)), "{error}");
    }
    let plain = open_at(&shown(dir.path()), &[]).await.unwrap();
    let with_scheme = open_at(&format!("file://{}/", shown(dir.path())), &[])
        .await
        .unwrap();
    assert_eq!(plain.identity(), with_scheme.identity());
}
