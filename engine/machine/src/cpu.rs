//! A CPU: registers, CP0, TLB, and the loop that runs instructions until something stops it.
//!
//! This file is what others see of a CPU and the order in which things happen; the files below do
//! the work:
//!
//! ```text
//! interpreter.rs  executes decoded instructions of a page       integer.rs  arithmetic
//! code.rs         decoded pages, and where to find them         float.rs    floating point
//! data.rs         loads and stores                              system.rs   CP0, TLB, LL and SC
//! translation.rs  from virtual pages to host memory             bus.rs      accesses without memory
//! ```
//!
//! [`Cpu::run`] alternates between looking around (is the bound reached, is the timer due, is an
//! interrupt ready, where is the code) and executing instructions of one page, where none of this
//! can change: instructions that may change it end the execution of the page.

mod accelerator;
mod at_once;
mod bus;
mod code;
mod data;
mod float;
mod integer;
mod interpreter;
mod system;
mod translation;

use std::sync::Arc;

use mips::Insn;
use mips::fpu::Fcsr;

pub use accelerator::{Accelerator, CodeKey, CodeVersion, HandedOver, Layout, Looked, Offered, Ran, Trapping};
use at_once::AtOnce;
pub use at_once::DoneAtOnce;
pub use bus::{Access, BusAccess, access_of};
use code::{CodeCache, FetchTranslations, KnownPages};
pub use code::{CodePage, PAGE_INSNS, SINK, instruction, may_be_in_slot};
use data::{Found, Unanswered};
use float::RegisterModel;
use interpreter::Entry;
use translation::{Context, HostTranslations};

use crate::cp0::{Mode, Reset, status};
use crate::services::{From, Moment, Nothing, Recorder};
use crate::smp::SharedClock;
use crate::tlb::ones;
use crate::{
    AccessKind, Asid, Cp0, CpuConfig, Cycles, Exception, MachineAddr, MachineMemory, Mpn, NodeId, PAGE_SHIFT, Tlb,
    TlbEntry,
};

/// Where a CPU starts after reset: the boot ROM in KSEG1.
const RESET_VECTOR: u64 = 0xffff_ffff_bfc0_0000;

/// The register that has the number of a system call.
pub const V0: usize = 2;

/// What a program sees of a CPU; a vCPU takes it along when it moves to another CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registers {
    /// General registers. 0 always holds 0. The decoder turns writes to register 0 into writes to
    /// 32, which is zero whenever no instruction runs. 256 of them, so that a `u8` needs no check.
    pub gpr: [u64; 256],
    /// HI.
    pub hi: u64,
    /// LO.
    pub lo: u64,
    /// The next instruction.
    pub pc: u64,
    /// Floating-point registers, laid out as the head of `cpu/float.rs` says.
    pub fpr: [u64; 32],
    /// FCSR.
    pub fcsr: Fcsr,
    /// LLbit.
    pub ll_bit: bool,
    /// Machine address that the load linked came from.
    pub ll_address: u64,
    /// What it loaded, zero-extended.
    pub ll_value: u64,
}

impl Registers {
    /// All zero, execution starting at `pc`.
    pub fn new(pc: u64) -> Registers {
        Registers {
            gpr: [0; 256],
            hi: 0,
            lo: 0,
            pc,
            fpr: [0; 32],
            fcsr: Fcsr::default(),
            ll_bit: false,
            ll_address: 0,
            ll_value: 0,
        }
    }
}

/// An exception that ended `run` under the monitor. The registers are as before the instruction, with
/// `pc` the restart address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    /// Why.
    pub exception: Exception,
    /// Restart address: the branch if the instruction is in a delay slot.
    pub pc: u64,
    /// The instruction is in a delay slot.
    pub in_delay_slot: bool,
    /// Where execution goes on once the instruction has been emulated.
    pub next_pc: u64,
    /// The instruction; `Op::Reserved` if it could not be fetched.
    pub insn: Insn,
    /// Its word; 0 if it could not be fetched.
    pub word: u32,
}

impl Trap {
    /// Address of the instruction itself.
    pub fn insn_pc(&self) -> u64 {
        self.pc.wrapping_add(4 * u64::from(self.in_delay_slot))
    }
}

/// Why `run` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The bound is reached.
    Until,
    /// Monitored, without a handler: an exception.
    Trap(Trap),
    /// The handler of an exception said so.
    LookAround,
    /// WAIT was executed and no interrupt is pending.
    Wait,
    /// A load or store has no memory at its address.
    Bus(BusAccess),
}

/// What a CPU does once its trap handler is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Goes on at `regs.pc`.
    Resume,
    /// Ends its run: the handler has more to look at, an interrupt for example.
    LookAround,
}

/// A monitor, as the CPU that it runs on sees it: it takes the exceptions in the CPU's place.
///
/// It is called where an exception is noticed, with registers, time and counts as before the instruction, so
/// that translated code can go on where it was. It must leave nothing else of the CPU changed than what a
/// monitor may: registers, `cp0` (with [`Cpu::context_changed`]), the TLB, and time, which only goes forward.
pub trait TrapHandler {
    /// Answers a TLB refill at `vaddr` if that takes no more than an entry of the TLB and some time; the time
    /// of the CPU may not be up to date. The index of the entry; `None`: nothing has changed.
    fn refill(&mut self, cpu: &mut Cpu, vaddr: u64) -> Option<usize>;

    /// The CP0 of the guest, and the cycles that a privileged instruction costs beside its own, if translated code may
    /// do by itself what `emulate` would; the head of `cpu/at_once.rs` says what that is. No interrupt is ready then, and the
    /// guest runs in kernel mode when the CPU is in supervisor mode.
    fn guest_cp0(&mut self) -> Option<(&mut Cp0, u64)> {
        None
    }

    /// Carries out a privileged instruction, if that takes no more than registers and some time, and does what
    /// `take` would do and one cycle less: the instruction's own. Execution goes on behind it. `None`: nothing has
    /// changed.
    fn emulate(&mut self, cpu: &mut Cpu, insn: Insn) -> Option<Taken>;

    /// Takes a trap. Of the general registers, only those that a privileged instruction or RDHWR names need be
    /// up to date when one traps, and only those may be changed then; all are when anything else traps.
    fn take(&mut self, cpu: &mut Cpu, trap: &Trap) -> Taken;
}

/// The handler of a CPU that runs, if it has one.
pub type Handler<'h, 'd> = Option<&'h mut (dyn TrapHandler + 'd)>;

/// What happened in a CPU, counted. None of it depends on how `run` was called, except that
/// translations are dropped at its start when another CPU has found new code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuCounters {
    /// Exceptions, delivered or given to the monitor.
    pub exceptions: u64,
    /// Host translations made for loads.
    pub load_translations: u64,
    /// Host translations made for stores.
    pub store_translations: u64,
    /// Host translations made for fetches.
    pub fetch_translations: u64,
}

/// What the loop of the interpreter stopped with.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Exception(Exception),
    Bus(Unanswered),
    /// Nothing the matter with the guest: the access is one that the interpreter has to do.
    Aside,
}

/// What a host translation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Load,
    Store,
    Fetch,
}

/// Of a TLB entry, the parts that host translations were made of: for each [`Use`] a bit for each 64th of it, or for
/// each page, if it has fewer. Of an entry of large pages little is touched before it goes.
type Parts = [u64; 3];

/// How far to shift an offset in `bytes` bytes, which an entry translates, for the number of its part.
fn part_shift(bytes: u64) -> u32 {
    bytes.ilog2().saturating_sub(u64::BITS.ilog2()).max(PAGE_SHIFT)
}

/// Where it stopped; `regs.pc` is the restart address.
#[derive(Clone, Copy, Debug)]
struct FaultSite {
    in_delay_slot: bool,
    next_pc: u64,
    word: u32,
}

/// What an instruction that is executed out of the loop tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Complete.
    Next,
    /// Complete, and what the loop knows may be outdated.
    Boundary,
    /// Not executed; `Cpu::fault` says why.
    Fault,
    /// WAIT, complete, and nothing is pending.
    Wait,
    /// ERET, complete; `regs.pc` is where it leads.
    Return,
}

/// Why the loop of the interpreter left a page.
#[derive(Clone, Copy, Debug)]
enum Leave {
    /// For another one, or because the time is up.
    Jump,
    /// The run at `regs.pc` is hot.
    Hot,
    /// To look around.
    Boundary,
    /// `regs.pc` is a branch that has been executed; its delay slot is not on the page.
    Slot { target: u64 },
    /// For `Cpu::fault`.
    Fault(FaultSite),
    /// To wait.
    Wait,
}

/// One CPU of the machine.
#[derive(Debug)]
pub struct Cpu {
    /// Number in the machine.
    pub id: u16,
    /// The node it belongs to.
    pub node: NodeId,
    /// What programs see.
    pub regs: Registers,
    /// Coprocessor 0. After changing it from outside, call [`Cpu::context_changed`].
    pub cp0: Cp0,
    /// Its clock.
    pub now: Cycles,
    /// Instructions executed.
    pub instructions: u64,
    /// Exceptions end `run` instead of being delivered.
    pub monitored: bool,
    /// What happened.
    pub counters: CpuCounters,
    /// The clock that it has together with others, if it has; its Count is read and written through this.
    pub shared_clock: Option<SharedClock>,
    /// Who follows the services of the kernel, on the bare machine.
    pub recorder: Option<Box<Recorder<Nothing>>>,

    memory: Arc<MachineMemory>,
    tlb: Tlb,
    /// For each entry of the TLB.
    used: [Parts; crate::tlb::ENTRIES_MAX],

    /// Cycles in each mode up to `mode_since`, when the present one began.
    mode_cycles: [u64; 3],
    mode_since: Cycles,

    // Conclusions from CP0, drawn by `context_changed`.
    mode: Mode,
    asid: Asid,
    context: Context,
    has_64bit_addresses: bool,
    is_32bit: bool,
    has_float: bool,
    register_model: RegisterModel,
    translation_key: TranslationKey,

    // Host-side caches; empty after a reset, a restore or a flush.
    loads: HostTranslations,
    stores: HostTranslations,
    fetches: FetchTranslations,
    known_pages: KnownPages,
    code: CodeCache,
    /// `MachineMemory::code_epoch` when `stores` was last known to hold no page of code.
    code_epoch: u64,

    /// Where the accelerator's budget ends, and how much of it is not in `now` and `instructions` yet.
    bound: Cycles,
    budget_left: i64,

    /// `MachineMemory::code_writes` when `fetches` was last known to have no outdated entry points.
    code_writes: u64,
    /// What `fetches` holds of a page that the accelerator knows nothing of.
    no_entry_points: u64,
    accelerator: Option<Box<dyn Accelerator>>,
    at_once: AtOnce,
    /// The accelerator's words.
    scratch: [u64; Layout::SCRATCH_COUNT],
    /// How often a run begins before the accelerator is offered it; 0 if there is none.
    heat_min: u8,

    /// The machine page that is being executed.
    executing: Mpn,
    /// Why the last access or instruction was not done.
    fault: Fault,
}

/// What host translations depend on beside address, ASID and mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TranslationKey {
    status: u32,
    page_grain: u32,
    seg_ctl: [u64; 3],
}

impl TranslationKey {
    fn of(cp0: &Cp0) -> TranslationKey {
        let bits = status::KX | status::SX | status::UX | status::PX | status::ERL;
        TranslationKey { status: cp0.status & bits, page_grain: cp0.page_grain, seg_ctl: cp0.seg_ctl }
    }
}

impl Cpu {
    /// A CPU in its reset state.
    pub fn new(id: u16, node: NodeId, config: CpuConfig, memory: Arc<MachineMemory>) -> Cpu {
        let entries = config.tlb_entries;
        let cp0 = Cp0::new(config, u32::from(id));
        let mut cpu = Cpu {
            id,
            node,
            regs: Registers::new(RESET_VECTOR),
            now: Cycles(0),
            instructions: 0,
            monitored: false,
            counters: CpuCounters::default(),
            shared_clock: None,
            recorder: None,
            tlb: Tlb::new(entries),
            used: [Parts::default(); crate::tlb::ENTRIES_MAX],
            mode_cycles: [0; 3],
            mode_since: Cycles(0),
            mode: Mode::Kernel,
            asid: Asid(0),
            context: 0,
            has_64bit_addresses: false,
            is_32bit: false,
            has_float: false,
            register_model: RegisterModel::new(false),
            translation_key: TranslationKey::of(&cp0),
            loads: HostTranslations::new(Arc::clone(&memory)),
            stores: HostTranslations::new(Arc::clone(&memory)),
            fetches: FetchTranslations::new(),
            known_pages: KnownPages::new(),
            code: CodeCache::default(),
            code_epoch: 0,
            bound: Cycles(0),
            budget_left: 0,
            code_writes: 0,
            no_entry_points: 0,
            accelerator: None,
            at_once: AtOnce::default(),
            scratch: [0; Layout::SCRATCH_COUNT],
            heat_min: 0,
            executing: Mpn(0),
            fault: Fault::Exception(Exception::ReservedInstruction),
            cp0,
            memory,
        };
        cpu.context_changed();
        cpu
    }

    /// Resets the CPU: execution starts over at the reset vector. The other registers and the TLB stay,
    /// as the manual has it; software makes them what it needs.
    pub fn reset(&mut self, reset: Reset) {
        self.regs.pc = self.cp0.reset(reset, self.regs.pc, self.now);
        self.regs.ll_bit = false;
        self.context_changed();
    }

    /// Runs until the first instruction boundary at or after `until`, or a reason to stop before.
    pub fn run(&mut self, until: Cycles) -> Stop {
        self.run_under(&mut None, until)
    }

    /// As `run`, with `handler` taking the traps of a monitored CPU.
    pub fn run_monitored(&mut self, handler: &mut dyn TrapHandler, until: Cycles) -> Stop {
        self.run_under(&mut Some(handler), until)
    }

    fn run_under(&mut self, handler: &mut Handler<'_, '_>, until: Cycles) -> Stop {
        if self.code_epoch != self.memory.code_epoch() {
            self.stores.flush();
            self.code_epoch = self.memory.code_epoch();
        }
        // Out of `self`, so that a page can be executed while the rest of the CPU changes.
        let mut code = std::mem::take(&mut self.code);
        let mut accelerator = self.accelerator.take();
        if accelerator.as_mut().is_some_and(|accelerator| accelerator.begin()) {
            self.forget_entry_points();
        }
        let stop = self.run_with(&mut code, accelerator.as_deref_mut(), handler, until);
        if let Some(accelerator) = &mut accelerator {
            accelerator.end();
        }
        self.code = code;
        self.accelerator = accelerator;
        self.regs.gpr[usize::from(SINK)] = 0;
        stop
    }

    /// Draws conclusions from CP0 anew. Call after changing `cp0` from outside; cheap.
    pub fn context_changed(&mut self) {
        self.context_changed_at(self.now);
    }

    /// As [`Cpu::context_changed`], in the middle of a run whose time is not settled yet.
    fn context_changed_at(&mut self, now: Cycles) {
        self.mode_cycles[self.mode as usize] += now.0 - self.mode_since.0;
        self.mode_since = now;
        self.mode = self.cp0.mode();
        let asid = self.cp0.asid();
        if asid != self.asid {
            self.asid = asid;
            self.loads.forget_private();
            self.stores.forget_private();
            self.fetches.forget_private();
        }
        self.context = match self.mode {
            Mode::User => u64::from(asid.0) << 3,
            Mode::Kernel => 1 << 11,
            Mode::Supervisor => 1 << 11 | 1 << 3,
        };
        self.has_64bit_addresses = self.cp0.address_bits_64(self.mode);
        self.is_32bit = !self.cp0.operations_64();
        self.has_float = self.cp0.coprocessor_usable(1);
        self.register_model = RegisterModel::new(self.cp0.status & status::FR != 0);
        let key = TranslationKey::of(&self.cp0);
        if key != self.translation_key {
            self.translation_key = key;
            self.flush_host_translations();
        }
    }

    /// The memory of the machine.
    pub fn memory(&self) -> &Arc<MachineMemory> {
        &self.memory
    }

    /// Cycles that have gone by in a mode, waiting included.
    pub fn cycles_in(&self, mode: Mode) -> u64 {
        let current = if mode == self.mode { self.now.0 - self.mode_since.0 } else { 0 };
        self.mode_cycles[mode as usize] + current
    }

    /// The TLB.
    pub fn tlb(&self) -> &Tlb {
        &self.tlb
    }

    /// Writes a TLB entry and drops every host translation of the one that it replaces, which is
    /// returned.
    ///
    /// # Errors
    /// The index of an entry that would match the same address; nothing has changed then.
    pub fn tlb_write(&mut self, index: usize, entry: TlbEntry) -> Result<TlbEntry, usize> {
        let old = self.tlb.write(index, entry)?;
        self.forget(index, old.vpn2, old.page_mask);
        Ok(old)
    }

    /// As `tlb_write`, of an entry of 4 KiB pages for an address that no other matches, which is the caller's to know.
    #[inline(always)]
    pub fn tlb_write_apart(&mut self, index: usize, vpn2: u64, asid: Asid, global: bool, lo: [u64; 2]) {
        let (vpn2, page_mask) = self.tlb.write_apart(index, vpn2, asid, global, lo);
        self.forget(index, vpn2, page_mask);
    }

    /// Hides a TLB entry and drops every host translation of it. Returns what it was.
    pub fn tlb_invalidate(&mut self, index: usize) -> TlbEntry {
        let old = self.tlb.invalidate(index);
        self.forget(index, old.vpn2, old.page_mask);
        old
    }

    /// Hides all TLB entries and drops all host translations.
    pub fn tlb_flush(&mut self) {
        for index in 0..self.tlb.len() {
            self.tlb.invalidate(index);
        }
        self.used.fill(Parts::default());
        self.flush_host_translations();
    }

    /// Translates as an access would, without side effects.
    ///
    /// # Errors
    /// The exception that the access would raise.
    pub fn probe(&self, vaddr: u64, access: AccessKind) -> Result<MachineAddr, Exception> {
        self.translate(self.effective_address(vaddr), access)
    }

    /// Drops the host translations that were made of the entry that was at `index`.
    fn forget(&mut self, index: usize, vpn2: u64, page_mask: u32) {
        let [loads, stores, fetches] = std::mem::take(&mut self.used[index]);
        if page_mask == 0 {
            let page = |half: usize| vpn2 + ((half as u64) << PAGE_SHIFT);
            for half in 0..2 {
                self.loads.remove_page_if(page(half), loads >> half & 1 != 0);
                self.stores.remove_page_if(page(half), stores >> half & 1 != 0);
            }
            ones(fetches).for_each(|half| self.fetches.remove(page(half), 1 << PAGE_SHIFT));
            return;
        }
        let bytes = u64::from(page_mask) + (2 << PAGE_SHIFT);
        let first = vpn2 & !(bytes - 1);
        let shift = part_shift(bytes);
        let part = |number: usize| (first + ((number as u64) << shift), 1 << shift);
        for (vaddr, bytes) in ones(loads).map(part) {
            self.loads.remove(vaddr, bytes);
        }
        for (vaddr, bytes) in ones(stores).map(part) {
            self.stores.remove(vaddr, bytes);
        }
        for (vaddr, bytes) in ones(fetches).map(part) {
            self.fetches.remove(vaddr, bytes);
        }
    }

    /// Notes that a host translation of `vaddr` is made of what `found` was found in.
    #[inline]
    fn note_use(&mut self, vaddr: u64, found: &Found, how: Use) {
        if let Some(index) = found.entry {
            let part = match self.tlb.get(index).page_mask {
                0 => vaddr >> PAGE_SHIFT & 1,
                _ => {
                    let bytes = 2 * self.tlb.get(index).page_bytes();
                    (vaddr & (bytes - 1)) >> part_shift(bytes)
                }
            };
            self.used[index][how as usize] |= 1 << part;
        }
    }

    fn flush_host_translations(&mut self) {
        self.loads.flush();
        self.stores.flush();
        self.fetches.flush();
    }

    fn run_with(
        &mut self,
        code: &mut CodeCache,
        mut accelerator: Option<&mut (dyn Accelerator + 'static)>,
        handler: &mut Handler<'_, '_>,
        until: Cycles,
    ) -> Stop {
        while self.now < until {
            self.cp0.tick(self.now);
            let stop = if self.cp0.interrupt_ready() {
                self.interrupt()
            } else {
                let bound = until.min(self.cp0.next_timer());
                self.run_undisturbed(code, accelerator.as_deref_mut(), handler, bound)
            };
            match stop {
                // Nothing but time passes any more.
                Some(Stop::Until) => self.now = self.now.max(until),
                Some(stop) => return stop,
                None => {}
            }
        }
        Stop::Until
    }

    fn interrupt(&mut self) -> Option<Stop> {
        let pc = self.regs.pc;
        let word = self.word_at(pc);
        self.raise(Exception::Interrupt, FaultSite { in_delay_slot: false, next_pc: pc, word }, &mut None)
    }

    /// Runs to `until`, or to where interrupts must be looked at or something stops the CPU.
    fn run_undisturbed(
        &mut self,
        code: &mut CodeCache,
        mut accelerator: Option<&mut (dyn Accelerator + 'static)>,
        handler: &mut Handler<'_, '_>,
        until: Cycles,
    ) -> Option<Stop> {
        let mut slot_of = None;
        let mut is_aside = false;
        loop {
            let mut is_absent = false;
            let pc = self.regs.pc.wrapping_add(if slot_of.is_some() { 4 } else { 0 });
            let version = match self.find_code(pc) {
                Ok(version) => version,
                Err(exception) => {
                    let next_pc = slot_of.unwrap_or(pc);
                    let site = FaultSite { in_delay_slot: slot_of.is_some(), next_pc, word: 0 };
                    slot_of = None;
                    match self.raise_fetch(exception, site, handler) {
                        None if self.now < until && handler.is_some() => continue,
                        stop => return stop,
                    }
                }
            };
            if let Some(accelerator) = accelerator.as_deref_mut()
                && slot_of.is_none()
                && !is_aside
            {
                match self.accelerate(accelerator, version, handler, until) {
                    Ran::Nothing => is_absent = true,
                    Ran::LookAround => return Some(Stop::LookAround),
                    _ if self.now >= until => return None,
                    Ran::Jump => continue,
                    Ran::Aside => {
                        is_aside = true;
                        continue;
                    }
                }
            }
            let entry = Entry { pc, slot_of, is_aside };
            slot_of = None;
            is_aside = false;
            let page = self.decoded(code, pc, version);
            if is_absent {
                page.cool(pc);
            }
            match self.run_page(page, entry, until) {
                Leave::Jump if self.now < until => {}
                Leave::Hot => {
                    if let Some(accelerator) = accelerator.as_deref_mut() {
                        is_aside = !self.offer(accelerator, page);
                    }
                }
                Leave::Jump | Leave::Boundary => return None,
                Leave::Slot { target } => slot_of = Some(target),
                Leave::Fault(site) => match self.fault {
                    Fault::Exception(exception) => match self.raise(exception, site, handler) {
                        None if self.now < until && handler.is_some() => {}
                        stop => return stop,
                    },
                    Fault::Bus(unanswered) => return Some(self.bus_stop(unanswered, site)),
                    Fault::Aside => unreachable!("the interpreter does everything itself"),
                },
                Leave::Wait => return Some(Stop::Wait),
            }
        }
    }

    /// The page that `pc` lies in, which is marked as code.
    #[inline]
    fn find_code(&mut self, pc: u64) -> Result<CodeVersion, Exception> {
        if pc & 3 == 0
            && let Some(page) = self.fetches.get(pc, self.context)
            && self.memory.is_code(page)
        {
            self.executing = page;
            return Ok(self.code_version(page));
        }
        self.find_code_slowly(pc)
    }

    /// A page of code as it is now.
    fn code_version(&self, page: Mpn) -> CodeVersion {
        CodeVersion { key: CodeKey { page, is_32bit: self.is_32bit }, state: self.memory.code_state(page) }
    }

    /// The page of `pc`, decoded, which is that version.
    fn decoded<'a>(&mut self, code: &'a mut CodeCache, pc: u64, version: CodeVersion) -> &'a mut CodePage {
        let known = self.fetches.slot(pc);
        let slot = code.enter(*known as usize, version);
        *known = slot as u32;
        code.page_mut(slot)
    }

    #[cold]
    #[inline(never)]
    fn find_code_slowly(&mut self, pc: u64) -> Result<CodeVersion, Exception> {
        let access = AccessKind::Fetch;
        if pc & 3 != 0 {
            return Err(Exception::AddressError { vaddr: pc, access });
        }
        let found = self.find(pc, access)?;
        let address = found.address;
        if !self.is_memory(address) {
            return Err(Exception::BusError { access });
        }
        let page = address.page();
        if !self.memory.is_code(page) {
            // From now on stores to it must be noticed.
            self.stores.flush();
        }
        let state = self.memory.mark_code(page);
        self.code_epoch = self.memory.code_epoch();
        self.remember_fetch(pc, &found, self.no_entry_points);
        self.executing = page;
        Ok(CodeVersion { key: CodeKey { page, is_32bit: self.is_32bit }, state })
    }

    /// Remembers where a fetch from `pc` leads.
    fn remember_fetch(&mut self, pc: u64, found: &Found, entry_points: u64) {
        self.counters.fetch_translations += 1;
        self.fetches.insert(pc, self.context, found.address.page(), entry_points);
        if found.is_private {
            self.fetches.set_private(pc);
        }
        self.note_use(pc, found, Use::Fetch);
    }

    /// The word at `pc`, if it can be fetched; else 0. For whoever looks on.
    pub fn word_at(&self, pc: u64) -> u32 {
        match self.translate(pc, AccessKind::Fetch) {
            Ok(address) if pc & 3 == 0 && self.is_memory(address) => self.read_memory(address, 4) as u32,
            _ => 0,
        }
    }

    /// Delivers `exception`, or gives it to the monitor. `Stop::Until` says that the CPU would go on
    /// for ever raising it.
    fn raise(&mut self, exception: Exception, site: FaultSite, handler: &mut Handler<'_, '_>) -> Option<Stop> {
        self.raise_with(exception, site, None, handler)
    }

    /// As `raise`, for an instruction that could not be fetched.
    fn raise_fetch(
        &mut self,
        exception: Exception,
        site: FaultSite,
        handler: &mut Handler<'_, '_>,
    ) -> Option<Stop> {
        let mut insn = mips::decode(0);
        insn.op = mips::Op::Reserved;
        self.raise_with(exception, site, Some(insn), handler)
    }

    fn raise_with(
        &mut self,
        exception: Exception,
        site: FaultSite,
        insn: Option<Insn>,
        handler: &mut Handler<'_, '_>,
    ) -> Option<Stop> {
        self.counters.exceptions += 1;
        if let Exception::TlbRefill { vaddr, .. } = exception
            && let Some(handler) = handler
            && handler.refill(self, vaddr).is_some()
        {
            return None;
        }
        let FaultSite { in_delay_slot, next_pc, word } = site;
        let pc = self.regs.pc;
        if self.monitored {
            let insn = insn.unwrap_or_else(|| mips::decode(word));
            let trap = Trap { exception, pc, in_delay_slot, next_pc, insn, word };
            let Some(handler) = handler else { return Some(Stop::Trap(trap)) };
            return (handler.take(self, &trap) == Taken::LookAround).then_some(Stop::LookAround);
        }
        if let Some(recorder) = &mut self.recorder {
            let at = Moment { cycles: self.now.0, instructions: self.instructions, monitor: Nothing };
            recorder.entered(exception, From::mode(&self.cp0), self.regs.gpr[V0], at);
        }
        let was_in_exception = self.cp0.status & status::EXL != 0;
        let vector = self.cp0.enter(exception, pc, in_delay_slot);
        self.regs.pc = vector;
        self.context_changed();
        // An exception costs no time. The first instruction of the handler raising one of its own
        // comes back here with the same state, and time would stand still.
        (was_in_exception && vector == pc).then_some(Stop::Until)
    }
}
