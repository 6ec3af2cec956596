// SPDX-License-Identifier: Apache-2.0
//! A store killed by a signal, again and again.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use types::PAGE_SIZE;

use crate::support::*;

const DIR: &str = "FOREBAY_TEST_KILLED_DIR";
const NAME: &str = "crash::fills_acknowledged_before_a_kill_survive_it";

/// Fills objects and reports each, until it is killed.
fn fill_for_ever(dir: &Path, from: u64) {
    let store = open_with(dir, 200 * MIB);
    let mut out = std::io::stdout();
    for n in from.. {
        fill(&store, n, size(n));
        writeln!(out, "filled {n}").unwrap();
    }
}

fn size(n: u64) -> u64 {
    1 + mix(n) % (3 * PAGE_SIZE)
}

#[test]
fn fills_acknowledged_before_a_kill_survive_it() {
    if let Some(dir) = std::env::var_os(DIR) {
        let from = std::env::var("FOREBAY_TEST_KILLED_FROM")
            .unwrap()
            .parse()
            .unwrap();
        return fill_for_ever(Path::new(&dir), from);
    }
    let dir = temp();
    let mut next = 0;
    for round in 0..4 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
            .env(DIR, dir.path())
            .env("FOREBAY_TEST_KILLED_FROM", next.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let filled = lines.map_while(Result::ok).filter_map(|line| {
            line.rsplit_once("filled ")
                .and_then(|(_, n)| n.parse::<u64>().ok())
        });
        let last = filled
            .take_while(|n| *n < next + 30 + round * 10)
            .last()
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let store = open_with(dir.path(), 200 * MIB);
        for n in 0..=last {
            assert!(
                hits(&store, n, whole(size(n))),
                "object {n} of {last} is lost"
            );
        }
        assert_eq!(store.stats().corrupt, 0);
        next = last + 100;
        for n in last + 1..next {
            // Whatever the killed one had not reported: right bytes or a miss.
            hits(&store, n, whole(size(n)));
            fill(&store, n, size(n));
        }
    }
}
