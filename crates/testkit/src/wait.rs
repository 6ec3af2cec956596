// SPDX-License-Identifier: Apache-2.0
//! Waits for a condition of another process, with a bound.

use std::thread::park_timeout;
use std::time::Duration;

use types::{Clock, SystemClock};

/// How long a condition may take before the test that waits for it fails: long enough for a slow
/// machine under load, short enough to tell which condition it was before the test's own bound.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within [`PATIENCE`]; the message says `what` was waited for.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(
        holds_within(PATIENCE, condition),
        "waited {PATIENCE:?} in vain until {what}"
    );
}

/// Returns whether `condition` comes to hold within `limit`.
pub fn holds_within(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = SystemClock.deadline(limit);
    loop {
        if condition() {
            return true;
        }
        if deadline.left(SystemClock.now()).is_zero() {
            return false;
        }
        park_timeout(Duration::from_millis(10));
    }
}
