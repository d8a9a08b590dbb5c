//! Decoded code, a machine page at a time.
//!
//! A [`CodePage`] holds the 1024 instructions of a machine page taken apart, and for each of them how
//! long the *run* from there is: the instructions that follow each other up to a branch and its delay
//! slot, to an instruction that ends runs (the table of crate `mips` says which), or to the end of
//! the page. Runs are decoded when they are first executed. The pages are private to a CPU; their
//! number is bounded, and when a new one is needed the clock hand looks for one that was not entered
//! since it last came by.
//!
//! Decoding settles what would cost time in the interpreter: a destination register 0 becomes
//! [`SINK`], 64-bit instructions become Reserved where the mode has none, and so do the forms of EXT
//! and INS whose field does not fit.

use std::collections::HashMap;
use std::sync::LazyLock;

use mips::{Insn, Op};
use rustc_hash::FxBuildHasher;

use super::accelerator::CodeKey;
use super::translation::Private;
use crate::{MachineMemory, Mpn, PAGE_BYTES};

/// The register that takes writes to register 0.
pub const SINK: u8 = 32;
/// Instructions in a page.
pub const PAGE_INSNS: usize = PAGE_BYTES as usize / 4;
/// Most instructions in a run.
pub(super) const RUN_MAX: u8 = 96;
/// In place of a length: not decoded yet.
pub(super) const UNDECODED: u8 = 255;
/// In place of a length: a branch whose delay slot lies on the next page or holds what must not be in
/// a delay slot. It runs alone, and the slot after it.
pub(super) const OPEN_BRANCH: u8 = 254;
/// In a length: how often the run begins is counted, for the CPU's accelerator.
const COUNTED: u8 = 128;
/// In place of a count: the accelerator has translated the run.
const TRANSLATED: u8 = 255;

/// 384 pages take 3.9 MiB: the kernel text that Debian's boot touches often, and a program's.
pub(super) const PAGE_COUNT_MAX: usize = 384;

/// A decoded machine page.
#[derive(Debug)]
pub struct CodePage {
    key: CodeKey,
    /// `MachineMemory::code_state` when decoding began; another value means that all is outdated.
    state: u32,
    /// Entered since the clock hand last came by.
    is_used: bool,
    lengths: [u8; PAGE_INSNS],
    /// Of each run that is counted, how often it began.
    heats: [u8; PAGE_INSNS],
    insns: [Insn; PAGE_INSNS],
}

impl CodePage {
    fn new(key: CodeKey, state: u32) -> Box<CodePage> {
        Box::new(CodePage {
            key,
            state,
            is_used: true,
            lengths: [UNDECODED; PAGE_INSNS],
            heats: [0; PAGE_INSNS],
            insns: [mips::decode(0); PAGE_INSNS],
        })
    }

    fn begin_again(&mut self, key: CodeKey, state: u32) {
        self.key = key;
        self.state = state;
        self.is_used = true;
        self.lengths = [UNDECODED; PAGE_INSNS];
        self.heats = [0; PAGE_INSNS];
    }

    /// The machine page that this is.
    pub(super) fn machine_page(&self) -> Mpn {
        self.key.page
    }

    /// What this is the code of.
    pub fn key(&self) -> CodeKey {
        self.key
    }

    /// The code state of the machine page when decoding began.
    pub fn state(&self) -> u32 {
        self.state
    }

    /// Counts that the run at `index` begins. True when it has begun `heat_min` times.
    pub(super) fn heat(&mut self, index: usize, heat_min: u8) -> bool {
        let heat = &mut self.heats[index];
        if *heat < TRANSLATED - 1 {
            *heat += 1;
        }
        *heat >= heat_min
    }

    /// Whether the accelerator has translated the run at `pc`.
    pub(super) fn is_translated(&self, pc: u64) -> bool {
        self.heats[index_of(pc)] == TRANSLATED
    }

    /// Notes whether the accelerator wants the run at `pc`.
    pub(super) fn set_translated(&mut self, pc: u64, is_translated: bool) {
        let index = index_of(pc);
        if is_translated {
            self.heats[index] = TRANSLATED;
        } else {
            self.lengths[index] &= !COUNTED;
        }
    }

    /// Notes that there is no translation at `pc` any more.
    pub(super) fn cool(&mut self, pc: u64) {
        if self.is_translated(pc) {
            self.heats[index_of(pc)] = 0;
        }
    }

    /// Length of the run from `index`, or [`UNDECODED`] or [`OPEN_BRANCH`].
    #[inline(always)]
    pub(super) fn length(&self, index: usize) -> u8 {
        self.lengths[index % PAGE_INSNS]
    }

    /// Length of the run from `index`, which is decoded and no open branch, counted or not.
    pub(super) fn plain_length(&self, index: usize) -> u8 {
        self.length(index) & !COUNTED
    }

    /// Whether the beginnings of the run at `index` are counted.
    pub(super) fn is_counted(&self, index: usize) -> bool {
        self.length(index) & COUNTED != 0
    }

    /// The instruction at `index`; meaningful once a run through it is decoded.
    #[inline(always)]
    pub fn insn(&self, index: usize) -> Insn {
        self.insns[index % PAGE_INSNS]
    }

    /// The instructions from `first` up to, not including, `last`.
    #[inline(always)]
    pub(super) fn run(&self, first: usize, last: usize) -> &[Insn] {
        &self.insns[first..last]
    }

    /// Which instructions have been reached before.
    pub fn decoded(&self) -> [bool; PAGE_INSNS] {
        self.lengths.map(|length| length != UNDECODED)
    }

    /// Decodes the instruction at `index` alone.
    pub fn decode_one(&mut self, memory: &MachineMemory, index: usize) -> Insn {
        let mut bytes = [0; 4];
        let offset = index as u64 * 4;
        memory.read(crate::MachineAddr(self.key.page.address().0 + offset), &mut bytes);
        let insn = prepare(mips::decode(u32::from_le_bytes(bytes)), self.key.is_32bit);
        self.insns[index] = insn;
        insn
    }

    /// Decodes the run from `first`. `is_counted` says whether beginnings of it are counted.
    pub(super) fn decode_run(&mut self, memory: &MachineMemory, first: usize, is_counted: bool) {
        self.decode_lengths(memory, first);
        if is_counted && self.lengths[first] != OPEN_BRANCH {
            let last = first + usize::from(self.lengths[first]);
            for length in self.lengths[first..last].iter_mut().filter(|length| **length < COUNTED) {
                *length |= COUNTED;
            }
        }
    }

    fn decode_lengths(&mut self, memory: &MachineMemory, first: usize) {
        let limit = PAGE_INSNS.min(first + usize::from(RUN_MAX));
        let mut next = first;
        while next < limit {
            let op = self.decode_one(memory, next).op;
            if op.is_branch() {
                return self.end_at_branch(memory, first, next, limit);
            }
            next += 1;
            if op.ends_run() {
                break;
            }
        }
        self.set_lengths(first, next, next);
    }

    /// A branch ends the run: with its delay slot, or before it where the slot must be looked at
    /// separately or would make the run too long.
    fn end_at_branch(&mut self, memory: &MachineMemory, first: usize, branch: usize, limit: usize) {
        let has_slot = branch + 1 < PAGE_INSNS && may_be_in_slot(self.decode_one(memory, branch + 1).op);
        if has_slot && branch + 1 < limit {
            self.set_lengths(first, branch + 1, branch + 2);
        } else {
            self.set_lengths(first, branch, branch);
            if !has_slot {
                self.lengths[branch] = OPEN_BRANCH;
            }
        }
    }

    /// Notes a run up to `end` for each instruction from `first` up to, not including, `last`.
    fn set_lengths(&mut self, first: usize, last: usize, end: usize) {
        for index in first..last {
            self.lengths[index] = (end - index) as u8;
        }
    }
}

/// False for what would make two changes of the program counter at once.
pub fn may_be_in_slot(op: Op) -> bool {
    !op.is_branch() && !matches!(op, Op::Eret | Op::Deret)
}

/// Settles what does not change while the code stays the same.
fn prepare(mut insn: Insn, is_32bit: bool) -> Insn {
    if (is_32bit && insn.op.is_64bit()) || !is_field_inside(insn) {
        insn.op = Op::Reserved;
        return insn;
    }
    match DESTINATIONS[insn.op as usize] {
        Some(Destination::Rd) if insn.rd == 0 => insn.rd = SINK,
        Some(Destination::Rt) if insn.rt == 0 => insn.rt = SINK,
        _ => {}
    }
    insn
}

/// EXT and INS whose field leaves the register are UNPREDICTABLE; here they are reserved.
fn is_field_inside(insn: Insn) -> bool {
    match insn.op {
        Op::Ext => insn.sa + insn.rd < 32,
        Op::Dextm | Op::Dextu => insn.sa + insn.rd < 32,
        Op::Ins | Op::Dinsu | Op::Dins => insn.sa <= insn.rd,
        _ => true,
    }
}

/// The field that names the general register an instruction writes.
#[derive(Clone, Copy)]
enum Destination {
    Rd,
    Rt,
}

static DESTINATIONS: LazyLock<Vec<Option<Destination>>> =
    LazyLock::new(|| Op::ALL.iter().map(|op| destination(*op)).collect());

/// Where the result goes. SC and SCD read their `rt` too and look after register 0 themselves.
fn destination(op: Op) -> Option<Destination> {
    if op.is_store() {
        return None;
    }
    if matches!(op, Op::Mtc0 | Op::Dmtc0 | Op::Mtc1 | Op::Dmtc1 | Op::Mthc1 | Op::Ctc1) {
        return None;
    }
    let operands = op.row().operands.trim_start_matches('[');
    match operands.get(..2) {
        Some("rd") => Some(Destination::Rd),
        Some("rt") => Some(Destination::Rt),
        _ => None,
    }
}

/// The decoded pages of a CPU.
#[derive(Debug)]
pub(super) struct CodeCache {
    page_count_max: usize,
    pages: Vec<Box<CodePage>>,
    slots: HashMap<CodeKey, usize, FxBuildHasher>,
    hand: usize,
}

impl Default for CodeCache {
    fn default() -> CodeCache {
        CodeCache { page_count_max: PAGE_COUNT_MAX, pages: Vec::new(), slots: HashMap::default(), hand: 0 }
    }
}

impl CodeCache {
    /// An empty cache of so many pages.
    pub(super) fn new(page_count_max: usize) -> CodeCache {
        CodeCache { page_count_max, ..CodeCache::default() }
    }

    /// The page in `slot`.
    #[inline(always)]
    pub(super) fn page_mut(&mut self, slot: usize) -> &mut CodePage {
        &mut self.pages[slot]
    }

    /// Whether `slot` holds `key`, and nothing was written to that machine page since.
    #[inline(always)]
    pub(super) fn enter(&mut self, slot: usize, key: CodeKey, memory: &MachineMemory) -> bool {
        match self.pages.get_mut(slot) {
            Some(page) if page.key == key && page.state == memory.code_state(key.page) => {
                page.is_used = true;
                true
            }
            _ => false,
        }
    }

    /// The slot of `key`, whose machine page has the code state `state`.
    pub(super) fn find(&mut self, key: CodeKey, state: u32) -> usize {
        if let Some(&slot) = self.slots.get(&key) {
            let page = &mut self.pages[slot];
            page.is_used = true;
            if page.state != state {
                page.begin_again(key, state);
            }
            return slot;
        }
        let slot = self.take_slot(key, state);
        self.slots.insert(key, slot);
        slot
    }

    fn take_slot(&mut self, key: CodeKey, state: u32) -> usize {
        if self.pages.len() < self.page_count_max {
            self.pages.push(CodePage::new(key, state));
            return self.pages.len() - 1;
        }
        while std::mem::take(&mut self.pages[self.hand].is_used) {
            self.hand = (self.hand + 1) % self.page_count_max;
        }
        let slot = self.hand;
        self.hand = (self.hand + 1) % self.page_count_max;
        self.slots.remove(&self.pages[slot].key);
        self.pages[slot].begin_again(key, state);
        slot
    }
}

/// What a fetch from a machine page needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownPage {
    key: CodeKey,
    /// The page's code state; another one means that the rest is outdated.
    state: u32,
    /// Where its decoded instructions are, or were.
    pub(super) slot: u32,
    /// The accelerator's.
    pub(super) entry_points: u64,
}

const KNOWN_PAGE_COUNT: usize = 1024;

/// Machine pages whose entry points are known, by page number: what the fetch cache has lost because the
/// TLB has is found here, without asking the accelerator.
#[derive(Debug)]
pub(super) struct KnownPages(Vec<Option<KnownPage>>);

impl KnownPages {
    /// Without a page.
    pub(super) fn new() -> KnownPages {
        KnownPages(vec![None; KNOWN_PAGE_COUNT])
    }

    /// What is known of `key`, if nothing was written to that machine page since.
    #[inline]
    pub(super) fn get(&self, key: CodeKey, memory: &MachineMemory) -> Option<KnownPage> {
        self.0[key.page.0 as usize % KNOWN_PAGE_COUNT]
            .filter(|known| known.key == key && known.state == memory.code_state(key.page))
    }

    /// Notes the entry points of a page in that code state.
    pub(super) fn insert(&mut self, key: CodeKey, state: u32, slot: u32, entry_points: u64) {
        self.0[key.page.0 as usize % KNOWN_PAGE_COUNT] = Some(KnownPage { key, state, slot, entry_points });
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.0.fill(None);
    }
}

pub(super) const FETCH_ENTRY_COUNT: usize = 256;
pub(super) const FETCH_ENTRY_BYTES: usize = size_of::<FetchEntry>();

/// Where a virtual page's decoded instructions are.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct FetchEntry {
    /// Virtual page address | context.
    tag: u64,
    /// The accelerator's.
    entry_points: u64,
    page: Mpn,
    slot: u32,
    /// So that the size is a power of two.
    _padding: u64,
}

/// Direct-mapped cache from virtual pages to decoded pages; purged as the host translations are.
#[derive(Debug)]
pub(super) struct FetchTranslations {
    entries: [FetchEntry; FETCH_ENTRY_COUNT],
    private: Private<{ FETCH_ENTRY_COUNT / 64 }>,
}

const FETCH_EMPTY: FetchEntry = FetchEntry { tag: u64::MAX, entry_points: 0, page: Mpn(0), slot: 0, _padding: 0 };

impl FetchTranslations {
    /// Where the entries are, for `Layout`.
    pub(super) const ENTRIES_OFFSET: usize = std::mem::offset_of!(FetchTranslations, entries);

    pub(super) fn new() -> FetchTranslations {
        FetchTranslations { entries: [FETCH_EMPTY; FETCH_ENTRY_COUNT], private: Private::default() }
    }

    #[inline(always)]
    pub(super) fn get(&self, pc: u64, context: u64) -> Option<(Mpn, usize)> {
        let entry = &self.entries[fetch_index(pc)];
        (entry.tag == pc & !(PAGE_BYTES - 1) | context).then_some((entry.page, entry.slot as usize))
    }

    pub(super) fn insert(&mut self, pc: u64, context: u64, page: Mpn, slot: usize, entry_points: u64) {
        let tag = pc & !(PAGE_BYTES - 1) | context;
        self.entries[fetch_index(pc)] = FetchEntry { tag, entry_points, page, slot: slot as u32, _padding: 0 };
    }

    /// The entry points in the entry that `pc` would be in.
    pub(super) fn entry_points(&self, pc: u64) -> u64 {
        self.entries[fetch_index(pc)].entry_points
    }

    /// Notes the entry points of the page of `pc`, if it is remembered.
    pub(super) fn set_entry_points(&mut self, pc: u64, context: u64, entry_points: u64) {
        let entry = &mut self.entries[fetch_index(pc)];
        if entry.tag == pc & !(PAGE_BYTES - 1) | context {
            entry.entry_points = entry_points;
        }
    }

    /// Puts `none` in place of all entry points.
    pub(super) fn forget_entry_points(&mut self, none: u64) {
        for entry in &mut self.entries {
            entry.entry_points = none;
        }
    }

    pub(super) fn flush(&mut self) {
        self.entries = [FETCH_EMPTY; FETCH_ENTRY_COUNT];
        self.private = Private::default();
    }

    /// Forgets what is private to the address space.
    pub(super) fn forget_private(&mut self) {
        for place in self.private.take() {
            self.entries[place] = FETCH_EMPTY;
        }
    }

    /// Notes that the translation of `pc` holds until the ASID changes.
    pub(super) fn set_private(&mut self, pc: u64) {
        self.private.add(fetch_index(pc));
    }

    /// Forgets `bytes` bytes from `vaddr` in every context.
    pub(super) fn remove(&mut self, vaddr: u64, bytes: u64) {
        if bytes > (FETCH_ENTRY_COUNT as u64) << crate::PAGE_SHIFT {
            return self.flush();
        }
        for page in (vaddr..vaddr + bytes).step_by(PAGE_BYTES as usize) {
            let entry = &mut self.entries[fetch_index(page)];
            if (entry.tag ^ page) & super::translation::TLB_PAGE_BITS == 0 {
                *entry = FETCH_EMPTY;
            }
        }
    }
}

/// The place in its page of the instruction at `pc`.
fn index_of(pc: u64) -> usize {
    (pc >> 2) as usize % PAGE_INSNS
}

/// Programs and libraries lie at round distances, so more than the lowest bits of the page number choose
/// the entry; none that `remove` does not look at.
fn fetch_index(pc: u64) -> usize {
    let page = pc >> crate::PAGE_SHIFT;
    (page ^ (page >> FETCH_ENTRY_COUNT.ilog2())) as usize % FETCH_ENTRY_COUNT
}
