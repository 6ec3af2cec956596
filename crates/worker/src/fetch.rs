// SPDX-License-Identifier: Apache-2.0
//! Carries flights out: one ranged GET a flight, its bytes cut into pieces as they arrive.
//!
//! A flight is a task of its own. However it ends (done, failed, aborted), each of its pieces
//! lands: with bytes, or with the error. The storage layer has checked version and length of what
//! it streams; here the bytes are only counted once more.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{Either, select, select_all};
use futures::{FutureExt, StreamExt};
use tracing::{Instrument, Span};
use types::trace;
use types::{
    ByteRange, Deadline, Error, ErrorKind, ObjectRef, PAGE_SIZE, PageRange, Result, in_memory,
};
use ufs::ByteStream;

use crate::flights::Piece;
use crate::memory::{Budget, Share};
use crate::progress::{Progress, renewed};
use crate::schedule::{Class, Schedule, Turn};
use crate::settings::REQUEST_MAX;
use crate::spans;
use crate::worker::{Mount, Worker};

/// Pieces with the memory that they will need, in order of their pages.
struct Flight {
    worker: Arc<Worker>,
    object: ObjectRef,
    pieces: VecDeque<(Arc<Piece>, Share)>,
    progress: Arc<Progress>,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.fail(&Error::internal("a fetch was aborted"));
    }
}

impl Worker {
    /// Fetches claimed pieces: neighbours in one request, each request at most [`REQUEST_MAX`].
    pub(crate) fn launch(
        self: &Arc<Self>,
        object: &ObjectRef,
        pieces: Vec<Arc<Piece>>,
        share: &mut Share,
        class: Class,
        deadline: Deadline,
    ) {
        let mut flight: VecDeque<(Arc<Piece>, Share)> = VecDeque::new();
        let mut pages = 0;
        for piece in pieces {
            let joins = flight
                .back()
                .is_none_or(|(last, _)| last.pages.end == piece.pages.first);
            if !joins || (pages + piece.pages.count()) * PAGE_SIZE > REQUEST_MAX {
                self.send(object, std::mem::take(&mut flight), class, deadline);
                pages = 0;
            }
            pages += piece.pages.count();
            let share = share.split(piece.pages.count() * PAGE_SIZE);
            flight.push_back((piece, share));
        }
        self.send(object, flight, class, deadline);
    }

    fn send(
        self: &Arc<Self>,
        object: &ObjectRef,
        pieces: VecDeque<(Arc<Piece>, Share)>,
        class: Class,
        deadline: Deadline,
    ) {
        let (Some((first, _)), Some((last, _))) = (pieces.front(), pieces.back()) else {
            return;
        };
        let (first, end) = (first.pages.first, last.pages.end);
        let range = PageRange { first, end }.bytes(object.size());
        let span = spans::fetch(object, range, class);
        let queue = self.mount(object.mount).map(|mount| mount.schedule.pulse());
        let progress = Progress::new(&queue.unwrap_or_default());
        progress.is_told_by(&span);
        for (piece, _) in &pieces {
            piece.flies(&progress);
        }
        let mut flight = Flight {
            worker: Arc::clone(self),
            object: object.clone(),
            pieces,
            progress,
        };
        let flown = async move {
            if let Err(error) = flight.fly(range, class, deadline).await {
                let error = error.context(format!("read '{}'", flight.object.path));
                trace::failed(&Span::current(), &error);
                if class != Class::Demand {
                    tracing::debug!(%error, "a guess failed");
                }
                flight.fail(&error);
            }
        };
        self.runtime.spawn(flown.instrument(span));
    }
}

/// Waits until a reader waits for one of the pieces, of which there is at least one.
async fn wanted(pieces: &VecDeque<(Arc<Piece>, Share)>) {
    select_all(pieces.iter().map(|(piece, _)| piece.wait_wanted().boxed())).await;
}

impl Flight {
    async fn fly(&mut self, range: ByteRange, class: Class, deadline: Deadline) -> Result<()> {
        let queued = tokio::time::Instant::now();
        let mount = self.worker.mount(self.object.mount)?;
        let turn = match class {
            Class::Demand => mount.schedule.turn(class, deadline).await?,
            Class::Ahead | Class::Neighbour | Class::Load => {
                self.turn_of_guess(&mount.schedule, class, deadline).await?
            }
        };
        self.progress.has_turn();
        let span = Span::current();
        let queued_us = i64::try_from(queued.elapsed().as_micros()).unwrap_or(i64::MAX);
        span.record("queued_us", queued_us);
        let deadline = renewed(deadline, self.progress.last());
        let (mut body, _turn) = self.first_answer(&mount, turn, range, deadline).await?;
        let mut buffer = Vec::new();
        let mut bytes = 0;
        while let Some(chunk) = body.next().await {
            let chunk = chunk?;
            let len = chunk.len() as u64;
            self.worker.counters.fetched_bytes.add(len);
            self.progress.moved(len);
            self.worker.budget.pulse.moved(len);
            self.take_in(&mut buffer, chunk)?;
            mount.schedule.hold_back(len).await;
            bytes += len;
        }
        span.record("bytes", bytes.cast_signed());
        match self.pieces.is_empty() {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Unavailable,
                "the storage sent fewer bytes than asked",
            )),
        }
    }

    /// Asks for the bytes, and once more when the answer is late and a reader waits for it. Both ask for
    /// one version, and the bytes are those of the answer that comes first, with its turn; the other
    /// request is given up.
    async fn first_answer(
        &self,
        mount: &Mount,
        turn: Turn,
        range: ByteRange,
        deadline: Deadline,
    ) -> Result<(ByteStream, Turn)> {
        let (path, tag) = (&self.object.path, &self.object.tag);
        let schedule = &mount.schedule;
        let ask = || mount.storage.read(path, tag, range, deadline);
        let began = tokio::time::Instant::now();
        let mut first = ask();
        let late_after = match self.worker.settings.hedging {
            true => schedule.late_after(),
            false => None,
        };
        let late = async {
            match late_after {
                Some(late) => tokio::time::sleep(late).await,
                None => std::future::pending().await,
            }
            wanted(&self.pieces).await;
            match schedule.second() {
                Some(turn) => turn,
                None => std::future::pending().await,
            }
        };
        let second_turn = match select(&mut first, late.boxed()).await {
            Either::Left((answer, _)) => {
                schedule.answered(began.elapsed());
                return Ok((answer?, turn));
            }
            Either::Right((second_turn, _)) => second_turn,
        };
        // That the second one fails is no answer: the first may still come.
        let second = async {
            match spans::within(spans::hedge(), ask()).await {
                Ok(body) => body,
                Err(_) => std::future::pending().await,
            }
        };
        let answer = match select(first, second.boxed()).await {
            Either::Left((answer, _)) => (answer?, turn),
            Either::Right((body, _)) => {
                schedule.second_won();
                (body, second_turn)
            }
        };
        schedule.answered(began.elapsed());
        Ok(answer)
    }

    /// Waits for a turn as a guess does, and as demand from when a reader waits for a piece.
    async fn turn_of_guess(
        &self,
        schedule: &Arc<Schedule>,
        class: Class,
        deadline: Deadline,
    ) -> Result<Turn> {
        let turn = schedule.turn(class, deadline).boxed();
        match select(turn, wanted(&self.pieces).boxed()).await {
            Either::Left((turn, _)) => turn,
            Either::Right((_, guess)) => {
                drop(guess);
                schedule.turn(Class::Demand, deadline).await
            }
        }
    }

    /// Copies a chunk into the piece at the front, and on into the next ones: the one copy between
    /// the socket and the readers, which makes each piece one run of memory.
    fn take_in(&mut self, buffer: &mut Vec<u8>, mut chunk: Bytes) -> Result<()> {
        while !chunk.is_empty() {
            let Some((piece, _)) = self.pieces.front() else {
                let message = "the storage sent more bytes than asked";
                return Err(Error::new(ErrorKind::Corrupt, message));
            };
            let len = in_memory(piece.range(self.object.size()).len);
            if buffer.is_empty() {
                buffer.reserve_exact(len);
            }
            let part = chunk.split_to(chunk.len().min(len - buffer.len()));
            buffer.extend_from_slice(&part);
            if buffer.len() == len
                && let Some((piece, share)) = self.pieces.pop_front()
            {
                self.progress.arrived();
                let bytes = Budget::wrap(std::mem::take(buffer), share);
                self.worker.landed(&self.object, &piece, bytes);
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: &Error) {
        for (piece, _) in self.pieces.drain(..) {
            self.worker.flights.remove(self.object.id, &piece);
            piece.land(Err(error.clone()));
            piece.settle();
        }
    }
}
