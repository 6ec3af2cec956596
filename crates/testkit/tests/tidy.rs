// SPDX-License-Identifier: Apache-2.0
//! What lints cannot see: the edges between crates, and the shape of the files.
//!
//! The rules are those of `CONTRIBUTING.md`. Each fault is reported with its file, all at once.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The path of a read: each crate with the crates of ours that it may use. Edges of tests are free.
const EDGES: [(&str, &[&str]); 9] = [
    (
        "forebay",
        &["fuse", "gateway", "vfs", "worker", "cache", "ufs", "types"],
    ),
    ("fuse", &["vfs", "types"]),
    ("gateway", &["vfs", "worker", "types"]),
    ("vfs", &["worker", "types"]),
    ("worker", &["cache", "ufs", "types"]),
    ("cache", &["types"]),
    ("ufs", &["types"]),
    ("types", &[]),
    ("testkit", &["forebay", "cache", "ufs", "types"]),
];

/// A file of this length wants to be two.
const LINES_MAX: usize = 900;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
        .to_owned()
}

/// Returns the files below a directory that are part of the project.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), entry.file_name());
        let foreign = ["target", "results", "__pycache__"]
            .iter()
            .any(|known| name == *known)
            || name == ".git"
            || name == ".venv";
        match entry.file_type().unwrap() {
            _ if foreign => (),
            kind if kind.is_dir() => found.extend(files(&path)),
            _ => found.push(path),
        }
    }
    found
}

fn rust_files() -> Vec<(PathBuf, String)> {
    let all = files(&root().join("crates")).into_iter();
    all.filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
        .collect()
}

#[track_caller]
fn none(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Returns the crates of ours in the `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<&str> {
    let mut section = "";
    let mut used = BTreeSet::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section == "[dependencies]" {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            used.extend(
                EDGES
                    .iter()
                    .map(|(known, _)| *known)
                    .find(|known| *known == name),
            );
        }
    }
    used
}

#[test]
fn crates_use_only_the_crates_below_them() {
    let mut faults = Vec::new();
    let folders: BTreeSet<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let known: BTreeSet<String> = EDGES.iter().map(|(name, _)| String::from(*name)).collect();
    assert_eq!(
        folders, known,
        "a new crate needs a decision record and a line here"
    );
    for (name, allowed) in EDGES {
        let manifest = fs::read_to_string(root().join("crates").join(name).join("Cargo.toml"));
        for used in dependencies(&manifest.unwrap()) {
            if !allowed.contains(&used) {
                faults.push(format!(
                    "crates/{name}/Cargo.toml: must not depend on {used}"
                ));
            }
        }
    }
    none(faults);
}

#[test]
fn only_the_kernel_door_names_the_fuse_library() {
    let named = |text: &str| {
        text.contains("fuser::") || text.lines().any(|line| line.trim().starts_with("fuser"))
    };
    let mut faults = Vec::new();
    for path in files(&root().join("crates")) {
        let own = path.starts_with(root().join("crates/fuse"));
        let this = path.ends_with("tests/tidy.rs");
        let code = path
            .extension()
            .is_some_and(|kind| kind == "rs" || kind == "toml");
        if code && !own && !this && named(&fs::read_to_string(&path).unwrap()) {
            faults.push(format!(
                "{}: names fuser; go through the fuse crate",
                path.display()
            ));
        }
    }
    none(faults);
}

#[test]
fn every_file_opens_with_its_licence_and_its_purpose() {
    let mut faults = Vec::new();
    for (path, text) in rust_files() {
        let mut lines = text.lines();
        if lines.next() != Some("// SPDX-License-Identifier: Apache-2.0") {
            faults.push(format!("{}: line 1 is not the SPDX line", path.display()));
        }
        if !lines.next().is_some_and(|line| line.starts_with("//! ")) {
            faults.push(format!(
                "{}: line 2 does not say what the file is",
                path.display()
            ));
        }
    }
    none(faults);
}

#[test]
fn no_file_is_too_long() {
    let long = rust_files()
        .into_iter()
        .filter(|(_, text)| text.lines().count() > LINES_MAX);
    none(
        long.map(|(path, _)| format!("{}: over {LINES_MAX} lines", path.display()))
            .collect(),
    );
}

#[test]
fn work_left_to_do_names_its_issue() {
    // In two parts, so that this line is not found.
    let word = concat!("TO", "DO");
    let mut faults = Vec::new();
    for (path, text) in rust_files() {
        for (index, line) in text.lines().enumerate() {
            let named = line.contains(&format!("{word}(#"));
            let later = ["FIX", "HA"].iter().zip(["ME", "CK"]).any(|(a, b)| {
                line.split(|c: char| !c.is_ascii_alphabetic())
                    .any(|w| w == format!("{a}{b}"))
            });
            if (line.contains(word) && !named) || later {
                faults.push(format!("{}:{}: {}", path.display(), index + 1, line.trim()));
            }
        }
    }
    none(faults);
}

#[test]
fn no_name_says_nothing() {
    let empty = [
        "util", "utils", "common", "misc", "helper", "helpers", "manager", "mod",
    ];
    let mut faults = Vec::new();
    for (path, _) in rust_files() {
        let shown = path.display();
        let parts = path
            .strip_prefix(root())
            .unwrap()
            .iter()
            .filter_map(|part| part.to_str());
        for part in parts.map(|part| part.trim_end_matches(".rs")) {
            let versioned = part.ends_with("_v2") || part.ends_with("_new");
            if versioned || empty.contains(&part) {
                faults.push(format!("{shown}: '{part}' does not say what is in it"));
            }
        }
    }
    none(faults);
}

#[test]
fn the_architecture_names_every_crate() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let missing = EDGES
        .iter()
        .filter(|(name, _)| !text.contains(&format!("`{name}`")));
    none(
        missing
            .map(|(name, _)| format!("ARCHITECTURE.md: nothing on `{name}`"))
            .collect(),
    );
}

#[test]
fn every_promise_names_tests_that_exist() {
    let tests = rust_files()
        .into_iter()
        .map(|(_, text)| text)
        .collect::<String>();
    let promises = fs::read_to_string(root().join("docs/SEMANTICS.md")).unwrap();
    let mut faults = Vec::new();
    let mut number = None;
    for line in promises.lines().chain(["end. "]) {
        let starts = line.split_once(". ").map(|(start, _)| start);
        let starts_one = |start: &&str| *start == "end" || start.parse::<u32>().is_ok();
        if let Some(next) = starts.filter(starts_one)
            && let Some(number) = number.replace(next.to_owned())
        {
            faults.push(format!("SEMANTICS.md, {number}: no tests are named"));
        }
        let Some((_, names)) = line.split_once("Tests: ") else {
            continue;
        };
        number = None;
        let names = names.split('`').skip(1).step_by(2);
        let missing = names.filter(|name| !tests.contains(&format!("fn {name}()")));
        faults.extend(missing.map(|name| format!("SEMANTICS.md: there is no test '{name}'")));
    }
    none(faults);
}

#[test]
fn versions_of_dependencies_stand_in_one_place() {
    let mut faults = Vec::new();
    for (name, _) in EDGES {
        let manifest = root().join("crates").join(name).join("Cargo.toml");
        let mut section = String::new();
        for line in fs::read_to_string(manifest).unwrap().lines() {
            if line.starts_with('[') {
                line.clone_into(&mut section);
            } else if section.contains("dependencies")
                && line.contains('=')
                && !line.contains("workspace = true")
                && !line.contains("path = ")
            {
                faults.push(format!(
                    "crates/{name}/Cargo.toml: '{line}' is not the workspace's"
                ));
            }
        }
    }
    none(faults);
}

#[test]
fn no_crate_is_named_twice_among_the_edges() {
    let mut seen = BTreeMap::new();
    for (name, allowed) in EDGES {
        assert!(seen.insert(name, ()).is_none(), "{name}");
        assert!(!allowed.contains(&name), "{name} uses itself");
    }
}
