// SPDX-License-Identifier: Apache-2.0
//! Accesses that were denied, for the log: who was refused what, and why.
//!
//! Only what reaches us is known: the kernel refuses by owner and mode (`default_permissions`), whole
//! mounts that take no writes, and users who may not come in, without asking. What is left are the
//! storage's own refusals, writes where nothing is written, and what no storage can keep.
//!
//! A program that tries again and again must not fill a disk: what one user is denied of one path by
//! one operation is one line within a [`WINDOW`] and a count at its end, and of lines within a window
//! there are so many at most; the rest is counted together.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use types::{Clock, ErrorKind};

use crate::stats::Operation;
use crate::watch::{command, process};

/// How long the same is not written again. Long enough to fold a loop, short enough for who looks.
pub(crate) const WINDOW: Duration = Duration::from_secs(60);

/// Lines within a window, and as many counts at its end: with the longest usual paths a log of 16 MiB
/// lasts for a day of the worst program.
const LINES_MAX: usize = 50;

/// What a request was answered with.
#[derive(Debug)]
pub(crate) struct Denial {
    /// The name of the error number.
    pub(crate) errno: &'static str,
    /// What was tried, where the kind of request does not say it.
    pub(crate) operation: Option<&'static str>,
    pub(crate) reason: String,
}

/// Who was refused what.
#[derive(Debug)]
pub(crate) struct Denied {
    pub(crate) uid: u32,
    pub(crate) thread: u32,
    pub(crate) operation: &'static str,
    pub(crate) path: String,
}

/// Writes denials to the log.
#[derive(Debug)]
pub(crate) struct Denials {
    clock: Arc<dyn Clock>,
    count: AtomicU64,
    /// Held for a few lines, and never while a log line is written.
    window: Mutex<Window>,
}

/// What was denied within a window.
#[derive(Debug, Default)]
struct Window {
    began: Option<Instant>,
    /// By user, operation and path: how often again since its line.
    seen: HashMap<(u32, &'static str, String), u64>,
    /// How many had no line because there were enough.
    left_out: u64,
}

/// Returns the number that says that something is not allowed, if an error is answered with one.
pub(crate) fn errno_of(operation: Operation, kind: ErrorKind) -> Option<&'static str> {
    match (operation, kind) {
        (_, ErrorKind::PermissionDenied) => Some("EACCES"),
        (_, ErrorKind::ReadOnly) => Some("EROFS"),
        (Operation::MakeLink, ErrorKind::Unsupported) => Some("EPERM"),
        _ => None,
    }
}

impl Denials {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Denials {
            clock,
            count: AtomicU64::new(0),
            window: Mutex::default(),
        }
    }

    /// Returns how many there were.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Takes note of one.
    pub(crate) fn note(&self, denied: Denied, denial: &Denial) {
        self.count.fetch_add(1, Relaxed);
        let (ended, is_new) = self.fold(&denied);
        write(ended);
        if is_new {
            let Denied {
                uid,
                thread,
                operation,
                path,
            } = denied;
            let process = process(thread);
            let [command, path, reason] =
                [&command(process), &path, &denial.reason].map(|text| shown(text));
            let errno = denial.errno;
            tracing::info!(
                "denied: uid {uid}, pid {process} ({command}): {operation} of '{path}': {errno}: {reason}"
            );
        }
    }

    /// Writes what was folded, once its window is over.
    pub(crate) fn flush(&self) {
        let now = self.clock.now();
        let mut window = self.window.lock();
        let ended = window.end(now);
        drop(window);
        write(ended);
    }

    /// Writes what was folded, for the end of the mount.
    pub(crate) fn close(&self) {
        let ended = std::mem::take(&mut *self.window.lock()).told();
        write(ended);
    }

    /// Returns what there is to tell of a window that is over, and whether this has a line of its own.
    fn fold(&self, denied: &Denied) -> (Vec<String>, bool) {
        let now = self.clock.now();
        let mut window = self.window.lock();
        let ended = window.end(now);
        window.began.get_or_insert(now);
        let key = (denied.uid, denied.operation, denied.path.clone());
        let is_full = window.seen.len() >= LINES_MAX;
        match window.seen.get_mut(&key) {
            Some(again) => *again += 1,
            None if is_full => window.left_out += 1,
            None => {
                window.seen.insert(key, 0);
                return (ended, true);
            }
        }
        (ended, false)
    }
}

impl Window {
    /// Begins anew when it is over, and returns what there is to tell of it.
    fn end(&mut self, now: Instant) -> Vec<String> {
        let is_over = |began| now.saturating_duration_since(began) >= WINDOW;
        match self.began {
            Some(began) if is_over(began) => std::mem::take(self).told(),
            _ => Vec::new(),
        }
    }

    fn told(self) -> Vec<String> {
        let again = self.seen.into_iter().filter(|(_, count)| *count > 0);
        let mut lines: Vec<_> = again
            .map(|((uid, operation, path), count)| {
                let path = shown(&path);
                format!("denied: uid {uid}: {operation} of '{path}': {count} more times within {WINDOW:?}")
            })
            .collect();
        lines.sort();
        if self.left_out > 0 {
            let count = self.left_out;
            lines.push(format!(
                "denied: {count} more within {WINDOW:?}, of other paths"
            ));
        }
        lines
    }
}

fn write(lines: Vec<String>) {
    for line in lines {
        tracing::info!("{line}");
    }
}

/// Keeps a text from being more than one line: names are hostile.
fn shown(text: &str) -> String {
    let escape = |c: char| match c.is_control() {
        true => c.escape_default().to_string(),
        false => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use types::ManualClock;

    use super::*;

    fn denied(uid: u32, path: &str) -> Denied {
        Denied {
            uid,
            thread: 1,
            operation: "mkdir",
            path: path.to_owned(),
        }
    }

    #[test]
    fn the_same_is_one_line_and_a_count_when_its_window_is_over() {
        let clock = Arc::new(ManualClock::default());
        let denials = Denials::new(Arc::clone(&clock) as _);
        assert_eq!(denials.fold(&denied(1, "/a")), (vec![], true));
        for _ in 0..1000 {
            assert_eq!(denials.fold(&denied(1, "/a")), (vec![], false));
        }
        assert_eq!(
            denials.fold(&denied(2, "/a")),
            (vec![], true),
            "another user"
        );
        assert_eq!(
            denials.fold(&denied(1, "/b\n")),
            (vec![], true),
            "another path"
        );
        denials.fold(&denied(1, "/b\n"));
        clock.advance(WINDOW);
        let (told, is_new) = denials.fold(&denied(1, "/a"));
        assert_eq!(
            told,
            [
                "denied: uid 1: mkdir of '/a': 1000 more times within 60s",
                "denied: uid 1: mkdir of '/b\\n': 1 more times within 60s",
            ]
        );
        assert!(is_new, "a window of its own");
    }

    #[test]
    fn many_paths_have_so_many_lines_and_the_rest_is_counted() {
        let clock = Arc::new(ManualClock::default());
        let denials = Denials::new(Arc::clone(&clock) as _);
        let lines = (0..10_000).filter(|path| denials.fold(&denied(1, &path.to_string())).1);
        assert_eq!(lines.count(), LINES_MAX);
        assert!(denials.window.lock().seen.len() <= LINES_MAX);
        clock.advance(WINDOW);
        let told = denials.window.lock().end(clock.now());
        assert_eq!(told, ["denied: 9950 more within 60s, of other paths"]);
    }

    #[test]
    fn only_what_is_not_allowed_is_a_denial() {
        let of = |kind| errno_of(Operation::MakeDir, kind);
        assert_eq!(of(ErrorKind::PermissionDenied), Some("EACCES"));
        assert_eq!(of(ErrorKind::ReadOnly), Some("EROFS"));
        for kind in [
            ErrorKind::NotFound,
            ErrorKind::Timeout,
            ErrorKind::Unsupported,
        ] {
            assert_eq!(of(kind), None, "{kind:?}");
        }
        let of_link = errno_of(Operation::MakeLink, ErrorKind::Unsupported);
        assert_eq!(of_link, Some("EPERM"));
    }
}
