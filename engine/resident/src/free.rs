//! The free pages of a node: single ones, and whole blocks.
//!
//! VMs get their memory by blocks ([`crate::blocks`]), everybody else by the page. Single pages come from blocks that are
//! free in part; whole blocks are broken up when there is nothing else. A block whose last page comes back is whole
//! again. What nobody has had yet is a range, so that it costs nothing to be free.

use std::collections::BTreeMap;
use std::ops::Range;

use machine::Mpn;

use crate::blocks::BLOCK_PAGES;

const WORDS: usize = BLOCK_PAGES as usize / 64;

/// A bit for each page of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageSet([u64; WORDS]);

impl PageSet {
    pub(crate) const ALL: PageSet = PageSet([u64::MAX; WORDS]);

    /// Adds a page by its place in the block. False: it is there already.
    pub(crate) fn insert(&mut self, place: u32) -> bool {
        let (word, bit) = (place as usize / 64, 1 << (place % 64));
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    /// Removes a page. False: it is not there.
    pub(crate) fn remove(&mut self, place: u32) -> bool {
        let (word, bit) = (place as usize / 64, 1 << (place % 64));
        let was_there = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        was_there
    }

    /// Removes the first page.
    fn pop(&mut self) -> Option<u32> {
        let word = self.0.iter().position(|word| *word != 0)?;
        let bit = self.0[word].trailing_zeros();
        self.0[word] &= self.0[word] - 1;
        Some(word as u32 * 64 + bit)
    }

    /// The places of its pages, in order.
    pub(crate) fn iter(mut self) -> impl Iterator<Item = u32> {
        std::iter::from_fn(move || self.pop())
    }
}

/// The free pages of a node.
#[derive(Debug)]
pub(crate) struct FreePages {
    /// Blocks that are free in part, by their numbers.
    broken: BTreeMap<u32, PageSet>,
    /// How many pages these are.
    single: usize,
    /// Numbers of the blocks that somebody had and that are free again.
    whole: Vec<u32>,
    /// Nobody has had these yet.
    fresh: Range<u32>,
}

impl FreePages {
    /// Pages that nobody has had yet.
    pub(crate) fn new(fresh: Range<u32>) -> FreePages {
        FreePages { broken: BTreeMap::new(), single: 0, whole: Vec::new(), fresh }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.single + self.whole.len() * BLOCK_PAGES as usize + self.fresh.len()
    }

    /// Takes a page: the first of the last broken block, a fresh one, or one of a whole block.
    pub(crate) fn take(&mut self) -> Option<Mpn> {
        if self.broken.is_empty() {
            if let Some(page) = self.fresh.next() {
                return Some(Mpn(page));
            }
            self.broken.insert(self.whole.pop()?, PageSet::ALL);
            self.single += BLOCK_PAGES as usize;
        }
        let mut last = self.broken.last_entry()?;
        let block = *last.key();
        let place = last.get_mut().pop().expect("a broken block has a free page");
        if *last.get() == PageSet::default() {
            last.remove();
        }
        self.single -= 1;
        Some(Mpn(block * BLOCK_PAGES + place))
    }

    /// Takes a whole block; its first page. Fresh pages before its beginning become single.
    pub(crate) fn take_block(&mut self) -> Option<Mpn> {
        if let Some(block) = self.whole.pop() {
            return Some(Mpn(block * BLOCK_PAGES));
        }
        let first = self.fresh.start.next_multiple_of(BLOCK_PAGES);
        if first + BLOCK_PAGES > self.fresh.end {
            return None;
        }
        let before = self.fresh.start..first;
        self.fresh.start = first + BLOCK_PAGES;
        before.for_each(|page| self.put(Mpn(page)));
        Some(Mpn(first))
    }

    /// Puts a page back.
    pub(crate) fn put(&mut self, page: Mpn) {
        let block = page.0 / BLOCK_PAGES;
        let set = self.broken.entry(block).or_default();
        assert!(set.insert(page.0 % BLOCK_PAGES), "machine page {page} is free already");
        self.single += 1;
        if *set == PageSet::ALL {
            self.broken.remove(&block);
            self.single -= BLOCK_PAGES as usize;
            self.whole.push(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn single_pages_come_from_broken_blocks_then_fresh_then_from_whole_ones() {
        let mut free = FreePages::new(250..1024);
        let first_block = free.take_block().unwrap();
        assert_eq!(first_block, Mpn(256), "blocks are aligned");
        let taken: Vec<u32> = (0..7).map(|_| free.take().unwrap().0).collect();
        assert_eq!(taken, [250, 251, 252, 253, 254, 255, 512], "what was before the block comes first");
        for place in (0..BLOCK_PAGES).rev() {
            free.put(Mpn(first_block.0 + place));
        }
        assert_eq!(free.take(), Some(Mpn(513)), "the block is whole again, and left so");
        assert_eq!(free.take_block(), Some(first_block));
        assert_eq!(free.take_block(), Some(Mpn(768)));
        assert_eq!(free.take_block(), None);
        assert_eq!(free.count(), 254);
    }

    #[test]
    #[should_panic(expected = "is free already")]
    fn a_page_that_is_put_back_twice_is_noticed() {
        let mut free = FreePages::new(0..16);
        let page = free.take().unwrap();
        free.put(page);
        free.put(page);
    }

    #[test]
    fn every_page_is_free_or_taken_and_never_both() {
        let mut free = FreePages::new(3..2000);
        let mut taken: BTreeSet<u32> = BTreeSet::new();
        let mut state = 1u64;
        for _ in 0..20_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let pages: Vec<u32> = match state >> 60 {
                0 => free.take_block().map_or(vec![], |first| (first.0..first.0 + BLOCK_PAGES).collect()),
                1..=8 => free.take().map_or(vec![], |page| vec![page.0]),
                kind => {
                    let from = (state >> 32) as u32 % 2000;
                    let count = if kind == 15 { 400 } else { 1 };
                    for page in taken.range(from..).take(count).copied().collect::<Vec<u32>>() {
                        taken.remove(&page);
                        free.put(Mpn(page));
                    }
                    vec![]
                }
            };
            assert!(pages.iter().all(|page| (3..2000).contains(page) && taken.insert(*page)));
            assert_eq!(free.count() + taken.len(), 1997);
        }
    }
}
