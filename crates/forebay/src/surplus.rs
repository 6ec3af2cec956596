// SPDX-License-Identifier: Apache-2.0
//! Has the kernel forget inodes when it knows more than it may.

use std::sync::Arc;
use std::time::Duration;

use vfs::Vfs;

/// How often to look: a fast walk adds some ten thousand inodes meanwhile.
const EVERY: Duration = Duration::from_millis(250);
/// The longest pause while all are in use.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Looks until the mount is gone.
pub(crate) async fn look_after(vfs: Arc<Vfs>, session: Arc<fuse::Session>) {
    let mut pause = EVERY;
    while !session.has_ended() {
        tokio::time::sleep(pause).await;
        let forgotten = vfs.stats().forgotten;
        let surplus = vfs.surplus();
        if surplus.is_empty() {
            pause = EVERY;
            continue;
        }
        let asked = surplus.len() as u64;
        let teller = Arc::clone(&session);
        let told = tokio::task::spawn_blocking(move || teller.invalidate(&surplus)).await;
        if let Ok(Err(error)) = told {
            tracing::warn!("take back inodes: {error}");
        }
        // The kernel answers after it was told.
        tokio::time::sleep(EVERY).await;
        let done = vfs.stats().forgotten - forgotten;
        pause = match done >= asked / 2 {
            true => Duration::ZERO,
            // What is mounted over or opened without us stays: looking again would find it again.
            false => (pause * 2).clamp(EVERY, PAUSE_MAX),
        };
    }
}
