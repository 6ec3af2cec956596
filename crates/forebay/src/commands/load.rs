// SPDX-License-Identifier: Apache-2.0
//! `forebay load`: have a daemon bring files into the cache, and watch it.
//!
//! The load is the daemon's. This command begins or joins it, shows how far it is, and ends with
//! success only when the daemon has counted everything that the storage lists in the cache. When it
//! is interrupted, the load goes on, and it says how to watch or stop that.

use std::fmt::Write as _;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gateway::{Client, wire};
use indicatif::{ProgressBar, ProgressStyle};
use types::{ByteSize, ErrorKind};

use super::mounts::block_on;
use crate::cli::LoadArgs;
use crate::places;
use crate::records::{self, Record};
use crate::usage;
use crate::values::show_elapsed;

/// To begin, the daemon looks at the path in the storage.
const BEGIN_MAX: Duration = Duration::from_secs(120);
/// What is known is answered from memory.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a load is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Rates are those of the last seconds, for so many looks.
const RATE_OVER: usize = 25;
/// Missing files that are shown; `--json` shows some more.
const SHOWN_MAX: usize = 20;

/// How watching a load ended.
enum Watched {
    Ended(Box<wire::Job>),
    Interrupted,
}

/// Loads, or stops a load.
pub(crate) fn run(args: &LoadArgs, run_dir: Option<&Path>) -> Result<()> {
    let live = records::scan(&places::run_dirs(run_dir))?.live;
    let (daemon, path) = super::sync::choose(live.clone(), &args.path)?;
    let client = Client::new(&daemon.socket);
    if args.stop {
        return stop(args, &client, path);
    }
    let only = match &args.from_file {
        Some(file) => Some(listed(file, &args.path, &daemon, &live)?),
        None => None,
    };
    let request = wire::Load {
        path,
        only,
        metadata_only: args.metadata_only,
        verify: args.verify,
        bandwidth_bytes: args.bandwidth.map(|size| size.0),
        include: args.include.clone(),
        exclude: args.exclude.clone(),
        replicas: args.replicas,
    };
    let begun = block_on(client.load(&request, BEGIN_MAX))?;
    let job = begun.map_err(usage::if_invalid)?;
    if args.detach {
        return begun_only(args, &job);
    }
    if job.joined && !args.json {
        super::complain(format_args!(
            "joins the load of {} that runs",
            args.path.display()
        ));
    }
    match block_on(watch(&client, &job, args))?? {
        Watched::Ended(job) => tell_end(args, &job),
        Watched::Interrupted => {
            let path = args.path.display();
            bail!(
                "the load of '{path}' goes on in the daemon: watch it with 'forebay jobs' or the \
                 same command again, stop it with 'forebay load --stop {path}'"
            )
        }
    }
}

fn begun_only(args: &LoadArgs, job: &wire::Job) -> Result<()> {
    if args.json {
        return print_json(job);
    }
    let path = args.path.display();
    let verb = if job.joined { "runs already" } else { "began" };
    super::tell(format_args!(
        "the load of {path} {verb}: watch it with 'forebay jobs', stop it with 'forebay load --stop \
         {path}'\n"
    ));
    Ok(())
}

fn stop(args: &LoadArgs, client: &Client, path: String) -> Result<()> {
    let stopped = block_on(client.stop_job(&wire::StopJob { path }, PATIENCE))?;
    let job = stopped.map_err(usage::if_invalid)?;
    if args.json {
        return print_json(&job);
    }
    super::tell(format_args!(
        "stopped the load of {}; what it fetched, {}, stays cached\n",
        args.path.display(),
        ByteSize(job.fetched_bytes)
    ));
    Ok(())
}

/// Reads the paths that are meant, as paths in the tree.
fn listed(file: &Path, base: &Path, daemon: &Record, live: &[Record]) -> Result<Vec<String>> {
    let what = || format!("read the list of paths '{}'", file.display());
    let mut text = Vec::new();
    match file == Path::new("-") {
        true => std::io::stdin().lock().read_to_end(&mut text).map(|_| ()),
        false => std::fs::read(file).map(|read| text = read),
    }
    .with_context(what)?;
    let lines = text.split(|byte| *byte == b'\n');
    let lines = lines.map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut paths = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let path = base.join(std::ffi::OsStr::from_bytes(line));
        let (of, path) = super::sync::choose(live.to_vec(), &path).with_context(what)?;
        if of.mount_point != daemon.mount_point {
            return Err(usage::wrong(format!(
                "{}: '{}' is in another mount than '{}'",
                what(),
                line.escape_ascii(),
                base.display()
            )));
        }
        paths.push(path);
    }
    Ok(paths)
}

/// Shows a load until it has ended or somebody interrupts.
async fn watch(client: &Client, begun: &wire::Job, args: &LoadArgs) -> Result<Watched> {
    let bar = bar(args);
    let mut rates = Vec::new();
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let jobs = client.jobs(PATIENCE).await;
        let jobs = jobs.map_err(|error| match error.kind() {
            ErrorKind::Unavailable => error.context(
                "the daemon has ended; the load goes on when it is mounted again at the same place",
            ),
            _ => error,
        })?;
        let job = jobs.jobs.into_iter().find(|job| job.id == begun.id);
        let job = job.context("the daemon does not know the load any more: it was begun again")?;
        if job.state != "running" {
            bar.finish_and_clear();
            return Ok(Watched::Ended(Box::new(job)));
        }
        rates.push(job.fetched_bytes);
        if rates.len() > RATE_OVER {
            rates.remove(0);
        }
        show(&bar, &job, rate(&rates));
        tokio::select! {
            _ = &mut interrupt => {
                bar.finish_and_clear();
                return Ok(Watched::Interrupted);
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Returns the bytes a second over the latest looks.
fn rate(fetched: &[u64]) -> u64 {
    let (Some(first), Some(last)) = (fetched.first(), fetched.last()) else {
        return 0;
    };
    let looks = fetched.len().saturating_sub(1).max(1) as u128;
    let millis = looks * LOOK_EVERY.as_millis();
    let rate = u128::from(last.saturating_sub(*first)) * 1000 / millis;
    u64::try_from(rate).unwrap_or(u64::MAX)
}

fn bar(args: &LoadArgs) -> ProgressBar {
    // Only where somebody looks: a log wants the end and not the way there.
    if args.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{bar:24} {percent:>3} %  {msg}";
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

fn show(bar: &ProgressBar, job: &wire::Job, rate: u64) {
    let (done, all) = match job.metadata_only {
        true => (0, 0),
        false => (job.cached_bytes, job.found_bytes),
    };
    bar.set_length(all);
    bar.set_position(done);
    bar.set_message(progress(job, rate));
}

/// Puts how far a load is into words.
fn progress(job: &wire::Job, rate: u64) -> String {
    let more = if job.is_listed { "" } else { "+" };
    if job.metadata_only {
        return format!(
            "{}{more} files in {} directories",
            job.found_files, job.directories
        );
    }
    let mut text = format!(
        "{} of {}{more} files, {} of {}{more}",
        job.cached_files,
        job.found_files,
        ByteSize(job.cached_bytes),
        ByteSize(job.found_bytes),
    );
    let counting = match job.step.as_str() {
        "counting" => Some(", counting what is cached"),
        "verifying" => Some(", comparing it with its checksums"),
        _ => None,
    };
    if let Some(counting) = counting {
        text.push_str(counting);
        return text;
    }
    write!(text, ", {}/s", ByteSize(rate)).ok();
    let left = job.found_bytes.saturating_sub(job.cached_bytes);
    if let Some(seconds) = left.checked_div(rate).filter(|_| job.is_listed && left > 0) {
        let left = show_elapsed(seconds.max(1));
        write!(text, ", {left} left").ok();
    }
    if job.failed_files > 0 {
        write!(text, ", {} failed", job.failed_files).ok();
    }
    text
}

/// Tells how a load ended; fails unless all is there.
fn tell_end(args: &LoadArgs, job: &wire::Job) -> Result<()> {
    if args.json {
        print_json(job)?;
    }
    let path = args.path.display();
    match job.state.as_str() {
        "complete" if args.json => Ok(()),
        "complete" => {
            super::tell(format_args!("{}\n", complete(&path.to_string(), job)));
            Ok(())
        }
        "stopped" => bail!("the load of '{path}' was stopped; what it fetched stays cached"),
        _ => {
            if !args.json {
                super::tell(missing(job, args));
            }
            let why = job.halt.as_deref().map(|halt| format!(": {halt}"));
            bail!(
                "{} of '{path}' are not loaded{}",
                count(
                    job.missing_count,
                    "file or directory",
                    "files and directories"
                ),
                why.unwrap_or_default()
            )
        }
    }
}

fn complete(path: &str, job: &wire::Job) -> String {
    let files = count(job.found_files, "file", "files");
    if job.metadata_only {
        let directories = count(job.directories, "directory", "directories");
        return format!("{path}: the names of {files} in {directories} are known");
    }
    let fetched = match job.fetched_bytes {
        0 => "nothing had to be fetched".to_owned(),
        bytes => {
            let took = show_elapsed(job.elapsed_seconds);
            format!("{} of it fetched in {took}", ByteSize(bytes))
        }
    };
    format!(
        "{path}: {files}, {}, are cached whole{}; {fetched}",
        ByteSize(job.found_bytes),
        if job.verify { " and verified" } else { "" },
    )
}

/// Lists what is missing, and why.
fn missing(job: &wire::Job, args: &LoadArgs) -> String {
    let mut text = String::new();
    for one in job.missing.iter().take(SHOWN_MAX) {
        writeln!(text, "missing: {}: {}", one.path, one.why).ok();
    }
    let more = job.missing_count.saturating_sub(SHOWN_MAX as u64);
    if more > 0 {
        let path = args.path.display();
        writeln!(
            text,
            "and {more} more; 'forebay du {path}' tells how much is cached"
        )
        .ok();
    }
    text
}

fn count(count: u64, one: &str, more: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { more })
}

fn print_json(job: &wire::Job) -> Result<()> {
    let text = serde_json::to_string_pretty(job).context("write JSON")?;
    super::answer(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> wire::Job {
        wire::Job {
            state: "running".into(),
            step: "fetching".into(),
            found_files: 10,
            found_bytes: 10 << 20,
            is_listed: true,
            cached_files: 4,
            cached_bytes: 4 << 20,
            ..wire::Job::default()
        }
    }

    #[test]
    fn progress_tells_files_bytes_rate_time_left_and_failures() {
        let mut job = job();
        job.failed_files = 2;
        assert_eq!(
            progress(&job, 1 << 20),
            "4 of 10 files, 4 MiB of 10 MiB, 1 MiB/s, 6s left, 2 failed"
        );
        job.is_listed = false;
        assert_eq!(
            progress(&job, 0),
            "4 of 10+ files, 4 MiB of 10 MiB+, 0 B/s, 2 failed"
        );
        job.step = "counting".into();
        assert!(progress(&job, 0).ends_with("counting what is cached"));
        job.step = "verifying".into();
        assert!(progress(&job, 0).ends_with("comparing it with its checksums"));
    }

    #[test]
    fn a_rate_is_that_of_the_latest_looks() {
        assert_eq!(rate(&[]), 0);
        assert_eq!(rate(&[500]), 0);
        assert_eq!(rate(&[0, 100, 1000]), 2500);
    }
}
