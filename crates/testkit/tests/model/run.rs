// SPDX-License-Identifier: Apache-2.0
//! Steps taken on a real mount and on the toy, side by side.
//!
//! Each answer is compared at once. The whole tree is compared now and then, and after everything
//! that is more than a call; what the storage has, whenever that is promised.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use testkit::data;
use testkit::sandbox::{Mount, Mounting, Sandbox};
use testkit::storage::Storage;
use testkit::trees::{self, Tree};
use testkit::wait;

use crate::calls::{read_full, set_time, truncate, write_mapped};
use crate::steps::{Mode, Open, SLOTS, Step};
use crate::toy::{Answer, Toy};

/// How often the whole tree is compared.
const LOOK_EVERY: usize = 10;

/// How long a change by somebody else may take to show: a file that was just closed is this node's
/// own until the kernel has told so.
const SHOWS_WITHIN: Duration = Duration::from_secs(10);

/// The file that is there from the beginning.
const KEPT: (&str, &[u8]) = ("kept", b"from the beginning");

/// Where a run went wrong, and how.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) at: usize,
    pub(crate) why: String,
}

type Checked = Result<(), String>;

/// A mount and its toy.
struct World<'a> {
    storage: &'a Storage,
    place: String,
    sandbox: &'a Sandbox,
    mount: Option<Mount<'a>>,
    mode: Mode,
    toy: Toy,
    files: [Option<File>; SLOTS],
    /// The storage may lack what a former run of the daemon promised.
    is_behind: bool,
}

/// Takes steps in an empty place of a storage: those that `next` chooses, until it has none.
/// Returns them, and the fault that ended them.
pub(crate) fn run(
    storage: &Storage,
    place: &str,
    next: &mut dyn FnMut(&Toy, usize) -> Option<Step>,
) -> (Vec<Step>, Option<Fault>) {
    storage.put_bytes(format!("{place}/{}", KEPT.0), KEPT.1);
    let sandbox = Sandbox::new(storage);
    let start = Tree::from([(KEPT.0.to_owned(), KEPT.1.to_vec())]);
    let mut world = World {
        storage,
        place: place.to_owned(),
        sandbox: &sandbox,
        mount: None,
        mode: Mode::Through,
        toy: Toy::of(&start),
        files: Default::default(),
        is_behind: false,
    };
    let mut steps = Vec::new();
    let mut fault = guarded(|| {
        world.mount = Some(world.mounting().start());
        Ok(())
    });
    while fault.is_ok()
        && let Some(step) = next(&world.toy, steps.len())
    {
        steps.push(step.clone());
        fault = guarded(|| world.take(&step, steps.len()));
    }
    if fault.is_ok() {
        fault = guarded(|| world.end());
    }
    let fault = fault.err().map(|why| Fault {
        at: steps.len(),
        why: format!("{why}\n{}", log_of(&sandbox)),
    });
    (steps, fault)
}

/// Makes a panic of the sandbox a fault of the run.
fn guarded(work: impl FnOnce() -> Checked) -> Checked {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(text.unwrap_or_else(|| "a panic".to_owned()))
    })
}

/// Returns what the daemon had to say last.
fn log_of(sandbox: &Sandbox) -> String {
    let log = fs::read_to_string(sandbox.log()).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Compares what a call came to with what it should.
fn same<T>(what: &str, found: io::Result<T>, wanted: Answer<()>) -> Result<Option<T>, String> {
    match (found, wanted) {
        (Ok(found), Ok(())) => Ok(Some(found)),
        (Err(error), Err(wanted)) if errno(&error) == wanted => Ok(None),
        (Ok(_), Err(wanted)) => Err(format!("{what}: succeeds instead of {wanted}")),
        (Err(error), wanted) => Err(format!("{what}: {error} instead of {wanted:?}")),
    }
}

fn len_of(number: u64) -> usize {
    usize::try_from(number).expect("files of a test are small")
}

impl<'a> World<'a> {
    fn mounting(&self) -> Mounting<'a> {
        self.sandbox
            .mount(self.storage)
            .uri(&format!("{}/{}", self.storage.uri(), self.place))
            .flag("--freshness", "always")
            .flag("--write-mode", self.mode.flag())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.sandbox.point().join(path)
    }

    fn root(&self) -> PathBuf {
        self.storage.root().join(&self.place)
    }

    fn take(&mut self, step: &Step, count: usize) -> Checked {
        let what = format!("{step:?}");
        match step {
            Step::Open { slot, path, how } => self.open(&what, *slot, path, *how)?,
            Step::Write {
                slot,
                offset,
                seed,
                len,
            } => self.write(&what, *slot, *offset, &data::bytes(*seed, *len))?,
            Step::Read { slot, offset, len } => self.read(&what, *slot, *offset, *len)?,
            Step::Map {
                slot,
                offset,
                seed,
                len,
            } => self.map(&what, *slot, len_of(*offset), data::bytes(*seed, *len))?,
            Step::Cut { slot, len } => self.cut(&what, *slot, *len)?,
            Step::Punch { slot, offset, len } => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                self.allocate(&what, *slot, flags, (*offset, *len))?;
            }
            Step::Allocate { slot, offset, len } => {
                self.allocate(&what, *slot, FallocateFlags::empty(), (*offset, *len))?;
            }
            Step::Sync { slot } => {
                if let Some(file) = &self.files[*slot] {
                    same(&what, file.sync_all(), Ok(()))?;
                    self.toy.acknowledge(*slot);
                }
            }
            Step::Close { slot } => self.close(*slot)?,
            Step::Contest {
                slot,
                seed,
                removes,
            } => self.contest(*slot, *seed, *removes)?,
            Step::Put { path, seed, len } => self.outside(path, Some(data::bytes(*seed, *len)))?,
            Step::Remove { path } => self.outside(path, None)?,
            Step::Settle => self.settle()?,
            Step::Kill { mode } => return self.kill(*mode),
            Step::Remount { mode } => return self.remount(*mode),
            _ => self.names(&what, step)?,
        }
        if count.is_multiple_of(LOOK_EVERY) {
            self.look(&what)?;
        }
        Ok(())
    }

    fn open(&mut self, what: &str, slot: usize, path: &str, how: Open) -> Checked {
        if self.files[slot].is_some() || (self.toy.is_dir(path) && !how.write) {
            return Ok(());
        }
        let mut flags = 0;
        for (is_wanted, flag) in [
            (how.create, libc::O_CREAT),
            (how.exclusive && how.create, libc::O_EXCL),
            (how.truncate, libc::O_TRUNC),
            (how.append, libc::O_APPEND),
        ] {
            flags |= if is_wanted { flag } else { 0 };
        }
        let opened = OpenOptions::new()
            .read(how.read)
            .write(how.write)
            .custom_flags(flags)
            .open(self.path(path));
        let wanted = self.toy.open(slot, path, how);
        self.files[slot] = same(what, opened, wanted)?;
        Ok(())
    }

    fn write(&mut self, what: &str, slot: usize, offset: u64, bytes: &[u8]) -> Checked {
        let Some(file) = &self.files[slot] else {
            return Ok(());
        };
        let written = file.write_all_at(bytes, offset);
        let wanted = self.toy.change(slot, |how, content| {
            let at = if how.append {
                content.len()
            } else {
                len_of(offset)
            };
            put(content, at, bytes);
        });
        same(what, written, wanted).map(drop)
    }

    fn read(&self, what: &str, slot: usize, offset: u64, len: usize) -> Checked {
        let Some(file) = &self.files[slot] else {
            return Ok(());
        };
        let mut buf = vec![0; len];
        let found = read_full(file, offset, &mut buf);
        let readings = match self.toy.read(slot) {
            Ok(Some(readings)) => readings,
            Ok(None) => return Ok(()),
            Err(wanted) => return same(what, found, Err(wanted)).map(drop),
        };
        match found {
            Err(error) if readings.may_be_stale && errno(&error) == Errno::STALE => Ok(()),
            Err(error) => Err(format!("{what}: {error}")),
            Ok(found) => {
                let part = |whole: &Vec<u8>| {
                    let from = len_of(offset).min(whole.len());
                    let to = (from + len).min(whole.len());
                    whole[from..to] == buf[..found]
                };
                let lens: Vec<_> = readings.any_of.iter().map(Vec::len).collect();
                match readings.any_of.iter().any(part) {
                    true => Ok(()),
                    false => Err(format!("{what}: {found} wrong bytes of a file of {lens:?}")),
                }
            }
        }
    }

    fn map(&mut self, what: &str, slot: usize, at: usize, mut bytes: Vec<u8>) -> Checked {
        let Some(file) = &self.files[slot] else {
            return Ok(());
        };
        let (Ok(Some(readings)), true) = (self.toy.read(slot), self.toy.is_writer(slot)) else {
            return Ok(());
        };
        let len = readings.any_of[0].len();
        if at >= len {
            return Ok(());
        }
        bytes.truncate(len - at);
        let mapped = write_mapped(file, at, &bytes);
        let wanted = self.toy.change(slot, |_, content| put(content, at, &bytes));
        same(what, mapped, wanted)?;
        self.toy.acknowledge(slot);
        Ok(())
    }

    fn cut(&mut self, what: &str, slot: usize, len: u64) -> Checked {
        let Some(file) = &self.files[slot] else {
            return Ok(());
        };
        let cut = file.set_len(len);
        let wanted = self
            .toy
            .change(slot, |_, content| content.resize(len_of(len), 0));
        // What ftruncate(2) says of a handle that only reads.
        let wanted = wanted.map_err(|_| Errno::INVAL);
        same(what, cut, wanted).map(drop)
    }

    fn allocate(
        &mut self,
        what: &str,
        slot: usize,
        flags: FallocateFlags,
        (offset, len): (u64, u64),
    ) -> Checked {
        let Some(file) = &self.files[slot] else {
            return Ok(());
        };
        let done = rustix::fs::fallocate(file, flags, offset, len).map_err(io::Error::from);
        let wanted = self.toy.change(slot, |_, content| {
            let end = len_of(offset + len);
            match flags.is_empty() {
                true => content.resize(content.len().max(end), 0),
                false => {
                    let end = end.min(content.len());
                    let start = len_of(offset).min(end);
                    content[start..end].fill(0);
                }
            }
        });
        same(what, done, wanted).map(drop)
    }

    fn close(&mut self, slot: usize) -> Checked {
        let Some(file) = self.files[slot].take() else {
            return Ok(());
        };
        drop(file);
        self.toy.acknowledge(slot);
        self.toy.handles[slot] = None;
        Ok(())
    }

    fn names(&mut self, what: &str, step: &Step) -> Checked {
        match step {
            Step::CutPath { path, len } => {
                let cut = truncate(&self.path(path), *len);
                let wanted = self.toy.cut_path(path, len_of(*len));
                same(what, cut, wanted).map(drop)
            }
            Step::Rename { from, to } => {
                let renamed = fs::rename(self.path(from), self.path(to));
                let wanted = self.toy.rename(from, to);
                same(what, renamed, wanted).map(drop)
            }
            Step::Unlink { path } => {
                let removed = fs::remove_file(self.path(path));
                same(what, removed, self.toy.unlink(path)).map(drop)
            }
            Step::MakeDir { path } => {
                let made = fs::create_dir(self.path(path));
                same(what, made, self.toy.make_dir(path)).map(drop)
            }
            Step::RemoveDir { path } => {
                let removed = fs::remove_dir(self.path(path));
                same(what, removed, self.toy.remove_dir(path)).map(drop)
            }
            Step::List { path } => self.list(what, path),
            Step::Chmod { path, mode } => {
                let mode = fs::Permissions::from_mode(*mode);
                let changed = fs::set_permissions(self.path(path), mode.clone());
                if same(what, changed, self.toy.check_there(path))?.is_some() {
                    let found = fs::metadata(self.path(path)).map_err(|e| e.to_string())?;
                    if found.mode() & 0o7777 != mode.mode() {
                        return Err(format!("{what}: the mode is {:o}", found.mode()));
                    }
                }
                Ok(())
            }
            Step::SetTime { path, seconds } => {
                let changed = set_time(&self.path(path), *seconds);
                if same(what, changed, self.toy.check_there(path))?.is_some() {
                    let found = fs::metadata(self.path(path)).map_err(|e| e.to_string())?;
                    if found.mtime() != *seconds {
                        return Err(format!("{what}: the time is {}", found.mtime()));
                    }
                }
                Ok(())
            }
            other => Err(format!("{other:?} is no change of names")),
        }
    }

    fn list(&self, what: &str, path: &str) -> Checked {
        let found = fs::read_dir(self.path(path)).and_then(|entries| {
            let name = |entry: io::Result<fs::DirEntry>| {
                Ok(entry?.file_name().to_string_lossy().into_owned())
            };
            entries.map(name).collect::<io::Result<Vec<_>>>()
        });
        let wanted = self.toy.list(path);
        let answer = wanted.as_ref().map(drop).map_err(|errno| *errno);
        match (same(what, found, answer)?, wanted) {
            (Some(mut found), Ok(wanted)) => {
                found.sort();
                match found == wanted {
                    true => Ok(()),
                    false => Err(format!("{what}: {found:?} instead of {wanted:?}")),
                }
            }
            _ => Ok(()),
        }
    }

    /// Compares the whole tree.
    fn look(&self, what: &str) -> Checked {
        let found = trees::read(&self.sandbox.point()).map_err(|e| format!("{what}: {e}"))?;
        let differences = trees::differences(&found, &self.toy.tree());
        match differences.is_empty() {
            true => self.look_at_storage(what),
            false => Err(format!("after {what}: {}", differences.join("; "))),
        }
    }

    /// Compares what the storage has, where it must have it by now.
    fn look_at_storage(&self, what: &str) -> Checked {
        match self.mode {
            Mode::Through if !self.is_behind => self.storage_has(what),
            _ => Ok(()),
        }
    }

    /// Returns what the storage has. A place without objects is not there.
    fn stored(&self) -> Result<Tree, String> {
        match trees::read(&self.root()) {
            Err(error) if errno(&error) == Errno::NOENT => Ok(Tree::new()),
            found => found.map_err(|e| format!("the storage: {e}")),
        }
    }

    fn storage_has(&self, what: &str) -> Checked {
        let found = self.stored()?;
        let checked = self.toy.check_durable(&found, false);
        checked.map_err(|why| format!("after {what}, the storage: {why}"))
    }

    /// Waits until the storage has all that was promised.
    fn wait_stored(&mut self) -> Checked {
        let point = self.sandbox.point();
        let arguments = ["sync".as_ref(), point.as_os_str(), "--wait".as_ref()];
        let done = self.sandbox.run(&arguments);
        self.is_behind = false;
        match done.status.success() {
            true => Ok(()),
            false => Err(format!("forebay sync --wait: {}", done.stderr.trim())),
        }
    }

    fn settle(&mut self) -> Checked {
        self.wait_stored()?;
        self.toy.acknowledge_closed();
        self.storage_has("a sync")?;
        self.look("a sync")
    }

    /// Waits until a path shows what somebody else made of it.
    fn shows(&self, path: &str, wanted: Option<&Vec<u8>>) -> Checked {
        let mut last = String::new();
        let shown =
            wait::holds_within(SHOWS_WITHIN, || match (fs::read(self.path(path)), wanted) {
                (Ok(found), Some(wanted)) if found == *wanted => true,
                (Err(error), None) if errno(&error) == Errno::NOENT => true,
                (found, _) => {
                    last = format!("{:?}", found.map(|bytes| bytes.len()));
                    false
                }
            });
        match shown {
            true => Ok(()),
            false => Err(format!(
                "'{path}' does not show what somebody else made of it, but {last}"
            )),
        }
    }

    fn change_outside(&self, path: &str, bytes: Option<&Vec<u8>>) {
        let name = format!("{}/{path}", self.place);
        match bytes {
            Some(bytes) => self.storage.put_bytes(name, bytes),
            None => self.storage.remove(name),
        }
    }

    fn outside(&mut self, path: &str, bytes: Option<Vec<u8>>) -> Checked {
        if self.toy.is_dir(path) || !self.toy.has_parent(path) || self.toy.is_written(path) {
            return Ok(());
        }
        self.wait_stored()?;
        self.toy.acknowledge_closed();
        let is_there = is_file(&self.root().join(path));
        if bytes.is_none() && !is_there {
            return Ok(());
        }
        self.change_outside(path, bytes.as_ref());
        self.toy.replace(path, bytes.clone());
        self.shows(path, bytes.as_ref())
    }

    /// Has somebody else change what a handle is writing: the change stays, and what was written
    /// here is kept beside it.
    fn contest(&mut self, slot: usize, seed: u64, removes: bool) -> Checked {
        let Some(path) = self.toy.path_of_handle(slot) else {
            return Ok(());
        };
        if !self.toy.is_writer(slot) {
            return Ok(());
        }
        self.wait_stored()?;
        self.toy.acknowledge_closed();
        self.write("contest", slot, 0, &data::bytes(seed, 10))?;
        let is_there = is_file(&self.root().join(&path));
        if removes && !is_there {
            return Ok(());
        }
        let theirs = (!removes).then(|| data::bytes(seed + 1, 1000));
        self.change_outside(&path, theirs.as_ref());
        let ours = self.toy.content(&path).cloned().unwrap_or_default();
        let synced = self.files[slot].as_ref().map(File::sync_all);
        let told = synced.and_then(|synced| synced.err().map(|e| errno(&e)));
        match (self.mode, told) {
            (Mode::Through, Some(Errno::STALE)) | (Mode::Back, None) => {}
            (mode, told) => {
                return Err(format!(
                    "a sync of '{path}', which somebody else changed, in {mode:?}: {told:?}"
                ));
            }
        }
        self.wait_stored()?;
        for slot in self.toy.slots_of(&path) {
            self.files[slot] = None;
            self.toy.handles[slot] = None;
        }
        self.toy.replace(&path, theirs.clone());
        self.shows(&path, theirs.as_ref())?;
        self.take_copy(&path, &ours)
    }

    /// Finds the copy of what was written here, and removes it.
    fn take_copy(&mut self, path: &str, ours: &[u8]) -> Checked {
        let whole = self.path(path);
        let dir = whole.parent().unwrap_or(Path::new("/"));
        let name = path.rsplit('/').next().unwrap_or(path);
        let prefix = format!("{name}.forebay-conflict-");
        let entries = fs::read_dir(dir).map_err(|e| e.to_string())?;
        let copies: Vec<_> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|found| {
                let name = found.file_name().and_then(|name| name.to_str());
                name.is_some_and(|name| name.starts_with(&prefix))
            })
            .collect();
        let [copy] = &copies[..] else {
            return Err(format!("what was written of '{path}' is in {copies:?}"));
        };
        let found = fs::read(copy).map_err(|e| format!("{}: {e}", copy.display()))?;
        if found != ours {
            return Err(format!(
                "the copy of '{path}' has {} bytes instead of {}, or others",
                found.len(),
                ours.len()
            ));
        }
        fs::remove_file(copy).map_err(|e| format!("{}: {e}", copy.display()))
    }

    fn drop_handles(&mut self) {
        self.files = Default::default();
        self.toy.handles = Default::default();
    }

    fn kill(&mut self, mode: Mode) -> Checked {
        let blends = self.mode == Mode::Back;
        if let Some(mount) = self.mount.take() {
            mount.crash();
        }
        self.drop_handles();
        self.is_behind = true;
        self.mode = mode;
        self.mount = Some(self.mounting().start());
        if blends {
            self.take_own_copies()?;
        }
        let found = trees::read(&self.sandbox.point()).map_err(|e| format!("after a kill: {e}"))?;
        let checked = self.toy.check_durable(&found, blends);
        checked.map_err(|why| format!("after a kill: {why}"))?;
        let dirs = |tree: &Tree| -> Vec<String> {
            let dirs = tree.keys().filter(|path| path.ends_with('/'));
            dirs.cloned().collect()
        };
        let wanted = dirs(&self.toy.tree());
        if dirs(&found) != wanted {
            return Err(format!(
                "after a kill: directories are {:?} instead of {wanted:?}",
                dirs(&found)
            ));
        }
        self.toy = Toy::of(&found);
        Ok(())
    }

    /// What nobody was promised yet may be found as a copy: a kill came between the answer to an
    /// upload and its note, and the file had been written on.
    fn take_own_copies(&mut self) -> Checked {
        self.wait_stored()?;
        let found = trees::read(&self.sandbox.point()).map_err(|e| format!("after a kill: {e}"))?;
        for path in found.keys() {
            if let Some((of, _)) = path.split_once(".forebay-conflict-")
                && self.toy.may_differ(of)
            {
                fs::remove_file(self.path(path)).map_err(|e| format!("{path}: {e}"))?;
            }
        }
        Ok(())
    }

    fn remount(&mut self, mode: Mode) -> Checked {
        for slot in 0..SLOTS {
            self.close(slot)?;
        }
        if let Some(mount) = self.mount.take() {
            mount.unmount();
        }
        self.toy.acknowledge_closed();
        self.is_behind = true;
        self.mode = mode;
        self.mount = Some(self.mounting().start());
        self.look("a remount")
    }

    /// Ends a run: the mount and the storage have all, and nothing else.
    fn end(&mut self) -> Checked {
        for slot in 0..SLOTS {
            self.close(slot)?;
        }
        self.settle()?;
        let mut wanted = self.toy.tree();
        let mut found = self.stored()?;
        // Directories are files of the server there.
        for tree in [&mut wanted, &mut found] {
            tree.retain(|path, _| !path.ends_with('/'));
        }
        let differences = trees::differences(&found, &wanted);
        match differences.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "in the end, the storage: {}",
                differences.join("; ")
            )),
        }
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    content.resize(content.len().max(end), 0);
    content[at..end].copy_from_slice(bytes);
}

fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file())
}
