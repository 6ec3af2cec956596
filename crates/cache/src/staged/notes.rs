// SPDX-License-Identifier: Apache-2.0
//! The notes in force, and how many threads make them durable with one sync.
//!
//! A change joins the batch that is being gathered. Whoever finds nobody at work takes the batch to
//! the disk while the next one gathers; all of a batch share its outcome. A change is in force, and
//! a file kept or let go for it, only once it is in the file of notes, or on the disk where it has to
//! outlive a power cut. Changes of one id keep their order.
//!
//! A note that outlives a kill only is made to outlive a power cut a moment later
//! ([`super::Staging::harden`]); until then the last one that does is kept beside it.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use types::{ByteSize, Clock, Error, ErrorKind, Result, crash};

use super::Outlives;
use super::disk::{self, Disk};
use super::file::StagedFile;
use super::frame::{self, Noted, Standing};

/// The file of notes is rewritten when it has this much garbage, and more garbage than notes.
const GARBAGE_MAX: u64 = 4 << 20;
/// How long nothing is rewritten after that failed.
const REWRITE_PAUSE: Duration = Duration::from_secs(60);

/// The most that one note may take, and all of them: a rewrite holds them in memory twice.
const NOTE_MAX: u64 = 64 << 20;
const NOTES_MAX: u64 = 1 << 30;

/// What is noted under an id, with the file that it keeps.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) standing: Standing,
    pub(super) file: Option<Arc<StagedFile>>,
    /// Tells the notes of one id apart.
    pub(super) turn: u64,
}

/// A note that outlives a kill only, and is to outlive more.
#[derive(Debug)]
pub(super) struct Light {
    id: u64,
    turn: u64,
    noted: Noted,
    /// None where the note has no file.
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
    /// Ids whose last note does not outlive a power cut.
    light: BTreeSet<u64>,
    /// What the notes in force take in the file.
    live_bytes: u64,
    /// The turn of the next note.
    turn: u64,
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
    to: To,
}

#[derive(Debug)]
enum To {
    Nothing,
    Note {
        noted: Noted,
        outlives: Outlives,
        file: Option<Arc<StagedFile>>,
    },
    /// The note of this turn, if it is in force still, outlives a power cut from now on.
    Harder(Light),
}

impl Change {
    /// Returns what is written of it; no note stands for a removal.
    fn written(&self) -> Option<(&Noted, Outlives)> {
        match &self.to {
            To::Nothing => None,
            To::Note {
                noted, outlives, ..
            } => Some((noted, *outlives)),
            To::Harder(light) => Some((&light.noted, Outlives::PowerCut)),
        }
    }

    /// Returns the file that has to be there when the power comes back.
    fn file(&self) -> Option<&Arc<StagedFile>> {
        match &self.to {
            To::Note {
                outlives: Outlives::PowerCut,
                file,
                ..
            } => file.as_ref(),
            To::Harder(light) => light.file.as_ref(),
            To::Nothing | To::Note { .. } => None,
        }
    }
}

/// How a batch ended.
#[derive(Debug, Default)]
struct Batch {
    outcome: OnceLock<Result<()>>,
}

impl Notes {
    pub(super) fn new(disk: Disk, live: BTreeMap<u64, Live>, clock: Arc<dyn Clock>) -> Notes {
        let light = live.iter().filter(|(_, live)| live.is_light());
        Notes {
            state: Mutex::new(State {
                light: light.map(|(id, _)| *id).collect(),
                live_bytes: live.values().map(Live::cost).sum(),
                turn: live.values().map(|live| live.turn + 1).max().unwrap_or(0),
                live,
                waiting: Vec::new(),
                batch: Arc::default(),
                disk: Some(disk),
                rewrite_after: None,
            }),
            done: Condvar::new(),
            clock,
        }
    }

    /// Sets or removes a note; it lasts as is asked when this returns, and a removal as what it
    /// removes. The note of `displaced` goes in the same moment.
    pub(super) fn write(
        &self,
        dir: &OwnedFd,
        id: u64,
        to: Option<(Noted, Outlives, Option<Arc<StagedFile>>)>,
        displaced: Option<u64>,
    ) -> Result<()> {
        let state = self.state.lock();
        let idle = state.disk.is_some() && state.waiting.is_empty();
        let is_absent = |id: &u64| !state.live.contains_key(id);
        if to.is_none() && idle && is_absent(&id) && displaced.as_ref().is_none_or(is_absent) {
            return Ok(());
        }
        let cost = to.as_ref().map_or(0, |(noted, ..)| frame::cost(noted));
        if cost > NOTE_MAX || (cost > 0 && state.live_bytes + cost > NOTES_MAX) {
            return Err(too_large(cost));
        }
        let to = to.map_or(To::Nothing, |(noted, outlives, file)| To::Note {
            noted,
            outlives,
            file,
        });
        let gone = displaced.map(|id| Change {
            id,
            to: To::Nothing,
        });
        self.write_changes(state, dir, std::iter::once(Change { id, to }).chain(gone))
    }

    /// Returns the notes that do not outlive a power cut.
    pub(super) fn light(&self) -> Vec<Light> {
        let state = self.state.lock();
        let light = |id: &u64| {
            let live = state.live.get(id)?;
            Some(Light {
                id: *id,
                turn: live.turn,
                noted: live.standing.noted.clone()?,
                file: live.file.clone(),
            })
        };
        state.light.iter().filter_map(light).collect()
    }

    /// Makes notes outlive a power cut, whose files are synced; what was noted since stays as it is.
    pub(super) fn harden(&self, dir: &OwnedFd, light: Vec<Light>) -> Result<()> {
        let changes = light.into_iter().map(|light| Change {
            id: light.id,
            to: To::Harder(light),
        });
        self.write_changes(self.state.lock(), dir, changes)
    }

    /// Returns whether something is noted under an id that outlives a power cut.
    pub(super) fn is_sealed(&self, id: u64) -> bool {
        let state = self.state.lock();
        let live = state.live.get(&id);
        live.is_some_and(|live| live.standing.sealed.is_some())
    }

    fn write_changes(
        &self,
        mut state: MutexGuard<'_, State>,
        dir: &OwnedFd,
        changes: impl Iterator<Item = Change>,
    ) -> Result<()> {
        state.waiting.extend(changes);
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

    /// Takes the gathered batch to the disk; returns the files that it displaced.
    fn lead(
        &self,
        state: &mut MutexGuard<'_, State>,
        mut disk: Disk,
        dir: &OwnedFd,
    ) -> Vec<Arc<StagedFile>> {
        let changes = state.take_waiting();
        let batch = std::mem::take(&mut state.batch);
        let outlives = state.wanted_by(&changes);
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
            commit(&mut disk, dir, &changes, outlives)
        });
        if rewrite_failed {
            state.rewrite_after = Some(self.clock.now() + REWRITE_PAUSE);
        }
        let gone = match &outcome {
            Ok(()) => state.apply(changes),
            Err(_) => changes.into_iter().filter_map(Change::into_file).collect(),
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
    /// Takes the batch that was gathered, without what is to outlive more and is noted anew since.
    fn take_waiting(&mut self) -> Vec<Change> {
        let mut changed = HashSet::new();
        let mut changes = std::mem::take(&mut self.waiting);
        changes.retain(|change| {
            let is_first = changed.insert(change.id);
            match &change.to {
                To::Harder(light) => {
                    let live = self.live.get(&change.id);
                    is_first && live.is_some_and(|live| live.turn == light.turn)
                }
                To::Nothing | To::Note { .. } => true,
            }
        });
        changes
    }

    /// Returns what a batch has to outlive: what is asked for, and as much as what it removes.
    fn wanted_by(&self, changes: &[Change]) -> Outlives {
        let outlives_power = |change: &Change| match change.written() {
            Some((_, outlives)) => outlives == Outlives::PowerCut,
            None => {
                let live = self.live.get(&change.id);
                live.is_some_and(|live| live.standing.sealed.is_some())
            }
        };
        match changes.iter().any(outlives_power) {
            true => Outlives::PowerCut,
            false => Outlives::Kill,
        }
    }

    /// Puts a batch in force; returns the files that it displaced.
    fn apply(&mut self, changes: Vec<Change>) -> Vec<Arc<StagedFile>> {
        let mut gone = Vec::new();
        for Change { id, to } in changes {
            let before = self.live.remove(&id);
            self.live_bytes -= before.as_ref().map_or(0, Live::cost);
            let (sealed_before, file_before) = match before {
                Some(live) => (live.standing.sealed, live.file),
                None => (None, None),
            };
            let (standing, file) = match to {
                To::Nothing => {
                    self.light.remove(&id);
                    gone.extend(file_before);
                    continue;
                }
                To::Note {
                    noted,
                    outlives: Outlives::Kill,
                    file,
                } => (
                    Standing {
                        sealed: sealed_before,
                        noted: Some(noted),
                    },
                    file,
                ),
                To::Note { noted, file, .. } => (Standing::sealed(noted), file),
                To::Harder(light) => (Standing::sealed(light.noted), light.file),
            };
            match standing.noted {
                Some(_) => self.light.insert(id),
                None => self.light.remove(&id),
            };
            gone.extend(file_before);
            self.turn += 1;
            let live = Live {
                standing,
                file,
                turn: self.turn,
            };
            self.live_bytes += live.cost();
            self.live.insert(id, live);
        }
        gone
    }
}

impl Live {
    fn is_light(&self) -> bool {
        self.standing.noted.is_some()
    }

    fn cost(&self) -> u64 {
        let Standing { sealed, noted } = &self.standing;
        sealed.iter().chain(noted).map(frame::cost).sum()
    }
}

impl Change {
    fn into_file(self) -> Option<Arc<StagedFile>> {
        match self.to {
            To::Nothing => None,
            To::Note { file, .. } => file,
            To::Harder(light) => light.file,
        }
    }
}

/// Returns all notes as one payload.
pub(super) fn encode_live(live: &BTreeMap<u64, Live>) -> Result<Vec<u8>> {
    let mut payload = Vec::new();
    for (id, live) in live {
        let Standing { sealed, noted } = &live.standing;
        let both = [(sealed, Outlives::PowerCut), (noted, Outlives::Kill)];
        for (noted, outlives) in both {
            if let Some(noted) = noted {
                put(&mut payload, *id, noted, outlives)?;
            }
        }
    }
    Ok(payload)
}

fn put(payload: &mut Vec<u8>, id: u64, noted: &Noted, outlives: Outlives) -> Result<()> {
    let refused = || too_large(frame::cost(noted));
    frame::put_note(payload, id, noted, outlives).ok_or_else(refused)
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

/// Makes a batch last, and first the names of the files that it keeps.
fn commit(disk: &mut Disk, dir: &OwnedFd, changes: &[Change], outlives: Outlives) -> Result<()> {
    let mut payload = Vec::new();
    for change in changes {
        match change.written() {
            Some((noted, outlives)) => put(&mut payload, change.id, noted, outlives)?,
            None => frame::put_removal(&mut payload, change.id),
        }
    }
    let files = || changes.iter().filter_map(Change::file);
    if files().any(|file| !file.entry_synced()) {
        disk::sync_directory(dir)?;
        crash::point("staged.entry_synced");
        files().for_each(|file| file.note_entry_synced());
    }
    match payload.is_empty() {
        true => Ok(()),
        false => disk.append(&payload, outlives),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::SystemClock;

    fn start(dir: &std::path::Path) -> (Notes, OwnedFd) {
        let fd = OwnedFd::from(std::fs::File::open(dir).unwrap());
        let disk = Disk::start(&fd, None, 0, None, &[]).unwrap();
        (Notes::new(disk, BTreeMap::new(), Arc::new(SystemClock)), fd)
    }

    fn note(text: &[u8]) -> Option<(Noted, Outlives, Option<Arc<StagedFile>>)> {
        let noted = Noted {
            shape: None,
            note: text.to_vec(),
        };
        Some((noted, Outlives::PowerCut, None))
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
