//! The translator of a CPU: what it knows of the machine's translations, and when it asks for more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::cpu::{Accelerator, CodeKey, CodePage, CodeVersion, Handler, Offered, Ran};
use machine::{Cpu, MachineMemory, PAGE_BYTES};
use rustc_hash::FxBuildHasher;

use crate::BufferError;
use crate::background::{Background, Progress};
use crate::store::{Content, Made, Request, Running, Store};
use crate::x86_64::enter;

/// What translators may use, and when they act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Bytes that a store takes: code, and what there is to know of it.
    pub buffer_bytes: usize,
    /// A run that began this often is translated.
    pub heat_min: u8,
    /// When execution crossed this often between regions of a page, they are merged; the next time takes
    /// four times as many.
    pub crossings_min: u32,
    /// Chunks of 64 instructions that each CPU keeps decoded.
    pub decoded_chunks_max: usize,
}

/// A boot takes half of it. Together with decoded pages it must stay within what a process with one VM may take,
/// however many CPUs the VM has; so a CPU leaves less for translations.
const STORE_BYTES: usize = 28 << 20;
const STORE_BYTES_LESS_A_CPU: usize = 1 << 20;
const STORE_BYTES_LEAST: usize = 12 << 20;

const FEW_CPUS: usize = 4;
/// Decoded chunks of each of few CPUs, and of each of many: what is hot is translated, and needs none.
const DECODED_CHUNKS_FEW_CPUS: usize = 4000;
const DECODED_CHUNKS_MANY_CPUS: usize = 1500;

impl Options {
    /// For a machine of `cpus` CPUs.
    pub fn for_machine(cpus: usize) -> Options {
        let decoded_chunks_max = if cpus <= FEW_CPUS { DECODED_CHUNKS_FEW_CPUS } else { DECODED_CHUNKS_MANY_CPUS };
        let buffer_bytes = STORE_BYTES.saturating_sub(cpus * STORE_BYTES_LESS_A_CPU).max(STORE_BYTES_LEAST);
        Options { buffer_bytes, decoded_chunks_max, ..Options::default() }
    }
}

impl Default for Options {
    fn default() -> Options {
        // Making code of a region takes as long as some ten thousand crossings.
        Options {
            buffer_bytes: STORE_BYTES,
            heat_min: 16,
            crossings_min: 30_000,
            decoded_chunks_max: DECODED_CHUNKS_FEW_CPUS,
        }
    }
}

/// What a CPU knows of a machine page in a code state.
#[derive(Debug)]
struct Known {
    state: u32,
    /// How often it came there without translations.
    visits: u8,
    content: Option<Content>,
    /// The table of its translations, or the store's `nothing`: as it was in that generation, when so many pages
    /// had some.
    table: u64,
    generation: u64,
    page_count: u64,
}

/// Room is made for what is not in use, then for all.
pub const ATTEMPTS: usize = 3;

/// A page is worth the hash of its content when execution has come to it this often.
const VISITS_MIN: u8 = 4;
/// Pages that a CPU knows of; beyond that it begins anew, which costs a hash each. A boot of Debian comes to 1,500,
/// and many VMs may take turns on a CPU.
const KNOWN_MAX: usize = 1 << 14;

/// The translator of a CPU.
#[derive(Debug)]
pub struct Translator {
    store: Arc<Store>,
    running: Arc<Running>,
    /// The thread that translates for it while one is left.
    background: Option<Background>,
    /// The generation in which the CPU last began to run.
    generation: u64,
    known: HashMap<CodeKey, Known, FxBuildHasher>,
    /// Spent in translating.
    time: Duration,
}

impl Translator {
    /// A translator that shares with nobody.
    ///
    /// # Errors
    /// [`BufferError`] when the host refuses.
    pub fn new(options: Options) -> Result<Translator, BufferError> {
        Ok(Translator::sharing(&Store::new(options)?, None))
    }

    /// One that shares translations with all others of the store. `background` translates for it.
    pub fn sharing(store: &Arc<Store>, background: Option<Background>) -> Translator {
        Translator {
            store: Arc::clone(store),
            running: store.admit(),
            background,
            generation: store.generation(),
            known: HashMap::default(),
            time: Duration::ZERO,
        }
    }

    /// What is known of a page.
    fn known(&mut self, CodeVersion { key, state }: CodeVersion) -> &mut Known {
        let table = self.store.nothing();
        let unknown = || Known { state, visits: 0, content: None, table, generation: 0, page_count: 0 };
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let known = self.known.entry(key).or_insert_with(unknown);
        if known.state != state {
            *known = unknown();
        }
        known
    }

    fn translate_run(&mut self, cpu: &mut Cpu, page: &mut CodePage, pc: u64) -> Offered {
        let version = page.version();
        let memory = Arc::clone(cpu.memory());
        let content = *self.known(version).content.get_or_insert_with(|| Content::of(version.key, &memory));
        if let Some(offered) = self.translate_in_background(cpu, page, content, pc) {
            return offered;
        }
        let start = Instant::now();
        let offered = self.translate_now(cpu, page, content, pc);
        self.time += start.elapsed();
        offered
    }

    /// `None`: there is nobody to do it.
    fn translate_in_background(
        &mut self,
        cpu: &mut Cpu,
        page: &CodePage,
        content: Content,
        pc: u64,
    ) -> Option<Offered> {
        let background = self.background.as_mut()?;
        self.time += background.listen();
        if self.store.generation() != self.generation {
            // So that what was dropped becomes free. We are not in translated code, and know no table from now on.
            self.generation = self.store.begin(&self.running);
            cpu.forget_entry_points();
        }
        let index = index_of(pc);
        let run = (page.version(), index);
        if let Some(table) = self.store.table_with(&content, index) {
            cpu.set_entry_points(pc, page.version(), table);
            return Some(Offered::Translated);
        }
        match background.progress(run) {
            Progress::Never => return Some(Offered::Never),
            Progress::Waiting => return Some(Offered::Later),
            Progress::Nothing if !background.is_idle(&self.store) => return None,
            Progress::Nothing => {}
        }
        background.send(run, Request::new(content, page, cpu, pc)).then_some(Offered::Later)
    }

    fn translate_now(&mut self, cpu: &mut Cpu, page: &CodePage, content: Content, pc: u64) -> Offered {
        let version = page.version();
        let store = Arc::clone(&self.store);
        let Some(mut kept) = store.try_keep() else { return Offered::NotNow };
        let request = Request::new(content, page, cpu, pc);
        for _ in 0..ATTEMPTS {
            match kept.translate(&store, &request) {
                Made::Yes(table) => {
                    cpu.set_entry_points(pc, version, table);
                    return Offered::Translated;
                }
                Made::Never => return Offered::Never,
                Made::NoRoom => {
                    if !kept.make_room(&store) {
                        return Offered::NotNow;
                    }
                    // We are not in translated code, and know no table from now on.
                    self.generation = store.begin(&self.running);
                    cpu.forget_entry_points();
                }
            }
        }
        Offered::Never
    }
}

/// The place in its page of the instruction at `pc`.
fn index_of(pc: u64) -> usize {
    (pc % PAGE_BYTES / 4) as usize
}

impl Drop for Translator {
    fn drop(&mut self) {
        self.running.end();
    }
}

impl Accelerator for Translator {
    fn heat_min(&self) -> u8 {
        self.store.options.heat_min
    }

    fn decoded_chunks_max(&self) -> usize {
        self.store.options.decoded_chunks_max
    }

    fn begin(&mut self) -> bool {
        let generation = self.store.begin(&self.running);
        std::mem::replace(&mut self.generation, generation) != generation
    }

    fn end(&mut self) {
        self.running.end();
    }

    fn no_entry_points(&self) -> u64 {
        self.store.nothing()
    }

    fn entry_points(&mut self, memory: &MachineMemory, version: CodeVersion) -> u64 {
        let (generation, page_count) = (self.store.generation(), self.store.page_count());
        let nothing = self.store.nothing();
        let known = self.known(version);
        let is_current =
            known.generation == generation && (known.table != nothing || known.page_count == page_count);
        if is_current && known.content.is_some() {
            return known.table;
        }
        known.visits = known.visits.saturating_add(1);
        if known.content.is_none() && known.visits < VISITS_MIN {
            return nothing;
        }
        let is_first = known.content.is_none();
        let content = *known.content.get_or_insert_with(|| Content::of(version.key, memory));
        let table = self.store.table(&content, is_first);
        let known = self.known(version);
        (known.table, known.generation, known.page_count) = (table, generation, page_count);
        table
    }

    fn translate(&mut self, cpu: &mut Cpu, page: &mut CodePage, pc: u64) -> Offered {
        self.translate_run(cpu, page, pc)
    }

    fn run(&mut self, cpu: &mut Cpu, handler: &mut Handler<'_, '_>, entry_points: u64, budget: i64) -> (Ran, i64) {
        let entry = enter::entry_point(entry_points, index_of(cpu.regs.pc));
        if entry == self.store.thunks.absent() {
            return (Ran::Nothing, budget);
        }
        self.store.thunks.run(cpu, handler, entry, budget)
    }

    fn translation_time(&self) -> Duration {
        self.time
    }
}
