// SPDX-License-Identifier: Apache-2.0
//! What is replayed: the reads of training jobs, of services, of scans, and of a file of the user's.
//!
//! All are made from seeds, so that two runs compare.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use crate::data;

/// Some reads of whole objects, and how much of them may be cached.
#[derive(Debug, Clone)]
pub struct Trace {
    /// What it is, for tables.
    pub name: String,
    /// The length of each object.
    pub sizes: Vec<u64>,
    /// Which object is read, one after the other.
    pub reads: Vec<usize>,
    /// How many bytes the cache may hold.
    pub capacity: u64,
    /// Hits are counted from this read on: what is before is the first sight of the data.
    pub counted_from: usize,
    /// The best that can be reached without knowing what comes, where that is known.
    pub best: Option<f64>,
}

/// A length for objects that are all alike: enough for parts of it to be whole numbers.
const SIZE: u64 = 100_000;

impl Trace {
    fn new(name: impl Into<String>, objects: usize, cached: usize, reads: Vec<usize>) -> Self {
        Trace {
            name: name.into(),
            sizes: vec![SIZE; objects],
            reads,
            capacity: cached as u64 * SIZE,
            counted_from: 0,
            best: None,
        }
    }

    /// Reads the lines of a file, `path size` each: the size is the last word of its line.
    pub fn parse(name: &str, text: &str, capacity: Option<u64>) -> Result<Self> {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let (mut sizes, mut reads) = (Vec::new(), Vec::new());
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() {
                continue;
            }
            let wrong = || format!("line {}: '{line}' is not a path and a size", index + 1);
            let (path, size) = line.rsplit_once([' ', '\t']).with_context(wrong)?;
            let size: u64 = size.parse().with_context(wrong)?;
            let number = *numbers.entry(path.trim_end()).or_insert_with(|| {
                sizes.push(size);
                sizes.len() - 1
            });
            // The last one counts: an object that grew is one object here.
            sizes[number] = size;
            reads.push(number);
        }
        ensure!(!reads.is_empty(), "{name}: there is no line in it");
        let total: u64 = sizes.iter().sum();
        Ok(Trace {
            name: name.to_owned(),
            sizes,
            reads,
            capacity: capacity.unwrap_or(total / 2),
            counted_from: 0,
            best: None,
        })
    }
}

/// Returns the traces of the table, over about `objects` objects each.
pub fn all(objects: usize) -> Vec<Trace> {
    let (half, most) = (objects / 2, objects * 3 / 4);
    vec![
        epochs("three shuffled epochs, a half fits", objects, half, 3),
        epochs(
            "three shuffled epochs, three quarters fit",
            objects,
            most,
            3,
        ),
        epochs(
            "three shuffled epochs, a quarter fits",
            objects,
            objects / 4,
            3,
        ),
        epochs("ten shuffled epochs, a half fits", objects, half, 10),
        sizes_differ(objects),
        in_order(objects),
        untidy(objects),
        zipf("Zipf 1.0, a tenth fits", objects, objects / 10, 1.0),
        zipf("Zipf 0.8, a tenth fits", objects, objects / 10, 0.8),
        zipf("Zipf 0.8, a hundredth fits", objects, objects / 100, 0.8),
        zipf_with_scans(objects),
        scan(objects),
        epochs_and_zipf(objects),
        another_data_set(objects),
        two_jobs(objects),
    ]
}

/// Some epochs of a data set, each in an order of its own.
pub fn epochs(name: &str, objects: usize, cached: usize, count: u64) -> Trace {
    let reads = (0..count).flat_map(|epoch| data::shuffled(epoch, objects));
    Trace {
        counted_from: objects,
        best: Some(cached as f64 / objects as f64),
        ..Trace::new(name, objects, cached, reads.collect())
    }
}

/// Three shuffled epochs of objects whose sizes differ by a factor of up to a hundred.
pub fn sizes_differ(objects: usize) -> Trace {
    let size = |object| {
        let least = (SIZE / 100) << data::pick(11, object, 7);
        least + data::pick(12, object, 1 << 20) as u64 % least
    };
    let sizes: Vec<u64> = (0..objects as u64).map(size).collect();
    Trace {
        capacity: sizes.iter().sum::<u64>() / 2,
        sizes,
        ..epochs(
            "three shuffled epochs, sizes differ, a half fits",
            objects,
            objects / 2,
            3,
        )
    }
}

/// Epochs that are not shuffled.
pub fn in_order(objects: usize) -> Trace {
    let reads = (0..3).flat_map(|_| 0..objects).collect();
    Trace {
        counted_from: objects,
        best: Some(0.5),
        ..Trace::new(
            "three epochs in order, a half fits",
            objects,
            objects / 2,
            reads,
        )
    }
}

/// Epochs as loaders with several workers do them: the next one begins before the last has ended,
/// and some objects are read twice.
pub fn untidy(objects: usize) -> Trace {
    let overlap = objects / 40;
    let mut reads: Vec<usize> = (0..5)
        .flat_map(|epoch| data::shuffled(epoch, objects))
        .collect();
    for border in (1..5).map(|epoch| epoch * objects) {
        for at in border - overlap..border + overlap {
            let other = data::pick(61, at as u64, overlap * 2);
            reads.swap(at, border - overlap + other);
        }
    }
    for at in (0..reads.len()).step_by(50) {
        let earlier = at.saturating_sub(data::pick(62, at as u64, objects));
        reads[at] = reads[earlier];
    }
    Trace {
        counted_from: objects,
        best: Some(0.5),
        ..Trace::new(
            "five untidy epochs, a half fits",
            objects,
            objects / 2,
            reads,
        )
    }
}

/// Few objects are read often and many seldom.
pub fn zipf(name: &str, objects: usize, cached: usize, exponent: f64) -> Trace {
    let draw = Zipf::new(objects, exponent);
    let reads = (0..objects as u64 * 5).map(|at| draw.at(21, at)).collect();
    Trace {
        counted_from: objects,
        ..Trace::new(name, objects, cached, reads)
    }
}

/// The same, with a scan of twice the cache now and then.
pub fn zipf_with_scans(objects: usize) -> Trace {
    let draw = Zipf::new(objects, 1.0);
    let cached = objects / 10;
    let mut reads = Vec::new();
    for part in 0..5_u64 {
        reads.extend((0..objects as u64).map(|at| draw.at(31 + part, at)));
        let start = objects + usize::try_from(part).unwrap_or(0) * cached * 2;
        reads.extend(start..start + cached * 2);
    }
    Trace {
        counted_from: objects,
        ..Trace::new(
            "Zipf 1.0 with scans, a tenth fits",
            objects * 2,
            cached,
            reads,
        )
    }
}

/// Everything once, and a few objects again and again.
pub fn scan(objects: usize) -> Trace {
    let cached = objects / 20;
    let hot = cached / 2;
    let mut reads = Vec::new();
    for at in 0..objects * 2 {
        reads.push(hot + at);
        if at % 2 == 0 {
            reads.push(data::pick(41, at as u64, hot));
        }
    }
    let name = "a long scan beside a hot set";
    Trace::new(name, objects * 2 + hot, cached, reads)
}

/// A job in shuffled epochs beside a service.
pub fn epochs_and_zipf(objects: usize) -> Trace {
    let half = objects / 2;
    let draw = Zipf::new(half, 1.0);
    let mut reads = Vec::new();
    for epoch in 0..5 {
        for (at, object) in data::shuffled(epoch, half).into_iter().enumerate() {
            reads.push(object);
            reads.push(half + draw.at(51 + epoch, at as u64));
        }
    }
    Trace {
        counted_from: objects,
        ..Trace::new(
            "shuffled epochs beside Zipf 1.0, a third fits",
            objects,
            objects / 3,
            reads,
        )
    }
}

/// Epochs of one data set, then of another.
pub fn another_data_set(objects: usize) -> Trace {
    let half = objects / 2;
    let mut reads = Vec::new();
    for epoch in 0..10 {
        let first = if epoch < 5 { 0 } else { half };
        reads.extend(data::shuffled(epoch, half).into_iter().map(|at| first + at));
    }
    Trace {
        counted_from: half,
        ..Trace::new(
            "epochs of one data set, then of another, a half fits",
            objects,
            half / 2,
            reads,
        )
    }
}

/// Two jobs at once, one of which reads its data set three times as fast.
pub fn two_jobs(objects: usize) -> Trace {
    let half = objects / 2;
    let fast: Vec<usize> = (0..9)
        .flat_map(|epoch| data::shuffled(epoch, half))
        .collect();
    let slow = (0..3).flat_map(|epoch| data::shuffled(100 + epoch, half));
    let mut reads = Vec::new();
    for (three, one) in fast.as_chunks::<3>().0.iter().zip(slow) {
        reads.extend(three);
        reads.push(half + one);
    }
    Trace {
        counted_from: objects * 2,
        ..Trace::new(
            "two jobs, one three times as fast, a half fits",
            objects,
            half,
            reads,
        )
    }
}

/// Draws numbers of which the first are the most frequent.
struct Zipf {
    /// The share of all draws up to each number.
    sums: Vec<f64>,
}

impl Zipf {
    fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=count).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Zipf {
            sums: sums.collect(),
        }
    }

    fn at(&self, seed: u64, index: u64) -> usize {
        const STEPS: usize = 1 << 30;
        let total = self.sums.last().copied().unwrap_or(0.0);
        let drawn = data::pick(seed, index, STEPS) as f64 / STEPS as f64 * total;
        self.sums.partition_point(|sum| *sum <= drawn)
    }
}
