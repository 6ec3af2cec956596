// SPDX-License-Identifier: Apache-2.0
//! What object stores keep beside the bytes: text under names, sent and told in headers.
//!
//! The names and their text are those of s3fs, which others use as well: `mode` with the bits of
//! the kind, `uid`, `gid`, and `mtime` in seconds with a fraction. One name is ours: `forebay-write`
//! tells a write from all others, so that a driver knows its own when it looks at an object whose
//! answer it never got.

use std::hash::{BuildHasher, Hasher, RandomState};

use types::meta::Owner;

use crate::FileAttributes;

const MODE: &str = "mode";
const UID: &str = "uid";
const GID: &str = "gid";
const MTIME: &str = "mtime";
const MARK: &str = "forebay-write";

/// The names under which something is kept.
pub(crate) const NAMES: [&str; 5] = [MODE, UID, GID, MTIME, MARK];

const SECOND: i64 = 1_000_000_000;
const KIND_BITS: u32 = 0o170_000;
const MODE_BITS: u32 = 0o7777;
const DIRECTORY_BITS: u32 = 0o040_000;
const FILE_BITS: u32 = 0o100_000;

/// What is kept of one write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) attributes: FileAttributes,
    /// Which write it was.
    pub(crate) mark: Option<String>,
}

impl Kept {
    /// Marks a new write with these attributes.
    pub(crate) fn new(attributes: &FileAttributes) -> Self {
        // The keys of the standard library's hashes are random, and differ from one to the next.
        let noise = || RandomState::new().build_hasher().finish();
        Kept {
            attributes: *attributes,
            mark: Some(format!("{:016x}{:016x}", noise(), noise())),
        }
    }

    /// Reads what is told under the names; what cannot be read is not there.
    pub(crate) fn read<'a>(told: impl Fn(&str) -> Option<&'a str>) -> Self {
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
            },
            mark: told(MARK).map(String::from),
        }
    }

    /// Returns what is to be told, by name.
    pub(crate) fn written(&self, is_directory: bool) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        if let Some(owner) = self.attributes.owner {
            let kind = match is_directory {
                true => DIRECTORY_BITS,
                false => FILE_BITS,
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
        told.extend(self.mark.clone().map(|mark| (MARK, mark)));
        told
    }

    /// Returns the attributes with what is kept where nothing new is given.
    pub(crate) fn changed_by(&self, new: &FileAttributes) -> FileAttributes {
        FileAttributes {
            owner: new.owner.or(self.attributes.owner),
            mtime_ns: new.mtime_ns.or(self.attributes.mtime_ns),
        }
    }
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
        let mtime = |mtime| read(&[("mtime", mtime)]).mtime_ns;
        assert_eq!(mtime("1400000000"), Some(1_400_000_000_000_000_000));
        assert_eq!(mtime("1400000000.5"), Some(1_400_000_000_500_000_000));
        assert_eq!(mtime("1.1234567899"), Some(1_123_456_789));
        for text in ["", "soon", "1.-5", "99999999999999999999"] {
            assert_eq!(mtime(text), None, "{text}");
        }
    }
}
