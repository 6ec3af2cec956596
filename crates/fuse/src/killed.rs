// SPDX-License-Identifier: Apache-2.0
//! Letting go of programs that were killed while they wait for a storage.
//!
//! A program whose request has been read from `/dev/fuse` cannot die before it is answered, and the
//! library does not pass on the kernel's word that it was killed. So a request that has waited for a
//! while looks after its asker, and is answered when that is about to die. Reads of cached files
//! need this least: there the kernel waits for pages, and that wait can be killed by itself.

use std::fs;
use std::time::Duration;

use types::{Error, ErrorKind, Result};

/// How often a waiting request looks: seldom enough to cost nothing, often enough for Ctrl-C.
const INTERVAL: Duration = Duration::from_millis(500);

/// The bit of SIGKILL in a mask of signals. Any signal that ends a program becomes this one in each
/// of its threads.
const KILL: u64 = 1 << (libc::SIGKILL - 1);

/// Waits for `future`, but no longer than the thread `asker` lives.
pub(crate) async fn unless_killed<T>(
    asker: u32,
    future: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut future = std::pin::pin!(future);
    loop {
        tokio::select! {
            result = &mut future => return result,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        if is_killed(asker) {
            let message = format!("gave up: the program that asked (pid {asker}) was killed");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
    }
}

/// Returns whether a thread has a signal waiting that ends it. One that cannot be seen, because it
/// is the kernel's own or lives in another namespace, counts as alive.
fn is_killed(thread: u32) -> bool {
    // The file of the kernel answers from memory.
    fs::read_to_string(format!("/proc/{thread}/status")).is_ok_and(|status| has_kill(&status))
}

fn has_kill(status: &str) -> bool {
    ["SigPnd:", "ShdPnd:"].into_iter().any(|field| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask & KILL != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_waiting_kill_counts() {
        assert!(has_kill(
            "Name:\tcat\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n"
        ));
        assert!(has_kill(
            "SigPnd:\t0000000000000000\nShdPnd:\t0000000000000102\n"
        ));
        assert!(!has_kill(
            "SigPnd:\t0000000000000002\nShdPnd:\t0000000000004000\n"
        ));
        assert!(!has_kill("SigBlk:\t0000000000000100\n"));
        assert!(!has_kill(""));
        assert!(!is_killed(std::process::id()));
        assert!(!is_killed(0), "the kernel's own requests have no thread");
    }
}
