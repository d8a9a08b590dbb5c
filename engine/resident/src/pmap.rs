//! The pmap of a VM: a row a physical page, with what it is, where it is, and who maps it.
//!
//! The *backmaps* of a row are the virtual addresses under which the page went into a TLB, so that the
//! monitor can take it out again without searching. A row has room for three (a kernel's direct map, a
//! user's mapping and one more); when a fourth comes, the row is marked `overflowed` and a shootdown
//! searches the VM's TLBs instead. A backmap may be stale (the guest has dropped the mapping itself):
//! taking out what is not there does no harm.
//!
//! A row of zeros says *absent*, which is what nearly all RAM of a VM is at first, and what memory of the host
//! is until it is touched: so a VM that uses little of its memory has a pmap that costs little.
//!
//! Source: Disco (SOSP'97) section 4.2.2.

use machine::memory::MemoryError;
use machine::{Asid, Mpn, PhysRange, Ppn};

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

/// One row, 32 bytes, as Python sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PmapRow {
    /// Machine page, if the state has one.
    pub mpn: u32,
    /// A [`PageState`].
    pub state: u8,
    /// 1 if the VM may write the page.
    pub writable: u8,
    /// How many of `backmaps` are in use.
    pub backmap_count: u8,
    /// 1 if more mappings were made than `backmaps` can name.
    pub overflowed: u8,
    /// See [`Backmap`].
    pub backmaps: [u64; BACKMAPS],
}

/// Backmaps a row can name.
pub const BACKMAPS: usize = 3;

// SAFETY: repr(C), 4 + 4 * 1 + 3 * 8 = 32 bytes without padding, plain integers.
unsafe impl Row for PmapRow {}
const _: () = assert!(size_of::<PmapRow>() == 32);

impl PmapRow {
    const NOTHING: PmapRow = PmapRow {
        mpn: 0,
        state: PageState::Nothing as u8,
        writable: 0,
        backmap_count: 0,
        overflowed: 0,
        backmaps: [0; BACKMAPS],
    };

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
    /// Whole pages.
    ram: Vec<PhysRange>,
}

impl Pmap {
    /// A pmap of `pages` rows in which RAM is absent and nothing else exists.
    ///
    /// # Errors
    /// [`MemoryError::Host`] when the host refuses the address space.
    pub fn new(pages: usize, ram: &[PhysRange]) -> Result<Pmap, MemoryError> {
        Ok(Pmap { table: Table::new(pages)?, ram: ram.to_vec() })
    }

    /// The shared table.
    pub fn table(&self) -> &Table<PmapRow> {
        &self.table
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
        let pages = self.ram.iter().flat_map(|range| range.pages());
        pages.map(|page| (page, self.row(page))).filter(|(_, row)| row.state().has_page())
    }

    /// Makes a page that is nothing a page of device registers.
    pub fn set_device(&mut self, page: Ppn) {
        self.table.set(page.0 as usize, PmapRow { state: PageState::Device as u8, ..PmapRow::default() });
    }

    /// Takes a page's machine page away. Mappings of it must have been shot down.
    pub fn set_absent(&mut self, page: Ppn) {
        assert!(self.is_ram(page), "only RAM is absent");
        self.table.set(page.0 as usize, PmapRow::default());
    }

    /// Gives a page its machine page. Mappings of an earlier one must have been shot down.
    pub fn set_page(&mut self, page: Ppn, mpn: Mpn, state: PageState, writable: bool) {
        assert!(state.has_page() && self.is_ram(page), "only RAM has a machine page");
        assert!(!(writable && state == PageState::Shared), "a shared page is never writable");
        let row = PmapRow { mpn: mpn.0, state: state as u8, writable: writable.into(), ..PmapRow::default() };
        self.table.set(page.0 as usize, row);
    }

    /// Changes whether the VM may write the page.
    pub fn set_writable(&mut self, page: Ppn, writable: bool) {
        self.table.update(page.0 as usize, |row| row.writable = writable.into());
    }

    /// Notes that the page is now in a TLB under this address.
    #[inline]
    pub fn record(&mut self, page: Ppn, backmap: Backmap) {
        self.table.update(page.0 as usize, |row| {
            let used = usize::from(row.backmap_count);
            if row.overflowed != 0 || row.backmaps[..used].contains(&backmap.0) {
                return;
            }
            match row.backmaps.get_mut(used) {
                Some(free) => {
                    *free = backmap.0;
                    row.backmap_count += 1;
                }
                None => row.overflowed = 1,
            }
        });
    }

    /// Forgets the mappings of a page; the caller has taken them out of every TLB.
    pub fn clear_backmaps(&mut self, page: Ppn) {
        self.table.update(page.0 as usize, |row| {
            row.backmap_count = 0;
            row.overflowed = 0;
            row.backmaps = [0; BACKMAPS];
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machine::{PAGE_BYTES, PhysAddr};

    /// Four rows, of which the first `ram_pages` are RAM.
    fn small(ram_pages: u64) -> Pmap {
        let ram = PhysRange { base: PhysAddr(0), bytes: ram_pages * PAGE_BYTES };
        Pmap::new(4, &[ram]).expect("small table")
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
        for asid in 0..4 {
            pmap.record(Ppn(1), Backmap::new(0x1000, Asid(asid), false));
            pmap.record(Ppn(1), Backmap::new(0x1000, Asid(asid), false));
        }
        let row = pmap.row(Ppn(1));
        assert_eq!((row.backmap_count, row.overflowed), (3, 1));
        pmap.clear_backmaps(Ppn(1));
        let row = pmap.row(Ppn(1));
        assert_eq!((row.mpn, row.backmap_count, row.overflowed), (9, 0, 0));
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
