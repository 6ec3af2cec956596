// SPDX-License-Identifier: Apache-2.0
//! Reads: the hit path, and the check of pages that are in doubt.
//!
//! A hit is one look into the index, one `pread` and one `fstat`. The `fstat` comes last: if the file
//! still has its stamp then, nobody touched it before the bytes were read. Everything else goes to
//! the slow path, which holds the lock of the shard's files, so that a stamp that differs there was
//! not our own writing.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use types::{ByteRange, PAGE_SIZE, PageRange, VersionId};

use super::Inner;
use crate::evict::Tick;
use crate::files::{self, Stamp};
use crate::index::Entry;
use crate::record::{self, CHUNK_PAGES, Chunk, page_len};

/// Files kept open: enough for what is read at a time, few next to the usual limit of 1024.
const OPEN_FILES_MAX: usize = 256;
/// Uses within this time count as one: a pass over a file is many reads. (The correlated reference
/// period of O'Neil et al., "The LRU-K Page Replacement Algorithm", SIGMOD 1993.)
const ONE_USE_SECONDS: u32 = 10;
/// Unless meanwhile there were uses of one part in so many of the objects, and so many: in a pass over
/// a data set that takes seconds only, the use in the next pass must count.
const ONE_USE_PART: u64 = 16;
const ONE_USE_TICKS: u64 = 16;

/// What the hit path came to.
enum Outcome {
    Hit,
    Miss,
    /// The checksums must decide.
    Doubt,
}

/// What the index said of an object when it was looked at.
pub(super) struct Seen {
    pub(super) birth: u64,
    pub(super) size: u64,
    pub(super) stamp: Stamp,
    pub(super) file: Option<Arc<File>>,
    pub(super) checked: bool,
}

/// A file as it was found, with the index brought in line.
pub(super) struct Settled {
    birth: u64,
    size: u64,
    stamp: Stamp,
    file: Arc<File>,
}

impl Inner {
    pub(super) fn read(&self, id: VersionId, range: ByteRange, buf: &mut Vec<u8>) -> bool {
        if self.is_out_of_service() {
            return false;
        }
        match self.read_believed(id, range, buf) {
            Outcome::Hit => true,
            Outcome::Miss => false,
            Outcome::Doubt => self.read_checking(id, range, buf),
        }
    }

    fn read_believed(&self, id: VersionId, range: ByteRange, buf: &mut Vec<u8>) -> Outcome {
        let pages = range.pages();
        let has = |entry: &Entry| entry.present.has_all(pages);
        let checked = |entry: &Entry| entry.unchecked.has_none(pages);
        let Some(seen) = self.look(id, has, checked) else {
            return Outcome::Miss;
        };
        if range.end() > seen.size {
            return Outcome::Miss;
        }
        if !seen.checked {
            return Outcome::Doubt;
        }
        let Some(file) = self.file_of(id, &seen) else {
            return Outcome::Doubt;
        };
        let Ok(len) = usize::try_from(range.len) else {
            return Outcome::Miss;
        };
        let start = buf.len();
        let read = files::read_at(&file, range.offset, len, buf);
        let good = read.and_then(|all| Ok(all && Stamp::of(&files::stat(&file)?) == seen.stamp));
        match good {
            Ok(true) => Outcome::Hit,
            Ok(false) => {
                buf.truncate(start);
                Outcome::Doubt
            }
            Err(error) => {
                buf.truncate(start);
                self.note_read_error(&error);
                Outcome::Miss
            }
        }
    }

    /// Returns after how many uses of others the next one of an object counts.
    fn ticks_of_one_use(&self) -> u64 {
        (self.counters.objects.load(Ordering::Relaxed) / ONE_USE_PART).max(ONE_USE_TICKS)
    }

    fn ticks_since(&self, tick: Tick) -> u64 {
        u64::from(self.ticks.load(Ordering::Relaxed).wrapping_sub(tick))
    }

    /// Looks an object up and counts the use; none unless it `has` what is wanted.
    pub(super) fn look(
        &self,
        id: VersionId,
        has: impl Fn(&Entry) -> bool,
        checked: impl Fn(&Entry) -> bool,
    ) -> Option<Seen> {
        let now = self.seconds();
        let ticks_of_one_use = self.ticks_of_one_use();
        self.index.with(id, |entry| {
            if !has(entry) {
                return None;
            }
            let is_old = now.saturating_sub(entry.last_use_seconds) >= ONE_USE_SECONDS;
            if is_old || self.ticks_since(entry.last_use) >= ticks_of_one_use {
                entry.last_use = self.next_tick();
                entry.uses = entry.uses.wrapping_add(1);
            }
            entry.last_use_seconds = now;
            Some(Seen {
                birth: entry.birth,
                size: entry.size,
                stamp: entry.stamp,
                file: entry.file.clone(),
                checked: checked(entry),
            })
        })?
    }

    /// Returns the open file of an object, opening it; none when that fails.
    fn file_of(&self, id: VersionId, seen: &Seen) -> Option<Arc<File>> {
        if let Some(file) = &seen.file {
            return Some(Arc::clone(file));
        }
        let file = Arc::new(self.files.open_read(id).ok()?);
        self.keep_open(id, seen.birth, &file);
        Some(file)
    }

    fn keep_open(&self, id: VersionId, birth: u64, file: &Arc<File>) {
        let kept = self
            .index
            .with_birth(id, birth, |entry| {
                entry.file.replace(Arc::clone(file)).is_none()
            })
            .unwrap_or(false);
        if !kept {
            return;
        }
        let mut open = self.open_files.lock();
        open.push_back((id, birth));
        let oldest = if open.len() > OPEN_FILES_MAX {
            open.pop_front()
        } else {
            None
        };
        drop(open);
        if let Some((id, birth)) = oldest {
            // Closed after the lock of the entry is given up.
            drop(self.index.with_birth(id, birth, |entry| entry.file.take()));
        }
    }

    /// Reads with the checksums deciding on every page in doubt.
    fn read_checking(&self, id: VersionId, range: ByteRange, buf: &mut Vec<u8>) -> bool {
        let _files = self.index.lock_files(id);
        let start = buf.len();
        // Again when the file changes meanwhile: then the first round's belief was for nothing.
        for _ in 0..2 {
            let Some(settled) = self.settle(id) else {
                return false;
            };
            let mut checked = Vec::new();
            let good = self.append_pages(id, &settled, range, (buf, &mut checked));
            match good {
                Ok(true) => {}
                Ok(false) => {
                    buf.truncate(start);
                    return false;
                }
                Err(error) => {
                    buf.truncate(start);
                    self.note_read_error(&error);
                    return false;
                }
            }
            if files::stat(&settled.file).is_ok_and(|stat| Stamp::of(&stat) == settled.stamp) {
                self.note_checked(id, settled.birth, &checked);
                return true;
            }
            buf.truncate(start);
        }
        false
    }

    /// Opens the file of an object and compares it with the index, which believes none of its pages
    /// if it was touched. An object whose file is gone or too long is dropped. The lock of the files
    /// must be held.
    pub(super) fn settle(&self, id: VersionId) -> Option<Settled> {
        let (birth, size, known) = self
            .index
            .with(id, |entry| (entry.birth, entry.size, entry.stamp))?;
        let opened = self.files.open_read(id).and_then(|file| {
            let stat = files::stat(&file)?;
            Ok((file, stat))
        });
        let (file, stat) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                match error.kind() {
                    std::io::ErrorKind::NotFound => self.drop_touched(id, birth, "is gone"),
                    _ => self.note_read_error(&error),
                }
                return None;
            }
        };
        if u64::try_from(stat.st_size).is_ok_and(|now| now > size) {
            self.drop_touched(id, birth, "grew");
            return None;
        }
        let stamp = Stamp::of(&stat);
        let file = Arc::new(file);
        // Whatever was open or is kept may be of another file by now.
        let outdated = |entry: &mut Entry| {
            let left = entry.kept.as_mut().and_then(|kept| kept.clear());
            (entry.file.take(), left)
        };
        drop(self.index.with_birth(id, birth, outdated));
        self.keep_open(id, birth, &file);
        if stamp != known {
            self.distrust(id, birth, stamp);
        }
        Some(Settled {
            birth,
            size,
            stamp,
            file,
        })
    }

    /// Believes no page of an object any more: somebody touched its file.
    pub(super) fn distrust(&self, id: VersionId, birth: u64, stamp: Stamp) {
        self.counters.touched.fetch_add(1, Ordering::Relaxed);
        self.warn_once_a_minute(|| format!("the file of {id} was touched and is checked again"));
        self.index.with_birth(id, birth, |entry| {
            entry.stamp = stamp;
            entry.unchecked = entry.present.clone();
        });
    }

    fn drop_touched(&self, id: VersionId, birth: u64, how: &str) {
        self.counters.touched.fetch_add(1, Ordering::Relaxed);
        self.warn_once_a_minute(|| format!("the file of {id} {how}; fetched again when needed"));
        self.drop_object(id, birth);
    }

    /// Appends the range page by page and notes which pages were checked; false when one is bad.
    fn append_pages(
        &self,
        id: VersionId,
        settled: &Settled,
        range: ByteRange,
        (buf, checked): (&mut Vec<u8>, &mut Vec<u64>),
    ) -> std::io::Result<bool> {
        let mut chunk: Option<(u64, Chunk)> = None;
        for page in range.pages() {
            let known = self.index.with_birth(id, settled.birth, |entry| {
                entry.present.has(page).then(|| !entry.unchecked.has(page))
            });
            let Some(believed) = known.flatten() else {
                return Ok(false);
            };
            let page_start = page * PAGE_SIZE;
            let from = range.offset.max(page_start) - page_start;
            let to = (range.end() - page_start).min(page_len(settled.size, page));
            if believed {
                let len = usize::try_from(to - from).unwrap_or(usize::MAX);
                if !files::read_at(&settled.file, page_start + from, len, buf)? {
                    return Ok(false);
                }
                continue;
            }
            let number = page / CHUNK_PAGES;
            if chunk.as_ref().is_none_or(|(have, _)| *have != number) {
                // Without the index there is no telling: a miss, but nothing is thrown away.
                match self.load_chunk(id, settled.birth, settled.size, number) {
                    Ok(loaded) => chunk = Some((number, loaded)),
                    Err(_) => return Ok(false),
                }
            }
            let crc = chunk.as_ref().and_then(|(_, chunk)| chunk.get(page));
            if !append_checked(settled, page, (from, to), (crc, buf))? {
                self.drop_page(id, settled.birth, page);
                return Ok(false);
            }
            checked.push(page);
        }
        Ok(true)
    }

    pub(super) fn note_checked(&self, id: VersionId, birth: u64, pages: &[u64]) {
        self.index.with_birth(id, birth, |entry| {
            for page in pages {
                entry.unchecked.remove(*page);
            }
            entry.unsaved |= entry.unchecked.is_empty() && !pages.is_empty();
        });
    }

    /// Throws a bad page away.
    pub(super) fn drop_page(&self, id: VersionId, birth: u64, page: u64) {
        self.counters.corrupt.fetch_add(1, Ordering::Relaxed);
        self.warn_once_a_minute(|| {
            format!("page {page} of {id} fails its checksum; fetched again when needed")
        });
        let freed = self.index.with_birth(id, birth, |entry| {
            let before = entry.charge();
            entry.unchecked.remove(page);
            let freed = entry.present.remove(page).then(|| before - entry.charge());
            self.rules.give_back(entry.rule, freed.unwrap_or(0));
            freed
        });
        if let Some(freed) = freed.flatten() {
            self.counters.pages.fetch_sub(1, Ordering::Relaxed);
            self.space.give_back(freed);
            if let Err(error) = self.store_page(id, birth, page, None) {
                self.retire("write the index", &error);
            }
        }
    }

    pub(super) fn note_read_error(&self, error: &std::io::Error) {
        if files::is_disk_fault(error) {
            self.retire("read a cache file", error);
        }
    }

    /// Checks all pages in doubt of an object, giving others a chance between them, until `stop`.
    pub(super) fn check_whole(&self, id: VersionId, stop: impl Fn() -> bool) {
        let mut buf = Vec::new();
        {
            // Brings the index in line with the file, also when no page is in doubt so far.
            let _files = self.index.lock_files(id);
            if self.settle(id).is_none() {
                return;
            }
        }
        let Some((pages, size)) = self.index.with(id, |e| (e.all_pages(), e.size)) else {
            return;
        };
        for page in pages {
            if stop() || self.is_out_of_service() {
                return;
            }
            match self.index.with(id, |entry| entry.unchecked.has(page)) {
                None => return,
                Some(false) => continue,
                Some(true) => {}
            }
            buf.clear();
            let range = PageRange {
                first: page,
                end: page + 1,
            }
            .bytes(size);
            if !self.read_checking(id, range, &mut buf) {
                return;
            }
        }
    }
}

/// Reads a page, compares its checksum and appends the part of it between `from` and `to`.
fn append_checked(
    settled: &Settled,
    page: u64,
    (from, to): (u64, u64),
    (crc, buf): (Option<u32>, &mut Vec<u8>),
) -> std::io::Result<bool> {
    let start = buf.len();
    let len = usize::try_from(page_len(settled.size, page)).unwrap_or(usize::MAX);
    if !files::read_at(&settled.file, page * PAGE_SIZE, len, buf)? {
        return Ok(false);
    }
    if crc != Some(crc_fast::crc32_iscsi(&buf[start..])) {
        buf.truncate(start);
        return Ok(false);
    }
    let part = |n: u64| start + usize::try_from(n).unwrap_or(usize::MAX).min(len);
    buf.copy_within(part(from)..part(to), start);
    buf.truncate(start + part(to) - part(from));
    Ok(true)
}

impl Inner {
    /// Reads the checksums of a chunk from the index; all absent when it has none.
    pub(super) fn load_chunk(
        &self,
        id: VersionId,
        birth: u64,
        size: u64,
        chunk: u64,
    ) -> types::Result<Chunk> {
        let empty = || Chunk::empty(size, chunk);
        if record::has_one_chunk(size) {
            let value = self.kv.get(&record::head_key(id))?;
            let found = value.as_deref().and_then(record::decode_head);
            let found = found.filter(|(head, _)| head.birth == birth && head.size == size);
            return Ok(found.and_then(|(_, chunk)| chunk).unwrap_or_else(empty));
        }
        let value = self.kv.get(&record::chunk_key(id, chunk))?;
        let head = record::Head {
            size,
            stamp: 0,
            birth,
            run: 0,
        };
        let found = value.and_then(|value| record::decode_chunk(head, chunk, &value));
        Ok(found.unwrap_or_else(empty))
    }
}
