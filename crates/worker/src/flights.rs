// SPDX-License-Identifier: Apache-2.0
//! Which pieces of which object versions are under way, or in memory and not yet in the cache.
//!
//! A [`Piece`] is a run of at most 1 MiB of pages that one flight fetches. It stays in the table
//! until its bytes are in the cache, or until memory is wanted for something else. Pieces of one
//! version never overlap, so each page has at most one flight, whoever asks for it.
//!
//! Lock order: the table, then the cache's own locks (presence is asked under the table's lock, so
//! that a page which just moved from a piece into the cache is not fetched again).

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use types::{ByteRange, Deadline, Error, ErrorKind, PAGE_SIZE, PageRange, Result, VersionId};

use crate::progress::{Progress, while_other_moves};
use crate::settings::PIECE_MAX;

/// A run of pages on its way from the storage to its readers and into the cache.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) pages: PageRange,
    landed: OnceLock<Result<Bytes>>,
    settled: OnceLock<()>,
    wanted: OnceLock<()>,
    was_read: AtomicBool,
    /// That of its flight, once it is sent.
    progress: OnceLock<Arc<Progress>>,
    changed: Notify,
}

impl Piece {
    fn new(pages: PageRange) -> Arc<Self> {
        Arc::new(Piece {
            pages,
            landed: OnceLock::new(),
            settled: OnceLock::new(),
            wanted: OnceLock::new(),
            was_read: AtomicBool::new(false),
            progress: OnceLock::new(),
            changed: Notify::new(),
        })
    }

    /// Tells which flight brings the bytes. The first call counts.
    pub(crate) fn flies(&self, progress: &Arc<Progress>) {
        self.progress.get_or_init(|| Arc::clone(progress));
    }

    /// Returns when the flight moved last.
    pub(crate) fn moved(&self) -> Option<Instant> {
        self.progress.get()?.last()
    }

    /// Gives the bytes, or why there are none, to all who wait. The first call counts.
    pub(crate) fn land(&self, outcome: Result<Bytes>) {
        if self.landed.set(outcome).is_ok() {
            self.changed.notify_waiters();
        }
    }

    /// Tells that nothing more will happen: the bytes are in the cache, or will not be.
    pub(crate) fn settle(&self) {
        if self.settled.set(()).is_ok() {
            self.changed.notify_waiters();
        }
    }

    /// Returns the bytes when they have arrived.
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        self.landed.get().and_then(|outcome| outcome.as_ref().ok())
    }

    /// Waits for the bytes, which are no guess from now on, for as long as the flight moves.
    pub(crate) async fn wait(&self, deadline: Deadline) -> Result<Bytes> {
        if self.wanted.set(()).is_ok() {
            self.changed.notify_waiters();
        }
        if let Some(progress) = self.progress.get() {
            progress.link();
        }
        self.wait_for(&self.landed, deadline).await?.clone()
    }

    /// Waits until the bytes are in the cache, or will not be.
    pub(crate) async fn wait_settled(&self, deadline: Deadline) -> Result<()> {
        // By then, whatever else moves: what settles it is a disk.
        let settled = tokio::time::timeout_at(deadline.instant().into(), self.set(&self.settled));
        let late = |_| Error::new(ErrorKind::Timeout, "the cache did not take it in time");
        settled.await.copied().map_err(late)
    }

    /// Waits for the bytes as who guesses that they will be wanted.
    pub(crate) async fn wait_landed(&self, deadline: Deadline) -> Result<()> {
        self.wait_for(&self.landed, deadline)
            .await?
            .clone()
            .map(|_| ())
    }

    /// Waits until somebody waits for the bytes.
    pub(crate) async fn wait_wanted(&self) {
        self.set(&self.wanted).await;
    }

    async fn wait_for<'a, T>(&self, cell: &'a OnceLock<T>, deadline: Deadline) -> Result<&'a T> {
        let set = while_other_moves(deadline, || self.moved(), self.set(cell)).await;
        set.ok_or_else(|| {
            let span = deadline.span();
            let message = format!("the storage did not move for {span:?}, which is the deadline");
            Error::new(ErrorKind::Timeout, message)
        })
    }

    async fn set<'a, T>(&self, cell: &'a OnceLock<T>) -> &'a T {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(value) = cell.get() {
                return value;
            }
            changed.await;
        }
    }

    /// Takes note of a read up to `end` of an object of `size` bytes.
    pub(crate) fn note_read(&self, end: u64, size: u64) {
        if end >= self.range(size).end() {
            self.was_read.store(true, Ordering::Relaxed);
        }
    }

    /// Returns the piece's bytes of the object.
    pub(crate) fn range(&self, size: u64) -> ByteRange {
        self.pages.bytes(size)
    }
}

/// The pieces of all object versions.
#[derive(Debug, Default)]
pub(crate) struct Flights {
    table: Mutex<HashMap<VersionId, BTreeMap<u64, Arc<Piece>>>>,
    /// Number of pieces in the table, so that the hit path need not lock an empty one.
    count: AtomicUsize,
    /// Landed pieces that no cache took, oldest first.
    loose: Mutex<VecDeque<Loose>>,
}

/// The pieces of a range of pages, both in order.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// Those that the caller has to fetch.
    pub(crate) own: Vec<Arc<Piece>>,
    /// All of them. Pages between them were in the cache.
    pub(crate) all: Vec<Arc<Piece>>,
}

/// A landed piece that is only in memory.
#[derive(Debug)]
pub(crate) struct Loose {
    pub(crate) id: VersionId,
    /// Length of the object.
    pub(crate) size: u64,
    pub(crate) piece: Arc<Piece>,
    /// Whether the cache may be offered it again, once it is idle.
    pub(crate) for_cache: bool,
    /// Why the object must stay in the cache, if it must.
    pub(crate) pin: Option<cache::Pin>,
    /// The rule that it follows there.
    pub(crate) rule: Option<u64>,
}

impl Flights {
    /// Returns whether no piece is in the table.
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// Returns the pieces that hold any of these pages, in order.
    pub(crate) fn covering(&self, id: VersionId, pages: PageRange) -> Vec<Arc<Piece>> {
        match self.table.lock().get(&id) {
            Some(pieces) => overlapping(pieces, pages).cloned().collect(),
            None => Vec::new(),
        }
    }

    /// Counts the bytes of `pages` that neither a piece nor `is_cached` has.
    pub(crate) fn missing(
        &self,
        id: VersionId,
        pages: PageRange,
        is_cached: impl FnOnce(PageRange) -> Vec<bool>,
    ) -> u64 {
        let table = self.table.lock();
        let gaps = gaps(table.get(&id), pages, is_cached(pages));
        gaps.iter().map(|gap| gap.count() * PAGE_SIZE).sum()
    }

    /// Makes pieces for the pages that nobody fetches yet, at most `bytes_max` of them, and
    /// returns them in order: the caller fetches them. No piece crosses page `cut`.
    pub(crate) fn claim(
        &self,
        id: VersionId,
        pages: PageRange,
        cut: u64,
        bytes_max: u64,
        is_cached: impl FnOnce(PageRange) -> Vec<bool>,
    ) -> Vec<Arc<Piece>> {
        let mut table = self.table.lock();
        let gaps = gaps(table.get(&id), pages, is_cached(pages));
        self.claim_gaps(&mut table, id, gaps, (cut, bytes_max))
    }

    /// Makes pieces for all pages that nobody fetches yet. Says in bytes how many these are, and
    /// makes none, when they are more than `bytes_max`.
    pub(crate) fn claim_all(
        &self,
        id: VersionId,
        pages: PageRange,
        bytes_max: u64,
        is_cached: impl FnOnce(PageRange) -> Vec<bool>,
    ) -> std::result::Result<Claimed, u64> {
        let mut table = self.table.lock();
        let gaps = gaps(table.get(&id), pages, is_cached(pages));
        let missing = gaps.iter().map(|gap| gap.count() * PAGE_SIZE).sum();
        if missing > bytes_max {
            return Err(missing);
        }
        let own = self.claim_gaps(&mut table, id, gaps, (pages.end, missing));
        let all = table
            .get(&id)
            .map(|pieces| overlapping(pieces, pages).cloned().collect());
        Ok(Claimed {
            own,
            all: all.unwrap_or_default(),
        })
    }

    fn claim_gaps(
        &self,
        table: &mut HashMap<VersionId, BTreeMap<u64, Arc<Piece>>>,
        id: VersionId,
        gaps: Vec<PageRange>,
        (cut, bytes_max): (u64, u64),
    ) -> Vec<Arc<Piece>> {
        let mut left = bytes_max / PAGE_SIZE;
        let mut claimed = Vec::new();
        for gap in gaps {
            let end = gap.end.min(gap.first + left);
            left -= end - gap.first;
            claimed.extend(
                pieces_of(
                    PageRange {
                        first: gap.first,
                        end,
                    },
                    cut,
                )
                .map(Piece::new),
            );
        }
        if !claimed.is_empty() {
            let pieces = table.entry(id).or_default();
            pieces.extend(
                claimed
                    .iter()
                    .map(|piece| (piece.pages.first, Arc::clone(piece))),
            );
            self.count.fetch_add(claimed.len(), Ordering::AcqRel);
        }
        claimed
    }

    /// Takes a piece out of the table; its waiters keep it.
    pub(crate) fn remove(&self, id: VersionId, piece: &Arc<Piece>) {
        let mut table = self.table.lock();
        let Some(pieces) = table.get_mut(&id) else {
            return;
        };
        if pieces
            .get(&piece.pages.first)
            .is_some_and(|found| Arc::ptr_eq(found, piece))
        {
            pieces.remove(&piece.pages.first);
            self.count.fetch_sub(1, Ordering::AcqRel);
            if pieces.is_empty() {
                table.remove(&id);
            }
        }
    }

    /// Keeps a landed piece that no cache took until memory is wanted. The oldest one makes way at
    /// once when memory `is_wanted` already: who waits for it has seen none to drop.
    pub(crate) fn keep_loose(&self, loose: Loose, is_wanted: impl FnOnce() -> bool) {
        self.loose.lock().push_back(loose);
        if is_wanted() {
            self.drop_loose();
        }
    }

    /// Drops the oldest loose piece; says whether there was one.
    pub(crate) fn drop_loose(&self) -> bool {
        let Some(loose) = self.loose.lock().pop_front() else {
            return false;
        };
        self.remove(loose.id, &loose.piece);
        true
    }

    /// Drops the oldest loose piece that was read to its end; says whether there was one. Guesses
    /// make room with it: what was guessed before and is still to be read is worth as much.
    pub(crate) fn drop_loose_read(&self) -> bool {
        let read = {
            let mut loose = self.loose.lock();
            let was_read = |loose: &Loose| loose.piece.was_read.load(Ordering::Relaxed);
            let index = loose.iter().position(was_read);
            index.and_then(|index| loose.remove(index))
        };
        let Some(loose) = read else {
            return false;
        };
        self.remove(loose.id, &loose.piece);
        true
    }

    /// Takes the oldest loose piece that the cache was too busy for.
    pub(crate) fn take_for_cache(&self) -> Option<Loose> {
        let mut loose = self.loose.lock();
        let index = loose.iter().position(|loose| loose.for_cache)?;
        loose.remove(index)
    }
}

fn overlapping(
    pieces: &BTreeMap<u64, Arc<Piece>>,
    pages: PageRange,
) -> impl Iterator<Item = &Arc<Piece>> {
    let before = pieces.range(..pages.first).next_back();
    let first = before.filter(|(_, piece)| piece.pages.end > pages.first);
    first
        .into_iter()
        .chain(pieces.range(pages.first..pages.end))
        .map(|(_, piece)| piece)
}

/// Returns the runs of `pages` that no piece covers and that are not `cached`.
fn gaps(
    pieces: Option<&BTreeMap<u64, Arc<Piece>>>,
    pages: PageRange,
    mut taken: Vec<bool>,
) -> Vec<PageRange> {
    for piece in pieces
        .into_iter()
        .flat_map(|pieces| overlapping(pieces, pages))
    {
        for page in piece.pages.first.max(pages.first)..piece.pages.end.min(pages.end) {
            if let Some(slot) = usize::try_from(page - pages.first)
                .ok()
                .and_then(|i| taken.get_mut(i))
            {
                *slot = true;
            }
        }
    }
    let mut gaps: Vec<PageRange> = Vec::new();
    for (page, _) in pages.into_iter().zip(taken).filter(|(_, taken)| !taken) {
        match gaps.last_mut() {
            Some(gap) if gap.end == page => gap.end = page + 1,
            _ => gaps.push(PageRange {
                first: page,
                end: page + 1,
            }),
        }
    }
    gaps
}

/// Cuts a run at multiples of [`PIECE_MAX`] and at page `cut`.
fn pieces_of(run: PageRange, cut: u64) -> impl Iterator<Item = PageRange> {
    let step = PIECE_MAX / PAGE_SIZE;
    let mut first = run.first;
    std::iter::from_fn(move || {
        if first >= run.end {
            return None;
        }
        let mut end = ((first / step + 1) * step).min(run.end);
        if first < cut && cut < end {
            end = cut;
        }
        let piece = PageRange { first, end };
        first = end;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::in_memory;

    const ID: VersionId = VersionId(7);

    fn nothing_cached(pages: PageRange) -> Vec<bool> {
        vec![false; in_memory(pages.count())]
    }

    fn shape(pieces: &[Arc<Piece>]) -> Vec<(u64, u64)> {
        pieces
            .iter()
            .map(|piece| (piece.pages.first, piece.pages.end))
            .collect()
    }

    #[test]
    fn each_page_is_claimed_once_and_cached_pages_never() {
        let flights = Flights::default();
        let all = PageRange { first: 0, end: 20 };
        let first = flights.claim(
            ID,
            PageRange { first: 6, end: 9 },
            9,
            u64::MAX,
            nothing_cached,
        );
        assert_eq!(shape(&first), [(6, 8), (8, 9)]);
        let second = flights.claim(ID, all, 2, u64::MAX, |pages| {
            pages.into_iter().map(|page| page == 4).collect()
        });
        assert_eq!(shape(&second), [(0, 2), (2, 4), (5, 6), (9, 16), (16, 20)]);
        assert_eq!(flights.missing(ID, all, nothing_cached), PAGE_SIZE);
        assert_eq!(
            shape(&flights.covering(ID, PageRange { first: 7, end: 10 })),
            [(6, 8), (8, 9), (9, 16)]
        );
        for piece in first.iter().chain(&second) {
            flights.remove(ID, piece);
            flights.remove(ID, piece);
        }
        assert!(flights.is_empty() && flights.table.lock().is_empty());
    }

    #[test]
    fn a_claim_never_exceeds_its_bytes() {
        let flights = Flights::default();
        let pieces = flights.claim(
            ID,
            PageRange { first: 0, end: 40 },
            0,
            10 * PAGE_SIZE,
            nothing_cached,
        );
        assert_eq!(shape(&pieces), [(0, 8), (8, 10)]);
    }

    #[test]
    fn all_of_a_range_is_claimed_or_nothing() {
        let flights = Flights::default();
        let claim = |first, end, pages: u64| {
            let range = PageRange { first, end };
            flights.claim_all(ID, range, pages * PAGE_SIZE, nothing_cached)
        };
        assert_eq!(shape(&claim(2, 4, 2).unwrap().all), [(2, 4)]);
        assert_eq!(claim(0, 9, 6).unwrap_err(), 7 * PAGE_SIZE);
        let claimed = claim(0, 9, 7).unwrap();
        assert_eq!(shape(&claimed.own), [(0, 2), (4, 8), (8, 9)]);
        assert_eq!(shape(&claimed.all), [(0, 2), (2, 4), (4, 8), (8, 9)]);
        assert_eq!(shape(&claim(0, 9, 0).unwrap().own), []);
    }

    #[test]
    fn loose_pieces_go_oldest_first() {
        let flights = Flights::default();
        for piece in flights.claim(
            ID,
            PageRange { first: 0, end: 16 },
            0,
            u64::MAX,
            nothing_cached,
        ) {
            piece.land(Ok(Bytes::new()));
            let for_cache = piece.pages.first > 0;
            let loose = Loose {
                id: ID,
                size: 0,
                piece,
                for_cache,
                pin: None,
                rule: None,
            };
            flights.keep_loose(loose, || false);
        }
        assert_eq!(flights.take_for_cache().unwrap().piece.pages.first, 8);
        assert!(flights.take_for_cache().is_none());
        assert!(flights.drop_loose());
        assert_eq!(
            shape(&flights.covering(ID, PageRange { first: 0, end: 16 })),
            [(8, 16)]
        );
        assert!(!flights.drop_loose());
    }
}
