// SPDX-License-Identifier: Apache-2.0
//! The log of a daemon: a file that never grows without bound, and the latest faults in memory.
//!
//! The file is renamed to `.1` at 16 MiB and begun anew, so two of them at most lie on the disk.
//! Warnings and errors are also kept in a short ring for `forebay status`. A panic in any thread is
//! logged and ends the process: a daemon that lost a thread would leave its mount half alive. Only the
//! panics that `cache` catches over a damaged file pass.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use gateway::wire;
use rustix::fs::{FlockOperation, flock};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::{self as text, MakeWriter};
use tracing_subscriber::layer::{Context as LayerContext, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};
use types::Clock;

use crate::plan::{LogFormat, Plan};
use crate::traces::Traces;
use crate::usage;

/// A week of a busy daemon at level info is a few megabytes.
const FILE_MAX_BYTES: u64 = 16 << 20;
/// What fits on one screen of `forebay status`.
const EVENTS_MAX: usize = 20;
const EVENT_MAX_CHARS: usize = 500;

/// Refuses a level or filter that cannot be read.
pub(crate) fn check_level(level: &str) -> Result<()> {
    filter(level).map(|_| ())
}

fn filter(level: &str) -> Result<EnvFilter> {
    let advice = "give error, warn, info, debug or trace, or MODULE=LEVEL";
    // The library would take any other word for the name of a module, and log nothing.
    let is_word = |part: &&str| !part.contains('=') && part.parse::<Level>().is_err();
    if let Some(word) = level.split(',').map(str::trim).find(is_word) {
        return Err(usage::wrong(format!("log level '{word}': {advice}")));
    }
    EnvFilter::try_new(level)
        .map_err(|error| usage::wrong(format!("log level '{level}': {error}; {advice}")))
}

type Lines = Box<dyn Layer<Registry> + Send + Sync>;

/// What a daemon tells of what it does, besides its answers.
#[derive(Debug)]
pub(crate) struct Log {
    /// The ring of the latest faults.
    pub(crate) faults: Arc<Faults>,
    /// What sends traces, where that is wanted.
    pub(crate) traces: Option<Arc<Traces>>,
}

/// Starts logging for the rest of the process, and listens to spans where traces are wanted.
pub(crate) fn start(plan: &Plan, clock: Arc<dyn Clock>) -> Result<Log> {
    let mount_point = plan.mount_point.display().to_string();
    let traces = plan.traces.as_ref();
    let traces = traces.map(|plan| Traces::new(plan, mount_point, Arc::clone(&clock)));
    let traces = traces.transpose()?;
    let plan = &plan.log;
    let faults = Arc::new(Faults {
        clock,
        events: Mutex::default(),
    });
    let ring = Ring(Arc::clone(&faults));
    let lines = match &plan.file {
        Some(path) => lines(plan.format, false, Mutex::new(LogFile::open(path)?)),
        None => lines(plan.format, io::stderr().is_terminal(), io::stderr),
    };
    // Of the log alone: traces have spans that no level of it asks for.
    let log = lines.and_then(ring).with_filter(filter(&plan.level)?);
    let started = tracing_subscriber::registry()
        .with(log)
        .with(traces.as_ref().map(|traces| traces.layer()))
        .try_init();
    started.context("start the log")?;
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current()
            .name()
            .unwrap_or("without a name")
            .to_owned();
        if cache::kv::catches_panics() {
            tracing::warn!("thread {thread} panicked over a damaged file, and goes on: {panic}");
            return;
        }
        let trace = std::backtrace::Backtrace::force_capture();
        tracing::error!("thread {thread} panicked, the daemon ends: {panic}\n{trace}");
        std::process::abort();
    }));
    Ok(Log { faults, traces })
}

/// Returns what writes a line for each event.
fn lines<W>(format: LogFormat, is_colourful: bool, writer: W) -> Lines
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = text::layer().with_ansi(is_colourful).with_writer(writer);
    match format {
        LogFormat::Text => lines.boxed(),
        // Without the spans, which are for traces.
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true);
            lines.with_current_span(false).with_span_list(false).boxed()
        }
    }
}

/// A log file with a bound.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    written: u64,
}

impl LogFile {
    /// Opens a log for appending, and makes its directory. Only its user may read it.
    pub(crate) fn open(path: &Path) -> Result<LogFile> {
        let what = || format!("log file '{}' (choose another with --log)", path.display());
        if let Some(dir) = path.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .with_context(what)?;
        }
        let file = open_append(path).with_context(what)?;
        let written = file.metadata().with_context(what)?.len();
        Ok(LogFile {
            path: path.to_owned(),
            file,
            written,
        })
    }

    /// Returns the file itself, for the standard error of a child.
    pub(crate) fn into_file(self) -> File {
        self.file
    }

    fn turn_over(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        std::fs::rename(&self.path, old)?;
        self.file = open_append(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written >= FILE_MAX_BYTES {
            self.turn_over()?;
        }
        let count = self.file.write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    // Tells a start that failed whether somebody else uses the file; without locks it may not know.
    flock(&file, FlockOperation::NonBlockingLockShared).ok();
    Ok(file)
}

/// The latest warnings and errors.
#[derive(Debug)]
pub(crate) struct Faults {
    clock: Arc<dyn Clock>,
    /// Guards the ring; held to push or to copy.
    events: Mutex<VecDeque<wire::Event>>,
}

impl Faults {
    /// Returns them, oldest first.
    pub(crate) fn latest(&self) -> Vec<wire::Event> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    fn push(&self, level: Level, message: String) {
        let wall = self
            .clock
            .wall()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let event = wire::Event {
            unix_seconds: wall.as_secs(),
            level: level.to_string(),
            message,
        };
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
    }
}

/// Feeds the ring.
struct Ring(Arc<Faults>);

impl<S: Subscriber> Layer<S> for Ring {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut words = Words::default();
        event.record(&mut words);
        let message = format!("{}{}{}", words.message, words.cause, words.fields);
        self.0
            .push(level, message.chars().take(EVENT_MAX_CHARS).collect());
    }
}

#[derive(Default)]
struct Words {
    message: String,
    cause: String,
    fields: String,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "error" => write!(self.cause, ": {value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        written.expect("a String takes all that is written to it");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use types::SystemClock;

    use super::*;

    #[test]
    fn a_log_is_begun_anew_when_it_is_full() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/data.log");
        let mut log = LogFile::open(&path).unwrap();
        log.write_all(b"first\n").unwrap();
        log.written = FILE_MAX_BYTES;
        log.write_all(b"second\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"second\n");
        assert_eq!(
            std::fs::read(dir.path().join("new/data.log.1")).unwrap(),
            b"first\n"
        );
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn warnings_are_kept_and_the_oldest_go_first() {
        let faults = Arc::new(Faults {
            clock: Arc::new(SystemClock),
            events: Mutex::default(),
        });
        let subscriber = tracing_subscriber::registry().with(Ring(Arc::clone(&faults)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("not kept");
            for number in 0..=EVENTS_MAX {
                tracing::warn!(number, "slow disk");
            }
            tracing::error!("{}", "x".repeat(10_000));
        });
        let events = faults.latest();
        assert_eq!(events.len(), EVENTS_MAX);
        assert_eq!(events[0].message, "slow disk number=2");
        assert_eq!(events[0].level, "WARN");
        assert_eq!(events[EVENTS_MAX - 1].message.len(), EVENT_MAX_CHARS);
    }

    #[test]
    fn levels_are_checked_before_a_daemon_starts() {
        assert!(check_level("info").is_ok());
        assert!(check_level("warn,ufs=debug").is_ok());
        for wrong in ["loud=x=y", "loud", "", "info,verbose", "ufs=loud"] {
            let error = check_level(wrong).unwrap_err();
            assert!(error.is::<usage::Usage>(), "{wrong}: {error:?}");
            assert!(error.to_string().contains("trace"), "{error}");
        }
    }
}
