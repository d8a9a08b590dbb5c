//! Where a VM's memory lies in machine memory in one piece, so that one entry of the TLB can map much of it.
//!
//! The TLB has entries of larger pages than 4 KiB. The monitor can use one where the guest maps as much by one entry of
//! its own, or by a segment that it does not map at all, and where the machine pages behind lie as the physical
//! pages do: one after the other, aligned to the size, all writable or none. Such a stretch is a *run*. The 1997
//! system mapped by pairs of 4 KiB pages only; section 5.2 of the paper names this as what would cut the kernel's TLB
//! misses most.
//!
//! Runs have two sizes: a *block* of 1 MiB, and a sixteenth of it, 64 KiB. What a block knows is derived from the
//! rows of the pmap: how many pages of each sixteenth are *in place*, that is, where the block begins in machine
//! memory plus their distance from its beginning. Pages get there because they are handed out by blocks
//! ([`crate::reserve`]); nothing here depends on it. A page that is taken away, moved or shared is not in place any more,
//! and [`Blocks::is_mapped`] says whether an entry of larger pages may still hold it, which must be shot down.
//!
//! Source: MIPS64 PRA vol. III, PageMask; Disco (SOSP'97) section 5.2.

use machine::{Mpn, Ppn};

use crate::pmap::PmapRow;

/// Pages of a block.
pub const BLOCK_PAGES: u32 = 256;
/// Pages of the smaller run, a sixteenth of a block.
pub const PART_PAGES: u32 = 16;
const PARTS: usize = (BLOCK_PAGES / PART_PAGES) as usize;
/// The sizes of runs in pages, the largest first.
pub const RUN_PAGES: [u32; 2] = [BLOCK_PAGES, PART_PAGES];

/// Machine pages that lie as the physical pages do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first.
    pub mpn: Mpn,
    /// Whether the VM may write them: all or none.
    pub writable: bool,
}

/// What is known of a block of physical pages.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    /// Where it begins in machine memory, if any page is in place.
    base: u32,
    /// Pages in place, and those of them that the VM may write, by sixteenths.
    in_place: [u8; PARTS],
    writable: [u8; PARTS],
    /// A bit for each sixteenth that an entry of larger pages may hold.
    mapped: u16,
}

/// The blocks of one VM.
#[derive(Debug)]
pub struct Blocks(Vec<Block>);

impl Blocks {
    /// The blocks of a VM with that many rows in its pmap, all absent. With no rows there are no runs.
    pub fn new(rows: usize) -> Blocks {
        Blocks(vec![Block::default(); rows.div_ceil(BLOCK_PAGES as usize)])
    }

    /// Bytes for a VM with that many pages of RAM.
    pub fn bytes(ram_pages: u64) -> u64 {
        ram_pages.div_ceil(u64::from(BLOCK_PAGES)) * size_of::<Block>() as u64
    }

    /// The row of a page has changed; `row` is what the rows say now.
    pub fn change(&mut self, page: Ppn, old: PmapRow, new: PmapRow, row: impl Fn(Ppn) -> PmapRow) {
        let Some(block) = self.0.get_mut((page.0 / BLOCK_PAGES) as usize) else { return };
        let place = page.0 % BLOCK_PAGES;
        if block.has_in_place(place, &old) {
            block.count(place, &old, u8::wrapping_sub);
        }
        if new.state().has_page() && block.in_place == [0; PARTS] && new.mpn % BLOCK_PAGES == place {
            // Nothing is in place: the page says from now on where the block is. Others may be there already.
            block.base = new.mpn - place;
            let first = page.0 - place;
            for place in 0..BLOCK_PAGES {
                block.add(place, &row(Ppn(first + place)));
            }
        } else {
            block.add(place, &new);
        }
    }

    /// The run of `pages` physical pages ([`RUN_PAGES`]) from `first` on, if there is one.
    #[inline]
    pub fn run(&self, first: Ppn, pages: u32) -> Option<Run> {
        let block = self.0.get((first.0 / BLOCK_PAGES) as usize)?;
        let place = first.0 % BLOCK_PAGES;
        let part = (place / PART_PAGES) as usize;
        let parts = (pages / PART_PAGES) as usize;
        if !place.is_multiple_of(pages) {
            return None;
        }
        let (in_place, writable) = (&block.in_place[part..part + parts], &block.writable[part..part + parts]);
        let is_whole = |counts: &[u8]| counts.iter().all(|count| u32::from(*count) == PART_PAGES);
        let is_writable = is_whole(writable);
        if !is_whole(in_place) || !is_writable && writable.iter().any(|count| *count != 0) {
            return None;
        }
        Some(Run { mpn: Mpn(block.base + place), writable: is_writable })
    }

    /// Notes that an entry of larger pages maps the run. True: that is new of a part of it.
    pub fn note_mapped(&mut self, first: Ppn, pages: u32) -> bool {
        let block = &mut self.0[(first.0 / BLOCK_PAGES) as usize];
        let bits = (1 << (pages / PART_PAGES)) - 1;
        let before = block.mapped;
        block.mapped |= (bits << (first.0 % BLOCK_PAGES / PART_PAGES)) as u16;
        block.mapped != before
    }

    /// Whether an entry of larger pages may hold the page.
    pub fn is_mapped(&self, page: Ppn) -> bool {
        let block = self.0.get((page.0 / BLOCK_PAGES) as usize);
        block.is_some_and(|block| block.mapped & part_bit(page) != 0)
    }

    /// Notes that no entry of larger pages holds the page, and so none of its sixteenth.
    pub fn clear_mapped(&mut self, page: Ppn) {
        if let Some(block) = self.0.get_mut((page.0 / BLOCK_PAGES) as usize) {
            block.mapped &= !part_bit(page);
        }
    }
}

impl Block {
    fn add(&mut self, place: u32, row: &PmapRow) {
        if self.has_in_place(place, row) {
            self.count(place, row, u8::wrapping_add);
        }
    }

    fn count(&mut self, place: u32, row: &PmapRow, step: fn(u8, u8) -> u8) {
        let part = (place / PART_PAGES) as usize;
        self.in_place[part] = step(self.in_place[part], 1);
        self.writable[part] = step(self.writable[part], row.writable);
    }

    fn has_in_place(&self, place: u32, row: &PmapRow) -> bool {
        row.state().has_page() && row.mpn == self.base + place
    }
}

fn part_bit(page: Ppn) -> u16 {
    1 << (page.0 % BLOCK_PAGES / PART_PAGES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pmap::PageState;

    fn row(mpn: u32, writable: bool) -> PmapRow {
        let state = if writable { PageState::Private } else { PageState::Shared };
        PmapRow { mpn, state: state as u8, writable: writable.into(), ..PmapRow::default() }
    }

    /// Pages from `first` on get machine pages from `mpn` on.
    fn place(blocks: &mut Blocks, rows: &mut [PmapRow], first: u32, pages: u32, mpn: u32, writable: bool) {
        for page in 0..pages {
            let (new, index) = (row(mpn + page, writable), (first + page) as usize);
            let old = std::mem::replace(&mut rows[index], new);
            blocks.change(Ppn(first + page), old, new, |page| rows[page.0 as usize]);
        }
    }

    #[test]
    fn a_run_is_there_when_its_last_page_is_and_gone_with_any_of_them() {
        let (mut blocks, mut rows) = (Blocks::new(1024), vec![PmapRow::default(); 1024]);
        let base = 7 * BLOCK_PAGES;
        place(&mut blocks, &mut rows, 256, 255, base, true);
        assert_eq!(blocks.run(Ppn(256), 16), Some(Run { mpn: Mpn(base), writable: true }));
        assert_eq!((blocks.run(Ppn(496), 16), blocks.run(Ppn(256), 256)), (None, None), "one page is absent");
        place(&mut blocks, &mut rows, 511, 1, base + 255, true);
        assert_eq!(blocks.run(Ppn(256), 256), Some(Run { mpn: Mpn(base), writable: true }));
        place(&mut blocks, &mut rows, 300, 1, base + 44, false);
        assert_eq!((blocks.run(Ppn(288), 16), blocks.run(Ppn(256), 256)), (None, None), "one is not writable");
        assert!(blocks.run(Ppn(304), 16).is_some());
        place(&mut blocks, &mut rows, 300, 1, base + 45, true);
        assert_eq!(blocks.run(Ppn(288), 16), None, "one is somewhere else");
        place(&mut blocks, &mut rows, 300, 1, base + 44, true);
        assert!(blocks.run(Ppn(256), 256).is_some());
    }

    #[test]
    fn pages_that_nobody_may_write_are_a_run_too() {
        let (mut blocks, mut rows) = (Blocks::new(256), vec![PmapRow::default(); 256]);
        place(&mut blocks, &mut rows, 0, 256, 512, false);
        assert_eq!(blocks.run(Ppn(0), 256), Some(Run { mpn: Mpn(512), writable: false }));
    }

    #[test]
    fn pages_that_are_not_aligned_alike_are_no_run_and_do_not_keep_others_from_it() {
        let (mut blocks, mut rows) = (Blocks::new(256), vec![PmapRow::default(); 256]);
        place(&mut blocks, &mut rows, 0, 16, 513, true);
        assert_eq!(blocks.run(Ppn(0), 16), None);
        place(&mut blocks, &mut rows, 16, 16, 1024 + 16, true);
        assert_eq!(blocks.run(Ppn(16), 16), Some(Run { mpn: Mpn(1040), writable: true }));
        assert_eq!(blocks.run(Ppn(9999), 16), None, "there is nothing");
    }

    #[test]
    fn random_changes_give_the_runs_that_the_rows_say() {
        let (mut blocks, mut rows) = (Blocks::new(256), vec![PmapRow::default(); 256]);
        let mut state = 1u64;
        let mut seen = [0; 2];
        for step in 0..60_000 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let random = |shift: u32, bound: u64| (state >> shift) % bound;
            // Long phases in which most pages come from one of two blocks, and few are taken away.
            let base = [512, 768][(step / 20_000) % 2];
            let page = random(40, 32) as u32;
            let new = match random(20, 60) {
                0 => PmapRow::default(),
                1 => row(base + page + 1, true),
                2 => row([512, 768][random(30, 2) as usize] + page, true),
                3 => row(base + page, false),
                _ => row(base + page, true),
            };
            let old = std::mem::replace(&mut rows[page as usize], new);
            blocks.change(Ppn(page), old, new, |page| rows[page.0 as usize]);
            for first in [0, 16] {
                let part = &rows[first as usize..first as usize + 16];
                let whole = |base: u32| (first..).zip(part).all(|(page, row)| row.mpn == base + page);
                let writable = part.iter().map(|row| row.writable).sum::<u8>();
                let wanted = [512, 768].into_iter().find(|base| whole(*base) && matches!(writable, 0 | 16));
                let wanted = wanted.map(|base| Run { mpn: Mpn(base + first), writable: writable == 16 });
                let found = blocks.run(Ppn(first), 16);
                assert!(found.is_none() || found == wanted, "step {step}: {found:?}, {wanted:?}");
                seen[usize::from(found.is_some())] += 1;
            }
        }
        assert!(seen.iter().all(|count| *count > 1000), "{seen:?}");
    }

    #[test]
    fn what_an_entry_may_hold_is_known_until_it_is_shot_down() {
        let mut blocks = Blocks::new(512);
        assert!(blocks.note_mapped(Ppn(256), 256) && blocks.note_mapped(Ppn(32), 16));
        assert!(!blocks.note_mapped(Ppn(256), 256) && !blocks.note_mapped(Ppn(272), 16));
        let mapped = |blocks: &Blocks| [31, 32, 47, 48, 256, 511].map(|page| blocks.is_mapped(Ppn(page)));
        assert_eq!(mapped(&blocks), [false, true, true, false, true, true]);
        blocks.clear_mapped(Ppn(40));
        blocks.clear_mapped(Ppn(257));
        assert!(blocks.note_mapped(Ppn(256), 256), "a part of it is new");
        blocks.clear_mapped(Ppn(257));
        assert_eq!(mapped(&blocks), [false, false, false, false, false, true]);
    }
}
