//! Which stretches of the code buffer are free.

use std::collections::BTreeMap;
use std::ops::Range;

/// Code begins at multiples of this.
const ALIGNMENT: usize = 16;

/// Free stretches of `first..end`; none of them touch.
#[derive(Debug)]
pub struct Extents {
    /// By the first byte: the first byte behind.
    free: BTreeMap<usize, usize>,
    end: usize,
    free_bytes: usize,
}

impl Extents {
    /// All of `first..end` is free.
    pub fn new(first: usize, end: usize) -> Extents {
        let first = first.next_multiple_of(ALIGNMENT);
        Extents { free: BTreeMap::from([(first, end)]), end, free_bytes: end - first }
    }

    /// The first stretch of at least `bytes` bytes. Low ones first, so that what is used stays together.
    pub fn find(&self, bytes: usize) -> Option<Range<usize>> {
        self.stretches().find(|stretch| stretch.len() >= bytes)
    }

    /// Takes the first `bytes` bytes, rounded up, of a stretch that [`Extents::find`] found.
    pub fn take(&mut self, first: usize, bytes: usize) -> Range<usize> {
        let end = self.free.remove(&first).expect("a free stretch begins there");
        let taken = (first + bytes).next_multiple_of(ALIGNMENT).min(end);
        assert!(first + bytes <= end, "{bytes} bytes are free at {first}");
        if taken < end {
            self.free.insert(taken, end);
        }
        self.free_bytes -= taken - first;
        first..taken
    }

    /// Gives back what `take` gave.
    pub fn give(&mut self, range: Range<usize>) {
        self.free_bytes += range.len();
        let Range { mut start, mut end } = range;
        if let Some((&before, _)) = self.free.range(..start).next_back().filter(|(_, last)| **last == start) {
            self.free.remove(&before);
            start = before;
        }
        if let Some(after) = self.free.remove(&end) {
            end = after;
        }
        self.free.insert(start, end);
    }

    /// The free stretch at the end; empty if the last byte is taken.
    pub fn tail(&self) -> Range<usize> {
        self.stretches().next_back().filter(|last| last.end == self.end).unwrap_or(self.end..self.end)
    }

    /// Bytes that are free.
    pub fn free_bytes(&self) -> usize {
        self.free_bytes
    }

    fn stretches(&self) -> impl DoubleEndedIterator<Item = Range<usize>> + '_ {
        self.free.iter().map(|(first, end)| *first..*end)
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
    fn the_lowest_stretch_that_is_large_enough_is_found() {
        let mut extents = Extents::new(0, 160);
        let taken = [16, 32, 16, 96].map(|bytes| extents.take(extents.find(bytes).unwrap().start, bytes));
        assert_eq!(extents.find(1), None);
        assert!(extents.tail().is_empty());
        extents.give(taken[0].clone());
        extents.give(taken[1].clone());
        extents.give(taken[3].clone());
        assert_eq!(extents.find(40), Some(0..48));
        assert_eq!(extents.find(49), Some(64..160));
        assert_eq!(extents.tail(), 64..160);
        assert_eq!(extents.free_bytes(), 144);
    }
}
