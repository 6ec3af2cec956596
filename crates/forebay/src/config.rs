// SPDX-License-Identifier: Apache-2.0
//! The configuration file of `forebay serve`: which keys there are and what they mean.
//!
//! Every fault of a file is reported at once, each with its line; an unknown key names the nearest
//! known one. Secrets are references only (`env:NAME`, `file:/path`); that they lead somewhere is
//! checked here, and what they lead to is not kept. `reader` walks the TOML; this file knows the
//! keys; `alluxio` writes such a file from that of another product.

pub(crate) mod alluxio;
mod reader;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use types::{ByteSize, ObjectPath};
use vfs::WriteMode;

use self::reader::{Reader, Section};
use crate::cli::{AdminArgs, TraceArgs};
use crate::credentials::{Credentials, Environment, Resolve, SECRET_OPTIONS};
use crate::owners;
use crate::plan::{self, MEMORY_MIN_BYTES, MountPlan, NodeDefaults};
use crate::values;

/// A file with every key, its meaning and its default.
pub(crate) const EXAMPLE: &str = include_str!("config/example.toml");

/// A file without faults.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    pub(crate) mount_point: PathBuf,
    pub(crate) mounts: Vec<MountPlan>,
    pub(crate) node: NodeDefaults,
    pub(crate) lines: Lines,
}

/// Where things stand in a file, for faults that show only on this machine.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) mount_point: usize,
    pub(crate) cache_dir: usize,
    pub(crate) mounts: Vec<usize>,
}

/// One fault of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault {
    /// Counted from 1; 0 when it is about the file as a whole.
    pub(crate) line: usize,
    pub(crate) message: String,
}

/// All faults of a file.
#[derive(Debug)]
pub(crate) struct Faults {
    file: PathBuf,
    faults: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for fault in &self.faults {
            match fault.line {
                0 => writeln!(f, "{file}: {}", fault.message)?,
                line => writeln!(f, "{file}:{line}: {}", fault.message)?,
            }
        }
        let advice = "'forebay config example' prints a file with every key";
        write!(f, "{} fault(s); {advice}", self.faults.len())
    }
}

impl std::error::Error for Faults {}

impl Faults {
    /// Makes the faults of a file, in the order of its lines.
    pub(crate) fn new(file: &Path, mut faults: Vec<Fault>) -> Faults {
        faults.sort();
        Faults {
            file: file.to_owned(),
            faults,
        }
    }

    /// Makes faults that are about the file as a whole.
    pub(crate) fn of_file(file: &Path, messages: Vec<String>) -> Faults {
        let faults = messages
            .into_iter()
            .map(|message| Fault { line: 0, message })
            .collect();
        Faults {
            file: file.to_owned(),
            faults,
        }
    }
}

/// Reads a file, with all its faults if it has any.
pub(crate) fn load(path: &Path) -> Result<ConfigFile, Faults> {
    match examine(path)? {
        (Some(file), faults) if faults.is_empty() => Ok(file),
        (_, faults) => Err(Faults::new(path, faults)),
    }
}

/// Reads as much of a file as can be understood, with the faults of the rest.
pub(crate) fn examine(path: &Path) -> Result<(Option<ConfigFile>, Vec<Fault>), Faults> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Faults::of_file(path, vec![format!("cannot be read: {error}")]))?;
    Ok(read_text(&text, &Environment))
}

fn read_text(text: &str, resolve: &dyn Resolve) -> (Option<ConfigFile>, Vec<Fault>) {
    let mut reader = Reader::default();
    let file = reader.document(text, |reader, root| read_root(reader, root, resolve));
    (file, reader.into_faults())
}

#[cfg(test)]
fn parse(text: &str, resolve: &dyn Resolve) -> Result<ConfigFile, Vec<Fault>> {
    match read_text(text, resolve) {
        (Some(file), faults) if faults.is_empty() => Ok(file),
        (_, mut faults) => {
            faults.sort();
            Err(faults)
        }
    }
}

/// What may stand outside of all sections.
const ROOT_KEYS: &[&str] = &[
    "mount_point",
    "memory",
    "max_inodes",
    "deadline",
    "threads",
    "log",
    "log_level",
    "log_format",
    "allow_other",
    "passthrough",
    "spare_opens",
    "transport",
    "neighbours",
    "requests",
    "hedging",
    "state_dir",
    "metrics_listen",
    "virtual_files",
    "admin_listen",
    "admin_token_file",
    "admin_certificate",
    "admin_key",
    "traces",
    "traces_ratio",
    "cache",
    "mount",
];

fn read_node(reader: &mut Reader, root: &Section<'_>) -> NodeDefaults {
    NodeDefaults {
        memory: reader.parsed(root, "memory", memory),
        max_inodes: reader
            .integer(root, "max_inodes", 1000..=i64::from(u32::MAX))
            .and_then(|count| count.try_into().ok()),
        deadline: reader.parsed(root, "deadline", deadline),
        threads: reader
            .integer(root, "threads", 1..=256)
            .and_then(|count| count.try_into().ok()),
        log: reader.parsed(root, "log", absolute_path),
        log_level: reader.parsed(root, "log_level", log_level),
        log_format: reader.parsed(root, "log_format", values::log_format),
        allow_other: reader.boolean(root, "allow_other"),
        passthrough: reader.boolean(root, "passthrough"),
        spare_opens: reader.boolean(root, "spare_opens"),
        transport: reader.parsed(root, "transport", values::transport),
        neighbours: reader.boolean(root, "neighbours"),
        requests: reader.parsed(root, "requests", values::at_a_time),
        hedging: reader.boolean(root, "hedging"),
        state_dir: reader.parsed(root, "state_dir", absolute_path),
        metrics_listen: reader.parsed(root, "metrics_listen", values::address),
        virtual_files: reader.boolean(root, "virtual_files"),
        admin: AdminArgs {
            admin_listen: reader.parsed(root, "admin_listen", values::address),
            admin_token_file: reader.parsed(root, "admin_token_file", absolute_path),
            admin_certificate: reader.parsed(root, "admin_certificate", absolute_path),
            admin_key: reader.parsed(root, "admin_key", absolute_path),
        },
        traces: TraceArgs {
            traces: reader.parsed(root, "traces", values::collector),
            traces_ratio: reader.parsed(root, "traces_ratio", values::part),
        },
        ..NodeDefaults::default()
    }
}

fn read_root(reader: &mut Reader, root: &Section<'_>, resolve: &dyn Resolve) -> ConfigFile {
    reader.check_keys(root, ROOT_KEYS);
    let mount_point = reader.parsed(root, "mount_point", absolute_path);
    if mount_point.is_none() {
        reader.missing(root, "mount_point", "\"/mnt/data\"");
    }
    let mut node = read_node(reader, root);
    let mut lines = Lines {
        mount_point: root.line_of("mount_point").unwrap_or(0),
        ..Lines::default()
    };
    if let Some(cache) = reader.table(root, "cache") {
        reader.check_keys(&cache, &["dir", "size"]);
        node.cache_dir = reader.parsed(&cache, "dir", absolute_path);
        node.cache_size = reader.parsed(&cache, "size", cache_size);
        lines.cache_dir = cache.line_of("dir").unwrap_or(0);
    }
    // None is an empty tree: mounts are added to the running daemon.
    let sections = reader.tables(root, "mount");
    let mut mounts: Vec<MountPlan> = Vec::new();
    let mut places = BTreeSet::new();
    for section in sections {
        let at = reader.parsed(&section, "at", place);
        if let Some(at) = at.as_ref().filter(|at| places.contains(*at)) {
            reader.fault(section.line, format!("two mounts at '/{at}'"));
        }
        mounts.push(read_mount(reader, &section, at.clone(), resolve));
        places.extend(at);
        lines.mounts.push(section.line);
    }
    ConfigFile {
        mount_point: mount_point.unwrap_or_default(),
        mounts,
        node,
        lines,
    }
}

fn read_mount(
    reader: &mut Reader,
    section: &Section<'_>,
    at: Option<String>,
    resolve: &dyn Resolve,
) -> MountPlan {
    const KEYS: &[&str] = &[
        "at",
        "uri",
        "freshness",
        "read_only",
        "write_mode",
        "write_modes",
        "clean_uploads",
        "bandwidth",
        "uid",
        "gid",
        "file_mode",
        "dir_mode",
        "idmap",
        "options",
        "credentials",
    ];
    reader.check_keys(section, KEYS);
    if at.is_none() {
        reader.missing(section, "at", "\"/\"");
    }
    let uri = reader.parsed(section, "uri", uri);
    if uri.is_none() {
        reader.missing(section, "uri", "\"s3://bucket/prefix\"");
    }
    let mut mount = MountPlan::with_defaults(at.unwrap_or_default(), uri.unwrap_or_default());
    let id = 0..=i64::from(u32::MAX - 1);
    let mut small = |key, field: &mut u32| {
        if let Some(Ok(value)) = reader.integer(section, key, id.clone()).map(u32::try_from) {
            *field = value;
        }
    };
    small("uid", &mut mount.uid);
    small("gid", &mut mount.gid);
    if let Some(freshness) = reader.parsed(section, "freshness", values::freshness) {
        mount.freshness = freshness;
    }
    if let Some(mode) = reader.parsed(section, "file_mode", values::mode) {
        mount.file_mode = mode;
    }
    if let Some(mode) = reader.parsed(section, "dir_mode", values::mode) {
        mount.dir_mode = mode;
    }
    let idmap = |text: &str| {
        let idmap = text.parse()?;
        owners::check(&mount.uri, &idmap).map(|()| idmap)
    };
    if let Some(idmap) = reader.parsed(section, "idmap", idmap) {
        mount.idmap = idmap;
    }
    mount.read_only = reader.boolean(section, "read_only").unwrap_or(false);
    mount.bandwidth = reader.parsed(section, "bandwidth", size);
    mount.clean_uploads = reader.boolean(section, "clean_uploads").unwrap_or(false);
    if let Some(mode) = reader.parsed(section, "write_mode", values::write_mode) {
        mount.write_mode = mode;
    }
    mount.write_modes = read_write_modes(reader, section);
    mount.options = read_options(reader, section);
    mount.credentials = read_credentials(reader, section, resolve);
    mount
}

/// Reads paths below a mount and their write modes.
fn read_write_modes(reader: &mut Reader, section: &Section<'_>) -> BTreeMap<String, WriteMode> {
    let mut modes = BTreeMap::new();
    let Some(table) = reader.table(section, "write_modes") else {
        return modes;
    };
    for (path, mode) in reader.scalars(&table) {
        let read =
            values::write_mode_path(&path).and_then(|path| Ok((path, values::write_mode(&mode)?)));
        match read {
            Ok((path, mode)) => drop(modes.insert(path, mode)),
            Err(why) => reader.fault(table.line_of(&path).unwrap_or(table.line), why),
        }
    }
    modes
}

fn read_options(reader: &mut Reader, section: &Section<'_>) -> BTreeMap<String, String> {
    let Some(options) = reader.table(section, "options") else {
        return BTreeMap::new();
    };
    for key in SECRET_OPTIONS {
        if let Some(line) = options.line_of(key) {
            let advice = format!("write it as credentials = {{ {key} = \"env:NAME\" }}");
            reader.fault(line, format!("'{key}' is a secret and no option: {advice}"));
        }
    }
    if let Some(line) = options.line_of(owners::OPTION) {
        let advice = "write it beside the options, as idmap = \"uid:1000=0\"";
        reader.fault(line, format!("'idmap' is no option: {advice}"));
    }
    let scalars = reader.scalars(&options);
    if let Some(endpoint) = scalars.get("endpoint")
        && let Err(error) = plan::check_no_userinfo(endpoint)
    {
        reader.fault(options.line, error.to_string());
    }
    scalars
}

fn read_credentials(
    reader: &mut Reader,
    section: &Section<'_>,
    resolve: &dyn Resolve,
) -> Credentials {
    let mut credentials = Credentials::default();
    let Some(line) = section.line_of("credentials") else {
        return credentials;
    };
    let mut is_sound = true;
    if reader.is_text(section, "credentials") {
        let set = reader.parsed(section, "credentials", |text| credentials.set_whole(text));
        is_sound = set.is_some();
    } else if let Some(table) = reader.table(section, "credentials") {
        reader.check_keys(&table, &SECRET_OPTIONS);
        for option in SECRET_OPTIONS {
            let set = reader.parsed(&table, option, |text| credentials.set(option, text));
            is_sound &= set.is_some() || table.line_of(option).is_none();
        }
    }
    // What leads nowhere is found now, where somebody looks.
    if is_sound && let Err(why) = credentials.resolve(resolve) {
        reader.fault(line, why);
        is_sound = false;
    }
    // What is told here is not told again when the storage is opened.
    match is_sound {
        true => credentials,
        false => Credentials::default(),
    }
}

fn absolute_path(text: &str) -> Result<PathBuf, String> {
    match Path::new(text).is_absolute() {
        true => Ok(text.into()),
        false => Err(format!("'{text}' is not an absolute path")),
    }
}

fn size(text: &str) -> Result<u64, String> {
    text.parse::<ByteSize>()
        .map(|size| size.0)
        .map_err(|error| error.to_string())
}

fn cache_size(text: &str) -> Result<u64, String> {
    let bytes = size(text)?;
    plan::check_cache_size(bytes)?;
    Ok(bytes)
}

fn deadline(text: &str) -> Result<Duration, String> {
    match values::duration(text)? {
        Duration::ZERO => Err("0 lets no operation succeed: give a time such as 60s".to_owned()),
        deadline => Ok(deadline),
    }
}

fn memory(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < MEMORY_MIN_BYTES => Err("is too little: give at least 64MiB".to_owned()),
        bytes => Ok(bytes),
    }
}

fn log_level(text: &str) -> Result<String, String> {
    match crate::logging::check_level(text) {
        Ok(()) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a place in the tree; returns it without slashes at its ends.
pub(crate) fn place(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!(
            "'{text}' must begin with '/', which is the mount point itself"
        ));
    }
    let path = text.trim_matches('/');
    ObjectPath::parse(path.as_bytes())
        .map(|_| path.to_owned())
        .map_err(|error| error.to_string())
}

/// Reads the URI of a storage.
pub(crate) fn uri(text: &str) -> Result<String, String> {
    if !text.contains("://") && !text.starts_with('/') {
        return Err(format!(
            "'{text}' is not s3://bucket/prefix, file:///path or an absolute path"
        ));
    }
    plan::check_no_userinfo(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
