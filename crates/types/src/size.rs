// SPDX-License-Identifier: Apache-2.0
//! Sizes with units, as people write them: `64MiB`, `100GiB`, `1.5GB`, `4096`.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 15] = [
    ("tib", 1 << 40),
    ("gib", 1 << 30),
    ("mib", 1 << 20),
    ("kib", 1 << 10),
    ("tb", 1_000_000_000_000),
    ("gb", 1_000_000_000),
    ("mb", 1_000_000),
    ("kb", 1_000),
    ("ti", 1 << 40),
    ("gi", 1 << 30),
    ("mi", 1 << 20),
    ("ki", 1 << 10),
    ("g", 1 << 30),
    ("m", 1 << 20),
    ("b", 1),
];

impl FromStr for ByteSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fault = || {
            Error::new(
                ErrorKind::Invalid,
                format!("'{text}' is not a size; write a number and a unit, as in 64MiB or 100GiB"),
            )
        };
        let lower = text.trim().to_ascii_lowercase();
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| lower.strip_suffix(name).map(|number| (number, *unit)))
            .unwrap_or((&lower, 1));
        let number = number.trim();
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(unit).map(ByteSize).ok_or_else(fault);
        }
        let value = number.parse::<f64>().map_err(|_| fault())? * unit as f64;
        if !(0.0..u64::MAX as f64).contains(&value) || number.contains(['e', 'n', 'i']) {
            return Err(fault());
        }
        #[allow(clippy::cast_possible_truncation, reason = "in range, checked above")]
        Ok(ByteSize(value as u64))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, bytes) in [
            ("TiB", 1u64 << 40),
            ("GiB", 1 << 30),
            ("MiB", 1 << 20),
            ("KiB", 1 << 10),
        ] {
            if self.0 >= bytes {
                return match self.0.is_multiple_of(bytes) {
                    true => write!(f, "{} {unit}", self.0 / bytes),
                    false => write!(f, "{:.1} {unit}", self.0 as f64 / bytes as f64),
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        let size = |text: &str| text.parse::<ByteSize>().map(|size| size.0).ok();
        assert_eq!(size("64MiB"), Some(64 << 20));
        assert_eq!(size(" 100 gib "), Some(100 << 30));
        assert_eq!(size("1.5GB"), Some(1_500_000_000));
        assert_eq!(size("4096"), Some(4096));
        assert_eq!(size("10G"), Some(10 << 30));
        for bad in [
            "",
            "GiB",
            "-1",
            "1e9",
            "inf",
            "nan",
            "12XB",
            "99999999999TiB",
        ] {
            assert_eq!(size(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_are_shown_short() {
        assert_eq!(ByteSize(0).to_string(), "0 B");
        assert_eq!(ByteSize(100 << 30).to_string(), "100 GiB");
        assert_eq!(ByteSize(1_500_000_000).to_string(), "1.4 GiB");
    }
}
