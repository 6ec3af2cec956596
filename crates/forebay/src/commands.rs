// SPDX-License-Identifier: Apache-2.0
//! The verbs of the command line, one file each, and how they answer.

pub(crate) mod check;
pub(crate) mod check_path;
pub(crate) mod config;
pub(crate) mod costs;
pub(crate) mod daemon;
pub(crate) mod dashboard;
pub(crate) mod debug;
pub(crate) mod doctor;
pub(crate) mod du;
pub(crate) mod free;
pub(crate) mod jobs;
pub(crate) mod load;
pub(crate) mod metrics;
pub(crate) mod mount;
pub(crate) mod mounts;
pub(crate) mod pin;
pub(crate) mod rules;
pub(crate) mod scrub;
pub(crate) mod serve;
pub(crate) mod shell;
pub(crate) mod staged;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod sync;
pub(crate) mod top;
pub(crate) mod umount;
mod waiting;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};

/// Says when what is written to a mount reaches its storage, and below which paths it is otherwise.
pub(crate) fn write_modes(mode: &str, paths: &BTreeMap<String, String>) -> String {
    let word = |mode: &str| match mode {
        "read-only" => "read-only".to_owned(),
        "local" => "read-write, local: never stored".to_owned(),
        mode => format!("read-write, {mode}"),
    };
    let all = std::iter::once(word(mode));
    let paths = paths
        .iter()
        .map(|(path, mode)| format!("{path} {}", word(mode)));
    all.chain(paths).collect::<Vec<_>>().join("; ")
}

/// Prints an answer.
pub(crate) fn answer(text: impl Display) -> Result<()> {
    write_answer(&mut std::io::stdout().lock(), text)
}

/// Prints what was done. It stays done when nobody can be told, and a daemon must not end for it.
pub(crate) fn tell(text: impl Display) {
    answer(text).ok();
}

/// Complains on standard error, as far as somebody listens there.
pub(crate) fn complain(text: impl Display) {
    writeln!(std::io::stderr(), "{text}").ok();
}

/// A reader that has seen enough, as in `forebay status | head -1`, is no fault.
fn write_answer(out: &mut impl Write, text: impl Display) -> Result<()> {
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("write the answer")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_is_never_stored_is_called_so() {
        let paths = [("/scratch".to_owned(), "local".to_owned())].into();
        let text = write_modes("through", &paths);
        assert_eq!(
            text,
            "read-write, through; /scratch read-write, local: never stored"
        );
        assert_eq!(write_modes("read-only", &BTreeMap::new()), "read-only");
    }

    #[test]
    fn a_reader_that_left_is_no_fault_and_a_full_disk_is_one() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        drop(reader);
        write_answer(&mut writer, "x").unwrap();
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let error = write_answer(&mut full, "x").unwrap_err();
        assert_eq!(error.to_string(), "write the answer");
    }
}
