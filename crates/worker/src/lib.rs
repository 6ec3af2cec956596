// SPDX-License-Identifier: Apache-2.0
//! Serves the pages and the names of this node, from the cache or from the under storage.
//!
//! Reading order, which is the path of a read:
//!
//! - [`settings`]: what a worker is told.
//! - `pages`: the entry: a hit is a copy, a miss joins or starts a flight.
//! - `neighbours`: sees that a job reads a tree of small files, and fetches the rest of it.
//! - `walk`: all files of a tree; `load` brings them into the cache, `held` tells what of them is
//!   there and drops it, `pins` keeps what must stay, `rules` say how long, how much
//!   and before whom, `check` compares it with the storage.
//! - `whole`: small objects are fetched whole; what is cached whole is a file.
//! - `flights`: which pieces of which object versions are under way or still in memory.
//! - `fetch`: carries a flight out: one ranged GET, its bytes cut into pieces.
//! - `schedule`: whose turn it is to send a request, demand before guesses.
//! - `progress`: whether a storage still moves, which is what waits for it are measured by.
//! - `memory`: the one budget of bytes that all pieces live in.
//! - `fill`: writes arrived pieces into the cache, behind the reader.
//! - `meta`: what a name is, from fresh knowledge or from the storage, which `ask` asks.
//! - `sync`: asks for a place anew and forgets what was known below it (`synced`).
//! - `knowledge`: keeps what was learnt, in memory (`recent`) and on disk (`ledger`, `records`).
//! - `write`: changes on their way to the storage, in `parts` where they are large, and their outcomes
//!   (`attempts`); `moves`: renames, and what shows meanwhile
//!   (`veils`); `makes`: directories that are here before the storage has them; `staging`: what waits on the local disk, with its `notes`.
//!
//! - `spans`: what traces tell of all this.
//!
//! A worker knows object paths below a mount, never the paths a user types, and knows no kernel.

mod ask;
mod attempts;
mod check;
mod fetch;
mod fill;
mod flights;
mod held;
mod knowledge;
mod ledger;
mod load;
mod makes;
mod memory;
mod meta;
mod moves;
mod neighbours;
mod notes;
mod pages;
mod parts;
mod pins;
mod progress;
mod recent;
mod records;
mod rules;
mod schedule;
pub mod settings;
mod single_flight;
mod spans;
mod staging;
mod stats;
mod sync;
mod synced;
mod veils;
mod walk;
mod whole;
mod worker;
mod write;

pub use attempts::{Attempt, Attempts, Halt};
pub use cache::staged::{Room, Segment, Source, StagedFile, StagedId};
pub use cache::{LocalFile, Priority, RULES_MAX, Rule};
pub use check::{CheckPlan, Checked, Finding};
pub use held::{Freed, Held, HeldByName, HeldName};
pub use load::{LoadCounts, LoadEnd, LoadPlan, LoadProgress, LoadStep, Missing, Pick};
pub use makes::Unmade;
pub use meta::{Learnt, Listing};
pub use moves::{Move, Moved};
pub use neighbours::TreeAhead;
pub use notes::{FileNote, MakeNote, UploadNote};
pub use parts::{Begun, Parts};
pub use pins::{PinnedPlace, PinnedTree};
pub use rules::RuledPlace;
pub use schedule::{Changes, Hedges, Requests};
pub use settings::Settings;
pub use staging::{Lasts, LeftOver, Staged};
pub use stats::Stats;
pub use sync::{Found, Synced};
pub use ufs::{Abilities, Expect, FileAttributes, ListEntry, Space, xattrs_len};
pub use walk::Subtree;
pub use worker::Worker;
pub use write::{PUT_MAX, Persist, is_gone};
