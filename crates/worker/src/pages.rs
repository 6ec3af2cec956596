// SPDX-License-Identifier: Apache-2.0
//! Reads: a hit is a copy on the caller's thread, a miss joins flights or starts them.
//!
//! What is missing of the range that a reader waits for is claimed once its memory is there; the
//! rest of the window rides in the same requests while memory is free. A reader that joined
//! somebody else's flight and saw it fail tries again itself while its own deadline lasts. The deadline
//! is that of a storage in which nothing moves: what waits for memory, for a turn or for a flight waits
//! on while those before it, and then the flight, bring bytes (`progress`).

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use types::{
    ByteRange, Deadline, Error, ErrorKind, ObjectRef, PAGE_SIZE, PageRange, Result, in_memory,
};

use crate::flights::{Loose, Piece};
use crate::memory::Share;
use crate::meta::timed;
use crate::progress::renewed;
use crate::schedule::Class;
use crate::settings::REQUEST_MAX;
use crate::worker::Worker;

/// Tries of one read: its own, one after a flight of somebody else failed, and one that does not
/// trust the cache, after a page that was there a moment ago could not be read.
pub(crate) const TRIES: usize = 3;

/// What a read waits for.
pub(crate) struct Claim {
    /// Whether it started all flights itself.
    pub(crate) own: bool,
    /// The pieces of the range that are not in the cache, held so that none can vanish meanwhile.
    pub(crate) pieces: Vec<Arc<Piece>>,
    /// Until when they may come, if nothing moves.
    pub(crate) deadline: Deadline,
}

impl Worker {
    /// Appends `range` of the object to `buf` when cache or memory has all of it; makes no
    /// request. Returns false, with `buf` as it was, when anything is missing.
    pub fn read_cached(&self, object: &ObjectRef, range: ByteRange, buf: &mut Vec<u8>) -> bool {
        let before = buf.len();
        let mut from_memory = false;
        let hit = if self.flights.is_empty() {
            self.read_store(object, range, buf)
        } else {
            let pieces = self.flights.covering(object.id, range.pages());
            from_memory = !pieces.is_empty();
            self.read_mixed(object, range, &pieces, buf)
        };
        if !hit {
            buf.truncate(before);
            return false;
        }
        let counters = &self.counters;
        if from_memory {
            &counters.memory_hits
        } else {
            &counters.hits
        }
        .add(1);
        counters.hit_bytes.add(range.len);
        true
    }

    /// Reads a range that [`Worker::read_cached`] did not have. `window` holds the range and what
    /// the reader is expected to want next. Dropping the future is safe: the fetch goes on.
    ///
    /// # Errors
    /// `Stale` when the object is another version now, `Timeout` when nothing has moved for as long as
    /// the deadline gives, and whatever the storage said.
    pub fn read(
        self: &Arc<Self>,
        object: ObjectRef,
        range: ByteRange,
        window: ByteRange,
        deadline: Deadline,
    ) -> BoxFuture<'static, Result<Bytes>> {
        let worker = Arc::clone(self);
        worker.counters.misses.add(1);
        worker.counters.miss_bytes.add(range.len);
        async move {
            let range = range.clamp(object.size());
            let mut deadline = deadline;
            let mut trust_cache = true;
            let mut tries = 1;
            loop {
                let claim = worker
                    .claim(&object, range, window, trust_cache, deadline)
                    .await?;
                let own = claim.own;
                deadline = claim.deadline;
                let collected = worker.collect(&object, range, claim.pieces, &mut deadline);
                let error = match collected.await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => error,
                };
                let again = match error.kind() {
                    ErrorKind::Corrupt => trust_cache,
                    _ => !own && worker.may_try_again(&error, deadline),
                };
                if !again || tries == TRIES {
                    return Err(error);
                }
                trust_cache &= error.kind() != ErrorKind::Corrupt;
                tries += 1;
            }
        }
        .boxed()
    }

    /// Fetches a range that nobody waits for yet, as far as memory is free. Returns at once.
    pub fn read_ahead(self: &Arc<Self>, object: &ObjectRef, range: ByteRange) {
        let range = range.clamp(object.size());
        let mut pages = range.pages();
        while pages.first < pages.end {
            let end = pages.end.min(pages.first + REQUEST_MAX / PAGE_SIZE);
            let part = PageRange {
                first: pages.first,
                end,
            };
            pages.first = end;
            let missing = self
                .flights
                .missing(object.id, part, |pages| self.present(object, pages));
            if missing == 0 {
                continue;
            }
            let Some(mut share) = self.take_ahead(missing) else {
                return;
            };
            let pieces = self
                .flights
                .claim(object.id, part, part.first, missing, |pages| {
                    self.present(object, pages)
                });
            let deadline = self.clock.deadline(self.settings.background_deadline);
            self.launch(object, pieces, &mut share, Class::Ahead, deadline);
        }
    }

    /// Sends a landed piece to its readers and on to the cache.
    pub(crate) fn landed(&self, object: &ObjectRef, piece: &Arc<Piece>, bytes: Bytes) {
        piece.land(Ok(bytes.clone()));
        let loose = Loose {
            id: object.id,
            size: object.size(),
            piece: Arc::clone(piece),
            for_cache: false,
            pin: self.pins.of(object.mount, &object.path),
            rule: self.rules.of(object.mount, &object.path),
        };
        match &self.fill {
            Some(fill) => fill.offer(loose, bytes),
            None => {
                piece.settle();
                self.flights.keep_loose(loose, || self.budget.is_wanted());
            }
        }
    }

    pub(crate) fn present(&self, object: &ObjectRef, pages: PageRange) -> Vec<bool> {
        match &self.cache {
            Some(cache) => cache.present(object.id, pages),
            None => vec![false; in_memory(pages.count())],
        }
    }

    /// Says whether a reader whose flight somebody else started should start one itself.
    pub(crate) fn may_try_again(&self, error: &Error, deadline: Deadline) -> bool {
        use ErrorKind::{NotFound, PermissionDenied, Stale};
        !matches!(error.kind(), Stale | NotFound | PermissionDenied)
            && self.clock.now() < deadline.instant()
    }

    /// Starts flights for what is missing of `range`, and of `window` while memory is free.
    pub(crate) async fn claim(
        self: &Arc<Self>,
        object: &ObjectRef,
        range: ByteRange,
        window: ByteRange,
        trust_cache: bool,
        mut deadline: Deadline,
    ) -> Result<Claim> {
        let is_cached = |pages: PageRange| match trust_cache {
            true => self.present(object, pages),
            false => vec![false; in_memory(pages.count())],
        };
        let demand = range.pages();
        let mut memory: Option<(u64, Share)> = None;
        // More may be missing after the wait for memory: a loose piece of this very range made way.
        // What was taken goes back before more is, so that nobody waits while holding some.
        let claimed = loop {
            let have = memory.as_ref().map_or(0, |(bytes, _)| *bytes);
            match self.flights.claim_all(object.id, demand, have, is_cached) {
                Ok(claimed) => break claimed,
                Err(missing) => {
                    drop(memory.take());
                    memory = Some((missing, self.take(missing, deadline).await?));
                    deadline = renewed(deadline, self.budget.pulse.last());
                }
            }
        };
        let own = claimed.own.len() == claimed.all.len();
        if let Some((_, mut share)) = memory.filter(|_| !claimed.own.is_empty()) {
            let mut pieces = claimed.own;
            // The window rides along only behind a request that is sent anyway.
            let ahead = PageRange {
                first: demand.end,
                end: window.clamp(object.size()).pages().end,
            };
            if ahead.first < ahead.end {
                let missing = self.flights.missing(object.id, ahead, is_cached);
                if let Some((bytes, more)) = self.take_some_ahead(missing) {
                    share.merge(more);
                    let cut = ahead.first;
                    pieces.extend(self.flights.claim(object.id, ahead, cut, bytes, is_cached));
                }
            }
            self.launch(object, pieces, &mut share, Class::Demand, deadline);
        }
        Ok(Claim {
            own,
            pieces: claimed.all,
            deadline,
        })
    }

    /// Takes memory for demand: loose pieces make way first, also those that turn loose while it
    /// waits.
    async fn take(&self, bytes: u64, deadline: Deadline) -> Result<Share> {
        if let Some(share) = self.budget.try_take(bytes) {
            return Ok(share);
        }
        let _wanting = self.budget.want();
        loop {
            if let Some(share) = self.budget.try_take(bytes) {
                return Ok(share);
            }
            if !self.flights.drop_loose() {
                return self.budget.take(bytes, deadline).await;
            }
        }
    }

    /// Takes memory for a guess, if it is free or held by loose pieces that were read.
    pub(crate) fn take_ahead(&self, bytes: u64) -> Option<Share> {
        loop {
            if let Some(share) = self.budget.try_take_ahead(bytes) {
                return Some(share);
            }
            if !self.flights.drop_loose_read() {
                return None;
            }
        }
    }

    /// Takes as much of `bytes` as is free, by halves.
    fn take_some_ahead(&self, bytes: u64) -> Option<(u64, Share)> {
        let mut bytes = bytes;
        while bytes >= PAGE_SIZE {
            if let Some(share) = self.take_ahead(bytes) {
                return Some((bytes, share));
            }
            bytes = (bytes / 2)
                .next_multiple_of(PAGE_SIZE)
                .min(bytes - PAGE_SIZE);
        }
        None
    }

    /// Waits for the pieces of a range and puts it together. One piece is handed on as it is.
    async fn collect(
        self: &Arc<Self>,
        object: &ObjectRef,
        range: ByteRange,
        pieces: Vec<Arc<Piece>>,
        deadline: &mut Deadline,
    ) -> Result<Bytes> {
        let mut covered = range.offset;
        for piece in &pieces {
            let bytes = piece.wait(*deadline).await;
            *deadline = renewed(*deadline, piece.moved());
            let bytes = bytes?;
            let have = piece.range(object.size());
            if have.offset <= covered {
                covered = covered.max(have.end());
            }
            if have.offset <= range.offset && range.end() <= have.end() {
                piece.note_read(range.end(), object.size());
                let start = in_memory(range.offset - have.offset);
                let len = in_memory(range.len);
                return Ok(bytes.slice(start..start + len));
            }
        }
        let is_covered = covered >= range.end();
        let (worker, object) = (Arc::clone(self), object.clone());
        let read = move || {
            let mut buf = Vec::with_capacity(in_memory(range.len));
            let all = worker.read_mixed(&object, range, &pieces, &mut buf);
            all.then_some(buf)
        };
        let read = if is_covered {
            read()
        } else {
            // Cached parts are read from the disk, which may take a while.
            let reading = timed(deadline.renewed(self.clock.now()), async {
                let read = self.runtime.spawn_blocking(read).await;
                read.map_err(|_| Error::internal("a read was aborted"))
            });
            reading.await?
        };
        read.map(Bytes::from)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "a cached page could not be read"))
    }

    /// Appends `range` from landed pieces and, between them, from the cache.
    fn read_mixed(
        &self,
        object: &ObjectRef,
        range: ByteRange,
        pieces: &[Arc<Piece>],
        buf: &mut Vec<u8>,
    ) -> bool {
        let mut at = range.offset;
        for piece in pieces {
            let have = piece.range(object.size());
            let Some(bytes) = piece.bytes() else {
                return false;
            };
            if have.offset > at {
                let gap = ByteRange::new(at, have.offset.min(range.end()) - at);
                if !self.read_store(object, gap, buf) {
                    return false;
                }
                at = gap.end();
            }
            piece.note_read(range.end(), object.size());
            let end = have.end().min(range.end());
            if end > at {
                let (from, to) = (in_memory(at - have.offset), in_memory(end - have.offset));
                buf.extend_from_slice(&bytes[from..to]);
                at = end;
            }
        }
        let rest = ByteRange::new(at, range.end() - at);
        rest.len == 0 || self.read_store(object, rest, buf)
    }

    fn read_store(&self, object: &ObjectRef, range: ByteRange, buf: &mut Vec<u8>) -> bool {
        self.cache
            .as_ref()
            .is_some_and(|cache| cache.read(object.id, range, buf))
    }
}
