// SPDX-License-Identifier: Apache-2.0
//! The suite that every driver and every fake passes.
//!
//! A [`Fixture`] gives the suite an empty storage and a way to change it behind the driver's back.
//! [`run`] panics at the first broken promise, naming it. Each part works in a directory of its
//! own. What a storage promises that takes writes is checked by [`write::run`].

pub mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use types::{
    ByteRange, Clock, Deadline, ErrorKind, NodeKind, ObjectMeta, ObjectPath, Result, SystemClock,
    VersionTag,
};

use crate::{ListEntry, UnderStorage, probe};

/// A storage under test.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Returns the driver.
    fn storage(&self) -> Arc<dyn UnderStorage>;

    /// Writes an object, and the directories it needs, behind the driver's back.
    async fn put(&self, path: &[u8], content: &[u8]);

    /// Removes an object behind the driver's back.
    async fn remove(&self, path: &[u8]);

    /// Returns names that this storage can hold and that are likely to be mistaken: of
    /// [`odd_names`] those that the server of the tests keeps.
    fn odd_names(&self) -> Vec<Vec<u8>>;

    /// Makes empty objects behind the driver's back.
    async fn put_all(&self, paths: &[String]) {
        futures::stream::iter(paths)
            .for_each_concurrent(16, |path| self.put(path.as_bytes(), b""))
            .await;
    }

    /// Returns how many names the large directory has: more than a page of any storage.
    fn many(&self) -> usize {
        10_000
    }

    /// Returns how many bytes the path of a file may have: what the least of object stores takes,
    /// less what is before all names.
    fn longest(&self) -> usize {
        1024
    }

    /// Returns what names may be because they are flat, and the server of the tests keeps and lists.
    fn flat_names(&self) -> &[Flat] {
        &[]
    }

    /// Returns how many looks at a file it costs to show it in a listing.
    fn looks_per_listed_file(&self) -> u64 {
        0
    }
}

/// What a name may be where names are flat, and nowhere else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flat {
    /// It ends with a slash: the mark of a directory.
    Mark,
    /// It is an object and the start of others.
    ObjectAndPrefix,
    /// It has two slashes in a row.
    DoubleSlash,
    /// It has no slash for as long as it may be.
    LongName,
}

impl Flat {
    /// All of them.
    pub const ALL: &[Flat] = &[
        Flat::Mark,
        Flat::ObjectAndPrefix,
        Flat::DoubleSlash,
        Flat::LongName,
    ];
}

/// Returns names that are legal and likely to be mistaken.
pub fn odd_names() -> Vec<Vec<u8>> {
    let names = [
        " ",
        "a ",
        " a",
        "%2F",
        "%",
        "%25",
        "a+b",
        "?",
        "?q=1&r",
        "#",
        "...",
        ".hidden",
        // The same letter, composed and not.
        "\u{e9}",
        "e\u{301}",
        "\u{1f600}",
        "a\\b",
        "-",
        "'\"",
        "!*()'",
        "&amp;",
        "<a>",
        "a=b&c",
        "~",
        "a:b;c,d@e$f",
        "[x]{y}|z^`",
        "\u{1}\u{7f}",
        "line\nbreak\ttab",
    ];
    let longest_of_most = "x".repeat(255);
    let names = names.into_iter().chain([longest_of_most.as_str()]);
    names.map(|name| name.as_bytes().to_vec()).collect()
}

/// Checks every promise of [`UnderStorage`].
///
/// # Panics
/// When one is broken.
pub async fn run(fixture: &dyn Fixture) {
    tells_what_a_name_is(fixture).await;
    lists_one_level(fixture).await;
    lists_more_than_a_page(fixture).await;
    reads_exactly_what_is_asked(fixture).await;
    keeps_odd_names(fixture).await;
    keeps_the_longest_path(fixture).await;
    shows_flat_names(fixture).await;
    never_reads_another_version(fixture).await;
    never_mixes_versions_in_a_stream(fixture).await;
    lists_a_tree_as_its_directories(fixture).await;
    counts_what_it_does(fixture).await;
    probe(&*fixture.storage(), soon())
        .await
        .expect("a storage that works passes the probe");
}

async fn tells_what_a_name_is(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    fixture.put(b"what/file", b"12345").await;
    fixture.put(b"what/dir/below", b"1").await;
    let file = stat(&*storage, b"what/file").await.expect("a file");
    assert_eq!((file.kind, file.tag.size), (NodeKind::File, 5));
    for dir in [&b""[..], b"what", b"what/dir"] {
        let meta = stat(&*storage, dir).await.expect("a directory");
        assert_eq!(
            (meta.kind, meta.tag.size),
            (NodeKind::Directory, 0),
            "{dir:?}"
        );
    }
    // A prefix of a name is not the name.
    for absent in [
        &b"wha"[..],
        b"what/fil",
        b"what/dir/belo",
        b"nothing/at/all",
    ] {
        let error = stat(&*storage, absent).await.expect_err("an absent name");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        let text = error.to_string();
        assert!(
            text.contains(std::str::from_utf8(absent).unwrap_or_default()),
            "{text}"
        );
    }
    let below = stat(&*storage, b"what/file/x")
        .await
        .expect_err("a name below a file");
    assert!(
        matches!(below.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
        "{below}"
    );
}

async fn lists_one_level(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    for (path, content) in [
        (&b"level/b"[..], &b"22"[..]),
        (b"level/a/x", b"1"),
        (b"level/a/y/z", b"1"),
    ] {
        fixture.put(path, content).await;
    }
    fixture.put(b"levels", b"").await;
    let (entries, unshowable) = list(&*storage, b"level").await.expect("a listing");
    assert_eq!(unshowable, 0);
    let found: Vec<_> = entries
        .iter()
        .map(|entry| (entry.name.as_bytes(), entry.meta.kind, entry.meta.tag.size))
        .collect();
    let wanted = [
        (&b"a"[..], NodeKind::Directory, 0),
        (&b"b"[..], NodeKind::File, 2),
    ];
    assert_eq!(found, wanted);
    let mut stat = stat(&*storage, b"level/b").await.expect("a file");
    // What else is kept beside it, only a look may tell.
    stat.extras.clone_from(&entries[1].meta.extras);
    assert_eq!(entries[1].meta, stat, "a listing and a look tell the same");
    match list(&*storage, b"level/absent").await {
        Ok((entries, _)) => assert!(entries.is_empty()),
        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
    }
}

async fn lists_more_than_a_page(fixture: &dyn Fixture) {
    let names: Vec<String> = (0..fixture.many())
        .map(|index| format!("many/n{index:05}"))
        .collect();
    fixture.put_all(&names).await;
    let (entries, _) = list(&*fixture.storage(), b"many").await.expect("a listing");
    let found: Vec<_> = entries
        .iter()
        .map(|entry| format!("many/{}", entry.name))
        .collect();
    assert_eq!(found, names);
}

async fn reads_exactly_what_is_asked(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let content: Vec<u8> = (0..3_000_017u32).map(|index| (index % 251) as u8).collect();
    fixture.put(b"bytes/large", &content).await;
    fixture.put(b"bytes/empty", b"").await;
    let tag = stat(&*storage, b"bytes/large").await.expect("a file").tag;
    let size = content.len() as u64;
    for (offset, len) in [
        (0, size),
        (0, 1),
        (1, 1),
        (size - 1, 1),
        (131_072, 1_048_577),
        (7, 0),
    ] {
        let range = ByteRange::new(offset, len);
        let bytes = read(&*storage, b"bytes/large", &tag, range)
            .await
            .expect("bytes");
        let (from, to) = (
            usize::try_from(offset).unwrap_or(0),
            usize::try_from(range.end()).unwrap_or(0),
        );
        assert!(bytes == content[from..to], "bytes {range:?}");
    }
    for (offset, len) in [(size - 1, 2), (size, 1), (size + 10, 10)] {
        let range = ByteRange::new(offset, len);
        let past = read(&*storage, b"bytes/large", &tag, range).await;
        past.expect_err("no bytes past the end, and no fewer than were asked for");
    }
    let tag = stat(&*storage, b"bytes/empty").await.expect("a file").tag;
    let none = read(&*storage, b"bytes/empty", &tag, ByteRange::new(0, 0)).await;
    assert_eq!(none.expect("no bytes"), b"");
    // Callers know the length; one who does not must not get less than was asked.
    let past = read(&*storage, b"bytes/empty", &tag, ByteRange::new(0, 1)).await;
    past.expect_err("no bytes past the end");
}

async fn shows_flat_names(fixture: &dyn Fixture) {
    for flat in fixture.flat_names() {
        match flat {
            Flat::Mark => shows_marked_directories(fixture).await,
            Flat::ObjectAndPrefix => shows_the_directory_of_two(fixture).await,
            Flat::DoubleSlash => leaves_out_names_between_slashes(fixture).await,
            Flat::LongName => keeps_a_file(fixture, "flat", fixture.longest()).await,
        }
    }
}

async fn shows_marked_directories(fixture: &dyn Fixture) {
    for name in ["marks/with/", "marks/with/file", "marks/only/"] {
        fixture.put(name.as_bytes(), b"").await;
    }
    shows(fixture, b"marks", &["only/", "with/"], 0).await;
    shows(fixture, b"marks/with", &["file"], 0).await;
    for dir in [&b"marks/with"[..], b"marks/only"] {
        is_a_directory(fixture, dir).await;
    }
}

async fn shows_the_directory_of_two(fixture: &dyn Fixture) {
    for name in ["two/both", "two/both-", "two/both/below"] {
        fixture.put(name.as_bytes(), b"").await;
    }
    // One is left out: the object that a directory hides.
    shows(fixture, b"two", &["both/", "both-"], 1).await;
    is_a_directory(fixture, b"two/both").await;
}

async fn leaves_out_names_between_slashes(fixture: &dyn Fixture) {
    fixture.put(b"slashes/twice//below", b"").await;
    shows(fixture, b"slashes", &["twice/"], 0).await;
    shows(fixture, b"slashes/twice", &[], 1).await;
}

/// Lists a directory: names, with a slash behind directories, and how many are left out.
async fn shows(fixture: &dyn Fixture, dir: &[u8], names: &[&str], left_out: u64) {
    let (entries, unshowable) = list(&*fixture.storage(), dir).await.expect("a listing");
    let shown = entries.into_iter().map(|entry| {
        let slash = match entry.meta.kind {
            NodeKind::Directory => "/",
            NodeKind::File | NodeKind::Symlink => "",
        };
        format!("{}{slash}", entry.name)
    });
    let shown: Vec<_> = shown.collect();
    assert_eq!(shown, names);
    assert_eq!(unshowable, left_out, "names left out");
}

async fn is_a_directory(fixture: &dyn Fixture, path: &[u8]) {
    let meta = stat(&*fixture.storage(), path).await.expect("a directory");
    assert_eq!(meta.kind, NodeKind::Directory, "{}", path.escape_ascii());
}

async fn never_mixes_versions_in_a_stream(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let name = b"versions/stream";
    let old = vec![b'o'; 6_000_000];
    // Other bytes, fewer bytes, none.
    let changes = [Some(vec![b'n'; old.len()]), Some(vec![b'n'; 100]), None];
    for change in changes {
        fixture.put(name, &old).await;
        let tag = stat(&*storage, name).await.expect("a file").tag;
        let whole = ByteRange::new(0, tag.size);
        let mut stream = storage
            .read(&path(name), &tag, whole, soon())
            .await
            .expect("a stream");
        let mut bytes = stream
            .next()
            .await
            .expect("a piece")
            .expect("bytes")
            .to_vec();
        match change {
            Some(new) => fixture.put(name, &new).await,
            None => fixture.remove(name).await,
        }
        let end = loop {
            match stream.next().await {
                Some(Ok(piece)) => bytes.extend_from_slice(&piece),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
        };
        assert!(bytes.iter().all(|&byte| byte == b'o'), "a mixture");
        match end {
            Some(error) => assert_eq!(error.kind(), ErrorKind::Stale, "{error}"),
            None => assert_eq!(bytes.len(), old.len()),
        }
    }
}

async fn keeps_odd_names(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let mut names = fixture.odd_names();
    for name in &names {
        fixture.put(&[b"odd/", &name[..]].concat(), name).await;
        fixture
            .put(&[b"odd dirs/", &name[..], b"/inner"].concat(), b"i")
            .await;
    }
    names.sort();
    for (dir, kind) in [
        (&b"odd"[..], NodeKind::File),
        (b"odd dirs", NodeKind::Directory),
    ] {
        let (entries, unshowable) = list(&*storage, dir).await.expect("a listing");
        let found: Vec<_> = entries.iter().map(|entry| entry.name.to_string()).collect();
        let wanted: Vec<_> = names
            .iter()
            .map(|name| name.escape_ascii().to_string())
            .collect();
        assert_eq!((found, unshowable), (wanted, 0));
        assert!(entries.iter().all(|entry| entry.meta.kind == kind));
    }
    for name in &names {
        let shown = name.escape_ascii();
        let path = [b"odd/", &name[..]].concat();
        let meta = stat(&*storage, &path)
            .await
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
        let whole = ByteRange::new(0, meta.tag.size);
        let bytes = read(&*storage, &path, &meta.tag, whole)
            .await
            .expect("bytes");
        assert_eq!(&bytes, name, "{shown}");
        let dir = [b"odd dirs/", &name[..]].concat();
        let (inner, _) = list(&*storage, &dir).await.expect("a listing");
        assert_eq!(inner.len(), 1, "{shown}");
        let kind = stat(&*storage, &dir).await.expect("a directory").kind;
        assert_eq!(kind, NodeKind::Directory, "{shown}");
    }
    let error = stat(&*storage, b"odd/\xff")
        .await
        .expect_err("a name that is not there");
    assert!(
        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Invalid),
        "{error}"
    );
}

async fn keeps_the_longest_path(fixture: &dyn Fixture) {
    // Names in themselves are as long as file systems take.
    let name = "n".repeat(200);
    let dir = ["long", &name, &name, &name, &name].join("/");
    keeps_a_file(fixture, &dir, fixture.longest()).await;
}

/// Puts a file whose path has so many bytes, and finds it again in every way.
async fn keeps_a_file(fixture: &dyn Fixture, dir: &str, len: usize) {
    let storage = fixture.storage();
    let name = "x".repeat(len - dir.len() - 1);
    let path = format!("{dir}/{name}");
    fixture.put(path.as_bytes(), b"content").await;
    let (entries, unshowable) = list(&*storage, dir.as_bytes()).await.expect("a listing");
    let found: Vec<_> = entries.iter().map(|entry| entry.name.as_bytes()).collect();
    assert_eq!((found, unshowable), (vec![name.as_bytes()], 0));
    let tag = stat(&*storage, path.as_bytes()).await.expect("a file").tag;
    let range = ByteRange::new(2, 3);
    let bytes = read(&*storage, path.as_bytes(), &tag, range).await;
    assert_eq!(bytes.expect("bytes"), b"nte");
}

async fn never_reads_another_version(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    let path = b"versions/object";
    let range = ByteRange::new(2, 4);
    fixture.put(path, b"0123456789").await;
    let old = stat(&*storage, path).await.expect("a file").tag;
    assert_eq!(
        read(&*storage, path, &old, range).await.expect("bytes"),
        b"2345"
    );
    for content in [&b"abcdefghij"[..], b"longer than before", b"short"] {
        fixture.put(path, content).await;
        let error = read(&*storage, path, &old, range)
            .await
            .expect_err("a changed object");
        assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
    }
    let new = stat(&*storage, path).await.expect("a file").tag;
    assert_ne!(new, old);
    assert_eq!(
        read(&*storage, path, &new, ByteRange::new(0, 5))
            .await
            .expect("bytes"),
        b"short"
    );
    fixture.remove(path).await;
    let error = read(&*storage, path, &new, ByteRange::new(0, 5))
        .await
        .expect_err("no object");
    assert_eq!(error.kind(), ErrorKind::Stale, "{error}");
}

/// A listing of a tree shows what listings of its directories do, in a row for each.
async fn lists_a_tree_as_its_directories(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    for path in [
        "tree/a/1",
        "tree/a-b",
        "tree/a/deep/er/2",
        "tree/b/3",
        "tree/c",
    ] {
        fixture.put(path.as_bytes(), path.as_bytes()).await;
    }
    let Some(pages) = storage.list_tree(&ObjectPath::root()) else {
        return;
    };
    let pages: Vec<_> = pages.try_collect().await.expect("a tree is listed");
    let mut told: BTreeMap<ObjectPath, BTreeMap<Vec<u8>, Option<VersionTag>>> = BTreeMap::new();
    let mut last = Vec::new();
    let mut left = BTreeSet::new();
    for (path, meta) in pages.into_iter().flat_map(|page| page.entries) {
        let mut above = Vec::new();
        let mut at = path.clone();
        if meta.kind == NodeKind::Directory {
            told.entry(path.clone()).or_default();
            above.push(path.clone());
        }
        let mut tag = (meta.kind != NodeKind::Directory).then_some(meta.tag);
        while let Some((dir, name)) = at.split() {
            let names = told.entry(dir.clone()).or_default();
            match tag.take() {
                Some(tag) => drop(names.entry(name.as_bytes().to_vec()).or_insert(Some(tag))),
                None => drop(names.insert(name.as_bytes().to_vec(), None)),
            }
            above.push(dir.clone());
            at = dir;
        }
        for dir in &last {
            if !above.contains(dir) {
                left.insert(dir.clone());
            }
        }
        let again = above.iter().find(|dir| left.contains(*dir));
        assert_eq!(again, None, "what is below a directory comes in a row");
        last = above;
    }
    let mut dirs = vec![ObjectPath::root()];
    while let Some(dir) = dirs.pop() {
        let (entries, _) = list(&*storage, dir.as_bytes()).await.expect("a listing");
        let of_tree = told.remove(&dir).unwrap_or_default();
        let mut listed = BTreeMap::new();
        for ListEntry { name, meta } in entries {
            let is_directory = meta.kind == NodeKind::Directory;
            if is_directory {
                dirs.push(dir.join(&name));
            }
            let tag = (!is_directory).then_some(meta.tag);
            listed.insert(name.as_bytes().to_vec(), tag);
        }
        assert_eq!(of_tree, listed, "'{dir}' as a part of a tree and by itself");
    }
    assert_eq!(
        told.into_keys().next(),
        None,
        "a directory that is in no listing"
    );
}

async fn counts_what_it_does(fixture: &dyn Fixture) {
    let storage = fixture.storage();
    fixture.put(b"counts/object", b"0123456789").await;
    // Where versions are times, what changed just now costs a second look.
    stat(&*storage, b"counts/object").await.expect("a file");
    let before = storage.counters().snapshot();
    let tag = stat(&*storage, b"counts/object").await.expect("a file").tag;
    read(&*storage, b"counts/object", &tag, ByteRange::new(0, 10))
        .await
        .expect("bytes");
    list(&*storage, b"counts").await.expect("a listing");
    let after = storage.counters().snapshot();
    let counts = [
        after.head - before.head,
        after.get - before.get,
        after.list - before.list,
    ];
    let looks = 1 + fixture.looks_per_listed_file();
    assert_eq!(counts, [looks, 1, 1], "one request each");
    assert_eq!(after.bytes_read - before.bytes_read, 10);
    assert_eq!(
        (after.errors - before.errors, after.retries - before.retries),
        (0, 0)
    );
}

/// Far enough for a slow machine.
fn soon() -> Deadline {
    SystemClock.deadline(Duration::from_secs(30))
}

fn path(bytes: &[u8]) -> ObjectPath {
    ObjectPath::parse(bytes).expect("the suite uses legal paths")
}

/// Looks at a name.
///
/// # Errors
/// Those of [`UnderStorage::stat`].
pub async fn stat(storage: &dyn UnderStorage, name: &[u8]) -> Result<ObjectMeta> {
    storage.stat(&path(name), soon()).await
}

/// Lists a directory: all entries, sorted, and how many names were left out.
///
/// # Errors
/// Those of [`UnderStorage::list`].
pub async fn list(storage: &dyn UnderStorage, dir: &[u8]) -> Result<(Vec<ListEntry>, u64)> {
    let pages: Vec<_> = storage.list(&path(dir)).try_collect().await?;
    let unshowable = pages.iter().map(|page| page.unshowable).sum();
    let mut entries: Vec<_> = pages.into_iter().flat_map(|page| page.entries).collect();
    entries.sort_by(|left, right| left.name.cmp(&right.name));
    Ok((entries, unshowable))
}

/// Reads a range of a version.
///
/// # Errors
/// Those of [`UnderStorage::read`], at its start or in its stream.
pub async fn read(
    storage: &dyn UnderStorage,
    name: &[u8],
    tag: &VersionTag,
    range: ByteRange,
) -> Result<Vec<u8>> {
    let mut stream = storage.read(&path(name), tag, range, soon()).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = stream.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok(bytes)
}
