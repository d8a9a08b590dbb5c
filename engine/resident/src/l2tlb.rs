//! The second-level TLB: recent virtual-to-machine translations of one vCPU.
//!
//! It makes the guest's TLB look much larger than the guest was told. That is only allowed while no
//! visible answer differs from that of a plain TLB, and this is why it holds:
//!
//! Call an entry a *ghost* if the guest wrote it with TLBWR or TLBWI and a later TLBWR overwrote the slot
//! of the virtual TLB that it was in. A plain TLB would have lost it; here it still answers refills.
//!
//! 1. *Answering a refill from a ghost* is what a larger TLB would do. TLBWR picks its victim at random, so
//!    a guest cannot know which entry it displaced; it can only rely on an entry being gone if it removed it
//!    on purpose, or found it gone.
//! 2. *Removed on purpose* is one of: TLBWI over its slot, TLBINV, TLBINVF, a sweep of TLBWI over all
//!    slots. Each ghost remembers its slot (`origin`); TLBWI at a slot drops every ghost of that slot, so a
//!    sweep drops all. TLBINV and TLBINVF drop all ghosts.
//! 3. *Found gone* is a TLBP that misses: it drops the ghosts of the probed page. (It cannot pretend that the
//!    entry is there, as it has no index.) Or it is a scan by TLBR, as BSD kernels flush an address space: TLBR
//!    drops every ghost of the slot that it reads, so after a scan the guest has seen all that is left.
//! 4. *A fault from a ghost*: if a ghost cannot serve an access (invalid half, no write permission,
//!    inhibited), it is dropped and the guest takes a refill, as it would without the ghost. Its handler
//!    writes the entry, the access is retried, and the fault comes from an entry that TLBP finds.
//! 5. *Overwriting a translation*: writing an entry drops all ghosts of its page, in every address space if it
//!    is global, so an old translation never outlives a new one.
//! 6. Ghosts are pairs of 4 KiB pages only. When TLBWR displaces an entry of larger pages, what was cached
//!    of it is dropped: a TLBP for one page of it would otherwise say "gone" about all.
//!
//! Entries of *kernel segments* (addresses that a real CPU would not map) are nobody's TLB entries; only the
//! monitor removes them. Pages that the monitor takes away go by the backmaps, whatever kind the entry is.
//!
//! Checked by `tests/ghosts.rs`: random TLB operations against a guest with a plain TLB.

use machine::cp0::entry_hi;
use machine::memory::MemoryError;
use machine::tlb::entry_lo;
use machine::{Asid, Mpn, PAGE_BYTES};

use crate::table::{Row, Table};

/// Which slot of the virtual TLB an entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(u8);

impl Origin {
    /// Of a kernel segment: not from the guest's TLB at all.
    pub const KERNEL: Origin = Origin(0xff);

    /// Slot `index` of the virtual TLB.
    pub fn slot(index: usize) -> Origin {
        debug_assert!(index < SLOTS, "a virtual TLB has at most {SLOTS} slots");
        Origin(index as u8)
    }

    /// Whether the entry came from the guest's TLB.
    pub fn is_guest(self) -> bool {
        self != Origin::KERNEL
    }
}

/// Slots of the largest virtual TLB.
pub const SLOTS: usize = 64;
const WAYS: usize = 4;
const PAIR_BYTES: usize = 2 * PAGE_BYTES as usize;
/// More pairs than this are not looked for one by one: an entry of larger pages than 1 MiB. They make a region.
const PAIRS_MAX: u64 = (1 << REGION_SHIFT) / PAIR_BYTES as u64;

/// The bits of an address that name its pair. A guest writes 32-bit kernel addresses sign-extended, EntryHi
/// drops bits 61:40 of them: both are one pair.
fn pair_of(vaddr: u64) -> u64 {
    vaddr & (entry_hi::R | entry_hi::VPN2)
}

/// A pair of 4 KiB pages, ready for the hardware TLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L2Entry {
    /// Address bits of the pair as in EntryHi: 63:62 and 39:13.
    pub vpn2: u64,
    /// Address space, if not global.
    pub asid: Asid,
    /// Matches in every address space.
    pub global: bool,
    /// Where it came from.
    pub origin: Origin,
    /// Hardware EntryLo values; V clear where the half cannot be used as it is.
    pub lo: [u64; 2],
}

impl L2Entry {
    /// An entry for the pair at `vpn2`, sign-extended or as in EntryHi.
    pub fn new(vpn2: u64, asid: Asid, global: bool, origin: Origin, lo: [u64; 2]) -> L2Entry {
        L2Entry { vpn2: pair_of(vpn2), asid, global, origin, lo }
    }
}

/// In the tag of a row that holds an entry; no pair has this bit.
const PRESENT: u64 = 1;

/// An entry in the table, or nothing: all zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
struct L2Row {
    /// `vpn2` and [`PRESENT`].
    tag: u64,
    lo: [u64; 2],
    /// Of its slot, when it was put in.
    epoch: u32,
    asid: u8,
    global: u8,
    origin: u8,
    reserved: u8,
}

// SAFETY: repr(C), 3 * 8 + 4 + 4 * 1 = 32 bytes without padding, plain integers.
unsafe impl Row for L2Row {}

impl L2Row {
    fn new(entry: &L2Entry, epoch: u32) -> L2Row {
        L2Row {
            tag: entry.vpn2 | PRESENT,
            lo: entry.lo,
            epoch,
            asid: entry.asid.0,
            global: entry.global.into(),
            origin: entry.origin.0,
            reserved: 0,
        }
    }

    #[inline(always)]
    fn entry(&self) -> L2Entry {
        let (asid, origin) = (Asid(self.asid), Origin(self.origin));
        L2Entry { vpn2: self.tag & !PRESENT, asid, global: self.global != 0, origin, lo: self.lo }
    }

    fn is_present(&self) -> bool {
        self.tag != 0
    }

    fn is_for(&self, vpn2: u64) -> bool {
        self.tag == vpn2 | PRESENT
    }

    /// Whether the address space `asid` sees it.
    fn is_in(&self, asid: Asid) -> bool {
        self.global != 0 || self.asid == asid.0
    }

    fn is_guest(&self) -> bool {
        Origin(self.origin).is_guest()
    }

    fn holds(&self, page: Mpn) -> bool {
        self.lo.iter().any(|lo| lo & entry_lo::V != 0 && entry_lo::address(*lo) == page.address().0)
    }
}

/// The table: sets of four, or nothing when it is switched off.
#[derive(Debug)]
pub struct L2Tlb {
    rows: Table<L2Row>,
    set_mask: usize,
    next_way: usize,
    /// An entry of a guest slot is alive while its epoch is that of its slot.
    slot_epochs: [u32; SLOTS],
    /// A bit for each hash of 2 MiB of addresses: clear if no entry of the guest's can be there.
    guest_regions: [u64; REGIONS / 64],
}

/// Bits for regions, a power of two.
const REGIONS: usize = 1024;
const REGION_SHIFT: u32 = 21;

impl L2Tlb {
    /// A table of `entries` entries: a power of two from 4 up, or 0 for none. It takes the host's memory as far as
    /// it has been used.
    ///
    /// # Errors
    /// [`MemoryError::Host`] when the host refuses the address space.
    ///
    /// # Panics
    /// On any other size; the configuration is checked before.
    pub fn new(entries: usize) -> Result<L2Tlb, MemoryError> {
        assert!(Self::is_size(entries), "{entries} entries");
        Ok(L2Tlb::of(Table::new(entries)?))
    }

    fn of(rows: Table<L2Row>) -> L2Tlb {
        let set_mask = (rows.rows() / WAYS).saturating_sub(1);
        L2Tlb { rows, set_mask, next_way: 0, slot_epochs: [0; SLOTS], guest_regions: [0; REGIONS / 64] }
    }

    /// The table as after reset, to be used in the place of this one.
    pub fn take_emptied(&mut self) -> L2Tlb {
        self.clear();
        L2Tlb::of(self.rows.clone())
    }

    /// Word and bit of the region around an address.
    #[inline]
    fn region(vaddr: u64) -> (usize, u64) {
        let region = pair_of(vaddr) >> REGION_SHIFT;
        let place = (region ^ region >> 10) as usize % REGIONS;
        (place / 64, 1 << (place % 64))
    }

    /// Whether a table can have that many entries.
    pub fn is_size(entries: usize) -> bool {
        entries == 0 || (entries.is_power_of_two() && entries >= WAYS)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.rows.rows()
    }

    /// Whether the table is switched off.
    pub fn is_empty(&self) -> bool {
        self.rows.rows() == 0
    }

    #[inline]
    fn set(&self, vpn2: u64) -> usize {
        let page = vpn2 >> 13;
        // The direct map, user programs and modules all start at round addresses: mix the bits above in.
        ((page ^ (page >> 9) ^ (page >> 18)) as usize & self.set_mask) * WAYS
    }

    #[inline]
    fn is_alive(&self, row: &L2Row) -> bool {
        !row.is_guest() || self.slot_epochs[usize::from(row.origin) & (SLOTS - 1)] == row.epoch
    }

    /// The rows in which the entry of a pair may be.
    #[inline]
    fn ways(&self, vpn2: u64) -> impl Iterator<Item = (usize, L2Row)> {
        let set = self.set(vpn2);
        let rows = &self.rows;
        (set..set + WAYS).map(move |way| (way, rows.get(way)))
    }

    /// Where the entry for an address is, if there is one. Rows are looked at where they are: a copy of one would be put
    /// together in memory, and the host would wait for it.
    #[inline(always)]
    pub(crate) fn find(&self, vaddr: u64, asid: Asid) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let vpn2 = pair_of(vaddr);
        let set = self.set(vpn2);
        let is_it = |row: &L2Row| row.is_for(vpn2) && row.is_in(asid) && self.is_alive(row);
        (set..set + WAYS).find(|way| self.rows.look(*way, is_it))
    }

    /// EntryLo of the even (0) or the odd half (1) of the entry at a place that `find` gave.
    #[inline(always)]
    pub(crate) fn lo(&self, way: usize, half: usize) -> u64 {
        self.rows.look(way, |row| row.lo[half])
    }

    /// The entry at a place that `find` gave.
    #[inline(always)]
    pub(crate) fn get(&self, way: usize) -> L2Entry {
        self.rows.look(way, L2Row::entry)
    }

    /// Puts an entry in, in place of one for the same pair if there is any.
    pub fn insert(&mut self, entry: L2Entry) {
        if self.is_empty() {
            return;
        }
        let mut epoch = 0;
        if entry.origin.is_guest() {
            epoch = self.slot_epochs[usize::from(entry.origin.0)];
            let (word, bit) = Self::region(entry.vpn2);
            self.guest_regions[word] |= bit;
        }
        let is_same = |old: &L2Row| old.is_for(entry.vpn2) && (entry.global || old.is_in(entry.asid));
        let is_unused = |old: &L2Row| !old.is_present() || !self.is_alive(old);
        let way = self.ways(entry.vpn2).find(|(_, old)| is_same(old));
        let way = way.or_else(|| self.ways(entry.vpn2).find(|(_, old)| is_unused(old))).map_or_else(
            || {
                self.next_way = (self.next_way + 1) % WAYS;
                self.set(entry.vpn2) + self.next_way
            },
            |(way, _)| way,
        );
        self.rows.set(way, L2Row::new(&entry, epoch));
    }

    /// Drops the guest's entries for the pair at `vaddr`: those that `asid` sees, or all (`None`).
    /// Returns how many there were.
    pub fn drop_pair(&mut self, vaddr: u64, asid: Option<Asid>) -> u64 {
        if self.is_empty() {
            return 0;
        }
        let vpn2 = pair_of(vaddr);
        let set = self.set(vpn2);
        let mut dropped = 0;
        for way in set..set + WAYS {
            let row = self.rows.get(way);
            let is_seen = asid.is_none_or(|asid| row.is_in(asid));
            if row.is_for(vpn2) && is_seen && row.is_guest() {
                dropped += u64::from(self.is_alive(&row));
                self.rows.set(way, L2Row::default());
            }
        }
        dropped
    }

    /// As [`L2Tlb::drop_pair`] for `bytes` from `vaddr` on, or for more than that where it would take long.
    pub fn drop_range(&mut self, vaddr: u64, bytes: u64, asid: Option<Asid>) {
        let pairs = bytes / PAIR_BYTES as u64;
        if pairs > PAIRS_MAX {
            return self.drop_guest();
        }
        let (word, bit) = Self::region(vaddr);
        if pairs > 1 && self.guest_regions[word] & bit == 0 {
            return;
        }
        (0..pairs).for_each(|pair| _ = self.drop_pair(vaddr + pair * PAIR_BYTES as u64, asid));
    }

    /// Drops everything that ever was in a slot of the virtual TLB.
    pub fn drop_slot(&mut self, slot: usize) {
        self.slot_epochs[slot] = self.slot_epochs[slot].wrapping_add(1);
    }

    /// Drops everything that came from the guest's TLB.
    pub fn drop_guest(&mut self) {
        for epoch in &mut self.slot_epochs {
            *epoch = epoch.wrapping_add(1);
        }
        self.guest_regions.fill(0);
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.drop_rows(|_| true);
    }

    /// Drops every entry for the pair at `vaddr`, whatever its kind or space (shootdown by a backmap).
    pub fn shoot_down(&mut self, vaddr: u64) {
        if self.is_empty() {
            return;
        }
        let vpn2 = pair_of(vaddr);
        let set = self.set(vpn2);
        for way in set..set + WAYS {
            if self.rows.get(way).is_for(vpn2) {
                self.rows.set(way, L2Row::default());
            }
        }
    }

    /// Drops every entry for the `bytes` from `vaddr` on, whatever its kind or space: an entry of larger pages of the
    /// hardware TLB takes their place.
    pub fn shoot_down_range(&mut self, vaddr: u64, bytes: u64) {
        (vaddr..vaddr + bytes).step_by(PAIR_BYTES).for_each(|pair| self.shoot_down(pair));
    }

    /// Drops every entry that translates to a machine page (shootdown of an overflowed pmap row).
    pub fn shoot_down_page(&mut self, page: Mpn) {
        self.drop_rows(|row| row.holds(page));
    }

    fn drop_rows(&mut self, is_dropped: impl Fn(&L2Row) -> bool) {
        for way in 0..self.len() {
            let row = self.rows.get(way);
            if row.is_present() && is_dropped(&row) {
                self.rows.set(way, L2Row::default());
            }
        }
    }

    /// Entries that could answer now, for tests and for looking.
    pub fn alive(&self) -> impl Iterator<Item = L2Entry> {
        let rows = (0..self.len()).map(|way| self.rows.get(way));
        rows.filter(|row| row.is_present() && self.is_alive(row)).map(|row| row.entry())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_range_that_is_dropped_is_left_and_nothing_else_is_lost() {
        let mut random = 1u64;
        let mut next = |bound: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % bound
        };
        for large in [0x2_0000, 0x20_0000, 0x80_0000] {
            let mut l2tlb = L2Tlb::new(4096).unwrap();
            for _ in 0..200 {
                let vaddr = next(8) << 30 | next(1 << 11) << 13;
                let origin = if next(4) == 0 { Origin::KERNEL } else { Origin::slot(next(64) as usize) };
                let frame = entry_lo::frame(next(1 << 30) << 12) | entry_lo::V;
                l2tlb.insert(L2Entry::new(vaddr, Asid(1), false, origin, [frame; 2]));
                let first = (next(8) << 30 | next(1 << 24)) & !(large - 1);
                let of_range =
                    |entry: &L2Entry| entry.origin.is_guest() && (first..first + large).contains(&entry.vpn2);
                let others = l2tlb.alive().filter(|entry| !of_range(entry)).count();
                l2tlb.drop_range(first, large, Some(Asid(1)));
                assert_eq!(l2tlb.alive().filter(|entry| of_range(entry)).count(), 0);
                let left = l2tlb.alive().count();
                assert!(left == others || large > 0x20_0000, "{left} of {others}");
            }
        }
    }
}
