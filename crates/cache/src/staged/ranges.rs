// SPDX-License-Identifier: Apache-2.0
//! A compact set of byte ranges: where an older version still shows through a staged file, and what of
//! it was lent out.
//!
//! The set of the older version only ever shrinks, so that a reader who saw a byte outside of it may
//! rely on that.
//! Ranges are kept by their start, apart from each other; a write in the middle of one makes two.
//!
//! Encoded: count, then for each range the gap before it and its length, all as LEB128 numbers.

use std::collections::BTreeMap;

use types::ByteRange;

/// Byte ranges, in order and apart from each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ranges {
    /// Start to end.
    ends: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Makes the set of the first `len` bytes.
    pub(super) fn first(len: u64) -> Self {
        Ranges {
            ends: (len > 0).then_some((0, len)).into_iter().collect(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Returns the end of the last range.
    pub(super) fn end(&self) -> u64 {
        self.ends.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// Returns the first part of the set from `at` on.
    pub(super) fn next(&self, at: u64) -> Option<ByteRange> {
        let before = self.ends.range(..=at).next_back();
        let found = match before {
            Some((_, end)) if *end > at => (at, *end),
            _ => self
                .ends
                .range(at..)
                .next()
                .map(|(start, end)| (*start, *end))?,
        };
        Some(ByteRange::new(found.0, found.1 - found.0))
    }

    /// Returns the parts of the set within a range.
    pub(super) fn within(&self, range: ByteRange) -> impl Iterator<Item = ByteRange> {
        let mut at = range.offset;
        std::iter::from_fn(move || {
            let part = self.next(at).filter(|part| part.offset < range.end())?;
            let part = part.clamp(range.end());
            at = part.end();
            Some(part)
        })
    }

    /// Adds a range.
    pub(super) fn add(&mut self, range: ByteRange) {
        self.remove(range);
        let (mut start, mut end) = (range.offset, range.end());
        if start == end {
            return;
        }
        if let Some((&first, _)) = self
            .ends
            .range(..start)
            .next_back()
            .filter(|(_, e)| **e == start)
        {
            start = first;
        }
        if let Some(last) = self.ends.remove(&end) {
            end = last;
        }
        self.ends.insert(start, end);
    }

    /// Returns whether all of a range is in the set.
    pub(super) fn has_all(&self, range: ByteRange) -> bool {
        range.len == 0 || self.within(range).next() == Some(range)
    }

    /// Returns whether none of a range is in the set.
    pub(super) fn has_none(&self, range: ByteRange) -> bool {
        self.is_empty() || self.within(range).next().is_none()
    }

    /// Takes a range out.
    pub(super) fn remove(&mut self, range: ByteRange) {
        let (start, end) = (range.offset, range.end());
        if start >= end {
            return;
        }
        if let Some((first, last)) = self.ends.range(..start).next_back().map(|(s, e)| (*s, *e))
            && last > start
        {
            self.ends.insert(first, start);
            if last > end {
                self.ends.insert(end, last);
                return;
            }
        }
        while let Some((first, last)) = self.ends.range(start..end).next().map(|(s, e)| (*s, *e)) {
            self.ends.remove(&first);
            if last > end {
                self.ends.insert(end, last);
            }
        }
    }

    /// Takes out what lies behind `len`.
    pub(super) fn cut(&mut self, len: u64) {
        self.remove(ByteRange::new(len, u64::MAX - len));
    }

    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        put(self.ends.len() as u64, into);
        let mut at = 0;
        for (start, end) in &self.ends {
            put(start - at, into);
            put(end - start, into);
            at = *end;
        }
    }

    /// Reads a set; none when the bytes are not one.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let mut ends = BTreeMap::new();
        let mut at = 0u64;
        for number in 0..take(bytes)? {
            let gap = take(bytes)?;
            let start = at.checked_add(gap).filter(|_| gap > 0 || number == 0)?;
            at = start.checked_add(take(bytes)?).filter(|end| *end > start)?;
            ends.insert(start, at);
        }
        Some(Ranges { ends })
    }
}

/// Appends a number as LEB128: seven bits a byte, the lowest first.
pub(super) fn put(mut number: u64, into: &mut Vec<u8>) {
    while number >= 0x80 {
        into.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    into.push((number & 0x7f) as u8);
}

/// Takes a number off the front.
pub(super) fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: usize = 200;

    /// The naive model: a flag for each byte.
    fn flags(set: &Ranges) -> [bool; BYTES] {
        let mut flags = [false; BYTES];
        for part in set.within(ByteRange::new(0, BYTES as u64)) {
            for at in part.offset..part.end() {
                flags[usize::try_from(at).unwrap()] = true;
            }
        }
        flags
    }

    #[test]
    fn a_set_is_what_a_flag_for_each_byte_says() {
        let mut random = 7u64;
        let mut below = |n: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        for _ in 0..300 {
            let len = below(BYTES as u64 + 1);
            let mut set = Ranges::first(len);
            let mut model = [false; BYTES];
            model[..usize::try_from(len).unwrap()].fill(true);
            for _ in 0..below(40) {
                let range = ByteRange::new(below(BYTES as u64), below(20)).clamp(BYTES as u64);
                let bytes =
                    usize::try_from(range.offset).unwrap()..usize::try_from(range.end()).unwrap();
                assert_eq!(
                    set.has_none(range),
                    model[bytes.clone()].iter().all(|flag| !flag)
                );
                assert_eq!(
                    set.has_all(range),
                    model[bytes.clone()].iter().all(|flag| *flag)
                );
                if below(3) == 0 {
                    set.add(range);
                    model[bytes].fill(true);
                } else if below(30) == 0 {
                    set.cut(range.offset);
                    model[bytes.start..].fill(false);
                } else {
                    set.remove(range);
                    model[bytes].fill(false);
                }
                assert_eq!(flags(&set), model);
                assert_eq!(
                    set.end(),
                    model.iter().rposition(|f| *f).map_or(0, |at| at as u64 + 1)
                );
                assert_eq!(set.is_empty(), set.end() == 0);
                let at = below(BYTES as u64);
                let next = set.next(at).map(|part| part.offset);
                let expected = (at..BYTES as u64).find(|at| model[usize::try_from(*at).unwrap()]);
                assert_eq!(next, expected);
            }
            let mut bytes = Vec::new();
            set.encode(&mut bytes);
            let mut rest = bytes.as_slice();
            assert_eq!(Ranges::decode(&mut rest), Some(set));
            assert!(rest.is_empty());
            for cut in 0..bytes.len() {
                assert_eq!(Ranges::decode(&mut &bytes[..cut]), None);
            }
        }
    }

    #[test]
    fn numbers_read_back_and_too_long_ones_are_refused() {
        for number in [0, 1, 127, 128, 300, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put(number, &mut bytes);
            assert_eq!(take(&mut bytes.as_slice()), Some(number));
        }
        assert_eq!(take(&mut [0xff; 10].as_slice()), None);
        assert_eq!(take(&mut [0x80; 11].as_slice()), None);
    }

    #[test]
    fn ranges_that_touch_or_wrap_are_refused() {
        // Two ranges: 5 bytes, no gap, 5 bytes.
        assert_eq!(Ranges::decode(&mut [2, 0, 5, 0, 5].as_slice()), None);
        assert_eq!(Ranges::decode(&mut [1, 3, 0].as_slice()), None);
        let mut wrapping = vec![1, 1];
        put(u64::MAX, &mut wrapping);
        assert_eq!(Ranges::decode(&mut wrapping.as_slice()), None);
    }
}
