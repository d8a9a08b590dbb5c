//! Decoded code, a machine page at a time.
//!
//! A [`CodePage`] holds instructions of a machine page taken apart, and for each of them how
//! long the *run* from there is: the instructions that follow each other up to a branch and its delay
//! slot, to an instruction that ends runs (the table of crate `mips` says which), or to the end of
//! a *chunk* of 64 instructions. Runs are decoded when they are first executed, and what a page has in memory
//! is the chunks in which there are some: of most pages little is ever executed. The pages are private to a
//! CPU; the number of chunks is bounded, and when it is reached the clock hand looks for a page that was not
//! entered since it last came by. A page of which translations alone are executed needs none.
//!
//! Decoding settles what would cost time in the interpreter: a destination register 0 becomes
//! [`SINK`], 64-bit instructions become Reserved where the mode has none, and so do the forms of EXT
//! and INS whose field does not fit.

use std::collections::HashMap;
use std::sync::LazyLock;

use mips::{Insn, Op};
use rustc_hash::FxBuildHasher;

use super::accelerator::{CodeKey, CodeVersion};
use super::translation::Private;
use crate::{MachineAddr, MachineMemory, Mpn, PAGE_BYTES};

/// The register that takes writes to register 0.
pub const SINK: u8 = 32;
/// Instructions in a page.
pub const PAGE_INSNS: usize = PAGE_BYTES as usize / 4;
/// Instructions in a chunk, which is decoded and kept as far as something in it is executed.
const CHUNK_INSNS: usize = 64;
const CHUNK_COUNT: usize = PAGE_INSNS / CHUNK_INSNS;
/// Most instructions in a run: a chunk's, and a delay slot.
pub(super) const RUN_MAX: u8 = CHUNK_INSNS as u8 + 1;
/// In place of a length: not decoded yet.
pub(super) const UNDECODED: u8 = 255;
/// In place of a length: a branch whose delay slot lies on the next page or holds what must not be in
/// a delay slot. It runs alone, and the slot after it.
pub(super) const OPEN_BRANCH: u8 = 254;
/// In a length: how often the run begins is counted, for the CPU's accelerator.
const COUNTED: u8 = 128;
/// In place of a count: the accelerator has translated the run.
const TRANSLATED: u8 = 255;

/// 5,000 chunks take 3.5 MiB: the kernel text that Debian's boot touches often, and a program's.
pub(super) const CHUNK_COUNT_MAX: usize = 5_000;

/// What a page is in whose slot there is none.
const NO_VERSION: CodeVersion = CodeVersion { key: CodeKey { page: Mpn(u32::MAX), is_32bit: false }, state: 0 };

/// A part of a page, decoded.
#[derive(Debug)]
struct Chunk {
    lengths: [u8; CHUNK_INSNS],
    /// Of each run that is counted, how often it began.
    heats: [u8; CHUNK_INSNS],
    /// And the one behind, which may be the delay slot of the last.
    insns: [Insn; CHUNK_INSNS + 1],
}

impl Chunk {
    fn new() -> Box<Chunk> {
        let nothing = Insn { op: Op::Nop, rs: 0, rt: 0, rd: 0, sa: 0, imm: 0 };
        Box::new(Chunk {
            lengths: [UNDECODED; CHUNK_INSNS],
            heats: [0; CHUNK_INSNS],
            insns: [nothing; CHUNK_INSNS + 1],
        })
    }

    /// A bit for each instruction that has been reached.
    fn reached(&self) -> u64 {
        self.lengths.iter().rfold(0, |bits, length| bits << 1 | u64::from(*length != UNDECODED))
    }

    /// A branch ends the run: with its delay slot, or before it where the slot must be looked at separately.
    fn end_at_branch(&mut self, first: usize, branch: usize, slot: Option<Insn>, counted: u8) {
        if let Some(slot) = slot.filter(|slot| may_be_in_slot(slot.op)) {
            self.insns[branch + 1] = slot;
            self.set_lengths(first, branch + 1, branch + 2, counted);
        } else {
            self.set_lengths(first, branch, branch, counted);
            self.lengths[branch] = OPEN_BRANCH;
        }
    }

    /// Notes a run up to `end` for each instruction from `first` up to, not including, `last`.
    fn set_lengths(&mut self, first: usize, last: usize, end: usize, counted: u8) {
        for index in first..last {
            self.lengths[index] = (end - index) as u8 | counted;
        }
    }
}

/// A decoded machine page.
#[derive(Debug)]
pub struct CodePage {
    /// Of another version, all is outdated.
    version: CodeVersion,
    /// Entered since the clock hand last came by.
    is_used: bool,
    /// As how many chunks the cache has counted it.
    counted: usize,
    chunks: [Option<Box<Chunk>>; CHUNK_COUNT],
}

impl CodePage {
    fn new(version: CodeVersion) -> CodePage {
        CodePage { version, is_used: true, counted: 0, chunks: [const { None }; CHUNK_COUNT] }
    }

    /// The machine page that this is.
    pub(super) fn machine_page(&self) -> Mpn {
        self.version.key.page
    }

    /// What this is the code of.
    pub fn version(&self) -> CodeVersion {
        self.version
    }

    /// The chunk of the instruction at `index`, if one there is decoded.
    #[inline(always)]
    fn chunk(&self, index: usize) -> Option<&Chunk> {
        self.chunks[index / CHUNK_INSNS % CHUNK_COUNT].as_deref()
    }

    fn chunk_mut(&mut self, index: usize) -> &mut Chunk {
        self.chunks[index / CHUNK_INSNS % CHUNK_COUNT].get_or_insert_with(Chunk::new)
    }

    /// Counts that the run at `index` begins. True when it has begun `heat_min` times.
    pub(super) fn heat(&mut self, index: usize, heat_min: u8) -> bool {
        let heat = &mut self.chunk_mut(index).heats[index % CHUNK_INSNS];
        if *heat < TRANSLATED - 1 {
            *heat += 1;
        }
        *heat >= heat_min
    }

    /// Whether the accelerator has translated the run at `pc`.
    pub(super) fn is_translated(&self, pc: u64) -> bool {
        let index = index_of(pc);
        self.chunk(index).is_some_and(|chunk| chunk.heats[index % CHUNK_INSNS] == TRANSLATED)
    }

    /// Notes whether the accelerator wants the run at `pc`.
    pub(super) fn set_translated(&mut self, pc: u64, is_translated: bool) {
        let index = index_of(pc);
        let chunk = self.chunk_mut(index);
        if is_translated {
            chunk.heats[index % CHUNK_INSNS] = TRANSLATED;
        } else {
            chunk.lengths[index % CHUNK_INSNS] &= !COUNTED;
        }
    }

    /// Counts the beginnings of the run at `pc` anew.
    pub(super) fn count_anew(&mut self, pc: u64) {
        let index = index_of(pc);
        self.chunk_mut(index).heats[index % CHUNK_INSNS] = 0;
    }

    /// Notes that there is no translation at `pc` any more.
    pub(super) fn cool(&mut self, pc: u64) {
        if self.is_translated(pc) {
            self.count_anew(pc);
        }
    }

    /// Length of the run from `index`, or [`UNDECODED`] or [`OPEN_BRANCH`].
    #[inline(always)]
    pub(super) fn length(&self, index: usize) -> u8 {
        self.chunk(index).map_or(UNDECODED, |chunk| chunk.lengths[index % CHUNK_INSNS])
    }

    /// Length of the run from `index`, which is decoded and no open branch, counted or not.
    pub(super) fn plain_length(&self, index: usize) -> u8 {
        self.length(index) & !COUNTED
    }

    /// Whether the beginnings of the run at `index` are counted.
    pub(super) fn is_counted(&self, index: usize) -> bool {
        self.length(index) & COUNTED != 0
    }

    /// The instructions from `first` up to, not including, `last`, of a run that is decoded.
    #[inline(always)]
    pub(super) fn run(&self, first: usize, last: usize) -> &[Insn] {
        let chunk = self.chunk(first).expect("a run that is executed is decoded");
        let place = first % CHUNK_INSNS;
        &chunk.insns[place..place + (last - first)]
    }

    /// The instructions that have been reached before, as far as the page has been kept: a bit for each, the lowest
    /// first.
    pub fn reached(&self) -> [u64; CHUNK_COUNT] {
        std::array::from_fn(|place| self.chunks[place].as_ref().map_or(0, |chunk| chunk.reached()))
    }

    /// The instruction at `index`, as memory has it.
    fn insn(&self, memory: &MachineMemory, index: usize) -> Insn {
        let mut bytes = [0; 4];
        let offset = index as u64 * 4;
        memory.read(MachineAddr(self.machine_page().address().0 + offset), &mut bytes);
        instruction(u32::from_le_bytes(bytes), self.version.key.is_32bit)
    }

    /// Decodes the instruction at `index` as a run of its own, whose length is not noted.
    pub(super) fn decode_one(&mut self, memory: &MachineMemory, index: usize) -> Insn {
        let insn = self.insn(memory, index);
        self.chunk_mut(index).insns[index % CHUNK_INSNS] = insn;
        insn
    }

    /// Decodes the run from `first`. `is_counted` says whether beginnings of it are counted.
    pub(super) fn decode_run(&mut self, memory: &MachineMemory, first: usize, is_counted: bool) {
        let counted = if is_counted { COUNTED } else { 0 };
        let CodeKey { page, is_32bit } = self.version.key;
        let mut bytes = [0; 4 * (CHUNK_INSNS + 1)];
        let last = PAGE_INSNS.min(first - first % CHUNK_INSNS + CHUNK_INSNS + 1);
        let bytes = &mut bytes[..4 * (last - first)];
        memory.read(MachineAddr(page.address().0 + first as u64 * 4), bytes);
        let mut words = bytes.as_chunks().0.iter().map(|word| instruction(u32::from_le_bytes(*word), is_32bit));

        let chunk = self.chunk_mut(first);
        let first = first % CHUNK_INSNS;
        let mut next = first;
        for insn in words.by_ref().take(CHUNK_INSNS - first) {
            chunk.insns[next] = insn;
            let kind = KINDS[insn.op as usize];
            if kind.is_branch {
                return chunk.end_at_branch(first, next, words.next(), counted);
            }
            next += 1;
            if kind.ends_run {
                break;
            }
        }
        chunk.set_lengths(first, next, next, counted);
    }
}

/// False for what would make two changes of the program counter at once.
pub fn may_be_in_slot(op: Op) -> bool {
    !op.is_branch() && !matches!(op, Op::Eret | Op::Deret)
}

/// The instruction that a word is, with what does not change while the code stays the same settled.
pub fn instruction(word: u32, is_32bit: bool) -> Insn {
    let mut insn = mips::decode(word);
    if (is_32bit && insn.op.is_64bit()) || !is_field_inside(insn) {
        insn.op = Op::Reserved;
        return insn;
    }
    match KINDS[insn.op as usize].destination {
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

/// What decoding asks of an operation, close together.
#[derive(Clone, Copy)]
struct Kind {
    destination: Option<Destination>,
    is_branch: bool,
    ends_run: bool,
}

static KINDS: LazyLock<[Kind; Op::COUNT]> = LazyLock::new(|| {
    std::array::from_fn(|index| {
        let op = Op::ALL[index];
        Kind { destination: destination(op), is_branch: op.is_branch(), ends_run: op.ends_run() }
    })
});

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
    chunk_count_max: usize,
    /// Of all pages, but for what was decoded since in the one that was entered last.
    chunk_count: usize,
    pages: Vec<CodePage>,
    slots: HashMap<CodeKey, usize, FxBuildHasher>,
    /// Slots of pages that were dropped.
    free: Vec<usize>,
    hand: usize,
    entered: usize,
}

impl Default for CodeCache {
    fn default() -> CodeCache {
        CodeCache::new(CHUNK_COUNT_MAX)
    }
}

impl CodeCache {
    /// An empty cache of so many chunks; each page counts for one more.
    pub(super) fn new(chunk_count_max: usize) -> CodeCache {
        CodeCache {
            chunk_count_max,
            chunk_count: 0,
            pages: Vec::new(),
            slots: HashMap::default(),
            free: Vec::new(),
            hand: 0,
            entered: 0,
        }
    }

    /// From now on, so many chunks are kept.
    pub(super) fn set_chunk_count_max(&mut self, chunk_count_max: usize) {
        self.chunk_count_max = chunk_count_max;
    }

    /// The page in `slot`.
    #[inline(always)]
    pub(super) fn page_mut(&mut self, slot: usize) -> &mut CodePage {
        &mut self.pages[slot]
    }

    /// The slot of a page: `slot`, if it is still there.
    #[inline(always)]
    pub(super) fn enter(&mut self, slot: usize, version: CodeVersion) -> usize {
        match self.pages.get_mut(slot) {
            Some(page) if page.version == version => page.is_used = true,
            _ => return self.find(version),
        }
        if slot != self.entered {
            self.count_entered();
            self.entered = slot;
        }
        slot
    }

    #[inline(never)]
    fn find(&mut self, version: CodeVersion) -> usize {
        self.count_entered();
        let slot = match self.slots.get(&version.key) {
            Some(slot) => *slot,
            None => self.take_slot(version.key),
        };
        let page = &mut self.pages[slot];
        page.is_used = true;
        if page.version != version {
            self.chunk_count -= page.counted;
            *page = CodePage::new(version);
        }
        self.entered = slot;
        slot
    }

    /// A slot for a page that has none.
    fn take_slot(&mut self, key: CodeKey) -> usize {
        while self.chunk_count >= self.chunk_count_max {
            self.drop_page();
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.pages.push(CodePage::new(NO_VERSION));
            self.pages.len() - 1
        });
        self.slots.insert(key, slot);
        slot
    }

    /// Drops the next page that was not entered since the hand came by.
    fn drop_page(&mut self) {
        loop {
            self.hand = (self.hand + 1) % self.pages.len();
            let page = &mut self.pages[self.hand];
            if page.version != NO_VERSION && !std::mem::take(&mut page.is_used) {
                break;
            }
        }
        let page = std::mem::replace(&mut self.pages[self.hand], CodePage::new(NO_VERSION));
        self.slots.remove(&page.version.key);
        self.chunk_count -= page.counted;
        self.free.push(self.hand);
    }

    /// Counts what was decoded in the page that was entered last.
    fn count_entered(&mut self) {
        if let Some(page) = self.pages.get_mut(self.entered) {
            let count = 1 + page.chunks.iter().flatten().count();
            self.chunk_count += count - std::mem::replace(&mut page.counted, count);
        }
    }
}

/// What a fetch from a machine page needs.
#[derive(Clone, Copy, Debug)]
struct KnownPage {
    version: CodeVersion,
    /// The accelerator's.
    entry_points: u64,
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

    /// The entry points of a page, if they are known.
    #[inline]
    pub(super) fn get(&self, version: CodeVersion) -> Option<u64> {
        self.0[version.key.page.0 as usize % KNOWN_PAGE_COUNT]
            .filter(|known| known.version == version)
            .map(|known| known.entry_points)
    }

    /// Notes the entry points of a page.
    pub(super) fn insert(&mut self, version: CodeVersion, entry_points: u64) {
        self.0[version.key.page.0 as usize % KNOWN_PAGE_COUNT] = Some(KnownPage { version, entry_points });
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.0.fill(None);
    }
}

pub(super) const FETCH_ENTRY_COUNT: usize = 1024;
pub(super) const FETCH_ENTRY_BYTES: usize = size_of::<FetchEntry>();
/// In place of a slot: none is known.
const NO_SLOT: u32 = u32::MAX;

/// Where a virtual page's instructions are.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct FetchEntry {
    /// Virtual page address | context.
    tag: u64,
    /// The accelerator's.
    entry_points: u64,
    page: Mpn,
    /// Where it is decoded, or was.
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

const FETCH_EMPTY: FetchEntry =
    FetchEntry { tag: u64::MAX, entry_points: 0, page: Mpn(0), slot: NO_SLOT, _padding: 0 };

impl FetchTranslations {
    /// Where the entries are, for `Layout`.
    pub(super) const ENTRIES_OFFSET: usize = std::mem::offset_of!(FetchTranslations, entries);

    pub(super) fn new() -> FetchTranslations {
        FetchTranslations { entries: [FETCH_EMPTY; FETCH_ENTRY_COUNT], private: Private::default() }
    }

    #[inline(always)]
    pub(super) fn get(&self, pc: u64, context: u64) -> Option<Mpn> {
        let entry = &self.entries[fetch_index(pc)];
        (entry.tag == pc & !(PAGE_BYTES - 1) | context).then_some(entry.page)
    }

    pub(super) fn insert(&mut self, pc: u64, context: u64, page: Mpn, entry_points: u64) {
        let tag = pc & !(PAGE_BYTES - 1) | context;
        self.entries[fetch_index(pc)] = FetchEntry { tag, entry_points, page, slot: NO_SLOT, _padding: 0 };
    }

    /// Where the page of `pc`, which is remembered, is decoded, as far as is known.
    pub(super) fn slot(&mut self, pc: u64) -> &mut u32 {
        &mut self.entries[fetch_index(pc)].slot
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

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: u64 = 64;
    const ADDIU: u32 = 0x2442_0001;
    const BEQ: u32 = 0x1000_0002;

    /// Pages of additions, with a branch at each of `branches`.
    fn memory(branches: &[usize]) -> MachineMemory {
        let memory = MachineMemory::new(1, PAGES * PAGE_BYTES).unwrap();
        for place in 0..PAGES * PAGE_BYTES / 4 {
            let word = if branches.contains(&(place as usize % PAGE_INSNS)) { BEQ } else { ADDIU };
            memory.write(MachineAddr(4 * place), &word.to_le_bytes());
        }
        memory
    }

    fn version(memory: &MachineMemory, page: u32) -> CodeVersion {
        let key = CodeKey { page: Mpn(page), is_32bit: false };
        CodeVersion { key, state: memory.mark_code(key.page) }
    }

    #[test]
    fn a_run_ends_with_its_chunk_or_with_the_slot_behind_it() {
        let memory = memory(&[CHUNK_INSNS - 1, 2 * CHUNK_INSNS, PAGE_INSNS - 1]);
        let mut page = CodePage::new(version(&memory, 0));
        // The first of a run, its length, and the operation of its last instruction.
        for (first, length, op) in [
            (3, CHUNK_INSNS - 3 + 1, Op::Addiu), // the branch is the chunk's last: its slot is in the next
            (CHUNK_INSNS - 1, 2, Op::Addiu),
            (CHUNK_INSNS, CHUNK_INSNS, Op::Addiu), // to the end of the chunk, before a branch
            (2 * CHUNK_INSNS, 2, Op::Addiu),
            (PAGE_INSNS - 4, 3, Op::Addiu), // before a branch without a slot
        ] {
            page.decode_run(&memory, first, true);
            assert!(page.is_counted(first), "at {first}");
            assert_eq!(usize::from(page.plain_length(first)), length, "at {first}");
            assert_eq!(page.run(first, first + length).last().unwrap().op, op, "at {first}");
        }
        assert_eq!(page.length(PAGE_INSNS - 1), OPEN_BRANCH);
        assert_eq!(page.reached()[0], u64::MAX << 3, "execution came to 3 first");
    }

    #[test]
    fn no_more_chunks_are_kept_than_were_asked_for() {
        const CHUNKS_MAX: usize = 40;
        let memory = memory(&[]);
        let mut cache = CodeCache::new(CHUNKS_MAX);
        let mut seed = 1u32;
        let mut slots = vec![0; PAGES as usize];
        for step in 0..20_000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (page, index) = (seed >> 26, (seed >> 8) as usize % PAGE_INSNS);
            if step % 97 == 0 {
                memory.write(MachineAddr(u64::from(page) * PAGE_BYTES), &ADDIU.to_le_bytes());
            }
            let wanted = version(&memory, page);
            let slot = cache.enter(slots[page as usize], wanted);
            slots[page as usize] = slot;
            assert_eq!(cache.page_mut(slot).version(), wanted, "step {step}");
            let before = cache.pages.iter().flat_map(|page| &page.chunks).flatten().count();
            assert!(before <= CHUNKS_MAX + CHUNK_COUNT, "{before} chunks in step {step}");
            if cache.page_mut(slot).length(index) == UNDECODED {
                cache.page_mut(slot).decode_run(&memory, index, false);
            }
            assert_eq!(cache.slots.len() + cache.free.len(), cache.pages.len(), "step {step}");
        }
        assert!(cache.slots.len() > CHUNKS_MAX / (CHUNK_COUNT + 1), "some pages are kept");
    }
}
