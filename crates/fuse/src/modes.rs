// SPDX-License-Identifier: Apache-2.0
//! How each open inode is served: by the kernel from its cache file, or by us.
//!
//! The kernel answers EIO to an open whose mode differs from that of another living open or mapping
//! of the same inode, and to a second backing id of the same inode. So one small state machine per
//! inode: the first open decides, later opens follow it whatever they could have, and only the last
//! RELEASE (which the kernel sends after the last mapping has gone, and after it has forgotten the
//! mode itself) ends it. FLUSH means nothing here. A backing id lives at least from the first open to
//! the last release: one that is closed as soon as the reply is out fails the open that it was for.
//!
//! Our count is never below the kernel's: it goes up before the reply and down after the kernel's
//! own. Whatever order replies of racing opens arrive in, they therefore carry the same mode.
//!
//! Pure but for the callback that makes a backing id. That runs under the lock of its shard: it is
//! one open and one ioctl of a file that was looked at just before, and it must not happen twice for
//! an inode. Leaf locks of the cache are taken in it, which call nobody.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use parking_lot::Mutex;

use crate::stats::Passthrough;

/// The default bound of backing ids. Each pins an open file in the kernel and the blocks of a cache
/// file; 20,000 were seen to work, so half of that leaves room for other mounts.
pub(crate) const BACKINGS_MAX: usize = 10_000;

/// Opens of different inodes rarely meet on one of so many locks.
const SHARDS: usize = 16;

/// What one open inode is bound to until its last release.
#[derive(Debug)]
enum Mode<B> {
    Passthrough { backing: Arc<B>, opens: u64 },
    Cached { opens: u64 },
}

/// How an open is to be answered.
#[derive(Debug)]
pub(crate) enum Serve<B> {
    /// The kernel reads the cache file behind this backing id.
    Passthrough(Arc<B>),
    /// The kernel asks us and keeps what we answer in its page cache.
    Cached,
}

/// Why the kernel did not take a cache file.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It was short of something; the next open may succeed.
    Now,
    /// It never will, for this reason.
    ForGood(String),
}

/// The modes of all open inodes. `B` is what keeps a backing id and its cache file alive.
#[derive(Debug)]
pub(crate) struct Modes<B> {
    shards: [Mutex<HashMap<u64, Mode<B>>>; SHARDS],
    backings: AtomicUsize,
    backings_max: usize,
    opens_passthrough: AtomicU64,
    opens_cached: AtomicU64,
    enabled: AtomicBool,
    /// Why `enabled` is false.
    reason: Mutex<String>,
}

impl<B> Modes<B> {
    /// Makes the table with passthrough off, because the kernel has not offered it yet.
    pub(crate) fn new(backings_max: usize) -> Self {
        Modes {
            shards: std::array::from_fn(|_| Mutex::new(HashMap::new())),
            backings: AtomicUsize::new(0),
            backings_max,
            opens_passthrough: AtomicU64::new(0),
            opens_cached: AtomicU64::new(0),
            enabled: AtomicBool::new(false),
            reason: Mutex::new(String::from("the kernel has not answered yet")),
        }
    }

    /// Allows passthrough for opens to come.
    pub(crate) fn enable(&self) {
        self.enabled.store(true, Relaxed);
    }

    /// Forbids passthrough for opens to come; what is open keeps its mode.
    pub(crate) fn disable(&self, reason: impl Into<String>) {
        *self.reason.lock() = reason.into();
        self.enabled.store(false, Relaxed);
    }

    /// Counts an open of `ino` and says how to answer it. `backing` is there when the kernel could
    /// read the file itself, and is called at most once, only if this open is the one that decides.
    pub(crate) fn open(
        &self,
        ino: u64,
        backing: Option<impl FnOnce() -> Result<B, Refusal>>,
    ) -> Serve<B> {
        let mut shard = self.shard(ino).lock();
        match shard.get_mut(&ino) {
            Some(Mode::Passthrough { backing, opens }) => {
                *opens += 1;
                self.opens_passthrough.fetch_add(1, Relaxed);
                return Serve::Passthrough(Arc::clone(backing));
            }
            Some(Mode::Cached { opens }) => {
                *opens += 1;
                self.opens_cached.fetch_add(1, Relaxed);
                return Serve::Cached;
            }
            None => {}
        }
        if let Some(backing) = backing.and_then(|make| self.back(make)) {
            let backing = Arc::new(backing);
            let mode = Mode::Passthrough {
                backing: Arc::clone(&backing),
                opens: 1,
            };
            shard.insert(ino, mode);
            self.opens_passthrough.fetch_add(1, Relaxed);
            return Serve::Passthrough(backing);
        }
        shard.insert(ino, Mode::Cached { opens: 1 });
        self.opens_cached.fetch_add(1, Relaxed);
        Serve::Cached
    }

    /// Counts an open of `ino` for writing, which the kernel must send to us; false, and nothing is
    /// counted, while it reads the cache file itself.
    pub(crate) fn open_for_writing(&self, ino: u64) -> bool {
        match self
            .shard(ino)
            .lock()
            .entry(ino)
            .or_insert(Mode::Cached { opens: 0 })
        {
            Mode::Passthrough { .. } => false,
            Mode::Cached { opens } => {
                *opens += 1;
                self.opens_cached.fetch_add(1, Relaxed);
                true
            }
        }
    }

    /// Counts a RELEASE of `ino`. Returns the backing when it was the last, to be dropped by the
    /// caller with no lock held.
    pub(crate) fn release(&self, ino: u64) -> Option<Arc<B>> {
        let mut shard = self.shard(ino).lock();
        let left = match shard.get_mut(&ino)? {
            Mode::Passthrough { opens, .. } => {
                self.opens_passthrough.fetch_sub(1, Relaxed);
                opens
            }
            Mode::Cached { opens } => {
                self.opens_cached.fetch_sub(1, Relaxed);
                opens
            }
        };
        *left -= 1;
        if *left > 0 {
            return None;
        }
        match shard.remove(&ino)? {
            Mode::Passthrough { backing, .. } => {
                self.backings.fetch_sub(1, Relaxed);
                Some(backing)
            }
            Mode::Cached { .. } => None,
        }
    }

    /// Returns how many files are open in passthrough and in cached mode.
    pub(crate) fn opens(&self) -> (u64, u64) {
        (
            self.opens_passthrough.load(Relaxed),
            self.opens_cached.load(Relaxed),
        )
    }

    /// Returns whether new opens may get passthrough, and why not.
    pub(crate) fn passthrough(&self) -> Passthrough {
        match self.enabled.load(Relaxed) {
            true => Passthrough::On,
            false => Passthrough::Off {
                reason: self.reason.lock().clone(),
            },
        }
    }

    /// Makes a backing id if one may be made, and learns from a refusal.
    fn back(&self, make: impl FnOnce() -> Result<B, Refusal>) -> Option<B> {
        if !self.enabled.load(Relaxed) {
            return None;
        }
        if self.backings.fetch_add(1, Relaxed) >= self.backings_max {
            self.backings.fetch_sub(1, Relaxed);
            return None;
        }
        match make() {
            Ok(backing) => return Some(backing),
            Err(Refusal::Now) => {}
            Err(Refusal::ForGood(reason)) => self.disable(reason),
        }
        self.backings.fetch_sub(1, Relaxed);
        None
    }

    fn shard(&self, ino: u64) -> &Mutex<HashMap<u64, Mode<B>>> {
        // Inode numbers are hashes, so any of their bits spread well.
        &self.shards[usize::from(ino.to_le_bytes()[0]) % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    type Maker = fn() -> Result<Arc<()>, Refusal>;

    /// The maker of an open that has no complete cache file.
    const NONE: Option<Maker> = None;

    fn modes(max: usize) -> Modes<Arc<()>> {
        let modes = Modes::new(max);
        modes.enable();
        modes
    }

    fn some<B>(backing: B) -> Option<impl FnOnce() -> Result<B, Refusal>> {
        Some(move || Ok(backing))
    }

    fn forbidden() -> Option<Maker> {
        Some(|| panic!("this open does not decide"))
    }

    fn is_passthrough(serve: &Serve<Arc<()>>) -> bool {
        matches!(serve, Serve::Passthrough(_))
    }

    #[test]
    fn a_cached_open_keeps_later_opens_cached_until_the_last_release() {
        let modes = modes(10);
        assert!(!is_passthrough(&modes.open(7, NONE)));
        assert!(
            !is_passthrough(&modes.open(7, forbidden())),
            "the file became complete since"
        );
        assert!(modes.release(7).is_none());
        assert!(
            !is_passthrough(&modes.open(7, forbidden())),
            "one open still lives"
        );
        modes.release(7);
        modes.release(7);
        assert!(
            is_passthrough(&modes.open(7, some(Arc::new(())))),
            "all have gone"
        );
    }

    #[test]
    fn a_passthrough_open_keeps_later_opens_passthrough_with_the_same_backing() {
        let modes = modes(10);
        let file = Arc::new(());
        let first = modes.open(7, some(Arc::clone(&file)));
        let second = modes.open(7, forbidden());
        let third = modes.open(7, NONE);
        for serve in [&first, &second, &third] {
            let Serve::Passthrough(backing) = serve else {
                panic!("modes were mixed")
            };
            assert!(
                Arc::ptr_eq(&file, backing),
                "a second backing id of an inode fails its open"
            );
        }
        assert_eq!(modes.opens(), (3, 0));
    }

    #[test]
    fn a_backing_lives_exactly_until_the_last_release() {
        let modes = modes(10);
        let file = Arc::new(());
        drop(modes.open(7, some(Arc::clone(&file))));
        drop(modes.open(7, forbidden()));
        assert!(modes.release(7).is_none());
        assert_eq!(Arc::strong_count(&file), 2, "kept while one open lives");
        drop(modes.release(7));
        assert_eq!(Arc::strong_count(&file), 1, "nobody holds it any more");
        assert_eq!(modes.opens(), (0, 0));
    }

    #[test]
    fn inodes_do_not_disturb_one_another() {
        let modes = modes(10);
        assert!(is_passthrough(&modes.open(1, some(Arc::new(())))));
        assert!(!is_passthrough(&modes.open(1 + SHARDS as u64, NONE)));
        assert!(is_passthrough(&modes.open(1, NONE)));
        assert_eq!(modes.opens(), (2, 1));
    }

    #[test]
    fn over_the_bound_opens_are_cached_and_room_comes_back() {
        let modes = modes(2);
        assert!(is_passthrough(&modes.open(1, some(Arc::new(())))));
        assert!(is_passthrough(&modes.open(2, some(Arc::new(())))));
        assert!(!is_passthrough(&modes.open(3, forbidden())));
        assert!(
            is_passthrough(&modes.open(2, forbidden())),
            "no new backing is needed"
        );
        modes.release(1);
        assert!(
            !is_passthrough(&modes.open(3, forbidden())),
            "its first open decided"
        );
        assert!(is_passthrough(&modes.open(4, some(Arc::new(())))));
        assert_eq!(modes.passthrough(), Passthrough::On, "a bound is no fault");
    }

    #[test]
    fn a_refusal_for_good_ends_passthrough_and_says_why() {
        let modes = modes(10);
        let refuse = || Err(Refusal::ForGood("needs CAP_SYS_ADMIN".into()));
        assert!(!is_passthrough(&modes.open(1, Some(refuse))));
        assert!(
            !is_passthrough(&modes.open(2, forbidden())),
            "the kernel is not asked again"
        );
        let Passthrough::Off { reason } = modes.passthrough() else {
            panic!("it is off")
        };
        assert_eq!(reason, "needs CAP_SYS_ADMIN");
    }

    #[test]
    fn a_passing_refusal_is_forgotten() {
        let modes = modes(1);
        for ino in 0..3 {
            assert!(!is_passthrough(
                &modes.open(ino, Some(|| Err(Refusal::Now)))
            ));
        }
        assert!(
            is_passthrough(&modes.open(9, some(Arc::new(())))),
            "the bound was given back"
        );
    }

    #[test]
    fn disabling_leaves_what_is_open_as_it_is() {
        let modes = modes(10);
        assert!(is_passthrough(&modes.open(1, some(Arc::new(())))));
        modes.disable("asked for");
        assert!(is_passthrough(&modes.open(1, forbidden())));
        assert!(!is_passthrough(&modes.open(2, forbidden())));
    }

    #[test]
    fn a_release_that_nobody_opened_is_ignored() {
        let modes = modes(10);
        assert!(modes.release(5).is_none());
        assert_eq!(modes.opens(), (0, 0));
    }

    #[test]
    fn racing_opens_and_releases_never_mix_modes() {
        let modes = modes(10);
        // Counted after the open and before the release, so within the life of each.
        let living = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let seen = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (modes, living, seen, start) = (&modes, &living, &seen, &start);
                scope.spawn(move || {
                    for round in 0..1_000 {
                        // All have let go here, so that each round decides anew.
                        start.wait();
                        for _ in 0..5 {
                            let could = (thread + round) % 2 == 0;
                            let serve = modes.open(7, could.then_some(|| Ok(Arc::new(()))));
                            let mode = usize::from(is_passthrough(&serve));
                            seen[mode].fetch_add(1, Relaxed);
                            living[mode].fetch_add(1, Ordering::SeqCst);
                            let others = living[1 - mode].load(Ordering::SeqCst);
                            assert_eq!(others, 0, "modes were mixed");
                            std::thread::yield_now();
                            living[mode].fetch_sub(1, Ordering::SeqCst);
                            drop(modes.release(7));
                        }
                    }
                });
            }
        });
        assert!(
            seen.iter().all(|count| count.load(Relaxed) > 0),
            "both modes had their turn"
        );
        assert_eq!(modes.opens(), (0, 0));
        assert_eq!(modes.backings.load(Relaxed), 0);
    }
}
