// SPDX-License-Identifier: Apache-2.0
//! What cannot be seen on the file itself: how long it is, and where the older version shows.
//!
//! Everything that is not base is in the file, written or a hole. The file is never shorter than the
//! shape says. Encoded: the version 1, length, base; numbers as LEB128.

use types::ByteRange;

use super::ranges::{Ranges, put, take};

const VERSION: u8 = 1;

/// Length and base of a staged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) len: u64,
    /// Where the older version shows through; within the length.
    pub(super) base: Ranges,
}

impl Shape {
    /// Makes the shape of a file that nobody has written.
    pub(super) fn over(base: u64) -> Self {
        Shape {
            len: base,
            base: Ranges::first(base),
        }
    }

    /// Notes that a range is in the file now.
    pub(super) fn written(&mut self, range: ByteRange) {
        self.base.remove(range);
        self.len = self.len.max(range.end());
    }

    /// Sets the length; what is cut off does not come back.
    pub(super) fn resize(&mut self, len: u64) {
        self.base.cut(len);
        self.len = len;
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        put(self.len, &mut bytes);
        self.base.encode(&mut bytes);
        bytes
    }

    /// Reads a shape; none when the bytes are not one.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, mut rest) = bytes.split_first()?;
        let len = take(&mut rest).filter(|_| *version == VERSION)?;
        let base = Ranges::decode(&mut rest)?;
        (rest.is_empty() && base.end() <= len).then_some(Shape { len, base })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_reads_back_and_nothing_else_does() {
        let mut shape = Shape::over(1000);
        shape.written(ByteRange::new(100, 50));
        shape.written(ByteRange::new(990, 300));
        assert_eq!(shape.len, 1290);
        assert_eq!(shape.base.end(), 990);
        let bytes = shape.encode();
        assert_eq!(Shape::decode(&bytes), Some(shape.clone()));
        for cut in 0..bytes.len() {
            assert_eq!(Shape::decode(&bytes[..cut]), None);
        }
        assert_eq!(Shape::decode(&[bytes.as_slice(), &[0]].concat()), None);
        let past_the_end = Shape {
            len: 10,
            base: Ranges::first(11),
        };
        assert_eq!(Shape::decode(&past_the_end.encode()), None);
        shape.resize(120);
        shape.resize(2000);
        assert_eq!((shape.len, shape.base.end()), (2000, 100));
    }
}
