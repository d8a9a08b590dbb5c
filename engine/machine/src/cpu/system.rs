//! Privileged instructions, traps to the kernel, and load linked / store conditional.
//!
//! All of these are rare enough to be called; most of them end the run of instructions, because
//! they may change what the loop has concluded from CP0.

use mips::{Insn, Op};

use super::data::Stored;
use super::{Cpu, Fault, Outcome};
use crate::cp0::{Effect, Mode, register};
use crate::services::{Moment, Nothing};
use crate::{AccessKind, Cycles, Exception, MachineAddr, TlbEntry};

/// Index.P: TLBP found nothing.
const INDEX_P: u32 = 1 << 31;
/// RDHWR of Count.
const HARDWARE_COUNT: u8 = 2;

/// Whether an instruction that moves to or from CP0 names Count.
fn names_count(insn: Insn) -> bool {
    (insn.rd, insn.sel()) == crate::cp0::register::COUNT
}

impl Cpu {
    /// Executes a privileged or trapping instruction at time `now`.
    #[inline(never)]
    pub(super) fn execute_system(&mut self, insn: Insn, now: Cycles) -> Outcome {
        if insn.op.is_privileged() && !self.cp0.coprocessor_usable(0) {
            return self.raise_in_run(Exception::CoprocessorUnusable { unit: 0 });
        }
        let (rs, rt, rd) = (usize::from(insn.rs), usize::from(insn.rt), usize::from(insn.rd));
        match insn.op {
            Op::Syscall => return self.raise_in_run(Exception::Syscall),
            Op::Break => return self.raise_in_run(Exception::Breakpoint),
            Op::Cop2 if !self.cp0.coprocessor_usable(2) => {
                return self.raise_in_run(Exception::CoprocessorUnusable { unit: 2 });
            }
            Op::Rdhwr => {
                let now = if insn.rd == HARDWARE_COUNT { self.clock(now) } else { now };
                match self.cp0.read_hardware(insn.rd, now) {
                    Some(value) => self.regs.gpr[rt] = value,
                    None => return self.raise_in_run(Exception::ReservedInstruction),
                }
            }
            Op::Mfc0 | Op::Dmfc0 => {
                let now = if names_count(insn) { self.clock(now) } else { now };
                self.regs.gpr[rt] = match insn.op {
                    Op::Mfc0 => self.cp0.read_word(insn.rd, insn.sel(), now),
                    _ => self.cp0.read(insn.rd, insn.sel(), now),
                };
            }
            Op::Mtc0 | Op::Dmtc0 if names_count(insn) && self.keeps_clock(self.regs.gpr[rt] as u32, now) => {
                return Outcome::Boundary;
            }
            Op::Mtc0 | Op::Dmtc0 => {
                let value = self.regs.gpr[rt];
                let effect = match insn.op {
                    Op::Mtc0 => self.cp0.write_word(insn.rd, insn.sel(), value, now),
                    _ => self.cp0.write(insn.rd, insn.sel(), value, now),
                };
                if self.recorder.is_some() {
                    self.record_write((insn.rd, insn.sel()), now);
                }
                return self.after_write(effect, now);
            }
            Op::Rdpgpr | Op::Wrpgpr => self.regs.gpr[rd] = self.regs.gpr[rt],
            Op::Di | Op::Ei => {
                let before = self.cp0.status;
                let (register, select) = crate::cp0::register::STATUS;
                let enable = u32::from(insn.op == Op::Ei) * crate::cp0::status::IE;
                let status = before & !crate::cp0::status::IE | enable;
                let effect = self.cp0.write_word(register, select, u64::from(status), now);
                self.regs.gpr[rt] = before as i32 as u64;
                return self.after_write(effect, now);
            }
            Op::Tlbr => {
                let entry = *self.tlb.get(self.tlb_index());
                entry.to_cp0(&mut self.cp0);
                self.context_changed_at(Cycles(now.0 + 1));
                return Outcome::Boundary;
            }
            Op::Tlbwi => return self.write_tlb_entry(self.tlb_index()),
            Op::Tlbwr => {
                let index = self.cp0.random() as usize;
                return self.write_tlb_entry(index);
            }
            Op::Tlbp => {
                let entry_hi = crate::segments::tlb_address(self.cp0.entry_hi & !crate::cp0::entry_hi::ASID);
                let found = self.tlb.find(entry_hi, self.cp0.asid());
                self.cp0.index = found.map_or(INDEX_P, |index| index as u32);
            }
            Op::Tlbinv | Op::Tlbinvf => return self.invalidate_tlb(insn.op == Op::Tlbinvf),
            Op::Eret => {
                self.regs.ll_bit = false;
                self.regs.pc = self.cp0.eret();
                self.context_changed_at(Cycles(now.0 + 1));
                if self.recorder.is_some() {
                    self.record_return(Cycles(now.0 + 1));
                }
                return Outcome::Return;
            }
            Op::Wait => {
                self.cp0.tick(Cycles(now.0 + 1));
                return if self.cp0.pending_interrupts() == 0 { Outcome::Wait } else { Outcome::Boundary };
            }
            Op::Sc => {
                return self.store_conditional(insn, self.regs.gpr[rs].wrapping_add(insn.simm()), 4);
            }
            Op::Scd => {
                return self.store_conditional(insn, self.regs.gpr[rs].wrapping_add(insn.simm()), 8);
            }
            // Stores are seen by the next fetch, so caches have nothing to do.
            Op::Cache | Op::Synci => return Outcome::Boundary,
            // Without EJTAG, SDBBP and DERET do not exist either.
            _ => return self.raise_in_run(Exception::ReservedInstruction),
        }
        Outcome::Next
    }

    /// The time that Count shows at `now`: of several CPUs with one clock, no earlier than another has read.
    fn clock(&mut self, now: Cycles) -> Cycles {
        self.shared_clock.as_mut().map_or(now, |clock| clock.read(now))
    }

    /// Whether a write of Count changes nothing, as CPUs with one clock have to agree.
    fn keeps_clock(&mut self, value: u32, now: Cycles) -> bool {
        self.shared_clock.as_mut().is_some_and(|clock| clock.keeps(&self.cp0, value, now))
    }

    /// Tells the recorder that the kernel has written a register that it wants to know of.
    #[cold]
    fn record_write(&mut self, written: (u8, u8), now: Cycles) {
        let at = self.moment(now);
        let Some(recorder) = &mut self.recorder else { return };
        match written {
            register::STATUS => recorder.wrote_status(),
            register::USER_LOCAL => recorder.wrote_user_local(at),
            _ => {}
        }
    }

    /// Tells the recorder that an ERET has been executed by `now`.
    #[cold]
    fn record_return(&mut self, now: Cycles) {
        let Some(mut recorder) = self.recorder.take() else { return };
        let is_to_user = self.cp0.mode() == Mode::User;
        recorder.returned(is_to_user, self.moment(now), |vaddr| self.reads_as_zeros(vaddr));
        self.recorder = Some(recorder);
    }

    /// Where the CPU is at `now`, in the middle of a run whose time is not settled yet.
    fn moment(&self, now: Cycles) -> Moment<Nothing> {
        let executed = now.0 - self.now.0;
        Moment { cycles: now.0, instructions: self.instructions + executed, monitor: Nothing }
    }

    /// Whether the page around `vaddr` is all zeros, if it can be read.
    fn reads_as_zeros(&self, vaddr: u64) -> Option<bool> {
        let address = self.probe(vaddr, AccessKind::Load).ok().filter(|address| self.is_memory(*address))?;
        Some(self.memory.is_zero_page(address.page()))
    }

    /// Ends the run with an exception.
    pub(super) fn raise_in_run(&mut self, exception: Exception) -> Outcome {
        self.fault = Fault::Exception(exception);
        Outcome::Fault
    }

    fn after_write(&mut self, effect: Effect, now: Cycles) -> Outcome {
        if effect.context {
            self.context_changed_at(Cycles(now.0 + 1));
        }
        Outcome::Boundary
    }

    /// The entry that Index names.
    fn tlb_index(&self) -> usize {
        self.cp0.index as usize % self.tlb.len()
    }

    fn write_tlb_entry(&mut self, index: usize) -> Outcome {
        match self.tlb_write(index, TlbEntry::from_cp0(&self.cp0)) {
            Ok(_) => Outcome::Boundary,
            Err(_) => self.raise_in_run(Exception::MachineCheck),
        }
    }

    /// TLBINVF takes every entry, TLBINV those of the current ASID.
    fn invalidate_tlb(&mut self, is_all: bool) -> Outcome {
        let asid = self.cp0.asid();
        for index in 0..self.tlb.len() {
            let entry = self.tlb.get(index);
            if is_all || (!entry.global && entry.asid == asid) {
                self.tlb_invalidate(index);
            }
        }
        Outcome::Boundary
    }

    /// Remembers what LL or LLD at `vaddr` loaded. The load has just succeeded.
    #[inline(never)]
    pub(super) fn link(&mut self, vaddr: u64, value: u64) {
        let vaddr = self.effective_address(vaddr);
        let address = self.loads.machine_address(vaddr, self.context);
        self.regs.ll_bit = address.is_some();
        self.regs.ll_address = address.map_or(0, |address| address.0);
        self.regs.ll_value = value;
        self.cp0.ll_addr = self.regs.ll_address >> LL_ADDR_SHIFT;
    }

    /// SC and SCD of `bytes` bytes.
    fn store_conditional(&mut self, insn: Insn, vaddr: u64, bytes: u64) -> Outcome {
        let vaddr = self.effective_address(vaddr);
        if !vaddr.is_multiple_of(bytes) {
            return self.raise_in_run(Exception::AddressError { vaddr, access: AccessKind::Store });
        }
        let rt = usize::from(insn.rt);
        let Some((is_done, stored)) = self.store_if_linked(vaddr, bytes, self.regs.gpr[rt]) else {
            return Outcome::Fault;
        };
        if rt != 0 {
            self.regs.gpr[rt] = u64::from(is_done);
        }
        match stored {
            Stored::CodeChanged => Outcome::Boundary,
            _ => Outcome::Next,
        }
    }

    /// Stores at the aligned address `vaddr` if nothing came between that and the load linked, as far
    /// as the memory's value tells. Says whether it did; `None` for a fault.
    pub(super) fn store_if_linked(&mut self, vaddr: u64, bytes: u64, value: u64) -> Option<(bool, Stored)> {
        let address = self.store_address(vaddr)?;
        let is_linked = std::mem::take(&mut self.regs.ll_bit) && self.is_unchanged(address, bytes);
        let stored = match is_linked {
            true => self.store_bytes(vaddr, 0, bytes, value),
            false => Stored::Done,
        };
        Some((is_linked, stored))
    }

    /// Whether `address` is what was linked and still holds the value loaded.
    fn is_unchanged(&self, address: MachineAddr, bytes: u64) -> bool {
        self.regs.ll_address == address.0
            && self.is_memory(address)
            && self.read_memory(address, bytes) == self.regs.ll_value
    }
}

/// LLAddr holds bits 35:4 of the address.
const LL_ADDR_SHIFT: u32 = 4;
