// SPDX-License-Identifier: Apache-2.0
//! Opening: holds the directory, loads the index, and later tidies what a crash left behind.
//!
//! Runs are numbered. A record says in which run all its pages were known good; it is believed if
//! every stop since that run was clean. The directory itself is not looked at before the open is
//! done, unless the index was damaged and files of unknown size may be about.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use types::{Clock, Error, ErrorKind, Result, VersionId, page_count};

use super::pin::item_of;
use super::{Counters, Inner, KV_CACHE_BYTES, Settings, background};
use crate::dir::Directory;
use crate::evict::Look;
use crate::files::{Files, Stamp};
use crate::index::{Entry, Index};
use crate::keepsakes::{KEEPSAKES_MAX, Keepsakes};
use crate::kv::{Kv, Limits};
use crate::pins::Pin;
use crate::record::{self, CHUNK_PAGES, CHUNKS, Chunk, HEADS, Head, PINS, RULES, RUN_KEY, Runs};
use crate::rules::{NO_RULE, Priority, Ranks, Rules};
use crate::space::Space;

/// A journal of the index is at most this part of the capacity, and 8 MiB: a few of them are set aside.
/// In as little as the smallest has go more than a thousand records.
const JOURNAL_PART: u64 = 4096;
const JOURNAL_MIN: u64 = 64 << 10;
const JOURNAL_MAX: u64 = 8 << 20;
/// With less than this free nothing could be written at all.
const FREE_TO_OPEN_MIN: u64 = 1 << 20;
/// No object has this id: the policy is to keep none back.
pub(super) const NOBODY: VersionId = VersionId(0);

/// Returns the size at which the journal of the index is moved into redb.
pub(super) fn rotate_bytes(capacity: u64) -> u64 {
    (capacity / JOURNAL_PART).clamp(JOURNAL_MIN, JOURNAL_MAX)
}

impl Inner {
    pub(super) fn open(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Inner> {
        let directory = Directory::hold(&settings.dir)?;
        let clean = directory.take_clean()?;
        let files = Files::open(&settings.dir).map_err(|e| Error::io("open data", e))?;
        let (free, _) = files
            .free()
            .map_err(|e| Error::io("ask for free space", e))?;
        if free < FREE_TO_OPEN_MIN {
            return Err(Error::new(
                ErrorKind::OutOfSpace,
                format!("its disk has {free} bytes free"),
            ));
        }
        let limits = Limits {
            rotate_bytes: rotate_bytes(settings.capacity.0),
            room: None,
        };
        let kv = Kv::open_with(&settings.dir.join("index"), KV_CACHE_BYTES, limits)?;
        let records = Records::load(&kv)?;
        let last = records.last_run();
        let clean = clean == Some(last.run) && kv.damaged() == 0;
        let run = last
            .run
            .checked_add(1)
            .ok_or_else(|| Error::internal("out of run numbers"))?;
        let runs = Runs {
            run,
            trusted_since: if clean { last.trusted_since } else { run },
        };
        kv.write(vec![(RUN_KEY.to_vec(), Some(runs.encode()))])?;
        let damaged = kv.damaged() > 0;
        let opened_at = clock.now();
        let inner = Inner {
            capacity: settings.capacity.0,
            clock,
            opened_at,
            kv,
            index: Index::new(),
            files,
            space: Arc::new(Space::new()),
            granted: AtomicU64::new(0),
            granting: Mutex::new(()),
            policy: Mutex::new(Ranks::new(settings.capacity.0)),
            rules: Rules::new(),
            pins: Mutex::default(),
            open_files: Mutex::new(VecDeque::new()),
            keepsakes: Keepsakes::new(KEEPSAKES_MAX),
            runs,
            next_birth: AtomicU64::new(u64::from(run) << 32),
            ticks: AtomicU32::new(0),
            counters: Counters::default(),
            retired: OnceLock::new(),
            closed: AtomicBool::new(false),
            last_log: Mutex::new(None),
            queue: background::Queue::default(),
            directory,
        };
        inner.adopt(records)?;
        if damaged {
            inner.tidy(|| false);
        }
        // The capacity may be less than it was.
        inner.fit_pins();
        while inner.space.used() > inner.room_for_objects() && inner.evict_one(NOBODY) {}
        Ok(inner)
    }

    /// Puts what was stored into the index.
    fn adopt(&self, mut records: Records) -> Result<()> {
        let mut policy = self.policy.lock();
        let mut pins = self.pins.lock();
        let mut strays: Vec<_> = std::mem::take(&mut records.bad)
            .into_iter()
            .map(|key| (key, None))
            .collect();
        let mut entries = std::mem::take(&mut records.entries);
        for (id, number, value, key) in std::mem::take(&mut records.chunks) {
            let adopted = entries.get_mut(&id).and_then(|(head, entry)| {
                let chunk = record::decode_chunk(*head, number, &value)?;
                add_pages(entry, number, &chunk);
                Some(())
            });
            if adopted.is_none() {
                strays.push((key, None));
            }
        }
        for (id, (head, mut entry)) in entries {
            if !(self.runs.trusted_since..self.runs.run).contains(&head.run) {
                entry.unchecked = entry.present.clone();
            }
            self.space.charge(entry.charge());
            let rule = records.rules.remove(&id);
            entry.rule = rule
                .and_then(|rule| self.rules.meet(rule))
                .unwrap_or(NO_RULE);
            self.rules.charge(entry.rule, entry.charge());
            self.counters.objects.fetch_add(1, Ordering::Relaxed);
            self.counters
                .pages
                .fetch_add(entry.present.len(), Ordering::Relaxed);
            if let Some(pin) = records.pins.remove(&id) {
                pins.insert(id, entry.size, pin);
                (entry.pinned, entry.queued) = (true, false);
            } else {
                let item = item_of(id, &entry);
                policy.insert(Priority::Normal, item, &mut |_, _| Look::Held);
            }
            self.index.insert(id, entry);
        }
        strays.extend(
            records
                .pins
                .into_keys()
                .map(|id| (record::pin_key(id), None)),
        );
        let rules = records.rules.into_keys();
        strays.extend(rules.map(|id| (record::rule_key(id), None)));
        self.kv.write(strays)
    }

    /// Removes files that the index does not know and objects whose files are gone.
    pub(super) fn tidy(&self, stop: impl Fn() -> bool) {
        for prefix in 0..Index::SHARDS {
            let Ok(prefix) = u8::try_from(prefix) else {
                return;
            };
            if stop() || self.is_out_of_service() {
                return;
            }
            // Before the listing: what is filled after it has its file.
            let known = self.index.ids(prefix, |_| true);
            match self.files.list(prefix) {
                Ok(found) => self.tidy_shard(&known, &found.into_iter().collect()),
                Err(error) => {
                    tracing::debug!("list cache files {prefix:02x}: {error}");
                    continue;
                }
            }
        }
    }

    fn tidy_shard(&self, known: &[VersionId], found: &HashSet<VersionId>) {
        for id in found {
            let _files = self.index.lock_files(*id);
            if self.index.with(*id, |_| ()).is_none()
                && let Err(error) = self.files.remove(*id)
            {
                tracing::debug!("remove the stray file of {id}: {error}");
            }
        }
        for id in known.iter().filter(|id| !found.contains(id)) {
            let _files = self.index.lock_files(*id);
            let gone = self
                .files
                .open_read(*id)
                .is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
            if let Some(birth) = self.index.with(*id, |entry| entry.birth).filter(|_| gone) {
                self.drop_object(*id, birth);
            }
        }
    }

    /// Stores of objects checked in this run that they need no check in the next.
    pub(super) fn save_checked(&self) -> Result<()> {
        for prefix in 0..=u8::MAX {
            let mut batch = Vec::new();
            for id in self
                .index
                .ids(prefix, |entry| entry.unsaved && entry.unchecked.is_empty())
            {
                let known = self.index.with(id, |e| (e.size, e.stamp, e.birth));
                let Some((size, stamp, birth)) = known else {
                    continue;
                };
                let head = Head {
                    size,
                    stamp: stamp.0,
                    birth,
                    run: self.runs.run,
                };
                let chunk = match record::has_one_chunk(size) {
                    true => Some(self.load_chunk(id, birth, size, 0)?),
                    false => None,
                };
                let value = record::encode_head(head, chunk.as_ref());
                batch.push((record::head_key(id), Some(value)));
            }
            self.kv.write(batch)?;
        }
        Ok(())
    }
}

/// What the key-value store holds.
struct Records {
    runs: Option<Runs>,
    entries: HashMap<VersionId, (Head, Entry)>,
    /// Id, number, value and key.
    chunks: Vec<(VersionId, u64, Vec<u8>, Vec<u8>)>,
    pins: HashMap<VersionId, Pin>,
    rules: HashMap<VersionId, u64>,
    /// Keys of what cannot be read.
    bad: Vec<Vec<u8>>,
}

impl Records {
    fn load(kv: &Kv) -> Result<Records> {
        let runs = kv.get(RUN_KEY)?.as_deref().and_then(Runs::decode);
        let mut records = Records {
            runs,
            entries: HashMap::new(),
            chunks: Vec::new(),
            pins: HashMap::new(),
            rules: HashMap::new(),
            bad: Vec::new(),
        };
        for (key, value) in kv.scan(&[HEADS], &[HEADS + 1])? {
            let found = record::parse_head_key(&key).zip(record::decode_head(&value));
            let Some((id, (head, chunk))) = found else {
                records.bad.push(key);
                continue;
            };
            let mut entry = Entry::new(head.size, head.birth, Stamp(head.stamp));
            if let Some(chunk) = chunk {
                add_pages(&mut entry, 0, &chunk);
            }
            records.entries.insert(id, (head, entry));
        }
        for (key, value) in kv.scan(&[CHUNKS], &[CHUNKS + 1])? {
            match record::parse_chunk_key(&key) {
                Some((id, number)) => records.chunks.push((id, number, value, key)),
                None => records.bad.push(key),
            }
        }
        for (key, value) in kv.scan(&[PINS], &[PINS + 1])? {
            match record::parse_pin_key(&key).zip(record::decode_pin(&value)) {
                Some((id, pin)) => drop(records.pins.insert(id, pin)),
                None => records.bad.push(key),
            }
        }
        for (key, value) in kv.scan(&[RULES], &[RULES + 1])? {
            match record::parse_rule_key(&key).zip(record::decode_rule(&value)) {
                Some((id, rule)) => drop(records.rules.insert(id, rule)),
                None => records.bad.push(key),
            }
        }
        Ok(records)
    }

    /// Returns the last run. Without its record, none that any other record may speak of.
    fn last_run(&self) -> Runs {
        let highest = self.entries.values().map(|(head, _)| {
            head.run
                .max(u32::try_from(head.birth >> 32).unwrap_or(u32::MAX - 1))
        });
        let highest = highest.max().unwrap_or(0);
        match self.runs {
            Some(runs) if runs.run >= highest => runs,
            _ => Runs {
                run: highest,
                trusted_since: u32::MAX,
            },
        }
    }
}

fn add_pages(entry: &mut Entry, number: u64, chunk: &Chunk) {
    let first = number * CHUNK_PAGES;
    for page in first..page_count(entry.size).min(first + CHUNK_PAGES) {
        if chunk.get(page).is_some() {
            entry.present.insert(page);
        }
    }
}
