//! The translation lookaside buffer: entries of two neighbouring pages each, fully associative.
//!
//! The same type is the hardware TLB of a CPU and the virtual TLB of a guest. An address takes part in
//! a match with its region (bits 63:62) and bits 39:13; whether the bits between are legal is decided by
//! `segments` before, and the eight names of a mapped XKPHYS address are one.
//!
//! A search compares all entries without a branch. For that the tags are kept beside the entries in four
//! arrays of 32-bit words, which the compiler turns into vector compares on any x86-64 (64-bit compares
//! would need a newer one); the entries themselves are only read after a hit. No two entries match one
//! address, so the index of the hit is the OR over "index if equal, else 0".
//!
//! Differences from real hardware: an entry that would overlap another is not written (Machine Check);
//! at reset all entries are hidden, as if EntryHi.EHINV had been written; VPN2 bits under the page mask
//! are stored as zero; TLBR of a hidden entry reads only EHINV.
//!
//! Source: MIPS64 PRA vol. III, "Translation Lookaside Buffer"; Release 3 for EHINV, RI and XI.

use crate::cp0::{Cp0, entry_hi, page_grain, page_mask};
use crate::{AccessKind, Asid, Exception};

/// Most entries that a TLB can have.
const ENTRIES_MAX: usize = 64;
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
    tags: Tags,
}

/// What a search reads, a word an entry and array. Rows past the last entry are hidden.
#[derive(Clone, Debug)]
struct Tags {
    page: [u32; ENTRIES_MAX],
    page_mask: [u32; ENTRIES_MAX],
    asid: [u32; ENTRIES_MAX],
    asid_mask: [u32; ENTRIES_MAX],
}

/// Set in the page tag of a hidden entry and never in what is looked for. R and VPN2 take 29 bits.
const HIDDEN: u32 = 1 << 31;

/// R and VPN2 in one word: bits 28:27 and 26:0.
#[inline]
fn page_word(vaddr: u64) -> u32 {
    ((vaddr >> 62) as u32) << 27 | ((vaddr & entry_hi::VPN2) >> PAIR_SHIFT) as u32
}

impl Tags {
    fn new() -> Tags {
        Tags {
            page: [HIDDEN; ENTRIES_MAX],
            page_mask: [HIDDEN; ENTRIES_MAX],
            asid: [0; ENTRIES_MAX],
            asid_mask: [0; ENTRIES_MAX],
        }
    }

    fn set(&mut self, index: usize, entry: &TlbEntry) {
        self.page[index] = page_word(entry.vpn2) | if entry.hidden { HIDDEN } else { 0 };
        self.page_mask[index] = page_word(entry.compared_bits()) | HIDDEN;
        self.asid[index] = u32::from(entry.asid.0);
        self.asid_mask[index] = if entry.global { 0 } else { u32::MAX };
    }

    /// The index of the hit plus 1, or 0.
    #[inline]
    fn find(&self, vaddr: u64, asid: Asid) -> u32 {
        let page = page_word(vaddr);
        let asid = u32::from(asid.0);
        let mut hit = 0;
        for row in 0..ENTRIES_MAX {
            let difference =
                ((page ^ self.page[row]) & self.page_mask[row]) | ((asid ^ self.asid[row]) & self.asid_mask[row]);
            hit |= if difference == 0 { row as u32 + 1 } else { 0 };
        }
        hit
    }
}

impl Tags {
    /// A bit for each entry that overlaps one that is not hidden.
    fn overlaps(&self, entry: &TlbEntry) -> u64 {
        let page = page_word(entry.vpn2);
        let page_mask = page_word(entry.compared_bits()) | HIDDEN;
        let asid = u32::from(entry.asid.0);
        let asid_mask = if entry.global { 0 } else { u32::MAX };
        let mut differences = [0; ENTRIES_MAX];
        for (row, difference) in differences.iter_mut().enumerate() {
            *difference = ((page ^ self.page[row]) & self.page_mask[row] & page_mask)
                | ((asid ^ self.asid[row]) & self.asid_mask[row] & asid_mask);
        }
        (0..ENTRIES_MAX).fold(0, |bits, row| bits | u64::from(differences[row] == 0) << row)
    }
}

impl Tlb {
    /// A TLB after reset: `entries` (1 to 64) hidden entries.
    pub fn new(entries: u8) -> Tlb {
        let count = usize::from(entries);
        assert!((1..=ENTRIES_MAX).contains(&count), "a TLB has 1 to {ENTRIES_MAX} entries, not {count}");
        Tlb { entries: (0..count).map(TlbEntry::hidden).collect(), tags: Tags::new() }
    }

    /// Number of entries, hidden ones included.
    #[expect(clippy::len_without_is_empty, reason = "a TLB has at least one entry")]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry that translates `vaddr` in address space `asid`.
    #[inline]
    pub fn find(&self, vaddr: u64, asid: Asid) -> Option<usize> {
        (self.tags.find(vaddr, asid) as usize).checked_sub(1)
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

    /// Hides the entry at `index` and returns it as it was.
    pub fn invalidate(&mut self, index: usize) -> TlbEntry {
        self.replace(index, TlbEntry::hidden(index))
    }

    /// The lowest index other than `except` of an entry that overlaps `entry`.
    pub fn find_overlap(&self, entry: &TlbEntry, except: usize) -> Option<usize> {
        let mut overlaps = if entry.hidden { 0 } else { self.tags.overlaps(entry) };
        if except < ENTRIES_MAX {
            overlaps &= !(1 << except);
        }
        (overlaps != 0).then(|| overlaps.trailing_zeros() as usize)
    }

    /// Indices of the entries that TLBINV hides: those of `asid` that are not global.
    pub fn of_asid(&self, asid: Asid) -> impl Iterator<Item = usize> + '_ {
        let entries = self.entries.iter().enumerate();
        entries
            .filter(move |(_, entry)| !entry.hidden && !entry.global && entry.asid == asid)
            .map(|(index, _)| index)
    }

    fn replace(&mut self, index: usize, entry: TlbEntry) -> TlbEntry {
        self.tags.set(index, &entry);
        std::mem::replace(&mut self.entries[index], entry)
    }
}
