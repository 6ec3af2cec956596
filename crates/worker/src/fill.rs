// SPDX-License-Identifier: Apache-2.0
//! Writes arrived pieces into the cache, on threads of its own, behind the readers.
//!
//! The queue is bounded by bytes: half of the memory budget. A disk that cannot follow loses
//! fills, not readers: a piece that finds the queue full stays in memory until somebody wants its
//! room, and is cached after all when the threads have nothing else to do. A piece that is in the
//! cache leaves the table of flights.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::thread::JoinHandle;

use bytes::Bytes;
use cache::Pin;
use parking_lot::Mutex;
use tracing::Span;
use types::trace;
use types::{Error, PAGE_SIZE, Result, VersionId};

use crate::flights::{Flights, Loose, Piece};
use crate::memory::Budget;
use crate::spans;
use crate::stats::Counters;

/// Two are enough to keep a fast disk busy while one of them computes checksums.
const THREADS: usize = 2;

struct Job {
    id: VersionId,
    size: u64,
    piece: Arc<Piece>,
    bytes: Bytes,
    pin: Option<Pin>,
    rule: Option<u64>,
    span: Span,
}

/// What the filling threads share with the fetching tasks.
#[derive(Debug)]
struct Shared {
    cache: Arc<cache::Store>,
    flights: Arc<Flights>,
    budget: Arc<Budget>,
    counters: Arc<Counters>,
    queued_bytes: AtomicU64,
}

/// The way into the cache.
#[derive(Debug)]
pub(crate) struct Fill {
    shared: Arc<Shared>,
    queue_max: u64,
    sender: Mutex<Option<SyncSender<Job>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Fill {
    /// Starts the threads.
    pub(crate) fn start(
        cache: Arc<cache::Store>,
        flights: Arc<Flights>,
        budget: Arc<Budget>,
        counters: Arc<Counters>,
    ) -> Result<Self> {
        let (_, total) = budget.usage();
        let places = usize::try_from(total / PAGE_SIZE)
            .unwrap_or(usize::MAX)
            .max(1);
        let (sender, receiver) = sync_channel(places);
        let receiver = Arc::new(Mutex::new(receiver));
        let queued_bytes = AtomicU64::new(0);
        let shared = Arc::new(Shared {
            cache,
            flights,
            budget,
            counters,
            queued_bytes,
        });
        let threads = (0..THREADS)
            .map(|index| {
                let (shared, receiver) = (Arc::clone(&shared), Arc::clone(&receiver));
                std::thread::Builder::new()
                    .name(format!("fill-{index}"))
                    .spawn(move || shared.work(&receiver))
                    .map_err(|error| Error::io("start a thread that fills the cache", error))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Fill {
            shared,
            queue_max: total / 2,
            sender: Mutex::new(Some(sender)),
            threads: Mutex::new(threads),
        })
    }

    /// Hands a landed piece over; it is settled when this is done with it.
    pub(crate) fn offer(&self, loose: Loose, bytes: Bytes) {
        let len = bytes.len() as u64;
        let queued = self.shared.queued_bytes.fetch_add(len, Ordering::AcqRel) + len;
        let Loose {
            id,
            size,
            piece,
            pin,
            rule,
            ..
        } = loose;
        let span = spans::fill(piece.range(size));
        let job = Job {
            id,
            size,
            piece,
            bytes,
            pin,
            rule,
            span,
        };
        let refused = match &*self.sender.lock() {
            Some(sender) if queued <= self.queue_max.max(len) => {
                sender.try_send(job).err().map(|error| match error {
                    TrySendError::Full(job) | TrySendError::Disconnected(job) => job,
                })
            }
            _ => Some(job),
        };
        if let Some(job) = refused {
            self.shared.queued_bytes.fetch_sub(len, Ordering::AcqRel);
            self.shared.not_cached(job, true);
        }
    }

    /// Finishes what is queued and ends the threads. Later pieces are not cached.
    pub(crate) fn close(&self) {
        self.sender.lock().take();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that fills the cache panicked");
            }
        }
    }
}

impl Shared {
    fn work(&self, receiver: &Mutex<Receiver<Job>>) {
        loop {
            let received = receiver.lock().try_recv();
            match received {
                Ok(job) => self.carry_out(job),
                Err(TryRecvError::Disconnected) => return,
                Err(TryRecvError::Empty) => match self.flights.take_for_cache() {
                    Some(loose) => self.fill_late(&loose),
                    None => {
                        let received = receiver.lock().recv();
                        let Ok(job) = received else { return };
                        self.carry_out(job);
                    }
                },
            }
        }
    }

    fn carry_out(&self, job: Job) {
        let len = job.bytes.len() as u64;
        let span = job.span.clone().entered();
        let (object, first) = ((job.id, job.size), job.piece.pages.first);
        match self.cache.fill_under(job.rule, object, first, &job.bytes) {
            Ok(()) => {
                span.record("is_cached", true);
                self.budget.pulse.moved(len);
                self.pin(job.id, job.pin);
                self.flights.remove(job.id, &job.piece);
                job.piece.settle();
            }
            Err(error) => {
                tracing::debug!(%error, "a piece was not cached");
                trace::failed(&span, &error);
                self.not_cached(job, false);
            }
        }
        self.queued_bytes.fetch_sub(len, Ordering::AcqRel);
    }

    fn pin(&self, id: VersionId, pin: Option<Pin>) {
        if let Some(pin) = pin
            && let Err(error) = self.cache.pin(id, pin)
        {
            tracing::debug!(%error, "an object was not pinned");
        }
    }

    /// Caches a piece that once found the queue full. It leaves the table either way: its readers
    /// have had it.
    fn fill_late(&self, loose: &Loose) {
        if let Some(bytes) = loose.piece.bytes() {
            let (object, first) = ((loose.id, loose.size), loose.piece.pages.first);
            match self.cache.fill_under(loose.rule, object, first, bytes) {
                Ok(()) => {
                    self.pin(loose.id, loose.pin);
                    self.counters.fills_late.add(1);
                }
                Err(error) => tracing::debug!(%error, "a piece was not cached"),
            }
        }
        self.flights.remove(loose.id, &loose.piece);
    }

    fn not_cached(&self, job: Job, for_cache: bool) {
        self.counters.fills_dropped.add(1);
        job.span.record("is_cached", false);
        job.piece.settle();
        if self.budget.is_wanted() {
            self.flights.remove(job.id, &job.piece);
            return;
        }
        let Job {
            id,
            size,
            piece,
            pin,
            rule,
            ..
        } = job;
        let loose = Loose {
            id,
            size,
            piece,
            for_cache,
            pin,
            rule,
        };
        self.flights.keep_loose(loose, || self.budget.is_wanted());
    }
}
