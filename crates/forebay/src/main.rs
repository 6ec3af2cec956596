// SPDX-License-Identifier: Apache-2.0
//! The `forebay` binary: command line, configuration, and the wiring of the rooms.
//!
//! `cli` reads the words, `commands` has one file per verb, `plan` is what a daemon is to do, and
//! `daemon` does it. Nothing here knows how a byte is read or cached: each verb calls the admin API
//! or a room. One message on standard error and an exit code tell what failed.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is the command line: it talks to people"
)]

mod admin_door;
mod cache_dir;
mod cli;
mod commands;
mod config;
mod credentials;
mod daemon;
mod demo;
mod first_look;
mod fstab;
mod globs;
mod history;
mod jobs;
mod launch;
mod layout;
mod logging;
mod measure;
mod memory;
mod mounts;
mod node;
mod owners;
mod pins;
mod places;
mod plan;
mod presets;
mod records;
mod room;
mod rules;
mod scrub;
mod service;
mod state;
mod storage;
mod surplus;
mod sync;
mod traces;
mod usage;
mod values;

use std::process::ExitCode;

use clap::error::ErrorKind;

use crate::cli::Command;

/// A command failed.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    memory::bound_arenas();
    let cli = match cli::parse(fstab::translated(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) => return not_parsed(&error),
    };
    let run_dir = cli.run_dir.as_deref();
    let outcome = match &cli.command {
        Command::Mount(args) => commands::mount::run(args, run_dir),
        Command::Umount(args) => commands::umount::run(args, run_dir),
        Command::Status(args) => commands::status::run(args, run_dir),
        Command::Stats(args) => commands::stats::run(args, run_dir),
        Command::Dashboard(args) => commands::dashboard::run(args, run_dir),
        Command::Top(args) => commands::top::run(args, run_dir),
        Command::Costs(args) => commands::costs::run(args, run_dir),
        Command::Metrics(args) => commands::metrics::run(args, run_dir),
        Command::Mounts(command) => commands::mounts::run(command, run_dir),
        Command::Sync(args) => commands::sync::run(args, run_dir),
        Command::Load(args) => commands::load::run(args, run_dir),
        Command::Jobs(args) => commands::jobs::run(args, run_dir),
        Command::Free(args) => commands::free::run(args, run_dir),
        Command::Du(args) => commands::du::run(args, run_dir),
        Command::Check(args) => commands::check_path::run(args, run_dir),
        Command::Scrub(args) => commands::scrub::run(args, run_dir),
        Command::Pin(args) => commands::pin::pin(args, run_dir),
        Command::Unpin(args) => commands::pin::unpin(args, run_dir),
        Command::Rules(command) => commands::rules::run(command, run_dir),
        Command::Staged(command) => commands::staged::run(command, run_dir),
        Command::Doctor(args) => commands::doctor::run(args, run_dir),
        Command::Debug(command) => commands::debug::run(command, run_dir),
        Command::Serve(args) => commands::serve::run(args, run_dir),
        Command::Config(command) => commands::config::run(command),
        Command::Demo(args) => demo::run(args),
        Command::Completions(args) => commands::shell::completions(args),
        Command::Man(args) => commands::shell::man(args),
        Command::Daemon(_) => commands::daemon::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<config::Faults>() => {
            commands::complain(&error);
            ExitCode::from(USAGE)
        }
        Err(error) => {
            let is_usage = error.is::<usage::Usage>();
            commands::complain(format_args!("forebay: {error:#}"));
            ExitCode::from(if is_usage { USAGE } else { FAILED })
        }
    }
}

/// Prints help where it was asked for, else what is wrong with the command line.
fn not_parsed(error: &clap::Error) -> ExitCode {
    let help = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    );
    if !help {
        // There is nobody else to tell.
        error.print().ok();
        if let Some(variable) = cli::variable_at_fault(error) {
            commands::complain(format_args!(
                "The value comes from the environment variable {variable}."
            ));
        }
        return ExitCode::from(USAGE);
    }
    match commands::answer(error.render().ansi()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            commands::complain(format_args!("forebay: {error:#}"));
            ExitCode::from(FAILED)
        }
    }
}
