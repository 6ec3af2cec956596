// SPDX-License-Identifier: Apache-2.0
//! What object stores keep beside the bytes: text under names, sent and told in headers.
//!
//! The names and their text are those of s3fs, which others use as well: `mode` with the bits of
//! the kind, `uid`, `gid`, and `mtime` in seconds with a fraction. Two names are ours: `forebay-write`
//! tells a write from all others, so that a driver knows its own when it looks at an object whose
//! answer it never got; `forebay-symlink` makes a symbolic link of an object and says where to, with
//! percent signs for what headers cannot carry. That of gcsfuse is understood as well. Extended
//! attributes are under `xattr` as s3fs keeps them: JSON of names and Base64, with percent signs.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

use reqsign_core::hash::{base64_decode, base64_encode};
use types::meta::Owner;
use types::{Extras, Xattrs};

use super::text::{percent_decode_bytes, percent_encode, percent_encode_bytes};
use crate::FileAttributes;

const MODE: &str = "mode";
const UID: &str = "uid";
const GID: &str = "gid";
const MTIME: &str = "mtime";
const MARK: &str = "forebay-write";
const LINK: &str = "forebay-symlink";
/// Where extended attributes are.
pub(crate) const XATTR: &str = "xattr";
/// What gcsfuse makes a symbolic link with.
pub(crate) const GCSFUSE_LINK: &str = "gcsfuse_symlink_target";

/// The names under which something is kept.
pub(crate) const NAMES: [&str; 8] = [MODE, UID, GID, MTIME, MARK, LINK, GCSFUSE_LINK, XATTR];

/// More than all that is kept takes, but for links and extended attributes.
pub(crate) const BYTES: usize = 256;

const SECOND: i64 = 1_000_000_000;
const KIND_BITS: u32 = 0o170_000;
const MODE_BITS: u32 = 0o7777;
const DIRECTORY_BITS: u32 = 0o040_000;
const FILE_BITS: u32 = 0o100_000;
const LINK_BITS: u32 = 0o120_000;

/// What is kept of one write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) attributes: FileAttributes,
    /// Where a symbolic link points to.
    pub(crate) link: Option<Vec<u8>>,
    /// Which write it was.
    pub(crate) mark: Option<String>,
}

impl Kept {
    /// Marks a new write with these attributes.
    pub(crate) fn new(attributes: &FileAttributes) -> Self {
        // The keys of the standard library's hashes are random, and differ from one to the next.
        let noise = || RandomState::new().build_hasher().finish();
        Kept {
            attributes: attributes.clone(),
            link: None,
            mark: Some(format!("{:016x}{:016x}", noise(), noise())),
        }
    }

    /// Reads what is told under the names; what cannot be read is not there.
    pub(crate) fn read<'a>(told: impl Fn(&str) -> Option<&'a str>) -> Self {
        let told = |name| told(name).filter(|text| !text.is_empty());
        let number = |name| told(name)?.trim().parse().ok();
        let owner = || {
            Some(Owner {
                mode: parse_mode(told(MODE)?)?,
                uid: number(UID)?,
                gid: number(GID)?,
            })
        };
        Kept {
            attributes: FileAttributes {
                owner: owner(),
                mtime_ns: told(MTIME).and_then(parse_time),
                xattrs: told(XATTR).and_then(parse_xattrs).map(Arc::new),
            },
            link: match told(LINK) {
                Some(text) => percent_decode_bytes(text.trim()),
                None => told(GCSFUSE_LINK).map(|text| text.as_bytes().to_vec()),
            },
            mark: told(MARK).map(String::from),
        }
    }

    /// Returns what is to be told, by name.
    pub(crate) fn written(&self, is_directory: bool) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        if let Some(owner) = self.attributes.owner {
            let kind = match (is_directory, &self.link) {
                (true, _) => DIRECTORY_BITS,
                (false, Some(_)) => LINK_BITS,
                (false, None) => FILE_BITS,
            };
            let mode = kind | (owner.mode & MODE_BITS);
            told.extend([
                (MODE, mode.to_string()),
                (UID, owner.uid.to_string()),
                (GID, owner.gid.to_string()),
            ]);
        }
        if let Some(mtime_ns) = self.attributes.mtime_ns {
            let (seconds, rest) = (mtime_ns.div_euclid(SECOND), mtime_ns.rem_euclid(SECOND));
            told.push((MTIME, format!("{seconds}.{rest:09}")));
        }
        if let Some(xattrs) = self
            .attributes
            .xattrs
            .as_ref()
            .filter(|all| !all.is_empty())
        {
            told.push((XATTR, xattrs_text(xattrs)));
        }
        let link = self.link.as_deref().map(percent_encode_bytes);
        told.extend(link.map(|link| (LINK, link)));
        told.extend(self.mark.clone().map(|mark| (MARK, mark)));
        told
    }

    /// Returns what is told besides the attributes; most objects have nothing and share that.
    pub(crate) fn extras(&self) -> Arc<Extras> {
        static NOTHING: LazyLock<Arc<Extras>> = LazyLock::new(Arc::default);
        match (&self.link, &self.attributes.xattrs) {
            (None, None) => Arc::clone(&NOTHING),
            (link, xattrs) => Arc::new(Extras {
                link: link.clone(),
                xattrs: xattrs.clone().unwrap_or_default(),
            }),
        }
    }

    /// Returns whether there are no extended attributes any more.
    pub(crate) fn has_lost_xattrs(&self) -> bool {
        (self.attributes.xattrs.as_ref()).is_some_and(|xattrs| xattrs.is_empty())
    }

    /// Returns how many bytes of metadata this takes.
    pub(crate) fn len(&self) -> usize {
        let told = self.written(false);
        told.iter()
            .map(|(name, text)| name.len() + text.len())
            .sum()
    }

    /// Marks a write that changes attributes: what is not given anew stays as it is kept.
    pub(crate) fn changed_by(&self, new: &FileAttributes) -> Kept {
        Kept {
            link: self.link.clone(),
            ..Kept::new(&FileAttributes {
                owner: new.owner.or(self.attributes.owner),
                mtime_ns: new.mtime_ns.or(self.attributes.mtime_ns),
                xattrs: new
                    .xattrs
                    .clone()
                    .or_else(|| self.attributes.xattrs.clone()),
            })
        }
    }
}

/// Writes extended attributes as they are kept.
pub(crate) fn xattrs_text(xattrs: &Xattrs) -> String {
    let told = xattrs.iter().map(|(name, value)| {
        let value = serde_json::Value::from(base64_encode(value));
        (name.clone(), value)
    });
    let told: serde_json::Map<_, _> = told.collect();
    percent_encode(&serde_json::Value::from(told).to_string())
}

fn parse_xattrs(text: &str) -> Option<Xattrs> {
    let json = percent_decode_bytes(text.trim())?;
    let told: BTreeMap<String, String> = serde_json::from_slice(&json).ok()?;
    let decoded = told.into_iter().map(|(name, value)| {
        let value = base64_decode(&value).ok()?;
        Some((name, value))
    });
    decoded.collect()
}

/// Reads a mode: decimal as s3fs writes it, octal as rclone does.
fn parse_mode(text: &str) -> Option<u32> {
    let text = text.trim();
    let legal = |mode: &u32| {
        let kind = mode & KIND_BITS;
        mode & !(KIND_BITS | MODE_BITS) == 0 && kind.count_ones() <= 2
    };
    let octal = || u32::from_str_radix(text, 8).ok().filter(legal);
    let decimal = text.parse().ok().filter(legal);
    let mode = match text.starts_with('0') {
        true => octal(),
        false => decimal.or_else(octal),
    };
    mode.map(|mode| mode & MODE_BITS)
}

/// Reads seconds with or without a fraction, as nanoseconds.
fn parse_time(text: &str) -> Option<i64> {
    let (seconds, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let digits: String = fraction.chars().take(9).collect();
    let nanoseconds: i64 = format!("{digits:0<9}").parse().ok()?;
    if nanoseconds < 0 {
        return None;
    }
    let seconds: i64 = seconds.parse().ok()?;
    seconds.checked_mul(SECOND)?.checked_add(nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(told: &[(&str, &str)]) -> FileAttributes {
        let find = |name: &str| told.iter().find(|(key, _)| *key == name).map(|(_, v)| *v);
        Kept::read(find).attributes
    }

    fn xattrs() -> Xattrs {
        let all = [("user.a", &b"\0\xff"[..]), ("user.\"b %\u{e9}", b"")];
        all.map(|(name, value)| (name.to_owned(), value.to_vec()))
            .into()
    }

    #[test]
    fn what_is_written_is_read_back() {
        for mtime_ns in [0, 1_700_000_000_123_456_789, -1, i64::MIN / 2] {
            let owner = Owner {
                mode: 0o4755,
                uid: 1000,
                gid: 0,
            };
            let attributes = FileAttributes {
                owner: Some(owner),
                mtime_ns: Some(mtime_ns),
                xattrs: Some(Arc::new(xattrs())),
            };
            let kept = Kept::new(&attributes);
            let told = kept.written(false);
            let find = |name: &str| {
                let pair = told.iter().find(|(key, _)| *key == name);
                pair.map(|(_, value)| value.as_str())
            };
            assert_eq!(Kept::read(find), kept);
        }
        assert_ne!(
            Kept::new(&FileAttributes::default()).mark,
            Kept::new(&FileAttributes::default()).mark
        );
    }

    #[test]
    fn a_link_points_to_any_bytes() {
        for link in [&b"../a b"[..], b"100%", b"\xff\n", b" x "] {
            let mut kept = Kept::new(&FileAttributes::default());
            kept.link = Some(link.to_vec());
            let told = kept.written(false);
            let find = |name: &str| {
                let pair = told.iter().find(|(key, _)| *key == name);
                pair.map(|(_, value)| value.as_str())
            };
            assert_eq!(Kept::read(find), kept);
            let ascii = |(_, text): &(&str, String)| text.bytes().all(|b| b.is_ascii_graphic());
            assert!(told.iter().all(ascii));
        }
        let theirs = |name: &str| (name == GCSFUSE_LINK).then_some("a%20b");
        assert_eq!(Kept::read(theirs).link.as_deref(), Some(&b"a%20b"[..]));
    }

    #[test]
    fn what_other_tools_write_is_understood() {
        let owner = [("uid", "7"), ("gid", "8")];
        let mode = |mode| {
            let told = [owner[0], owner[1], ("mode", mode)];
            read(&told).owner.map(|owner| owner.mode)
        };
        // s3fs, rclone, others with an octal digit before it.
        for text in ["33188", "100644", "0100644", "0644", "420"] {
            assert_eq!(mode(text), Some(0o644), "{text}");
        }
        for text in ["", "x", "-1", "99999999", "rw-r--r--"] {
            assert_eq!(mode(text), None, "{text}");
        }
        // As s3fs writes it.
        let told = [(
            "xattr",
            "%7B%22user.a%22%3A%22YWJj%22%2C%22user.b%22%3A%22%22%7D",
        )];
        let wanted = [("user.a", "abc"), ("user.b", "")];
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        assert_eq!(read(&told).xattrs, Some(Arc::new(wanted.into())));
        for text in ["", "{}x", "%7B", "[1]", "{\"user.a\":\"?\"}"] {
            assert_eq!(read(&[("xattr", text)]).xattrs, None, "{text}");
        }
        let mtime = |mtime| read(&[("mtime", mtime)]).mtime_ns;
        assert_eq!(mtime("1400000000"), Some(1_400_000_000_000_000_000));
        assert_eq!(mtime("1400000000.5"), Some(1_400_000_000_500_000_000));
        assert_eq!(mtime("1.1234567899"), Some(1_123_456_789));
        for text in ["", "soon", "1.-5", "99999999999999999999"] {
            assert_eq!(mtime(text), None, "{text}");
        }
    }
}
