// SPDX-License-Identifier: Apache-2.0
//! Pages of `docs/guides`, carried out: what a page tells a user to type is run as it stands there.
//!
//! Blocks of `sh` and of `python` are run one after the other, each in a process of its own. Only
//! places are others: the bucket of the page is that of the test's storage, and its directories lie
//! in a sandbox. What no block unmounts the sandbox does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::sandbox::{Sandbox, binary};
use crate::storage::{BUCKET, Storage};

/// One block of a page.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    language: String,
    /// Counted from 1: where its first line stands.
    line: usize,
    text: String,
}

/// Returns a page of `docs/guides`.
///
/// # Panics
/// When there is none of that name.
fn page(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2);
    let root = root.expect("a crate lies in a folder of the repository");
    let path = root.join("docs/guides").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the blocks of a page that are to be run.
fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(language), None) => {
                open = Some(Block {
                    language: language.to_owned(),
                    line: index + 2,
                    text: String::new(),
                });
            }
            (None, Some(block)) => block.text += &format!("{line}\n"),
            (None, None) => (),
        }
    }
    found.retain(|block| matches!(block.language.as_str(), "sh" | "python"));
    found
}

/// Carries out a page with a storage, whose bucket has what the page takes for granted.
///
/// # Panics
/// When a block fails; with the place of the block and what it said.
pub fn carry_out(name: &str, storage: &Storage, python: &Path) {
    let sandbox = Sandbox::new(storage);
    let place = |directory: &str| sandbox.dir().join(directory).display().to_string();
    for directory in ["mnt/data", "mnt/runs", "mnt/new", "mnt/models"] {
        fs::create_dir_all(sandbox.dir().join(directory)).expect("a mount point");
    }
    let here = |text: &str| {
        text.replace("s3://my-bucket", &format!("s3://{BUCKET}"))
            .replace("/mnt/", &(place("mnt") + "/"))
            .replace("/nvme/", &(place("nvme") + "/"))
    };
    let blocks = blocks(&page(name));
    assert!(!blocks.is_empty(), "{name} has nothing to run");
    for block in blocks {
        let mut command = match block.language.as_str() {
            "sh" => Command::new("bash"),
            _ => Command::new(python),
        };
        if block.language == "sh" {
            command.arg("-eu");
        }
        let output = command
            .arg("-c")
            .arg(here(&block.text))
            .current_dir(sandbox.dir())
            .envs(environment(&sandbox, storage))
            .output()
            .expect("the block starts");
        let [said, complained] =
            [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let at = format!("docs/guides/{name}:{}", block.line);
        assert!(output.status.success(), "{at}: {said}{complained}");
    }
    sandbox.assert_nothing_left();
}

/// Returns what a user of the page would have set.
fn environment(sandbox: &Sandbox, storage: &Storage) -> Vec<(String, String)> {
    let place = |name: &str| sandbox.dir().join(name).display().to_string();
    let binary: PathBuf = binary("forebay");
    let folder = binary.parent().expect("a binary lies in a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let own = [
        ("PATH", format!("{}:{path}", folder.display())),
        ("HOME", place("home")),
        ("FOREBAY_RUN_DIR", place("run")),
        ("FOREBAY_STATE_DIR", place("state")),
        ("FOREBAY_LOG", sandbox.log().display().to_string()),
        ("FOREBAY_CACHE_SIZE", "1GiB".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
        ("TF_CPP_MIN_LOG_LEVEL", "2".to_owned()),
        ("HF_HUB_OFFLINE", "1".to_owned()),
    ];
    let flags = storage.flags();
    let flags = flags.chunks(2).map(|pair| {
        let name = pair[0].trim_start_matches("--").to_uppercase();
        (format!("FOREBAY_{name}"), pair[1].clone())
    });
    let secrets = storage.environment().into_iter();
    own.map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .chain(flags)
        .chain(secrets.map(|(name, value)| (name.to_owned(), value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_commands_and_scripts_are_found_with_their_lines() {
        let page = "# A\n\n```sh\none\ntwo\n```\ntext\n```text\nno\n```\n```python\nx\n```\n";
        let found = blocks(page);
        let block = |language: &str, line, text: &str| Block {
            language: language.into(),
            line,
            text: text.into(),
        };
        assert_eq!(
            found,
            [block("sh", 4, "one\ntwo\n"), block("python", 12, "x\n")]
        );
    }
}
