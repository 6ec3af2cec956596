// SPDX-License-Identifier: Apache-2.0
//! The model test: a mount that is written behaves as a file system in memory does.
//!
//! A seed chooses steps: calls on files and directories, changes by somebody else, kills of the
//! daemon, remounts in either write mode. They are taken on a real mount and on a toy; answers, the
//! whole tree, and what the storage has are compared. What fails is shrunk and printed as a sequence
//! that can be replayed.
//!
//! The gate takes few seeds. Longer:
//! * `FOREBAY_MODEL_SEED=7` starts there and not with 1,
//! * `FOREBAY_MODEL_SEEDS=100` takes so many of them,
//! * `FOREBAY_MODEL_STEPS=500` takes so many steps with each,
//! * `FOREBAY_MODEL_SHRINK=600` shrinks for so many seconds,
//! * `FOREBAY_MODEL_REPLAY='[...]'` takes these steps instead.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]
#![allow(clippy::print_stdout, reason = "a seed is of use only when it is told")]

mod calls;
mod run;
mod shrink;
mod steps;
mod toy;

use std::time::Duration;

use testkit::storage::Storage;
use types::{Clock, SystemClock};

use run::Fault;
use steps::{Chooser, Step};

/// What the gate takes of each storage: about half a minute.
const SEEDS: u64 = 4;
const STEPS: u64 = 150;
/// How long a failure is shrunk.
const SHRINK: Duration = Duration::from_secs(60);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn replay(storage: &Storage, place: &str, steps: &[Step]) -> (Vec<Step>, Option<Fault>) {
    run::run(storage, place, &mut |_, count| steps.get(count).cloned())
}

/// Shrinks a sequence that fails, and tells all of it.
fn report(storage: &Storage, seed: &str, steps: Vec<Step>, fault: Fault) -> String {
    let limit = number("FOREBAY_MODEL_SHRINK").map_or(SHRINK, Duration::from_secs);
    let deadline = SystemClock.deadline(limit);
    println!(
        "seed {seed}: step {} of {}: {}",
        fault.at,
        steps.len(),
        fault.why
    );
    let mut tries = 0;
    let mut last = fault;
    let mut fails = |part: &[Step]| {
        tries += 1;
        let (_, fault) = replay(storage, &format!("{seed}-{tries}"), part);
        let fails = fault.is_some();
        if let Some(fault) = fault {
            last = fault;
        }
        fails
    };
    let may_go_on = || !deadline.left(SystemClock.now()).is_zero();
    let steps = shrink::shrink(steps, &mut fails, &may_go_on);
    let told = serde_json::to_string(&steps).unwrap();
    format!(
        "{} with seed {seed}, after {tries} tries {} steps are left:\n\
         FOREBAY_MODEL_REPLAY='{told}'\n{}",
        storage.uri(),
        steps.len(),
        last.why
    )
}

fn behaves_as_the_toy(storage: &Storage) {
    if let Ok(told) = std::env::var("FOREBAY_MODEL_REPLAY") {
        let steps: Vec<Step> = serde_json::from_str(&told).unwrap();
        let (_, fault) = replay(storage, "replay", &steps);
        assert!(fault.is_none(), "{fault:?}");
        return;
    }
    let first = number("FOREBAY_MODEL_SEED").unwrap_or(1);
    let seeds = number("FOREBAY_MODEL_SEEDS").unwrap_or(SEEDS);
    let count = number("FOREBAY_MODEL_STEPS").unwrap_or(STEPS);
    for seed in first..first + seeds {
        let mut chooser = Chooser::new(seed);
        let mut next =
            |toy: &toy::Toy, done: usize| ((done as u64) < count).then(|| chooser.step(toy));
        let (steps, fault) = run::run(storage, &format!("{seed}"), &mut next);
        if let Some(fault) = fault {
            panic!("{}", report(storage, &seed.to_string(), steps, fault));
        }
        println!("{}: seed {seed}: {} steps", storage.uri(), steps.len());
    }
}

#[test]
fn a_mount_of_s3_behaves_as_a_file_system_in_memory() {
    behaves_as_the_toy(&Storage::s3());
}

#[test]
fn a_mount_of_a_directory_behaves_as_a_file_system_in_memory() {
    behaves_as_the_toy(&Storage::local());
}
