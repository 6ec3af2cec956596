// SPDX-License-Identifier: Apache-2.0
//! Flags of the verbs that bring data in, keep it, drop it, check it and watch it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use types::ByteSize;

use super::DaemonChoice;
use crate::values;

/// Flags of traces.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct TraceArgs {
    /// Send traces of what had to wait to an OpenTelemetry collector, as OTLP over HTTP:
    /// http://HOST:4318 [default: nowhere]
    #[arg(long, env = "FOREBAY_TRACES", value_name = "URL", value_parser = values::collector)]
    #[arg(help_heading = "Daemon")]
    pub(crate) traces: Option<String>,
    /// Which part of the traces is sent, besides the requests that are slow or fail [default: 1%]
    #[arg(long, env = "FOREBAY_TRACES_RATIO", value_name = "PART", value_parser = values::part)]
    #[arg(help_heading = "Daemon")]
    pub(crate) traces_ratio: Option<f64>,
}

/// Flags of the admin API over TCP.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub(crate) struct AdminArgs {
    /// Serve the admin API over TLS at this address too, as in 0.0.0.0:9466, to whoever has the token
    /// [default: on the admin socket only]
    #[arg(
        long,
        env = "FOREBAY_ADMIN_LISTEN",
        value_name = "ADDRESS",
        help_heading = "Daemon"
    )]
    pub(crate) admin_listen: Option<SocketAddr>,
    /// File with the token, of mode 0600; made when it is not there [default: beside the state]
    #[arg(
        long,
        env = "FOREBAY_ADMIN_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Daemon"
    )]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// Certificate to show, in PEM [default: one that is made, and signed by itself]
    #[arg(
        long,
        env = "FOREBAY_ADMIN_CERTIFICATE",
        value_name = "FILE",
        help_heading = "Daemon"
    )]
    pub(crate) admin_certificate: Option<PathBuf>,
    /// Its key, in PEM
    #[arg(
        long,
        env = "FOREBAY_ADMIN_KEY",
        value_name = "FILE",
        help_heading = "Daemon"
    )]
    pub(crate) admin_key: Option<PathBuf>,
}

/// A daemon elsewhere, which `--admin-listen` lets be asked.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RemoteArgs {
    /// Ask the daemon at this address, as in https://node7:9466 [default: one on this machine]
    #[arg(
        long,
        env = "FOREBAY_ADMIN",
        value_name = "URL",
        conflicts_with = "dir"
    )]
    pub(crate) admin: Option<String>,
    /// File with its token, of mode 0600
    #[arg(long, env = "FOREBAY_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub(crate) admin_token_file: Option<PathBuf>,
    /// Its certificate or that of who vouches for it, in PEM
    #[arg(long, env = "FOREBAY_ADMIN_CA", value_name = "FILE")]
    pub(crate) admin_ca: Option<PathBuf>,
}

/// Flags of `forebay load`.
#[derive(Debug, Args)]
#[command(
    after_help = "A load belongs to the daemon: it goes on when this command is interrupted, and \
                        after a restart of the daemon. The same command again joins it. It takes \
                        only what readers leave free, and stops when the cache is full; only what is \
                        pinned displaces other data."
)]
pub(crate) struct LoadArgs {
    /// A file, a directory or the mount point of a running daemon's tree
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Return when the load has begun
    #[arg(long, env = "FOREBAY_DETACH")]
    pub(crate) detach: bool,
    /// Stop the load of PATH; what it fetched stays cached
    #[arg(long, env = "FOREBAY_STOP")]
    #[arg(conflicts_with_all = ["detach", "metadata_only", "verify", "bandwidth", "include", "exclude", "from_file", "replicas"])]
    pub(crate) stop: bool,
    /// Learn the names below PATH, and fetch no bytes
    #[arg(long, env = "FOREBAY_METADATA_ONLY")]
    pub(crate) metadata_only: bool,
    /// At the end read all of it from the cache disk and compare it with its checksums; what is bad is
    /// fetched once more
    #[arg(long, env = "FOREBAY_VERIFY", conflicts_with = "metadata_only")]
    pub(crate) verify: bool,
    /// The most bytes to fetch in a second, on average, as in 50MB
    #[arg(long, env = "FOREBAY_BANDWIDTH", value_name = "SIZE")]
    pub(crate) bandwidth: Option<ByteSize>,
    /// Only files that match, as in '*.jpg' or 'train/**'; may be given several times
    #[arg(long, env = "FOREBAY_INCLUDE", value_name = "GLOB")]
    pub(crate) include: Vec<String>,
    /// No files that match; may be given several times
    #[arg(long, env = "FOREBAY_EXCLUDE", value_name = "GLOB")]
    pub(crate) exclude: Vec<String>,
    /// Reserved for clusters: on how many nodes each file is to be cached
    #[arg(long, env = "FOREBAY_REPLICAS", value_name = "COUNT", hide = true)]
    pub(crate) replicas: Option<u16>,
    /// Only the paths that this file lists, one a line, relative to PATH or absolute; '-' is
    /// standard input
    #[arg(long, env = "FOREBAY_FROM_FILE", value_name = "FILE")]
    pub(crate) from_file: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay jobs`.
#[derive(Debug, Args)]
pub(crate) struct JobsArgs {
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay free`.
#[derive(Debug, Args)]
#[command(
    after_help = "What is pinned, or was written and is not stored yet, stays, and so does everything \
                        in the storage. Files that are open are read on."
)]
pub(crate) struct FreeArgs {
    /// A file, a directory or the mount point of a running daemon's tree
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay pin` and `forebay unpin`.
#[derive(Debug, Args)]
#[command(
    after_help = "Pins outlive the daemon. They take at most four fifths of the cache; a load of what \
                        is pinned makes room for it."
)]
pub(crate) struct PinArgs {
    /// A file, a directory or the mount point of a running daemon's tree
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// What to do with the rules of paths.
#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// Give a path a TTL, a quota, a priority; what is not given stays as it is
    Set(RulesSetArgs),
    /// Show which paths have rules, and what is cached of them
    #[command(visible_alias = "ls")]
    List(RulesListArgs),
    /// Take back what was said of a path; what is cached stays
    #[command(visible_alias = "rm")]
    Remove(RulesRemoveArgs),
}

/// Flags of `forebay rules set`.
#[derive(Debug, Args)]
#[command(
    after_help = "Rules are of the cache alone: nothing in a storage changes, and what is pinned, or was \
                        written and is not stored yet, never goes because of them. They outlive the \
                        daemon. The path of a mount is a rule of that mount. Of paths in each other the \
                        inner TTL and priority hold, and all quotas."
)]
pub(crate) struct RulesSetArgs {
    /// A file, a directory or the mount point of a running daemon's tree
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Drop files from the cache so long after they were cached, as in 12h or 7d
    #[arg(long, env = "FOREBAY_TTL", value_name = "TIME", value_parser = values::duration)]
    pub(crate) ttl: Option<Duration>,
    /// The most bytes of PATH to cache; what is more makes way within PATH. 0 caches nothing
    #[arg(long, env = "FOREBAY_QUOTA", value_name = "SIZE")]
    pub(crate) quota: Option<ByteSize>,
    /// What gives way when the cache is full: low before all else, high after all else
    #[arg(long, env = "FOREBAY_PRIORITY", value_name = "P")]
    #[arg(value_parser = ["low", "normal", "high"])]
    pub(crate) priority: Option<String>,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay rules list`.
#[derive(Debug, Args)]
pub(crate) struct RulesListArgs {
    #[command(flatten)]
    pub(crate) daemon: DaemonChoice,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay rules remove`.
#[derive(Debug, Args)]
pub(crate) struct RulesRemoveArgs {
    /// A path that has a rule
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Only the TTL
    #[arg(long)]
    pub(crate) ttl: bool,
    /// Only the quota
    #[arg(long)]
    pub(crate) quota: bool,
    /// Only the priority
    #[arg(long)]
    pub(crate) priority: bool,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay du`.
#[derive(Debug, Args)]
pub(crate) struct DuArgs {
    /// Files, directories or mount points of running daemons' trees
    #[arg(value_name = "PATH", required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay check`.
#[derive(Debug, Args)]
#[command(
    after_help = "The storages are listed anew and nothing is learnt by it: 'forebay sync PATH' has the \
                        tree show what changed. Ends with 1 when something is not as in the storage. \
                        When this command is interrupted, the check ends."
)]
pub(crate) struct CheckPathArgs {
    /// A file, a directory or the mount point of a running daemon's tree
    #[arg(value_name = "PATH")]
    pub(crate) path: PathBuf,
    /// Read all that is cached from the storage once more, and compare the bytes
    #[arg(long, env = "FOREBAY_BYTES")]
    pub(crate) bytes: bool,
    /// Drop from the cache what is not as in the storage
    #[arg(long, env = "FOREBAY_DROP")]
    pub(crate) drop: bool,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay scrub`.
#[derive(Debug, Args)]
#[command(
    after_help = "Readers go on meanwhile, and what is dropped is fetched again when it is read. Ends \
                        with 1 when something was bad. When this command is interrupted, the scrub ends."
)]
pub(crate) struct ScrubArgs {
    /// The mount point of the daemon [default: the only one]
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// The most bytes to read from the cache disk in a second, on average
    #[arg(
        long,
        env = "FOREBAY_BANDWIDTH",
        value_name = "SIZE",
        default_value = "100MB"
    )]
    pub(crate) bandwidth: ByteSize,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// What to do for who looks for a fault.
#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Pack status, metrics, mounts, configuration, facts of this machine and the end of the log into
    /// one file, without secrets
    Bundle(BundleArgs),
}

/// Flags of `forebay debug bundle`.
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is sent to anybody. Secrets are taken out: those that mounts refer to, those in \
                        variables, and whatever looks like one. Names of hosts, buckets, files and users \
                        stay: look with --list and --show before you hand it on."
)]
pub(crate) struct BundleArgs {
    /// Only the daemon of this mount point [default: all of this user]
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Where to write it; a file that is there is left alone
    /// [default: forebay-debug-SECONDS.tar.gz here]
    #[arg(short, long, env = "FOREBAY_OUTPUT", value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Take this configuration file in too; those of running daemons are
    #[arg(long, env = "FOREBAY_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Show what would be packed, and write nothing
    #[arg(long, env = "FOREBAY_LIST", conflicts_with = "output")]
    pub(crate) list: bool,
    /// Print one of these files as it would be packed, and write nothing
    #[arg(long, env = "FOREBAY_SHOW", value_name = "NAME", conflicts_with_all = ["output", "list"])]
    pub(crate) show: Option<String>,
}

/// Flags of `forebay stats`.
#[derive(Debug, Args)]
#[command(
    after_help = "Columns: requests of the kernel, those of them that waited and for how long on \
                        average; opens; bytes given to readers and fetched, and the share of opens and \
                        reads that needed no request; requests to the storages, failures and answers \
                        that asked to slow down; memory, and what is cached."
)]
pub(crate) struct StatsArgs {
    /// The mount point of the daemon [default: the only one]
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// Time between two lines
    #[arg(
        long,
        env = "FOREBAY_INTERVAL",
        value_name = "TIME",
        default_value = "1s"
    )]
    #[arg(value_parser = values::duration)]
    pub(crate) interval: Duration,
    /// End after so many lines [default: when interrupted]
    #[arg(long, env = "FOREBAY_COUNT", value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Print a line of JSON each time, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay dashboard`.
#[derive(Debug, Args)]
#[command(
    after_help = "The page listens on 127.0.0.1 only, is for whoever has the token at the end of its \
                        address, shows what the admin API answers, and changes nothing."
)]
pub(crate) struct DashboardArgs {
    /// The mount point of the daemon [default: the only one]
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// Port to listen on; 0 is any that is free
    #[arg(long, env = "FOREBAY_PORT", value_name = "PORT", default_value_t = 0)]
    pub(crate) port: u16,
}

/// Flags of `forebay top`.
#[derive(Debug, Args)]
#[command(
    after_help = "Keys: f, p, m or Tab for files, processes and mounts; s for another order, r turns it \
                        around; q ends. Files and processes are counted only while somebody watches. \
                        Files that the kernel reads itself (passthrough) show their opens, and no bytes: \
                        no read of them reaches the daemon."
)]
pub(crate) struct TopArgs {
    /// The mount point of the daemon [default: the only one]
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Watch for a second, print it, and end
    #[arg(long, env = "FOREBAY_ONCE")]
    pub(crate) once: bool,
    /// The same as JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}

/// Flags of `forebay costs`.
#[derive(Debug, Args)]
#[command(
    after_help = "Counted since the daemon started. A file of prices is of TOML, and what it does not name \
                        costs nothing:\n\n  currency = 'USD'\n  per_gb_read = 0.09       # of 1,000,000,000 \
                        bytes\n  per_gb_written = 0.0\n  [per_1000]               # of requests, by \
                        kind: list, head, get, put, copy, delete, upload, other\n  get = 0.0004\n  \
                        list = 0.005"
)]
pub(crate) struct CostsArgs {
    /// The mount point of the daemon [default: the only one]
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
    /// What requests and bytes cost
    #[arg(long, env = "FOREBAY_PRICES", value_name = "FILE")]
    pub(crate) prices: Option<PathBuf>,
    /// Print JSON, for scripts
    #[arg(long, env = "FOREBAY_JSON")]
    pub(crate) json: bool,
}
