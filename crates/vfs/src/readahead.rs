// SPDX-License-Identifier: Apache-2.0
//! What to fetch beyond what was asked: one small state machine a handle, pure and without I/O.
//!
//! Every read of a handle passes through [`ReadAhead::on_read`], hits too. It looks for a *stream*
//! that the read continues. A stream starts at the first read when that is at offset 0, and
//! elsewhere with the second of two reads that touch. The kernel's threads reorder reads, so a read
//! a little before or after where a stream stands still belongs to it; up to [`STREAMS_MAX`]
//! streams run on one handle.
//!
//! A large copy out of a mapping may go from its end to its start. Reads that each end where the one
//! before began are a *descent*, and what lies below is planned in the same way.
//!
//! A stream is planned ahead by about twice what was read of it, so it doubles while it is read, up
//! to the maximum; pieces are asked for before the reader arrives there. All other reads fetch just
//! the pages they touch. What was fetched for nothing (skipped, or planned for a stream that was
//! given up) is counted, and above an eighth of what was read the handle turns cautious: only long
//! runs are then planned ahead, and less far.

use std::collections::VecDeque;

use types::{ByteRange, PAGE_SIZE};

/// Streams followed on one handle: enough for a few threads that share a file descriptor.
const STREAMS_MAX: usize = 4;

/// Reads remembered in case the next one touches them.
const RECENT_MAX: usize = 8;

const MIB: u64 = 1 << 20;

/// How far after a planned end, and before a stream's place, a read still belongs to it: the
/// kernel sends requests of up to 1 MiB from a handful of threads.
const REORDER_AFTER: u64 = MIB;
const REORDER_BEFORE: u64 = 4 * MIB;

/// The first plan of a file read from its start, as a multiple of the first request: a program
/// that looks at a header asks for little, one that copies asks for much.
const START_FACTOR: u64 = 8;
const START_MAX: u64 = 4 * MIB;

/// From here on a stream is planned ahead by twice what was read of it; before, by once.
const TRUSTED_RUN: u64 = MIB / 2;

/// What may be fetched for nothing before a handle turns cautious, besides an eighth of what was
/// read; and how long a run must then be.
const WASTE_FREE: u64 = MIB;
const WASTE_SHARE: u64 = 8;
const CAUTIOUS_RUN: u64 = 16 * MIB;

/// The most that is added to a plan at a time: the worker's largest request.
const STEP_MAX: u64 = 8 * MIB;

/// Reads that make a descent, and the most that is added to its plan at a time: a request brings its
/// bytes in order, and the reader wants the last ones first.
const DESCENT_MIN: u32 = 3;
const DESCENT_STEP_MAX: u64 = 4 * MIB;

/// What to fetch because of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// If the read is a miss: what its request should bring. Holds the read, in whole pages.
    pub(crate) window: ByteRange,
    /// What this read adds to the plan: to be fetched even if the read is a hit.
    pub(crate) ahead: Option<ByteRange>,
}

impl Plan {
    /// Returns whether the addition to the plan follows on the read itself, so that on a miss the
    /// read's own request brings it.
    pub(crate) fn rides_along(&self, read: ByteRange) -> bool {
        let follows = read.offset..=read.end().next_multiple_of(PAGE_SIZE);
        self.ahead
            .is_none_or(|ahead| follows.contains(&ahead.offset))
    }
}

/// A run of reads that follow each other.
#[derive(Debug, Clone, Copy)]
struct Stream {
    start: u64,
    /// Where the next read is expected.
    next: u64,
    /// Up to where fetching was asked for.
    planned: u64,
    /// Bytes read.
    read: u64,
    /// Bytes before `next` that were not read.
    skipped: u64,
    /// The least to plan ahead.
    least: u64,
}

/// Reads that each end where the one before began.
#[derive(Debug, Clone, Copy, Default)]
struct Descent {
    reads: u32,
    /// Where the last one began.
    low: u64,
    /// Bytes read.
    read: u64,
    /// Down to where fetching was asked for.
    planned: u64,
}

/// The access pattern of one handle.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    size: u64,
    max: u64,
    descent: Descent,
    /// Least recently used first.
    streams: Vec<Stream>,
    /// Reads that belong to no stream, oldest first.
    recent: VecDeque<ByteRange>,
    asked: u64,
    wasted: u64,
}

impl ReadAhead {
    /// Makes the state of a handle on an object of `size` bytes; plans at most `max` bytes ahead.
    pub(crate) fn new(size: u64, max: u64) -> Self {
        ReadAhead {
            size,
            max,
            descent: Descent::default(),
            streams: Vec::new(),
            recent: VecDeque::new(),
            asked: 0,
            wasted: 0,
        }
    }

    /// Takes note of a read, which lies within the object and is not empty, and plans.
    pub(crate) fn on_read(&mut self, range: ByteRange) -> Plan {
        self.asked += range.len;
        let exact = range.pages().bytes(self.size);
        let mut plan = Plan {
            window: exact,
            ahead: None,
        };
        if self.descent.advance(range) {
            plan.ahead = self.descent.move_on(self.max);
            return plan;
        }
        let known = self.streams.iter().rposition(|stream| stream.holds(range));
        let stream = match known {
            Some(index) => Some(self.streams.remove(index)),
            None => self.start(range),
        };
        let Some(mut stream) = stream else {
            self.remember(range);
            return plan;
        };
        if stream.advance(range) {
            self.take_in_recent(&mut stream);
            plan.ahead = self.move_on(&mut stream, exact.end());
            plan.window.len = exact.end().max(stream.planned) - exact.offset;
        }
        self.streams.push(stream);
        plan
    }

    /// Starts a stream, if this read is at the start of the object or touches a recent one.
    fn start(&mut self, range: ByteRange) -> Option<Stream> {
        let earlier = self
            .recent
            .iter()
            .position(|other| other.end() == range.offset);
        let earlier = earlier.and_then(|index| self.recent.remove(index));
        let came_early = self.recent.iter().any(|other| other.offset == range.end());
        if earlier.is_none() && !came_early && range.offset != 0 {
            return None;
        }
        let first = earlier.unwrap_or(range);
        let least = if first.offset == 0 {
            first.len.saturating_mul(START_FACTOR).min(START_MAX)
        } else {
            0
        };
        let start = first.offset;
        let mut stream = Stream {
            start,
            next: start,
            planned: 0,
            read: 0,
            skipped: 0,
            least,
        };
        if let Some(earlier) = earlier {
            stream.advance(earlier);
        }
        if self.streams.len() == STREAMS_MAX {
            let given_up = self.streams.remove(0);
            self.wasted += given_up.skipped + given_up.planned.saturating_sub(given_up.next);
        }
        Some(stream)
    }

    fn remember(&mut self, range: ByteRange) {
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(range);
    }

    /// Passes over reads that arrived before their turn.
    fn take_in_recent(&mut self, stream: &mut Stream) {
        while let Some(index) = self
            .recent
            .iter()
            .position(|other| other.offset == stream.next)
        {
            if let Some(other) = self.recent.remove(index) {
                stream.advance(other);
            }
        }
    }

    /// Moves the stream's plan on, if by enough to be worth a request.
    fn move_on(&self, stream: &mut Stream, read_end: u64) -> Option<ByteRange> {
        let reach = self.reach(stream);
        let planned = stream
            .planned
            .max(read_end)
            .max(stream.next.next_multiple_of(PAGE_SIZE));
        let planned = planned.min(self.size);
        // The worker cuts at MiBs, so that a reply to the kernel is one piece.
        let unit = if reach < MIB { PAGE_SIZE } else { MIB };
        let target = (stream.next + reach).next_multiple_of(unit).min(self.size);
        let enough = (reach / 2).clamp(PAGE_SIZE, STEP_MAX);
        let moves =
            reach > 0 && target > planned && (target - planned >= enough || target == self.size);
        stream.planned = if moves { target } else { planned };
        moves.then(|| ByteRange::new(planned, target - planned))
    }

    fn reach(&self, stream: &Stream) -> u64 {
        let skipped: u64 = self.streams.iter().map(|other| other.skipped).sum();
        let wasted = self.wasted + skipped + stream.skipped;
        let reach = if wasted <= WASTE_FREE + self.asked / WASTE_SHARE {
            let factor = if stream.read < TRUSTED_RUN { 1 } else { 2 };
            stream.least.max(stream.read.saturating_mul(factor))
        } else if stream.read < CAUTIOUS_RUN {
            0
        } else {
            stream.read / 4
        };
        reach.min(self.max)
    }
}

impl Descent {
    /// Takes a read in; says whether reads have been going down for long enough to go on.
    fn advance(&mut self, range: ByteRange) -> bool {
        if self.reads == 0 || range.end() != self.low {
            *self = Descent {
                reads: 0,
                low: range.offset,
                read: 0,
                planned: range.offset,
            };
        }
        self.reads += 1;
        self.low = range.offset;
        self.read += range.len;
        self.planned = self.planned.min(range.offset) / PAGE_SIZE * PAGE_SIZE;
        self.reads >= DESCENT_MIN
    }

    /// Moves the plan down, if by enough to be worth a request.
    fn move_on(&mut self, max: u64) -> Option<ByteRange> {
        let reach = self.read.saturating_mul(2).min(max);
        let target = self.low.saturating_sub(reach) / MIB * MIB;
        let target = target.max(self.planned.saturating_sub(DESCENT_STEP_MAX));
        let enough = (reach / 2).clamp(PAGE_SIZE, DESCENT_STEP_MAX / 2);
        if target >= self.planned || (self.planned - target < enough && target > 0) {
            return None;
        }
        let ahead = ByteRange::new(target, self.planned - target);
        self.planned = target;
        Some(ahead)
    }
}

impl Stream {
    fn holds(&self, range: ByteRange) -> bool {
        let from = self.start.max(self.next.saturating_sub(REORDER_BEFORE));
        let to = self.planned.max(self.next) + self.read.min(REORDER_AFTER);
        (from..=to).contains(&range.offset)
    }

    /// Takes a read in; says whether it moved the stream.
    fn advance(&mut self, range: ByteRange) -> bool {
        if range.end() <= self.next {
            let late = range.len.min(self.skipped);
            self.skipped -= late;
            self.read += late;
            return false;
        }
        self.skipped += range.offset.saturating_sub(self.next);
        self.read += range.end() - range.offset.max(self.next);
        self.next = range.end();
        true
    }
}

#[cfg(test)]
mod tests;
