//! The exceptions of a MIPS64 CPU, as values.
//!
//! An access or an instruction that fails returns one of these up one path to the CPU loop, which
//! alone delivers it (bare machine) or stops with it (under the monitor).
//! Source: MIPS64 PRA vol. III, "Interrupts and Exceptions".

use crate::AccessKind;

/// Why an instruction could not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// An enabled interrupt is pending.
    Interrupt,
    /// No TLB entry matches (TLBL or TLBS; refill vector when EXL was clear).
    TlbRefill { vaddr: u64, access: AccessKind },
    /// The matching entry's page is invalid (TLBL or TLBS, general vector).
    TlbInvalid { vaddr: u64, access: AccessKind },
    /// A store hit a page without D (Mod).
    TlbModified { vaddr: u64 },
    /// A load hit a page with RI, and PageGrain.IEC is set (TLBRI).
    TlbReadInhibit { vaddr: u64 },
    /// A fetch hit a page with XI, and PageGrain.IEC is set (TLBXI).
    TlbExecuteInhibit { vaddr: u64 },
    /// Misaligned, or outside of what the mode may reach (AdEL or AdES).
    AddressError { vaddr: u64, access: AccessKind },
    /// Nothing answers at that physical address (IBE or DBE).
    BusError { access: AccessKind },
    /// SYSCALL.
    Syscall,
    /// BREAK.
    Breakpoint,
    /// An encoding that this CPU does not have, or not in this mode.
    ReservedInstruction,
    /// A coprocessor instruction without Status.CU of that unit (0 to 3).
    CoprocessorUnusable { unit: u8 },
    /// Signed overflow in ADD, ADDI, SUB, DADD, DADDI, DSUB.
    Overflow,
    /// A trap instruction's condition held.
    Trap,
    /// FCSR has a cause whose enable is set.
    FloatingPoint,
    /// A TLB write would have made two entries match one address.
    MachineCheck,
}

impl Exception {
    /// Cause.ExcCode, MIPS64 PRA vol. III, table "Cause Register ExcCode Field".
    pub fn code(self) -> u8 {
        use AccessKind::{Fetch, Load, Store};
        match self {
            Exception::Interrupt => 0,
            Exception::TlbModified { .. } => 1,
            Exception::TlbRefill { access, .. } | Exception::TlbInvalid { access, .. } => match access {
                Fetch | Load => 2,
                Store => 3,
            },
            Exception::AddressError { access, .. } => match access {
                Fetch | Load => 4,
                Store => 5,
            },
            Exception::BusError { access } => match access {
                Fetch => 6,
                Load | Store => 7,
            },
            Exception::Syscall => 8,
            Exception::Breakpoint => 9,
            Exception::ReservedInstruction => 10,
            Exception::CoprocessorUnusable { .. } => 11,
            Exception::Overflow => 12,
            Exception::Trap => 13,
            Exception::FloatingPoint => 15,
            Exception::TlbReadInhibit { .. } => 19,
            Exception::TlbExecuteInhibit { .. } => 20,
            Exception::MachineCheck => 24,
        }
    }

    /// The address that goes to BadVAddr, if this exception has one.
    pub fn bad_vaddr(self) -> Option<u64> {
        match self {
            Exception::TlbRefill { vaddr, .. }
            | Exception::TlbInvalid { vaddr, .. }
            | Exception::TlbModified { vaddr }
            | Exception::TlbReadInhibit { vaddr }
            | Exception::TlbExecuteInhibit { vaddr }
            | Exception::AddressError { vaddr, .. } => Some(vaddr),
            _ => None,
        }
    }

    /// Whether the exception also loads Context, XContext and EntryHi.VPN2 from the address.
    pub fn is_tlb(self) -> bool {
        self.bad_vaddr().is_some() && !matches!(self, Exception::AddressError { .. })
    }
}
