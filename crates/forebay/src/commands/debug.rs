// SPDX-License-Identifier: Apache-2.0
//! `forebay debug bundle`: what somebody needs who is to find out why a mount does not do what it
//! should, in one file that can be handed on.
//!
//! `collect` gathers, `redact` takes out what is secret, and here the rest is shown or packed. Nothing
//! is sent anywhere. `--list` and `--show` show the very bytes that would be packed, so that nobody
//! has to hand on what was not looked at.

mod collect;
mod redact;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use flate2::Compression;
use flate2::write::GzEncoder;
use types::{ByteSize, Clock, SystemClock};

use crate::cli::{BundleArgs, DebugCommand};
use crate::usage;

/// One file of a bundle, without secrets.
pub(crate) struct Member {
    /// Its name in the bundle.
    pub(crate) name: String,
    /// What it tells, for who looks through the list.
    pub(crate) about: &'static str,
    pub(crate) text: String,
}

/// Carries out one of the verbs.
pub(crate) fn run(command: &DebugCommand, run_dir: Option<&Path>) -> Result<()> {
    match command {
        DebugCommand::Bundle(args) => bundle(args, run_dir),
    }
}

fn bundle(args: &BundleArgs, run_dir: Option<&Path>) -> Result<()> {
    let members = collect::members(args, run_dir)?;
    if let Some(name) = &args.show {
        let found = members.iter().find(|member| member.name == *name);
        let Some(member) = found else {
            return Err(usage::wrong(format!(
                "'{name}' is not in the bundle; 'forebay debug bundle --list' shows what is"
            )));
        };
        return super::answer(&member.text);
    }
    if args.list {
        return super::answer(listed(&members));
    }
    let seconds = SystemClock
        .wall()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let path = match &args.output {
        Some(path) => path.clone(),
        None => PathBuf::from(format!("forebay-debug-{seconds}.tar.gz")),
    };
    let size = pack(&path, &members, seconds)?;
    super::tell(format_args!(
        "{}: {} files, {}. Nothing was sent to anybody; 'forebay debug bundle --list' shows what is in \
         it, and 'tar -xzf' unpacks it.\n",
        path.display(),
        members.len(),
        ByteSize(size)
    ));
    Ok(())
}

fn listed(members: &[Member]) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["FILE", "SIZE", "WHAT IT TELLS"]);
    for member in members {
        table.add_row([
            member.name.clone(),
            ByteSize(member.text.len() as u64).to_string(),
            member.about.to_owned(),
        ]);
    }
    format!(
        "{table}\nNothing is written yet. To read one of them as it would be packed:\n  forebay debug \
         bundle --show NAME\n"
    )
}

/// Writes the bundle, for its owner only, and never over a file that is there. Returns its size.
fn pack(path: &Path, members: &[Member], seconds: u64) -> Result<u64> {
    let what = || format!("write '{}' (choose another with --output)", path.display());
    let mut options = std::fs::File::options();
    options.write(true).create_new(true).mode(0o600);
    let file = match options.open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            bail!(
                "'{}' is there already: choose another --output",
                path.display()
            );
        }
        other => other.with_context(what)?,
    };
    let packed = packed(&file, members, seconds);
    if packed.is_err() {
        std::fs::remove_file(path).ok();
    }
    packed.with_context(what)?;
    Ok(file.metadata().with_context(what)?.len())
}

fn packed(file: &std::fs::File, members: &[Member], seconds: u64) -> std::io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for member in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(member.text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(seconds);
        header.set_cksum();
        let name = format!("forebay-debug/{}", member.name);
        archive.append_data(&mut header, name, member.text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.flush()
}
