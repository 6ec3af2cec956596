// SPDX-License-Identifier: Apache-2.0
//! Writes: filling pages, making room for them, and throwing objects away.
//!
//! A fill goes in units of up to a megabyte. For each: take room, evicting if need be; lock the
//! files of the shard; see that nobody touched the file; write; note the new stamp and the checksums
//! in the key-value store, then in the index. A page is therefore in the index only when its bytes
//! and its checksum are on their way to the disk. After an error the object is dropped: what
//! is half written is never read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use types::{Error, ErrorKind, PAGE_SIZE, PageRange, Result, VersionId, page_count};

use super::Inner;
use super::pin::item_of;
use super::rule::Way;
use crate::evict::{Item, Look, Uses};
use crate::files::{self, Stamp};
use crate::index::Entry;
use crate::kv::Change;
use crate::record::{self, CHUNK_PAGES, Chunk, Head, page_len};
use crate::rules::{NO_RULE, Priority, Slot};
use crate::space::{Taken, overhead, page_charge};

/// Pages written under one hold of the lock: short enough for readers of the same object to wait.
const UNIT_PAGES: u64 = 8;
/// What is left free on the file system for others: this, or one part in a hundred up to 1 GiB.
const FREE_MIN: u64 = 64 << 20;
const FREE_PART: u64 = 100;
const FREE_MAX: u64 = 1 << 30;
/// Objects evicted for one unit, at most: more do not help when the file system lags behind.
const EVICTIONS_MAX: usize = 1024;

/// Some pages of an object with their bytes.
#[derive(Clone, Copy)]
struct Unit<'a> {
    id: VersionId,
    size: u64,
    pages: PageRange,
    bytes: &'a [u8],
}

impl Unit<'_> {
    fn page(&self, page: u64) -> &[u8] {
        let at = usize::try_from((page - self.pages.first) * PAGE_SIZE).unwrap_or(usize::MAX);
        let len = usize::try_from(page_len(self.size, page)).unwrap_or(usize::MAX);
        &self.bytes[at..at + len]
    }
}

impl Inner {
    /// Fills pages of an object of a size. `rule` says which rule it follows, if any; without it that
    /// stays as it is.
    pub(super) fn fill(
        &self,
        (id, size): (VersionId, u64),
        first: u64,
        bytes: &[u8],
        rule: Option<Option<u64>>,
    ) -> Result<()> {
        self.check_in_service()?;
        let slot = self.slot_for(id, rule)?;
        if self.kv.is_behind() {
            // Waiting for it would hold up readers of the same shard.
            let what = "the disk of the cache does not keep up";
            return Err(Error::new(ErrorKind::Unavailable, what));
        }
        let pages = covered_pages(size, first, bytes.len() as u64)?;
        let mut start = pages.first;
        loop {
            let end = (start + UNIT_PAGES).min(pages.end);
            let from = usize::try_from((start - first) * PAGE_SIZE).unwrap_or(usize::MAX);
            let to = usize::try_from((end - first) * PAGE_SIZE).unwrap_or(usize::MAX);
            let unit = Unit {
                id,
                size,
                pages: PageRange { first: start, end },
                bytes: &bytes[from..to.min(bytes.len())],
            };
            self.fill_unit(unit, slot)?;
            start = end;
            if start >= pages.end {
                return Ok(());
            }
        }
    }

    fn check_in_service(&self) -> Result<()> {
        let refuse = |what: String| Err(Error::new(ErrorKind::Unavailable, what));
        if let Some(reason) = self.retired.get() {
            return refuse(format!("the cache directory is out of use: {reason}"));
        }
        if self.closed.load(Ordering::SeqCst) {
            return refuse("the cache is closed".to_string());
        }
        Ok(())
    }

    /// Returns the slot of the rule that an object is to follow; one that is here follows it from now
    /// on.
    fn slot_for(&self, id: VersionId, rule: Option<Option<u64>>) -> Result<Slot> {
        let has = self.index.with(id, |entry| entry.rule);
        let Some(rule) = rule else {
            return Ok(has.unwrap_or(NO_RULE));
        };
        let slot = rule.and_then(|rule| self.rules.slot(rule));
        let slot = slot.unwrap_or(NO_RULE);
        if has.is_some_and(|has| has != slot) {
            self.follow(id, slot)?;
        }
        Ok(slot)
    }

    fn fill_unit(&self, unit: Unit<'_>, slot: Slot) -> Result<()> {
        let present = self
            .index
            .with(unit.id, |entry| entry.present.has_all(unit.pages));
        if present == Some(true) {
            return Ok(());
        }
        let crcs: Vec<u32> = unit
            .pages
            .into_iter()
            .map(|page| crc_fast::crc32_iscsi(unit.page(page)))
            .collect();
        let charge: u64 = unit
            .pages
            .into_iter()
            .map(|page| page_charge(unit.size, page))
            .sum();
        let charge = charge + overhead(unit.size);
        let mut room = Room {
            way: self.make_way(slot, charge, unit.id)?,
            taken: self.make_room(charge, unit.id)?,
        };
        let _files = self.index.lock_files(unit.id);
        self.check_in_service()?;
        let result = match self.open_known(unit)? {
            Some((file, birth)) => self.write_known(unit, &crcs, (&file, birth), &mut room),
            None => self.write_new(unit, &crcs, &mut room),
        };
        result.map_err(|fault| {
            if let Some(birth) = self.index.with(unit.id, |entry| entry.birth) {
                self.drop_object(unit.id, birth);
            } else if let Err(error) = self.files.remove(unit.id) {
                tracing::debug!("remove the file of {}: {error}", unit.id);
            }
            self.note_write_fault(fault)
        })
    }

    /// Opens the file of an object that is in the index, having compared its stamp. An object whose
    /// file is gone or not as long as it should be is dropped and starts anew.
    fn open_known(&self, unit: Unit<'_>) -> Result<Option<(File, u64)>> {
        let known = self
            .index
            .with(unit.id, |entry| (entry.birth, entry.size, entry.stamp));
        let Some((birth, size, stamp)) = known else {
            return Ok(None);
        };
        if size != unit.size {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("fill {}: it has {size} bytes, not {}", unit.id, unit.size),
            ));
        }
        let opened = self.files.open_write(unit.id).and_then(|file| {
            let stat = files::stat(&file)?;
            Ok((file, stat))
        });
        let (file, stat) = match opened {
            Ok(opened) => opened,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.drop_object(unit.id, birth);
                return Ok(None);
            }
            Err(error) => return Err(self.note_write_fault(Fault::Write(error))),
        };
        if u64::try_from(stat.st_size).is_ok_and(|now| now > size) {
            self.drop_object(unit.id, birth);
            return Ok(None);
        }
        let now = Stamp::of(&stat);
        if now != stamp {
            self.distrust(unit.id, birth, now);
        }
        Ok(Some((file, birth)))
    }

    fn write_new(
        &self,
        unit: Unit<'_>,
        crcs: &[u32],
        room: &mut Room<'_>,
    ) -> std::result::Result<(), Fault> {
        let file = self
            .files
            .create(unit.id)
            .map_err(|error| match error.kind() {
                // Not even the directory can be made: it was removed under us.
                io::ErrorKind::NotFound => Fault::Gone(error),
                _ => Fault::Write(error),
            })?;
        let birth = self.next_birth();
        let stamp = write_pages(&file, unit, unit.pages.into_iter())?;
        let mut entry = Entry::new(unit.size, birth, stamp);
        for page in unit.pages {
            entry.present.insert(page);
        }
        // Whoever takes a rule away waits for the lock that is held here.
        entry.rule = self.rules.live(room.way.slot);
        let mut batch = self.records(unit, crcs, (birth, stamp), None)?;
        if entry.rule != NO_RULE {
            batch.push(self.rule_record(unit.id, entry.rule));
        }
        self.kv.write(batch).map_err(Fault::Index)?;
        room.taken.keep(entry.charge());
        if entry.rule == room.way.slot {
            room.way.keep(entry.charge());
        }
        self.enter(unit.id, entry);
        let fills = &self.counters.fills;
        fills.fetch_add(unit.pages.count(), Ordering::Relaxed);
        Ok(())
    }

    /// Returns a number that no file had before.
    pub(super) fn next_birth(&self) -> u64 {
        self.next_birth.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts an object that is on the disk, noted and charged, into the index.
    pub(super) fn enter(&self, id: VersionId, mut entry: Entry) {
        entry.last_use = self.next_tick();
        entry.last_use_seconds = self.seconds();
        let item = item_of(id, &entry);
        let rule = entry.rule;
        let pages = entry.present.len();
        self.counters.pages.fetch_add(pages, Ordering::Relaxed);
        self.index.insert(id, entry);
        let objects = self.counters.objects.fetch_add(1, Ordering::Relaxed) + 1;
        let mut policy = self.policy.lock();
        policy.insert(self.rules.priority(rule), item, &mut |rank, item| {
            self.look_at(rank, item, id)
        });
        policy.sweep(objects, &mut |rank, item| {
            let stays = |entry: &mut Entry| {
                entry.queued &= !entry.pinned;
                entry.queued && self.rules.priority(entry.rule) == rank
            };
            let entry = self.index.with_birth(item.id, item.birth, stays);
            entry.unwrap_or(false)
        });
        drop(policy);
        self.queue_for_quotas(id, &self.rules.quotas(rule));
    }

    fn write_known(
        &self,
        unit: Unit<'_>,
        crcs: &[u32],
        (file, birth): (&File, u64),
        room: &mut Room<'_>,
    ) -> std::result::Result<(), Fault> {
        let missing = self.index.with_birth(unit.id, birth, |entry| {
            let missing: Vec<u64> = unit
                .pages
                .into_iter()
                .filter(|page| !entry.present.has(*page))
                .collect();
            (missing, entry.unchecked.is_empty())
        });
        let Some((missing, believed)) = missing.filter(|(missing, _)| !missing.is_empty()) else {
            return Ok(());
        };
        let stamp = write_pages(file, unit, missing.iter().copied())?;
        let batch = self.records(unit, crcs, (birth, stamp), Some((&missing, believed)))?;
        self.kv.write(batch).map_err(Fault::Index)?;
        let grown = self.index.with_birth(unit.id, birth, |entry| {
            let before = entry.charge();
            for page in &missing {
                entry.present.insert(*page);
            }
            entry.stamp = stamp;
            entry.last_use_seconds = self.seconds();
            let grown = entry.charge() - before;
            self.rules.charge(entry.rule, grown);
            grown
        });
        room.taken.keep(grown.unwrap_or(0));
        let pages = missing.len() as u64;
        self.counters.pages.fetch_add(pages, Ordering::Relaxed);
        self.counters.fills.fetch_add(pages, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the records after a fill: the head, and the chunks that changed. `known` tells which
    /// pages were written of an object that was there, and whether none of it is in doubt.
    fn records(
        &self,
        unit: Unit<'_>,
        crcs: &[u32],
        (birth, stamp): (u64, Stamp),
        known: Option<(&[u64], bool)>,
    ) -> std::result::Result<Vec<Change>, Fault> {
        let run = if known.is_none_or(|(_, believed)| believed) {
            self.runs.run
        } else {
            0
        };
        let head = Head {
            size: unit.size,
            stamp: stamp.0,
            birth,
            run,
        };
        let mut batch = Vec::with_capacity(3);
        let mut only = Chunk::empty(unit.size, 0);
        let mut page = unit.pages.first;
        loop {
            let number = page / CHUNK_PAGES;
            let mut chunk = match known {
                Some(_) => self
                    .load_chunk(unit.id, birth, unit.size, number)
                    .map_err(Fault::Index)?,
                None => Chunk::empty(unit.size, number),
            };
            let end = ((number + 1) * CHUNK_PAGES).min(unit.pages.end);
            for page in page..end {
                if known.is_none_or(|(written, _)| written.contains(&page)) {
                    let at = usize::try_from(page - unit.pages.first).unwrap_or(usize::MAX);
                    chunk.set(page, crcs.get(at).copied());
                }
            }
            if record::has_one_chunk(unit.size) {
                only = chunk;
            } else {
                let value = record::encode_chunk(birth, &chunk);
                batch.push((record::chunk_key(unit.id, number), Some(value)));
            }
            page = end;
            if page >= unit.pages.end {
                break;
            }
        }
        batch.push((
            record::head_key(unit.id),
            Some(record::encode_head(head, Some(&only))),
        ));
        Ok(batch)
    }

    /// Notes in the key-value store that a page is gone (or has this checksum).
    pub(super) fn store_page(
        &self,
        id: VersionId,
        birth: u64,
        page: u64,
        crc: Option<u32>,
    ) -> Result<()> {
        let known = self
            .index
            .with_birth(id, birth, |e| (e.size, e.stamp, e.unchecked.is_empty()));
        let Some((size, stamp, believed)) = known else {
            return Ok(());
        };
        let mut chunk = self.load_chunk(id, birth, size, page / CHUNK_PAGES)?;
        chunk.set(page, crc);
        let run = if believed { self.runs.run } else { 0 };
        let head = Head {
            size,
            stamp: stamp.0,
            birth,
            run,
        };
        let mut batch = vec![(
            record::head_key(id),
            Some(record::encode_head(head, Some(&chunk))),
        )];
        if !record::has_one_chunk(size) {
            let key = record::chunk_key(id, page / CHUNK_PAGES);
            batch.push((key, Some(record::encode_chunk(birth, &chunk))));
        }
        self.kv.write(batch)
    }

    /// Takes room for `bytes`, evicting others than `keep` for it.
    pub(super) fn make_room(&self, bytes: u64, keep: VersionId) -> Result<Taken<'_>> {
        let full = |what: &str| Err(Error::new(ErrorKind::OutOfSpace, what.to_string()));
        for _ in 0..EVICTIONS_MAX {
            if let Some(taken) = self.space.take(bytes, self.room_for_objects()) {
                if self.disk_has_room(bytes)? {
                    return Ok(taken);
                }
                drop(taken);
                return match self.evict_bytes(bytes, keep) && self.disk_has_room(bytes)? {
                    true => self
                        .space
                        .take(bytes, self.room_for_objects())
                        .map_or_else(|| full("the cache is full"), Ok),
                    false => full("the disk of the cache is nearly full"),
                };
            }
            if !self.evict_one(keep) {
                return full("the cache is full of what is in use or pinned");
            }
        }
        full("the cache is full")
    }

    /// Returns how many bytes can be filled before something must be evicted.
    pub(super) fn free(&self) -> u64 {
        if self.is_out_of_service() {
            return 0;
        }
        let room = self.room_for_objects().saturating_sub(self.space.used());
        match self.files.free() {
            Ok((free, size)) => room.min(free.saturating_sub(margin(size))),
            Err(_) => 0,
        }
    }

    /// Returns what the index and the map leave of the capacity.
    pub(super) fn room_for_objects(&self) -> u64 {
        let map = self.granted.load(Ordering::Relaxed);
        self.capacity.saturating_sub(self.kv.claimed_bytes() + map)
    }

    pub(super) fn disk_has_room(&self, bytes: u64) -> Result<bool> {
        match self.files.free() {
            Ok((free, size)) => Ok(free >= bytes.saturating_add(margin(size))),
            Err(error) => Err(self.note_write_fault(Fault::Write(error))),
        }
    }

    /// Evicts objects of `bytes` together; false when there are not as many.
    fn evict_bytes(&self, bytes: u64, keep: VersionId) -> bool {
        let target = self.space.used().saturating_sub(bytes);
        (0..EVICTIONS_MAX).all(|_| self.space.used() <= target || self.evict_one(keep))
            && self.space.used() <= target
    }

    /// Evicts one object; false when all are in use.
    pub(super) fn evict_one(&self, keep: VersionId) -> bool {
        // A victim whose shard is being written is passed over; a few such do not mean that all are.
        for _ in 0..64 {
            let now = self.ticks.load(Ordering::Relaxed);
            let victim = self
                .policy
                .lock()
                .victim(now, &mut |rank, item| self.look_at(rank, item, keep));
            let Some((rank, victim)) = victim else {
                return false;
            };
            let files = self.index.try_lock_files(victim.id);
            if files.is_some() && self.drop_unless_leased(victim) {
                self.counters.evictions.fetch_add(1, Ordering::Relaxed);
                return true;
            }
            drop(files);
            self.policy.lock().put_back(rank, victim);
        }
        false
    }

    /// Tells the policy of a priority what the index knows of a candidate.
    pub(super) fn look_at(&self, rank: Priority, item: Item, keep: VersionId) -> Look {
        let look = self.index.with_birth(item.id, item.birth, |entry| {
            if self.rules.priority(entry.rule) != rank {
                return Look::Gone;
            }
            if entry.pinned {
                entry.queued = false;
                return Look::Gone;
            }
            if entry.is_leased() || item.id == keep {
                return Look::Held;
            }
            Look::Free(Uses {
                last: entry.last_use,
                count: entry.uses,
            })
        });
        look.unwrap_or(Look::Gone)
    }

    /// Throws an object away that may go; false when it may not any more.
    pub(super) fn drop_unless_leased(&self, victim: Item) -> bool {
        let entry = self.index.remove_if(victim.id, |entry| {
            entry.birth == victim.birth && !entry.is_leased() && !entry.pinned
        });
        match entry {
            Some(entry) => {
                self.forget(victim.id, entry);
                true
            }
            None => false,
        }
    }

    pub(super) fn remove(&self, id: VersionId) {
        if self.is_out_of_service() {
            return;
        }
        let _files = self.index.lock_files(id);
        if let Some(birth) = self.index.with(id, |entry| entry.birth) {
            self.drop_object(id, birth);
        }
    }

    /// Throws an object away. The lock of its files must be held.
    pub(super) fn drop_object(&self, id: VersionId, birth: u64) {
        if let Some(entry) = self.index.remove_if(id, |entry| entry.birth == birth) {
            self.forget(id, entry);
        }
    }

    /// Removes file and records of an object that was taken out of the index.
    fn forget(&self, id: VersionId, mut entry: Entry) {
        // First, because it may be what keeps the blocks of the file.
        drop(entry.kept.take());
        self.uncount(&entry);
        if !self.remove_file(id, &entry) {
            self.forget_pin(id);
            return;
        }
        let mut batch = vec![(record::head_key(id), None)];
        batch.extend(self.forget_pin(id));
        batch.extend((entry.rule != NO_RULE).then(|| (record::rule_key(id), None)));
        let chunks = (0..record::chunk_records(entry.size)).filter(|chunk| {
            let first = chunk * CHUNK_PAGES;
            !entry.present.has_none(PageRange {
                first,
                end: first + CHUNK_PAGES,
            })
        });
        batch.extend(chunks.map(|chunk| (record::chunk_key(id, chunk), None)));
        if let Err(error) = self.kv.write(batch) {
            // The record without a file is dropped when it is next used or found.
            tracing::debug!("forget {id}: {error}");
        }
    }

    /// Counts an object no more that was taken out of the index.
    pub(super) fn uncount(&self, entry: &Entry) {
        self.counters.objects.fetch_sub(1, Ordering::Relaxed);
        let pages = entry.present.len();
        self.counters.pages.fetch_sub(pages, Ordering::Relaxed);
        self.rules.give_back(entry.rule, entry.charge());
    }

    /// Removes the file of an object that is not in the index; false when it stays, and charged.
    pub(super) fn remove_file(&self, id: VersionId, entry: &Entry) -> bool {
        if let Err(error) = self.files.remove(id) {
            self.note_write_fault(Fault::Write(error));
            return false;
        }
        match entry.lease.upgrade() {
            Some(lease) => lease.owe(entry.charge()),
            None => self.space.give_back(entry.charge()),
        }
        true
    }

    pub(super) fn note_write_fault(&self, fault: Fault) -> Error {
        match fault {
            Fault::Gone(error) => {
                self.retire("the directory was removed", &error);
                Error::io("the cache directory was removed", error)
            }
            Fault::Write(error) => {
                if files::is_disk_fault(&error) {
                    self.retire("write a cache file", &error);
                }
                match files::is_full(&error) {
                    true => Error::new(ErrorKind::OutOfSpace, "the disk of the cache is full")
                        .with_source(error),
                    false => Error::io("write a cache file", error),
                }
            }
            Fault::Index(error) => error.context("write the index of the cache"),
        }
    }
}

/// Room of the cache and within quotas, for one unit.
struct Room<'a> {
    way: Way<'a>,
    taken: Taken<'a>,
}

/// Why a fill failed.
pub(super) enum Fault {
    Gone(io::Error),
    Write(io::Error),
    Index(Error),
}

/// Returns the pages that a fill covers, if it covers whole ones.
/// Returns what of a disk of `size` bytes is left to others.
fn margin(size: u64) -> u64 {
    (size / FREE_PART).clamp(FREE_MIN, FREE_MAX)
}

fn covered_pages(size: u64, first: u64, len: u64) -> Result<PageRange> {
    let start = first.checked_mul(PAGE_SIZE).filter(|start| *start <= size);
    let end = start
        .and_then(|start| start.checked_add(len))
        .filter(|end| *end <= size);
    let whole = end.filter(|end| (len > 0 || size == 0) && (*end == size || *end % PAGE_SIZE == 0));
    match whole {
        Some(end) => Ok(PageRange {
            first,
            end: page_count(end),
        }),
        None => Err(Error::new(
            ErrorKind::Invalid,
            format!("fill {len} bytes from page {first} of {size} bytes: not whole pages"),
        )),
    }
}

/// Writes pages of the unit, runs of them at once, and returns the stamp after that.
fn write_pages(
    file: &File,
    unit: Unit<'_>,
    pages: impl Iterator<Item = u64>,
) -> std::result::Result<Stamp, Fault> {
    let mut run: Option<PageRange> = None;
    let write = |run: PageRange| {
        let from = usize::try_from((run.first - unit.pages.first) * PAGE_SIZE).unwrap_or(0);
        let len = usize::try_from(run.bytes(unit.size).len).unwrap_or(usize::MAX);
        file.write_all_at(&unit.bytes[from..from + len], run.first * PAGE_SIZE)
            .map_err(Fault::Write)
    };
    for page in pages {
        run = match run {
            Some(open) if open.end == page => Some(PageRange {
                end: page + 1,
                ..open
            }),
            Some(done) => {
                write(done)?;
                Some(PageRange {
                    first: page,
                    end: page + 1,
                })
            }
            None => Some(PageRange {
                first: page,
                end: page + 1,
            }),
        };
    }
    if let Some(last) = run {
        write(last)?;
    }
    Ok(Stamp::of(&files::stat(file).map_err(Fault::Write)?))
}
