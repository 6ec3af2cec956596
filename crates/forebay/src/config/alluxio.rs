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
const CACHE_DIRS: [&str; 3] = [
    "alluxio.worker.tieredstore.level0.dirs.path",
    "alluxio.worker.page.store.dirs",
    "alluxio.user.client.cache.dirs",
];
const CACHE_SIZES: [&str; 3] = [
    "alluxio.worker.tieredstore.level0.dirs.quota",
    "alluxio.worker.page.store.sizes",
    "alluxio.user.client.cache.size",
];
const MOUNT_POINT: [&str; 2] = [
    "alluxio.fuse.mount.point",
    "alluxio.worker.fuse.mount.point",
];
const FRESHNESS: [&str; 2] = [
    "alluxio.user.file.metadata.sync.interval",
    "alluxio.user.metadata.cache.expiration.time",
];
const KEY_IDS: [&str; 2] = ["s3a.accessKeyId", "aws.accessKeyId"];
const SECRET_KEYS: [&str; 2] = ["s3a.secretKey", "aws.secretKey"];
const ENDPOINT: &str = "alluxio.underfs.s3.endpoint";
const REGIONS: [&str; 2] = [
    "alluxio.underfs.s3.endpoint.region",
    "alluxio.underfs.s3.region",
];
const PATH_STYLE: &str = "alluxio.underfs.s3.disable.dns.buckets";

/// Schemes of ours; others are left as a comment.
const SCHEMES: [&str; 9] = [
    "s3", "file", "hdfs", "gs", "abfs", "abfss", "http", "https", "webhdfs",
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
    let root = root_of(&mut site);
    if mounts.iter().all(|mount| mount.at != "/") {
        mounts.extend(root);
    }
    let point = site.first(&MOUNT_POINT);
    let point = point.unwrap_or_else(|| mount_point.display().to_string());
    let mut body = format!("mount_point = {}\n", quoted(&point));
    write_cache(&mut body, &mut site);
    let freshness = site.first(&FRESHNESS).and_then(|text| freshness(&text));
    let mut writer = Writer {
        global: of_s3(&mut site),
        freshness,
        body,
        references: BTreeSet::new(),
    };
    for mount in &mounts {
        writer.mount(mount);
    }
    let mut text = String::from(
        "# Made from the configuration of Alluxio; check it with 'forebay config check'.\n",
    );
    if !writer.references.is_empty() {
        text.push_str(
            "# Secrets were not taken over: put them into these environment variables first.\n",
        );
    }
    for name in &writer.references {
        line(&mut text, format_args!("#   {name}"));
    }
    text.push_str(&writer.body);
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
struct Writer {
    /// What all S3 mounts have in common.
    global: BTreeMap<String, String>,
    freshness: Option<String>,
    body: String,
    references: BTreeSet<String>,
}

impl Writer {
    fn mount(&mut self, mount: &Mount) {
        let uri = uri_of(&mount.uri);
        let scheme = uri.split_once("://").map_or("file", |(scheme, _)| scheme);
        let out = &mut self.body;
        out.push('\n');
        if !SCHEMES.contains(&scheme) {
            let (uri, at) = (shown(&mount.uri), shown(&mount.at));
            line(
                out,
                format_args!("# No storage of this kind here: {uri} on {at}"),
            );
            return;
        }
        out.push_str("[[mount]]\n");
        line(out, format_args!("at = {}", quoted(&mount.at)));
        line(out, format_args!("uri = {}", quoted(&uri)));
        if let Some(freshness) = &self.freshness {
            line(out, format_args!("freshness = {}", quoted(freshness)));
        }
        line(out, format_args!("read_only = {}", mount.is_read_only));
        let mut own = mount.properties.clone();
        let mut options = Vec::new();
        if scheme == "s3" {
            let mut all = self.global.clone();
            all.extend(std::mem::take(&mut own));
            for (option, keys) in [
                ("endpoint", &[ENDPOINT][..]),
                ("region", &REGIONS),
                ("path_style", &[PATH_STYLE]),
            ] {
                let values: Vec<_> = keys.iter().filter_map(|key| all.remove(*key)).collect();
                let value = values.into_iter().find(|value| !value.is_empty());
                options.extend(value.map(|value| format!("{option} = {}", quoted(&value))));
            }
            let has_keys = |all: &mut BTreeMap<String, String>, keys: [&str; 2]| {
                let found: Vec<_> = keys.iter().filter_map(|key| all.remove(*key)).collect();
                !found.is_empty()
            };
            let keys = [has_keys(&mut all, KEY_IDS), has_keys(&mut all, SECRET_KEYS)];
            own = all;
            if !options.is_empty() {
                line(out, format_args!("options = {{ {} }}", options.join(", ")));
            }
            if keys.contains(&true) {
                let own_keys = KEY_IDS
                    .iter()
                    .any(|key| mount.properties.contains_key(*key));
                let prefix = variable_prefix(if own_keys { &mount.at } else { "/" });
                let names = ["ACCESS_KEY_ID", "SECRET_ACCESS_KEY"];
                let names = names.map(|name| format!("{prefix}_{name}"));
                let [id, secret] = &names;
                line(
                    out,
                    format_args!(
                        "credentials = {{ access_key_id = \"env:{id}\", \
                         secret_access_key = \"env:{secret}\" }}"
                    ),
                );
                self.references.extend(names);
            }
        }
        for key in own.keys() {
            line(out, format_args!("# no counterpart: {}", shown(key)));
        }
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

fn of_s3(site: &mut Site) -> BTreeMap<String, String> {
    let keys = [ENDPOINT, PATH_STYLE];
    let keys = keys
        .iter()
        .chain(&REGIONS)
        .chain(&KEY_IDS)
        .chain(&SECRET_KEYS);
    let taken = keys.filter_map(|key| Some(((*key).to_owned(), site.take(key)?)));
    taken.collect()
}

fn write_cache(out: &mut String, site: &mut Site) {
    let (dirs, sizes) = (site.first(&CACHE_DIRS), site.first(&CACHE_SIZES));
    let mut dirs = dirs.iter().flat_map(|dirs| dirs.split(',')).map(str::trim);
    let (first, others): (_, Vec<_>) = (dirs.next(), dirs.collect());
    let size = sizes.as_deref().and_then(|sizes| sizes.split(',').next());
    let size = size.and_then(size_of);
    if first.is_some() || size.is_some() {
        out.push_str("\n[cache]\n");
    }
    if let Some(dir) = first {
        // Not the same directory: what lies in there is of no use to us.
        let dir = format!("{}/forebay", dir.trim_end_matches('/'));
        line(out, format_args!("dir = {}", quoted(&dir)));
    }
    if let Some(size) = size {
        line(out, format_args!("size = {}", quoted(&size)));
    }
    for other in others {
        line(
            out,
            format_args!("# one directory only; left out: {}", shown(other)),
        );
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

fn uri_of(uri: &str) -> String {
    for old in ["s3a://", "s3n://"] {
        if let Some(rest) = uri.strip_prefix(old) {
            return format!("s3://{rest}");
        }
    }
    uri.to_owned()
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

fn variable_prefix(at: &str) -> String {
    let name = at.trim_matches('/');
    if name.is_empty() {
        return "ALLUXIO_S3".to_owned();
    }
    let letter = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    format!("S3_{}", name.chars().map(letter).collect::<String>())
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
        alluxio.security.login.impersonation.token=hunter3\n";
    const LISTING: &str = "s3://b/p  on  /mnt/s3 (s3, capacity=-1B, used=-1B, read-only, not shared, \
        properties={s3a.accessKeyId=hunter4, s3a.secretKey=hunter5, x.y=1})\n\
        hdfs://nn:8020/data on /hdfs (hdfs, capacity=1B, not read-only, not shared, properties={})\n\
        oss://c/ on /oss (oss, read-only, properties={})\n";

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
        assert_eq!(places, ["/mnt/s3", "/hdfs", "/"]);
        let (own, hdfs, root) = (&mounts[0], &mounts[1], &mounts[2]);
        assert_eq!(
            own["credentials"]["access_key_id"].as_str(),
            Some("env:S3_MNT_S3_ACCESS_KEY_ID")
        );
        assert_eq!(own["options"]["region"].as_str(), Some("eu-1"));
        assert_eq!(own["read_only"].as_bool(), Some(true));
        assert_eq!(hdfs["uri"].as_str(), Some("hdfs://nn:8020/data"));
        assert!(hdfs.get("options").is_none() && hdfs.get("credentials").is_none());
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
            "oss://c/",
            "/ssd1",
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
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
