// SPDX-License-Identifier: Apache-2.0
//! One part of a file that is loaded: as much as one request asks for.
//!
//! Parts wait for free memory for as long as readers want it, and end when the cache has the bytes,
//! not when they have arrived: a cache that is behind makes a load slow instead of incomplete.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use types::{
    ByteRange, ByteSize, Deadline, Error, ErrorKind, ObjectRef, PAGE_SIZE, PageRange, Result,
};

use crate::flights::Piece;
use crate::neighbours::load::LOOK_AGAIN;
use crate::schedule::Class;
use crate::settings::REQUEST_MAX;
use crate::spans;
use crate::worker::Worker;

/// A request that waited for its turn until the deadline, while readers wanted all of them, queues
/// again so many times.
const TRIES: u32 = 3;

/// Bytes that arrive and go before the cache takes them, because readers want the memory, are fetched
/// again so many times.
const FETCHES_MAX: u32 = 8;

/// How long bytes that have arrived may wait for a cache that is behind.
const CACHE_PATIENCE: Duration = Duration::from_secs(30);

/// A file whose parts are fetched, in any order.
#[derive(Debug)]
pub(super) struct File {
    pub(super) object: ObjectRef,
    bytes_left: AtomicU64,
}

impl File {
    pub(super) fn new(object: ObjectRef) -> Self {
        let bytes_left = AtomicU64::new(object.size());
        File { object, bytes_left }
    }

    /// Takes note of bytes that are cached; returns whether that is all of the file.
    pub(super) fn arrived(&self, bytes: u64) -> bool {
        self.bytes_left.fetch_sub(bytes, Ordering::Relaxed) == bytes
    }
}

/// A part of a file.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) file: Arc<File>,
    pages: PageRange,
}

impl Part {
    pub(super) fn len(&self) -> u64 {
        self.pages.bytes(self.file.object.size()).len
    }
}

/// Cuts one file after the other into parts.
#[derive(Debug)]
pub(super) struct Parts {
    pages_max: u64,
    /// The file, and its pages that are not given out yet.
    file: Option<(Arc<File>, PageRange)>,
}

impl Parts {
    /// Makes parts of which a few fit into the memory that guesses may take.
    pub(super) fn new(memory: u64) -> Self {
        let pages_max = (REQUEST_MAX.min(memory / 4) / PAGE_SIZE).max(1);
        Parts {
            pages_max,
            file: None,
        }
    }

    /// Goes on with a file. The one before must have been given out.
    pub(super) fn begin(&mut self, file: Option<Arc<File>>) {
        debug_assert!(self.file.is_none(), "a file is lost");
        self.file = file.map(|file| {
            let pages = ByteRange::new(0, file.object.size()).pages();
            (file, pages)
        });
    }

    /// Returns the length of the next part.
    pub(super) fn next_len(&self) -> Option<u64> {
        let (file, pages) = self.file.as_ref()?;
        Some(self.cut(*pages).bytes(file.object.size()).len)
    }

    /// Returns the object of the next part.
    pub(super) fn object(&self) -> Option<&ObjectRef> {
        self.file.as_ref().map(|(file, _)| &file.object)
    }

    /// Goes on without the rest of the file.
    pub(super) fn give_up(&mut self) {
        self.file = None;
    }

    /// Gives out the next part.
    pub(super) fn next(&mut self) -> Option<Part> {
        let (file, mut left) = self.file.take()?;
        let pages = self.cut(left);
        left.first = pages.end;
        if left.count() > 0 {
            self.file = Some((Arc::clone(&file), left));
        }
        Some(Part { file, pages })
    }

    fn cut(&self, left: PageRange) -> PageRange {
        let end = left.end.min(left.first + self.pages_max);
        PageRange { end, ..left }
    }
}

/// Keeps a load below a number of bytes a second.
#[derive(Debug)]
pub(super) struct Pace {
    bandwidth: Option<ByteSize>,
    next: Option<Instant>,
}

impl Pace {
    pub(super) fn new(bandwidth: Option<ByteSize>) -> Self {
        Pace {
            bandwidth,
            next: None,
        }
    }

    /// Returns when the next request, for so many bytes, may be sent; none for at once.
    pub(super) fn start(&mut self, now: Instant, bytes: u64) -> Option<Instant> {
        let bandwidth = self.bandwidth?.0.max(1);
        let start = self.next.map_or(now, |next| next.max(now));
        let millis = bytes.saturating_mul(1000) / bandwidth;
        self.next = start.checked_add(Duration::from_millis(millis));
        Some(start)
    }
}

impl Worker {
    /// Fetches what is missing of a part, not before `start`. Returns how many bytes that were, when
    /// the cache has all of the part.
    pub(super) async fn load_part(
        self: Arc<Self>,
        part: Part,
        start: Option<Instant>,
    ) -> (Part, Result<u64>) {
        if let Some(start) = start {
            tokio::time::sleep_until(start.into()).await;
        }
        let (mut fetched, mut tries) = (0, 1);
        let outcome = loop {
            let span = spans::at("load", &part.file.object.path);
            let loaded = self.load_pages(&part.file.object, part.pages, &mut fetched);
            match spans::within(span, loaded).await {
                Err(error) if error.kind() == ErrorKind::Timeout && tries < TRIES => tries += 1,
                outcome => break outcome,
            }
        };
        (part, outcome.map(|()| fetched))
    }

    async fn load_pages(
        self: &Arc<Self>,
        object: &ObjectRef,
        pages: PageRange,
        fetched: &mut u64,
    ) -> Result<()> {
        let is_cached = |pages: PageRange| self.present(object, pages);
        let is_here = || self.present(object, pages).iter().all(|is_here| *is_here);
        let mut fetches = 0;
        while !is_here() {
            let missing = self.flights.missing(object.id, pages, is_cached);
            let pieces = if missing > 0 {
                if fetches == FETCHES_MAX {
                    return Err(not_cached());
                }
                let Some(mut share) = self.take_ahead(missing) else {
                    tokio::time::sleep(LOOK_AGAIN).await;
                    continue;
                };
                let first = pages.first;
                let own = (self.flights).claim(object.id, pages, first, missing, is_cached);
                let lens = own.iter().map(|piece| piece.range(object.size()).len);
                *fetched += lens.sum::<u64>();
                fetches += u32::from(!own.is_empty());
                // Before they are sent: one that fails at once leaves the table.
                let pieces = self.flights.covering(object.id, pages);
                let deadline = self.clock.deadline(self.settings.background_deadline);
                self.launch(object, own, &mut share, Class::Load, deadline);
                pieces
            } else {
                self.flights.covering(object.id, pages)
            };
            let deadline = self.clock.deadline(self.settings.background_deadline);
            for piece in &pieces {
                piece.wait_landed(deadline).await?;
            }
            let patience = self.clock.deadline(CACHE_PATIENCE);
            self.wait_cached(object, &pieces, patience, is_here).await?;
        }
        Ok(())
    }

    /// Waits until the cache has the bytes of pieces that have arrived, or somebody has to fetch them
    /// again.
    async fn wait_cached(
        &self,
        object: &ObjectRef,
        pieces: &[Arc<Piece>],
        patience: Deadline,
        is_here: impl Fn() -> bool,
    ) -> Result<()> {
        for piece in pieces {
            // One that takes long is told below.
            piece.wait_settled(patience).await.ok();
        }
        let is_in_memory = |piece: &Arc<Piece>| {
            let held = self.flights.covering(object.id, piece.pages);
            held.iter().any(|held| Arc::ptr_eq(held, piece))
        };
        while !is_here() && pieces.iter().any(is_in_memory) {
            if self.clock.now() >= patience.instant() {
                // Nobody reads them: they must not keep memory from others.
                for piece in pieces {
                    piece.note_read(piece.range(object.size()).end(), object.size());
                }
                return Err(not_cached());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

fn not_cached() -> Error {
    let message = "the cache did not take it: its disk is full, fails or does not keep up; 'forebay \
                   status' and the log tell more";
    Error::new(ErrorKind::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use types::{Clock, ManualClock, MountId, ObjectPath, VersionTag};

    use super::*;

    fn file(size: u64) -> Arc<File> {
        let tag = VersionTag {
            size,
            ..VersionTag::default()
        };
        let path = ObjectPath::parse(b"a").unwrap();
        Arc::new(File::new(ObjectRef::new(MountId(1), path, tag)))
    }

    #[test]
    fn a_file_is_cut_into_requests_and_whole_when_all_have_arrived() {
        let size = 2 * REQUEST_MAX + 5;
        let mut parts = Parts::new(1 << 30);
        parts.begin(Some(file(size)));
        let mut lens = Vec::new();
        while let Some(len) = parts.next_len() {
            let part = parts.next().unwrap();
            assert_eq!(part.len(), len);
            lens.push((len, part.file.arrived(len)));
        }
        let expected = [(REQUEST_MAX, false), (REQUEST_MAX, false), (5, true)];
        assert_eq!(lens, expected);
        assert!(parts.next().is_none());
    }

    #[test]
    fn parts_fit_into_little_memory() {
        let mut parts = Parts::new(4 * PAGE_SIZE);
        parts.begin(Some(file(10 * PAGE_SIZE)));
        assert_eq!(parts.next_len(), Some(PAGE_SIZE));
    }

    #[test]
    fn requests_are_spread_over_time_by_their_bytes() {
        let clock = ManualClock::default();
        let mut pace = Pace::new(Some(ByteSize(1000)));
        let now = clock.now();
        assert_eq!(pace.start(now, 500), Some(now));
        assert_eq!(pace.start(now, 500), Some(now + Duration::from_millis(500)));
        clock.advance(Duration::from_secs(10));
        assert_eq!(pace.start(clock.now(), 1), Some(clock.now()));
        assert_eq!(Pace::new(None).start(now, 500), None);
    }
}
