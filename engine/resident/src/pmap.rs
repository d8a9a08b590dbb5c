//! The pmap of a VM: a row a physical page, with what it is, where it is, and who maps it.
//!
//! The *backmaps* of a row are the virtual addresses under which the page went into a TLB, so that the
//! monitor can take it out again without searching. A row has room for three (a kernel's direct map, a
//! user's mapping and one more); when a fourth comes, the row is marked `overflowed` and a shootdown
//! searches the VM's TLBs instead. A backmap may be stale (the guest has dropped the mapping itself):
//! taking out what is not there does no harm.
//!
//! Source: Disco (SOSP'97) section 4.2.2.

use machine::memory::MemoryError;
use machine::{Asid, Mpn, Ppn};

use crate::table::{Row, Table};

/// What a physical page is to the monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PageState {
    /// Not memory and not a device: nothing answers there.
    Nothing = 0,
    /// RAM without a machine page yet: the first touch is a page fault.
    Absent = 1,
    /// RAM on a machine page of its own.
    Private = 2,
    /// RAM on a machine page that others map too; never writable.
    Shared = 3,
    /// Registers of a device: each access traps.
    Device = 4,
}

impl PageState {
    fn from_byte(byte: u8) -> PageState {
        match byte {
            0 => PageState::Nothing,
            1 => PageState::Absent,
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
}

impl Pmap {
    /// A pmap of `pages` rows in which nothing exists.
    ///
    /// # Errors
    /// [`MemoryError::Host`] when the host refuses the address space.
    pub fn new(pages: usize) -> Result<Pmap, MemoryError> {
        Ok(Pmap { table: Table::new(pages)? })
    }

    /// The shared table.
    pub fn table(&self) -> &Table<PmapRow> {
        &self.table
    }

    /// The row of a page; pages beyond the table are [`PageState::Nothing`].
    #[inline]
    pub fn row(&self, page: Ppn) -> PmapRow {
        let index = page.0 as usize;
        if index < self.table.rows() { self.table.get(index) } else { PmapRow::default() }
    }

    /// Declares what a page is, without a machine page and without mappings.
    pub fn declare(&mut self, page: Ppn, state: PageState) {
        assert!(
            !matches!(state, PageState::Private | PageState::Shared),
            "a page with memory is set, not declared"
        );
        self.table.set(page.0 as usize, PmapRow { state: state as u8, ..PmapRow::default() });
    }

    /// Gives a page its machine page. Mappings of an earlier one must have been shot down.
    pub fn set_page(&mut self, page: Ppn, mpn: Mpn, state: PageState, writable: bool) {
        assert!(matches!(state, PageState::Private | PageState::Shared), "only RAM has a machine page");
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

    #[test]
    fn a_fourth_mapping_marks_the_row_overflowed_and_clearing_forgets_all() {
        let mut pmap = Pmap::new(4).expect("small table");
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
        assert_eq!(Pmap::new(4).expect("small table").row(Ppn(4)).state(), PageState::Nothing);
    }

    #[test]
    fn a_backmap_keeps_address_and_space() {
        let user = Backmap::new(0x7fff_1234, Asid(0xff), false);
        assert_eq!((user.vaddr(), user.asid()), (0x7fff_1000, Some(Asid(0xff))));
        let kernel = Backmap::new(0xffff_ffff_8000_0fff, Asid(3), true);
        assert_eq!((kernel.vaddr(), kernel.asid()), (0xffff_ffff_8000_0000, None));
    }
}
