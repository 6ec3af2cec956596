// SPDX-License-Identifier: Apache-2.0
//! Patterns of reads, replayed against the plans.

use std::collections::BTreeSet;

use super::*;

const KIB: u64 = 1024;
const GIB: u64 = 1 << 30;

/// Offsets from 0 to `end`, `step` apart.
fn offsets(end: u64, step: u64) -> impl Iterator<Item = u64> {
    (0..end.div_ceil(step)).map(move |index| index * step)
}

/// A reader whose pages are fetched as planned, at once.
struct Replay {
    state: ReadAhead,
    fetched: BTreeSet<u64>,
    asked: BTreeSet<u64>,
    misses: u64,
}

impl Replay {
    fn new(size: u64) -> Self {
        let state = ReadAhead::new(size, 32 * MIB);
        Replay {
            state,
            fetched: BTreeSet::new(),
            asked: BTreeSet::new(),
            misses: 0,
        }
    }

    /// Reads; returns the plan. What is planned counts as fetched.
    fn read(&mut self, offset: u64, len: u64) -> Plan {
        let range = ByteRange::new(offset, len).clamp(self.state.size);
        let plan = self.state.on_read(range);
        assert!(plan.window.offset <= range.offset && range.end() <= plan.window.end());
        assert!(plan.window.end() <= self.state.size);
        self.asked.extend(range.pages());
        let hit = range
            .pages()
            .into_iter()
            .all(|page| self.fetched.contains(&page));
        if !hit {
            self.misses += 1;
            self.fetched.extend(plan.window.pages());
        }
        if let Some(ahead) = plan.ahead {
            assert!(ahead.len > 0 && ahead.end() <= self.state.size);
            self.fetched.extend(ahead.pages());
        }
        plan
    }

    fn amplification(&self) -> f64 {
        self.fetched.len() as f64 / self.asked.len() as f64
    }
}

/// Numbers that look random and are the same in each run (splitmix64).
fn random(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

#[test]
fn a_sequential_reader_misses_once_and_never_again() {
    for request in [4 * KIB, 128 * KIB, MIB] {
        let mut replay = Replay::new(256 * MIB + 5);
        for offset in offsets(replay.state.size, request) {
            replay.read(offset, request);
        }
        assert_eq!(replay.misses, 1, "requests of {request}");
        assert_eq!(replay.amplification(), 1.0);
    }
}

#[test]
fn the_plan_doubles_up_to_its_maximum_and_stays_ahead() {
    let mut replay = Replay::new(GIB);
    let mut lead_max = 0;
    for offset in offsets(GIB / 2, 128 * KIB) {
        replay.read(offset, 128 * KIB);
        let end = offset + 128 * KIB;
        let lead = (*replay.fetched.last().unwrap() + 1) * PAGE_SIZE - end;
        lead_max = lead_max.max(lead);
        if end >= 64 * MIB {
            assert!(lead >= 16 * MIB, "only {lead} ahead at {end}");
        } else {
            assert!(
                lead >= (end / 2).min(512 * KIB),
                "only {lead} ahead at {end}"
            );
        }
    }
    assert!((32 * MIB..=33 * MIB).contains(&lead_max), "{lead_max}");
}

#[test]
fn large_plans_are_asked_for_in_large_pieces() {
    let mut replay = Replay::new(GIB);
    let mut pieces = 0;
    for offset in offsets(GIB / 2, 128 * KIB) {
        pieces += u64::from(replay.read(offset, 128 * KIB).ahead.is_some());
    }
    assert!(pieces <= 512 / 8 + 16, "{pieces} pieces for 512 MiB");
}

#[test]
fn a_header_is_read_without_a_large_plan() {
    let mut replay = Replay::new(GIB);
    let plan = replay.read(0, 4 * KIB);
    assert!(plan.window.len <= 2 * PAGE_SIZE, "{plan:?}");
}

#[test]
fn a_second_read_that_continues_the_first_starts_a_plan_anywhere() {
    let mut replay = Replay::new(GIB);
    assert_eq!(replay.read(300 * MIB, MIB).ahead, None);
    let plan = replay.read(301 * MIB, MIB);
    assert_eq!(plan.ahead.map(|ahead| ahead.offset), Some(302 * MIB));
    assert!(plan.rides_along(ByteRange::new(301 * MIB, MIB)));
    for megabyte in 302..400 {
        replay.read(megabyte * MIB, MIB);
    }
    assert_eq!(replay.misses, 2);
}

#[test]
fn two_first_reads_in_the_wrong_order_start_a_plan() {
    let mut replay = Replay::new(GIB);
    replay.read(301 * MIB, MIB);
    let plan = replay.read(300 * MIB, MIB);
    assert_eq!(plan.ahead.map(|ahead| ahead.offset), Some(302 * MIB));
    replay.read(302 * MIB, MIB);
    assert_eq!(replay.misses, 2);
}

#[test]
fn random_reads_fetch_only_the_pages_they_touch() {
    for (len, align) in [
        (4 * KIB, 4 * KIB),
        (128 * KIB, 128 * KIB),
        (128 * KIB, 4 * KIB),
    ] {
        let mut replay = Replay::new(8 * GIB);
        let mut random = random(7);
        for _ in 0..400 {
            replay.read(random(8 * GIB / align) * align, len);
        }
        let amplification = replay.amplification();
        assert!(
            amplification <= 1.05,
            "{len} at multiples of {align}: {amplification}"
        );
    }
}

#[test]
fn random_short_runs_stay_within_the_bound() {
    for run in [2, 4, 8, 16] {
        let mut replay = Replay::new(8 * GIB);
        let mut random = random(run);
        for _ in 0..200 {
            let offset = random(8 * GIB / MIB) * MIB;
            for request in 0..run {
                replay.read(offset + request * 128 * KIB, 128 * KIB);
            }
        }
        let amplification = replay.amplification();
        assert!(amplification <= 1.25, "runs of {run}: {amplification}");
    }
}

#[test]
fn a_stride_over_a_file_stays_within_the_bound() {
    for stride in [256 * KIB, 512 * KIB, MIB, 3 * MIB] {
        let mut replay = Replay::new(2 * GIB);
        for offset in offsets(2 * GIB, stride) {
            replay.read(offset, 4 * KIB);
        }
        let amplification = replay.amplification();
        assert!(amplification <= 1.25, "stride {stride}: {amplification}");
    }
}

#[test]
fn interleaved_streams_are_each_planned_ahead() {
    for streams in 2..=STREAMS_MAX as u64 {
        let mut replay = Replay::new(GIB);
        for step in 0..256 {
            for stream in 0..streams {
                replay.read(stream * 256 * MIB + step * 128 * KIB, 128 * KIB);
            }
        }
        assert!(
            replay.misses <= 2 * streams,
            "{streams} streams: {} misses",
            replay.misses
        );
    }
}

#[test]
fn streams_survive_random_reads_between() {
    let mut replay = Replay::new(GIB);
    let mut random = random(3);
    let mut missed = 0;
    for step in 0..256 {
        replay.read(512 * MIB + random(4096) * 128 * KIB, 4 * KIB);
        let before = replay.misses;
        replay.read(step * 128 * KIB, 128 * KIB);
        replay.read(256 * MIB + step * 128 * KIB, 128 * KIB);
        missed += replay.misses - before;
    }
    assert!(missed <= 3, "{missed}");
}

#[test]
fn reads_reordered_by_threads_are_still_sequential() {
    let mut replay = Replay::new(GIB);
    let mut random = random(11);
    let mut order: Vec<u64> = (0..2048).collect();
    // Each request is late or early by a few places.
    order.sort_by_cached_key(|request| request + random(4));
    for request in order {
        replay.read(request * 128 * KIB, 128 * KIB);
    }
    assert!(replay.misses <= 4, "{}", replay.misses);
    let beyond = replay.fetched.len() - replay.asked.len();
    assert!(beyond as u64 <= 33 * MIB / PAGE_SIZE, "{beyond}");
}

#[test]
fn nothing_is_planned_beyond_the_end_or_when_forbidden() {
    let mut replay = Replay::new(300 * KIB);
    replay.read(0, 128 * KIB);
    assert_eq!(replay.fetched.last(), Some(&2));
    let mut forbidden = ReadAhead::new(GIB, 0);
    for page in 0..100 {
        let plan = forbidden.on_read(ByteRange::new(page * PAGE_SIZE, PAGE_SIZE));
        assert_eq!((plan.window.len, plan.ahead), (PAGE_SIZE, None));
    }
}

#[test]
fn no_pattern_breaks_the_arithmetic() {
    let mut random = random(99);
    for size in [1, PAGE_SIZE, GIB, u64::MAX / 2] {
        let mut state = ReadAhead::new(size, 32 * MIB);
        for _ in 0..5000 {
            let offset = random(size);
            let range = ByteRange::new(offset, 1 + random(2 * MIB)).clamp(size);
            let plan = state.on_read(range);
            assert!(plan.window.offset <= range.offset && range.end() <= plan.window.end());
        }
    }
}

#[test]
fn a_copy_from_the_end_to_the_start_is_planned_downwards() {
    let (size, step) = (256 * MIB, 516 * KIB);
    let mut replay = Replay::new(size);
    // Copies of 16 MiB, each from its end, one after the other.
    for copy in 0..16 {
        let start = copy * 16 * MIB;
        let mut at = start + 16 * MIB;
        while at > start {
            let len = step.min(at - start);
            at -= len;
            replay.read(at, len);
        }
    }
    assert!(replay.amplification() < 1.01, "{}", replay.amplification());
    let reads = 16 * (16 * MIB).div_ceil(step);
    assert!(
        replay.misses * 4 < reads,
        "{} of {reads} miss",
        replay.misses
    );
}

#[test]
fn a_few_reads_that_go_down_plan_nothing_far_below() {
    let mut replay = Replay::new(GIB);
    for at in [500, 499, 498] {
        replay.read(at * MIB, 64 * KIB);
    }
    for at in [300 * MIB + 128 * KIB, 300 * MIB + 64 * KIB, 300 * MIB] {
        replay.read(at, 64 * KIB);
    }
    assert!(replay.fetched.len() as u64 * PAGE_SIZE < 3 * MIB);
}
