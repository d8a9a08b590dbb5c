//! The memmap: a row a machine page, with who owns it and which VMs map it as what.
//!
//! Together with the backmaps of the pmap it answers the question of a shootdown: from a machine page to
//! the (VM, physical page) pairs that use it, and from there to the virtual addresses in TLBs. Rows change
//! only between rounds.
//!
//! A row has room for the one user that nearly every page has. The users of a page that has several are in a set
//! beside the table, all of them, so a page costs eight bytes and can be shared by any number.
//!
//! Which free page a node hands out is told in `free.rs`. Returned pages give their host memory back and read as zero
//! when they are handed out again. A row of zeros is one of nobody's page, so neither a row nor a list is written for
//! a page before somebody has it.
//!
//! Source: Disco (SOSP'97) section 4.2.3.

use std::collections::BTreeSet;
use std::sync::Arc;

use machine::memory::MemoryError;
use machine::{MachineMemory, Mpn, NodeId, PAGE_BYTES, Ppn};

use crate::free::FreePages;
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
    /// A page of the disk cache: VMs may use it, and it stays when none does. Nobody may write it.
    Cache = 3,
}

impl Owner {
    /// The owner that a row's byte says.
    pub fn from_byte(byte: u8) -> Option<Owner> {
        [Owner::Nobody, Owner::Guest, Owner::Monitor, Owner::Cache].into_iter().find(|owner| *owner as u8 == byte)
    }
}

/// One use of a machine page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mapper {
    /// The VM's number.
    pub vm: u32,
    /// Its physical page.
    pub ppn: u32,
}

/// VMs that a machine can have had: their numbers fit into a row.
pub const VMS_MAX: u32 = 1 << 16;

/// One row, 8 bytes, as Python sees it. Whose memory the page is follows from its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MemmapRow {
    /// The physical page of the first user.
    pub ppn: u32,
    /// The first user's VM; for a page of the monitor's, the VM that it serves.
    pub vm: u16,
    /// An [`Owner`].
    pub owner: u8,
    /// How many (VM, physical page) pairs use the page, [`USERS_MANY`] if there are so many or more. A page of the
    /// monitor's is used by the VM that it serves, or by none.
    pub users: u8,
}

/// What `users` says when it cannot count any further.
pub const USERS_MANY: u8 = u8::MAX;

// SAFETY: repr(C), 4 + 2 + 1 + 1 = 8 bytes without padding, plain integers.
unsafe impl Row for MemmapRow {}
const _: () = assert!(size_of::<MemmapRow>() == 8);

impl MemmapRow {
    fn used(owner: u8, user: Mapper, users: usize) -> MemmapRow {
        let users = u8::try_from(users).unwrap_or(USERS_MANY);
        MemmapRow { ppn: user.ppn, vm: vm_field(user.vm), owner, users }
    }

    /// Whether VMs can use the page.
    fn is_for_guests(&self) -> bool {
        self.owner == Owner::Guest as u8 || self.owner == Owner::Cache as u8
    }

    fn first_user(&self) -> Mapper {
        Mapper { vm: self.vm.into(), ppn: self.ppn }
    }
}

fn vm_field(vm: u32) -> u16 {
    u16::try_from(vm).expect("no VM has a number beyond VMS_MAX")
}

/// The table of the machine, and its free pages.
#[derive(Debug)]
pub struct Memmap {
    memory: Arc<MachineMemory>,
    table: Table<MemmapRow>,
    /// Every use of the pages that have more than one.
    shared: BTreeSet<(Mpn, Mapper)>,
    free: Vec<FreePages>,
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
        let mut memmap =
            Memmap { table: Table::new(memory.page_rows())?, shared: BTreeSet::new(), free: Vec::new(), memory };
        for node in 0..memmap.memory.nodes() {
            memmap.start_node(NodeId(node), own_pages);
        }
        Ok(memmap)
    }

    fn start_node(&mut self, node: NodeId, own_pages: u32) {
        let first = self.memory.first_page(node).0;
        for page in first..first + own_pages {
            let row = MemmapRow { owner: Owner::Monitor as u8, ..MemmapRow::default() };
            self.table.set(page as usize, row);
        }
        let fresh = first + own_pages..first + self.memory.pages_per_node();
        self.free.push(FreePages::new(fresh));
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
        self.own(mpn, vm, page);
        Some(mpn)
    }

    /// Takes a free page of `node`, zeroed, for the disk cache. `None`: the node is full.
    pub fn allocate_for_cache(&mut self, node: NodeId) -> Option<Mpn> {
        let mpn = self.free[usize::from(node.0)].take()?;
        self.table.set(mpn.0 as usize, MemmapRow { owner: Owner::Cache as u8, ..MemmapRow::default() });
        Some(mpn)
    }

    /// Takes up to `count` free pages of `node`, zeroed, that will be somebody's soon ([`Memmap::own`]).
    pub fn set_aside(&mut self, node: NodeId, count: usize) -> Vec<Mpn> {
        let free = &mut self.free[usize::from(node.0)];
        std::iter::from_fn(|| free.take()).take(count).collect()
    }

    /// Takes a free block of `node`, zeroed, that will be somebody's by the page ([`Memmap::own`]): its first page.
    pub fn set_block_aside(&mut self, node: NodeId) -> Option<Mpn> {
        self.free[usize::from(node.0)].take_block()
    }

    /// As many blocks as there are, up to so many.
    pub fn set_blocks_aside(&mut self, node: NodeId, count: usize) -> Vec<Mpn> {
        std::iter::from_fn(|| self.set_block_aside(node)).take(count).collect()
    }

    /// Takes pages back that were set aside and that nobody has had.
    pub fn put_back(&mut self, pages: Vec<Mpn>) {
        for page in pages {
            let node = self.memory.node_of(page);
            self.free[usize::from(node.0)].put(page);
        }
    }

    /// A page that was set aside is a VM's physical page now.
    pub fn own(&mut self, mpn: Mpn, vm: u32, page: Ppn) {
        self.table.set(mpn.0 as usize, MemmapRow::used(Owner::Guest as u8, Mapper { vm, ppn: page.0 }, 1));
    }

    /// Takes a free page of `node` for the monitor's tables of a VM. `None`: the node is full.
    pub fn allocate_for_monitor(&mut self, node: NodeId, vm: u32) -> Option<Mpn> {
        let mpn = self.free[usize::from(node.0)].take()?;
        let row = MemmapRow { owner: Owner::Monitor as u8, vm: vm_field(vm), users: 1, ppn: 0 };
        self.table.set(mpn.0 as usize, row);
        Some(mpn)
    }

    /// Who uses a page of guests', in order.
    pub fn users(&self, page: Mpn) -> Vec<Mapper> {
        let row = self.row(page);
        match (row.owner, row.users) {
            (_, 1) if row.is_for_guests() => vec![row.first_user()],
            _ => self.users_in_set(page).collect(),
        }
    }

    fn users_in_set(&self, page: Mpn) -> impl Iterator<Item = Mapper> {
        const LAST: Mapper = Mapper { vm: u32::MAX, ppn: u32::MAX };
        self.shared.range((page, Mapper::default())..=(page, LAST)).map(|(_, user)| *user)
    }

    /// Adds a use to a page of guests' that has one, or to a page of the cache.
    pub fn share(&mut self, page: Mpn, vm: u32, ppn: Ppn) {
        let row = self.row(page);
        assert!(row.is_for_guests(), "the page is a guest's or the cache's");
        match row.users {
            0 => return self.table.set(page.0 as usize, MemmapRow::used(row.owner, Mapper { vm, ppn: ppn.0 }, 1)),
            1 => _ = self.shared.insert((page, row.first_user())),
            _ => {}
        }
        let user = Mapper { vm, ppn: ppn.0 };
        let is_new = self.shared.insert((page, user));
        assert!(is_new, "a physical page of a VM uses a machine page once");
        let (first, users) = (row.first_user().min(user), usize::from(row.users) + 1);
        self.table.set(page.0 as usize, MemmapRow::used(row.owner, first, users));
    }

    /// Takes one use away from a page; the last one frees it, unless it is the cache's. TLBs must not hold it any
    /// more.
    pub fn release(&mut self, page: Mpn, vm: u32, ppn: Ppn) {
        if self.remove_use(page, Mapper { vm, ppn: ppn.0 }) {
            self.free_page(page);
        }
    }

    /// As [`Memmap::release`] for many pages of a VM. What becomes free goes back to the host by runs of neighbours,
    /// not by the page.
    pub fn release_all(&mut self, vm: u32, pages: impl Iterator<Item = (Mpn, Ppn)>) {
        let mut freed = Vec::new();
        for (page, ppn) in pages {
            if self.remove_use(page, Mapper { vm, ppn: ppn.0 }) {
                self.put_into_free(page);
                freed.push(page);
            }
        }
        self.memory.discard_pages(freed);
    }

    /// Takes one use away from a page. True: nobody has it any more, and it is to be freed.
    fn remove_use(&mut self, page: Mpn, user: Mapper) -> bool {
        let row = self.row(page);
        if row.users != 1 {
            assert!(self.shared.remove(&(page, user)), "a VM releases only pages that it maps");
            self.count_users(page);
            return false;
        }
        assert!(row.first_user() == user, "a VM releases only pages that it maps");
        let is_cached = row.owner == Owner::Cache as u8;
        if is_cached {
            self.table.set(page.0 as usize, MemmapRow { owner: row.owner, ..MemmapRow::default() });
        }
        !is_cached
    }

    /// Writes the row of a page of which a use in the set has gone; a single one needs no set.
    fn count_users(&mut self, page: Mpn) {
        let count = self.users_in_set(page).take(usize::from(USERS_MANY)).count();
        let first = self.users_in_set(page).next().expect("a shared page has users");
        if count == 1 {
            self.shared.remove(&(page, first));
        }
        let owner = self.row(page).owner;
        self.table.set(page.0 as usize, MemmapRow::used(owner, first, count));
    }

    /// Takes a page out of the cache. It is free then, or its users' alone.
    pub fn release_from_cache(&mut self, page: Mpn) {
        let row = self.row(page);
        assert_eq!(row.owner, Owner::Cache as u8, "the page is the cache's");
        if row.users == 0 {
            self.free_page(page);
        } else {
            self.table.set(page.0 as usize, MemmapRow { owner: Owner::Guest as u8, ..row });
        }
    }

    /// Returns a page of the monitor's to its node.
    pub fn release_for_monitor(&mut self, page: Mpn) {
        assert_eq!(self.row(page).owner, Owner::Monitor as u8, "the page is the monitor's");
        self.free_page(page);
    }

    fn free_page(&mut self, page: Mpn) {
        self.memory.discard_page(page);
        self.put_into_free(page);
    }

    fn put_into_free(&mut self, page: Mpn) {
        let node = self.memory.node_of(page);
        self.table.set(page.0 as usize, MemmapRow::default());
        self.free[usize::from(node.0)].put(page);
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
    fn pages_that_are_released_together_are_free_and_zero_as_if_one_by_one() {
        let release_all = |together: bool| {
            let mut memmap = memmap(2, 16);
            let take = |memmap: &mut Memmap, node, ppn| memmap.allocate(NodeId(node), 0, Ppn(ppn)).unwrap();
            // Neighbours, one of another node, and one that somebody else has too.
            let pages: Vec<(Mpn, Ppn)> = [0, 0, 1, 0, 0]
                .iter()
                .zip(0..)
                .map(|(node, ppn)| (take(&mut memmap, *node, ppn), Ppn(ppn)))
                .collect();
            for (page, _) in &pages {
                memmap.memory.write(page.address(), &[7; 8]);
            }
            memmap.share(pages[3].0, 1, Ppn(9));
            if together {
                memmap.release_all(0, pages.iter().copied());
            } else {
                pages.iter().for_each(|(page, ppn)| memmap.release(*page, 0, *ppn));
            }
            let first_bytes = |(page, _): &(Mpn, Ppn)| {
                let mut bytes = [0; 8];
                memmap.memory.read(page.address(), &mut bytes);
                bytes[0]
            };
            let bytes: Vec<u8> = pages.iter().map(first_bytes).collect();
            (bytes, format!("{:?}", memmap.free))
        };
        let (bytes, free) = release_all(true);
        assert_eq!(bytes, [0, 0, 0, 7, 0], "the one that somebody has keeps its bytes");
        assert_eq!((bytes, free), release_all(false));
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
    fn a_shared_page_names_its_users_and_the_last_one_frees_it() {
        let mut memmap = memmap(1, 4);
        let before = memmap.free_pages(NodeId(0));
        let page = memmap.allocate(NodeId(0), 3, Ppn(8)).expect("room");
        let users = |memmap: &Memmap| {
            let row = memmap.row(page);
            let named: Vec<_> = memmap.users(page).iter().map(|user| (user.vm, user.ppn)).collect();
            assert_eq!((u32::from(row.vm), row.ppn), named[0], "the row has the first");
            (row.users, named)
        };
        assert_eq!(users(&memmap), (1, vec![(3, 8)]));
        memmap.share(page, 2, Ppn(9));
        memmap.share(page, 3, Ppn(7)); // a VM may use it as several of its pages
        assert_eq!(users(&memmap), (3, vec![(2, 9), (3, 7), (3, 8)]));
        memmap.release(page, 2, Ppn(9));
        assert_eq!(users(&memmap), (2, vec![(3, 7), (3, 8)]));
        memmap.release(page, 3, Ppn(8));
        assert_eq!(users(&memmap), (1, vec![(3, 7)]));
        assert!(memmap.shared.is_empty(), "one user has room in the row");
        memmap.release(page, 3, Ppn(7));
        assert_eq!((memmap.users(page), memmap.free_pages(NodeId(0))), (vec![], before));
    }

    #[test]
    fn a_page_can_have_more_users_than_its_row_can_count() {
        let mut memmap = memmap(1, 4);
        let page = memmap.allocate(NodeId(0), 0, Ppn(0)).expect("room");
        for ppn in 1..300 {
            memmap.share(page, 0, Ppn(ppn));
        }
        assert_eq!((memmap.row(page).users, memmap.users(page).len()), (USERS_MANY, 300));
        for ppn in 0..299 {
            memmap.release(page, 0, Ppn(ppn));
        }
        assert_eq!(memmap.users(page), [Mapper { vm: 0, ppn: 299 }]);
    }

    #[test]
    fn a_page_of_the_cache_stays_without_users_and_outlives_the_cache_with_them() {
        let mut memmap = memmap(1, 4);
        let before = memmap.free_pages(NodeId(0));
        let page = memmap.allocate_for_cache(NodeId(0)).expect("room");
        let counted = |memmap: &Memmap| (memmap.row(page).owner, memmap.row(page).users, memmap.users(page).len());
        let (cache, guest) = (Owner::Cache as u8, Owner::Guest as u8);
        assert_eq!(counted(&memmap), (cache, 0, 0));
        for vm in 0..3 {
            memmap.share(page, vm, Ppn(5));
            assert_eq!(counted(&memmap), (cache, vm as u8 + 1, vm as usize + 1));
        }
        for vm in 0..3 {
            memmap.release(page, vm, Ppn(5));
            assert_eq!(counted(&memmap), (cache, 2 - vm as u8, 2 - vm as usize));
        }
        memmap.share(page, 0, Ppn(5));
        memmap.release_from_cache(page);
        assert_eq!(counted(&memmap), (guest, 1, 1));
        memmap.release(page, 0, Ppn(5));
        assert_eq!(memmap.free_pages(NodeId(0)), before);
        let page = memmap.allocate_for_cache(NodeId(0)).expect("room");
        memmap.release_from_cache(page);
        assert_eq!(memmap.free_pages(NodeId(0)), before);
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
