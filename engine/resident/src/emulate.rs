//! Privileged instructions, carried out on the virtual CP0 and the virtual TLB.
//!
//! A guest kernel runs in supervisor mode without CU0, so each of its CP0 instructions raises Coprocessor
//! Unusable and comes here. What it does to the guest is what the manual says; what it does to the hardware
//! follows from that ([`Running::sync_hardware`], [`Running::virtual_tlb_written`]).

use machine::cp0::{Mode, register, status};
use machine::{Asid, Exception, TlbEntry, Trap};
use mips::{Insn, Op};

use crate::counters::Cause;
use crate::event::StopCause;
use crate::trap::{Flow, Running};

/// Index.P: the probe found nothing.
const INDEX_P: u32 = 1 << 31;

impl Running<'_> {
    /// A CP0 instruction of a guest that may use CP0.
    pub(crate) fn privileged(&mut self, trap: &Trap) -> Flow {
        // By parts, as it has just been stored: a load of all of it would wait for the stores.
        let op = trap.insn.op;
        let is_tlb = matches!(op, Op::Tlbr | Op::Tlbwi | Op::Tlbwr | Op::Tlbp | Op::Tlbinv | Op::Tlbinvf);
        let cost = if is_tlb { self.costs.emulate_tlb } else { self.costs.emulate };
        self.charge(cost);
        if let Some(follower) = &mut self.vcpu.follower {
            // The cycle that the instruction itself takes, which `skip_to` counts.
            follower.charge(1);
        }
        self.note("privileged", || vec![("pc", trap.insn_pc().into()), ("word", u64::from(trap.word).into())]);
        let mut next_pc = trap.next_pc;
        match op {
            Op::Mfc0 | Op::Dmfc0 => self.move_from_cp0(trap.insn),
            Op::Mtc0 | Op::Dmtc0 => self.move_to_cp0(trap.insn),
            Op::Tlbwi | Op::Tlbwr => {
                if let Err(exception) = self.write_virtual_tlb(op == Op::Tlbwr) {
                    return self.forward(exception, trap);
                }
            }
            Op::Tlbp => self.probe_virtual_tlb(),
            Op::Tlbr => self.read_virtual_tlb(),
            Op::Tlbinv => self.invalidate_virtual_tlb(Some(Asid(self.vcpu.cp0.entry_hi as u8))),
            Op::Tlbinvf => self.invalidate_virtual_tlb(None),
            Op::Eret => next_pc = self.return_from_exception(),
            Op::Di | Op::Ei => self.switch_interrupts(trap.insn),
            Op::Cache => self.vcpu.counters.emulated_cache += 1,
            Op::Rdpgpr | Op::Wrpgpr => {
                // One register set: the previous set is the current one.
                let value = self.cpu.regs.gpr[usize::from(trap.insn.rt)];
                self.set_gpr(trap.insn.rd, value);
            }
            Op::Wait => {
                self.vcpu.counters.emulated_wait += 1;
                self.skip_to(next_pc);
                return self.wait();
            }
            _ => return self.forward(Exception::ReservedInstruction, trap),
        }
        self.skip_to(next_pc);
        Flow::Resume
    }

    /// Carries out an instruction of a guest kernel that moves a register of CP0, or switches interrupts, as
    /// `privileged` would; its own cycle is left to the CPU. False: it is another, or changes the guest's mode.
    pub(crate) fn emulate_at_once(&mut self, insn: Insn) -> bool {
        let is_at_once = self.vcpu.cp0.mode() == Mode::Kernel
            && match insn.op {
                Op::Mfc0 | Op::Dmfc0 | Op::Di | Op::Ei => true,
                Op::Mtc0 | Op::Dmtc0 if (insn.rd, insn.sel()) == register::STATUS => {
                    let value = self.cpu.regs.gpr[usize::from(insn.rt)] as u32;
                    value & (status::EXL | status::ERL) != 0 || value & status::KSU_MASK == 0
                }
                Op::Mtc0 | Op::Dmtc0 => true,
                _ => false,
            };
        if !is_at_once {
            return false;
        }
        self.vcpu.counters.traps += 1;
        self.vcpu.counters.traps_privileged += 1;
        let cost = self.costs.at_once();
        self.cpu.now.0 += cost;
        self.vcpu.counters.monitor.add(Cause::Privileged, cost);
        match insn.op {
            Op::Mfc0 | Op::Dmfc0 => self.move_from_cp0(insn),
            Op::Mtc0 | Op::Dmtc0 => self.move_to_cp0(insn),
            _ => self.switch_interrupts(insn),
        }
        true
    }

    /// Reserved Instruction: RDHWR of something that the hardware does not answer, or the guest's own affair.
    pub(crate) fn reserved(&mut self, trap: &Trap) -> Flow {
        let insn = trap.insn;
        let now = self.clock();
        let value = (insn.op == Op::Rdhwr).then(|| self.vcpu.cp0.read_hardware(insn.rd, now)).flatten();
        let Some(value) = value else { return self.forward(Exception::ReservedInstruction, trap) };
        self.vcpu.counters.emulated_rdhwr += 1;
        self.vcpu.trap.cause = Cause::Privileged;
        self.charge(self.costs.emulate);
        self.set_gpr(insn.rt, value);
        self.skip_to(trap.next_pc);
        Flow::Resume
    }

    fn set_gpr(&mut self, register: u8, value: u64) {
        if register != 0 {
            self.cpu.regs.gpr[usize::from(register)] = value;
        }
    }

    fn move_from_cp0(&mut self, insn: Insn) {
        self.vcpu.counters.emulated_mfc0 += 1;
        let now = if (insn.rd, insn.sel()) == register::COUNT { self.clock() } else { self.cpu.now };
        let cp0 = &self.vcpu.cp0;
        let value = match insn.op {
            Op::Mfc0 => cp0.read_word(insn.rd, insn.sel(), now),
            _ => cp0.read(insn.rd, insn.sel(), now),
        };
        self.set_gpr(insn.rt, value);
    }

    fn move_to_cp0(&mut self, insn: Insn) {
        self.vcpu.counters.emulated_mtc0 += 1;
        let value = self.cpu.regs.gpr[usize::from(insn.rt)];
        let now = self.cpu.now;
        if (insn.rd, insn.sel()) == register::COUNT && self.keeps_clock(value as u32) {
            return;
        }
        let (status_before, grain_before) = (self.vcpu.cp0.status, self.vcpu.cp0.page_grain);
        let cp0 = &mut self.vcpu.cp0;
        let effect = match insn.op {
            Op::Mtc0 => cp0.write_word(insn.rd, insn.sel(), value, now),
            _ => cp0.write(insn.rd, insn.sel(), value, now),
        };
        if (status_before ^ self.vcpu.cp0.status) & status::ERL != 0 || grain_before != self.vcpu.cp0.page_grain {
            self.forget_translations();
        }
        if effect.context || (insn.rd, insn.sel()) == register::USER_LOCAL {
            self.sync_hardware();
        }
    }

    /// Whether a write of Count changes nothing, as vCPUs have one clock; if not, the others will be told.
    fn keeps_clock(&mut self, value: u32) -> bool {
        let now = self.cpu.now;
        self.smp.as_mut().is_some_and(|smp| smp.clock.keeps(&self.vcpu.cp0, value, now))
    }

    /// The meaning of addresses changed: nothing that was translated before may answer.
    fn forget_translations(&mut self) {
        self.vcpu.l2tlb.clear();
        self.hardware_drop(|_| true);
    }

    fn write_virtual_tlb(&mut self, is_random: bool) -> Result<(), Exception> {
        let index = if is_random {
            self.vcpu.counters.emulated_tlbwr += 1;
            self.vcpu.cp0.random() as usize
        } else {
            self.vcpu.counters.emulated_tlbwi += 1;
            self.vcpu.cp0.index as usize & 0x3f
        };
        if index >= self.vcpu.tlb.len() {
            return Ok(());
        }
        let entry = TlbEntry::from_cp0(&self.vcpu.cp0);
        let old = self.vcpu.tlb.write(index, entry).map_err(|_| Exception::MachineCheck)?;
        self.note("tlb write", || {
            vec![
                ("random", is_random.into()),
                ("index", (index as u64).into()),
                ("vpn2", entry.vpn2.into()),
                ("asid", u64::from(entry.asid.0).into()),
                ("global", entry.global.into()),
                ("page_mask", u64::from(entry.page_mask).into()),
                ("lo0", entry.lo[0].into()),
                ("lo1", entry.lo[1].into()),
            ]
        });
        // With one slot left to be random, the guest knows which one it displaces.
        let is_blind = is_random && (self.vcpu.cp0.wired as usize) + 1 < self.vcpu.tlb.len();
        self.virtual_tlb_written(index, &old, is_blind);
        Ok(())
    }

    fn probe_virtual_tlb(&mut self) {
        self.vcpu.counters.emulated_tlb_other += 1;
        let key = self.vcpu.cp0.entry_hi & !0x1fff;
        let asid = Asid(self.vcpu.cp0.entry_hi as u8);
        match self.vcpu.tlb.find(key, asid) {
            Some(index) => self.vcpu.cp0.index = index as u32,
            None => {
                self.drop_ghosts(key);
                self.vcpu.cp0.index = INDEX_P;
            }
        }
    }

    fn read_virtual_tlb(&mut self) {
        self.vcpu.counters.emulated_tlb_other += 1;
        let index = self.vcpu.cp0.index as usize & 0x3f;
        if index < self.vcpu.tlb.len() {
            self.drop_slot_ghosts(index);
            let entry = *self.vcpu.tlb.get(index);
            entry.to_cp0(&mut self.vcpu.cp0);
            // TLBR loads EntryHi.ASID, which is the current address space.
            self.sync_hardware();
        }
    }

    /// TLBINVF (no address space) and TLBINV (the entries of one that are not global).
    fn invalidate_virtual_tlb(&mut self, asid: Option<Asid>) {
        self.vcpu.counters.emulated_tlb_other += 1;
        for index in 0..self.vcpu.tlb.len() {
            let entry = self.vcpu.tlb.get(index);
            if asid.is_none_or(|asid| !entry.global && entry.asid == asid) {
                self.vcpu.tlb.invalidate(index);
            }
        }
        self.vcpu.l2tlb.drop_guest();
        self.hardware_drop_guest();
    }

    fn return_from_exception(&mut self) -> u64 {
        self.vcpu.counters.emulated_eret += 1;
        let was_error = self.vcpu.cp0.status & status::ERL != 0;
        let pc = self.vcpu.cp0.eret();
        self.cpu.regs.ll_bit = false;
        if was_error {
            self.forget_translations();
        }
        self.sync_hardware();
        pc
    }

    fn switch_interrupts(&mut self, insn: Insn) {
        self.vcpu.counters.emulated_di_ei += 1;
        let before = self.vcpu.cp0.status;
        self.vcpu.cp0.status = if insn.op == Op::Ei { before | status::IE } else { before & !status::IE };
        self.set_gpr(insn.rt, i64::from(before as i32) as u64);
    }

    /// WAIT: off the CPU until an interrupt is pending; for ever if none can be.
    fn wait(&mut self) -> Flow {
        let status = self.vcpu.cp0.status;
        let is_masked = status & status::IM_MASK == 0;
        if is_masked && status & status::IE == 0 {
            return self.stop(StopCause::Halted);
        }
        if self.vcpu.wait(self.cpu.now) { Flow::Leave } else { Flow::Resume }
    }
}
