// SPDX-License-Identifier: Apache-2.0
//! Names of files that are being written, on storages whose files show before they are whole.
//!
//! Such a file lies in the directory of the file that it becomes, so that it gets that directory's
//! group, quota and policies. Listings leave these names out; one that nobody changed for a day was
//! left behind by a writer that died, and a listing of a mount that writes removes it. A file that is
//! replaced in steps has such a name too, with its own behind it, and gets that back. Nobody else may
//! use such names.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use types::{Error, ErrorKind, ObjectPath, Result};

const START: &str = ".forebay-";
const END: &str = ".part";
/// Between the digits and the name of what was set aside.
const ASIDE: &str = ".of-";
/// What file systems take.
const NAME_MAX: usize = 255;
const DIGITS: usize = 32;

/// How long nobody has changed what was left behind.
pub(crate) const LEFT_BEHIND: Duration = Duration::from_secs(86_400);

/// Returns whether a file of such a name, changed at this time, was left behind.
pub(crate) fn is_left_behind(mtime_ns: i64, now: SystemTime) -> bool {
    let changed = Duration::from_nanos(u64::try_from(mtime_ns).unwrap_or(0));
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(changed) > LEFT_BEHIND
}

/// Returns a name that nothing has yet.
pub(crate) fn temporary_name() -> String {
    format!("{}{END}", start())
}

/// Returns a name that nothing has yet, for what has this name while another takes its place; `None`
/// when it would be too long.
pub(crate) fn aside_name(name: &str) -> Option<String> {
    let aside = format!("{}{ASIDE}{name}", start());
    (aside.len() <= NAME_MAX).then_some(aside)
}

fn start() -> String {
    // The keys of the standard library's hashes are random, and differ from one to the next.
    let noise = || RandomState::new().build_hasher().finish();
    format!("{START}{:016x}{:016x}", noise(), noise())
}

/// Returns what comes after the digits of such a name.
fn after_digits(name: &[u8]) -> Option<&[u8]> {
    let rest = name.strip_prefix(START.as_bytes())?;
    let (digits, rest) = rest.split_at_checked(DIGITS)?;
    digits.iter().all(u8::is_ascii_hexdigit).then_some(rest)
}

/// Returns the name of which a file was set aside.
pub(crate) fn set_aside_of(name: &[u8]) -> Option<&[u8]> {
    let own = after_digits(name)?.strip_prefix(ASIDE.as_bytes())?;
    (!own.is_empty()).then_some(own)
}

/// Returns whether a name is one of a file on its way.
pub(crate) fn is_draft(name: &[u8]) -> bool {
    after_digits(name) == Some(END.as_bytes())
}

/// Returns whether a name is one of these.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    is_draft(name) || set_aside_of(name).is_some()
}

/// Says of such a name that nothing has it.
pub(crate) fn hide(path: &ObjectPath) -> Result<()> {
    match path.split() {
        Some((_, name)) if is_temporary(name.as_bytes()) => Err(Error::new(
            ErrorKind::NotFound,
            "a file on its way is not shown",
        )),
        _ => Ok(()),
    }
}

/// Refuses to write under such a name.
pub(crate) fn check_name(path: &ObjectPath) -> Result<()> {
    match path.split() {
        Some((_, name)) if is_temporary(name.as_bytes()) => Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "names such as '{START}*{END}' and '{START}*{ASIDE}*' are kept for files on their \
                 way; take another"
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_comes_twice_and_only_such_names_are_kept() {
        let (one, other) = (temporary_name(), temporary_name());
        assert_ne!(one, other);
        assert!(is_temporary(one.as_bytes()) && is_temporary(other.as_bytes()));
        for name in [
            ".forebay-.part",
            ".forebay-x.part",
            &one[1..],
            &format!("{one}x"),
            &aside_name("").unwrap(),
        ] {
            assert!(!is_temporary(name.as_bytes()), "{name}");
        }
        let aside = aside_name("a.part").unwrap();
        assert!(is_temporary(aside.as_bytes()) && !is_draft(aside.as_bytes()));
        assert_eq!(set_aside_of(aside.as_bytes()), Some(&b"a.part"[..]));
        assert_eq!(set_aside_of(one.as_bytes()), None);
        assert!(is_draft(one.as_bytes()) && aside_name(&"x".repeat(220)).is_none());
        let kept = ObjectPath::parse(format!("d/{one}").as_bytes()).unwrap();
        assert_eq!(check_name(&kept).unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(hide(&kept).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(check_name(&ObjectPath::root()).is_ok() && hide(&ObjectPath::root()).is_ok());
    }

    #[test]
    fn what_nobody_changed_for_a_day_was_left_behind() {
        let day = 86_400_000_000_000;
        let now = UNIX_EPOCH + Duration::from_nanos(2 * day + 1);
        for (changed, left) in [(day, true), (day + 1, false), (3 * day, false)] {
            let changed = i64::try_from(changed).unwrap();
            assert_eq!(is_left_behind(changed, now), left, "{changed}");
        }
    }
}
