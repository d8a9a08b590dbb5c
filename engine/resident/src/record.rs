//! What the services of a guest's kernel cost: which traps and interrupts begin and end them.
//!
//! The rules are [`machine::services`]'; here is what of a vCPU's life is told to the recorder. A trap is looked at
//! once it has been handled, from before its first cycle to after its last, so the monitor's work on it is part of
//! the service. Nothing here changes anything that a guest or a counter could show.

use machine::segments::tlb_address;
use machine::services::{From, Moment};
use machine::tlb::entry_lo;
use machine::{Asid, Exception, PhysAddr, Trap};
use mips::Op;

use crate::counters::{ByCause, Cause};
use crate::pmap::PageState;
use crate::trap::{Flow, Running};

/// What has to be known of a vCPU before its trap is handled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    at: Moment<ByCause>,
    from: From,
    v0: u64,
}

impl Running<'_> {
    /// The vCPU as it is now, if somebody records.
    pub(crate) fn before_recorded(&self) -> Option<Before> {
        self.vcpu.recorder.as_ref()?;
        let v0 = self.cpu.regs.gpr[machine::cpu::V0];
        Some(Before { at: self.vcpu.moment(), from: From::mode(&self.vcpu.cp0), v0 })
    }

    /// Tells the recorder of an interrupt that has been delivered.
    #[cold]
    pub(crate) fn record_interrupt(&mut self, before: Before) {
        if let Some(recorder) = &mut self.vcpu.recorder {
            recorder.entered(Exception::Interrupt, before.from, before.v0, before.at);
        }
    }

    /// Tells the recorder of a trap that has been handled.
    #[cold]
    pub(crate) fn record_trap(&mut self, trap: &Trap, before: Before, flow: Flow) {
        let Some(mut recorder) = self.vcpu.recorder.take() else { return };
        let at = self.vcpu.moment();
        let is_refill = matches!(trap.exception, Exception::TlbRefill { .. });
        match self.vcpu.trap.cause {
            Cause::Forward => {
                if let Some(exception) = self.vcpu.trap.forwarded.take() {
                    recorder.entered(exception, before.from, before.v0, before.at);
                }
            }
            Cause::TlbMiss if is_refill && flow == Flow::Resume => recorder.refilled_by_monitor(before.at, at),
            Cause::Privileged => match trap.insn.op {
                Op::Eret => {
                    let is_to_user = From::mode(&self.vcpu.cp0) == From::User;
                    recorder.returned(is_to_user, at, |vaddr| self.reads_as_zeros(vaddr));
                }
                Op::Mtc0 | Op::Dmtc0 => match (trap.insn.rd, trap.insn.sel()) {
                    machine::cp0::register::STATUS => recorder.wrote_status(),
                    machine::cp0::register::USER_LOCAL => recorder.wrote_user_local(at),
                    _ => {}
                },
                _ => {}
            },
            _ => {}
        }
        self.vcpu.recorder = Some(recorder);
    }

    /// Whether the guest's page around `vaddr` is all zeros, if its TLB has it.
    fn reads_as_zeros(&self, vaddr: u64) -> Option<bool> {
        let index = self.vcpu.tlb.find(tlb_address(vaddr), Asid(self.vcpu.cp0.entry_hi as u8))?;
        let entry = self.vcpu.tlb.get(index);
        if entry.lo[entry.half(vaddr)] & entry_lo::V == 0 {
            return None;
        }
        let row = self.pmap.row(PhysAddr(entry.physical(vaddr)).page());
        let is_present = matches!(row.state(), PageState::Private | PageState::Shared);
        is_present.then(|| self.cpu.memory().is_zero_page(machine::Mpn(row.mpn)))
    }
}
