//! The memmap: a row a machine page, with who owns it and which VMs map it as what.
//!
//! Together with the backmaps of the pmap it answers the question of a shootdown: from a machine page to
//! the (VM, physical page) pairs that use it, and from there to the virtual addresses in TLBs. Rows change
//! only between rounds.
//!
//! A node hands out returned pages first, the latest first, and then those that nobody has had yet, in order.
//! Returned pages give their host memory back and read as zero when they are handed out again. A row of zeros
//! is one of nobody's page, so neither a row nor a list is written for a page before somebody has it.
//!
//! Source: Disco (SOSP'97) section 4.2.3.

use std::ops::Range;
use std::sync::Arc;

use machine::memory::MemoryError;
use machine::{MachineMemory, Mpn, NodeId, PAGE_BYTES, Ppn};

use crate::table::{Row, Table};

/// Who uses a machine page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Owner {
    /// Free, or no memory at all: there are holes between nodes whose memory is no power of two.
    Nobody = 0,
    /// Memory of one or more VMs.
    Guest = 1,
    /// The monitor's own text and tables.
    Monitor = 2,
}

/// (VM, physical page) pairs that a row can name.
pub const MAPPERS: usize = 4;

/// One use of a machine page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Mapper {
    /// The VM's number.
    pub vm: u32,
    /// Its physical page.
    pub ppn: u32,
}

/// One row, 40 bytes, as Python sees it. Whose memory the page is follows from its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MemmapRow {
    /// An [`Owner`].
    pub owner: u16,
    /// How many of `mappers` are in use.
    pub mapper_count: u16,
    /// For a monitor page, the VM it serves plus one, or 0.
    pub served_vm: u32,
    /// Which VMs use the page, as which of their pages.
    pub mappers: [Mapper; MAPPERS],
}

// SAFETY: repr(C), 2 + 2 + 4 + 4 * 8 = 40 bytes without padding, plain integers.
unsafe impl Row for MemmapRow {}
const _: () = assert!(size_of::<MemmapRow>() == 40);

/// The table of the machine, and its free pages.
#[derive(Debug)]
pub struct Memmap {
    memory: Arc<MachineMemory>,
    table: Table<MemmapRow>,
    free: Vec<FreePages>,
}

/// The free pages of a node.
#[derive(Debug)]
struct FreePages {
    /// Somebody had these and gave them back.
    returned: Vec<Mpn>,
    /// Nobody has had these yet.
    fresh: Range<u32>,
}

impl FreePages {
    fn count(&self) -> usize {
        self.returned.len() + self.fresh.len()
    }

    fn take(&mut self) -> Option<Mpn> {
        self.returned.pop().or_else(|| self.fresh.next().map(Mpn))
    }
}

/// Bytes of the monitor's text, which every node holds a copy of (SOSP'97 section 4.2).
const MONITOR_TEXT_BYTES: u64 = 72 << 10;

impl Memmap {
    /// A memmap in which the monitor holds what itself needs on each node and the rest is free.
    ///
    /// # Errors
    /// [`MemoryError`] when the host refuses, or a node is too small for the monitor's share.
    pub fn new(memory: Arc<MachineMemory>) -> Result<Memmap, MemoryError> {
        let pages = memory.pages_per_node();
        let own_bytes = u64::from(pages) * size_of::<MemmapRow>() as u64 + MONITOR_TEXT_BYTES;
        let own_pages = own_bytes.div_ceil(PAGE_BYTES) as u32;
        if own_pages >= pages {
            return Err(MemoryError::Shape { nodes: memory.nodes(), bytes_per_node: memory.bytes_per_node() });
        }
        let mut memmap = Memmap { table: Table::new(memory.page_rows())?, free: Vec::new(), memory };
        for node in 0..memmap.memory.nodes() {
            memmap.start_node(NodeId(node), own_pages);
        }
        Ok(memmap)
    }

    fn start_node(&mut self, node: NodeId, own_pages: u32) {
        let first = self.memory.first_page(node).0;
        for page in first..first + own_pages {
            let row = MemmapRow { owner: Owner::Monitor as u16, ..MemmapRow::default() };
            self.table.set(page as usize, row);
        }
        let fresh = first + own_pages..first + self.memory.pages_per_node();
        self.free.push(FreePages { returned: Vec::new(), fresh });
    }

    /// The shared table.
    pub fn table(&self) -> &Table<MemmapRow> {
        &self.table
    }

    /// The row of a page.
    pub fn row(&self, page: Mpn) -> MemmapRow {
        self.table.get(page.0 as usize)
    }

    /// Free pages of a node.
    pub fn free_pages(&self, node: NodeId) -> usize {
        self.free[usize::from(node.0)].count()
    }

    /// Takes a free page of `node`, zeroed, for a VM's physical page. `None`: the node is full.
    pub fn allocate(&mut self, node: NodeId, vm: u32, page: Ppn) -> Option<Mpn> {
        let mpn = self.free[usize::from(node.0)].take()?;
        self.table.update(mpn.0 as usize, |row| {
            row.owner = Owner::Guest as u16;
            row.mapper_count = 1;
            row.mappers[0] = Mapper { vm, ppn: page.0 };
        });
        Some(mpn)
    }

    /// Takes a free page of `node` for the monitor's tables of a VM. `None`: the node is full.
    pub fn allocate_for_monitor(&mut self, node: NodeId, vm: u32) -> Option<Mpn> {
        let mpn = self.free[usize::from(node.0)].take()?;
        self.table.update(mpn.0 as usize, |row| {
            row.owner = Owner::Monitor as u16;
            row.served_vm = vm + 1;
        });
        Some(mpn)
    }

    /// Takes one use away from a page; the last one frees it. TLBs must not hold it any more.
    pub fn release(&mut self, page: Mpn, vm: u32, ppn: Ppn) {
        let mut row = self.row(page);
        let used = usize::from(row.mapper_count);
        let place = row.mappers[..used]
            .iter()
            .position(|mapper| *mapper == Mapper { vm, ppn: ppn.0 })
            .expect("a VM releases only pages that it maps");
        row.mappers.copy_within(place + 1..used, place);
        row.mappers[used - 1] = Mapper::default();
        row.mapper_count -= 1;
        self.table.set(page.0 as usize, row);
        if row.mapper_count == 0 {
            self.free_page(page);
        }
    }

    /// Returns a page of the monitor's to its node.
    pub fn release_for_monitor(&mut self, page: Mpn) {
        assert_eq!(self.row(page).owner, Owner::Monitor as u16, "the page is the monitor's");
        self.free_page(page);
    }

    fn free_page(&mut self, page: Mpn) {
        let node = self.memory.node_of(page);
        self.memory.discard_page(page);
        self.table.set(page.0 as usize, MemmapRow::default());
        self.free[usize::from(node.0)].returned.push(page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memmap(nodes: u16, mib: u64) -> Memmap {
        let memory = Arc::new(MachineMemory::new(nodes, mib << 20).expect("small memory"));
        Memmap::new(memory).expect("fits")
    }

    #[test]
    fn a_released_page_is_free_again_and_zero() {
        let mut memmap = memmap(2, 4);
        let before = memmap.free_pages(NodeId(1));
        let page = memmap.allocate(NodeId(1), 7, Ppn(3)).expect("room");
        memmap.memory.write(page.address(), &[1, 2, 3]);
        assert_eq!(memmap.memory.node_of(page), NodeId(1));
        memmap.release(page, 7, Ppn(3));
        assert_eq!(memmap.free_pages(NodeId(1)), before);
        let again = memmap.allocate(NodeId(1), 8, Ppn(0)).expect("room");
        let mut bytes = [9; 3];
        memmap.memory.read(again.address(), &mut bytes);
        assert_eq!((again, bytes), (page, [0; 3]));
    }

    #[test]
    fn returned_pages_come_first_the_latest_first_and_then_fresh_ones_in_order() {
        let mut memmap = memmap(1, 4);
        let take = |memmap: &mut Memmap| memmap.allocate(NodeId(0), 0, Ppn(0)).expect("room");
        let pages = [0; 4].map(|_| take(&mut memmap));
        assert!(pages.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "{pages:?}");
        memmap.release(pages[2], 0, Ppn(0));
        memmap.release(pages[0], 0, Ppn(0));
        let again = [0; 3].map(|_| take(&mut memmap));
        assert_eq!(again, [pages[0], pages[2], Mpn(pages[3].0 + 1)]);
    }

    #[test]
    fn no_row_is_written_before_somebody_has_the_page() {
        let mut memmap = memmap(3, 5); // holes behind each node
        let page = memmap.allocate(NodeId(2), 0, Ppn(0)).expect("room");
        memmap.release(page, 0, Ppn(0));
        let rows = (0..memmap.table().rows()).map(|row| memmap.table().get(row));
        let written = rows.filter(|row| *row != MemmapRow::default()).count();
        let pages = memmap.memory.pages_per_node() as usize;
        assert_eq!(written, 3 * (pages - memmap.free_pages(NodeId(0))), "the monitor's own");
    }

    #[test]
    fn a_full_node_says_none_and_the_other_still_gives() {
        let mut memmap = memmap(2, 1);
        for ppn in 0..memmap.free_pages(NodeId(0)) as u32 {
            assert!(memmap.allocate(NodeId(0), 0, Ppn(ppn)).is_some());
        }
        assert_eq!(memmap.allocate(NodeId(0), 0, Ppn(9999)), None);
        assert!(memmap.allocate(NodeId(1), 0, Ppn(9999)).is_some());
    }

    #[test]
    fn a_node_too_small_for_the_monitor_is_refused() {
        let memory = Arc::new(MachineMemory::new(1, 64 << 10).expect("small memory"));
        assert!(matches!(Memmap::new(memory), Err(MemoryError::Shape { .. })));
    }
}
