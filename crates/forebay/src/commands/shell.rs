// SPDX-License-Identifier: Apache-2.0
//! `forebay completions` and `forebay man`: what shells and `man` want to know, from the command line
//! itself.

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::cli::{Cli, CompletionsArgs, ManArgs};

/// Prints the completions of a shell.
pub(crate) fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "forebay", &mut text);
    super::answer(String::from_utf8(text).context("completions are text")?)
}

/// Writes a page for each verb.
pub(crate) fn man(args: &ManArgs) -> Result<()> {
    let what = || format!("write manual pages into '{}'", args.dir.display());
    std::fs::create_dir_all(&args.dir).with_context(what)?;
    clap_mangen::generate_to(Cli::command(), &args.dir).with_context(what)
}
