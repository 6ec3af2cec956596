// SPDX-License-Identifier: Apache-2.0
//! Catching the panics of redb on a damaged file.
//!
//! A program may well end at any panic, from its panic hook, before anybody could catch it. So a
//! thread says beforehand that it catches what comes, and the hook can ask.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Returns whether a panic of this thread is caught here: a panic hook must let it pass.
#[must_use]
pub fn catches_panics() -> bool {
    DEPTH.get() > 0
}

/// Runs `work`; `None` when it panicked. What it touched must be dropped or be fit for use then.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Option<T> {
    DEPTH.set(DEPTH.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    DEPTH.set(DEPTH.get() - 1);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_up_only_while_work_runs() {
        assert!(!catches_panics());
        assert_eq!(guarded(|| guarded(catches_panics)), Some(Some(true)));
        assert!(!catches_panics());
        assert_eq!(guarded(|| panic!("on purpose")), None::<()>);
        assert!(!catches_panics());
    }
}
