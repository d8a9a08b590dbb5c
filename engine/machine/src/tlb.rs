//! The translation lookaside buffer: entries of two neighbouring pages each, fully associative.
//!
//! The same type is the hardware TLB of a CPU and the virtual TLB of a guest. An address takes part in
//! a match with its region (bits 63:62) and bits 39:13; whether the bits between are legal is decided by
//! `segments` before, and the eight names of a mapped XKPHYS address are one.
//!
//! A search does not look at all entries. An *index* has a bucket for each hash of a page number, with a bit
//! for each entry in it, and knows which page sizes there are; a search tries each size, which is one.
//!
//! Differences from real hardware: an entry that would overlap another is not written (Machine Check);
//! at reset all entries are hidden, as if EntryHi.EHINV had been written; VPN2 bits under the page mask
//! are stored as zero; TLBR of a hidden entry reads only EHINV.
//!
//! Source: MIPS64 PRA vol. III, "Translation Lookaside Buffer"; Release 3 for EHINV, RI and XI.

use crate::cp0::{Cp0, entry_hi, page_grain, page_mask};
use crate::{AccessKind, Asid, Exception};

/// Most entries that a TLB can have.
pub(crate) const ENTRIES_MAX: usize = 64;
/// Address bits inside a pair of the smallest pages.
const PAIR_SHIFT: u32 = 13;

/// EntryLo: one page of a pair.
pub mod entry_lo {
    /// Global; an entry is global if both of its EntryLo say so.
    pub const G: u64 = 1;
    /// Valid.
    pub const V: u64 = 1 << 1;
    /// Dirty: may be written.
    pub const D: u64 = 1 << 2;
    /// Where the cache attribute (3 bits) starts.
    pub const C_SHIFT: u32 = 3;
    /// Where the page frame number starts.
    pub const PFN_SHIFT: u32 = 6;
    /// Execute inhibit.
    pub const XI: u64 = 1 << 62;
    /// Read inhibit.
    pub const RI: u64 = 1 << 63;

    /// First byte of the page frame.
    pub fn address(lo: u64) -> u64 {
        (lo & !(RI | XI)) >> PFN_SHIFT << 12
    }

    /// The cache attribute.
    pub fn cache_attribute(lo: u64) -> u8 {
        (lo >> C_SHIFT & 7) as u8
    }

    /// An EntryLo of the page frame at `address`, with nothing but the frame number.
    pub fn frame(address: u64) -> u64 {
        address >> 12 << PFN_SHIFT
    }
}

/// One dual-page entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlbEntry {
    /// Address bits 63:62 and 39:13 of the pair, in place as in EntryHi.
    pub vpn2: u64,
    /// Address space, unless global.
    pub asid: Asid,
    /// Matches in every address space.
    pub global: bool,
    /// Size of the pages, as in PageMask.
    pub page_mask: u32,
    /// The even and the odd page, as in EntryLo; G is clear.
    pub lo: [u64; 2],
    /// Never matches (EHINV).
    pub hidden: bool,
}

impl TlbEntry {
    /// Whether the entry translates `vaddr` in address space `asid`.
    #[inline]
    pub fn matches(&self, vaddr: u64, asid: Asid) -> bool {
        !self.hidden && (self.global || self.asid == asid) && (vaddr ^ self.vpn2) & self.compared_bits() == 0
    }

    /// Whether some address would match both entries.
    pub fn overlaps(&self, other: &TlbEntry) -> bool {
        !self.hidden
            && !other.hidden
            && (self.global || other.global || self.asid == other.asid)
            && (self.vpn2 ^ other.vpn2) & self.compared_bits() & other.compared_bits() == 0
    }

    /// Size of each of the two pages.
    #[inline]
    pub fn page_bytes(&self) -> u64 {
        (u64::from(self.page_mask) + (1 << PAIR_SHIFT)) / 2
    }

    /// Which of the two pages `vaddr` lies in.
    #[inline]
    pub fn half(&self, vaddr: u64) -> usize {
        usize::from(vaddr & self.page_bytes() != 0)
    }

    /// The physical address of `vaddr`, which must match. Frame number bits under the mask are ignored.
    #[inline]
    pub fn physical(&self, vaddr: u64) -> u64 {
        let offset_bits = self.page_bytes() - 1;
        (entry_lo::address(self.lo[self.half(vaddr)]) & !offset_bits) | (vaddr & offset_bits)
    }

    /// Translates `vaddr`, which must match, for an access; `grain` is PageGrain, which says whether RI
    /// and XI work and whether they have exceptions of their own.
    ///
    /// # Errors
    /// The exception, in the manual's order: V, then RI or XI, then D.
    #[inline]
    pub fn translate(&self, vaddr: u64, access: AccessKind, grain: u32) -> Result<u64, Exception> {
        let lo = self.lo[self.half(vaddr)];
        // RIE and XIE are bits 31 and 30 of their register, RI and XI bits 63 and 62 of theirs.
        let inhibits = lo & u64::from(grain & (page_grain::RIE | page_grain::XIE)) << 32;
        let own_code = grain & page_grain::IEC != 0;
        let invalid = Exception::TlbInvalid { vaddr, access };
        if lo & entry_lo::V == 0 {
            return Err(invalid);
        }
        match access {
            AccessKind::Load if inhibits & entry_lo::RI != 0 => {
                Err(if own_code { Exception::TlbReadInhibit { vaddr } } else { invalid })
            }
            AccessKind::Fetch if inhibits & entry_lo::XI != 0 => {
                Err(if own_code { Exception::TlbExecuteInhibit { vaddr } } else { invalid })
            }
            AccessKind::Store if lo & entry_lo::D == 0 => Err(Exception::TlbModified { vaddr }),
            _ => Ok(self.physical(vaddr)),
        }
    }

    /// What TLBWI and TLBWR write: EntryHi, PageMask, EntryLo0 and EntryLo1.
    pub fn from_cp0(cp0: &Cp0) -> TlbEntry {
        let [even, odd] = cp0.entry_lo;
        let pair = !u64::from(cp0.page_mask);
        TlbEntry {
            vpn2: cp0.entry_hi & (entry_hi::R | entry_hi::VPN2) & pair,
            asid: cp0.asid(),
            global: even & odd & entry_lo::G != 0,
            page_mask: cp0.page_mask,
            lo: [even & !entry_lo::G, odd & !entry_lo::G],
            hidden: cp0.entry_hi & entry_hi::EHINV != 0,
        }
    }

    /// What TLBR reads: the reverse of `from_cp0`. EntryHi.ASID changes too.
    pub fn to_cp0(&self, cp0: &mut Cp0) {
        if self.hidden {
            cp0.entry_hi = entry_hi::EHINV;
            cp0.page_mask = 0;
            cp0.entry_lo = [0; 2];
            return;
        }
        let global = if self.global { entry_lo::G } else { 0 };
        cp0.entry_hi = self.vpn2 | u64::from(self.asid.0);
        cp0.page_mask = self.page_mask;
        cp0.entry_lo = self.lo.map(|lo| lo | global);
    }

    /// An entry that matches nothing. Each index has its own VPN2 in KSEG0, as software would choose it.
    pub fn hidden(index: usize) -> TlbEntry {
        let vpn2 = (0xffff_ffff_8000_0000 + ((index as u64) << PAIR_SHIFT)) & (entry_hi::R | entry_hi::VPN2);
        TlbEntry { vpn2, asid: Asid(0), global: false, page_mask: 0, lo: [0; 2], hidden: true }
    }

    /// Address bits that have to be equal.
    #[inline]
    fn compared_bits(&self) -> u64 {
        (entry_hi::R | entry_hi::VPN2) & !u64::from(self.page_mask)
    }
}

/// A fully associative TLB. No two of its entries match one address.
#[derive(Clone, Debug)]
pub struct Tlb {
    entries: Vec<TlbEntry>,
    index: Index,
}

/// Where to look for the entries that are not hidden.
#[derive(Clone, Debug)]
struct Index {
    /// A bit for each entry.
    buckets: [u64; BUCKETS],
    /// The page masks of the entries, each with how many have it.
    sizes: Vec<(u32, u32)>,
}

const BUCKETS: usize = 256;

impl Index {
    /// The bucket of the pair of pages around `vaddr`.
    #[inline]
    fn bucket(vaddr: u64, page_mask: u32) -> usize {
        let page = (vaddr & !u64::from(page_mask) & entry_hi::VPN2) >> PAIR_SHIFT;
        // The region too: kernel segments and user programs begin at round addresses.
        (page ^ (page >> 8) ^ (page >> 17) ^ (vaddr >> 62) << 6) as usize % BUCKETS
    }

    fn replace(&mut self, index: usize, old: &TlbEntry, new: &TlbEntry) {
        if !old.hidden && !new.hidden && old.page_mask == new.page_mask {
            self.buckets[Index::bucket(old.vpn2, old.page_mask)] &= !(1 << index);
            self.buckets[Index::bucket(new.vpn2, new.page_mask)] |= 1 << index;
            return;
        }
        self.remove(index, old);
        self.add(index, new);
    }

    fn add(&mut self, index: usize, entry: &TlbEntry) {
        if entry.hidden {
            return;
        }
        self.buckets[Index::bucket(entry.vpn2, entry.page_mask)] |= 1 << index;
        match self.sizes.iter_mut().find(|(page_mask, _)| *page_mask == entry.page_mask) {
            Some((_, count)) => *count += 1,
            None => self.sizes.push((entry.page_mask, 1)),
        }
    }

    fn remove(&mut self, index: usize, entry: &TlbEntry) {
        if entry.hidden {
            return;
        }
        self.buckets[Index::bucket(entry.vpn2, entry.page_mask)] &= !(1 << index);
        for (page_mask, count) in &mut self.sizes {
            *count -= u32::from(*page_mask == entry.page_mask);
        }
        self.sizes.retain(|(_, count)| *count > 0);
    }
}

/// The numbers of the bits that are set.
#[inline]
pub(crate) fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (bits != 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        lowest
    })
}

impl Tlb {
    /// A TLB after reset: `entries` (1 to 64) hidden entries.
    pub fn new(entries: u8) -> Tlb {
        let count = usize::from(entries);
        assert!((1..=ENTRIES_MAX).contains(&count), "a TLB has 1 to {ENTRIES_MAX} entries, not {count}");
        let index = Index { buckets: [0; BUCKETS], sizes: Vec::new() };
        Tlb { entries: (0..count).map(TlbEntry::hidden).collect(), index }
    }

    /// Number of entries, hidden ones included.
    #[expect(clippy::len_without_is_empty, reason = "a TLB has at least one entry")]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry that translates `vaddr` in address space `asid`.
    #[inline]
    pub fn find(&self, vaddr: u64, asid: Asid) -> Option<usize> {
        self.index.sizes.iter().find_map(|(page_mask, _)| {
            ones(self.index.buckets[Index::bucket(vaddr, *page_mask)])
                .find(|index| self.entries[*index].matches(vaddr, asid))
        })
    }

    /// The entry at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> &TlbEntry {
        &self.entries[index]
    }

    /// Replaces the entry at `index` and returns the old one.
    ///
    /// # Errors
    /// The lowest index of another entry that overlaps (Machine Check); nothing has changed then.
    pub fn write(&mut self, index: usize, entry: TlbEntry) -> Result<TlbEntry, usize> {
        debug_assert_eq!(entry.page_mask, page_mask::legal(entry.page_mask), "a page size");
        match self.find_overlap(&entry, index) {
            Some(conflict) => Err(conflict),
            None => Ok(self.replace(index, entry)),
        }
    }

    /// Replaces the entry at `index` by one of 4 KiB pages that overlaps no other, which is the caller's to know; returns
    /// VPN2 and PageMask of the old one.
    ///
    /// Part by part: an entry that is put together in memory first and then moved costs the host more than the rest.
    #[inline(always)]
    pub fn write_apart(&mut self, index: usize, vpn2: u64, asid: Asid, global: bool, lo: [u64; 2]) -> (u64, u32) {
        let place = &mut self.entries[index];
        let old = (place.vpn2, place.page_mask);
        let is_of_a_kind = !place.hidden && place.page_mask == 0;
        if is_of_a_kind {
            place.vpn2 = vpn2;
            place.asid = asid;
            place.global = global;
            place.lo = lo;
            self.index.buckets[Index::bucket(old.0, 0)] &= !(1 << index);
            self.index.buckets[Index::bucket(vpn2, 0)] |= 1 << index;
        } else {
            self.replace(index, TlbEntry { vpn2, asid, global, page_mask: 0, lo, hidden: false });
        }
        debug_assert_eq!(self.find_overlap(&self.entries[index], index), None, "two entries for {vpn2:#x}");
        old
    }

    /// Hides the entry at `index` and returns it as it was.
    pub fn invalidate(&mut self, index: usize) -> TlbEntry {
        self.replace(index, TlbEntry::hidden(index))
    }

    /// The lowest index other than `except` of an entry that overlaps `entry`.
    pub fn find_overlap(&self, entry: &TlbEntry, except: usize) -> Option<usize> {
        if entry.hidden {
            return None;
        }
        let conflicts = |index: &usize| *index != except && self.entries[*index].overlaps(entry);
        let has_smaller = self.index.sizes.iter().any(|(page_mask, _)| *page_mask < entry.page_mask);
        if has_smaller {
            return (0..self.entries.len()).find(conflicts);
        }
        let of_size = |(page_mask, _): &(u32, u32)| {
            ones(self.index.buckets[Index::bucket(entry.vpn2, *page_mask)]).find(conflicts)
        };
        self.index.sizes.iter().filter_map(of_size).min()
    }

    /// Indices of the entries that TLBINV hides: those of `asid` that are not global.
    pub fn of_asid(&self, asid: Asid) -> impl Iterator<Item = usize> + '_ {
        let entries = self.entries.iter().enumerate();
        entries
            .filter(move |(_, entry)| !entry.hidden && !entry.global && entry.asid == asid)
            .map(|(index, _)| index)
    }

    fn replace(&mut self, index: usize, entry: TlbEntry) -> TlbEntry {
        let old = std::mem::replace(&mut self.entries[index], entry);
        self.index.replace(index, &old, &entry);
        old
    }
}
