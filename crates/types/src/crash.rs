// SPDX-License-Identifier: Apache-2.0
//! Fault points: places where a crash test has the process die.
//!
//! A point stands wherever a crash leaves something half done: after a write, a sync, a rename, an
//! upload. With `FOREBAY_CRASH_AT="staged.synced:3"` in the environment the process aborts when it
//! comes by that point for the third time; a test then restarts it and checks what it promises.
//! A release build has none of this.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Names the point and how many passages it takes to crash there.
const VARIABLE: &str = "FOREBAY_CRASH_AT";

/// Every point, in the order in which a staged file comes by them.
const POINTS: &[&str] = &[
    "staged.created",
    "staged.written",
    "staged.synced",
    "staged.entry_synced",
    "staged.note_written",
    "staged.note_synced",
    "staged.notes_rewritten",
    "staged.notes_renamed",
    "staged.removed",
    "cache.adopt_moved",
    "cache.adopt_noted",
    "cache.relabel_moved",
    "cache.relabel_noted",
    "seal.synced",
    "seal.noted",
    "persist.begin",
    "persist.upload",
    "persist.parts",
    "persist.completed",
    "persist.stored",
    "make.noted",
    "names.made",
    "make.done",
    "names.removed",
    "rename.done",
    "rename.noted",
    "rename.copied",
    "rename.removed",
    "rename.moved",
];

/// Where to crash.
struct Plan {
    name: String,
    left: AtomicU64,
}

/// Aborts the process if this is the passage that the environment asks for.
///
/// # Panics
/// In a debug build, when the name is not in [`points`]: no test would crash there.
pub fn point(name: &'static str) {
    if cfg!(debug_assertions) {
        pass(name, plan());
    }
}

/// Returns the names of all points.
pub fn points() -> &'static [&'static str] {
    POINTS
}

fn plan() -> Option<&'static Plan> {
    static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
    PLAN.get_or_init(|| parse(&std::env::var(VARIABLE).ok()?))
        .as_ref()
}

/// Reads `name:n`; `name` alone means the first passage.
fn parse(text: &str) -> Option<Plan> {
    let (name, passage) = text.rsplit_once(':').unwrap_or((text, "1"));
    Some(Plan {
        name: name.to_string(),
        left: AtomicU64::new(passage.parse().ok().filter(|n| *n > 0)?),
    })
}

fn pass(name: &'static str, plan: Option<&Plan>) {
    assert!(
        POINTS.contains(&name),
        "{name} is not in the list of points"
    );
    if plan.is_some_and(|plan| plan.name == name && plan.left.fetch_sub(1, Ordering::Relaxed) == 1)
    {
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_counts_the_passages_of_its_point_only() {
        let plan = parse("staged.synced:3").unwrap();
        pass("staged.synced", Some(&plan));
        pass("staged.written", Some(&plan));
        pass("staged.synced", Some(&plan));
        pass("staged.synced", None);
        assert_eq!(plan.left.load(Ordering::Relaxed), 1);
        assert_eq!(parse("staged.synced").unwrap().left.into_inner(), 1);
        assert!(parse("staged.synced:0").is_none() && parse("a:b").is_none());
    }

    #[test]
    #[should_panic(expected = "not in the list")]
    fn a_point_that_no_list_names_is_refused() {
        pass("nowhere", None);
    }
}
