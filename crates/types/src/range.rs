// SPDX-License-Identifier: Apache-2.0
//! Ranges of bytes, and of the pages that hold them.

/// The unit of presence and of checksum. The size of a request never depends on it.
pub const PAGE_SIZE: u64 = 128 * 1024;

/// A run of bytes of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

impl ByteRange {
    /// Makes a range.
    pub fn new(offset: u64, len: u64) -> Self {
        ByteRange { offset, len }
    }

    /// Returns the first byte after the range.
    pub fn end(self) -> u64 {
        self.offset.saturating_add(self.len)
    }

    /// Returns the part that lies within an object of `size` bytes.
    #[must_use]
    pub fn clamp(self, size: u64) -> Self {
        let offset = self.offset.min(size);
        ByteRange {
            offset,
            len: self.end().min(size) - offset,
        }
    }

    /// Returns the pages that hold these bytes; none when the range is empty.
    pub fn pages(self) -> PageRange {
        if self.len == 0 {
            return PageRange {
                first: self.offset / PAGE_SIZE,
                end: self.offset / PAGE_SIZE,
            };
        }
        PageRange {
            first: self.offset / PAGE_SIZE,
            end: self.end().div_ceil(PAGE_SIZE),
        }
    }
}

/// A run of pages of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageRange {
    /// Index of the first page.
    pub first: u64,
    /// Index after the last page.
    pub end: u64,
}

impl PageRange {
    /// Returns the number of pages.
    pub fn count(self) -> u64 {
        self.end - self.first
    }

    /// Returns the bytes of these pages in an object of `size` bytes.
    pub fn bytes(self, size: u64) -> ByteRange {
        ByteRange::new(self.first * PAGE_SIZE, self.count() * PAGE_SIZE).clamp(size)
    }
}

impl IntoIterator for PageRange {
    type Item = u64;
    type IntoIter = std::ops::Range<u64>;

    fn into_iter(self) -> Self::IntoIter {
        self.first..self.end
    }
}

/// Returns how many pages hold an object of `size` bytes.
pub fn page_count(size: u64) -> u64 {
    size.div_ceil(PAGE_SIZE)
}

/// Returns a number of bytes as a length in memory.
///
/// # Panics
/// Never on the 64-bit machines that Forebay is built for.
pub fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("Forebay is built for 64-bit machines only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_map_to_pages_and_back() {
        let range = ByteRange::new(PAGE_SIZE - 1, 2);
        assert_eq!(range.pages(), PageRange { first: 0, end: 2 });
        assert_eq!(
            range.pages().bytes(PAGE_SIZE + 10),
            ByteRange::new(0, PAGE_SIZE + 10)
        );
        assert_eq!(ByteRange::new(5, 0).pages().count(), 0);
        assert_eq!(ByteRange::new(7, 100).clamp(10), ByteRange::new(7, 3));
        assert_eq!(ByteRange::new(70, 100).clamp(10), ByteRange::new(10, 0));
        assert_eq!(ByteRange::new(u64::MAX - 1, 100).clamp(10).len, 0);
    }
}
