// SPDX-License-Identifier: Apache-2.0
//! The scrub: compares everything that is cached with its checksums, a bit at a time.
//!
//! What is believed is not doubted for it: readers and the kernel go on with the files, and only what
//! is found to be bad goes. A page that fails is a miss from then on, an object whose file is gone is
//! forgotten. Who scrubs decides how fast: each step reads about as much as it is told to.

use std::sync::atomic::Ordering;

use types::{PAGE_SIZE, PageRange, VersionId, in_memory};

use super::{Inner, Store};
use crate::files::{self, Stamp};
use crate::index::Index;
use crate::record::{CHUNK_PAGES, Chunk, page_len};

/// Pages compared under one hold of the lock: short enough for readers of the same shard to wait.
const UNIT_PAGES: u64 = 8;

/// What a scrub has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubCounts {
    /// Objects that were looked at.
    pub objects: u64,
    /// Pages that were compared.
    pub pages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Pages that failed and were dropped.
    pub bad_pages: u64,
    /// Objects of which a page failed.
    pub bad_objects: u64,
    /// Objects whose file was gone or of another length; they are forgotten.
    pub lost_objects: u64,
}

/// A scrub on its way through the cache.
#[derive(Debug, Default)]
pub struct Scrub {
    counts: ScrubCounts,
    shard: u16,
    ids: Vec<VersionId>,
    /// The object that is compared, its next page, and its bad ones so far.
    at: Option<(VersionId, u64, u64)>,
}

impl Scrub {
    /// Returns what was seen so far.
    pub fn counts(&self) -> ScrubCounts {
        self.counts
    }
}

/// What came of some pages.
enum Compared {
    Pages {
        pages: u64,
        bytes: u64,
        bad: u64,
    },
    Lost,
    /// It was evicted or removed meanwhile, or its file cannot be read now.
    Gone,
}

impl Store {
    /// Goes on with a scrub for about `bytes`; false when all is done, or the directory is out of
    /// use. Objects that come while it runs may be passed over. Blocks for as long as the disk takes.
    pub fn scrub_on(&self, scrub: &mut Scrub, bytes: u64) -> bool {
        let end = scrub.counts.bytes.saturating_add(bytes);
        while scrub.counts.bytes < end {
            if self.inner.is_out_of_service() {
                return false;
            }
            let Some((id, page, bad)) = scrub.at.take() else {
                match scrub.ids.pop() {
                    Some(id) => scrub.at = Some((id, 0, 0)),
                    None if scrub.shard == Index::SHARDS => return false,
                    None => {
                        let prefix = u8::try_from(scrub.shard).unwrap_or(u8::MAX);
                        scrub.ids = self.inner.index.ids(prefix, |_| true);
                        scrub.shard += 1;
                    }
                }
                continue;
            };
            scrub.at = self.inner.scrub_object(&mut scrub.counts, (id, page, bad));
        }
        true
    }
}

impl Store {
    /// Compares all that is here of an object with its checksums, and drops what is bad. Returns
    /// whether the object is here whole, then. Blocks for as long as the disk takes.
    pub fn verify(&self, id: VersionId) -> bool {
        let mut counts = ScrubCounts::default();
        let mut at = Some((id, 0, 0));
        while let Some(next) = at {
            if self.inner.is_out_of_service() {
                return false;
            }
            at = self.inner.scrub_object(&mut counts, next);
        }
        self.contains_whole(id)
    }
}

impl Inner {
    /// Compares the next pages of an object; returns where to go on, unless it is done.
    fn scrub_object(
        &self,
        counts: &mut ScrubCounts,
        (id, page, bad_before): (VersionId, u64, u64),
    ) -> Option<(VersionId, u64, u64)> {
        let all = self.index.with(id, |entry| entry.all_pages())?;
        let pages = PageRange {
            first: page,
            end: all.end.min(page + UNIT_PAGES),
        };
        counts.objects += u64::from(page == 0);
        let bad_before = match self.compare(id, pages) {
            Compared::Gone => return None,
            Compared::Lost => {
                counts.lost_objects += 1;
                return None;
            }
            Compared::Pages { pages, bytes, bad } => {
                counts.pages += pages;
                counts.bytes += bytes;
                counts.bad_pages += bad;
                counts.bad_objects += u64::from(bad_before == 0 && bad > 0);
                bad_before + bad
            }
        };
        (pages.end < all.end).then_some((id, pages.end, bad_before))
    }

    fn compare(&self, id: VersionId, pages: PageRange) -> Compared {
        let _files = self.index.lock_files(id);
        let known = self
            .index
            .with(id, |entry| (entry.birth, entry.size, entry.stamp));
        let Some((birth, size, stamp)) = known else {
            return Compared::Gone;
        };
        let file = match self.files.open_read(id) {
            Ok(file) => file,
            Err(_) => return self.compare_touched(id),
        };
        let is_touched = files::stat(&file).map_or(true, |stat| Stamp::of(&stat) != stamp);
        if is_touched && matches!(self.compare_touched(id), Compared::Lost) {
            return Compared::Lost;
        }
        let (mut done, mut bytes, mut good, mut bad) = (0, 0, Vec::new(), Vec::new());
        let mut chunk: Option<(u64, Chunk)> = None;
        let mut buf = Vec::new();
        for page in pages {
            let is_here = self
                .index
                .with_birth(id, birth, |entry| entry.present.has(page));
            match is_here {
                None => return Compared::Gone,
                Some(false) => continue,
                Some(true) => {}
            }
            let number = page / CHUNK_PAGES;
            if chunk.as_ref().is_none_or(|(have, _)| *have != number) {
                match self.load_chunk(id, birth, size, number) {
                    Ok(loaded) => chunk = Some((number, loaded)),
                    // Without the index there is no telling.
                    Err(_) => return Compared::Gone,
                }
            }
            let crc = chunk.as_ref().and_then(|(_, chunk)| chunk.get(page));
            buf.clear();
            let len = in_memory(page_len(size, page));
            match files::read_at(&file, page * PAGE_SIZE, len, &mut buf) {
                Ok(true) if crc == Some(crc_fast::crc32_iscsi(&buf)) => good.push(page),
                Ok(_) => bad.push(page),
                Err(error) => {
                    self.note_read_error(&error);
                    bad.push(page);
                }
            }
            done += 1;
            bytes += buf.len() as u64;
        }
        let is_same = files::stat(&file).is_ok_and(|stat| {
            let now = Stamp::of(&stat);
            let known = self.index.with_birth(id, birth, |entry| entry.stamp);
            known == Some(now)
        });
        if is_same {
            self.note_compared(id, birth, &good);
        }
        for page in &bad {
            self.drop_page(id, birth, *page);
        }
        Compared::Pages {
            pages: done,
            bytes,
            bad: bad.len() as u64,
        }
    }

    /// Brings the index in line with a file that is not as it was left.
    fn compare_touched(&self, id: VersionId) -> Compared {
        let touched = self.counters.touched.load(Ordering::Relaxed);
        match self.settle(id) {
            Some(_) => Compared::Gone,
            None if self.counters.touched.load(Ordering::Relaxed) > touched => Compared::Lost,
            None => Compared::Gone,
        }
    }

    /// Believes pages that were in doubt and are good.
    fn note_compared(&self, id: VersionId, birth: u64, good: &[u64]) {
        let doubted = self.index.with_birth(id, birth, |entry| {
            let pages = good.iter().copied();
            pages
                .filter(|page| entry.unchecked.has(*page))
                .collect::<Vec<_>>()
        });
        self.note_checked(id, birth, &doubted.unwrap_or_default());
    }
}
