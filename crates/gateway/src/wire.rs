// SPDX-License-Identifier: Apache-2.0
//! The words of the admin API, as JSON.
//!
//! These types are a promise to scripts: fields are added, never renamed or given another meaning.
//! They are filled in by the daemon from the rooms' own counters, which stay free to change.
//! Times are in seconds, sizes in bytes, and each name says so.

mod rules;
mod seeing;
mod traffic;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use rules::{RemoveRule, Rule, RuleInForce, RuleList, SetRule};
pub use seeing::{Finding, Health, History, Sample, SlowRequest, Traces, UsageOfName};
pub use traffic::{Counts, FileTraffic, ProcessTraffic, Traffic};

/// What a daemon tells of itself: the answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Status {
    /// Version of the binary that runs.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Seconds since the mount answered.
    pub uptime_seconds: u64,
    /// Where the tree hangs.
    pub mount_point: String,
    /// Log file; none when it logs to the terminal.
    pub log: Option<String>,
    /// What is mounted where in the tree.
    pub mounts: Vec<Mount>,
    /// The local cache.
    pub cache: Cache,
    /// Memory of the process.
    pub memory: Memory,
    /// How the kernel is served.
    pub kernel: Kernel,
    /// What does not show in the tree, or is old there.
    pub names: Names,
    /// What was written and the storages do not have yet.
    pub staged: Staged,
    /// Trees of small files that are fetched ahead of their readers.
    pub trees_ahead: Vec<TreeAhead>,
    /// Paths that are pinned.
    pub pins: Vec<String>,
    /// What is said of paths: TTLs, quotas, priorities.
    pub rules: Vec<Rule>,
    /// The scrub that runs.
    pub scrub: Option<Scrubbed>,
    /// Loads that run.
    pub loads: Vec<Job>,
    /// What became of traces, where they are sent.
    pub traces: Option<Traces>,
    /// Latest warnings and errors, oldest first.
    pub last_errors: Vec<Event>,
}

/// What was written and the storages do not have yet: it waits on the local disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Staged {
    /// Files that wait.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How long ago the first of them was last written.
    pub oldest_seconds: u64,
    /// Path of one whose last attempt failed, and why.
    pub failing: Option<String>,
}

/// The answer to `GET /v1/staged`: what waits to be stored, file by file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StagedList {
    /// Where the tree hangs.
    pub mount_point: String,
    /// The files.
    pub files: Vec<StagedFile>,
}

/// A file that a storage does not have yet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StagedFile {
    /// Path in the tree; that in the storage where that is not mounted.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// How long ago it was last written.
    pub age_seconds: u64,
    /// Why the last attempt to store it failed.
    pub error: Option<String>,
}

/// The body of `POST /v1/staged/drop`: give up what a storage does not have of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DropStaged {
    /// Path in the tree.
    pub path: String,
}

/// The answer: what was given up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DroppedStaged {
    /// Path in the tree.
    pub path: String,
    /// The length of the file.
    pub bytes: u64,
    /// Things to know that are no faults.
    pub notices: Vec<String>,
}

/// What does not show in the tree, or is old there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Names {
    /// Names in listings that a file system cannot show; counted again at each listing.
    pub left_out: u64,
    /// Answers from knowledge past its age, because the storage did not answer.
    pub served_old: u64,
}

/// One storage in the tree.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Mount {
    /// Path in the tree; `/` is the mount point itself.
    pub at: String,
    /// Location of the storage, without secrets.
    pub uri: String,
    /// `immutable`, `always`, or a maximum age such as `60s`.
    pub freshness: String,
    /// Whether writes are refused.
    pub read_only: bool,
    /// When what is written reaches the storage: `through`, `back`, `local` or `read-only`.
    pub write_mode: String,
    /// The same, where it is another below a path of the mount.
    pub write_modes: BTreeMap<String, String>,
    /// Requests to the storage since the daemon started.
    pub requests: Requests,
    /// How its requests for data stand.
    pub flow: Flow,
    /// Bytes of data a second that it is held to.
    pub bandwidth_bytes: Option<u64>,
    /// Options of the storage; none of them is a secret.
    pub options: BTreeMap<String, String>,
    /// References to secrets, by option; `*` is for all options.
    pub credentials: BTreeMap<String, String>,
    /// Owner of what has none in the storage.
    pub uid: u32,
    /// Group of what has none in the storage.
    pub gid: u32,
    /// Who the owners that the storage tells are here, as rules.
    pub idmap: String,
    /// Mode of files that have none in the storage, in octal.
    pub file_mode: String,
    /// Mode of directories that have none in the storage, in octal.
    pub dir_mode: String,
    /// `start` when it came with the command line or the configuration file, `live` when it was
    /// added to the running daemon, now or before an earlier end of it.
    pub source: String,
    /// Why the storage last failed, unless it has answered since.
    pub fault: Option<String>,
}

/// The body of `POST /v1/mounts`: hang one more storage into the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddMount {
    /// Path in the tree; `/` is the mount point itself.
    pub at: String,
    /// Location of the storage.
    pub uri: String,
    /// What is to be other than by default.
    #[serde(flatten)]
    pub change: MountChange,
}

/// The body of `POST /v1/mounts/update`: describe a mount in another way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpdateMount {
    /// Path in the tree.
    pub at: String,
    /// What is to be other than it is.
    #[serde(flatten)]
    pub change: MountChange,
}

/// What is to be other than it is, or than by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MountChange {
    /// Options of the storage; an empty text takes an option away.
    pub options: BTreeMap<String, String>,
    /// References to secrets (`env:NAME`, `file:/path`) by option; `*` is for all options. None
    /// leaves them as they are, an empty one goes back to the storage's own chain.
    pub credentials: Option<BTreeMap<String, String>>,
    /// `immutable`, `always`, or a maximum age such as `60s`.
    pub freshness: Option<String>,
    /// Whether writes are refused.
    pub read_only: Option<bool>,
    /// `through`, `back`, `local` or `read-only`.
    pub write_mode: Option<String>,
    /// The same for paths below the mount, such as `/scratch`; an empty text takes one away.
    pub write_modes: BTreeMap<String, String>,
    /// Bytes of data a second that it is held to; 0 takes the cap off.
    pub bandwidth_bytes: Option<u64>,
    /// Owner of what has none in the storage.
    pub uid: Option<u32>,
    /// Group of what has none in the storage.
    pub gid: Option<u32>,
    /// Mode of files that have none in the storage, as a number.
    pub file_mode: Option<u32>,
    /// Mode of directories that have none in the storage, as a number.
    pub dir_mode: Option<u32>,
    /// Who the owners that the storage tells are here, as rules; an empty text takes them away.
    pub idmap: Option<String>,
    /// Do it even when the storage does not answer.
    pub no_check: bool,
}

/// The body of `POST /v1/mounts/remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveMount {
    /// Path in the tree.
    pub at: String,
    /// For how long to wait first until the storage has all that was written.
    #[serde(default)]
    pub wait_seconds: Option<u64>,
    /// Removes it also when the storage does not have all that was written: the rest waits on the
    /// local disk until it is mounted again.
    #[serde(default)]
    pub force: bool,
}

/// The answer to `GET /v1/mounts`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MountList {
    /// Where the tree hangs.
    pub mount_point: String,
    /// What is mounted where in it.
    pub mounts: Vec<Mount>,
}

/// The answer to a change of the mounts: it is done.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MountChanged {
    /// The mount as it is now, or as it was before it was removed.
    pub mount: Mount,
    /// Things to know that are no faults.
    pub notices: Vec<String>,
}

/// The body of `POST /v1/sync`: look at a path of the tree anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sync {
    /// Path in the tree of a file or a directory; `/` is everything.
    pub path: String,
    /// For how long to wait first until the storages have all that was written, in the whole tree.
    #[serde(default)]
    pub wait_seconds: Option<u64>,
}

/// The answer to a sync: what changed in the storages before it is seen now, where none failed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Synced {
    /// The places in storages that the path stands for: its own, and mounts below it.
    pub places: Vec<SyncedPlace>,
    /// Things to know that are no faults.
    pub notices: Vec<String>,
}

/// A place in one storage that was synced, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SyncedPlace {
    /// Path in the tree.
    pub path: String,
    /// Location of the storage, without secrets.
    pub uri: String,
    /// `directory`, `file`, or `absent` for what there was before; none after a failure.
    pub found: Option<String>,
    /// Names in a directory.
    pub names: Option<u64>,
    /// Why the storage could not be asked; what was known of it is known still.
    pub error: Option<String>,
}

/// The body of `POST /v1/load`: bring a path of the tree into the cache. The answer is a [`Job`],
/// which goes on whoever watches it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Load {
    /// Path in the tree of a file or a directory; `/` is everything.
    pub path: String,
    /// Only these paths in the tree, which lie at `path` or below; none for all.
    pub only: Option<Vec<String>>,
    /// Learn the names, and fetch no bytes.
    pub metadata_only: bool,
    /// Compare what is cached with its checksums before it counts.
    pub verify: bool,
    /// The most bytes to fetch in a second.
    pub bandwidth_bytes: Option<u64>,
    /// Patterns of which a file must match one; none for all files.
    pub include: Vec<String>,
    /// Patterns of which a file must match none.
    pub exclude: Vec<String>,
    /// On how many nodes each file is to be cached. Reserved: a node by itself has one copy.
    pub replicas: Option<u16>,
}

/// The body of `POST /v1/jobs/stop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopJob {
    /// Path in the tree of the load.
    pub path: String,
}

/// The answer to `GET /v1/jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct JobList {
    /// Where the tree hangs.
    pub mount_point: String,
    /// Those that run, and the latest that ended.
    pub jobs: Vec<Job>,
}

/// A load, while it runs and after.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Job {
    /// Tells it from all others of this daemon.
    pub id: u64,
    /// Path in the tree.
    pub path: String,
    /// `running`, `complete` (everything that the storage lists is cached), `incomplete`, or
    /// `stopped`.
    pub state: String,
    /// What a running one is at: `fetching`, `counting` what is cached, or `verifying` it.
    pub step: String,
    /// Whether it fetches no bytes.
    pub metadata_only: bool,
    /// Whether what is cached is compared with its checksums before it counts.
    pub verify: bool,
    /// Whether it ran already when it was asked for.
    pub joined: bool,
    /// How long it has run, or ran, in this daemon.
    pub elapsed_seconds: u64,
    /// Directories listed.
    pub directories: u64,
    /// Files found that are meant.
    pub found_files: u64,
    /// Their bytes.
    pub found_bytes: u64,
    /// Whether all directories were listed, so that no more will be found.
    pub is_listed: bool,
    /// Files of them that are cached whole.
    pub cached_files: u64,
    /// Bytes of them that are cached.
    pub cached_bytes: u64,
    /// Bytes that it fetched.
    pub fetched_bytes: u64,
    /// Files that could not be fetched so far.
    pub failed_files: u64,
    /// Files and directories that are not loaded, when it has ended.
    pub missing_count: u64,
    /// The first of them.
    pub missing: Vec<MissingFile>,
    /// Why it stopped fetching before everything was tried.
    pub halt: Option<String>,
}

/// A file or directory that a load did not bring into the cache.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MissingFile {
    /// Path in the tree.
    pub path: String,
    /// Why.
    pub why: String,
}

/// The body of `POST /v1/free`, `/v1/pin` and `/v1/unpin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OfPath {
    /// Path in the tree of a file or a directory; `/` is everything.
    pub path: String,
}

/// The body of `POST /v1/usage`, and the query of `GET /v1/usage`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measure {
    /// Path in the tree of a file or a directory; `/` is everything.
    pub path: String,
    /// Tell it name by name too.
    #[serde(default)]
    pub names: bool,
}

/// The answer to `POST /v1/free`: what was dropped from the cache.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Freed {
    /// Path in the tree.
    pub path: String,
    /// Files of which anything was cached.
    pub files: u64,
    /// Bytes that were.
    pub bytes: u64,
    /// Bytes that are pinned, and stay.
    pub pinned_bytes: u64,
}

/// The answer to `POST` and `GET /v1/usage`: what there is, and what of it is cached.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Usage {
    /// Path in the tree.
    pub path: String,
    /// Files that the storages list.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of them that are cached whole.
    pub cached_files: u64,
    /// Bytes of them that are cached.
    pub cached_bytes: u64,
    /// Those of them that are pinned.
    pub pinned_bytes: u64,
    /// The same by mount, where there are several at the path or below.
    pub mounts: Vec<UsageOfName>,
    /// The same by name in the directory, the largest first, where that was asked for.
    pub names: Vec<UsageOfName>,
    /// What the names have that are too many to be listed.
    pub other_names: UsageOfName,
    /// What holds for them, when something does.
    pub rule: Option<RuleInForce>,
}

/// The answer to `POST /v1/pin`: what of the path stays from now on. What is cached of it later
/// stays too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Pinned {
    /// Path in the tree.
    pub path: String,
    /// Files that the storages list.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of them of which anything is cached.
    pub pinned_files: u64,
    /// Bytes of them that are cached.
    pub pinned_bytes: u64,
    /// Files that are cached and may be evicted, because pins take no more of the cache.
    pub refused_files: u64,
}

/// The answer to `POST /v1/unpin`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Unpinned {
    /// Path in the tree.
    pub path: String,
    /// Files that may be evicted from now on.
    pub files: u64,
}

/// The body of `POST /v1/check`: compare what is cached of a path with its storages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Path in the tree of a file or a directory; `/` is everything.
    pub path: String,
    /// Read all that is cached from the storages once more, and compare the bytes.
    #[serde(default)]
    pub bytes: bool,
    /// Drop from the cache what is not as in the storages.
    #[serde(default)]
    pub drop: bool,
}

/// The answer to `POST /v1/check`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Checked {
    /// Path in the tree.
    pub path: String,
    /// Directories listed.
    pub directories: u64,
    /// Files that the storages list.
    pub files: u64,
    /// Files of them of whose current version anything is cached.
    pub cached_files: u64,
    /// Bytes of those that are cached.
    pub cached_bytes: u64,
    /// Bytes that were compared with those of the storages.
    pub compared_bytes: u64,
    /// Files of which another version is cached than the storage has.
    pub stale_files: u64,
    /// Files that are cached and not in the storage any more.
    pub gone_files: u64,
    /// Files whose cached bytes are not those of the storage.
    pub different_files: u64,
    /// Files and directories that could not be checked.
    pub unknown: u64,
    /// Object versions dropped from the cache.
    pub dropped: u64,
    /// The first of what is not well: paths in the tree, and what is wrong.
    pub findings: Vec<MissingFile>,
}

/// The body of `POST /v1/scrub`: compare all that is cached with its checksums.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scrub {
    /// The most bytes to read in a second, on average.
    pub bandwidth_bytes: Option<u64>,
}

/// A scrub: the answer to `POST /v1/scrub`, and in a status how far one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Scrubbed {
    /// Object versions looked at.
    pub objects: u64,
    /// Pages compared.
    pub pages: u64,
    /// Pages that are cached, as of the status.
    pub cached_pages: u64,
    /// Bytes compared.
    pub bytes: u64,
    /// Pages that failed and were dropped.
    pub bad_pages: u64,
    /// Object versions of which a page failed.
    pub bad_objects: u64,
    /// Object versions whose file was gone or of another length; they are forgotten.
    pub lost_objects: u64,
    /// Seconds it took so far.
    pub elapsed_seconds: u64,
}

/// A tree of small files that is fetched ahead of its readers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TreeAhead {
    /// Path in the tree.
    pub path: String,
    /// Files found so far.
    pub found_files: u64,
    /// Those of them that are cached.
    pub cached_files: u64,
}

/// Requests for data of a mount: how many may be under way, how many are, and who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Flow {
    /// How many may be under way now.
    pub width: u64,
    /// How many are.
    pub under_way: u64,
    /// Requests that wait for their turn, and that readers wait for.
    pub waiting_demand: u64,
    /// Those ahead of readers.
    pub waiting_ahead: u64,
    /// Those of files around what is read.
    pub waiting_neighbours: u64,
    /// Those of loads.
    pub waiting_loads: u64,
    /// How often more were tried and kept, because more bytes came.
    pub grown: u64,
    /// How often a trial was taken back.
    pub taken_back: u64,
    /// How often the number was halved, because the storage asked to slow down or did not answer.
    pub halved: u64,
    /// How often fewer were tried and kept, because requests took long and it cost nothing.
    pub shrunk: u64,
    /// Requests sent a second time, because their answer was late.
    pub hedged: u64,
    /// Those of them whose second answer came first.
    pub hedges_won: u64,
    /// Late ones that were not sent again, because enough had been or all turns were taken.
    pub hedges_refused: u64,
    /// How long a cap of the bandwidth held requests back, together.
    pub held_back_microseconds: u64,
}

/// Requests to a storage, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Requests {
    /// Listings.
    pub list: u64,
    /// Questions about one object.
    pub head: u64,
    /// Reads.
    pub get: u64,
    /// Writes, of whole objects or of parts.
    pub put: u64,
    /// Copies inside the storage and changes of name.
    pub copy: u64,
    /// Removals.
    pub delete: u64,
    /// Beginnings and ends of uploads in parts.
    pub upload: u64,
    /// All else.
    pub other: u64,
    /// Requests that failed for good.
    pub errors: u64,
    /// Requests that were sent again.
    pub retries: u64,
    /// Answers that asked to slow down.
    pub throttled: u64,
    /// Requests that were given up because nothing came for long.
    pub unanswered: u64,
    /// Bytes of objects that came over the wire.
    pub bytes_read: u64,
    /// Bytes of objects that went over the wire.
    pub bytes_written: u64,
}

impl Requests {
    /// Returns all of them, whatever their kind.
    pub fn sum(&self) -> u64 {
        let Requests {
            list,
            head,
            get,
            put,
            copy,
            delete,
            upload,
            other,
            ..
        } = self;
        list + head + get + put + copy + delete + upload + other
    }
}

/// The local cache.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Cache {
    /// Its directory.
    pub dir: String,
    /// Bytes it may use.
    pub capacity_bytes: u64,
    /// Bytes it uses.
    pub used_bytes: u64,
    /// Bytes that it may still use.
    pub free_bytes: u64,
    /// Object versions it holds, whole or in part.
    pub objects: u64,
    /// Pages it holds.
    pub pages: u64,
    /// Object versions that are pinned.
    pub pinned_objects: u64,
    /// Bytes that they take when they are whole.
    pub pinned_bytes: u64,
    /// Opens and reads that needed no request.
    pub hits: u64,
    /// Opens and reads that waited for the storage.
    pub misses: u64,
    /// Bytes given to readers; a file that is handed to the kernel counts whole at its open.
    pub served_bytes: u64,
    /// Bytes of data fetched from the storages, also ahead of readers.
    pub fetched_bytes: u64,
    /// The share of the bytes given to readers that had not to be fetched since the daemon
    /// started; none before the first read.
    pub hit_ratio: Option<f64>,
    /// Pages written into it.
    pub fills: u64,
    /// Objects thrown out to make room.
    pub evictions: u64,
    /// Objects dropped because their time was over.
    pub expired: u64,
    /// Pages that failed their checksum; they were not served.
    pub corrupt_pages: u64,
    /// Why its directory is no longer used, if it is not.
    pub retired: Option<String>,
}

/// Memory of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Memory {
    /// Resident bytes.
    pub used_bytes: u64,
    /// Bytes it may use.
    pub budget_bytes: u64,
    /// Bytes of data that are on their way or held for readers, a part of what is resident.
    pub data_bytes: u64,
    /// Bytes that those may take.
    pub data_budget_bytes: u64,
}

/// How the kernel is served.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Kernel {
    /// How requests come in: `io_uring` or `/dev/fuse`.
    pub transport: String,
    /// Why they do not come over io_uring, if so.
    pub without_rings: Option<String>,
    /// Whether the kernel may read complete cache files itself.
    pub passthrough: Passthrough,
    /// Files that are open now, by how they are served.
    pub open_files: OpenFiles,
    /// Inodes that the kernel holds on to.
    pub inodes: u64,
    /// Requests of the kernel, by kind.
    pub requests: BTreeMap<String, u64>,
    /// Requests that waited for a storage or a disk.
    pub waits: u64,
    /// Microseconds that those waited together.
    pub waited_micros: u64,
    /// Requests that were denied: EACCES, EPERM, EROFS. The log tells who was denied what.
    pub denied: u64,
    /// The latest requests that waited for half a second or longer, oldest first.
    pub slow: Vec<SlowRequest>,
}

/// Whether the kernel may read complete cache files itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Passthrough {
    /// It may.
    pub available: bool,
    /// Why it may not.
    pub reason: Option<String>,
}

/// Files that are open now, by how they are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OpenFiles {
    /// By the kernel, from the cache file.
    pub passthrough: u64,
    /// By the daemon, with the kernel's page cache above.
    pub cached: u64,
    /// By the daemon, without the kernel's page cache.
    pub direct: u64,
}

/// Something that was logged.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Event {
    /// Seconds since 1970.
    pub unix_seconds: u64,
    /// `WARN` or `ERROR`.
    pub level: String,
    /// What was logged.
    pub message: String,
}

/// The body of `POST /v1/unmount`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unmount {
    /// Detach at once, whoever still reads.
    #[serde(default)]
    pub force: bool,
    /// How long to wait for readers to close their files.
    #[serde(default = "thirty")]
    pub timeout_seconds: u64,
}

fn thirty() -> u64 {
    30
}

/// The answer to `POST /v1/unmount`: the mount is gone, and the daemon is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Unmounted {
    /// The process that ends; wait for it to know that the cache is closed.
    pub pid: u32,
    /// Files that the storages do not have yet; they are stored at the next start.
    #[serde(default)]
    pub waiting_files: u64,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// What went wrong.
    pub error: Fault,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fault {
    /// A word from the table of [`crate::errors`].
    pub kind: String,
    /// For people.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_of_an_older_daemon_is_still_read() {
        let status: Status = serde_json::from_str(r#"{"pid": 7, "later_field": 1}"#).unwrap();
        assert_eq!(status.pid, 7);
        assert_eq!(status.cache.hit_ratio, None);
    }

    #[test]
    fn an_unmount_request_refuses_words_it_does_not_know() {
        let request: Unmount = serde_json::from_str("{}").unwrap();
        assert_eq!(
            request,
            Unmount {
                force: false,
                timeout_seconds: 30
            }
        );
        assert!(serde_json::from_str::<Unmount>(r#"{"fource": true}"#).is_err());
    }
}
