// SPDX-License-Identifier: Apache-2.0
//! What a worker is told: its memory, its width, and the sizes that shape its requests.

use std::time::Duration;

use types::ByteSize;

pub use crate::schedule::Bounds;

/// The most bytes one GET asks for: at 200 MB/s it lasts 40 ms, so that latency is a small part
/// of it, and four of them under way fill a wire of several gigabits.
pub const REQUEST_MAX: u64 = 8 << 20;

/// The unit in which arriving bytes are handed on: the largest request of the kernel, so that a
/// reply is a slice and not a copy.
pub const PIECE_MAX: u64 = 1 << 20;

/// Objects up to this size are fetched whole, with one GET, when they are opened.
pub const WHOLE_MAX: u64 = 4 << 20;

/// How long a storage that did not answer is left alone while old knowledge can be served.
pub const REST_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Some six million names: larger directories are rare, and a storage that never ends a listing must
/// not take all memory.
pub const LISTING_MAX: ByteSize = ByteSize(1 << 30);

/// Requests for data under way at a time. Few enough at the start for a small server; the most is what
/// 200 MB/s of files of 110 KiB take at 130 ms.
pub const WIDTH: Bounds = Bounds {
    least: 4,
    first: 64,
    most: 256,
};

/// How a worker behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes that may be in memory on their way from the storage to readers and to the cache.
    pub memory: ByteSize,
    /// Bytes that the names of one listing may take while it is taken in.
    pub listing: ByteSize,
    /// Requests for data under way at a time, for each mount.
    pub width: Bounds,
    /// Whether a request that a reader waits for is sent a second time when its answer is late.
    pub hedging: bool,
    /// How long a background request (readahead, a listing nobody waits for) may take.
    pub background_deadline: Duration,
    /// How long one request that changes the storage may take, its retries included.
    pub change_deadline: Duration,
    /// Whether the rest of a tree is fetched when a job reads its small files one after the other.
    pub neighbours: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            memory: ByteSize(96 << 20),
            listing: LISTING_MAX,
            width: WIDTH,
            hedging: true,
            background_deadline: Duration::from_secs(60),
            change_deadline: Duration::from_secs(60),
            neighbours: true,
        }
    }
}
