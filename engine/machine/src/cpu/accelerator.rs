//! The hook for a translator: what a CPU gives to one, and what it asks of it.
//!
//! The machine knows no translator. A CPU that was given an [`Accelerator`] counts how often each run
//! of instructions begins, offers those that are *hot*, and lets the accelerator go on from wherever
//! it has something better than the interpreter. The division of labour keeps every rule in one place:
//!
//! - An accelerator does only what is ordinary. Before anything else (an exception, a privileged
//!   instruction, a store to code, the end of the time) it returns, with registers and counts as
//!   before that instruction, and the interpreter does it.
//! - Where a monitor takes the traps, an accelerator may hand it one itself ([`Cpu::hand_over`]), and go on if
//!   the handler says so. The handler then sees what it would have seen if the interpreter had come there.
//! - It never runs past the bound: an instruction is executed only if as much time is left as all
//!   instructions up to the next point where it looks again take.
//! - What it knows of a page lapses with the page's code state, and where a virtual page leads is
//!   known by the CPU's own cache of fetches alone, whose entries go with TLB entries and segments.
//!
//! Translated code works on the fields of the CPU directly; [`Layout`] says where they are.

use std::fmt::Debug;
use std::mem::offset_of;
use std::time::Duration;

use super::at_once::AtOnce;
use super::code::{CodePage, FetchTranslations};
use super::data::Stored;
use super::translation::HostTranslations;
use super::{Cpu, Fault, Handler, Registers, Taken, Trap, TrapHandler};
use crate::segments::{self, Segment};
use crate::{AccessKind, Cp0, Cycles, Exception, MachineAddr, MachineMemory, Mpn, PAGE_BYTES};

/// A machine page as code: the page, and whether 64-bit operations are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeKey {
    /// The machine page.
    pub page: Mpn,
    /// Words of 64-bit instructions are reserved.
    pub is_32bit: bool,
}

/// A page of code with what was written to it: another version has other instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeVersion {
    /// The page.
    pub key: CodeKey,
    /// Its `MachineMemory::code_state`.
    pub state: u32,
}

/// How an accelerator came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// It has nothing at `regs.pc`.
    Nothing,
    /// `regs.pc` is where it has nothing, or where the CPU has to find the page first.
    Jump,
    /// The interpreter must execute the instruction at `regs.pc` (with the delay slot, if it is a
    /// branch) before the accelerator is asked again.
    Aside,
    /// The trap handler ends the run.
    LookAround,
}

/// What became of an instruction that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedOver {
    /// It raises nothing that a handler takes: the interpreter must do it.
    Refused,
    /// The handler took the trap; execution goes on at `regs.pc`.
    Resume,
    /// The handler took the trap and ends the run.
    LookAround,
}

/// What came of looking for the page of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// The cache has it.
    Remembered,
    /// The TLB has an entry for it at this index.
    Found(usize),
    /// It has one now.
    Refilled(usize),
    /// Neither.
    Nothing,
}

/// An instruction that traps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trapping {
    /// Restart address: the branch if the instruction is in a delay slot.
    pub pc: u64,
    /// The instruction is in a delay slot.
    pub in_delay_slot: bool,
    /// Where execution goes on once the instruction has been emulated.
    pub next_pc: u64,
}

/// What became of a run that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offered {
    /// The accelerator can run it.
    Translated,
    /// It will never want it.
    Never,
    /// It is to be offered again.
    NotNow,
    /// It is being translated; it is to be offered again when it has begun as often once more.
    Later,
}

/// Something that executes guest code faster than the interpreter, with the same results.
pub trait Accelerator: Debug + Send + Sync {
    /// Runs entered this often are offered.
    fn heat_min(&self) -> u8;

    /// Most chunks of 64 instructions that the CPU keeps decoded, of 664 bytes each; a page that has some counts
    /// for one more. A run in a page that is dropped is counted from zero again.
    fn decoded_chunks_max(&self) -> usize;

    /// The CPU begins to run. True: it must forget what it knows of entry points.
    fn begin(&mut self) -> bool;

    /// The CPU runs no more until it begins again.
    fn end(&mut self);

    /// What the fetch cache holds of a page of which nothing is known.
    fn no_entry_points(&self) -> u64;

    /// What the fetch cache holds of a page of `memory`; may be `no_entry_points`.
    fn entry_points(&mut self, memory: &MachineMemory, version: CodeVersion) -> u64;

    /// Considers the hot run at `pc`, which lies in `page`.
    fn translate(&mut self, cpu: &mut Cpu, page: &mut CodePage, pc: u64) -> Offered;

    /// Goes on at `regs.pc`, whose page has `entry_points`, for at most `budget` instructions.
    /// Returns how many of them are left too. `now` and `instructions` are as [`Cpu::settle`] left them.
    fn run(&mut self, cpu: &mut Cpu, handler: &mut Handler<'_, '_>, entry_points: u64, budget: i64) -> (Ran, i64);

    /// Host time spent in `translate` so far. Only for people: nothing may depend on it.
    fn translation_time(&self) -> Duration;
}

/// Offsets in bytes from the address of a [`Cpu`].
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// `regs.gpr[0]`.
    pub gpr: usize,
    /// `regs.hi`.
    pub hi: usize,
    /// `regs.lo`.
    pub lo: usize,
    /// `regs.pc`.
    pub pc: usize,
    /// `regs.fpr[0]`.
    pub fpr: usize,
    /// `regs.fcsr`.
    pub fcsr: usize,
    /// `regs.ll_bit`, a byte; `regs.ll_address`; `regs.ll_value`; and CP0's LLAddr, which is bits 35:4 of the address.
    pub ll_bit: usize,
    pub ll_address: usize,
    pub ll_value: usize,
    pub ll_addr: usize,
    /// The first of `SCRATCH_COUNT` words of 64 bits that are the accelerator's while it runs.
    pub scratch: usize,
    /// ASID and mode as the tags below hold them, 64 bits.
    pub context: usize,
    /// Host address of the guest's CP0 while translated code may use it, else 0.
    pub guest_cp0: usize,
    /// What a privileged instruction costs that is done at once, in cycles beside its own.
    pub at_once_cost: usize,
    /// The counts of a [`super::DoneAtOnce`].
    pub done_at_once: usize,
    /// The first entry of the host translations for loads: tag and addend, 64 bits each, chosen by the
    /// lowest bits of the page number. The tag is virtual page | context; host address =
    /// virtual address + addend.
    pub loads: usize,
    /// As `loads`, for stores.
    pub stores: usize,
    /// Host address of machine address 0, 64 bits.
    pub memory: usize,
    /// The first entry of the fetch cache, chosen by bits 9:0 of the page number xor bits 19:10: tag as above
    /// and entry points, 64 bits each, in `FETCH_BYTES` bytes.
    pub fetches: usize,
}

impl Layout {
    /// Of every CPU.
    pub const CPU: Layout = Layout {
        gpr: offset_of!(Cpu, regs) + offset_of!(Registers, gpr),
        hi: offset_of!(Cpu, regs) + offset_of!(Registers, hi),
        lo: offset_of!(Cpu, regs) + offset_of!(Registers, lo),
        pc: offset_of!(Cpu, regs) + offset_of!(Registers, pc),
        fpr: offset_of!(Cpu, regs) + offset_of!(Registers, fpr),
        fcsr: offset_of!(Cpu, regs) + offset_of!(Registers, fcsr),
        ll_bit: offset_of!(Cpu, regs) + offset_of!(Registers, ll_bit),
        ll_address: offset_of!(Cpu, regs) + offset_of!(Registers, ll_address),
        ll_value: offset_of!(Cpu, regs) + offset_of!(Registers, ll_value),
        ll_addr: offset_of!(Cpu, cp0) + offset_of!(Cp0, ll_addr),
        scratch: offset_of!(Cpu, scratch),
        context: offset_of!(Cpu, context),
        guest_cp0: offset_of!(Cpu, at_once) + AtOnce::CP0_OFFSET,
        at_once_cost: offset_of!(Cpu, at_once) + AtOnce::COST_OFFSET,
        done_at_once: offset_of!(Cpu, at_once) + AtOnce::DONE_OFFSET,
        loads: offset_of!(Cpu, loads) + HostTranslations::ENTRIES_OFFSET,
        stores: offset_of!(Cpu, stores) + HostTranslations::ENTRIES_OFFSET,
        memory: offset_of!(Cpu, loads) + HostTranslations::BASE_OFFSET,
        fetches: offset_of!(Cpu, fetches) + FetchTranslations::ENTRIES_OFFSET,
    };
    /// Words in `Cpu::scratch`.
    pub const SCRATCH_COUNT: usize = 9;
    /// Entries of the host translations, a power of two.
    pub const TRANSLATION_COUNT: usize = super::translation::ENTRY_COUNT;
    /// Entries of the fetch cache, a power of two.
    pub const FETCH_COUNT: usize = super::code::FETCH_ENTRY_COUNT;
    /// Bytes of an entry of the fetch cache.
    pub const FETCH_BYTES: usize = super::code::FETCH_ENTRY_BYTES;
}

/// An accelerator's accesses that the translations did not answer. `None` and `false`: not done, and
/// nothing has changed; the interpreter must find out why.
impl Cpu {
    /// Gives the CPU an accelerator, or takes it away.
    pub fn set_accelerator(&mut self, accelerator: Option<Box<dyn Accelerator>>) {
        self.heat_min = accelerator.as_ref().map_or(0, |accelerator| accelerator.heat_min());
        self.no_entry_points = accelerator.as_ref().map_or(0, |accelerator| accelerator.no_entry_points());
        self.forget_entry_points();
        self.accelerator = accelerator;
        self.code = super::CodeCache::new(self.decoded_chunks_least());
    }

    /// Lets the CPU keep `chunks` chunks of decoded code more than its accelerator asks for.
    pub fn set_further_decoded_chunks(&mut self, chunks: usize) {
        self.code.set_chunk_count_max(self.decoded_chunks_least() + chunks);
    }

    /// How many chunks it keeps in any case.
    fn decoded_chunks_least(&self) -> usize {
        self.accelerator().map_or(super::code::CHUNK_COUNT_MAX, |accelerator| accelerator.decoded_chunks_max())
    }

    /// The CPU's accelerator.
    pub fn accelerator(&self) -> Option<&dyn Accelerator> {
        self.accelerator.as_deref()
    }

    /// Drops what is known of entry points. An accelerator that discards some calls this.
    pub fn forget_entry_points(&mut self) {
        self.fetches.forget_entry_points(self.no_entry_points);
        self.known_pages.clear();
    }

    /// Notes that the page of `pc`, which is that version, has `entry_points`.
    pub fn set_entry_points(&mut self, pc: u64, version: CodeVersion, entry_points: u64) {
        self.fetches.set_entry_points(pc, self.context, entry_points);
        if entry_points != self.no_entry_points {
            self.known_pages.insert(version, entry_points);
        }
    }

    /// Brings time and counts up to date with `left` of the budget not used.
    #[inline]
    pub fn settle(&mut self, left: i64) {
        let executed = (self.budget_left - left) as u64;
        self.budget_left = left;
        self.now.0 += executed;
        self.instructions += executed - self.settle_done_at_once();
    }

    /// Lets `handler` answer the TLB refill that the last access ended with, if that is what it was and takes
    /// no more than an entry. Gives back the budget that is left of `left`, and the index of the entry.
    pub fn refill(&mut self, handler: &mut Handler<'_, '_>, left: i64) -> Option<(i64, usize)> {
        let Fault::Exception(Exception::TlbRefill { vaddr, .. }) = self.fault else { return None };
        self.refill_at(vaddr, handler, left)
    }

    fn refill_at(&mut self, vaddr: u64, handler: &mut Handler<'_, '_>, left: i64) -> Option<(i64, usize)> {
        let before = self.now;
        let index = handler.as_mut()?.refill(self, vaddr)?;
        self.counters.exceptions += 1;
        let charged = (self.now.0 - before.0) as i64;
        self.budget_left -= charged;
        Some((left - charged, index))
    }

    /// Looks for the TLB entry of a load or store that the caches do not answer, and lets `handler` answer a TLB refill
    /// that takes no more than an entry. So it spares an access that ends well the ordinary way, which is as right.
    #[inline]
    pub fn look(
        &mut self,
        handler: &mut Handler<'_, '_>,
        vaddr: u64,
        access: AccessKind,
        left: i64,
    ) -> (Looked, i64) {
        let vaddr = self.effective_address(vaddr);
        let cache = if access == AccessKind::Store { &self.stores } else { &self.loads };
        if cache.machine_address(vaddr, self.context).is_some() {
            return (Looked::Remembered, left);
        }
        if !matches!(segments::classify(vaddr, self.mode, &self.cp0), Ok(Segment::Mapped)) {
            return (Looked::Nothing, left);
        }
        if let Some(index) = self.tlb.find(segments::tlb_address(vaddr), self.asid) {
            return (Looked::Found(index), left);
        }
        match self.refill_at(vaddr, handler, left) {
            Some((left, index)) => (Looked::Refilled(index), left),
            None => (Looked::Nothing, left),
        }
    }

    /// Remembers where an access leads by the TLB entry at `index`, which matches `vaddr`; whether it may be.
    #[inline]
    pub fn remember(&mut self, index: usize, vaddr: u64, access: AccessKind) -> bool {
        let vaddr = self.effective_address(vaddr);
        match (self.found_in(index, vaddr, access), access) {
            (Ok(found), AccessKind::Load) => self.remember_load(vaddr, &found),
            (Ok(found), AccessKind::Store) => self.remember_store(vaddr, &found),
            _ => false,
        }
    }

    /// Loads the aligned value of `bytes` (1, 2, 4 or 8) bytes at `vaddr`, zero-extended, if the page is remembered.
    #[inline]
    pub fn load_remembered(&self, vaddr: u64, bytes: u64) -> Option<u64> {
        let vaddr = self.effective_address(vaddr);
        match bytes {
            8 => self.loads.load::<u64>(vaddr, self.context),
            4 => self.loads.load::<u32>(vaddr, self.context).map(u64::from),
            2 => self.loads.load::<u16>(vaddr, self.context).map(u64::from),
            _ => self.loads.load::<u8>(vaddr, self.context).map(u64::from),
        }
    }

    /// Stores the low `bytes` (1, 2, 4 or 8) bytes of `value` at `vaddr`, which must be aligned, if the page is
    /// remembered; whether it is.
    #[inline]
    pub fn store_remembered(&self, vaddr: u64, bytes: u64, value: u64) -> bool {
        let vaddr = self.effective_address(vaddr);
        match bytes {
            8 => self.stores.store(vaddr, self.context, value),
            4 => self.stores.store(vaddr, self.context, value as u32),
            2 => self.stores.store(vaddr, self.context, value as u16),
            _ => self.stores.store(vaddr, self.context, value as u8),
        }
    }

    /// Before the last access is tried again, whose refill the entry at `index` has answered: spares it the search.
    pub fn remember_refilled(&mut self, index: usize) {
        if let Fault::Exception(Exception::TlbRefill { vaddr, access }) = self.fault {
            self.remember(index, vaddr, access);
        }
    }

    /// Fetches from `pc` with `left` of the budget, as far as that leads to entry points that are known; the fetch
    /// cache has them then. Gives back what is left of the budget, and whether it has.
    pub fn fetch(&mut self, handler: &mut Handler<'_, '_>, pc: u64, mut left: i64) -> (bool, i64) {
        if left <= 0 || pc & 3 != 0 {
            return (false, left);
        }
        let mut found = self.find(pc, AccessKind::Fetch);
        if let Err(Exception::TlbRefill { vaddr, access }) = found {
            let Some((rest, index)) = self.refill_at(vaddr, handler, left) else { return (false, left) };
            left = rest;
            found = self.found_in(index, vaddr, access);
        }
        let Ok(found) = found else { return (false, left) };
        if left <= 0 || !self.is_memory(found.address) {
            return (false, left);
        }
        let version = self.code_version(found.address.page());
        let Some(entry_points) = self.known_pages.get(version) else { return (false, left) };
        self.remember_fetch(pc, &found, entry_points);
        (true, left)
    }

    /// The exception that the last access ended with, if a handler takes it.
    #[inline]
    pub fn refused(&self) -> Option<Exception> {
        match self.fault {
            Fault::Exception(exception) => Some(exception),
            Fault::Bus(_) | Fault::Aside => None,
        }
    }

    /// The exception that `insn`, which accesses no memory, raises as things stand.
    #[inline]
    pub fn raised_by(&self, insn: mips::Insn) -> Option<Exception> {
        match insn.op {
            op if op.is_privileged() && !self.cp0.coprocessor_usable(0) => {
                Some(Exception::CoprocessorUnusable { unit: 0 })
            }
            mips::Op::Syscall => Some(Exception::Syscall),
            mips::Op::Break => Some(Exception::Breakpoint),
            mips::Op::Rdhwr if self.cp0.read_hardware(insn.rd, self.now).is_none() => {
                Some(Exception::ReservedInstruction)
            }
            _ => None,
        }
    }

    /// Lets the handler carry out `insn` if it is privileged and takes no more than registers and time. `left` is
    /// what is left of the budget before the instruction; gives back what is left behind it.
    #[inline]
    pub fn emulate(&mut self, handler: &mut dyn TrapHandler, insn: mips::Insn, left: i64) -> Option<(Taken, i64)> {
        if !insn.op.is_privileged() || self.cp0.coprocessor_usable(0) {
            return None;
        }
        self.settle(left);
        let before = self.now;
        let taken = handler.emulate(self, insn)?;
        self.counters.exceptions += 1;
        let charged = (self.now.0 - before.0) as i64;
        self.budget_left -= charged;
        Some((taken, left - charged - 1))
    }

    /// Gives `exception` of an instruction to the handler. `left` is what is left of the budget before the
    /// instruction; gives back what is left then.
    ///
    /// Inline, so that the trap is put together in one place: values that are stored by parts and loaded whole soon
    /// after cost the host more than all the rest.
    #[inline(always)]
    pub fn hand_over(
        &mut self,
        handler: &mut dyn TrapHandler,
        exception: Exception,
        Trapping { pc, in_delay_slot, next_pc }: Trapping,
        insn: Option<mips::Insn>,
        left: i64,
    ) -> (HandedOver, i64) {
        self.settle(left);
        self.regs.pc = pc;
        self.counters.exceptions += 1;
        let word = self.executed_word(pc.wrapping_add(4 * u64::from(in_delay_slot)));
        let insn = insn.unwrap_or_else(|| mips::decode(word));
        let trap = Trap { exception, pc, in_delay_slot, next_pc, insn, word };
        let taken = handler.take(self, &trap);
        self.budget_left = self.bound.0.wrapping_sub(self.now.0) as i64;
        let handed_over = match taken {
            Taken::Resume => HandedOver::Resume,
            Taken::LookAround => HandedOver::LookAround,
        };
        (handed_over, self.budget_left)
    }

    /// Whether code at `pc` could be fetched without a further look: so it is for code that is being executed,
    /// unless a trap handler has taken its translation away.
    #[inline]
    pub fn is_fetched(&self, pc: u64) -> bool {
        self.fetches.get(pc, self.context).is_some()
    }

    /// The word at `pc`, which is being executed.
    #[inline]
    fn executed_word(&self, pc: u64) -> u32 {
        match self.fetches.get(pc, self.context) {
            Some(page) => self.read_memory(MachineAddr(page.address().0 | (pc & (PAGE_BYTES - 1))), 4) as u32,
            None => self.word_at(pc),
        }
    }

    /// Loads the aligned value of `bytes` bytes at `vaddr`, zero-extended.
    pub fn try_load(&mut self, vaddr: u64, bytes: u64) -> Option<u64> {
        self.load_slowly(vaddr, bytes)
    }

    /// Loads the aligned value of `bytes` bytes around `vaddr`, zero-extended.
    pub fn try_load_around(&mut self, vaddr: u64, bytes: u64) -> Option<u64> {
        self.load_around_slowly(vaddr, bytes)
    }

    /// Stores the low `bytes` bytes of `value` at `vaddr`, unless they are code.
    pub fn try_store(&mut self, vaddr: u64, bytes: u64, value: u64) -> bool {
        self.is_aligned(vaddr, bytes) && self.try_store_part(vaddr, 0, bytes, value)
    }

    /// Stores the low `bytes` bytes of `value` from `back` bytes before `vaddr` on, unless they are
    /// code. They lie in the doubleword around `vaddr`.
    pub fn try_store_part(&mut self, vaddr: u64, back: u64, bytes: u64, value: u64) -> bool {
        let vaddr = self.effective_address(vaddr);
        self.may_store(vaddr) && self.store_bytes(vaddr, back, bytes, value) == Stored::Done
    }

    /// LL and LLD.
    pub fn try_load_linked(&mut self, vaddr: u64, bytes: u64) -> Option<u64> {
        let value = match bytes {
            4 => u64::from(self.load::<u32>(vaddr)?),
            _ => self.load::<u64>(vaddr)?,
        };
        self.link(vaddr, value);
        Some(value)
    }

    /// SC and SCD, unless to code. The result is what the instruction writes to its register.
    pub fn try_store_conditional(&mut self, vaddr: u64, bytes: u64, value: u64) -> Option<u64> {
        let effective = self.effective_address(vaddr);
        if !self.is_aligned(vaddr, bytes) || !self.may_store(effective) {
            return None;
        }
        let (is_done, _) = self.store_if_linked(effective, bytes, value)?;
        Some(u64::from(is_done))
    }

    /// Whether instructions of the floating-point unit may be executed, and if so, whether it has 32
    /// registers for doubles (Status.FR).
    pub fn float_model(&self) -> Option<bool> {
        self.has_float.then_some(self.cp0.status & crate::cp0::status::FR != 0)
    }

    /// Executes an instruction of the floating-point unit that touches nothing but its registers.
    pub fn try_float(&mut self, insn: mips::Insn) -> bool {
        self.execute_float(insn) == super::Outcome::Next
    }

    /// The accelerator's words, which keep their values between its runs.
    pub fn scratch(&mut self) -> &mut [u64; Layout::SCRATCH_COUNT] {
        &mut self.scratch
    }

    /// What RDHWR of UserLocal reads, if the mode may.
    pub fn try_user_local(&mut self) -> Option<u64> {
        const NUMBER: u8 = 29;
        self.cp0.read_hardware(NUMBER, self.now)
    }

    /// Whether a store goes to memory that is no code. If not, `fault` says why.
    fn may_store(&mut self, vaddr: u64) -> bool {
        if self.stores.machine_address(vaddr, self.context).is_some() {
            return true;
        }
        match self.find(vaddr, AccessKind::Store) {
            Ok(found) if self.remember_store(vaddr, &found) => return true,
            Ok(_) => self.fault = Fault::Aside,
            Err(exception) => self.fault = Fault::Exception(exception),
        }
        false
    }

    /// Whether an address is a multiple of `bytes`. If not, the store is the interpreter's to refuse.
    fn is_aligned(&mut self, vaddr: u64, bytes: u64) -> bool {
        let is_aligned = self.effective_address(vaddr).is_multiple_of(bytes);
        if !is_aligned {
            self.fault = Fault::Aside;
        }
        is_aligned
    }

    /// Offers the hot run at `regs.pc`, which lies in `page`. False: the interpreter must execute it.
    pub(super) fn offer(&mut self, accelerator: &mut dyn Accelerator, page: &mut CodePage) -> bool {
        let pc = self.regs.pc;
        if page.is_translated(pc) {
            return true;
        }
        match accelerator.translate(self, page, pc) {
            Offered::NotNow => return false,
            Offered::Later => {
                page.count_anew(pc);
                return false;
            }
            offered => page.set_translated(pc, offered == Offered::Translated),
        }
        true
    }

    /// Lets the accelerator go on at `regs.pc`, whose page is that version.
    pub(super) fn accelerate(
        &mut self,
        accelerator: &mut dyn Accelerator,
        version: CodeVersion,
        handler: &mut Handler<'_, '_>,
        until: Cycles,
    ) -> Ran {
        if self.code_writes != self.memory.code_writes() {
            self.code_writes = self.memory.code_writes();
            self.forget_entry_points();
        }
        let pc = self.regs.pc;
        let mut entry_points = self.fetches.entry_points(pc);
        if entry_points == self.no_entry_points {
            entry_points = accelerator.entry_points(&self.memory, version);
            self.set_entry_points(pc, version, entry_points);
        }
        let budget = until.0.saturating_sub(self.now.0).min(i64::MAX as u64) as i64;
        self.bound = Cycles(self.now.0 + budget as u64);
        self.budget_left = budget;
        let (ran, left) = accelerator.run(self, handler, entry_points, budget);
        self.settle(left);
        ran
    }
}
