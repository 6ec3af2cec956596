// SPDX-License-Identifier: Apache-2.0
//! The daemon dies at every point of the write path; nothing that it acknowledged is lost.
//!
//! For each point of `types::crash::points()` and some passages of it, a workload of files and
//! directories runs until the daemon aborts there. The one call that was under way has happened or
//! has not; all others have. After a restart on the same cache the mount shows one of these two
//! trees, and so does the storage, where at no time an object is anything but a whole version.
//!
//! `FOREBAY_CRASH_PASSAGES` (such as `1,2,3,4,5,6,7,8`) says which passages; the gate takes few.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::io::Errno;
use testkit::data;
use testkit::sandbox::{Mount, Sandbox};
use testkit::storage::Storage;
use testkit::trees::{self, Tree};
use testkit::wait;
use types::crash;

/// Which passages of each point the gate takes; more take minutes.
const PASSAGES: &str = "1";

/// Large enough to be stored in parts.
const LARGE: usize = (17 << 20) + 5;

/// What the workload made, and what it may have made.
struct World {
    at: PathBuf,
    is_back: bool,
    tree: Tree,
    /// Where the call under way leads, if it is done.
    next: Option<Tree>,
    /// The file that this call changes, if it changes one in place.
    blend: Option<String>,
    versions: BTreeSet<Vec<u8>>,
}

impl World {
    fn new(at: &Path, mode: &str, tree: Tree) -> Self {
        World {
            at: at.to_owned(),
            is_back: mode == "back",
            // An exclusive creation claims its name with an empty object.
            versions: tree.values().cloned().chain([Vec::new()]).collect(),
            tree,
            next: None,
            blend: None,
        }
    }

    /// Makes a call that leads from the tree of now to `after`.
    fn call(&mut self, after: Tree, call: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        self.versions.extend(after.values().cloned());
        self.next = Some(after);
        call(&self.at)?;
        self.tree = self.next.take().unwrap();
        self.blend = None;
        Ok(())
    }

    fn with(&self, path: &str, content: &[u8]) -> Tree {
        let mut after = self.tree.clone();
        after.insert(path.to_owned(), content.to_vec());
        after
    }

    /// Has the bytes of a file changed by a call.
    fn change(
        &mut self,
        path: &str,
        content: &[u8],
        call: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        self.blend = Some(path.to_owned());
        self.call(self.with(path, content), |at| call(&at.join(path)))
    }

    /// Writes a file anew; the `fsync` is what is acknowledged.
    fn put(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.change(path, content, |path| {
            let mut file = File::create(path)?;
            for piece in content.chunks(1 << 20) {
                file.write_all(piece)?;
            }
            file.sync_all()
        })
    }

    /// Copies a file there; its `close` is what is acknowledged, and `cp` looks at that.
    fn copy(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let source = tempfile::NamedTempFile::new()?;
        fs::write(source.path(), content)?;
        self.change(path, content, |path| {
            let copied = Command::new("cp").args([source.path(), path]).output()?;
            match copied.status.success() {
                true => Ok(()),
                false => Err(io::Error::other(format!("{copied:?}"))),
            }
        })
    }

    /// Writes over a part of a file, or behind its end.
    fn patch(&mut self, path: &str, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.tree[path].clone();
        content.resize(content.len().max(offset + bytes.len()), 0);
        content[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.change(path, &content, |path| {
            let file = OpenOptions::new().read(true).write(true).open(path)?;
            file.write_all_at(bytes, offset as u64)?;
            file.sync_all()
        })
    }

    fn cut(&mut self, path: &str, len: usize) -> io::Result<()> {
        let content = self.tree[path][..len].to_vec();
        self.change(path, &content, |path| {
            let file = OpenOptions::new().write(true).open(path)?;
            file.set_len(len as u64)?;
            file.sync_all()
        })
    }

    fn put_new(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.change(path, content, |path| {
            let mut file = File::create_new(path)?;
            file.write_all(content)?;
            file.sync_all()
        })
    }

    fn remove(&mut self, path: &str) -> io::Result<()> {
        let mut after = self.tree.clone();
        after.remove(path);
        self.call(after, |at| fs::remove_file(at.join(path)))
    }

    fn make_dir(&mut self, path: &str) -> io::Result<()> {
        let after = self.with(&format!("{path}/"), b"");
        self.call(after, |at| fs::create_dir(at.join(path)))
    }

    fn remove_dir(&mut self, path: &str) -> io::Result<()> {
        let mut after = self.tree.clone();
        after.remove(&format!("{path}/"));
        self.call(after, |at| fs::remove_dir(at.join(path)))
    }

    /// Renames a file or a directory.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let moved = |path: String| match path.strip_prefix(from) {
            Some("") => to.to_owned(),
            Some(rest) if rest.starts_with('/') => format!("{to}{rest}"),
            _ => path,
        };
        let mut after = self.tree.clone();
        after.remove(to);
        after.remove(&format!("{to}/"));
        let after = after.into_iter().map(|(path, bytes)| (moved(path), bytes));
        self.call(after.collect(), |at| fs::rename(at.join(from), at.join(to)))
    }

    /// Does some of everything.
    fn work(&mut self) -> io::Result<()> {
        let content = |seed| data::bytes(seed, 3000 + usize::try_from(seed).unwrap());
        // What is known of a directory is known as a whole.
        trees::read(&self.at)?;
        self.make_dir("d")?;
        trees::read(&self.at)?;
        self.put("d/a", &content(1))?;
        self.copy("d/large", &data::bytes(2, LARGE))?;
        self.patch("d/a", 100, b"over the old")?;
        self.patch("d/a", 3001, b"behind the end")?;
        self.copy("e", &content(3))?;
        trees::read(&self.at)?;
        self.rename("e", "d/a")?;
        self.put("f", &content(4))?;
        self.remove("f")?;
        self.make_dir("d/sub")?;
        self.copy("d/sub/deep", &content(5))?;
        self.make_dir("g")?;
        trees::read(&self.at)?;
        self.rename("d", "g")?;
        self.cut("g/a", 50)?;
        self.put_new("h", &content(6))?;
        self.rename("h", "k")?;
        self.patch("g/large", 9 << 20, b"in the middle")?;
        self.put("k", &content(7))?;
        trees::read(&self.at)?;
        self.remove("g/sub/deep")?;
        self.remove_dir("g/sub")
    }

    /// Returns whether a tree is one of those that may be there; what differs else. A file that was
    /// being changed in place is as a power cut would leave it on a local disk: of each byte the old
    /// or the new. Nothing was said of the new ones.
    fn allows(&self, mut found: Tree) -> Result<(), String> {
        if let (true, Some(path), Some(next)) = (self.is_back, &self.blend, &self.next)
            && let Some(bytes) = found.get_mut(path)
            && let (Some(old), Some(new)) = (self.tree.get(path), next.get(path))
            && is_blend(bytes, old, new)
        {
            bytes.clone_from(new);
        }
        let mut told = String::new();
        for tree in [Some(&self.tree), self.next.as_ref()].into_iter().flatten() {
            let differs = trees::differences(&found, tree);
            if differs.is_empty() {
                return Ok(());
            }
            told = format!("{told}\n  not: {}", differs.join("; "));
        }
        // The name that an exclusive creation claimed before it died.
        if let (false, Some(path), Some(next)) = (self.is_back, &self.blend, &self.next)
            && !self.tree.contains_key(path)
            && found.get(path).is_some_and(Vec::is_empty)
        {
            found.insert(path.clone(), next[path].clone());
            if &found == next {
                return Ok(());
            }
        }
        Err(told)
    }
}

/// Returns whether each byte is of one or the other, or was cut away.
fn is_blend(found: &[u8], old: &[u8], new: &[u8]) -> bool {
    found.len() <= old.len().max(new.len())
        && found
            .iter()
            .enumerate()
            .all(|(at, byte)| *byte == 0 || old.get(at) == Some(byte) || new.get(at) == Some(byte))
}

fn files(tree: Tree) -> Tree {
    let mut tree = tree;
    tree.retain(|path, _| !path.ends_with('/'));
    tree
}

/// Returns the world with nothing but files: a storage may not know directories.
fn of_files(world: &World) -> World {
    World {
        at: world.at.clone(),
        is_back: world.is_back,
        tree: files(world.tree.clone()),
        next: world.next.clone().map(files),
        blend: world.blend.clone(),
        versions: BTreeSet::new(),
    }
}

/// Has the daemon die, and checks all that was promised. Returns whether it died.
fn crash_once(storage: &Storage, mode: &str, point: &str, passage: u64) -> bool {
    let case = format!("{} {mode} {point}:{passage}", storage.uri());
    let place = format!("{mode}-{point}-{passage}");
    storage.put_bytes(format!("{place}/kept"), b"from the beginning");
    let root = storage.root().join(&place);
    let sandbox = Sandbox::new(storage);
    let mounting = sandbox
        .mount(storage)
        .uri(&format!("{}/{place}", storage.uri()))
        // Names that were known before must not come back.
        .flag("--freshness", "1h")
        .flag("--write-mode", mode);
    let start = Tree::from([("kept".to_owned(), b"from the beginning".to_vec())]);
    let mut world = World::new(&sandbox.point(), mode, start);
    let mut died = true;
    if mounting
        .clone()
        .crash_at(point, passage)
        .run()
        .status
        .success()
    {
        match world.work() {
            Ok(()) => {
                died = wait::holds_within(std::time::Duration::from_millis(200), || {
                    sandbox.processes().is_empty()
                })
            }
            Err(error) => {
                let is_dead = || sandbox.processes().is_empty();
                assert!(
                    wait::holds_within(wait::PATIENCE, is_dead),
                    "{case}: {error}"
                );
            }
        }
    }
    for (path, bytes) in files(trees::read(&root).unwrap()) {
        assert!(world.versions.contains(&bytes), "{case}: '{path}' is torn");
    }
    if !died {
        for pid in sandbox.processes() {
            testkit::sandbox::kill(pid, rustix::process::Signal::KILL);
        }
        wait::until("the daemon is dead", || sandbox.processes().is_empty());
    }
    wait::until("the dead mount is known as such", || {
        // Attributes the kernel may still know.
        let is_dead = rustix::fs::statfs(sandbox.point()).err() == Some(Errno::NOTCONN);
        is_dead || sandbox.mounts().is_empty()
    });
    let mount = mounting.start();
    check(&case, &world, &root, &mount);
    died
}

/// Checks a mount after the restart, and what becomes of the storage.
fn check(case: &str, world: &World, root: &Path, mount: &Mount<'_>) {
    let log =
        || fs::read_to_string(mount.point().with_file_name("forebay.log")).unwrap_or_default();
    let found = trees::read(mount.point()).unwrap_or_else(|e| panic!("{case}: {e}\n{}", log()));
    if let Err(differs) = world.allows(found) {
        panic!("{case}: the mount shows{differs}\n{}", log());
    }
    let world = of_files(world);
    let mut last = Ok(());
    let stored = wait::holds_within(wait::PATIENCE, || {
        last = world.allows(files(trees::read(root).unwrap_or_default()));
        last.is_ok()
    });
    assert!(stored, "{case}: the storage has{last:?}\n{}", log());
    fs::write(mount.path("after"), b"alive").unwrap_or_else(|e| panic!("{case}: {e}"));
}

/// Dies at all points of one kind of mount, and says how often.
fn crash_everywhere(storage: &Storage, mode: &str) {
    let passages = std::env::var("FOREBAY_CRASH_PASSAGES").unwrap_or(PASSAGES.into());
    let (mut points, mut deaths) = (0, 0);
    for point in crash::points() {
        let before = deaths;
        for passage in passages.split(',').map(|text| text.parse().unwrap()) {
            if !crash_once(storage, mode, point, passage) {
                break;
            }
            deaths += 1;
        }
        points += usize::from(deaths > before);
    }
    #[allow(clippy::print_stdout, reason = "the count is what the test is for")]
    {
        println!(
            "{} {mode}: died {deaths} times at {points} points",
            storage.uri()
        );
    }
    assert!(points >= 6, "only {points} points were passed");
}

#[test]
fn through_s3_keeps_its_promises_wherever_it_dies() {
    crash_everywhere(&Storage::s3(), "through");
}

#[test]
fn back_s3_keeps_its_promises_wherever_it_dies() {
    crash_everywhere(&Storage::s3(), "back");
}

#[test]
fn through_local_keeps_its_promises_wherever_it_dies() {
    crash_everywhere(&Storage::local(), "through");
}

#[test]
fn back_local_keeps_its_promises_wherever_it_dies() {
    crash_everywhere(&Storage::local(), "back");
}
