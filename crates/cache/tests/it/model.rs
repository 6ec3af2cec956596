// SPDX-License-Identifier: Apache-2.0
//! Random operations against what a reader must never see: anything but right bytes or a miss.
//!
//! Below the capacity nothing may be missing, either. `FOREBAY_SEED` replays a run.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use cache::Store;
use types::{ByteRange, Clock, PageRange, SystemClock, page_count};

use crate::support::*;

const OBJECTS: u64 = 24;

struct Model {
    dir: tempfile::TempDir,
    store: Option<Arc<Store>>,
    pages: HashMap<u64, HashSet<u64>>,
    random: u64,
}

impl Model {
    fn below(&mut self, n: u64) -> u64 {
        self.random = mix(self.random);
        (self.random >> 16) % n
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn range_of_pages(&mut self, n: u64) -> PageRange {
        let pages = page_count(size(n));
        let first = self.below(pages.max(1));
        PageRange {
            first,
            end: (first + 1 + self.below(12)).min(pages),
        }
    }

    fn step(&mut self) {
        let n = self.below(OBJECTS);
        match self.below(100) {
            0..40 => {
                let pages = self.range_of_pages(n);
                if pages.first < pages.end {
                    let bytes = content(n, pages.bytes(size(n)));
                    self.store()
                        .fill(id(n), size(n), pages.first, &bytes)
                        .unwrap();
                    self.pages.entry(n).or_default().extend(pages);
                }
            }
            40..80 => {
                let offset = self.below(size(n) + 1);
                let range = ByteRange::new(offset, self.below(1 << 20)).clamp(size(n));
                let known = self.pages.get(&n);
                let expected = known.is_some_and(|known| {
                    range.pages().into_iter().all(|page| known.contains(&page))
                });
                assert_eq!(
                    hits(self.store(), n, range),
                    expected,
                    "object {n} {range:?}"
                );
            }
            80..85 => {
                let local = self.store().local_file(id(n));
                let whole = self.pages.get(&n).map(|p| p.len() as u64) == Some(page_count(size(n)));
                assert_eq!(self.store().contains_whole(id(n)), whole);
                assert!(local.is_none() || whole);
                if let Some(local) = local {
                    let file = local.open().unwrap();
                    assert!(bytes_of(&file) == content(n, ByteRange::new(0, size(n))));
                }
            }
            85..88 => {
                self.store().remove(id(n));
                self.pages.remove(&n);
            }
            88..94 => self.damage(n),
            94..97 => self.reopen(true),
            _ => self.reopen(false),
        }
    }

    /// Flips a bit of a page; the model forgets the page.
    fn damage(&mut self, n: u64) {
        let Some(pages) = self.pages.get(&n).filter(|pages| !pages.is_empty()) else {
            return;
        };
        let mut pages: Vec<u64> = pages.iter().copied().collect();
        pages.sort_unstable();
        let at = pages[usize::try_from(self.below(pages.len() as u64)).unwrap()];
        flip_in_page(self.dir.path(), n, at);
        // Found at once, so that the model knows what is left.
        assert!(!hits(self.store(), n, page(size(n), at)));
        self.pages.get_mut(&n).unwrap().remove(&at);
    }

    fn reopen(&mut self, clean: bool) {
        if clean {
            self.store().close();
        }
        self.store = None;
        self.store = Some(open_with(self.dir.path(), 400 * MIB));
    }
}

fn size(n: u64) -> u64 {
    match n % 4 {
        0 => 40 * MIB + 77,
        1 => 6 + mix(n) % 1000,
        2 => 2 * MIB,
        _ => 5 * MIB + mix(n) % MIB,
    }
}

#[test]
fn random_operations_give_right_bytes_or_the_expected_miss() {
    let seed = match std::env::var("FOREBAY_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => u64::from(
            SystemClock
                .wall()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .subsec_nanos(),
        ),
    };
    let dir = temp();
    let store = Some(open_with(dir.path(), 400 * MIB));
    let mut model = Model {
        dir,
        store,
        pages: HashMap::new(),
        random: seed,
    };
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..1500 {
            model.step();
        }
    }));
    assert!(done.is_ok(), "replay with FOREBAY_SEED={seed}");
    let pages: usize = model.pages.values().map(HashSet::len).sum();
    assert_eq!(model.store().stats().pages, pages as u64);
    assert_eq!(
        model.store().stats().evictions,
        0,
        "the model knows no evictions"
    );
}
