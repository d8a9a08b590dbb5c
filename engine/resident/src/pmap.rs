//! The pmap of a VM: a row a physical page, with what it is, where it is, and who maps it.
//!
//! The *backmaps* of a page are the virtual addresses under which it went into a TLB, so that the monitor can
//! take it out again without searching. There is room for three (a kernel's direct map, a user's mapping and
//! one more); when a fourth comes, the page's row is marked `overflowed` and a shootdown searches the VM's TLBs
//! instead. A backmap may be stale (the guest has dropped the mapping itself): taking out what is not there does
//! no harm.
//!
//! Backmaps lie in a table of their own, because only pages that a TLB may hold need any, and TLBs are small. Page
//! `n` has row `n` modulo the number of rows. Two pages that want the same row are at least 64 MiB apart; the one
//! that was mapped last has it, and the other is overflowed. So a page costs eight bytes, however large the VM.
//!
//! A row of zeros says *absent*, which is what nearly all RAM of a VM is at first, and what memory of the host
//! is until it is touched: so a VM that uses little of its memory has a pmap that costs little.
//!
//! Source: Disco (SOSP'97) section 4.2.2.

use machine::memory::MemoryError;
use machine::{Asid, Mpn, PhysRange, Ppn};

use crate::blocks::{BLOCK_PAGES, Blocks, Run};
use crate::table::{Row, Table};

/// What a physical page is to the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageState {
    /// RAM without a machine page yet: the first touch is a page fault.
    Absent = 0,
    /// Not memory and not a device: nothing answers there. The table has no such rows; [`Pmap::row`] makes them
    /// of the rows of zeros outside of RAM.
    Nothing = 1,
    /// RAM on a machine page of its own.
    Private = 2,
    /// RAM on a machine page that others map too; never writable.
    Shared = 3,
    /// Registers of a device: each access traps.
    Device = 4,
}

impl PageState {
    /// Whether there is a machine page behind it.
    pub fn has_page(self) -> bool {
        matches!(self, PageState::Private | PageState::Shared)
    }

    fn from_byte(byte: u8) -> PageState {
        match byte {
            0 => PageState::Absent,
            1 => PageState::Nothing,
            2 => PageState::Private,
            3 => PageState::Shared,
            4 => PageState::Device,
            other => unreachable!("pmap state {other} was never written"),
        }
    }
}

/// One row, 8 bytes, as Python sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PmapRow {
    /// Machine page, if the state has one.
    pub mpn: u32,
    /// A [`PageState`].
    pub state: u8,
    /// 1 if the VM may write the page.
    pub writable: u8,
    /// 1 if more mappings were made than its backmaps name.
    pub overflowed: u8,
    /// 1 if it is shared because it had the content of another.
    pub merged: u8,
}

// SAFETY: repr(C), 4 + 4 * 1 = 8 bytes without padding, plain integers.
unsafe impl Row for PmapRow {}
const _: () = assert!(size_of::<PmapRow>() == 8);

/// Backmaps that a page can have.
pub const BACKMAPS: usize = 3;

/// The backmaps of one page, 32 bytes, as Python sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct BackmapRow {
    /// The page, if `count` is not 0.
    pub ppn: u32,
    /// How many of `backmaps` are in use.
    pub count: u32,
    /// See [`Backmap`].
    pub backmaps: [u64; BACKMAPS],
}

// SAFETY: repr(C), 2 * 4 + 3 * 8 = 32 bytes without padding, plain integers.
unsafe impl Row for BackmapRow {}
const _: () = assert!(size_of::<BackmapRow>() == 32);

impl BackmapRow {
    /// The backmaps in use.
    pub fn used(&self) -> &[u64] {
        &self.backmaps[..self.count as usize]
    }
}

/// Rows of backmaps that a VM has at most: enough for 64 MiB in one piece.
pub const BACKMAP_ROWS_MAX: usize = 1 << 14;

impl PmapRow {
    const NOTHING: PmapRow =
        PmapRow { mpn: 0, state: PageState::Nothing as u8, writable: 0, overflowed: 0, merged: 0 };

    /// The state, as a type.
    pub fn state(&self) -> PageState {
        PageState::from_byte(self.state)
    }
}

/// A virtual page under which a physical page is mapped: address bits 63:12 in place, bit 8 set for a
/// global mapping, ASID in bits 7:0 (0 if global).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backmap(pub u64);

const BACKMAP_GLOBAL: u64 = 1 << 8;

impl Backmap {
    /// The backmap of a mapping at `vaddr`.
    pub fn new(vaddr: u64, asid: Asid, global: bool) -> Backmap {
        let page = vaddr & !0xfff;
        Backmap(if global { page | BACKMAP_GLOBAL } else { page | u64::from(asid.0) })
    }
    /// First byte of the virtual page.
    pub fn vaddr(self) -> u64 {
        self.0 & !0xfff
    }
    /// The address space, unless global.
    pub fn asid(self) -> Option<Asid> {
        (self.0 & BACKMAP_GLOBAL == 0).then_some(Asid(self.0 as u8))
    }
}

/// The table of one VM.
#[derive(Debug)]
pub struct Pmap {
    table: Table<PmapRow>,
    /// A power of two of rows.
    backmaps: Table<BackmapRow>,
    /// Where the machine pages lie in one piece.
    blocks: Blocks,
    /// Whole pages.
    ram: Vec<PhysRange>,
}

impl Pmap {
    /// A pmap of `pages` rows in which RAM is absent and nothing else exists. `large_pages`: whether it is to know
    /// where entries of larger pages are possible.
    ///
    /// # Errors
    /// [`MemoryError::Host`] when the host refuses the address space.
    pub fn new(pages: usize, ram: &[PhysRange], large_pages: bool) -> Result<Pmap, MemoryError> {
        let backmap_rows = pages.next_power_of_two().min(BACKMAP_ROWS_MAX);
        let blocks = Blocks::new(if large_pages { pages } else { 0 });
        Ok(Pmap { table: Table::new(pages)?, backmaps: Table::new(backmap_rows)?, blocks, ram: ram.to_vec() })
    }

    /// Bytes of the rows of a VM with `ram_pages` pages of RAM.
    pub fn bytes(ram_pages: u64) -> u64 {
        let backmap_rows = ram_pages.next_power_of_two().min(BACKMAP_ROWS_MAX as u64);
        let rows = ram_pages * size_of::<PmapRow>() as u64 + backmap_rows * size_of::<BackmapRow>() as u64;
        rows + Blocks::bytes(ram_pages)
    }

    /// The shared table.
    pub fn table(&self) -> &Table<PmapRow> {
        &self.table
    }

    /// The shared table of backmaps.
    pub fn backmap_table(&self) -> &Table<BackmapRow> {
        &self.backmaps
    }

    /// The row of a page. Where there is neither RAM nor a device it says [`PageState::Nothing`], also beyond
    /// the table.
    #[inline]
    pub fn row(&self, page: Ppn) -> PmapRow {
        let index = page.0 as usize;
        let row = if index < self.table.rows() { self.table.get(index) } else { PmapRow::default() };
        if row.state == PageState::Absent as u8 && !self.is_ram(page) { PmapRow::NOTHING } else { row }
    }

    fn is_ram(&self, page: Ppn) -> bool {
        self.ram.iter().any(|range| (range.base.0..range.end()).contains(&page.address().0))
    }

    /// The pages that have a machine page, with their rows.
    pub fn present(&self) -> impl Iterator<Item = (Ppn, PmapRow)> {
        self.present_from(Ppn(0))
    }

    /// Those of them that do not lie before `first`.
    pub fn present_from(&self, first: Ppn) -> impl Iterator<Item = (Ppn, PmapRow)> {
        let pages = self.ram.iter().flat_map(|range| range.pages()).filter(move |page| *page >= first);
        pages.map(|page| (page, self.row(page))).filter(|(_, row)| row.state().has_page())
    }

    /// Makes a page that is nothing a page of device registers.
    pub fn set_device(&mut self, page: Ppn) {
        self.table.set(page.0 as usize, PmapRow { state: PageState::Device as u8, ..PmapRow::default() });
    }

    /// Takes a page's machine page away. Mappings of it must have been shot down.
    pub fn set_absent(&mut self, page: Ppn) {
        assert!(self.is_ram(page), "only RAM is absent");
        self.clear_backmaps(page);
        self.change(page, PmapRow::default());
    }

    /// Gives a page its machine page. Mappings of an earlier one must have been shot down.
    pub fn set_page(&mut self, page: Ppn, mpn: Mpn, state: PageState, writable: bool) {
        assert!(state.has_page() && self.is_ram(page), "only RAM has a machine page");
        assert!(!(writable && state == PageState::Shared), "a shared page is never writable");
        self.clear_backmaps(page);
        let row = PmapRow { mpn: mpn.0, state: state as u8, writable: writable.into(), ..PmapRow::default() };
        self.change(page, row);
    }

    /// Changes whether the VM may write the page.
    pub fn set_writable(&mut self, page: Ppn, writable: bool) {
        let row = self.table.get(page.0 as usize);
        self.change(page, PmapRow { writable: writable.into(), ..row });
    }

    /// Notes that a page is shared because it had the content of another, until it gets a machine page again.
    pub fn mark_merged(&mut self, page: Ppn) {
        self.table.update(page.0 as usize, |row| row.merged = 1);
    }

    fn change(&mut self, page: Ppn, new: PmapRow) {
        let old = self.table.get(page.0 as usize);
        self.table.set(page.0 as usize, new);
        let Pmap { table, blocks, .. } = self;
        blocks.change(page, old, new, |page| table.get(page.0 as usize));
    }

    /// The run of machine pages behind `pages` physical pages from `first` on, if they lie so ([`crate::blocks`]).
    #[inline]
    pub fn run(&self, first: Ppn, pages: u32) -> Option<Run> {
        self.blocks.run(first, pages)
    }

    /// Notes that a TLB maps the run by an entry of larger pages. True: that is new of a part of it.
    pub fn record_run(&mut self, first: Ppn, pages: u32) -> bool {
        self.blocks.note_mapped(first, pages)
    }

    /// Whether the VM has any page of the block that this one is in.
    pub fn has_any_of_block(&self, page: Ppn) -> bool {
        let first = page.0 - page.0 % BLOCK_PAGES;
        (first..first + BLOCK_PAGES).any(|page| self.row(Ppn(page)).state().has_page())
    }

    /// Whether some TLB may hold the page.
    pub fn may_be_in_tlb(&self, page: Ppn) -> bool {
        self.row(page).overflowed != 0 || self.backmaps(page).count != 0 || self.blocks.is_mapped(page)
    }

    /// Has the host fetch what the tables say of a page, before that is asked for.
    #[inline]
    pub fn prefetch(&self, page: Ppn) {
        self.table.prefetch(page.0 as usize);
        self.backmaps.prefetch(self.backmap_index(page));
    }

    /// Notes that the page is now in a TLB under this address.
    #[inline]
    pub fn record(&mut self, page: Ppn, backmap: Backmap) {
        if self.table.get(page.0 as usize).overflowed != 0 {
            return;
        }
        let index = self.backmap_index(page);
        let row = self.backmaps.get(index);
        if row.ppn != page.0 || row.count == 0 {
            self.evict_backmaps(index);
            let backmaps = [backmap.0, 0, 0];
            self.backmaps.set(index, BackmapRow { ppn: page.0, count: 1, backmaps });
        } else if !row.used().contains(&backmap.0) {
            self.add_backmap(page, backmap);
        }
    }

    fn add_backmap(&mut self, page: Ppn, backmap: Backmap) {
        let index = self.backmap_index(page);
        let mut row = self.backmaps.get(index);
        match row.backmaps.get_mut(row.count as usize) {
            Some(free) => {
                *free = backmap.0;
                row.count += 1;
                self.backmaps.set(index, row);
            }
            None => self.evict_backmaps(index),
        }
    }

    /// Empties a row of backmaps; a page that had them is overflowed then.
    fn evict_backmaps(&mut self, index: usize) {
        let row = self.backmaps.get(index);
        if row.count != 0 {
            self.table.update(row.ppn as usize, |row| row.overflowed = 1);
            self.backmaps.set(index, BackmapRow::default());
        }
    }

    /// The backmaps of a page. They are all that there are unless its row is overflowed; then there are none.
    pub fn backmaps(&self, page: Ppn) -> BackmapRow {
        let row = self.backmaps.get(self.backmap_index(page));
        if row.ppn == page.0 { row } else { BackmapRow::default() }
    }

    /// Forgets the mappings of a page; the caller has taken them out of every TLB.
    pub fn clear_backmaps(&mut self, page: Ppn) {
        self.blocks.clear_mapped(page);
        self.table.update(page.0 as usize, |row| row.overflowed = 0);
        let index = self.backmap_index(page);
        if self.backmaps.get(index).ppn == page.0 {
            self.backmaps.set(index, BackmapRow::default());
        }
    }

    #[inline]
    fn backmap_index(&self, page: Ppn) -> usize {
        page.0 as usize & (self.backmaps.rows() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::{PAGE_BYTES, PhysAddr};

    /// Four rows, of which the first `ram_pages` are RAM.
    fn small(ram_pages: u64) -> Pmap {
        let ram = PhysRange { base: PhysAddr(0), bytes: ram_pages * PAGE_BYTES };
        Pmap::new(4, &[ram], false).expect("small table")
    }

    #[test]
    fn a_row_of_zeros_is_absent_in_ram_and_nothing_outside() {
        let mut pmap = small(2);
        let states = |pmap: &Pmap| [0, 1, 2, 3].map(|page| pmap.row(Ppn(page)).state());
        use PageState::{Absent, Device, Nothing, Private};
        assert_eq!(states(&pmap), [Absent, Absent, Nothing, Nothing]);
        pmap.set_page(Ppn(1), Mpn(9), Private, true);
        pmap.set_device(Ppn(2));
        assert_eq!(states(&pmap), [Absent, Private, Device, Nothing]);
        pmap.set_absent(Ppn(1));
        assert_eq!(states(&pmap), [Absent, Absent, Device, Nothing]);
        assert_eq!(pmap.table().get(1), PmapRow::default());
    }

    #[test]
    fn a_fourth_mapping_marks_the_row_overflowed_and_clearing_forgets_all() {
        let mut pmap = small(4);
        pmap.set_page(Ppn(1), Mpn(9), PageState::Private, true);
        for asid in 0..3 {
            pmap.record(Ppn(1), Backmap::new(0x1000, Asid(asid), false));
            pmap.record(Ppn(1), Backmap::new(0x1000, Asid(asid), false));
            assert_eq!((pmap.backmaps(Ppn(1)).count, pmap.row(Ppn(1)).overflowed), (u32::from(asid) + 1, 0));
        }
        pmap.record(Ppn(1), Backmap::new(0x1000, Asid(3), false));
        assert_eq!((pmap.backmaps(Ppn(1)).count, pmap.row(Ppn(1)).overflowed), (0, 1));
        pmap.clear_backmaps(Ppn(1));
        assert_eq!((pmap.row(Ppn(1)).mpn, pmap.backmaps(Ppn(1)).count, pmap.row(Ppn(1)).overflowed), (9, 0, 0));
    }

    #[test]
    fn of_two_pages_for_one_row_of_backmaps_the_later_has_it_and_the_other_is_overflowed() {
        let ram = PhysRange { base: PhysAddr(0), bytes: 3 * BACKMAP_ROWS_MAX as u64 * PAGE_BYTES };
        let mut pmap = Pmap::new(3 * BACKMAP_ROWS_MAX, &[ram], false).expect("sparse table");
        let pages = [5, 5 + BACKMAP_ROWS_MAX as u32, 5 + 2 * BACKMAP_ROWS_MAX as u32].map(Ppn);
        let backmap = Backmap::new(0x1000, Asid(0), false);
        let overflowed = |pmap: &Pmap| pages.map(|page| pmap.row(page).overflowed);
        let counts = |pmap: &Pmap| pages.map(|page| pmap.backmaps(page).count);
        for page in pages {
            pmap.set_page(page, Mpn(page.0 + 1), PageState::Private, true);
            pmap.record(page, backmap);
        }
        assert_eq!((overflowed(&pmap), counts(&pmap)), ([1, 1, 0], [0, 0, 1]));
        pmap.record(pages[0], backmap); // nothing can be known of it until it is shot down
        assert_eq!((overflowed(&pmap), counts(&pmap)), ([1, 1, 0], [0, 0, 1]));
        pmap.clear_backmaps(pages[0]); // of no concern to who has the row
        assert_eq!((overflowed(&pmap), counts(&pmap)), ([0, 1, 0], [0, 0, 1]));
        pmap.record(pages[0], backmap);
        assert_eq!((overflowed(&pmap), counts(&pmap)), ([0, 1, 1], [1, 0, 0]));
        pmap.set_absent(pages[0]);
        assert_eq!(counts(&pmap), [0, 0, 0]);
    }

    #[test]
    fn a_page_beyond_the_table_is_nothing() {
        assert_eq!(small(4).row(Ppn(4)).state(), PageState::Nothing);
    }

    #[test]
    fn a_backmap_keeps_address_and_space() {
        let user = Backmap::new(0x7fff_1234, Asid(0xff), false);
        assert_eq!((user.vaddr(), user.asid()), (0x7fff_1000, Some(Asid(0xff))));
        let kernel = Backmap::new(0xffff_ffff_8000_0fff, Asid(3), true);
        assert_eq!((kernel.vaddr(), kernel.asid()), (0xffff_ffff_8000_0000, None));
    }
}
