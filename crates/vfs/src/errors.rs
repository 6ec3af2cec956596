// SPDX-License-Identifier: Apache-2.0
//! The last faults, by inode: what the extended attribute `user.forebay.error` shows.
//!
//! An errno says little; the reason is kept here for whoever asks after the fact. Bounded: the
//! oldest gives way. It is not a log and holds nothing that the log does not.

use std::collections::VecDeque;

use parking_lot::Mutex;
use types::Error;

use crate::ino::Ino;

/// The last faults. Its lock is a leaf, taken only where something failed or is asked about.
#[derive(Debug, Default)]
pub(crate) struct LastErrors {
    kept: Mutex<VecDeque<(Ino, String)>>,
}

/// Enough for a person who looks after a job failed, and a few KiB.
const KEPT_MAX: usize = 64;

impl LastErrors {
    /// Keeps why something failed on an inode, in place of an earlier reason.
    pub(crate) fn note(&self, ino: Ino, error: &Error) {
        let mut kept = self.kept.lock();
        kept.retain(|(other, _)| *other != ino);
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((ino, error.to_string()));
    }

    /// Returns why something last failed on an inode.
    pub(crate) fn get(&self, ino: Ino) -> Option<String> {
        self.kept
            .lock()
            .iter()
            .find(|(other, _)| *other == ino)
            .map(|(_, text)| text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_is_kept_and_the_oldest_inode_gives_way() {
        let errors = LastErrors::default();
        for ino in 0..=KEPT_MAX as u64 {
            errors.note(Ino(ino), &Error::internal("first"));
            errors.note(Ino(ino), &Error::internal("last"));
        }
        assert_eq!(errors.get(Ino(0)), None);
        assert_eq!(errors.get(Ino(1)).as_deref(), Some("last"));
        assert_eq!(errors.kept.lock().len(), KEPT_MAX);
    }
}
