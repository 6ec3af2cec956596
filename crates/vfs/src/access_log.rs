// SPDX-License-Identifier: Apache-2.0
//! A live stream of what programs do in the tree, for whoever reads `.forebay/accesslog`.
//!
//! Nothing is kept while nobody reads, and what is kept for a reader is bounded: one that is too slow
//! loses the oldest lines and is told how many.
//!
//! Locks: the list of readers, then the lines of one, each held for a few lines.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use types::{ByteRange, ErrorKind};

/// Bytes of lines that are kept for one reader.
const KEPT_MAX_BYTES: usize = 1 << 20;

/// What a program had done.
#[derive(Debug, Clone)]
pub struct Accessed {
    /// When it was answered.
    pub at: SystemTime,
    /// The kind of request.
    pub operation: &'static str,
    /// The path in the tree.
    pub path: String,
    /// Which bytes were asked for.
    pub range: Option<ByteRange>,
    /// How long it took.
    pub took: Duration,
    /// Why it failed, if it did.
    pub fault: Option<ErrorKind>,
    /// The thread that asked.
    pub asker: u32,
}

/// All readers of the log.
#[derive(Debug, Default)]
pub struct AccessLog {
    watchers: AtomicUsize,
    readers: RwLock<Vec<Arc<Lines>>>,
}

/// The lines that one reader has not read.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    kept: Mutex<Kept>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
    /// Lines that were dropped since the last that was read.
    lost: u64,
}

impl AccessLog {
    /// Returns whether anybody reads.
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::Relaxed) > 0
    }

    /// Tells all readers.
    pub fn tell(&self, accessed: &Accessed) {
        let line = line(accessed);
        for reader in self.readers.read().iter() {
            reader.push(line.clone());
        }
    }

    /// Begins to keep lines for one more reader.
    pub(crate) fn watch(&self) -> Arc<Lines> {
        let lines = Arc::<Lines>::default();
        self.readers.write().push(Arc::clone(&lines));
        self.watchers.fetch_add(1, Ordering::Relaxed);
        lines
    }

    /// Ends that.
    pub(crate) fn unwatch(&self, lines: &Arc<Lines>) {
        let mut readers = self.readers.write();
        if let Some(at) = readers.iter().position(|one| Arc::ptr_eq(one, lines)) {
            readers.swap_remove(at);
            self.watchers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Lines {
    fn push(&self, line: String) {
        let mut kept = self.kept.lock();
        kept.bytes += line.len();
        kept.lines.push_back(line);
        while kept.bytes > KEPT_MAX_BYTES
            && let Some(oldest) = kept.lines.pop_front()
        {
            kept.bytes -= oldest.len();
            kept.lost += 1;
        }
        drop(kept);
        self.more.notify_one();
    }

    /// Takes as many lines as fit; none when there are none. A line that is longer than all the room
    /// is cut.
    pub(crate) fn take(&self, room: usize) -> Option<Bytes> {
        let mut kept = self.kept.lock();
        let mut text = String::new();
        if kept.lost > 0 {
            let lost = std::mem::take(&mut kept.lost);
            text = format!("# {lost} lines are missing: they came faster than they were read\n");
        }
        while let Some(line) = kept.lines.front()
            && (text.is_empty() || text.len() + line.len() <= room)
            && let Some(line) = kept.lines.pop_front()
        {
            kept.bytes -= line.len();
            text.push_str(&line);
        }
        let mut bytes = text.into_bytes();
        bytes.truncate(room);
        (!bytes.is_empty()).then(|| bytes.into())
    }

    /// Takes lines, and waits for the first.
    pub(crate) async fn next(&self, room: usize) -> Bytes {
        loop {
            // Asked for before the look: a line that comes in between wakes it.
            let more = self.more.notified();
            if let Some(bytes) = self.take(room) {
                return bytes;
            }
            more.await;
        }
    }
}

/// Writes a line: when, what, where, which bytes, how it went, how long it took, who asked.
fn line(accessed: &Accessed) -> String {
    let at = accessed
        .at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let range = accessed.range.map_or("-".to_owned(), |range| {
        format!("{}+{}", range.offset, range.len)
    });
    let outcome = accessed
        .fault
        .map_or("ok".to_owned(), |kind| format!("{kind:?}"));
    let operation = accessed.operation.replace(' ', "-");
    format!(
        "{}.{:06} {operation} \"{}\" {range} {outcome} {:.6} pid={}\n",
        at.as_secs(),
        at.subsec_micros(),
        accessed.path.escape_debug(),
        accessed.took.as_secs_f64(),
        accessed.asker,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accessed(path: &str) -> Accessed {
        Accessed {
            at: SystemTime::UNIX_EPOCH + Duration::from_micros(7_000_042),
            operation: "open for writing",
            path: path.to_owned(),
            range: Some(ByteRange::new(4096, 100)),
            took: Duration::from_micros(1500),
            fault: None,
            asker: 9,
        }
    }

    #[test]
    fn a_line_is_one_line_whatever_a_name_holds() {
        let text = line(&accessed("/a \"b\"\nc"));
        assert_eq!(
            text,
            "7.000042 open-for-writing \"/a \\\"b\\\"\\nc\" 4096+100 ok 0.001500 pid=9\n"
        );
        let failed = Accessed {
            fault: Some(ErrorKind::NotFound),
            range: None,
            ..accessed("/a")
        };
        assert!(
            line(&failed).contains("\"/a\" - NotFound "),
            "{}",
            line(&failed)
        );
    }

    #[test]
    fn nothing_is_kept_for_nobody_and_each_reader_gets_all() {
        let log = AccessLog::default();
        log.tell(&accessed("/before"));
        assert!(!log.is_watched());
        let (one, other) = (log.watch(), log.watch());
        assert!(log.is_watched());
        log.tell(&accessed("/a"));
        for lines in [&one, &other] {
            let text = lines.take(1000).unwrap();
            assert!(text.starts_with(b"7.000042"), "{text:?}");
            assert_eq!(lines.take(1000), None);
        }
        log.unwatch(&one);
        log.unwatch(&other);
        assert!(!log.is_watched());
    }

    #[test]
    fn a_slow_reader_loses_the_oldest_lines_and_is_told() {
        let log = AccessLog::default();
        let lines = log.watch();
        let path = "x".repeat(1000);
        for _ in 0..2000 {
            log.tell(&accessed(&path));
        }
        assert!(lines.kept.lock().bytes <= KEPT_MAX_BYTES);
        let mut text = Vec::new();
        while let Some(more) = lines.take(100_000) {
            text.extend_from_slice(&more);
        }
        let text = String::from_utf8(text).unwrap();
        let lost = text
            .strip_prefix("# ")
            .and_then(|rest| rest.split_once(' '));
        let lost: usize = lost.unwrap().0.parse().unwrap();
        assert!(lost > 0, "{lost}");
        assert_eq!(text.lines().count() - 1 + lost, 2000);
    }
}
