// SPDX-License-Identifier: Apache-2.0
//! A plan: everything a daemon needs to know before it starts, with all defaults applied.
//!
//! Flags, environment and file meet here, in that order. A plan is plain data: the command that
//! starts a daemon writes it as JSON to the daemon's standard input, so that paths are resolved
//! once and nothing passes through an argument list. Secrets are not part of a plan: a daemon finds
//! them where the storage's own chain looks, or resolves the references that the plan has.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use fuse::Transport;
use serde::{Deserialize, Serialize};
use types::idmap::IdMap;
use types::{ByteSize, Freshness, ObjectPath};
use vfs::{WriteMode, WriteModes};
use worker::settings::{Bounds, WIDTH};

use crate::admin_door::AdminPlan;
use crate::cli::{AdminArgs, MountArgs, NodeArgs, StorageArgs, TraceArgs};
use crate::credentials::{Credentials, SECRET_OPTIONS};
use crate::layout::Layout;
use crate::owners;
use crate::places;
use crate::traces::TracePlan;
use crate::usage::wrong;
use crate::values;

/// Below this the buffers of a few readers alone would not fit.
pub(crate) const MEMORY_MIN_BYTES: u64 = 64 << 20;
/// What the index of a cache and its journals take is a large part of less.
pub(crate) const CACHE_MIN_BYTES: u64 = 64 << 20;
const MEMORY_DEFAULT_BYTES: u64 = 200 << 20;
const DEADLINE_DEFAULT: Duration = Duration::from_secs(60);
pub(crate) const FRESHNESS_DEFAULT: Freshness = Freshness::MaxAge(Duration::from_secs(60));
const FILE_MODE_DEFAULT: u32 = 0o644;
const DIR_MODE_DEFAULT: u32 = 0o755;

/// What a daemon is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Absolute, without symbolic links.
    pub(crate) mount_point: PathBuf,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) cache: CachePlan,
    pub(crate) memory_bytes: u64,
    pub(crate) max_inodes: u32,
    pub(crate) deadline: Duration,
    pub(crate) threads: usize,
    pub(crate) allow_other: bool,
    pub(crate) passthrough: bool,
    #[serde(default)]
    pub(crate) spare_opens: bool,
    #[serde(default, with = "transport_text")]
    pub(crate) transport: Transport,
    pub(crate) log: LogPlan,
    pub(crate) run_dir: PathBuf,
    /// Where mounts that are added to the running daemon are kept; none when there is no place.
    pub(crate) state_file: Option<PathBuf>,
    /// Whether the rest of a tree is fetched when a job reads its small files one after the other.
    pub(crate) neighbours: bool,
    /// Requests for data under way at a time, for each mount.
    #[serde(default = "at_a_time")]
    pub(crate) requests: Bounds,
    /// Whether a request is sent a second time when its answer is late.
    #[serde(default = "yes")]
    pub(crate) hedging: bool,
    /// Where metrics are served over TCP; none for nowhere.
    #[serde(default)]
    pub(crate) metrics_listen: Option<SocketAddr>,
    /// Where the admin API is served over TCP; none for nowhere.
    #[serde(default)]
    pub(crate) admin: Option<AdminPlan>,
    /// Where traces are sent; none for nowhere.
    #[serde(default)]
    pub(crate) traces: Option<TracePlan>,
    /// Whether `.forebay` is in the root of the tree.
    #[serde(default)]
    pub(crate) virtual_files: bool,
}

/// One storage in the tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MountPlan {
    /// Path in the tree, without slashes at its ends; empty for the mount point itself.
    pub(crate) at: String,
    pub(crate) uri: String,
    #[serde(default)]
    pub(crate) options: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) credentials: Credentials,
    #[serde(with = "freshness_text")]
    pub(crate) freshness: Freshness,
    pub(crate) read_only: bool,
    #[serde(default = "through", with = "write_mode_text")]
    pub(crate) write_mode: WriteMode,
    /// Where it is another: paths below the mount, without slashes at their ends.
    #[serde(default, with = "write_modes_text")]
    pub(crate) write_modes: BTreeMap<String, WriteMode>,
    /// Whether uploads that nobody ended are given up after a day.
    #[serde(default)]
    pub(crate) clean_uploads: bool,
    /// Bytes of data a second that are fetched at most.
    #[serde(default)]
    pub(crate) bandwidth: Option<u64>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) file_mode: u32,
    pub(crate) dir_mode: u32,
    /// Who the owners that the storage tells are here.
    #[serde(default, with = "idmap_text")]
    pub(crate) idmap: IdMap,
}

/// The cache of a daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CachePlan {
    pub(crate) dir: PathBuf,
    /// None: a share of what is free.
    pub(crate) size_bytes: Option<u64>,
}

/// Where and how much is logged.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LogPlan {
    /// None: to the terminal.
    pub(crate) file: Option<PathBuf>,
    pub(crate) level: String,
    pub(crate) format: LogFormat,
}

impl LogPlan {
    fn of(flags: &NodeArgs, file: &NodeDefaults) -> Result<LogPlan> {
        let path = flags.log.as_ref().or(file.log.as_ref());
        let level = flags.log_level.as_ref().or(file.log_level.as_ref());
        let level = level.map_or("info", String::as_str);
        crate::logging::check_level(level)?;
        Ok(LogPlan {
            file: path.map(|path| absolute(path)).transpose()?,
            level: level.to_owned(),
            format: flags.log_format.or(file.log_format).unwrap_or_default(),
        })
    }
}

/// How lines of the log are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// An object in each line, for programs.
    Json,
}

/// What a file says of the daemon itself; the flags of the same names win over it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NodeDefaults {
    pub(crate) cache_dir: Option<PathBuf>,
    pub(crate) cache_size: Option<u64>,
    pub(crate) memory: Option<u64>,
    pub(crate) max_inodes: Option<u32>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) threads: Option<u16>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) log_level: Option<String>,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) allow_other: Option<bool>,
    pub(crate) passthrough: Option<bool>,
    pub(crate) spare_opens: Option<bool>,
    pub(crate) transport: Option<Transport>,
    pub(crate) state_dir: Option<PathBuf>,
    pub(crate) neighbours: Option<bool>,
    pub(crate) requests: Option<Bounds>,
    pub(crate) hedging: Option<bool>,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) virtual_files: Option<bool>,
    pub(crate) admin: AdminArgs,
    pub(crate) traces: TraceArgs,
}

impl Plan {
    /// Makes the plan of `forebay mount`.
    pub(crate) fn of_mount(args: &MountArgs, run_dir: Option<&Path>) -> Result<Plan> {
        let mount_point = places::mount_point(&args.dir)?;
        let (mut storage, mut node) = (args.storage.clone(), args.node.clone());
        if let Some(preset) = args.preset {
            preset.fill(&mut storage, &mut node);
        }
        let mount = MountPlan::of_flags(&args.uri, &storage)?;
        let mut plan = Plan::of_node(
            mount_point,
            vec![mount],
            &node,
            NodeDefaults::default(),
            run_dir,
        )?;
        if !args.foreground && plan.log.file.is_none() {
            plan.log.file = Some(places::default_log(&plan.mount_point)?);
        }
        Ok(plan)
    }

    /// Returns whether the tree takes no writes, as the kernel is told at the start.
    pub(crate) fn is_read_only(&self) -> bool {
        !self.mounts.is_empty() && self.mounts.iter().all(|mount| mount.read_only)
    }

    /// Makes a plan of mounts, flags, and what a file says.
    pub(crate) fn of_node(
        mount_point: PathBuf,
        mounts: Vec<MountPlan>,
        flags: &NodeArgs,
        file: NodeDefaults,
        run_dir: Option<&Path>,
    ) -> Result<Plan> {
        let log = LogPlan::of(flags, &file)?;
        let memory_bytes = memory_of(flags, &file)?;
        let deadline = flags.deadline.or(file.deadline).unwrap_or(DEADLINE_DEFAULT);
        if deadline.is_zero() {
            let why = "a deadline of 0 lets no operation succeed: give a time such as 60s";
            return Err(wrong(why));
        }
        let cache_dir = match flags.cache_dir.clone().or(file.cache_dir) {
            Some(dir) => absolute(&dir)?,
            None => places::default_cache(&mount_point)?,
        };
        let layout = Layout::new(&mount_point, &cache_dir);
        layout.check().map_err(wrong)?;
        for mount in &mounts {
            layout.check_source(&mount.uri).map_err(wrong)?;
        }
        let size_bytes = flags.cache_size.map(|size| size.0).or(file.cache_size);
        if let Some(size) = size_bytes {
            check_cache_size(size).map_err(wrong)?;
        }
        let spare_opens = flags.spare_opens || file.spare_opens.unwrap_or(false);
        if spare_opens && mounts.iter().any(|mount| !mount.read_only) {
            let why = "opens can be spared on read-only mounts only: add --read-only";
            return Err(wrong(why));
        }
        let state_dir = flags.state_dir.clone().or(file.state_dir);
        let state_dir = state_dir.map(|dir| absolute(&dir)).transpose()?;
        let state_file = places::state_file(state_dir.as_deref(), &mount_point);
        Ok(Plan {
            traces: TracePlan::of(&flags.traces, &file.traces),
            admin: AdminPlan::of(&flags.admin, &file.admin, state_file.as_deref())?,
            state_file,
            neighbours: !flags.no_neighbours && file.neighbours.unwrap_or(true),
            requests: flags.requests.or(file.requests).unwrap_or(WIDTH),
            hedging: !flags.no_hedging && file.hedging.unwrap_or(true),
            metrics_listen: flags.metrics_listen.or(file.metrics_listen),
            // The kernel that opens files by itself would keep what they held.
            virtual_files: !flags.no_virtual_files
                && file.virtual_files.unwrap_or(true)
                && !spare_opens,
            mount_point,
            mounts,
            cache: CachePlan {
                dir: cache_dir,
                size_bytes,
            },
            memory_bytes,
            max_inodes: flags
                .max_inodes
                .or(file.max_inodes)
                .unwrap_or(vfs::INODES_MAX_DEFAULT),
            deadline,
            threads: flags
                .threads
                .or(file.threads)
                .map_or_else(default_threads, usize::from),
            allow_other: flags.allow_other || file.allow_other.unwrap_or(false),
            passthrough: !flags.no_passthrough && file.passthrough.unwrap_or(true),
            spare_opens,
            transport: flags.transport.or(file.transport).unwrap_or_default(),
            log,
            run_dir: places::run_dir(run_dir),
        })
    }
}

impl MountPlan {
    /// Returns when what is written reaches the storage.
    pub(crate) fn writes(&self) -> types::Result<WriteModes> {
        if self.read_only {
            return Ok(WriteModes::default());
        }
        let parse =
            |(path, mode): (&String, &WriteMode)| Ok((ObjectPath::parse(path.as_bytes())?, *mode));
        let prefixes = self.write_modes.iter().map(parse);
        Ok(WriteModes::new(
            self.write_mode,
            prefixes.collect::<types::Result<_>>()?,
        ))
    }

    /// Makes the plan of a mount of the root from flags.
    pub(crate) fn of_flags(uri: &str, flags: &StorageArgs) -> Result<MountPlan> {
        check_no_userinfo(uri)?;
        let defaults = MountPlan::with_defaults(String::new(), absolute_uri(uri)?);
        let plan = MountPlan {
            options: options_of(flags)?,
            credentials: credentials_of(flags)?,
            freshness: flags.freshness.unwrap_or(defaults.freshness),
            read_only: flags.read_only,
            write_mode: flags.write_mode.unwrap_or(defaults.write_mode),
            write_modes: write_modes_of(flags),
            clean_uploads: flags.clean_uploads,
            bandwidth: flags.bandwidth.map(|rate| rate.0).filter(|rate| *rate > 0),
            uid: flags.uid.unwrap_or(defaults.uid),
            gid: flags.gid.unwrap_or(defaults.gid),
            file_mode: flags.file_mode.unwrap_or(defaults.file_mode),
            dir_mode: flags.dir_mode.unwrap_or(defaults.dir_mode),
            idmap: flags.idmap.clone().unwrap_or_default(),
            ..defaults
        };
        owners::check(&plan.uri, &plan.idmap).map_err(wrong)?;
        Ok(plan)
    }

    /// Makes the plan of a mount with every default.
    pub(crate) fn with_defaults(at: String, uri: String) -> MountPlan {
        let (uid, gid) = own_ids();
        MountPlan {
            at,
            uri,
            options: BTreeMap::new(),
            credentials: Credentials::default(),
            freshness: FRESHNESS_DEFAULT,
            read_only: false,
            write_mode: through(),
            write_modes: BTreeMap::new(),
            clean_uploads: false,
            bandwidth: None,
            uid,
            gid,
            file_mode: FILE_MODE_DEFAULT,
            dir_mode: DIR_MODE_DEFAULT,
            idmap: IdMap::default(),
        }
    }
}

fn memory_of(flags: &NodeArgs, file: &NodeDefaults) -> Result<u64> {
    let memory = flags.memory.map(|size| size.0).or(file.memory);
    let memory_bytes = memory.unwrap_or(MEMORY_DEFAULT_BYTES);
    if memory_bytes < MEMORY_MIN_BYTES {
        let given = ByteSize(memory_bytes);
        return Err(wrong(format!(
            "a memory of {given} is too little: give at least 64MiB"
        )));
    }
    Ok(memory_bytes)
}

fn write_modes_of(flags: &StorageArgs) -> BTreeMap<String, WriteMode> {
    let given = flags.write_mode_for.iter();
    given
        .filter_map(|(path, mode)| Some((path.clone(), (*mode)?)))
        .collect()
}

fn through() -> WriteMode {
    WriteMode::Through
}

/// Returns the options that flags give.
pub(crate) fn options_of(flags: &StorageArgs) -> Result<BTreeMap<String, String>> {
    let mut options = BTreeMap::new();
    for (key, value) in &flags.options {
        if key == owners::OPTION {
            return Err(wrong("--option idmap: give the rules as --idmap RULES"));
        }
        if SECRET_OPTIONS.contains(&key.as_str()) {
            return Err(wrong(format!(
                "--option {key}: a secret on a command line can be read by every user; \
                 give --credentials env:NAME or file:/path, or set AWS_ACCESS_KEY_ID and \
                 AWS_SECRET_ACCESS_KEY"
            )));
        }
        options.insert(key.clone(), value.clone());
    }
    let ca_bundle = flags.ca_bundle.as_deref().map(absolute).transpose()?;
    for (key, value) in [
        ("endpoint", flags.endpoint.clone()),
        ("region", flags.region.clone()),
        ("profile", flags.profile.clone()),
        ("anonymous", flags.anonymous.then(|| "true".to_owned())),
        ("path_style", flags.path_style.map(|on| on.to_string())),
        (
            "ca_bundle",
            ca_bundle.map(|file| file.to_string_lossy().into_owned()),
        ),
    ] {
        if let Some(value) = value {
            options.insert(key.to_owned(), value);
        }
    }
    if let Some(endpoint) = options.get("endpoint") {
        check_no_userinfo(endpoint)?;
    }
    Ok(options)
}

/// Returns the references to secrets that flags give.
pub(crate) fn credentials_of(flags: &StorageArgs) -> Result<Credentials> {
    Credentials::parse(&flags.credentials).map_err(|why| wrong(format!("--credentials: {why}")))
}

/// Makes a bare path absolute, because the daemon works in another directory.
pub(crate) fn absolute_uri(uri: &str) -> Result<String> {
    if uri.contains("://") {
        return Ok(uri.to_owned());
    }
    if uri.is_empty() {
        let why = "the URI is empty: give s3://bucket/prefix, file:///path or a path";
        return Err(wrong(why));
    }
    let path = absolute(Path::new(uri))?;
    if !uri.starts_with(['/', '.']) && matches!(path.try_exists(), Ok(false)) {
        return Err(wrong(format!(
            "'{uri}' is no directory here; a bucket of that name is s3://{uri}"
        )));
    }
    path.into_os_string()
        .into_string()
        .map_err(|path| wrong(format!("path '{}' is not UTF-8", path.display())))
}

/// Refuses `scheme://user:password@host`: a URI is shown in lists of mounts and in logs.
pub(crate) fn check_no_userinfo(uri: &str) -> Result<()> {
    let (scheme, rest) = uri.split_once("://").unwrap_or_default();
    let authority = rest.split('/').next().unwrap_or_default();
    // There a container stands before the '@', which the driver checks.
    let names_container = matches!(scheme, "abfs" | "abfss" | "wasb" | "wasbs");
    if authority.contains('@') && (!names_container || authority.contains(':')) {
        return Err(wrong(
            "a URI must not hold credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, \
             or use a profile",
        ));
    }
    Ok(())
}

/// Refuses a size in which no cache can work.
pub(crate) fn check_cache_size(bytes: u64) -> Result<(), String> {
    match bytes < CACHE_MIN_BYTES {
        true => Err(format!(
            "a cache of {} is too small: give at least 64MiB",
            ByteSize(bytes)
        )),
        false => Ok(()),
    }
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("path '{}'", path.display()))
}

fn own_ids() -> (u32, u32) {
    (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    )
}

/// One thread per processor; more than eight gain nothing at the kernel's queue.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8))
}

mod idmap_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use types::idmap::IdMap;

    pub(super) fn serialize<S: Serializer>(value: &IdMap, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<IdMap, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

mod freshness_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use types::Freshness;

    use super::values;

    pub(super) fn serialize<S: Serializer>(value: &Freshness, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&values::show_freshness(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Freshness, D::Error> {
        values::freshness(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

fn at_a_time() -> Bounds {
    WIDTH
}

fn yes() -> bool {
    true
}

mod transport_text {
    use fuse::Transport;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use super::values;

    pub(super) fn serialize<S: Serializer>(value: &Transport, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(values::show_transport(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Transport, D::Error> {
        values::transport(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

mod write_mode_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use vfs::WriteMode;

    use super::values;

    pub(super) fn serialize<S: Serializer>(value: &WriteMode, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(value.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<WriteMode, D::Error> {
        values::write_mode(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

mod write_modes_text {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use vfs::WriteMode;

    use super::values;

    type Modes = BTreeMap<String, WriteMode>;

    pub(super) fn serialize<S: Serializer>(value: &Modes, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(value.iter().map(|(path, mode)| (path, mode.name())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Modes, D::Error> {
        let texts = BTreeMap::<String, String>::deserialize(from)?;
        let modes = texts.into_iter().map(|(path, mode)| {
            let path = values::write_mode_path(&path).map_err(D::Error::custom)?;
            let mode = values::write_mode(&mode).map_err(D::Error::custom)?;
            Ok((path, mode))
        });
        modes.collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use types::ByteSize;

    use super::*;
    use crate::cli::{Cli, Command};

    fn mount(flags: &str) -> Result<Plan> {
        let dir = tempfile::tempdir().unwrap();
        let line = format!("forebay mount s3://b/p {} {flags}", dir.path().display());
        let Command::Mount(args) = Cli::try_parse_from(line.split_whitespace())?.command else {
            panic!("not a mount")
        };
        Plan::of_mount(&args, Some(Path::new("/run/test")))
    }

    #[test]
    fn a_plan_survives_the_way_to_the_daemon_and_leaves_secrets_behind() {
        let flags = "--freshness immutable --deadline 5s --endpoint http://h:1 \
                     --credentials env:PATH --no-neighbours --requests 8-32 --no-hedging";
        let plan = mount(flags).unwrap();
        let secret = std::env::var("PATH").unwrap();
        let json = serde_json::to_string(&plan).unwrap();
        assert!(!json.contains(&secret) && !format!("{plan:?}").contains(&secret));
        let back: Plan = serde_json::from_str(&json).unwrap();
        assert_eq!(back.mounts[0].freshness, Freshness::Immutable);
        assert_eq!(back.mounts[0].options["endpoint"], "http://h:1");
        assert_eq!(back.deadline, Duration::from_secs(5));
        assert_eq!(back.mounts[0], plan.mounts[0]);
        assert!(!back.neighbours && !back.hedging);
        assert_eq!((back.requests.least, back.requests.most), (8, 32));
    }

    #[test]
    fn a_preset_is_part_of_the_plan() {
        let plan = mount("--preset training").unwrap();
        assert!(plan.is_read_only());
        assert_eq!(plan.mounts[0].freshness, Freshness::Immutable);
        let plan = mount("--preset checkpoints --freshness always").unwrap();
        assert_eq!(plan.mounts[0].write_mode, WriteMode::Back);
        assert_eq!(plan.mounts[0].freshness, Freshness::Always);
    }

    #[test]
    fn secrets_on_the_command_line_are_refused_with_the_fix() {
        for flags in [
            "--option secret_access_key=x",
            "--endpoint http://user:pw@h:1",
        ] {
            let error = mount(flags).unwrap_err().to_string();
            assert!(error.contains("AWS_SECRET_ACCESS_KEY"), "{error}");
        }
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_the_default() {
        let file = NodeDefaults {
            cache_size: Some(7 << 30),
            memory: Some(300 << 20),
            passthrough: Some(false),
            cache_dir: Some("/c".into()),
            ..NodeDefaults::default()
        };
        let flags = NodeArgs {
            memory: Some(ByteSize(400 << 20)),
            ..NodeArgs::default()
        };
        let plan = Plan::of_node("/m".into(), Vec::new(), &flags, file, None).unwrap();
        assert_eq!(plan.memory_bytes, 400 << 20);
        assert_eq!(plan.cache.size_bytes, Some(7 << 30));
        assert_eq!(plan.deadline, DEADLINE_DEFAULT);
        assert!(!plan.passthrough);
        assert!((2..=8).contains(&plan.threads));
    }

    #[test]
    fn limits_that_cannot_work_are_refused() {
        assert!(
            mount("--memory 1MiB")
                .unwrap_err()
                .to_string()
                .contains("64MiB")
        );
        assert!(
            mount("--deadline 0s")
                .unwrap_err()
                .to_string()
                .contains("deadline")
        );
        for flags in [
            "--log-level loud",
            "--cache-size 1MiB",
            "--memory 1MiB",
            "--cache-dir /",
        ] {
            let error = mount(flags).unwrap_err();
            assert!(error.is::<crate::usage::Usage>(), "{error}");
        }
    }

    #[test]
    fn bare_paths_become_absolute_and_uris_stay() {
        assert_eq!(absolute_uri("s3://b/p").unwrap(), "s3://b/p");
        assert_eq!(absolute_uri("/data").unwrap(), "/data");
        assert!(absolute_uri("src").unwrap().ends_with("/src"));
        assert!(absolute_uri("./new").unwrap().starts_with('/'));
        assert!(absolute_uri("").is_err());
        let hint = absolute_uri("my-bucket").unwrap_err().to_string();
        assert!(hint.contains("s3://my-bucket"), "{hint}");
    }

    #[test]
    fn a_container_before_the_account_is_no_password() {
        assert!(check_no_userinfo("abfss://data@account.dfs.core.windows.net/x").is_ok());
        assert!(check_no_userinfo("abfss://u:p@account.dfs.core.windows.net/x").is_err());
        assert!(check_no_userinfo("s3://key@bucket/").is_err());
        assert!(check_no_userinfo("hf://datasets/owner/name@main").is_ok());
    }
}
