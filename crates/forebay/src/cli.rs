// SPDX-License-Identifier: Apache-2.0
//! The command line: verbs, flags and their environment variables.
//!
//! Flags hold what the user said and nothing else: defaults are in the help text and are applied
//! where a plan is made (`plan.rs`), because the order is flag, environment, file, default.
//! Secrets have no flag: an argument list is readable by every user of the machine.

mod operate;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use types::idmap::IdMap;
use types::{ByteSize, Freshness};
use vfs::WriteMode;
use worker::settings::Bounds;

use crate::plan::LogFormat;
use crate::presets::Preset;
use crate::values;
pub(crate) use operate::{
    AdminArgs, BundleArgs, CheckPathArgs, CostsArgs, DashboardArgs, DebugCommand, DuArgs, FreeArgs,
    JobsArgs, LoadArgs, PinArgs, RemoteArgs, RulesCommand, RulesListArgs, RulesRemoveArgs,
    RulesSetArgs, ScrubArgs, StatsArgs, TopArgs, TraceArgs,
};

/// Training data from object storage as local files, cached on the local disk.
#[derive(Debug, Parser)]
#[command(
    name = "forebay",
    version,
    about,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.")]
pub(crate) struct Cli {
    /// Where daemons leave their socket and record
    /// [default: /run/forebay for root, else $XDG_RUNTIME_DIR/forebay]
    #[arg(
        long,
        global = true,
        env = "FOREBAY_RUN_DIR",
        value_name = "DIR",
        hide = true
    )]
    pub(crate) run_dir: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Reads a command line.
pub(crate) fn parse<W>(words: impl IntoIterator<Item = W>) -> Result<Cli, clap::Error>
where
    W: Into<std::ffi::OsString> + Clone,
{
    let mut command = with_boolish_switches(Cli::command());
    let matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// Lets the environment variables of switches take what people write there: `1`, `yes`, `off`.
fn with_boolish_switches(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| match arg.get_action() {
            ArgAction::SetTrue => arg.value_parser(BoolishValueParser::new()),
            _ => arg,
        })
        .mut_subcommands(with_boolish_switches)
}

/// Returns the environment variable whose value was refused, if it was one.
pub(crate) fn variable_at_fault(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(shown)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = shown.split(' ').next()?;
    let name = flag.strip_prefix("--")?.to_uppercase().replace('-', "_");
    let variable = format!("FOREBAY_{name}");
    let is_given = |word: std::ffi::OsString| {
        let word = word.to_string_lossy();
        word == flag || word.starts_with(&format!("{flag}="))
    };
    let is_set = std::env::var_os(&variable).is_some() && !std::env::args_os().any(is_given);
    is_set.then_some(variable)
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mount a storage at a directory; returns when the mount answers
    Mount(Box<MountArgs>),
    /// Unmount: waits for readers, closes the cache, ends the daemon
    #[command(visible_alias = "unmount")]
    Umount(UmountArgs),
    /// Show the running daemons of this user (root: of all users)
    Status(StatusArgs),
    /// Show what a running daemon does, one line a second
    Stats(StatsArgs),
    /// Show a running daemon in a browser on this machine, until interrupted
    Dashboard(DashboardArgs),
    /// Watch which files, processes and mounts have how much traffic
    Top(TopArgs),
    /// Show what the storages were asked for, what that costs, and what the cache saved
    Costs(CostsArgs),
    /// Print the metrics of a running daemon, in the text format of Prometheus
    Metrics(MetricsArgs),
    /// Add, show, change and remove the storages of a running daemon's tree
    #[command(subcommand)]
    Mounts(MountsCommand),
    /// Look at a storage anew: a change that was made in it before is seen afterwards
    Sync(SyncArgs),
    /// Bring files into the cache, behind readers; succeeds only when all that the storage lists is
    /// there
    Load(Box<LoadArgs>),
    /// Show the loads of the running daemons
    Jobs(JobsArgs),
    /// Drop what is cached of a path; nothing in the storage changes
    Free(FreeArgs),
    /// Show how much there is at a path, and how much of it is cached
    Du(DuArgs),
    /// Compare what is cached of a path with what the storage has now
    Check(CheckPathArgs),
    /// Compare all that is cached with its checksums, and drop what is bad
    Scrub(ScrubArgs),
    /// Keep what is cached of a path, now or later, from being evicted
    Pin(PinArgs),
    /// Let what was pinned be evicted again
    Unpin(PinArgs),
    /// Say how long what is cached of a path stays, how much it may take, and what gives way first
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Show and give up what was written and the storages do not have yet
    #[command(subcommand)]
    Staged(StagedCommand),
    /// Find out what keeps a mount from working or from being fast: this machine, the cache disk, and
    /// a storage or a running mount
    Doctor(Box<DoctorArgs>),
    /// Gather what somebody needs who is to find out what is wrong
    #[command(subcommand)]
    Debug(DebugCommand),
    /// Run a daemon with several mounts in one tree, from a configuration file
    Serve(Box<ServeArgs>),
    /// Check or print a configuration file
    #[command(subcommand)]
    Config(ConfigCommand),
    /// See what it does: a cold and a warm epoch from a storage of its own on this machine
    Demo(DemoArgs),
    /// Print completions for a shell: forebay completions bash > /etc/bash_completion.d/forebay
    Completions(CompletionsArgs),
    /// Write manual pages, one for each verb
    Man(ManArgs),
    /// The process behind `mount`; reads its plan from standard input
    #[command(hide = true)]
    Daemon(DaemonArgs),
}

/// Flags of every command that runs a daemon.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct NodeArgs {
    /// Directory of the cache; belongs to one daemon at a time
    /// [default: a directory per mount point below ~/.cache/forebay, for root /var/cache/forebay]
    #[arg(
        long,
        env = "FOREBAY_CACHE_DIR",
        value_name = "DIR",
        help_heading = "Cache"
    )]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Bytes that the cache may use, never exceeded [default: 80 % of what is free on its disk]
    #[arg(
        long,
        env = "FOREBAY_CACHE_SIZE",
        value_name = "SIZE",
        help_heading = "Cache"
    )]
    pub(crate) cache_size: Option<ByteSize>,
    /// Memory that the daemon may use, besides what inodes take [default: 200MiB]
    #[arg(
        long,
        env = "FOREBAY_MEMORY",
        value_name = "SIZE",
        help_heading = "Daemon"
    )]
    pub(crate) memory: Option<ByteSize>,
    /// Inodes that the kernel may know, of about 500 bytes of memory each; those that were not used for
    /// the longest are taken back from it, and come again when they are asked for [default: 2000000]
    #[arg(
        long,
        env = "FOREBAY_MAX_INODES",
        value_name = "N",
        help_heading = "Daemon"
    )]
    #[arg(value_parser = clap::value_parser!(u32).range(1000..))]
    pub(crate) max_inodes: Option<u32>,
    /// Longest wait of any file operation while the storage does not move; then it fails [default: 60s]
    #[arg(long, env = "FOREBAY_DEADLINE", value_name = "TIME", value_parser = values::duration)]
    #[arg(help_heading = "Daemon")]
    pub(crate) deadline: Option<Duration>,
    /// Threads that answer the kernel [default: one per processor, 2 to 8]
    #[arg(
        long,
        env = "FOREBAY_THREADS",
        value_name = "N",
        help_heading = "Daemon"
    )]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: Option<u16>,
    /// Log file [default: below ~/.local/state/forebay, for root /var/log/forebay]
    #[arg(
        long,
        env = "FOREBAY_LOG",
        value_name = "FILE",
        help_heading = "Daemon"
    )]
    pub(crate) log: Option<PathBuf>,
    /// error, warn, info, debug, trace, or a filter by module [default: info]
    #[arg(
        long,
        env = "FOREBAY_LOG_LEVEL",
        value_name = "LEVEL",
        help_heading = "Daemon"
    )]
    pub(crate) log_level: Option<String>,
    /// How lines of the log are written [default: text]
    #[arg(long, env = "FOREBAY_LOG_FORMAT", value_name = "FORMAT")]
    #[arg(value_parser = values::log_format, help_heading = "Daemon")]
    pub(crate) log_format: Option<LogFormat>,
    /// Where mounts that are added to the running daemon are remembered
    /// [default: below ~/.local/state/forebay, for root /var/lib/forebay]
    #[arg(
        long,
        env = "FOREBAY_STATE_DIR",
        value_name = "DIR",
        help_heading = "Daemon"
    )]
    pub(crate) state_dir: Option<PathBuf>,
    /// Serve metrics for Prometheus over HTTP at this address, as in 127.0.0.1:9465, to whoever can
    /// reach it [default: on the admin socket only]
    #[arg(
        long,
        env = "FOREBAY_METRICS_LISTEN",
        value_name = "ADDRESS",
        help_heading = "Daemon"
    )]
    pub(crate) metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) traces: TraceArgs,
    /// Never fetch the rest of a tree when its small files are read one after the other
    #[arg(long, env = "FOREBAY_NO_NEIGHBOURS", help_heading = "Cache")]
    pub(crate) no_neighbours: bool,
    /// Show no '.forebay' with the status and the log of accesses in the root of the tree
    #[arg(long, env = "FOREBAY_NO_VIRTUAL_FILES", help_heading = "Files")]
    pub(crate) no_virtual_files: bool,
    /// Requests for data under way at a time for each mount: between the least and the most as many as
    /// pay, or always the same number [default: 4-256]
    #[arg(long, env = "FOREBAY_REQUESTS", value_name = "LEAST-MOST", value_parser = values::at_a_time)]
    #[arg(help_heading = "Daemon")]
    pub(crate) requests: Option<Bounds>,
    /// Never send a request a second time because its answer is late
    #[arg(long, env = "FOREBAY_NO_HEDGING", help_heading = "Daemon")]
    pub(crate) no_hedging: bool,
    /// Let other users of this machine in, by owner and mode of the files
    #[arg(long, env = "FOREBAY_ALLOW_OTHER", help_heading = "Kernel")]
    pub(crate) allow_other: bool,
    /// Never let the kernel read complete cache files itself
    #[arg(long, env = "FOREBAY_NO_PASSTHROUGH", help_heading = "Kernel")]
    pub(crate) no_passthrough: bool,
    /// Let the kernel open files by itself and ask for bytes only; for a read-only mount of many
    /// small files that are read again and again
    #[arg(long, env = "FOREBAY_SPARE_OPENS", help_heading = "Kernel")]
    pub(crate) spare_opens: bool,
    /// How requests come in: over io_uring where the kernel offers it (auto), from /dev/fuse (dev), or
    /// over io_uring only (uring) [default: auto]
    #[arg(
        long,
        env = "FOREBAY_TRANSPORT",
        value_name = "WAY",
        value_parser = values::transport,
        help_heading = "Kernel"
    )]
    pub(crate) transport: Option<fuse::Transport>,
}

/// Flags of `forebay mount`.
#[derive(Debug, Clone, Args)]
pub(crate) struct MountArgs {
    /// What to mount: s3://bucket/prefix, file:///path, or a path
    #[arg(value_name = "URI")]
    pub(crate) uri: String,
    /// Where: an empty directory
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    #[command(flatten)]
    pub(crate) storage: StorageArgs,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
    /// Flags for a kind of work; what else is given stays
    #[arg(long, env = "FOREBAY_PRESET", value_name = "WORK")]
    pub(crate) preset: Option<Preset>,
    /// Stay in the foreground and log to the terminal
    #[arg(short, long, env = "FOREBAY_FOREGROUND")]
    pub(crate) foreground: bool,
}

/// Flags about the storage and how its objects look.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StorageArgs {
    /// Address of the object store [default: Amazon S3]
    #[arg(
        long,
        env = "FOREBAY_ENDPOINT",
        value_name = "URL",
        help_heading = "Storage"
    )]
    pub(crate) endpoint: Option<String>,
    /// Region of the bucket [default: what the credentials chain says]
    #[arg(
        long,
        env = "FOREBAY_REGION",
        value_name = "REGION",
        help_heading = "Storage"
    )]
    pub(crate) region: Option<String>,
    /// Profile of the credentials file
    #[arg(
        long,
        env = "FOREBAY_PROFILE",
        value_name = "NAME",
        help_heading = "Storage"
    )]
    pub(crate) profile: Option<String>,
    /// Send requests without credentials, for public buckets
    #[arg(long, env = "FOREBAY_ANONYMOUS", help_heading = "Storage")]
    pub(crate) anonymous: bool,
    /// Name the bucket in the path and not in the host name
    /// [default: true with an endpoint, else false]
    #[arg(
        long,
        env = "FOREBAY_PATH_STYLE",
        value_name = "BOOL",
        value_parser = BoolishValueParser::new(),
        help_heading = "Storage"
    )]
    pub(crate) path_style: Option<bool>,
    /// Certificates to trust, in PEM, instead of those of the system
    #[arg(
        long,
        env = "FOREBAY_CA_BUNDLE",
        value_name = "FILE",
        help_heading = "Storage"
    )]
    pub(crate) ca_bundle: Option<PathBuf>,
    /// Any other option of the storage, as key=value; may be given several times
    #[arg(
        long = "option",
        env = "FOREBAY_OPTION",
        value_name = "K=V",
        value_delimiter = ','
    )]
    #[arg(value_parser = values::pair, help_heading = "Storage")]
    pub(crate) options: Vec<(String, String)>,
    /// Where secrets are: env:NAME, file:/path or profile:NAME for all of them, or OPTION=REF for
    /// one [default: the storage's own chain]
    #[arg(
        long,
        env = "FOREBAY_CREDENTIALS",
        value_name = "REF",
        value_delimiter = ',',
        help_heading = "Storage"
    )]
    pub(crate) credentials: Vec<String>,
    /// How long names and versions stay true: immutable, always, or a time [default: 60s]
    #[arg(long, env = "FOREBAY_FRESHNESS", value_name = "F", value_parser = values::freshness)]
    #[arg(help_heading = "Files")]
    pub(crate) freshness: Option<Freshness>,
    /// Refuse writes
    #[arg(long, env = "FOREBAY_READ_ONLY", help_heading = "Files")]
    pub(crate) read_only: bool,
    /// When what is written reaches the storage: through (before close returns), back (soon after;
    /// until then it is safe on the local disk), local (never) [default: through]
    #[arg(long, env = "FOREBAY_WRITE_MODE", value_name = "MODE", value_parser = values::write_mode)]
    #[arg(help_heading = "Files", conflicts_with = "read_only")]
    pub(crate) write_mode: Option<WriteMode>,
    /// Another write mode below a path of the mount, as in /scratch=local; may be given several
    /// times, and the longest path that fits holds
    #[arg(
        long,
        env = "FOREBAY_WRITE_MODE_FOR",
        value_name = "PATH=MODE",
        value_parser = values::write_mode_for,
        value_delimiter = ',',
        help_heading = "Files",
        conflicts_with = "read_only"
    )]
    pub(crate) write_mode_for: Vec<(String, Option<WriteMode>)>,
    /// Give up uploads below the URI that were begun more than a day ago and never ended, by
    /// whatever program: a storage cannot tell which are ours. Done at the start and once a day
    #[arg(long, env = "FOREBAY_CLEAN_UPLOADS", help_heading = "Files")]
    #[arg(conflicts_with = "read_only")]
    pub(crate) clean_uploads: bool,
    /// Bytes of data a second that are fetched at most; 0 for no bound [default: no bound]
    #[arg(
        long,
        env = "FOREBAY_BANDWIDTH",
        value_name = "SIZE",
        help_heading = "Storage"
    )]
    pub(crate) bandwidth: Option<ByteSize>,
    /// Owner of files whose storage has no owners [default: who mounts]
    #[arg(long, env = "FOREBAY_UID", value_name = "UID", help_heading = "Files")]
    pub(crate) uid: Option<u32>,
    /// Group of files whose storage has no groups [default: the group of who mounts]
    #[arg(long, env = "FOREBAY_GID", value_name = "GID", help_heading = "Files")]
    pub(crate) gid: Option<u32>,
    /// Who the storage's owners are here: rules such as uid:1000=0,uid:alice=1001,gid:*=100
    /// [default: the same numbers; of names, the users of this machine]
    #[arg(
        long,
        env = "FOREBAY_IDMAP",
        value_name = "RULES",
        help_heading = "Files"
    )]
    pub(crate) idmap: Option<IdMap>,
    /// Mode of files whose storage has no modes [default: 0644]
    #[arg(long, env = "FOREBAY_FILE_MODE", value_name = "OCTAL", value_parser = values::mode)]
    #[arg(help_heading = "Files")]
    pub(crate) file_mode: Option<u32>,
    /// Mode of directories whose storage has no modes [default: 0755]
    #[arg(long, env = "FOREBAY_DIR_MODE", value_name = "OCTAL", value_parser = values::mode)]
    #[arg(help_heading = "Files")]
    pub(crate) dir_mode: Option<u32>,
}

/// Flags of `forebay umount`.
#[derive(Debug, Args)]
pub(crate) struct UmountArgs {
    /// The mount point
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Detach at once, whoever still reads; files that are open fail from then on
    #[arg(short, long, env = "FOREBAY_FORCE")]
    pub(crate) force: bool,
    /// How long to wait for readers to close their files
    #[arg(
        long,
        env = "FOREBAY_TIMEOUT",
        value_name = "TIME",
        default_value = "30s"
    )]
    #[arg(value_parser = values::duration)]
    pub(crate) timeout: Duration,
}

/// Flags of `forebay status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Only the daemon of this mount point
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay metrics`.
#[derive(Debug, Args)]
pub(crate) struct MetricsArgs {
    /// The mount point of the daemon [default: the only one]
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

/// What to do with the mounts of a tree.
#[derive(Debug, Subcommand)]
pub(crate) enum MountsCommand {
    /// Hang one more storage into the tree, at once and at every start from now on
    Add(Box<AddArgs>),
    /// Show what is mounted where
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one mount with all its options
    Show(ShowArgs),
    /// Change options, credentials, freshness or attributes of a mount; only what is given changes
    Update(Box<UpdateArgs>),
    /// Take a storage out of the tree; nothing in the storage changes
    #[command(visible_alias = "rm")]
    Remove(RemoveArgs),
    /// Try a storage without mounting it: reach, list, read, measure, write
    Check(Box<CheckArgs>),
}

/// Which daemon is meant.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct DaemonChoice {
    /// The daemon of this mount point [default: the one that AT lies in, or the only one]
    #[arg(long, env = "FOREBAY_MOUNT_POINT", value_name = "DIR")]
    pub(crate) mount_point: Option<PathBuf>,
}

/// Flags of `forebay mounts add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Where in the tree, as in /datasets/imagenet
    #[arg(value_name = "AT")]
    pub(crate) at: String,
    /// What to mount: s3://bucket/prefix, file:///path, or a path
    #[arg(value_name = "URI")]
    pub(crate) uri: String,
    #[command(flatten)]
    pub(crate) storage: StorageArgs,
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
    /// Mount it even when it does not answer
    #[arg(long, visible_alias = "force", env = "FOREBAY_NO_CHECK")]
    pub(crate) no_check: bool,
}

/// Flags of `forebay mounts list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay mounts show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// Where in the tree
    #[arg(value_name = "AT")]
    pub(crate) at: String,
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay mounts update`.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    /// Where in the tree
    #[arg(value_name = "AT")]
    pub(crate) at: String,
    #[command(flatten)]
    pub(crate) storage: StorageArgs,
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
    /// Go back to the storage's own chain of credentials
    #[arg(long, conflicts_with = "credentials", env = "FOREBAY_NO_CREDENTIALS")]
    pub(crate) no_credentials: bool,
    /// Change it even when the storage does not answer
    #[arg(long, visible_alias = "force", env = "FOREBAY_NO_CHECK")]
    pub(crate) no_check: bool,
}

/// Flags of `forebay mounts remove`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// Where in the tree
    #[arg(value_name = "AT")]
    pub(crate) at: String,
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
    /// Wait first until the storage has all that was written
    #[arg(long, env = "FOREBAY_WAIT", conflicts_with = "force")]
    pub(crate) wait: bool,
    /// How long to wait for that
    #[arg(
        long,
        env = "FOREBAY_TIMEOUT",
        value_name = "TIME",
        default_value = "1h"
    )]
    #[arg(value_parser = values::duration, requires = "wait")]
    pub(crate) timeout: Duration,
    /// Remove it also when the storage does not have all that was written: the rest stays on the
    /// local disk and is stored when it is mounted again
    #[arg(long, env = "FOREBAY_FORCE")]
    pub(crate) force: bool,
}

/// What to do with what the storages do not have yet.
#[derive(Debug, Subcommand)]
pub(crate) enum StagedCommand {
    /// Show the files that wait, for how long, and why
    #[command(visible_alias = "ls")]
    List(StagedListArgs),
    /// Give up what the storage does not have of a file; what it has shows again
    Drop(StagedDropArgs),
}

/// Flags of `forebay staged list`.
#[derive(Debug, Args)]
pub(crate) struct StagedListArgs {
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay staged drop`.
#[derive(Debug, Args)]
pub(crate) struct StagedDropArgs {
    /// A file that `forebay staged list` shows
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
}

/// Flags of `forebay mounts check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The storage: s3://bucket/prefix, file:///path, or a path
    #[arg(value_name = "URI")]
    pub(crate) uri: String,
    #[command(flatten)]
    pub(crate) storage: StorageArgs,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Each line says pass, warn or fail; below what is not well stands why it matters and the \
                        command that mends it. Ends with 1 when something fails."
)]
pub(crate) struct DoctorArgs {
    /// A storage to try, or the mount point of a running daemon [default: this machine only]
    #[arg(value_name = "URI|DIR")]
    pub(crate) target: Option<String>,
    #[command(flatten)]
    pub(crate) storage: StorageArgs,
    /// The cache directory that is meant, which need not exist
    /// [default: that of the daemon, else where caches lie by default]
    #[arg(
        long,
        env = "FOREBAY_CACHE_DIR",
        value_name = "DIR",
        help_heading = "Cache"
    )]
    pub(crate) cache_dir: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay sync`.
#[derive(Debug, Args)]
#[command(
    after_help = "The storage is asked for PATH at once, and for what lies below when that is \
                        looked at. Files that are open stay the version they were opened as."
)]
pub(crate) struct SyncArgs {
    /// A file, a directory or the mount point of a running daemon's tree; mounts below it are synced
    /// too
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Wait first until the storages have all that was written, in the whole tree
    #[arg(long, env = "FOREBAY_WAIT")]
    pub(crate) wait: bool,
    /// How long to wait for that
    #[arg(
        long,
        env = "FOREBAY_TIMEOUT",
        value_name = "TIME",
        default_value = "1h"
    )]
    #[arg(value_parser = values::duration, requires = "wait")]
    pub(crate) timeout: Duration,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Configuration file; `forebay config example` prints one
    #[arg(long, env = "FOREBAY_CONFIG", value_name = "FILE")]
    pub(crate) config: PathBuf,
    #[command(flatten)]
    pub(crate) node: NodeArgs,
}

/// What to do with a configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Report every fault of a file at once
    Check {
        /// The configuration file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Print a file with every key, its meaning and its default
    Example,
    /// Print a file made from the configuration of Alluxio; secrets become references
    FromAlluxio {
        /// Its alluxio-site.properties
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// What 'alluxio fs mount' prints
        #[arg(long, value_name = "LISTING")]
        mounts: Option<PathBuf>,
        /// Where the tree is to hang
        #[arg(long, value_name = "DIR", default_value = "/mnt/data")]
        mount_point: PathBuf,
    },
}

/// Flags of `forebay demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Images in the data set
    #[arg(long, value_name = "N", default_value_t = 2000)]
    #[arg(value_parser = clap::value_parser!(u32).range(20..=100_000))]
    pub(crate) files: u32,
    /// Time that the storage takes to answer a request
    #[arg(long, value_name = "TIME", default_value = "15ms", value_parser = values::duration)]
    pub(crate) latency: Duration,
    /// Bytes a second that the storage sends, over all connections
    #[arg(long, value_name = "SIZE", default_value = "200MB")]
    pub(crate) bandwidth: ByteSize,
    /// Where to put data, cache and mount point; about three times the data set [default: $TMPDIR]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Leave data set, cache and log there for a look
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Flags of `forebay completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

/// Flags of `forebay man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Where to write them, as in /usr/local/share/man/man1
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
}

/// What `forebay daemon` shows in the list of processes.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// The mount point
    pub(crate) dir: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        super::parse(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn switches_take_every_word_for_yes_and_no_from_the_environment() {
        let command = with_boolish_switches(Cli::command());
        let mount = command.find_subcommand("mount").unwrap();
        let switches = mount
            .get_arguments()
            .filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue));
        let mut count = 0;
        for switch in switches {
            let words = switch.get_value_parser().possible_values();
            let words: Vec<_> = words.into_iter().flatten().collect();
            for word in ["0", "1", "no", "yes", "false", "true"] {
                let is_known = words.iter().any(|known| known.matches(word, false));
                assert!(is_known, "{} takes {word}", switch.get_id());
            }
            count += 1;
        }
        assert!(count >= 5, "{count} switches");
    }

    #[test]
    fn the_main_command_is_read_with_its_units() {
        let line = "forebay mount s3://b/p /mnt --endpoint http://h:1 --cache-size 100GiB \
                    --freshness 2m --deadline 5s --file-mode 0600 --option a=b --option c=d=e";
        let words: Vec<_> = line.split_whitespace().collect();
        let Command::Mount(args) = Cli::try_parse_from(words).unwrap().command else {
            panic!()
        };
        assert_eq!(args.uri, "s3://b/p");
        assert_eq!(args.node.cache_size, Some(ByteSize(100 << 30)));
        assert_eq!(
            args.storage.freshness,
            Some(Freshness::MaxAge(Duration::from_secs(120)))
        );
        assert_eq!(args.node.deadline, Some(Duration::from_secs(5)));
        assert_eq!(args.storage.file_mode, Some(0o600));
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(args.storage.options, [pair("a", "b"), pair("c", "d=e")]);
        assert!(!args.foreground);
    }

    #[test]
    fn wrong_words_are_usage_errors_that_name_the_word() {
        for (line, word) in [
            ("forebay mount s3://b /mnt --cache-size 12XB", "12XB"),
            ("forebay mount s3://b /mnt --freshness soon", "soon"),
            ("forebay mount s3://b /mnt --option novalue", "novalue"),
            ("forebay mount s3://b /mnt --threads 0", "0"),
            ("forebay mount s3://b", "DIR"),
            ("forebay umount /mnt --timeout 5", "5"),
        ] {
            let error = parse(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn every_flag_that_sets_a_daemon_has_an_environment_variable() {
        let names = [
            "mount",
            "serve",
            "umount",
            "status",
            "mounts",
            "sync",
            "load",
            "jobs",
            "free",
            "du",
            "pin",
            "unpin",
            "costs",
            "check",
            "scrub",
            "stats",
            "doctor",
            "dashboard",
        ];
        for name in names {
            let mut command = Cli::command();
            let command = command.find_subcommand_mut(name).unwrap();
            for arg in command
                .get_arguments()
                .filter(|arg| arg.get_long().is_some())
            {
                let long = arg.get_long().unwrap();
                let expected = format!("FOREBAY_{}", long.to_uppercase().replace('-', "_"));
                let env = arg.get_env().map(|env| env.to_string_lossy().into_owned());
                if long != "help" {
                    assert_eq!(env.as_deref(), Some(expected.as_str()), "{name} --{long}");
                }
            }
        }
    }
}
