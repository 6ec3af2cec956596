// SPDX-License-Identifier: Apache-2.0
//! Names: what a walk finds, what a listing shows, and what is left when all is forgotten.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use types::{Clock, ErrorKind, Freshness, NodeKind, SystemClock};
use vfs::Ino;

use crate::rig::{Ground, MINUTE, bytes};

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_and_a_lookup_agree_on_every_name() {
    let ground = Ground::new();
    ground.put("s/a.bin", bytes(1, 10));
    ground.put("s/dir/sub/b.bin", bytes(2, 20));
    ground.put("s/dir/c.bin", bytes(3, 30));
    let rig = ground.mount(MINUTE).await;
    let mut dirs = vec![(String::new(), Ino::ROOT)];
    let mut seen = Vec::new();
    while let Some((path, ino)) = dirs.pop() {
        for shown in &rig.list(ino).await.unwrap()[2..] {
            let name = String::from_utf8(shown.name.clone()).unwrap();
            let path = format!("{path}/{name}");
            let entry = rig.lookup(&path[1..]).await.unwrap();
            assert_eq!((entry.ino, entry.attributes.kind), (shown.ino, shown.kind));
            assert_eq!(rig.vfs.attributes(entry.ino).unwrap(), entry.attributes);
            if shown.kind == NodeKind::Directory {
                dirs.push((path, shown.ino));
            } else {
                seen.push((path, entry.attributes.size));
            }
        }
    }
    seen.sort();
    let expected = [("/a.bin", 10), ("/dir/c.bin", 30), ("/dir/sub/b.bin", 20)];
    assert_eq!(seen, expected.map(|(path, size)| (path.to_string(), size)));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_odd_bytes_are_shown_and_found() {
    let ground = Ground::new();
    let odd: Vec<Vec<u8>> = vec![
        b"\xff\xfe".to_vec(),
        b"a b".to_vec(),
        b"new\nline".to_vec(),
        b"...".to_vec(),
        b"%2F".to_vec(),
        "ü-日本-🦀".into(),
        vec![b'x'; 255],
    ];
    std::fs::create_dir(ground.path("s")).unwrap();
    for (size, name) in odd.iter().enumerate() {
        let path = ground.path("s").join(OsStr::from_bytes(name));
        std::fs::write(path, bytes(0, size)).unwrap();
    }
    let rig = ground.mount(MINUTE).await;
    let shown = rig.list(Ino::ROOT).await.unwrap();
    let names: HashSet<&[u8]> = shown[2..].iter().map(|shown| &shown.name[..]).collect();
    assert_eq!(names, odd.iter().map(|name| &name[..]).collect());
    for (size, name) in odd.iter().enumerate() {
        let entry = rig.lookup_bytes(name).await.unwrap();
        assert_eq!(
            entry.attributes.size,
            size as u64,
            "{}",
            name.escape_ascii()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_not_found_and_a_file_is_no_directory() {
    let ground = Ground::new();
    ground.put("s/file", "x");
    let rig = ground.mount(MINUTE).await;
    let kind = |result: types::Result<vfs::Entry>| result.unwrap_err().kind();
    assert_eq!(kind(rig.lookup("none").await), ErrorKind::NotFound);
    assert_eq!(kind(rig.lookup("none/at/all").await), ErrorKind::NotFound);
    assert_eq!(
        kind(rig.lookup("file/below").await),
        ErrorKind::NotADirectory
    );
    assert_eq!(
        kind(rig.lookup_bytes(&[b'x'; 1025]).await),
        ErrorKind::NotFound
    );
    assert_eq!(kind(rig.lookup("..").await), ErrorKind::NotFound);
    let file = rig.lookup("file").await.unwrap().ino;
    let listed = rig.vfs.open_dir(file).wait().await;
    assert_eq!(listed.unwrap_err().kind(), ErrorKind::NotADirectory);
    let opened = rig.vfs.open(Ino::ROOT).wait().await;
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::IsADirectory);
    let unknown = rig.vfs.lookup(Ino(12345), b"x").wait().await;
    assert_eq!(unknown.unwrap_err().kind(), ErrorKind::Stale);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_root_is_left_when_everything_is_forgotten() {
    let ground = Ground::new();
    for dir in 0..5 {
        for file in 0..20 {
            ground.put(&format!("s/d{dir}/f{file}"), bytes(file, 100));
        }
    }
    let rig = ground.mount(MINUTE).await;
    let mut known: Vec<Ino> = Vec::new();
    let mut dirs = vec![Ino::ROOT];
    while let Some(dir) = dirs.pop() {
        let handle = rig.vfs.open_dir(dir).wait().await.unwrap();
        let mut sink = |shown: vfs::DirEntry<'_>, entry: vfs::Entry| {
            if shown.name != b"." && shown.name != b".." {
                known.push(entry.ino);
                if shown.kind == NodeKind::Directory {
                    dirs.push(entry.ino);
                }
            }
            true
        };
        rig.vfs.read_dir_plus(handle, 0, &mut sink).unwrap();
        rig.vfs.release_dir(handle);
    }
    assert_eq!(known.len(), 105);
    let again = rig.lookup("d3/f7").await.unwrap();
    let opened = rig.vfs.open(again.ino).wait().await.unwrap();
    let listed = rig.vfs.open_dir(known[0]).wait().await.unwrap();
    assert_eq!(rig.vfs.stats().inodes, 106);
    rig.vfs.forget(again.ino, 1);
    for ino in &known {
        rig.vfs.forget(*ino, 1);
    }
    assert_eq!(rig.vfs.stats().inodes, 3, "the root and what is open");
    assert_eq!(
        rig.read(opened.handle, 0, 100).await.unwrap(),
        bytes(7, 100)
    );
    rig.vfs.release(opened.handle);
    rig.vfs.release_dir(listed);
    let stats = rig.vfs.stats();
    assert_eq!((stats.inodes, stats.files_open, stats.dirs_open), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_did_not_fit_is_not_counted() {
    let ground = Ground::new();
    for file in 0..10 {
        ground.put(&format!("s/f{file}"), "x");
    }
    let rig = ground.mount(MINUTE).await;
    let handle = rig.vfs.open_dir(Ino::ROOT).wait().await.unwrap();
    let mut taken = 0;
    let mut sink = |_: vfs::DirEntry<'_>, _: vfs::Entry| {
        taken += 1;
        taken <= 6
    };
    rig.vfs.read_dir_plus(handle, 0, &mut sink).unwrap();
    assert_eq!(taken, 7);
    assert_eq!(
        rig.vfs.stats().inodes,
        1 + 4,
        "six entries, two of them dots"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_names_are_listed_fast_and_leave_no_nodes() {
    const COUNT: usize = 100_000;
    let ground = Ground::new();
    std::fs::create_dir(ground.path("s")).unwrap();
    for file in 0..COUNT {
        std::fs::File::create(ground.path(&format!("s/image-{file:06}.jpg"))).unwrap();
    }
    let rig = ground.mount(MINUTE).await;
    let handle = rig.vfs.open_dir(Ino::ROOT).wait().await.unwrap();
    let started: Instant = SystemClock.now();
    let mut shown = Vec::new();
    let mut cookie = 0;
    loop {
        let part = rig.list_from(handle, cookie, 128);
        let Some(last) = part.last() else { break };
        cookie = last.next_cookie;
        shown.extend(part);
    }
    let took = SystemClock.now() - started;
    assert_eq!(shown.len(), COUNT + 2);
    assert_eq!(
        shown
            .iter()
            .map(|shown| &shown.name)
            .collect::<HashSet<_>>()
            .len(),
        COUNT + 2
    );
    assert_eq!(
        shown
            .iter()
            .map(|shown| shown.ino)
            .collect::<HashSet<_>>()
            .len(),
        COUNT + 1
    );
    assert_eq!(rig.vfs.stats().inodes, 1);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let middle = &shown[50_000];
    assert_eq!(
        rig.list_from(handle, middle.next_cookie, 5),
        shown[50_001..50_006]
    );
    assert_eq!(rig.list_from(handle, u64::MAX, 5), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_listing_does_not_change_under_its_reader() {
    let ground = Ground::new();
    for file in 0..10 {
        ground.put(&format!("s/f{file}"), "x");
    }
    let rig = ground.mount(Freshness::Always).await;
    let handle = rig.vfs.open_dir(Ino::ROOT).wait().await.unwrap();
    let first = rig.list_from(handle, 0, 4);
    std::fs::remove_file(rig.path("s/f0")).unwrap();
    std::fs::remove_file(rig.path("s/f9")).unwrap();
    rig.put("s/f00", "x");
    let rest = rig.list_from(handle, first[3].next_cookie, 100);
    let names: Vec<_> = rest
        .iter()
        .map(|shown| shown.name.escape_ascii().to_string())
        .collect();
    assert_eq!(names, ["f2", "f3", "f4", "f5", "f6", "f7", "f8", "f9"]);
    assert_eq!(rig.names(Ino::ROOT).await.len(), 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_name_costs_no_request_and_is_true_for_what_is_left_of_its_age() {
    let ground = Ground::new();
    ground.put("s/d/a", "1");
    ground.put("s/d/b", "22");
    let rig = ground.mount(MINUTE).await;
    let first = rig.lookup("d/a").await.unwrap();
    let asked = rig.asked().requests();
    rig.clock.advance(Duration::from_secs(20));
    let again = rig.lookup("d/a").await.unwrap();
    let other = rig.lookup("d/b").await.unwrap();
    assert_eq!(rig.asked().requests(), asked);
    assert_eq!(again.ino, first.ino);
    assert_eq!(other.entry_ttl, Duration::from_secs(40));
    assert!(
        other.attr_ttl > Duration::from_secs(3600),
        "a file's attributes never change"
    );
    assert_eq!(
        rig.lookup("d").await.unwrap().attr_ttl,
        Duration::from_secs(40)
    );
    assert_eq!(rig.vfs.negative_ttl(Ino::ROOT), Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_asks_always_asks_at_each_lookup() {
    let ground = Ground::new();
    ground.put("s/a", "1");
    let rig = ground.mount(Freshness::Always).await;
    let first = rig.lookup("a").await.unwrap();
    assert_eq!(first.entry_ttl, Duration::ZERO);
    let asked = rig.asked().requests();
    rig.put("s/a", "now longer");
    let second = rig.lookup("a").await.unwrap();
    assert!(rig.asked().requests() > asked);
    assert_ne!(second.ino, first.ino);
    assert_eq!((first.attributes.size, second.attributes.size), (1, 10));
    std::fs::remove_file(rig.path("s/a")).unwrap();
    assert_eq!(
        rig.lookup("a").await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbolic_link_is_shown_as_one_and_not_followed() {
    let ground = Ground::new();
    ground.put("s/f", "x");
    std::os::unix::fs::symlink("../f", ground.path("s/link")).unwrap();
    let rig = ground.mount(MINUTE).await;
    let entry = rig.lookup("link").await.unwrap();
    assert_eq!(entry.attributes.kind, NodeKind::Symlink);
    assert_eq!(rig.vfs.read_link(entry.ino).wait().await.unwrap(), b"../f");
    let kind = |error: types::Error| error.kind();
    assert_eq!(
        rig.vfs
            .open(entry.ino)
            .wait()
            .await
            .map_err(kind)
            .unwrap_err(),
        ErrorKind::Invalid
    );
    let file = rig.lookup("f").await.unwrap().ino;
    assert_eq!(
        rig.vfs.read_link(file).wait().await.unwrap_err().kind(),
        ErrorKind::Invalid
    );
}
