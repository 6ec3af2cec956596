// SPDX-License-Identifier: Apache-2.0
//! A small hub that speaks the endpoints of Hugging Face, and the network behind it that holds the
//! bytes: trees in pages, revisions that are commits, large files by redirect. It insists on what
//! the real one insists on, and on one thing more: the network refuses whoever shows a token.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::scripted::{Asked, Scripted, Told, told};

/// Files by path.
type Tree = BTreeMap<String, Arc<Vec<u8>>>;

/// Larger files are in the network behind the hub.
const LARGE: usize = 1000;
/// Entries of a page; the real one has 1,000.
const PAGE: usize = 700;

#[derive(Debug, Default)]
struct State {
    main: Tree,
    commits: BTreeMap<String, Tree>,
    /// Each address of bytes is good for so many reads; none when without limit.
    reads_of_address: Option<u32>,
    reads: BTreeMap<String, u32>,
    next_address: u32,
    /// Another token than the first, once it was changed.
    token: Option<String>,
}

/// A running hub with one data set, `owner/name`, private to those who show the token.
#[derive(Debug)]
pub struct Hub {
    state: Arc<Mutex<State>>,
    /// The hub itself.
    pub door: Scripted,
    /// The network that holds the bytes of large files.
    pub network: Scripted,
}

impl Hub {
    /// The token that is taken until another one is.
    pub const TOKEN: &str = "hf_tok3n";

    /// Starts both.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub async fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let network = Scripted::start(move |_, asked| serve_bytes(&mut held(&shared), asked));
        let network = network.await;
        let (shared, place) = (Arc::clone(&state), network.endpoint().to_string());
        let door = Scripted::start(move |_, asked| answer(&mut held(&shared), asked, &place));
        Hub {
            state,
            door: door.await,
            network,
        }
    }

    /// Puts a file on the branch `main`.
    pub fn put(&self, path: &str, content: &[u8]) {
        let content = Arc::new(content.to_vec());
        held(&self.state).main.insert(path.into(), content);
    }

    /// Removes a file from the branch `main`.
    pub fn remove(&self, path: &str) {
        held(&self.state).main.remove(path);
    }

    /// Takes this token from now on, and the old one no more.
    pub fn change_token(&self, token: &str) {
        held(&self.state).token = Some(token.into());
    }

    /// Makes addresses of bytes end after so many reads.
    pub fn limit_addresses(&self, reads: u32) {
        held(&self.state).reads_of_address = Some(reads);
    }
}

fn held(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(state: &mut State, asked: &Asked, network: &str) -> Told {
    let token = state.token.as_deref().unwrap_or(Hub::TOKEN);
    if asked.header("authorization") != format!("Bearer {token}") {
        return refused("401 Unauthorized", "RepoNotFound");
    }
    let (path, query) = asked.target.split_once('?').unwrap_or((&asked.target, ""));
    let parts: Vec<String> = path.split('/').skip(1).map(decode).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["api", "datasets", "owner", "name", "revision", revision] => revision_of(state, revision),
        [
            "api",
            "datasets",
            "owner",
            "name",
            "tree",
            revision,
            dir @ ..,
        ] => {
            let dir = dir.join("/");
            tree_at(state, revision).map_or_else(no_revision, |tree| {
                list(tree, path, dir.trim_matches('/'), query)
            })
        }
        ["datasets", "owner", "name", "resolve", revision, file @ ..] => {
            let file = file.join("/");
            let found = tree_at(state, revision).map(|tree| tree.get(&file).cloned());
            match found {
                None => no_revision(),
                Some(None) => refused("404 Not Found", "EntryNotFound"),
                Some(Some(content)) => resolve(state, asked, &content, network),
            }
        }
        _ => refused("404 Not Found", "RepoNotFound"),
    }
}

fn revision_of(state: &mut State, revision: &str) -> Told {
    let sha = match revision {
        "main" => {
            let sha = format!("{:040x}", hash(&state.main));
            state.commits.insert(sha.clone(), state.main.clone());
            sha
        }
        sha if state.commits.contains_key(sha) => sha.into(),
        _ => return no_revision(),
    };
    let body = format!("{{\"sha\":\"{sha}\",\"lastModified\":\"2024-05-06T07:08:09.000Z\"}}");
    told("200 OK", &[], body.as_bytes())
}

fn tree_at<'a>(state: &'a State, revision: &str) -> Option<&'a Tree> {
    match revision {
        "main" => Some(&state.main),
        sha => state.commits.get(sha),
    }
}

fn list(tree: &Tree, path: &str, dir: &str, query: &str) -> Told {
    let prefix = if dir.is_empty() {
        String::new()
    } else {
        format!("{dir}/")
    };
    let (mut entries, mut directories) = (Vec::new(), BTreeSet::new());
    for (path, content) in tree.iter().filter(|(path, _)| path.starts_with(&prefix)) {
        match path[prefix.len()..].split_once('/') {
            Some((name, _)) => {
                directories.insert(format!("{prefix}{name}"));
            }
            None => entries.push(file_entry(path, content)),
        }
    }
    let directories = directories.iter().map(|path| {
        format!(
            "{{\"type\":\"directory\",\"oid\":\"0\",\"size\":0,\"path\":{}}}",
            json(path)
        )
    });
    let entries: Vec<String> = directories.chain(entries).collect();
    if entries.is_empty() && !dir.is_empty() {
        return refused("404 Not Found", "EntryNotFound");
    }
    let value = |name: &str| {
        let pair = query.split('&').find_map(|pair| pair.strip_prefix(name));
        pair.and_then(|value| value.parse::<usize>().ok())
    };
    let from = value("cursor=").unwrap_or(0);
    let to = (from + value("limit=").unwrap_or(PAGE)).min(entries.len());
    let body = format!("[{}]", entries[from..to].join(","));
    if to == entries.len() {
        return told("200 OK", &[], body.as_bytes());
    }
    // As behind a mirror: the host in the link is another one.
    let link = format!("<https://hub.invalid{path}?expand=false&cursor={to}>; rel=\"next\"");
    told("200 OK", &[("Link", link.as_str())], body.as_bytes())
}

fn file_entry(path: &str, content: &[u8]) -> String {
    let (oid, size, path) = (oid(content), content.len(), json(path));
    if content.len() <= LARGE {
        return format!("{{\"type\":\"file\",\"oid\":\"{oid}\",\"size\":{size},\"path\":{path}}}");
    }
    format!(
        "{{\"type\":\"file\",\"oid\":\"pointer\",\"size\":{size},\"path\":{path},\"lfs\":{{\
         \"oid\":\"{oid}\",\"size\":{size},\"pointerSize\":134}}}}"
    )
}

fn resolve(state: &mut State, asked: &Asked, content: &Arc<Vec<u8>>, network: &str) -> Told {
    let (etag, size) = (format!("\"{}\"", oid(content)), content.len().to_string());
    if content.len() <= LARGE {
        return bytes(asked, content, &etag);
    }
    state.next_address += 1;
    // A number in the address stands for a signature.
    let address = format!("/{}/{}", oid(content), state.next_address);
    state
        .commits
        .entry("bytes".into())
        .or_default()
        .insert(oid(content), Arc::clone(content));
    let place = format!("{network}{address}");
    let headers = [
        ("Location", place.as_str()),
        ("X-Linked-Etag", etag.as_str()),
        ("X-Linked-Size", size.as_str()),
    ];
    told("302 Found", &headers, b"Found. Redirecting")
}

/// The network behind the hub: it knows addresses, no names and no people.
fn serve_bytes(state: &mut State, asked: &Asked) -> Told {
    if !asked.header("authorization").is_empty() {
        return told("400 Bad Request", &[], b"only one way to say who asks");
    }
    let reads = state.reads.entry(asked.target.clone()).or_default();
    *reads += 1;
    if state.reads_of_address.is_some_and(|limit| *reads > limit) {
        return told("403 Forbidden", &[], b"the address is no longer good");
    }
    let oid = asked.target.split('/').nth(1).unwrap_or_default();
    match state.commits.get("bytes").and_then(|bytes| bytes.get(oid)) {
        Some(content) => bytes(asked, content, "\"tag-of-the-network\""),
        None => told("404 Not Found", &[], b""),
    }
}

fn bytes(asked: &Asked, content: &[u8], etag: &str) -> Told {
    if asked.method == "HEAD" {
        let size = content.len().to_string();
        return told(
            "200 OK",
            &[("ETag", etag), ("Content-Length", size.as_str())],
            b"",
        );
    }
    let (first, last) = asked.range();
    let last = last.min(content.len().saturating_sub(1));
    if first > last || content.is_empty() {
        return told("416 Range Not Satisfiable", &[], b"");
    }
    let range = format!("bytes {first}-{last}/{}", content.len());
    let headers = [("ETag", etag), ("Content-Range", range.as_str())];
    told("206 Partial Content", &headers, &content[first..=last])
}

fn refused(status: &str, code: &str) -> Told {
    told(
        status,
        &[("X-Error-Code", code), ("X-Error-Message", "no such thing")],
        b"",
    )
}

fn no_revision() -> Told {
    refused("404 Not Found", "RevisionNotFound")
}

fn oid(content: &[u8]) -> String {
    format!("{:040x}", hash(content))
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let (byte, after) = match (first, byte) {
            (b'%', Some(byte)) => (byte, &tail[2..]),
            _ => (*first, tail),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
