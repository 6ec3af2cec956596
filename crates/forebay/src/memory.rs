// SPDX-License-Identifier: Apache-2.0
//! Keeps the allocator from holding several times what is in use.
//!
//! glibc gives threads heaps of their own, up to eight per processor, and a heap keeps what its
//! thread freed. Buffers here are made by one thread and freed by another, so each heap grows to the
//! peak. Measured with 64 readers of 32 MiB each on two processors and a budget of 200 MiB: 246 MB
//! resident with the default, 152 MB with two heaps, 100 MB with one; the time did not differ beyond
//! the noise.

/// Two threads rarely allocate at the same time: a hit allocates nothing.
#[cfg(target_env = "gnu")]
const ARENAS_MAX: i32 = 2;

/// Bounds the heaps. Called first in `main`, before there is a second thread.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "the C library has this knob as a call only")]
pub(crate) fn bound_arenas() {
    // SAFETY: mallopt takes two integers, touches no memory of ours, and no other thread runs yet.
    // It answers 0 when it knows no such knob, and then the default stays.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, ARENAS_MAX) };
}

/// Other C libraries have no such heaps.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn bound_arenas() {}
