// SPDX-License-Identifier: Apache-2.0
//! Files that become cached objects without a fetch: staged ones, and those of another version.
//!
//! A file is moved first and noted in the index then: after a crash in between, it is a stray that
//! goes at the next open, and the object is fetched. Nothing is synced here: as with a fill, the
//! checksums decide after an unclean stop.

use std::fs::File;
use std::sync::Arc;

use types::{ByteRange, PAGE_SIZE, PageRange, Result, VersionId, crash, in_memory, page_count};

use super::fill::Fault;
use super::{Inner, Store};
use crate::files::{self, Stamp};
use crate::index::Entry;
use crate::kv::Change;
use crate::record::{self, CHUNK_PAGES, Chunk, Head, page_len};
use crate::rules::NO_RULE;
use crate::staged::StagedFile;

/// Bytes copied at once when a file cannot be moved.
const COPY_BYTES: u64 = 8 * PAGE_SIZE;

impl Store {
    /// Takes a staged file in as the complete object `version`, whose bytes it must have: moved, when
    /// nobody else holds it, no note either, else copied. It must not show an older version any
    /// more. False when it cannot be: no room, out of use, the disk does not keep up, changed meanwhile.
    pub fn adopt(&self, version: VersionId, file: Arc<StagedFile>) -> Result<bool> {
        let inner = &self.inner;
        if !file.is_whole() || inner.is_out_of_service() || inner.kv.is_behind() {
            return Ok(false);
        }
        if self.contains_whole(version) {
            return Ok(true);
        }
        match Arc::try_unwrap(file) {
            Ok(only) if only.counts_in(self) => match inner.take_in(version, only)? {
                Taken::In => Ok(true),
                Taken::Refused => Ok(false),
                Taken::Unmovable(file) => self.copy_in(version, &file),
            },
            Ok(only) => self.copy_in(version, &only),
            Err(shared) => self.copy_in(version, &shared),
        }
    }

    /// Fills an object from a file that others may go on writing.
    fn copy_in(&self, version: VersionId, file: &StagedFile) -> Result<bool> {
        let (changes, size) = (file.changes(), file.len());
        let mut offset = 0;
        let mut buf = Vec::new();
        loop {
            buf.clear();
            let range = ByteRange::new(offset, COPY_BYTES).clamp(size);
            file.read_sound(range, &mut buf)?;
            let whole = buf.len() as u64 == range.len;
            if !whole || self.fill(version, size, offset / PAGE_SIZE, &buf).is_err() {
                break;
            }
            offset = range.end();
            if offset >= size {
                break;
            }
        }
        let unchanged = file.changes() == changes;
        if !unchanged {
            self.remove(version);
        }
        Ok(unchanged && self.contains_whole(version))
    }

    /// Makes the cached bytes of one version those of another, which must be the same bytes; false
    /// when there are none.
    pub fn relabel(&self, from: VersionId, to: VersionId) -> bool {
        !self.inner.is_out_of_service() && (from == to || self.inner.relabel(from, to))
    }
}

/// What came of taking a file in.
enum Taken {
    In,
    Refused,
    /// It lies on another file system.
    Unmovable(Box<StagedFile>),
}

impl Inner {
    /// Moves a file that nobody else holds in as a complete object.
    fn take_in(&self, id: VersionId, staged: StagedFile) -> Result<Taken> {
        let file = staged.trimmed()?;
        let size = staged.len();
        let crcs = checksums(&file, size)?;
        staged.check_sound(ByteRange::new(0, size))?;
        let birth = self.next_birth();
        let mut entry = Entry::new(size, birth, Stamp(0));
        entry.all_pages().into_iter().for_each(|page| {
            entry.present.insert(page);
        });
        let (charge, has) = (entry.charge(), staged.taken());
        let Ok(mut more) = self.make_room(charge.saturating_sub(has), id) else {
            return Ok(Taken::Refused);
        };
        let _files = self.index.lock_files(id);
        if let Some(old) = self.index.with(id, |entry| entry.birth) {
            self.drop_object(id, old);
        }
        let moved = self.files.move_in(id, |to, name| staged.move_to(to, name));
        match moved.flatten() {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {
                return Ok(Taken::Unmovable(Box::new(staged)));
            }
            Err(error) => {
                self.note_write_fault(Fault::Write(error));
                return Ok(Taken::Refused);
            }
        }
        crash::point("cache.adopt_moved");
        // From here on the object is charged what the file was.
        more.keep(charge.saturating_sub(has));
        self.space.give_back(has.saturating_sub(charge));
        let noted = files::stat(&file).map_err(Fault::Write).and_then(|stat| {
            entry.stamp = Stamp::of(&stat);
            let records = self.records_of(id, &entry, &crcs);
            self.kv.write(records).map_err(Fault::Index)
        });
        if let Err(fault) = noted {
            self.note_write_fault(fault);
            self.remove_file(id, &entry);
            return Ok(Taken::Refused);
        }
        crash::point("cache.adopt_noted");
        self.enter(id, entry);
        Ok(Taken::In)
    }

    /// Returns the records of a complete object that is not in doubt.
    fn records_of(&self, id: VersionId, entry: &Entry, crcs: &[u32]) -> Vec<Change> {
        let chunk_of = |number: u64| {
            let mut chunk = Chunk::empty(entry.size, number);
            let first = number * CHUNK_PAGES;
            let mine = crcs.iter().skip(in_memory(first)).take(chunk.0.len());
            for (page, crc) in (first..).zip(mine) {
                chunk.set(page, Some(*crc));
            }
            chunk
        };
        let head = Head {
            size: entry.size,
            stamp: entry.stamp.0,
            birth: entry.birth,
            run: self.runs.run,
        };
        let chunks = (0..record::chunk_records(entry.size)).map(|number| {
            let value = record::encode_chunk(entry.birth, &chunk_of(number));
            (record::chunk_key(id, number), Some(value))
        });
        let mut records: Vec<Change> = chunks.collect();
        let only = record::has_one_chunk(entry.size).then(|| chunk_of(0));
        let value = record::encode_head(head, only.as_ref());
        records.push((record::head_key(id), Some(value)));
        records
    }

    fn relabel(&self, from: VersionId, to: VersionId) -> bool {
        let _files = self.index.lock_files_of_both(from, to);
        let Some(known) = self.index.with(from, |entry| entry.birth) else {
            return false;
        };
        if let Some((whole, birth)) = self.index.with(to, |entry| (entry.is_whole(), entry.birth)) {
            if whole {
                self.drop_object(from, known);
                return true;
            }
            self.drop_object(to, birth);
        }
        match self.move_object(from, to, known) {
            Ok(()) => true,
            Err(fault) => {
                self.note_write_fault(fault);
                false
            }
        }
    }

    /// Moves an object under another id. The locks of the files of both must be held.
    fn move_object(
        &self,
        from: VersionId,
        to: VersionId,
        known: u64,
    ) -> std::result::Result<(), Fault> {
        let file = self.files.open_read(from).map_err(Fault::Write)?;
        let before = Stamp::of(&files::stat(&file).map_err(Fault::Write)?);
        let seen = self
            .index
            .with_birth(from, known, |entry| (entry.size, entry.stamp));
        let (size, stamp) = seen.ok_or_else(gone)?;
        if before != stamp {
            self.distrust(from, known, before);
        }
        let birth = self.next_birth();
        let mut chunks = Vec::new();
        for number in 0..page_count(size).div_ceil(CHUNK_PAGES).max(1) {
            let chunk = self.load_chunk(from, known, size, number);
            chunks.push(chunk.map_err(Fault::Index)?);
        }
        // Its next name decides anew.
        self.unpin_known(from).map_err(Fault::Index)?;
        self.files.relabel(from, to).map_err(Fault::Write)?;
        crash::point("cache.relabel_moved");
        let Some(mut entry) = self.index.remove_if(from, |entry| entry.birth == known) else {
            return Err(gone());
        };
        entry.birth = birth;
        entry.queued = true;
        // Not among the files that are kept open any more, nor those that something is left with.
        entry.file = None;
        drop(entry.kept.take());
        let noted = files::stat(&file).map_err(Fault::Write).and_then(|stat| {
            entry.stamp = Stamp::of(&stat);
            let records = self.records_of_moved(from, to, &entry, &chunks);
            self.kv.write(records).map_err(Fault::Index)
        });
        self.uncount(&entry);
        entry.rule = NO_RULE;
        if noted.is_err() {
            self.remove_file(to, &entry);
        } else {
            crash::point("cache.relabel_noted");
            self.enter(to, entry);
        }
        noted
    }

    /// Returns the records that move an object.
    fn records_of_moved(
        &self,
        from: VersionId,
        to: VersionId,
        entry: &Entry,
        chunks: &[Chunk],
    ) -> Vec<Change> {
        let head = Head {
            size: entry.size,
            stamp: entry.stamp.0,
            birth: entry.birth,
            run: match entry.unchecked.is_empty() {
                true => self.runs.run,
                false => 0,
            },
        };
        let mut records = vec![
            (record::head_key(from), None),
            (
                record::head_key(to),
                Some(record::encode_head(head, chunks.first())),
            ),
        ];
        if entry.rule != NO_RULE {
            records.push((record::rule_key(from), None));
        }
        for number in 0..record::chunk_records(entry.size) {
            let chunk = &chunks[in_memory(number)];
            records.push((record::chunk_key(from, number), None));
            if chunk.0.iter().any(Option::is_some) {
                let value = record::encode_chunk(entry.birth, chunk);
                records.push((record::chunk_key(to, number), Some(value)));
            }
        }
        records
    }
}

fn gone() -> Fault {
    Fault::Write(std::io::ErrorKind::NotFound.into())
}

/// Reads a file once and returns the checksum of each page.
fn checksums(file: &File, size: u64) -> Result<Vec<u32>> {
    let mut crcs = Vec::with_capacity(in_memory(page_count(size)));
    let mut buf = Vec::new();
    let pages = PageRange {
        first: 0,
        end: page_count(size),
    };
    for page in pages {
        buf.clear();
        let len = in_memory(page_len(size, page));
        let read = files::read_at(file, page * PAGE_SIZE, len, &mut buf);
        let whole = read.map_err(|e| types::Error::io("read a staged file", e))?;
        if !whole {
            return Err(types::Error::internal(
                "a staged file is shorter than its length",
            ));
        }
        crcs.push(crc_fast::crc32_iscsi(&buf));
    }
    Ok(crcs)
}
