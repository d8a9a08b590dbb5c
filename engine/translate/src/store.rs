//! The translations of a machine: one store for all its CPUs.
//!
//! # By content
//! A page's translations are found by what the page holds, by a hash that nobody can make collide. Code refers
//! to its CPU by a register, to guest addresses by what its frame says, and to nothing of the machine page; so
//! one translation serves every CPU and every machine page with that content, and VMs with the same kernel
//! share it. A page that is written has another content. When it is written back, the old translations are
//! found again.
//!
//! # Many CPUs
//! One thread at a time makes translations, under a lock: a CPU's, or that of `background.rs`. CPUs do not wait
//! for it, but go on with the interpreter. Where a page's table is, they find without that lock. Nothing that is in use is changed: new code is written where no code is, and then its entry
//! point is stored in the page's table, which code on other CPUs reads at each entry. Code of different pages
//! never refers to each other.
//!
//! # Dropping
//! The store is bounded. When it is three quarters full, a new *generation* begins: every CPU forgets which
//! tables it knows when it runs next, and asks for them anew, which tells what is in use. When it is full, the
//! pages that nobody has asked for since are dropped; all pages, if that would be little. A dropped page's table
//! leads nowhere from then on, and its memory is used again once no CPU runs that began before, as each says
//! when it begins and ends. Whoever finds no room meanwhile goes on with the interpreter.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use machine::cpu::{CodeKey, CodePage, PAGE_INSNS, instruction};
use machine::{Cpu, MachineAddr, MachineMemory, PAGE_BYTES};
use mips::Insn;
use rustc_hash::FxBuildHasher;

use crate::BufferError;
use crate::extents::Extents;
use crate::flow::Flow;
use crate::indices::Indices;
use crate::page::{Page, Table};
use crate::region::{Pins, Source};
use crate::translator::Options;
use crate::x86_64::buffer::CodeBuffer;
use crate::x86_64::codegen::{self, Plan, Translation};
use crate::x86_64::emitter::Emitter;
use crate::x86_64::enter::{EntryPoint, Thunks};
use crate::x86_64::integer;

/// What translations depend on: the bytes of a page, and whether 64-bit operations are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    hash: [u8; blake3::OUT_LEN],
    is_32bit: bool,
}

impl Content {
    /// Of a page, as it is now.
    pub fn of(key: CodeKey, memory: &MachineMemory) -> Content {
        let mut bytes = [0; PAGE_BYTES as usize];
        memory.read(MachineAddr(key.page.address().0), &mut bytes);
        Content { hash: *blake3::hash(&bytes).as_bytes(), is_32bit: key.is_32bit }
    }
}

impl Hash for Content {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.hash;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// In place of a generation: the CPU does not run.
const OUTSIDE: u64 = u64::MAX;

/// The generation that a CPU knows of while it runs, or [`OUTSIDE`]. In a line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub struct Running(AtomicU64);

impl Running {
    fn set(&self, generation: u64) {
        self.0.store(generation, SeqCst);
    }

    /// The CPU runs no more; what it did before comes first.
    pub fn end(&self) {
        self.0.store(OUTSIDE, Release);
    }
}

/// The translations of a machine.
#[derive(Debug)]
pub struct Store {
    pub options: Options,
    pub thunks: Thunks,
    /// The table of pages without translations.
    nothing: Table,
    generation: AtomicU64,
    /// Counts the pages that came to have translations.
    page_count: AtomicU64,
    /// `Counters::found`.
    found: AtomicU64,
    /// The CPUs that were admitted.
    running: Mutex<Vec<Arc<Running>>>,
    kept: Mutex<Kept>,
    /// Those of the pages that are kept. Taken after `kept`, and for moments only.
    tables: RwLock<HashMap<Content, Arc<Table>, FxBuildHasher>>,
}

/// What may be changed by one thread at a time.
#[derive(Debug)]
pub struct Kept {
    buffer: CodeBuffer,
    extents: Extents,
    pages: HashMap<Content, Page, FxBuildHasher>,
    /// Bytes that `pages` and `retired` take beside their code.
    page_bytes: usize,
    /// Dropped pages, with the generation that began then.
    retired: Vec<(u64, Page)>,
    /// The generation that began when the store was three quarters full, until it is full.
    aging_since: Option<u64>,
    counters: Counters,
}

/// What happened in a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Regions translated.
    pub regions: u64,
    /// Guest instructions in them.
    pub instructions: u64,
    /// Regions that took in others.
    pub merged: u64,
    /// Bytes of host code made.
    pub bytes: u64,
    /// Times that a CPU came to a page, or wanted code for a run, and another had translated it.
    pub found: u64,
    /// Pages dropped because there was no room.
    pub dropped: u64,
    /// Times that all pages were.
    pub flushes: u64,
}

/// What became of a run that was to be translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// There is code for it, and this is the page's table.
    Yes(u64),
    /// There will never be.
    Never,
    /// Room is needed first.
    NoRoom,
}

/// A run that is to be translated, with all that its translation depends on.
#[derive(Debug)]
pub struct Request {
    content: Content,
    /// What the page holds.
    bytes: Box<[u8; PAGE_BYTES as usize]>,
    /// Which of its instructions have been executed.
    reached: Indices,
    /// The run's virtual address.
    pc: u64,
    /// `Cpu::float_model`.
    float_model: Option<bool>,
}

impl Request {
    /// For the run at `pc` in `page`, which has that content.
    pub fn new(content: Content, page: &CodePage, cpu: &Cpu, pc: u64) -> Request {
        let mut bytes = Box::new([0; PAGE_BYTES as usize]);
        cpu.memory().read(MachineAddr(page.version().key.page.address().0), bytes.as_mut_slice());
        Request { content, bytes, reached: Indices::of(page.reached()), pc, float_model: cpu.float_model() }
    }

    fn insn(&self, index: usize) -> Insn {
        let word = self.bytes.as_chunks().0[index];
        instruction(u32::from_le_bytes(word), self.content.is_32bit)
    }
}

/// Bytes of code that an instruction takes, more or less. Too little means that it is generated twice.
const INSN_BYTES: usize = 96;
/// And what a region takes beside.
const REGION_BYTES: usize = 512;
/// What a page with few translations takes beside their code.
const PAGE_BYTES_USUAL: usize = 6 << 10;
/// A generation ends when the last of so many parts of the store is full; fewer bytes than one are little.
const PARTS: usize = 4;

impl Store {
    /// An empty store.
    ///
    /// # Errors
    /// [`BufferError`] when the host refuses.
    pub fn new(options: Options) -> Result<Arc<Store>, BufferError> {
        let mut buffer = CodeBuffer::new(options.buffer_bytes)?;
        let mut emitter = Emitter::new(buffer.address(), 0);
        let thunks = Thunks::emit(&mut emitter);
        let code = emitter.finish();
        buffer.write(0, &code);
        let kept = Kept {
            extents: Extents::new(code.len(), options.buffer_bytes),
            buffer,
            pages: HashMap::default(),
            page_bytes: 0,
            retired: Vec::new(),
            aging_since: None,
            counters: Counters::default(),
        };
        Ok(Arc::new(Store {
            nothing: Table::new(thunks.absent(), options.crossings_min),
            options,
            thunks,
            generation: AtomicU64::new(0),
            page_count: AtomicU64::new(0),
            found: AtomicU64::new(0),
            running: Mutex::default(),
            kept: Mutex::new(kept),
            tables: RwLock::default(),
        }))
    }

    /// What a CPU knows of a page of which there is nothing to know.
    pub fn nothing(&self) -> u64 {
        self.nothing.address()
    }

    /// The present generation.
    pub fn generation(&self) -> u64 {
        self.generation.load(Acquire)
    }

    /// How often a page came to have translations so far.
    pub fn page_count(&self) -> u64 {
        self.page_count.load(Acquire)
    }

    /// Admits a CPU.
    pub fn admit(&self) -> Arc<Running> {
        let running = Arc::new(Running(AtomicU64::new(OUTSIDE)));
        self.admitted().push(Arc::clone(&running));
        running
    }

    fn admitted(&self) -> MutexGuard<'_, Vec<Arc<Running>>> {
        // There is nothing in it that a panic could leave half done.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many CPUs run now.
    pub fn running_count(&self) -> usize {
        self.admitted().iter().filter(|running| running.0.load(Acquire) != OUTSIDE).count()
    }

    /// The earliest generation that a running CPU knows of, or [`OUTSIDE`].
    fn oldest(&self) -> u64 {
        let mut running = self.admitted();
        running.retain(|running| Arc::strong_count(running) > 1);
        running.iter().map(|running| running.0.load(SeqCst)).min().unwrap_or(OUTSIDE)
    }

    /// Notes that a CPU begins to run, and says in which generation. What it learnt in an earlier one no longer
    /// holds.
    pub fn begin(&self, running: &Running) -> u64 {
        loop {
            let generation = self.generation.load(SeqCst);
            running.set(generation);
            // Either whoever drops pages sees that we run, or we see that it did.
            if self.generation.load(SeqCst) == generation {
                return generation;
            }
        }
    }

    /// The address of the table of pages with that content; `nothing` if there are no translations. `is_first`: the
    /// CPU has not asked for it before.
    pub fn table(&self, content: &Content, is_first: bool) -> u64 {
        let Ok(tables) = self.tables.read() else { return self.nothing() };
        tables.get(content).map_or(self.nothing(), |table| {
            self.found.fetch_add(u64::from(is_first), Relaxed);
            table.use_in(self.generation());
            table.address()
        })
    }

    /// As `table`, if the run at `index` has been translated.
    pub fn table_with(&self, content: &Content, index: usize) -> Option<u64> {
        let tables = self.tables.read().ok()?;
        let table = tables.get(content).filter(|table| table.entry_point(index) != self.thunks.absent())?;
        Some(table.address())
    }

    /// Translates the run, for a thread that is no CPU's.
    pub fn translate(&self, request: &Request) -> Made {
        let Some(mut kept) = self.keep() else { return Made::Never };
        match kept.translate(self, request) {
            // What is dropped is in use until the CPUs that run have begun anew.
            Made::NoRoom if kept.make_room(self) => kept.translate(self, request),
            made => made,
        }
    }

    /// What is kept, unless another thread is at it.
    pub fn try_keep(&self) -> Option<MutexGuard<'_, Kept>> {
        self.kept.try_lock().ok()
    }

    /// What is kept, when nobody else is at it; `None` if somebody has failed there.
    pub fn keep(&self) -> Option<MutexGuard<'_, Kept>> {
        self.kept.lock().ok()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        let found = self.found.load(Relaxed);
        self.keep().map_or(Counters::default(), |kept| Counters { found, ..kept.counters })
    }

    /// Bytes of the host's memory that the store takes.
    pub fn bytes(&self) -> usize {
        self.keep().map_or(0, |kept| kept.extents.tail().start + kept.page_bytes)
    }

    fn begin_generation(&self) -> u64 {
        self.generation.fetch_add(1, SeqCst) + 1
    }
}

impl Kept {
    /// Translates the run, if there is room for it.
    pub fn translate(&mut self, store: &Store, request: &Request) -> Made {
        self.reclaim(store);
        self.age(store);
        let mut page = self.take_page(store, &request.content);
        let made = self.extend(&mut page, store, request);
        self.keep_page(store, request.content, page);
        made
    }

    /// Drops pages that are not in use, or all. False: what was dropped before is not free yet.
    pub fn make_room(&mut self, store: &Store) -> bool {
        if !self.retired.is_empty() {
            return false;
        }
        let since = self.aging_since.take().unwrap_or(u64::MAX);
        let is_unused = |page: &Page| page.table.used() < since;
        let unused_bytes: usize =
            self.pages.values().filter(|page| is_unused(page)).map(Page::bytes_with_code).sum();
        let is_little = unused_bytes < store.options.buffer_bytes / PARTS;
        let absent = store.thunks.absent();
        // Whoever begins in the new generation finds none of the dropped tables: it waits for us.
        let Ok(mut tables) = store.tables.write() else { return false };
        let generation = store.begin_generation();
        for (content, page) in self.pages.extract_if(|_, page| is_little || is_unused(page)) {
            tables.remove(&content);
            page.close(absent);
            self.retired.push((generation, page));
        }
        drop(tables);
        self.counters.dropped += self.retired.len() as u64;
        self.counters.flushes += u64::from(self.pages.is_empty());
        true
    }

    /// Frees what dropped pages took, once no CPU can be in their code.
    fn reclaim(&mut self, store: &Store) {
        if self.retired.is_empty() {
            return;
        }
        let oldest = store.oldest();
        for (_, page) in self.retired.extract_if(.., |(generation, _)| *generation <= oldest) {
            self.page_bytes -= page.bytes();
            page.code.into_iter().for_each(|place| self.extents.give(place));
        }
        self.buffer.discard(self.extents.tail());
    }

    /// Begins a generation if the store is so full that what is in use matters soon.
    fn age(&mut self, store: &Store) {
        let limit = store.options.buffer_bytes;
        let in_use = limit - self.extents.free_bytes() + self.page_bytes;
        if self.aging_since.is_none() && self.retired.is_empty() && in_use > limit - limit / PARTS {
            self.aging_since = Some(store.begin_generation());
        }
    }

    /// The page with that content, out of the others so that it can be worked on.
    fn take_page(&mut self, store: &Store, content: &Content) -> Page {
        let page = self.pages.remove(content);
        self.page_bytes -= page.as_ref().map_or(0, Page::bytes);
        let page = page.unwrap_or_else(|| Page::new(store.thunks.absent(), store.options.crossings_min));
        page.table.use_in(store.generation());
        page
    }

    /// Puts the page back, if it has translations.
    fn keep_page(&mut self, store: &Store, content: Content, page: Page) {
        if page.code.is_empty() {
            return;
        }
        let is_new = page.code.len() == 1;
        self.page_bytes += page.bytes();
        let table = Arc::clone(&page.table);
        self.pages.insert(content, page);
        if is_new && let Ok(mut tables) = store.tables.write() {
            tables.insert(content, table);
            store.page_count.fetch_add(1, Release);
        }
    }

    /// Adds code for the run to its page.
    fn extend(&mut self, page: &mut Page, store: &Store, request: &Request) -> Made {
        let head = (request.pc % PAGE_BYTES / 4) as usize;
        if page.table.entry_point(head) != store.thunks.absent() {
            store.found.fetch_add(1, Relaxed);
            return Made::Yes(page.table.address());
        }
        let is_merging = page.begin_merging(store.options.crossings_min);
        self.add_region(page, store, request, is_merging)
    }

    /// Translates the region around the run.
    fn add_region(&mut self, page: &mut Page, store: &Store, request: &Request, is_merging: bool) -> Made {
        let Request { reached, pc, float_model, .. } = request;
        let head = (*pc % PAGE_BYTES / 4) as usize;
        let mut insns = [None; PAGE_INSNS];
        let mut insn_at = |index: usize| *insns[index].get_or_insert_with(|| request.insn(index));
        let is_translated = |insn| integer::is_translated(insn, float_model.is_some());
        if !is_translated(insn_at(head)) {
            return Made::Never;
        }
        let Page { known, table, .. } = &*page;
        let region = Source {
            page_address: *pc & !(PAGE_BYTES - 1),
            insn_at: &mut insn_at,
            is_translated: &is_translated,
            is_reached: &|index| reached.has(index),
            is_known: &|index| !is_merging && known.has(index),
        }
        .discover(head);
        if region.place(head).is_none_or(|place| region.blocks[place].count == 0) {
            return Made::Never;
        }
        let insn_count: usize = region.blocks.iter().map(|block| block.count).sum();
        let pins = Pins::choose(&region, &mut insn_at);
        let flow = Flow::of(&region, &mut insn_at);
        let (entry_points, float_model) = (table.address(), *float_model);
        let plan = Plan { region: &region, pins: &pins, flow: &flow, entry_points, float_model };
        let generate = |base| codegen::generate(plan, &mut insn_at, &store.thunks, base);
        let (place, made) = match self.put(store, REGION_BYTES + insn_count * INSN_BYTES, generate) {
            Some(made) => made,
            None => return Made::NoRoom,
        };
        for block in &region.blocks {
            page.known.add(block.first);
        }
        self.counters.regions += 1;
        self.counters.merged += u64::from(is_merging);
        self.counters.instructions += insn_count as u64;
        self.open(page, store, place, made.entries)
    }

    /// Finds a place for code of about `bytes` bytes, and writes there what `generate` makes for its address;
    /// `None` if there is no room.
    fn put(
        &mut self,
        store: &Store,
        mut bytes: usize,
        mut generate: impl FnMut(usize) -> Translation,
    ) -> Option<(Range<usize>, Translation)> {
        loop {
            let start = self.find_room(store, bytes)?;
            let made = generate(self.buffer.address() + start);
            if made.code.len() <= bytes {
                let place = self.extents.take(start, made.code.len());
                self.buffer.write(start, &made.code);
                return Some((place, made));
            }
            bytes = made.code.len();
        }
    }

    /// Where there are `bytes` bytes for code, if the store may take as much.
    fn find_room(&self, store: &Store, bytes: usize) -> Option<usize> {
        let start = self.extents.find(bytes)?.start;
        let top = self.extents.tail().start.max(start + bytes);
        (top + self.page_bytes + PAGE_BYTES_USUAL <= store.options.buffer_bytes).then_some(start)
    }

    /// Notes that code is in its place, and where it is entered.
    fn open(&mut self, page: &mut Page, store: &Store, place: Range<usize>, entries: Vec<(usize, usize)>) -> Made {
        self.counters.bytes += place.len() as u64;
        let first = store.thunks.entry_point_of(self.buffer.address() + place.start);
        page.code.push(place);
        for (index, offset) in entries {
            page.table.set_entry_point(index, first + offset as EntryPoint);
        }
        Made::Yes(page.table.address())
    }
}
