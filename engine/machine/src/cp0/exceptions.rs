//! Exception entry, ERET, and the three kinds of reset.
//!
//! Source: MIPS64 PRA vol. III, "Exception Vector Locations" and "General Exception Processing".

use super::fields::EBASE_CPU_NUM;
use super::{Cp0, cause, entry_hi, int_ctl, sign_extend, status};
use crate::{Cycles, Exception};

/// The CPU starts here after any reset, and exceptions go near here while Status.BEV is set.
const RESET_VECTOR: u64 = 0xffff_ffff_bfc0_0000;
const BOOT_BASE: u64 = RESET_VECTOR + 0x200;
/// The address bits above those that an offset is added to.
const SEGMENT: u32 = 3 << 30;

const TLB_REFILL: u32 = 0x000;
const XTLB_REFILL: u32 = 0x080;
const GENERAL: u32 = 0x180;
const INTERRUPT: u32 = 0x200;

/// Why a CPU starts over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Power came on: every register as in the table.
    Cold,
    /// Status.SR; the other registers stay.
    Soft,
    /// A non-maskable interrupt: Status.NMI; the other registers stay.
    Nmi,
}

impl Cp0 {
    /// Enters the exception: EPC and BD, Cause, BadVAddr, Context, XContext, EntryHi, EXL. Returns the
    /// vector's virtual address.
    ///
    /// `pc` is the restart address: the branch if the instruction at fault is in its delay slot.
    pub fn enter(&mut self, exception: Exception, pc: u64, in_delay_slot: bool) -> u64 {
        let offset = self.vector_offset(exception);
        if self.status & status::EXL == 0 {
            self.epc = pc;
            self.cause &= !cause::BD;
            self.cause |= if in_delay_slot { cause::BD } else { 0 };
        }
        self.cause &= !(cause::CE_MASK | cause::EXC_CODE_MASK);
        self.cause |= u32::from(exception.code()) << cause::EXC_CODE_SHIFT;
        if let Exception::CoprocessorUnusable { unit } = exception {
            self.cause |= u32::from(unit & 3) << cause::CE_SHIFT;
        }
        if let Some(vaddr) = exception.bad_vaddr() {
            self.bad_vaddr = vaddr;
            if exception.is_tlb() {
                self.load_tlb_context(vaddr);
            }
        }
        if exception == Exception::MachineCheck {
            self.status |= status::TS;
        }
        self.status |= status::EXL;
        self.vector(offset)
    }

    /// ERET: the address to go on at; clears ERL, or EXL if ERL is clear. The caller clears LLbit.
    pub fn eret(&mut self) -> u64 {
        if self.status & status::ERL != 0 {
            self.status &= !status::ERL;
            self.error_epc
        } else {
            self.status &= !status::EXL;
            self.epc
        }
    }

    /// Starts over at the reset vector, which is returned; `pc` (the restart address) goes to ErrorEPC.
    pub fn reset(&mut self, reset: Reset, pc: u64, now: Cycles) -> u64 {
        if reset == Reset::Cold {
            self.load_reset_values();
            self.set_count(0, now);
            self.set_lines(self.lines);
        }
        self.status &= !(status::TS | status::SR | status::NMI);
        self.status |= status::BEV | status::ERL;
        self.status |= match reset {
            Reset::Cold => 0,
            Reset::Soft => status::SR,
            Reset::Nmi => status::NMI,
        };
        self.error_epc = pc;
        RESET_VECTOR
    }

    /// Where from the vector base the exception goes, as Status and Cause are before it.
    fn vector_offset(&self, exception: Exception) -> u32 {
        if self.status & status::EXL != 0 {
            return GENERAL;
        }
        match exception {
            Exception::TlbRefill { vaddr, .. } => self.refill_offset(vaddr),
            Exception::Interrupt if self.cause & cause::IV != 0 => INTERRUPT + self.vectored_offset(),
            _ => GENERAL,
        }
    }

    /// XTLB refill where 64-bit addresses are enabled for the segment. The segment's region decides, so
    /// KX also for the 32-bit kernel and supervisor segments; regions 1 and 2 exist only in 64 bits.
    fn refill_offset(&self, vaddr: u64) -> u32 {
        let enabled = match vaddr >> 62 {
            0 => self.status & status::UX != 0,
            3 => self.status & status::KX != 0,
            _ => true,
        };
        if enabled { XTLB_REFILL } else { TLB_REFILL }
    }

    /// With IntCtl.VS each line has its own vector, the highest pending line first; with BEV none has.
    fn vectored_offset(&self) -> u32 {
        let spacing_bytes = (self.int_ctl & int_ctl::VS_MASK) >> int_ctl::VS_SHIFT << 5;
        if self.status & status::BEV != 0 {
            return 0;
        }
        self.pending_interrupts().checked_ilog2().unwrap_or(0) * spacing_bytes
    }

    /// The vector at `offset`; a carry out of bit 29 is lost, so EBase cannot lead out of KSEG0 and KSEG1.
    fn vector(&self, offset: u32) -> u64 {
        if self.status & status::BEV != 0 {
            return BOOT_BASE + u64::from(offset);
        }
        let base = self.ebase & !EBASE_CPU_NUM;
        sign_extend((base & SEGMENT) | (base.wrapping_add(offset) & !SEGMENT))
    }

    /// What a refill handler starts from: Context, XContext and EntryHi, all from the faulting address.
    fn load_tlb_context(&mut self, vaddr: u64) {
        let vpn2 = vaddr & entry_hi::VPN2;
        let region = vaddr >> 62;
        let bad_vpn2_32 = (vaddr >> 13) & 0x7_ffff;
        self.context = (self.context & !0x7f_ffff) | bad_vpn2_32 << 4;
        self.xcontext = (self.xcontext & !0x1_ffff_ffff) | region << 31 | vpn2 >> 13 << 4;
        self.entry_hi = (self.entry_hi & (entry_hi::ASID | entry_hi::EHINV)) | (vaddr & entry_hi::R) | vpn2;
    }
}
