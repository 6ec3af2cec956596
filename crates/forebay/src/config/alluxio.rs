// SPDX-License-Identifier: Apache-2.0
//! Makes a configuration of ours from that of Alluxio, for those who move.
//!
//! Takes an `alluxio-site.properties` and, if there is one, what `alluxio fs mount` prints. Mounts,
//! endpoints, the worker's storage and how long metadata stays true have counterparts; each property
//! that has none becomes a comment. Values of secrets are not written: in their place stand
//! references to environment variables, which the head of the file names.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use anyhow::{Result, bail};

use crate::values;

const ROOT_URI: [&str; 3] = [
    "alluxio.master.mount.table.root.ufs",
    "alluxio.dora.client.ufs.root",
    "alluxio.underfs.address",
];
const ROOT_OPTION: &str = "alluxio.master.mount.table.root.option.";
const ROOT_READ_ONLY: &str = "alluxio.master.mount.table.root.readonly";
/// Directories and their sizes, besides those of the tiers; the first that is set is taken.
const CACHES: [(&str, &str); 2] = [
    (
        "alluxio.worker.page.store.dirs",
        "alluxio.worker.page.store.sizes",
    ),
    (
        "alluxio.user.client.cache.dirs",
        "alluxio.user.client.cache.size",
    ),
];
const TIERS: std::ops::Range<u32> = 0..3;
const MOUNT_POINT: [&str; 2] = [
    "alluxio.fuse.mount.point",
    "alluxio.worker.fuse.mount.point",
];
const FRESHNESS: [&str; 2] = [
    "alluxio.user.file.metadata.sync.interval",
    "alluxio.user.metadata.cache.expiration.time",
];

/// What a storage of ours takes from the properties of one of theirs.
struct Kind {
    /// Schemes of theirs.
    schemes: &'static [&'static str],
    /// Our scheme, where it is another.
    ours: Option<&'static str>,
    /// Begins the names of variables for secrets.
    variable: &'static str,
    /// Our options, and which properties say them; the first that is set holds.
    options: &'static [(&'static str, &'static [&'static str])],
    /// Our options that are secrets. A property that ends in a dot stands for all that begin so.
    secrets: &'static [(&'static str, &'static [&'static str])],
}

/// Storages that there are here too; others are left as a comment.
const KINDS: [Kind; 6] = [
    Kind {
        schemes: &["s3", "s3a", "s3n"],
        ours: Some("s3"),
        variable: "S3",
        options: &[
            ("endpoint", &["alluxio.underfs.s3.endpoint"]),
            (
                "region",
                &[
                    "alluxio.underfs.s3.endpoint.region",
                    "alluxio.underfs.s3.region",
                ],
            ),
            ("path_style", &["alluxio.underfs.s3.disable.dns.buckets"]),
        ],
        secrets: &[
            ("access_key_id", &["s3a.accessKeyId", "aws.accessKeyId"]),
            ("secret_access_key", &["s3a.secretKey", "aws.secretKey"]),
        ],
    },
    Kind {
        schemes: &["oss"],
        ours: Some("s3"),
        variable: "OSS",
        options: &[("endpoint", &["fs.oss.endpoint"])],
        secrets: &[
            ("access_key_id", &["fs.oss.accessKeyId"]),
            ("secret_access_key", &["fs.oss.accessKeySecret"]),
        ],
    },
    Kind {
        schemes: &["gs"],
        ours: None,
        variable: "GCS",
        options: &[("credential_path", &["fs.gcs.credential.path"])],
        secrets: &[],
    },
    Kind {
        schemes: &["abfs", "abfss", "wasb", "wasbs"],
        ours: None,
        variable: "AZURE",
        options: &[],
        secrets: &[("account_key", &["fs.azure.account.key."])],
    },
    Kind {
        schemes: &["hdfs"],
        ours: None,
        variable: "HDFS",
        options: &[
            ("hadoop_conf_dir", &["alluxio.underfs.hdfs.configuration"]),
            (
                "principal",
                &["alluxio.security.underfs.hdfs.kerberos.client.principal"],
            ),
            (
                "keytab",
                &["alluxio.security.underfs.hdfs.kerberos.client.keytab.file"],
            ),
        ],
        secrets: &[],
    },
    Kind {
        schemes: &["file", "http", "https", "webhdfs"],
        ours: None,
        variable: "",
        options: &[],
        secrets: &[],
    },
];

/// A line of the mount table.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    at: String,
    uri: String,
    is_read_only: bool,
    properties: BTreeMap<String, String>,
}

/// The properties, and which of them were understood.
struct Site {
    properties: BTreeMap<String, String>,
    used: BTreeSet<String>,
}

impl Site {
    fn take(&mut self, key: &str) -> Option<String> {
        let value = self.properties.get(key)?.clone();
        self.used.insert(key.to_owned());
        Some(value).filter(|value| !value.is_empty())
    }

    /// Returns the first of these that is set; the others say the same.
    fn first(&mut self, keys: &[&str]) -> Option<String> {
        let values: Vec<_> = keys.iter().filter_map(|key| self.take(key)).collect();
        values.into_iter().next()
    }
}

/// Writes our configuration. `mount_point` is used where the properties name none.
pub(crate) fn convert(properties: &str, listing: &str, mount_point: &Path) -> Result<String> {
    let mut site = Site {
        properties: read_properties(properties),
        used: BTreeSet::new(),
    };
    let mut mounts = read_listing(listing)?;
    match (
        root_of(&mut site),
        mounts.iter_mut().find(|mount| mount.at == "/"),
    ) {
        // The table says where it is; options that it leaves out are in the properties.
        (Some(root), Some(listed)) => {
            for (key, value) in root.properties {
                listed.properties.entry(key).or_insert(value);
            }
        }
        (root, _) => mounts.extend(root),
    }
    let point = site.first(&MOUNT_POINT);
    let point = point.unwrap_or_else(|| mount_point.display().to_string());
    let mut body = format!("mount_point = {}\n", quoted(&point));
    write_cache(&mut body, &mut site);
    let freshness = site.first(&FRESHNESS).and_then(|text| freshness(&text));
    let mut writer = Writer {
        site: &mut site,
        freshness,
        body,
        references: BTreeSet::new(),
    };
    for mount in &mounts {
        writer.mount(mount);
    }
    let Writer {
        body, references, ..
    } = writer;
    let mut text = String::from(
        "# Made from the configuration of Alluxio; check it with 'forebay config check'.\n",
    );
    if !references.is_empty() {
        text.push_str(
            "# Secrets were not taken over: put them into these environment variables first.\n",
        );
    }
    for name in &references {
        line(&mut text, format_args!("#   {name}"));
    }
    text.push_str(&body);
    let left = site
        .properties
        .keys()
        .filter(|key| !site.used.contains(*key));
    let mut left = left.peekable();
    if left.peek().is_some() {
        text.push_str("\n# Properties that have no counterpart here:\n");
    }
    for key in left {
        line(&mut text, format_args!("#   {}", shown(key)));
    }
    Ok(text)
}

/// Writes mounts.
struct Writer<'a> {
    /// What mounts do not say themselves.
    site: &'a mut Site,
    freshness: Option<String>,
    body: String,
    references: BTreeSet<String>,
}

impl Writer<'_> {
    fn mount(&mut self, mount: &Mount) {
        let (scheme, place) = mount.uri.split_once("://").unwrap_or(("file", ""));
        self.body.push('\n');
        let Some(kind) = KINDS.iter().find(|kind| kind.schemes.contains(&scheme)) else {
            let (uri, at) = (shown(&mount.uri), shown(&mount.at));
            let text = format_args!("# No storage of this kind here: {uri} on {at}");
            return line(&mut self.body, text);
        };
        let uri = match kind.ours {
            Some(ours) => format!("{ours}://{place}"),
            None => mount.uri.clone(),
        };
        self.body.push_str("[[mount]]\n");
        line(&mut self.body, format_args!("at = {}", quoted(&mount.at)));
        line(&mut self.body, format_args!("uri = {}", quoted(&uri)));
        if let Some(freshness) = &self.freshness {
            let text = quoted(freshness);
            line(&mut self.body, format_args!("freshness = {text}"));
        }
        let is_read_only = mount.is_read_only;
        line(&mut self.body, format_args!("read_only = {is_read_only}"));
        let mut own = mount.properties.clone();
        self.options(kind, &mut own);
        self.credentials(kind, &mount.at, &mut own);
        for key in own.keys() {
            let text = format_args!("# no counterpart: {}", shown(key));
            line(&mut self.body, text);
        }
    }

    fn options(&mut self, kind: &Kind, own: &mut BTreeMap<String, String>) {
        let mut options = Vec::new();
        for (option, keys) in kind.options {
            let values: Vec<_> = keys.iter().filter_map(|key| own.remove(*key)).collect();
            let value = values.into_iter().find(|value| !value.is_empty());
            // All are read, so that none is left over.
            let global = self.site.first(keys);
            if let Some(value) = value.or(global) {
                let value = quoted(&value_of(option, kind, &value));
                options.push(format!("{option} = {value}"));
            }
        }
        if kind.variable == "OSS" {
            // It takes no bucket in the path.
            options.push("path_style = \"false\"".to_owned());
        }
        if !options.is_empty() {
            let options = options.join(", ");
            line(&mut self.body, format_args!("options = {{ {options} }}"));
        }
    }

    /// Writes references in the place of secrets.
    fn credentials(&mut self, kind: &Kind, at: &str, own: &mut BTreeMap<String, String>) {
        let fits =
            |key: &str, known: &str| key == known || known.ends_with('.') && key.starts_with(known);
        let (mut has_own, mut has_any) = (false, false);
        for known in kind.secrets.iter().flat_map(|(_, keys)| *keys) {
            let before = own.len();
            own.retain(|key, _| !fits(key, known));
            has_own |= own.len() < before;
            let keys = self.site.properties.keys().filter(|key| fits(key, known));
            let global: Vec<_> = keys.cloned().collect();
            has_any |= has_own || !global.is_empty();
            self.site.used.extend(global);
        }
        if !has_any {
            return;
        }
        let prefix = variable_prefix(kind.variable, if has_own { at } else { "/" });
        let pairs = kind.secrets.iter().map(|(option, _)| {
            let name = format!("{prefix}_{}", option.to_ascii_uppercase());
            let pair = format!("{option} = \"env:{name}\"");
            self.references.insert(name);
            pair
        });
        let pairs: Vec<_> = pairs.collect();
        let pairs = pairs.join(", ");
        line(&mut self.body, format_args!("credentials = {{ {pairs} }}"));
    }
}

/// Words a value as our option takes it.
fn value_of(option: &str, kind: &Kind, value: &str) -> String {
    match option {
        // A list of files; ours is the directory that they are in.
        "hadoop_conf_dir" => {
            let file = value.split([':', ',']).next().unwrap_or(value);
            let dir = Path::new(file).parent().unwrap_or(Path::new("/"));
            dir.display().to_string()
        }
        // Its own interface has another address than the one that speaks S3.
        "endpoint" if kind.variable == "OSS" => {
            let host = value.split_once("://").map_or(value, |(_, host)| host);
            match host.strip_prefix("oss-") {
                Some(_) => format!("https://s3.{host}"),
                None => format!("https://{host}"),
            }
        }
        _ => value.to_owned(),
    }
}

fn root_of(site: &mut Site) -> Option<Mount> {
    let uri = site.first(&ROOT_URI);
    let is_read_only = site.take(ROOT_READ_ONLY).is_some_and(|text| text == "true");
    let keys: Vec<_> = site.properties.keys().cloned().collect();
    let mut properties = BTreeMap::new();
    for key in keys {
        if let Some(option) = key.strip_prefix(ROOT_OPTION) {
            properties.insert(option.to_owned(), site.take(&key).unwrap_or_default());
        }
    }
    Some(Mount {
        at: "/".to_owned(),
        uri: uri?,
        is_read_only,
        properties,
    })
}

/// A directory that they cache in, and how much.
struct CacheDir {
    path: String,
    size: Option<String>,
    is_memory: bool,
}

fn cache_dirs(site: &mut Site) -> Vec<CacheDir> {
    let mut dirs = Vec::new();
    let mut take = |site: &mut Site, paths: &str, sizes: &str, is_memory| {
        let (paths, sizes) = (site.take(paths), site.take(sizes).unwrap_or_default());
        let mut sizes = sizes.split(',').map(size_of);
        for path in paths
            .iter()
            .flat_map(|paths| paths.split(','))
            .map(str::trim)
        {
            dirs.push(CacheDir {
                path: path.to_owned(),
                size: sizes.next().flatten(),
                is_memory,
            });
        }
    };
    let [worker, client] = CACHES;
    take(site, worker.0, worker.1, false);
    for tier in TIERS {
        let key = |name: &str| format!("alluxio.worker.tieredstore.level{tier}.{name}");
        let alias = site.take(&key("alias"));
        let medium = site.take(&key("dirs.mediumtype"));
        let is_memory = alias
            .iter()
            .chain(&medium)
            .any(|kind| kind.starts_with("MEM"));
        take(site, &key("dirs.path"), &key("dirs.quota"), is_memory);
    }
    take(site, client.0, client.1, false);
    dirs
}

/// One directory is one cache here; the others are told.
fn write_cache(out: &mut String, site: &mut Site) {
    let dirs = cache_dirs(site);
    let chosen = dirs.iter().position(|dir| !dir.is_memory);
    if !dirs.is_empty() {
        out.push_str("\n[cache]\n");
    }
    if let Some(dir) = chosen.map(|index| &dirs[index]) {
        // Not the same directory: what lies in there is of no use to us.
        let path = format!("{}/forebay", dir.path.trim_end_matches('/'));
        line(out, format_args!("dir = {}", quoted(&path)));
        if let Some(size) = &dir.size {
            line(out, format_args!("size = {}", quoted(size)));
        }
    }
    for (index, dir) in dirs.iter().enumerate() {
        if Some(index) == chosen {
            continue;
        }
        let size = dir.size.as_deref().unwrap_or("no size");
        let why = match dir.is_memory {
            true => "memory is not cached in: the kernel's page cache is above the disk",
            false => "a cache is one directory; left out",
        };
        line(out, format_args!("# {why}: {} ({size})", shown(&dir.path)));
    }
}

/// Reads Java's format of properties.
fn read_properties(text: &str) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut joined = String::new();
    for line in text.lines().map(str::trim) {
        if joined.is_empty() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(begun) => joined.push_str(begun),
            None => {
                joined.push_str(line);
                let (key, value) = joined.split_once(['=', ':']).unwrap_or((&joined, ""));
                properties.insert(key.trim().to_owned(), value.trim().to_owned());
                joined.clear();
            }
        }
    }
    properties
}

/// Reads lines such as `s3://b/p on /mnt/s3 (s3, capacity=-1B, read-only, properties={k=v, k=v})`.
fn read_listing(text: &str) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let parts = line.split_once(" on ");
        let parts = parts.and_then(|(uri, rest)| Some((uri, rest.split_once('(')?)));
        let Some((uri, (at, about))) = parts else {
            bail!(
                "line {} of the listing is not 'URI on PATH (...)'",
                index + 1
            );
        };
        let about = about.trim_end().trim_end_matches(')');
        let (about, inner) = about.split_once("properties={").unwrap_or((about, ""));
        let inner = inner.trim_end_matches('}').split(", ");
        let pairs = inner.filter_map(|pair| pair.split_once('='));
        let pairs = pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
        mounts.push(Mount {
            at: at.trim().to_owned(),
            uri: uri.trim().to_owned(),
            is_read_only: about.split(',').any(|word| word.trim() == "read-only"),
            properties: pairs.collect(),
        });
    }
    Ok(mounts)
}

/// Its units are powers of 1,024, whatever their names.
fn size_of(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => "B",
        "k" | "kb" => "KiB",
        "m" | "mb" => "MiB",
        "g" | "gb" => "GiB",
        "t" | "tb" => "TiB",
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

/// Its -1 is never, and its 0 each time.
fn freshness(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase().replace(' ', "");
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "" | "ms" | "millisecond" => "ms",
        "s" | "sec" | "second" => "s",
        "m" | "min" | "minute" => "m",
        "h" | "hr" | "hour" => "h",
        "d" | "day" => "d",
        _ => return None,
    };
    if number.starts_with('-') {
        return Some("immutable".to_owned());
    }
    let found = values::freshness(&format!("{number}{unit}")).ok()?;
    Some(values::show_freshness(found))
}

fn variable_prefix(kind: &str, at: &str) -> String {
    let name = at.trim_matches('/');
    if name.is_empty() {
        return format!("ALLUXIO_{kind}");
    }
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    format!("{kind}_{}", name.chars().map(letter).collect::<String>())
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A comment must stay one line.
fn shown(text: &str) -> impl std::fmt::Display + '_ {
    text.escape_debug()
}

fn line(out: &mut String, words: std::fmt::Arguments<'_>) {
    writeln!(out, "{words}").expect("a String takes all that is written to it");
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: &str = "# site\nalluxio.master.hostname=m1\n\
        alluxio.master.mount.table.root.ufs=s3a://lake/root\n\
        alluxio.master.mount.table.root.option.alluxio.underfs.s3.region=eu-2\n\
        s3a.accessKeyId=AKIAHUNTER2\ns3a.secretKey = hunter2\n\
        alluxio.underfs.s3.endpoint=http://h:9000\nalluxio.underfs.s3.region=eu-1\n\
        alluxio.underfs.s3.disable.dns.buckets=true\n\
        alluxio.worker.tieredstore.level0.dirs.path=/ssd0,\\\n  /ssd1\n\
        alluxio.worker.tieredstore.level0.dirs.quota=100GB,200GB\n\
        alluxio.user.file.metadata.sync.interval=5min\n\
        alluxio.worker.tieredstore.level1.dirs.path=/hdd\n\
        alluxio.underfs.hdfs.configuration=/etc/hadoop/core-site.xml:/etc/hadoop/hdfs-site.xml\n\
        fs.azure.account.key.a.blob.core.windows.net=hunter8\n\
        alluxio.security.login.impersonation.token=hunter3\n";
    const LISTING: &str = "s3://b/p  on  /mnt/s3 (s3, capacity=-1B, used=-1B, read-only, not shared, \
        properties={s3a.accessKeyId=hunter4, s3a.secretKey=hunter5, x.y=1})\n\
        hdfs://nn:8020/data on /hdfs (hdfs, capacity=1B, not read-only, not shared, properties={})\n\
        oss://c/ on /oss (oss, read-only, properties={fs.oss.endpoint=oss-eu-1.aliyuncs.com, \
        fs.oss.accessKeyId=hunter6, fs.oss.accessKeySecret=hunter7})\n\
        gs://g/ on /gs (gcs, read-only, properties={fs.gcs.credential.path=/etc/gcs.json})\n\
        wasb://c@a.blob.core.windows.net/ on /wasb (wasb, properties={})\n\
        swift://c/ on /swift (swift, read-only, properties={})\n";

    #[test]
    fn what_has_a_counterpart_is_taken_over_and_the_rest_is_named() {
        let text = convert(SITE, LISTING, Path::new("/mnt/data")).unwrap();
        assert!(
            !text.to_lowercase().contains("hunter"),
            "a secret was written:\n{text}"
        );
        let file: toml::Table = text.parse().unwrap();
        assert_eq!(file["mount_point"].as_str(), Some("/mnt/data"));
        assert_eq!(file["cache"]["dir"].as_str(), Some("/ssd0/forebay"));
        assert_eq!(file["cache"]["size"].as_str(), Some("100GiB"));
        let mounts = file["mount"].as_array().unwrap();
        let places: Vec<_> = mounts
            .iter()
            .map(|mount| mount["at"].as_str().unwrap())
            .collect();
        assert_eq!(places, ["/mnt/s3", "/hdfs", "/oss", "/gs", "/wasb", "/"]);
        let (own, hdfs, root) = (&mounts[0], &mounts[1], &mounts[5]);
        assert_eq!(
            own["credentials"]["access_key_id"].as_str(),
            Some("env:S3_MNT_S3_ACCESS_KEY_ID")
        );
        assert_eq!(own["options"]["region"].as_str(), Some("eu-1"));
        assert_eq!(own["read_only"].as_bool(), Some(true));
        assert_eq!(hdfs["uri"].as_str(), Some("hdfs://nn:8020/data"));
        assert_eq!(
            hdfs["options"]["hadoop_conf_dir"].as_str(),
            Some("/etc/hadoop")
        );
        assert!(hdfs.get("credentials").is_none());
        let (oss, gs, wasb) = (&mounts[2], &mounts[3], &mounts[4]);
        assert_eq!(oss["uri"].as_str(), Some("s3://c/"));
        let endpoint = oss["options"]["endpoint"].as_str();
        assert_eq!(endpoint, Some("https://s3.oss-eu-1.aliyuncs.com"));
        let secret = oss["credentials"]["secret_access_key"].as_str();
        assert_eq!(secret, Some("env:OSS_OSS_SECRET_ACCESS_KEY"));
        let path = gs["options"]["credential_path"].as_str();
        assert_eq!(path, Some("/etc/gcs.json"));
        let key = wasb["credentials"]["account_key"].as_str();
        assert_eq!(key, Some("env:ALLUXIO_AZURE_ACCOUNT_KEY"));
        assert_eq!(root["uri"].as_str(), Some("s3://lake/root"));
        assert_eq!(
            root["options"]["region"].as_str(),
            Some("eu-2"),
            "its own wins"
        );
        assert_eq!(root["options"]["endpoint"].as_str(), Some("http://h:9000"));
        assert_eq!(root["options"]["path_style"].as_str(), Some("true"));
        assert_eq!(root["freshness"].as_str(), Some("5m"));
        let secret = "env:ALLUXIO_S3_SECRET_ACCESS_KEY";
        assert_eq!(
            root["credentials"]["secret_access_key"].as_str(),
            Some(secret)
        );
        for part in [
            "#   alluxio.master.hostname",
            "# no counterpart: x.y",
            "swift://c/",
            "left out: /ssd1 (200GiB)",
            "left out: /hdd (no size)",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
    }

    #[test]
    fn what_the_table_leaves_out_of_the_root_is_taken_from_the_properties() {
        let site = "alluxio.master.mount.table.root.ufs=s3://old/\n\
            alluxio.master.mount.table.root.option.s3a.accessKeyId=AKIAHUNTER2\n\
            alluxio.master.mount.table.root.option.s3a.secretKey=hunter2\n";
        let listing = "s3://lake/root on / (s3, not read-only, not shared, properties={})\n";
        let text = convert(site, listing, Path::new("/mnt/data")).unwrap();
        for line in [
            "uri = \"s3://lake/root\"",
            "credentials = { access_key_id = \"env:ALLUXIO_S3_ACCESS_KEY_ID\", \
             secret_access_key = \"env:ALLUXIO_S3_SECRET_ACCESS_KEY\" }",
        ] {
            assert!(text.contains(line), "no {line} in:\n{text}");
        }
        assert_eq!(text.matches("[[mount]]").count(), 1, "{text}");
        assert!(!text.contains("old") && !text.contains("hunter"), "{text}");
    }

    #[test]
    fn times_and_sizes_are_read_as_alluxio_means_them() {
        for (text, ours) in [
            ("-1", "immutable"),
            ("0", "always"),
            ("60000", "1m"),
            ("2 hour", "2h"),
        ] {
            assert_eq!(freshness(text).as_deref(), Some(ours), "{text}");
        }
        assert_eq!(freshness("soon"), None);
        assert_eq!(size_of("1.5GB"), None);
        assert_eq!(size_of("512MB").as_deref(), Some("512MiB"));
        let error = read_listing("nonsense\n").unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
