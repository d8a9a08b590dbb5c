//! Which stretches of the code buffer are free.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Code begins at multiples of this.
const ALIGNMENT: usize = 16;

/// Free stretches of `first..end`; none of them touch.
#[derive(Debug)]
pub struct Extents {
    /// By the first byte: the first byte behind.
    free: BTreeMap<usize, usize>,
    /// The same by length: that, and the first byte.
    by_length: BTreeSet<(usize, usize)>,
    end: usize,
    free_bytes: usize,
}

impl Extents {
    /// All of `first..end` is free.
    pub fn new(first: usize, end: usize) -> Extents {
        let first = first.next_multiple_of(ALIGNMENT);
        let mut extents =
            Extents { free: BTreeMap::new(), by_length: BTreeSet::new(), end, free_bytes: end - first };
        extents.add(first, end);
        extents
    }

    /// The shortest stretch of at least `bytes` bytes, the first of several. So the long one at the end stays
    /// free as far as others do.
    pub fn find(&self, bytes: usize) -> Option<Range<usize>> {
        self.by_length.range((bytes, 0)..).next().map(|(length, first)| *first..first + length)
    }

    /// Takes the first `bytes` bytes, rounded up, of a stretch that [`Extents::find`] found.
    pub fn take(&mut self, first: usize, bytes: usize) -> Range<usize> {
        let end = self.remove(first).expect("a free stretch begins there");
        let taken = (first + bytes).next_multiple_of(ALIGNMENT).min(end);
        assert!(first + bytes <= end, "{bytes} bytes are free at {first}");
        if taken < end {
            self.add(taken, end);
        }
        self.free_bytes -= taken - first;
        first..taken
    }

    /// Gives back what `take` gave.
    pub fn give(&mut self, range: Range<usize>) {
        self.free_bytes += range.len();
        let Range { mut start, mut end } = range;
        if let Some((&before, _)) = self.free.range(..start).next_back().filter(|(_, last)| **last == start) {
            self.remove(before);
            start = before;
        }
        if let Some(after) = self.remove(end) {
            end = after;
        }
        self.add(start, end);
    }

    fn add(&mut self, first: usize, end: usize) {
        self.free.insert(first, end);
        self.by_length.insert((end - first, first));
    }

    /// Takes the stretch from `first` out, if there is one; gives back the first byte behind it.
    fn remove(&mut self, first: usize) -> Option<usize> {
        let end = self.free.remove(&first)?;
        self.by_length.remove(&(end - first, first));
        Some(end)
    }

    /// The free stretch at the end; empty if the last byte is taken.
    pub fn tail(&self) -> Range<usize> {
        let last = self.free.last_key_value().filter(|(_, end)| **end == self.end);
        last.map_or(self.end, |(first, _)| *first)..self.end
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> usize {
        self.free_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_one_stretch_again_in_any_order() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut extents = Extents::new(8, 1024);
            let taken = [100, 1, 200].map(|bytes| {
                let found = extents.find(bytes).unwrap();
                extents.take(found.start, bytes)
            });
            assert_eq!(taken, [16..128, 128..144, 144..352]);
            assert_eq!(extents.tail(), 352..1024);
            order.into_iter().for_each(|which: usize| extents.give(taken[which].clone()));
            assert_eq!(extents.find(1008), Some(16..1024));
            assert_eq!(extents.find(1009), None);
            assert_eq!(extents.free_bytes(), 1008);
        }
    }

    #[test]
    fn the_shortest_stretch_that_is_large_enough_is_found() {
        let mut extents = Extents::new(0, 160);
        let taken = [16, 32, 16, 96].map(|bytes| extents.take(extents.find(bytes).unwrap().start, bytes));
        assert_eq!(extents.find(1), None);
        assert!(extents.tail().is_empty());
        extents.give(taken[0].clone());
        extents.give(taken[1].clone());
        extents.give(taken[3].clone());
        assert_eq!(extents.find(40), Some(0..48));
        assert_eq!(extents.find(10), Some(0..48));
        assert_eq!(extents.find(49), Some(64..160));
        extents.take(0, 20);
        assert_eq!(extents.find(10), Some(32..48));
        assert_eq!(extents.tail(), 64..160);
        assert_eq!(extents.free_bytes(), 112);
    }
}
