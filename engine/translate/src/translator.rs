//! The translations of a CPU: what there is, how it is found, and when it lapses.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use machine::cpu::{Accelerator, CodeKey, CodePage, Handler, PAGE_INSNS, Ran};
use machine::{Cpu, PAGE_BYTES};
use rustc_hash::FxBuildHasher;

use crate::BufferError;
use crate::flow::Flow;
use crate::region::{Pins, Source};
use crate::room::{self, Room};
use crate::uses::Registers;
use crate::x86_64::buffer::CodeBuffer;
use crate::x86_64::codegen::{self, Plan};
use crate::x86_64::emitter::Emitter;
use crate::x86_64::enter::{self, EntryPoint, Thunks};
use crate::x86_64::integer;

/// What a translator may use, and when it acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes of code kept.
    pub buffer_bytes: usize,
    /// A run that began this often is translated.
    pub heat_min: u8,
    /// When execution crossed this often between regions of a page, they are merged; the next time takes
    /// four times as many.
    pub crossings_min: u32,
    /// Pages that the CPU keeps decoded.
    pub decoded_pages_max: usize,
}

/// Decoded pages of each of few CPUs: the text that a kernel and some programs use by turns. With a third of
/// them, forking and executing small programs took half as long again.
const DECODED_PAGES_FEW_CPUS: usize = 384;
/// Decoded pages of each of many CPUs.
const DECODED_PAGES_MANY_CPUS: usize = 128;

impl Options {
    /// For each of `cpus` CPUs.
    pub fn for_each_of(cpus: usize) -> Options {
        let is_few = cpus <= room::FEW_CPUS;
        let decoded_pages_max = if is_few { DECODED_PAGES_FEW_CPUS } else { DECODED_PAGES_MANY_CPUS };
        Options { decoded_pages_max, ..Options::default() }
    }
}

impl Default for Options {
    fn default() -> Options {
        // Making code of a region takes as long as some ten thousand crossings.
        Options {
            buffer_bytes: 32 << 20,
            heat_min: 16,
            crossings_min: 30_000,
            decoded_pages_max: DECODED_PAGES_FEW_CPUS,
        }
    }
}

/// More than the code of any region takes.
const REGION_BYTES_MAX: usize = 256 << 10;
/// What a page with translations takes beside their code: its table, and where its blocks are.
const PAGE_BYTES_TAKEN: usize = 5 << 10;

/// What a translator did.
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
    /// Times that all code was dropped because there was no room.
    pub flushes: u64,
    /// Host time spent.
    pub time: Duration,
}

/// A translated block of a page.
#[derive(Debug)]
struct Block {
    /// Where its code is, which expects registers in their pins.
    address: usize,
    pins: Arc<Pins>,
    /// What must be in them.
    live: Registers,
}

/// What translated code knows of a page. It writes here too, hence the atomics.
#[derive(Debug)]
#[repr(C)]
struct Table {
    /// The host code for each instruction.
    entry_points: [AtomicU32; PAGE_INSNS],
    /// How often execution may yet cross from region to region in the page before they are merged.
    crossings_left: AtomicI32,
    /// They are to be merged.
    is_torn: AtomicU32,
}

// The emitted code has the same idea of it.
const _: () = assert!(std::mem::offset_of!(Table, crossings_left) == codegen::CROSSINGS_OFFSET);
const _: () = assert!(std::mem::offset_of!(Table, is_torn) == codegen::TORN_OFFSET);

impl Table {
    /// Without translations.
    fn new(absent: EntryPoint, crossings_min: u32) -> Box<Table> {
        Box::new(Table {
            entry_points: std::array::from_fn(|_| AtomicU32::new(absent)),
            crossings_left: AtomicI32::new(crossings(crossings_min, 0)),
            is_torn: AtomicU32::new(0),
        })
    }

    fn clear(&self, absent: EntryPoint, crossings_min: u32) {
        self.entry_points.iter().for_each(|entry| entry.store(absent, Relaxed));
        self.crossings_left.store(crossings(crossings_min, 0), Relaxed);
        self.is_torn.store(0, Relaxed);
    }

    /// Its address, which is what the fetch cache holds.
    fn address(&self) -> u64 {
        std::ptr::from_ref(self).expose_provenance() as u64
    }

    fn entry_point(&self, index: usize) -> EntryPoint {
        self.entry_points[index].load(Relaxed)
    }

    fn set_entry_point(&self, index: usize, entry: EntryPoint) {
        self.entry_points[index].store(entry, Relaxed);
    }
}

/// How many crossings it takes when there were `merged_count` mergers.
fn crossings(crossings_min: u32, merged_count: u32) -> i32 {
    const DOUBLINGS_MAX: u32 = 30;
    let crossings = u64::from(crossings_min) << (2 * merged_count).min(DOUBLINGS_MAX);
    crossings.min(i32::MAX as u64) as i32
}

/// A page's translations.
#[derive(Debug)]
struct Page {
    /// The code state of the machine page that they were made from.
    state: u32,
    table: Box<Table>,
    /// By the index of the first instruction.
    blocks: HashMap<usize, Block, FxBuildHasher>,
    /// How often its regions were merged.
    merged_count: u32,
}

impl Page {
    /// Whether the next region takes in the blocks of others. Each time that takes more crossings.
    fn begin_merging(&mut self, crossings_min: u32) -> bool {
        let is_torn = self.table.is_torn.swap(0, Relaxed) != 0;
        if is_torn {
            self.merged_count += 1;
            self.table.crossings_left.store(crossings(crossings_min, self.merged_count), Relaxed);
        }
        is_torn
    }
}

/// The translator of a CPU, with its translations.
#[derive(Debug)]
pub struct Translator {
    options: Options,
    room: Room,
    buffer: CodeBuffer,
    thunks: Thunks,
    /// Bytes of the thunks, at the beginning of the buffer.
    thunk_bytes: usize,
    pages: HashMap<CodeKey, Page, FxBuildHasher>,
    /// The entry points of pages without translations.
    nothing: Box<Table>,
    counters: Counters,
}

impl Translator {
    /// A translator without translations.
    ///
    /// # Errors
    /// [`BufferError`] when the host refuses.
    pub fn new(options: Options) -> Result<Translator, BufferError> {
        Translator::sharing(options, Room::of(options.buffer_bytes))
    }

    /// One that shares memory with those of other CPUs.
    pub(crate) fn sharing(options: Options, room: Room) -> Result<Translator, BufferError> {
        let mut buffer = CodeBuffer::new(options.buffer_bytes.min(room.bytes_max()))?;
        let mut emitter = Emitter::new(buffer.next_address());
        let thunks = Thunks::emit(&mut emitter);
        buffer.append(&emitter.finish()).expect("the thunks fit in any buffer");
        let nothing = Table::new(thunks.absent(), options.crossings_min);
        let thunk_bytes = buffer.used();
        Ok(Translator {
            options,
            room,
            buffer,
            thunks,
            thunk_bytes,
            pages: HashMap::default(),
            nothing,
            counters: Counters::default(),
        })
    }

    /// What it did.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The page's translations, empty if what there was is outdated.
    fn page(&mut self, key: CodeKey, state: u32) -> &mut Page {
        let (absent, crossings_min) = (self.thunks.absent(), self.options.crossings_min);
        let fresh = || Page {
            state,
            table: Table::new(absent, crossings_min),
            blocks: HashMap::default(),
            merged_count: 0,
        };
        let page = self.pages.entry(key).or_insert_with(fresh);
        if page.state != state {
            page.state = state;
            page.table.clear(absent, crossings_min);
            page.blocks.clear();
            page.merged_count = 0;
        }
        page
    }

    /// Bytes of the host's memory in use.
    fn taken(&self) -> usize {
        self.buffer.used() + self.pages.len() * PAGE_BYTES_TAKEN
    }

    /// Drops all translations.
    fn flush(&mut self, cpu: &mut Cpu) {
        cpu.forget_entry_points();
        self.pages.clear();
        self.buffer.truncate(self.thunk_bytes);
        self.counters.flushes += 1;
        self.room.set_taken(self.taken());
    }

    fn translate_region(&mut self, cpu: &mut Cpu, page: &mut CodePage, pc: u64) -> bool {
        let (key, state) = (page.key(), page.state());
        let head = (pc % PAGE_BYTES / 4) as usize;
        let needed = REGION_BYTES_MAX + PAGE_BYTES_TAKEN;
        if self.buffer.room() < REGION_BYTES_MAX || !self.room.has(needed) && self.taken() > self.thunk_bytes {
            self.flush(cpu);
        }
        let base = self.buffer.next_address();
        let crossings_min = self.options.crossings_min;
        let is_merging = self.page(key, state).begin_merging(crossings_min);
        if let Some(block) = self.page(key, state).blocks.get(&head).filter(|_| !is_merging) {
            let code = codegen::generate_entry(&block.pins, block.live, block.address, base);
            let address = self.keep(&code);
            let entry = self.thunks.entry_point_of(address);
            let page = self.page(key, state);
            page.table.set_entry_point(head, entry);
            cpu.set_entry_points(pc, state, page.table.address());
            return true;
        }
        let memory = Arc::clone(cpu.memory());
        let reached: Vec<bool> = (0..PAGE_INSNS).map(|index| page.is_decoded(index)).collect();
        let mut decoded = [None; PAGE_INSNS];
        let mut insn_at = |index: usize| *decoded[index].get_or_insert_with(|| page.decode_one(&memory, index));
        let float_model = cpu.float_model();
        let is_translated = |insn| integer::is_translated(insn, float_model.is_some());
        if !is_translated(insn_at(head)) {
            return false;
        }
        let absent = self.thunks.absent();
        let Page { blocks, table, .. } = self.page(key, state);
        let region = Source {
            page_address: pc & !(PAGE_BYTES - 1),
            insn_at: &mut insn_at,
            is_translated: &is_translated,
            is_reached: &|index| reached[index],
            is_known: &|index| !is_merging && blocks.contains_key(&index),
            is_entry: &|index| table.entry_point(index) != absent,
        }
        .discover(head);
        if region.blocks[&head].count == 0 {
            return false;
        }
        let pins = Arc::new(Pins::choose(&region, &mut insn_at));
        let flow = Flow::of(&region, &mut insn_at);
        let entry_points = self.page(key, state).table.address();
        let plan = Plan { region: &region, pins: &pins, flow: &flow, entry_points, float_model };
        let made = codegen::generate(plan, &mut insn_at, &self.thunks, base);
        let address = self.keep(&made.code);
        let first = self.thunks.entry_point_of(address);
        let page = self.page(key, state);
        for (index, offset) in made.blocks {
            let live = flow.border(index).live;
            page.blocks.insert(index, Block { address: address + offset, pins: Arc::clone(&pins), live });
        }
        for (index, offset) in made.entries {
            page.table.set_entry_point(index, first + offset as EntryPoint);
        }
        cpu.set_entry_points(pc, state, entry_points);
        self.counters.regions += 1;
        self.counters.merged += u64::from(is_merging);
        self.counters.instructions += region.blocks.values().map(|block| block.count as u64).sum::<u64>();
        true
    }

    /// Puts code into the buffer and returns where it is.
    fn keep(&mut self, code: &[u8]) -> usize {
        self.counters.bytes += code.len() as u64;
        self.buffer.append(code).expect("there is room for the largest region")
    }
}

impl Accelerator for Translator {
    fn heat_min(&self) -> u8 {
        self.options.heat_min
    }

    fn decoded_pages_max(&self) -> usize {
        self.options.decoded_pages_max
    }

    fn no_entry_points(&self) -> u64 {
        self.nothing.address()
    }

    fn entry_points(&mut self, key: CodeKey, state: u32) -> u64 {
        match self.pages.get(&key) {
            Some(page) if page.state == state => page.table.address(),
            _ => self.no_entry_points(),
        }
    }

    fn translate(&mut self, cpu: &mut Cpu, page: &mut CodePage, pc: u64) -> bool {
        let start = Instant::now();
        let is_translated = self.translate_region(cpu, page, pc);
        self.room.set_taken(self.taken());
        self.counters.time += start.elapsed();
        is_translated
    }

    fn run(&mut self, cpu: &mut Cpu, handler: &mut Handler<'_, '_>, entry_points: u64, budget: i64) -> (Ran, i64) {
        let index = (cpu.regs.pc % PAGE_BYTES / 4) as usize;
        let entry = enter::entry_point(entry_points, index);
        if entry == self.thunks.absent() {
            return (Ran::Nothing, budget);
        }
        self.thunks.run(cpu, handler, entry, budget)
    }

    fn translation_time(&self) -> Duration {
        self.counters.time
    }
}
