// SPDX-License-Identifier: Apache-2.0
//! The notes in force, and how many threads make them durable with one sync.
//!
//! A change joins the batch that is being gathered. Whoever finds nobody at work takes the batch to
//! the disk while the next one gathers; all of a batch share its outcome. A change is in force, and
//! a file kept or let go for it, only once it is on the disk. Changes of one id keep their order.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use types::{ByteSize, Clock, Error, ErrorKind, Result, crash};

use super::disk::{self, Disk};
use super::file::StagedFile;
use super::frame::{self, Noted};

/// The file of notes is rewritten when it has this much garbage, and more garbage than notes.
const GARBAGE_MAX: u64 = 4 << 20;
/// How long nothing is rewritten after that failed.
const REWRITE_PAUSE: Duration = Duration::from_secs(60);

/// The most that one note may take, and all of them: a rewrite holds them in memory twice.
const NOTE_MAX: u64 = 64 << 20;
const NOTES_MAX: u64 = 1 << 30;

/// A note with the file that it keeps.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) noted: Noted,
    pub(super) file: Option<Arc<StagedFile>>,
}

/// All notes of the directory.
#[derive(Debug)]
pub(super) struct Notes {
    state: Mutex<State>,
    done: Condvar,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct State {
    live: BTreeMap<u64, Live>,
    /// What the notes in force take in the file.
    live_bytes: u64,
    /// The batch that is being gathered.
    waiting: Vec<Change>,
    batch: Arc<Batch>,
    /// None while a batch is taken to the disk.
    disk: Option<Disk>,
    rewrite_after: Option<Instant>,
}

#[derive(Debug)]
struct Change {
    id: u64,
    to: Option<Live>,
}

/// How a batch ended.
#[derive(Debug, Default)]
struct Batch {
    outcome: OnceLock<Result<()>>,
}

impl Notes {
    pub(super) fn new(disk: Disk, live: BTreeMap<u64, Live>, clock: Arc<dyn Clock>) -> Notes {
        let live_bytes = live.values().map(|live| frame::cost(&live.noted)).sum();
        Notes {
            state: Mutex::new(State {
                live,
                live_bytes,
                waiting: Vec::new(),
                batch: Arc::default(),
                disk: Some(disk),
                rewrite_after: None,
            }),
            done: Condvar::new(),
            clock,
        }
    }

    /// Sets or removes a note; durable when it returns. The note of `displaced` goes in the same
    /// moment.
    pub(super) fn write(
        &self,
        dir: &OwnedFd,
        id: u64,
        to: Option<Live>,
        displaced: Option<u64>,
    ) -> Result<()> {
        let mut state = self.state.lock();
        let idle = state.disk.is_some() && state.waiting.is_empty();
        let is_absent = |id: &u64| !state.live.contains_key(id);
        if to.is_none() && idle && is_absent(&id) && displaced.as_ref().is_none_or(is_absent) {
            return Ok(());
        }
        let cost = to.as_ref().map_or(0, |live| frame::cost(&live.noted));
        if cost > NOTE_MAX || (cost > 0 && state.live_bytes + cost > NOTES_MAX) {
            return Err(too_large(cost));
        }
        state.waiting.push(Change { id, to });
        let gone = displaced.map(|id| Change { id, to: None });
        state.waiting.extend(gone);
        let batch = Arc::clone(&state.batch);
        let mut gone = Vec::new();
        let outcome = loop {
            if let Some(outcome) = batch.outcome.get() {
                break outcome.clone();
            }
            match state.disk.take() {
                Some(disk) => gone.extend(self.lead(&mut state, disk, dir)),
                None => self.done.wait(&mut state),
            }
        };
        drop(state);
        // Files that lost their note are removed here, after the lock is given up.
        drop(gone);
        outcome
    }

    /// Takes the gathered batch to the disk; returns what it displaced.
    fn lead(&self, state: &mut MutexGuard<'_, State>, mut disk: Disk, dir: &OwnedFd) -> Vec<Live> {
        let changes = std::mem::take(&mut state.waiting);
        let batch = std::mem::take(&mut state.batch);
        let rewrite = self
            .rewrite_due(state, &disk)
            .then(|| encode_live(&state.live));
        let mut rewrite_failed = false;
        let outcome = MutexGuard::unlocked(state, || {
            if let Some(payload) = rewrite {
                let rewritten = payload.and_then(|payload| disk.rewrite(dir, &payload));
                rewrite_failed = rewritten.is_err();
                if disk.broken {
                    rewritten?;
                }
            }
            commit(&mut disk, dir, &changes)
        });
        if rewrite_failed {
            state.rewrite_after = Some(self.clock.now() + REWRITE_PAUSE);
        }
        let gone = match &outcome {
            Ok(()) => state.apply(changes),
            Err(_) => changes.into_iter().filter_map(|change| change.to).collect(),
        };
        // Set once, here: the batch left the state with this call.
        batch.outcome.get_or_init(|| outcome);
        state.disk = Some(disk);
        self.done.notify_all();
        gone
    }

    fn rewrite_due(&self, state: &State, disk: &Disk) -> bool {
        let garbage = disk.len().saturating_sub(state.live_bytes);
        let paused = state
            .rewrite_after
            .is_some_and(|after| self.clock.now() < after);
        disk.broken || (garbage > GARBAGE_MAX && garbage > state.live_bytes && !paused)
    }

    /// Ends with the process: the files stay, for their notes do.
    pub(super) fn keep_files(&self) {
        for live in std::mem::take(&mut self.state.lock().live).into_values() {
            if let Some(file) = live.file {
                file.keep();
            }
        }
    }
}

impl State {
    /// Puts a durable batch in force; returns what it displaced.
    fn apply(&mut self, changes: Vec<Change>) -> Vec<Live> {
        let mut gone = Vec::new();
        for Change { id, to } in changes {
            self.live_bytes += to.as_ref().map_or(0, |live| frame::cost(&live.noted));
            let before = match to {
                Some(live) => self.live.insert(id, live),
                None => self.live.remove(&id),
            };
            self.live_bytes -= before.as_ref().map_or(0, |live| frame::cost(&live.noted));
            gone.extend(before);
        }
        gone
    }
}

/// Returns all notes as one payload.
pub(super) fn encode_live(live: &BTreeMap<u64, Live>) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    for (id, live) in live {
        put(&mut payload, *id, Some(&live.noted))?;
    }
    Ok(payload)
}

fn put(payload: &mut Vec<u8>, id: u64, noted: Option<&Noted>) -> Result<()> {
    let refused = || too_large(noted.map_or(0, frame::cost));
    frame::put_change(payload, id, noted).ok_or_else(refused)
}

fn too_large(cost: u64) -> Error {
    let most = (ByteSize(NOTE_MAX), ByteSize(NOTES_MAX));
    Error::new(
        ErrorKind::OutOfSpace,
        format!(
            "a note of {cost} bytes is too much: {} is the most for one and {} for all, wait until \
             some of what is staged is persisted",
            most.0, most.1
        ),
    )
}

/// Makes a batch durable, and first the names of the files that it keeps.
fn commit(disk: &mut Disk, dir: &OwnedFd, changes: &[Change]) -> Result<()> {
    let mut payload = Vec::new();
    for change in changes {
        put(
            &mut payload,
            change.id,
            change.to.as_ref().map(|live| &live.noted),
        )?;
    }
    let files = || {
        changes
            .iter()
            .filter_map(|change| change.to.as_ref()?.file.as_ref())
    };
    if files().any(|file| !file.entry_synced()) {
        disk::sync_directory(dir)?;
        crash::point("staged.entry_synced");
        files().for_each(|file| file.note_entry_synced());
    }
    disk.append(&payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::SystemClock;

    fn start(dir: &std::path::Path) -> (Notes, OwnedFd) {
        let fd = OwnedFd::from(std::fs::File::open(dir).unwrap());
        let disk = Disk::start(&fd, None, 0, &[]).unwrap();
        (Notes::new(disk, BTreeMap::new(), Arc::new(SystemClock)), fd)
    }

    fn note(text: &[u8]) -> Option<Live> {
        let noted = Noted {
            shape: None,
            note: text.to_vec(),
        };
        Some(Live { noted, file: None })
    }

    fn read(dir: &std::path::Path) -> frame::Reading {
        frame::read(&std::fs::read(dir.join(disk::NOTES)).unwrap())
    }

    #[test]
    fn all_who_wait_share_one_write_and_one_sync() {
        let temp = tempfile::tempdir().unwrap();
        let (notes, dir) = start(temp.path());
        // Somebody is at work, and these gather meanwhile.
        let disk = notes.state.lock().disk.take();
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..5)
                .map(|id| {
                    let (notes, dir) = (&notes, &dir);
                    scope.spawn(move || notes.write(dir, id, note(b"n"), None))
                })
                .collect();
            while notes.state.lock().waiting.len() < 5 {
                std::thread::yield_now();
            }
            assert!(
                notes.state.lock().live.is_empty(),
                "in force before it is durable"
            );
            notes.state.lock().disk = disk;
            notes.done.notify_all();
            for writer in writers {
                writer.join().unwrap().unwrap();
            }
        });
        let found = read(temp.path());
        assert_eq!((found.notes.len(), found.frames), (5, [2, 0]));
        notes.write(&dir, 77, None, None).unwrap();
        assert_eq!(
            read(temp.path()).frames,
            [2, 0],
            "nothing to remove, nothing written"
        );
    }

    #[test]
    fn after_a_failed_sync_the_notes_are_written_anew_first() {
        let temp = tempfile::tempdir().unwrap();
        let (notes, dir) = start(temp.path());
        notes.write(&dir, 1, note(b"first"), None).unwrap();
        let before = read(temp.path()).header.unwrap();
        if let Some(disk) = &mut notes.state.lock().disk {
            disk.broken = true;
        }
        // As long as that cannot be, nothing is acknowledged.
        std::fs::create_dir(temp.path().join(disk::NOTES_NEW)).unwrap();
        assert!(notes.write(&dir, 2, note(b"second"), None).is_err());
        assert!(notes.write(&dir, 1, None, None).is_err());
        std::fs::remove_dir(temp.path().join(disk::NOTES_NEW)).unwrap();
        notes.write(&dir, 3, note(b"third"), None).unwrap();
        let found = read(temp.path());
        assert_eq!(found.header.unwrap().generation, before.generation + 1);
        assert_eq!(found.notes.keys().copied().collect::<Vec<_>>(), [1, 3]);
    }
}
