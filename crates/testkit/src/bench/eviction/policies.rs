// SPDX-License-Identifier: Apache-2.0
//! The policies that are compared: textbook ones, the optimum, and the product's own.
//!
//! Each is a cache without bytes that is told of one read after the other and answers whether it was
//! a hit. They are written to be read, not to be fast. The product's is no copy: it is the code that
//! evicts in the page store, driven by [`cache::EvictionModel`].

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use types::VersionId;

use super::traces::Trace;
use crate::data;

/// A cache that has been told of all reads before.
pub trait Policy {
    /// Takes note of the read at a position of the trace; true when it is a hit.
    fn read(&mut self, at: usize) -> bool;
}

/// The contestants, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Evicts what was used least recently.
    Lru,
    /// Evicts what came first.
    Fifo,
    /// Evicts the one of two random objects that was used less recently.
    TwoRandom,
    /// Yang et al., "FIFO Queues are All You Need for Cache Eviction", SOSP 2023.
    S3Fifo,
    /// What the page store does.
    Forebay,
    /// Knows the future, and keeps what is needed soonest.
    Belady,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] = [
        Kind::Lru,
        Kind::Fifo,
        Kind::TwoRandom,
        Kind::S3Fifo,
        Kind::Forebay,
        Kind::Belady,
    ];

    /// Returns its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Lru => "LRU",
            Kind::Fifo => "FIFO",
            Kind::TwoRandom => "two-random",
            Kind::S3Fifo => "S3-FIFO",
            Kind::Forebay => "forebay",
            Kind::Belady => "Belady",
        }
    }

    /// Makes an empty cache for a trace.
    pub fn start(self, trace: &Trace) -> Box<dyn Policy + '_> {
        match self {
            Kind::Lru => Box::new(Lru::new(trace)),
            Kind::Fifo => Box::new(Fifo::new(trace)),
            Kind::TwoRandom => Box::new(TwoRandom::new(trace)),
            Kind::S3Fifo => Box::new(S3Fifo::new(trace)),
            Kind::Forebay => Box::new(Forebay::new(trace)),
            Kind::Belady => Box::new(Belady::new(trace)),
        }
    }
}

/// What most of them need: which objects are there, and how much room they take.
struct Room<'a> {
    trace: &'a Trace,
    cached: Vec<bool>,
    used: u64,
}

impl<'a> Room<'a> {
    fn new(trace: &'a Trace) -> Self {
        Room {
            trace,
            cached: vec![false; trace.sizes.len()],
            used: 0,
        }
    }

    fn object(&self, at: usize) -> usize {
        self.trace.reads[at]
    }

    fn has(&self, object: usize) -> bool {
        self.cached[object]
    }

    /// Whether an object would fit into an empty cache.
    fn can_hold(&self, object: usize) -> bool {
        self.trace.sizes[object] <= self.trace.capacity
    }

    fn fits(&self, object: usize) -> bool {
        self.used + self.trace.sizes[object] <= self.trace.capacity
    }

    fn add(&mut self, object: usize) {
        self.cached[object] = true;
        self.used += self.trace.sizes[object];
    }

    fn remove(&mut self, object: usize) {
        self.cached[object] = false;
        self.used -= self.trace.sizes[object];
    }
}

struct Lru<'a> {
    room: Room<'a>,
    last_use: Vec<usize>,
    by_use: BTreeMap<usize, usize>,
}

impl<'a> Lru<'a> {
    fn new(trace: &'a Trace) -> Self {
        Lru {
            room: Room::new(trace),
            last_use: vec![0; trace.sizes.len()],
            by_use: BTreeMap::new(),
        }
    }
}

impl Policy for Lru<'_> {
    fn read(&mut self, at: usize) -> bool {
        let object = self.room.object(at);
        let hit = self.room.has(object);
        if hit {
            self.by_use.remove(&self.last_use[object]);
        } else if !self.room.can_hold(object) {
            return false;
        } else {
            while !self.room.fits(object)
                && let Some((_, out)) = self.by_use.pop_first()
            {
                self.room.remove(out);
            }
            self.room.add(object);
        }
        self.last_use[object] = at;
        self.by_use.insert(at, object);
        hit
    }
}

struct Fifo<'a> {
    room: Room<'a>,
    queue: VecDeque<usize>,
}

impl<'a> Fifo<'a> {
    fn new(trace: &'a Trace) -> Self {
        Fifo {
            room: Room::new(trace),
            queue: VecDeque::new(),
        }
    }
}

impl Policy for Fifo<'_> {
    fn read(&mut self, at: usize) -> bool {
        let object = self.room.object(at);
        if self.room.has(object) || !self.room.can_hold(object) {
            return self.room.has(object);
        }
        while !self.room.fits(object)
            && let Some(out) = self.queue.pop_front()
        {
            self.room.remove(out);
        }
        self.room.add(object);
        self.queue.push_back(object);
        false
    }
}

struct TwoRandom<'a> {
    room: Room<'a>,
    last_use: Vec<usize>,
    objects: Vec<usize>,
    picks: u64,
}

impl<'a> TwoRandom<'a> {
    fn new(trace: &'a Trace) -> Self {
        TwoRandom {
            room: Room::new(trace),
            last_use: vec![0; trace.sizes.len()],
            objects: Vec::new(),
            picks: 0,
        }
    }

    fn pick(&mut self) -> usize {
        self.picks += 1;
        data::pick(2, self.picks, self.objects.len())
    }
}

impl Policy for TwoRandom<'_> {
    fn read(&mut self, at: usize) -> bool {
        let object = self.room.object(at);
        self.last_use[object] = at;
        if self.room.has(object) || !self.room.can_hold(object) {
            return self.room.has(object);
        }
        while !self.room.fits(object) {
            let (one, other) = (self.pick(), self.pick());
            let last_use = |place: usize| self.last_use[self.objects[place]];
            let older = if last_use(one) <= last_use(other) {
                one
            } else {
                other
            };
            let out = self.objects.swap_remove(older);
            self.room.remove(out);
        }
        self.room.add(object);
        self.objects.push(object);
        false
    }
}

/// With the parameters of the paper: a tenth for the small queue, ghosts for as much as the main
/// queue holds, two hits in the small queue to leave it for the main one.
struct S3Fifo<'a> {
    room: Room<'a>,
    hits: Vec<u8>,
    small: VecDeque<usize>,
    small_bytes: u64,
    main: VecDeque<usize>,
    ghosts: VecDeque<(usize, usize)>,
    /// The read at which an object became a ghost.
    ghost_since: HashMap<usize, usize>,
    ghost_bytes: u64,
}

impl<'a> S3Fifo<'a> {
    fn new(trace: &'a Trace) -> Self {
        S3Fifo {
            room: Room::new(trace),
            hits: vec![0; trace.sizes.len()],
            small: VecDeque::new(),
            small_bytes: 0,
            main: VecDeque::new(),
            ghosts: VecDeque::new(),
            ghost_since: HashMap::new(),
            ghost_bytes: 0,
        }
    }

    fn size(&self, object: usize) -> u64 {
        self.room.trace.sizes[object]
    }

    fn evict(&mut self, at: usize) {
        if self.small_bytes * 10 >= self.room.trace.capacity || self.main.is_empty() {
            self.evict_small(at);
        } else {
            self.evict_main();
        }
    }

    fn evict_small(&mut self, at: usize) {
        while let Some(object) = self.small.pop_front() {
            self.small_bytes -= self.size(object);
            if self.hits[object] > 1 {
                self.hits[object] = 0;
                self.main.push_back(object);
                continue;
            }
            self.room.remove(object);
            self.remember(object, at);
            return;
        }
    }

    fn evict_main(&mut self) {
        while let Some(object) = self.main.pop_front() {
            if self.hits[object] > 0 {
                self.hits[object] -= 1;
                self.main.push_back(object);
                continue;
            }
            self.room.remove(object);
            return;
        }
    }

    fn remember(&mut self, object: usize, at: usize) {
        self.ghosts.push_back((object, at));
        self.ghost_bytes += self.size(object);
        self.ghost_since.insert(object, at);
        while self.ghost_bytes * 10 > self.room.trace.capacity * 9
            && let Some((oldest, since)) = self.ghosts.pop_front()
        {
            self.ghost_bytes -= self.size(oldest);
            if self.ghost_since.get(&oldest) == Some(&since) {
                self.ghost_since.remove(&oldest);
            }
        }
    }
}

impl Policy for S3Fifo<'_> {
    fn read(&mut self, at: usize) -> bool {
        let object = self.room.object(at);
        if self.room.has(object) {
            self.hits[object] = (self.hits[object] + 1).min(3);
            return true;
        }
        if !self.room.can_hold(object) {
            return false;
        }
        while !self.room.fits(object) {
            self.evict(at);
        }
        self.room.add(object);
        self.hits[object] = 0;
        if self.ghost_since.remove(&object).is_some() {
            self.main.push_back(object);
        } else {
            self.small.push_back(object);
            self.small_bytes += self.size(object);
        }
        false
    }
}

/// Keeps what is read again soonest, and lets pass what is read later than all that is there: the
/// optimum where all objects have one size, and close to it elsewhere.
struct Belady<'a> {
    room: Room<'a>,
    next_use: Vec<usize>,
    by_next_use: BTreeSet<(usize, usize)>,
}

impl<'a> Belady<'a> {
    fn new(trace: &'a Trace) -> Self {
        let mut next_use = vec![usize::MAX; trace.reads.len()];
        let mut seen = vec![usize::MAX; trace.sizes.len()];
        for (at, object) in trace.reads.iter().enumerate().rev() {
            next_use[at] = seen[*object];
            seen[*object] = at;
        }
        Belady {
            room: Room::new(trace),
            next_use,
            by_next_use: BTreeSet::new(),
        }
    }
}

impl Policy for Belady<'_> {
    fn read(&mut self, at: usize) -> bool {
        let object = self.room.object(at);
        let next = (self.next_use[at], object);
        let hit = self.room.has(object);
        if hit {
            self.by_next_use.remove(&(at, object));
        } else if !self.room.can_hold(object) {
            return false;
        }
        while !hit && !self.room.fits(object) {
            match self.by_next_use.last() {
                Some(latest) if *latest > next => {
                    self.room.remove(latest.1);
                    self.by_next_use.pop_last();
                }
                Some(_) | None => return false,
            }
        }
        if !hit {
            self.room.add(object);
        }
        self.by_next_use.insert(next);
        hit
    }
}

struct Forebay<'a> {
    trace: &'a Trace,
    model: cache::EvictionModel,
}

impl<'a> Forebay<'a> {
    fn new(trace: &'a Trace) -> Self {
        Forebay {
            trace,
            model: cache::EvictionModel::new(trace.capacity),
        }
    }
}

impl Policy for Forebay<'_> {
    fn read(&mut self, at: usize) -> bool {
        let object = self.trace.reads[at];
        let size = self.trace.sizes[object];
        self.model.read(VersionId(object as u128), size)
    }
}
