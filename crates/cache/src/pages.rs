// SPDX-License-Identifier: Apache-2.0
//! A set of page numbers of one object, with its length at hand.
//!
//! Most objects have few pages, so that up to 64 of them take no allocation.

use types::PageRange;

const WORD: u64 = u64::BITS as u64;

/// Which pages of an object have some property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PageSet {
    bits: Bits,
    len: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Bits {
    One(u64),
    Many(Box<[u64]>),
}

impl PageSet {
    /// Makes an empty set for an object of `pages` pages.
    pub(crate) fn empty(pages: u64) -> Self {
        let words = usize::try_from(pages.div_ceil(WORD)).unwrap_or(usize::MAX);
        let bits = match words {
            0 | 1 => Bits::One(0),
            _ => Bits::Many(vec![0; words].into_boxed_slice()),
        };
        PageSet { bits, len: 0 }
    }

    /// Returns the number of pages in the set.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn has(&self, page: u64) -> bool {
        self.word(page).is_some_and(|word| word & mask(page) != 0)
    }

    pub(crate) fn has_all(&self, pages: PageRange) -> bool {
        pages.into_iter().all(|page| self.has(page))
    }

    pub(crate) fn has_none(&self, pages: PageRange) -> bool {
        self.is_empty() || !pages.into_iter().any(|page| self.has(page))
    }

    /// Adds a page; false when it was there. Pages past the end are not added.
    pub(crate) fn insert(&mut self, page: u64) -> bool {
        let Some(word) = self.word_mut(page).filter(|word| **word & mask(page) == 0) else {
            return false;
        };
        *word |= mask(page);
        self.len += 1;
        true
    }

    /// Takes a page out; false when it was not there.
    pub(crate) fn remove(&mut self, page: u64) -> bool {
        let Some(word) = self.word_mut(page).filter(|word| **word & mask(page) != 0) else {
            return false;
        };
        *word &= !mask(page);
        self.len -= 1;
        true
    }

    fn word(&self, page: u64) -> Option<&u64> {
        let at = usize::try_from(page / WORD).ok()?;
        match &self.bits {
            Bits::One(word) => (at == 0).then_some(word),
            Bits::Many(words) => words.get(at),
        }
    }

    fn word_mut(&mut self, page: u64) -> Option<&mut u64> {
        let at = usize::try_from(page / WORD).ok()?;
        match &mut self.bits {
            Bits::One(word) => (at == 0).then_some(word),
            Bits::Many(words) => words.get_mut(at),
        }
    }
}

fn mask(page: u64) -> u64 {
    1 << (page % WORD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_counts_what_it_holds() {
        for pages in [0, 1, 64, 65, 1000] {
            let mut set = PageSet::empty(pages);
            for page in (0..pages).step_by(3) {
                assert!(set.insert(page));
                assert!(!set.insert(page));
            }
            assert_eq!(set.len(), pages.div_ceil(3));
            assert!((0..pages).all(|page| set.has(page) == page.is_multiple_of(3)));
            for page in (0..pages).step_by(3) {
                assert!(set.remove(page));
                assert!(!set.remove(page));
            }
            assert!(set.is_empty());
        }
    }

    #[test]
    fn pages_past_the_end_are_never_in_a_set() {
        let mut set = PageSet::empty(65);
        assert!(!set.insert(1 << 40));
        assert!(!set.has(1 << 40));
        assert!(!set.remove(128));
    }

    #[test]
    fn ranges_are_in_wholly_partly_or_not() {
        let mut set = PageSet::empty(10);
        set.insert(3);
        set.insert(4);
        assert!(set.has_all(PageRange { first: 3, end: 5 }));
        assert!(!set.has_all(PageRange { first: 3, end: 6 }));
        assert!(!set.has_none(PageRange { first: 4, end: 6 }));
        assert!(set.has_none(PageRange { first: 5, end: 9 }));
    }
}
